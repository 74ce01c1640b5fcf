"""What Numba's simulator lacks, on the host: memory by address, shuffles, fused multiply-add, 16-bit floats.

A thread of the simulator is a thread of Python. The 32 of a warp exchange their values at a barrier, as the hardware
does. The simulator runs one block after the other; a cluster is one block of all the threads of its blocks, each of
which is told the place that it would have.
"""

import ctypes
import ctypes.util
import functools
import sys
import threading
from typing import Any

import numpy as np
from numba.cuda.simulator import kernel as simulator

_MATH = ctypes.CDLL(ctypes.util.find_library("m"))
_MATH.fmaf.argtypes, _MATH.fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
_MATH.fma.argtypes, _MATH.fma.restype = [ctypes.c_double] * 3, ctypes.c_double


class _Cuda:
    """The simulator's module of the running kernel, whoever asks; in a cluster, as a block of it sees it."""

    def __getattr__(self, name: str) -> Any:
        block = threading.current_thread()._manager
        found = getattr(simulator._get_kernel_context(), name)
        if block.cluster == 1 or name not in ("threadIdx", "blockIdx", "blockDim", "shared"):
            return found
        threads = block._block_dim[0] // block.cluster
        if name == "threadIdx":
            return simulator.Dim3(found.x % threads, 0, 0)
        if name == "blockIdx":
            return simulator.Dim3(found.x * block.cluster + cluster_rank(), 0, 0)
        return simulator.Dim3(threads, 1, 1) if name == "blockDim" else _Shared


cuda = _Cuda()


class _Shared:
    """The shared memory of a block of a cluster."""

    @staticmethod
    def array(size, kind):
        block, line = threading.current_thread()._manager, sys._getframe(1).f_lineno
        with _LOCK:
            found = block.shared.setdefault((cluster_rank(), line), np.zeros(size, kind))
            block.lines[id(found)] = line
        return found


_LOCK = threading.Lock()


def cluster_rank():
    me = threading.current_thread()
    return me.thread_id // (me._manager._block_dim[0] // me._manager.cluster)


def cluster_sync():
    threading.current_thread().syncthreads()


def store_in_cluster(shared, index, rank, value):
    block = threading.current_thread()._manager
    block.shared[rank, block.lines[id(shared)]][index] = value


def quiet(kernel):
    """A thread that overflows says nothing, as on the device."""

    @functools.wraps(kernel)
    def run(*arguments):
        with np.errstate(all="ignore"):
            kernel(*arguments)

    return run


