"""A GPU on the host: threads that meet, memory by address, shuffles, fused multiply-add, 16-bit floats.

A block's threads are greenlets, which run one at a time, each until it has to wait for others; then the next goes on
from where it waits. So a launch runs in the same order every time, and a turn costs less than a microsecond, where
threads of the system, as Numba's own simulator has them, take 10 to 90. Those that leave a barrier go on in the order
opposite to that in which they came, so what is read or written on the wrong side of one shows whichever of two threads
has to be ahead for it. The 32 of a warp exchange their values at a barrier, as the hardware does. One block runs after
the other; a cluster is one block of all the threads of its blocks, each of which is told the place that it would have.
"""

import collections
import contextvars
import ctypes
import ctypes.util
import sys
import threading
from typing import NamedTuple

import numpy as np

try:
    from greenlet import getcurrent, greenlet
except ImportError as error:
    raise ImportError("kernels run in the simulator (NUMBA_ENABLE_CUDASIM=1) with: pip install greenlet") from error

_MATH = ctypes.PyDLL(ctypes.util.find_library("m"))  # which keeps the interpreter: nobody else wants it
_MATH.fmaf.argtypes, _MATH.fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
_MATH.fma.argtypes, _MATH.fma.restype = [ctypes.c_double] * 3, ctypes.c_double


# --- threads that take turns ------------------------------------------------------------


class _Point(NamedTuple):
    x: int


class _Barrier:
    """Where so many threads meet."""

    def __init__(self, count):
        self.count, self.waiting = count, []


class _Thread:
    """A thread of a block, with its place in its warp."""

    def __init__(self, block, number, first):
        rank, thread = divmod(number, block.dim.x)
        self.block, self.rank, self.runner = block, rank, None
        self.at, self.blocks_at = _Point(thread), _Point(first + rank)
        self.warp, self.own, self.turn = block.warps[number // 32], number % 32, 0

    def go_on(self):
        """Comes back when it has to wait, or to its end."""
        global _running
        _running = self
        if self.runner is None:
            self.runner = greenlet(self._run)
            self.runner.gr_context = contextvars.copy_context()  # what NumPy does about overflows
        self.runner.switch()

    def _run(self):
        block = self.block
        try:
            block.kernel(*block.arguments)
        except BaseException as error:
            if not block.failure:
                error.add_note(f"in thread {self.at.x} of block {self.blocks_at.x}")
                block.fail(error)
        block.left -= 1

    def wait(self, barrier):
        block = self.block
        barrier.waiting.append(self)
        if len(barrier.waiting) == barrier.count:
            block.ready.extend(reversed(barrier.waiting))
            barrier.waiting.clear()
        block.launch.switch()
        if block.failure:
            raise threading.BrokenBarrierError

    def exchange(self, value, other):
        """What thread ``other(own number)`` of the warp offers for this exchange."""
        barrier, places = self.warp
        turn = self.turn
        self.turn = 32 - turn  # two sets of places, so that one barrier an exchange is enough
        places[turn + self.own] = value
        self.wait(barrier)
        return places[turn + other(self.own)]


class _Block:
    """A block, or the blocks of a cluster: its threads, and what they share."""

    def __init__(self, kernel, arguments, dim, shared, cluster, first):
        self.kernel, self.arguments, self.dim, self.dynamic = kernel, arguments, _Point(dim), shared
        count = dim * cluster
        self.barrier, self.shared, self.lines = _Barrier(count), {}, {}
        self.warps = [(_Barrier(min(32, count - begin)), [None] * 64) for begin in range(0, count, 32)]
        self.ready = collections.deque(_Thread(self, number, first) for number in range(count))
        self.left, self.failure, self.launch = count, None, getcurrent()

    def run(self):
        while self.left:
            if not self.ready:
                self.fail(threading.BrokenBarrierError("threads wait for one that left"))
            self.ready.popleft().go_on()
        if self.failure:
            raise self.failure

    def fail(self, error):
        """Nobody begins any more, and who waits goes on to its end."""
        self.failure = error
        barriers = self.barrier, *(barrier for barrier, _ in self.warps)
        waiting = [thread for barrier in barriers for thread in barrier.waiting]
        begun = [thread for thread in self.ready if thread.runner] + waiting
        self.left -= len(self.ready) + len(waiting) - len(begun)
        self.ready = collections.deque(begun)


_running: _Thread


def launched(kernel, grid, block, shared, cluster, arguments):
    """Runs a kernel; the grid counts blocks, not clusters."""
    with np.errstate(all="ignore"):  # a thread that overflows says nothing, as on the device
        for first in range(0, grid, cluster):
            _Block(kernel, arguments, block, shared, cluster, first).run()


# --- what kernels see of it -------------------------------------------------------------


class _Local:
    @staticmethod
    def array(size, kind):
        return np.empty(size, kind)


class _Shared:
    """A block has an array for every line that asks for one, and one memory whose size the launch says."""

    @staticmethod
    def array(size, kind):
        block, rank, kind = _running.block, _running.rank, np.dtype(kind)
        line = sys._getframe(1).f_lineno if size else 0
        room = block.shared.get((rank, line))
        if room is None:  # values that would show
            room = np.full(size * kind.itemsize or block.dynamic, 0x7B, np.uint8)
            room = block.shared[rank, line] = room.view(kind) if size else room
            block.lines[id(room)] = line
        return room if size else room[: len(room) // kind.itemsize * kind.itemsize].view(kind)


class _Cuda:
    """The names of numba.cuda that kernels use."""

    local, shared = _Local, _Shared
    threadIdx = property(lambda self: _running.at)
    blockIdx = property(lambda self: _running.blocks_at)
    blockDim = property(lambda self: _running.block.dim)

    @staticmethod
    def syncthreads():
        _running.wait(_running.block.barrier)


cuda = _Cuda()


def cluster_rank():
    return _running.rank


def cluster_sync():
    _running.wait(_running.block.barrier)


def store_in_cluster(shared, index, rank, value):
    block = _running.block
    block.shared[rank, block.lines[id(shared)]][index] = value


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


def from_thread(value, thread):
    return _running.exchange(value, lambda own: thread)


word_from_thread = from_thread


def across(value, distance):
    return _running.exchange(value, lambda own: own ^ distance)


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
