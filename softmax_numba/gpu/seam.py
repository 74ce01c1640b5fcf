"""The one place that knows Numba's CUDA target: its successor, or the next, is put in here.

Kernels are plain functions over addresses and numbers. ``device`` marks what they call, ``cuda`` names threads, blocks
and shared memory, the operations beneath come from ``intrinsics.py``; in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) the
same names come from ``simulated.py``, and no kernel knows the difference.
"""

import contextlib
import importlib
import re
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the simulator's import deprecates itself
    from numba import cuda as _cuda

SIMULATED: bool = not hasattr(_cuda, "compile") or _cuda.config.ENABLE_CUDASIM

operations: Any = importlib.import_module(f"softmax_numba.gpu.{'simulated' if SIMULATED else 'intrinsics'}")
cuda: Any = operations.cuda if SIMULATED else _cuda

fma = operations.fma
exponent_of = operations.exponent_of
reciprocal32, reciprocal64 = operations.reciprocal32, operations.reciprocal64
quotient = operations.quotient
from_thread, word_from_thread = operations.from_thread, operations.word_from_thread
across = operations.across
load_float32, load_float64, load_half, load_byte = (
    operations.load_float32,
    operations.load_float64,
    operations.load_half,
    operations.load_byte,
)
load_integer, load_index, store_int32 = operations.load_integer, operations.load_index, operations.store_int32
store_float32, store_float64 = operations.store_float32, operations.store_float64
store_half, store_byte = operations.store_half, operations.store_byte
load_float32x4, load_float64x2, load_wordx4 = (
    operations.load_float32x4,
    operations.load_float64x2,
    operations.load_wordx4,
)
store_float32x4, store_float64x2, store_wordx4 = (
    operations.store_float32x4,
    operations.store_float64x2,
    operations.store_wordx4,
)
halves, of_halves, of_bfloats = operations.halves, operations.of_halves, operations.of_bfloats
bfloats = operations.bfloats
cluster_rank, cluster_sync, store_in_cluster = (
    operations.cluster_rank,
    operations.cluster_sync,
    operations.store_in_cluster,
)


def device(function: Callable) -> Callable:
    """Marks what kernels call: inlined, so that arrays in registers stay there."""
    return function if SIMULATED else _cuda.jit(device=True, forceinline=True)(function)


_LOCK = threading.RLock()


@contextlib.contextmanager
def _compiling_for(capability: tuple[int, int]) -> Iterator[None]:
    """Functions that kernels call are compiled for the current device, says Numba, and so asks for one; this is it."""
    from numba.cuda import dispatcher

    with _LOCK:
        asks = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
        try:
            yield
        finally:
            dispatcher.get_current_device = asks


class Compiled(NamedTuple):
    """A kernel's machine code and the name under which it stands there."""

    name: str
    ptx: str
    cubin: bytes
    log: str  # the assembler's: registers, spills


def compiled(kernel: Callable, signature: Any, arch: str, threads: int) -> Compiled:
    """Compiles without a GPU, for blocks of at most ``threads``."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    digits = arch.removeprefix("sm_")
    capability = int(digits[:-1]), int(digits[-1])
    with _compiling_for(capability), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ptx, _ = _cuda.compile(
            kernel,
            signature,
            cc=capability,
            device=False,
            abi="numba",
            output="ptx",
            launch_bounds=threads,
        )
    found = re.search(r"\.entry\s+(\S+)\(", ptx)
    if found is None:
        raise RuntimeError(f"no entry in the PTX of {kernel.__name__}")
    linker = Linker(ObjectCode.from_ptx(ptx.encode()), options=LinkerOptions(arch=arch, verbose=True))
    linked = linker.link("cubin")
    return Compiled(found[1], ptx, bytes(linked.code), linker.get_info_log())


def device_array(shape: tuple[int, ...], dtype: Any) -> Any:
    """A device array of Numba's."""
    return _cuda.device_array(shape, dtype)


def simulate(kernel: Callable, grid: int, block: int, shared: int, cluster: int, arguments: tuple[Any, ...]) -> None:
    """Runs a kernel on the host, to its end."""
    operations.launched(kernel, grid, block, shared, cluster, arguments)