def launched(kernel, grid, block, shared, cluster, arguments):
    """Runs a kernel; the grid counts blocks, not clusters."""
    _Block.cluster = cluster
    try:
        simulated = simulator.FakeCUDAKernel(quiet(kernel), device=False)
        simulated[grid // cluster, block * cluster, 0, shared](*arguments)
    finally:
        _Block.cluster = 1


def fma(a, b, c):
    if isinstance(a, np.float32):
        return np.float32(_MATH.fmaf(a, b, c))
    return np.float64(_MATH.fma(a, b, c))


def exponent_of(biased):
    if isinstance(biased, np.float32):
        return (biased.view(np.uint32) << np.uint32(23)).view(np.float32)
    return (biased.view(np.uint64) << np.uint64(52)).view(np.float64)


def reciprocal32(x):
    return np.float32(1) / x


def reciprocal64(x):
    return np.float64(1) / x


def quotient(a, b):
    return a // b


# --- shuffles ---------------------------------------------------------------------------


class _Thread(simulator.BlockThread):
    """A thread of a block, with its place in its warp."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.warp = self._manager.warps[self.thread_id // 32]
        self.own, self.turn = self.thread_id % 32, 0

    def run(self):
        super().run()
        if self.exception:
            self._manager.give_up()

    def syncthreads(self):
        self._manager.barrier.wait(_PATIENCE)

    def exchange(self, value, other):
        """What thread ``other(own number)`` of the warp offers for this exchange."""
        barrier, places = self.warp
        turn = self.turn
        self.turn = 32 - turn  # two sets of places, so that one barrier an exchange is enough
        places[turn + self.own] = value
        barrier.wait(_PATIENCE)
        return places[turn + other(self.own)]


class _Block(simulator.BlockManager):
    """The simulator's own looks at all its threads all the time, which leaves them little of the interpreter."""

    cluster = 1  # how many blocks this one stands for

    def run(self, grid_point, *arguments):
        count = int(np.prod(self._block_dim))
        self.barrier, self.shared, self.lines = threading.Barrier(count), {}, {}
        self.warps = [(threading.Barrier(min(32, count - first)), [None] * 64) for first in range(0, count, 32)]
        points = np.ndindex(*self._block_dim)
        threads = [_Thread(lambda: self._f(*arguments), self, grid_point, point, self._debug) for point in points]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        failed = [t.exception for t in threads if t.exception]
        if failed:  # a barrier that others left broken is not what went wrong first
            first = next((f for f in failed if not isinstance(f[0], threading.BrokenBarrierError)), failed[0])
            raise first[0].with_traceback(first[1])

    def give_up(self):
        for barrier in (self.barrier, *(barrier for barrier, _ in self.warps)):
            barrier.abort()


simulator.BlockManager = _Block
_PATIENCE = 60  # seconds; then a thread waits for one that left


def from_thread(value, thread):
    return threading.current_thread().exchange(value, lambda own: thread)


word_from_thread = from_thread


def across(value, distance):
    return threading.current_thread().exchange(value, lambda own: own ^ distance)


# --- memory by address ------------------------------------------------------------------


def _load(kind, result):
    return lambda address: result(kind.from_address(int(address)).value)


def _store(kind):
    def store(address, value):
        kind.from_address(int(address)).value = value if isinstance(value, int) else value.item()

    return store


load_float32, load_float64 = _load(ctypes.c_float, np.float32), _load(ctypes.c_double, np.float64)
load_half, load_byte = _load(ctypes.c_uint16, np.uint32), _load(ctypes.c_uint8, np.uint32)
store_float32, store_float64 = _store(ctypes.c_float), _store(ctypes.c_double)
store_half, store_byte = _store(ctypes.c_uint16), _store(ctypes.c_uint8)


load_integer = {
    name: _load(getattr(ctypes, f"c_{name}"), np.float64)
    for name in (f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
}

load_index = {
    name: _load(getattr(ctypes, f"c_{name}"), lambda found: np.int64(min(found, 2**63 - 1))) for name in load_integer
}
store_int32 = _store(ctypes.c_int32)


def _aligned(address):
    if address % 16:
        raise ValueError(f"a 16-byte access at {address:#x}")
    return int(address)


def _vector_load(kind, count, result):
    return lambda address: tuple(result(v) for v in (kind * count).from_address(_aligned(address)))


def _vector_store(kind, count):
    def store(address, values):
        (kind * count).from_address(_aligned(address))[:] = [v.item() for v in values]

    return store


load_float32x4 = _vector_load(ctypes.c_float, 4, np.float32)
load_float64x2 = _vector_load(ctypes.c_double, 2, np.float64)
load_wordx4 = _vector_load(ctypes.c_uint32, 4, np.uint32)
store_float32x4, store_float64x2 = _vector_store(ctypes.c_float, 4), _vector_store(ctypes.c_double, 2)
store_wordx4 = _vector_store(ctypes.c_uint32, 4)


# --- 16-bit floats, two a word ----------------------------------------------------------


def halves(word):
    low, high = np.array([word], np.uint32).view(np.float16)
    return np.float32(low), np.float32(high)


def of_halves(low, high):
    return np.array([low, high]).astype(np.float16).view(np.uint32)[0]


def bfloats(word):
    word = np.uint32(word)
    return (word << np.uint32(16)).view(np.float32), (word & np.uint32(0xFFFF0000)).view(np.float32)


def _bfloat(x):
    bits = int(np.float32(x).view(np.uint32))
    if x != x:
        return 0x7FFF
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def of_bfloats(low, high):
    return np.uint32(_bfloat(low) | _bfloat(high) << 16)
