"""Threads: Numba's pool, used so that it takes no process down.

What goes wrong without care, each with its answer here:

- pip's ``libtbb`` lies off the loader's path, so that Numba does not find it: it is loaded by its full path first.
- The *workqueue* layer aborts the process when two Python threads use it at once: the second runs serially.
- A fork in the middle of a parallel call leaves the child with half a pool: a fork waits until those calls are over,
  and what begins meanwhile runs serially.
- GNU OpenMP ends a forked child at its first parallel kernel: there, everything runs serially.
- Numba's start of OpenMP changes the number of threads of everyone who shares the runtime, PyTorch among them, and its
  start of any layer settles how ``multiprocessing`` starts processes: both are put back.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic
from numba.np.ufunc import parallel as _numba_threads

from softmax_numba.cpu.compiled import making

_door = threading.Condition()  # its lock may be taken twice: a signal handler may call us, or fork
_inside: set[int] = set()  # Python threads in a parallel call
_forks = 0  # how many are waiting or under way
_serial_only = False
_started = False  # what Numba has chosen stays
_forked = False


def _find_tbb() -> None:
    """Loads the TBB of the ``tbb`` wheel, which Numba then finds by its name; starts no thread.

    On import, because whoever calls ``numba.set_num_threads`` first has Numba choose its layer then and there.
    """
    if sys.platform == "linux":
        names = ["libtbb.so.12"]
    elif sys.platform == "win32":
        names = ["tbb12.dll"]
    else:
        return
    folders = [Path(sys.prefix) / "lib", Path(sys.prefix) / "Library" / "bin"]
    for name in names:
        for folder in folders:
            if (folder / name).exists():
                with contextlib.suppress(OSError):  # a system's own TBB may still be found
                    ctypes.CDLL(str(folder / name))
                    return


def layer() -> str | None:
    """The threading layer in use (``"tbb"``, ``"omp"``, ``"workqueue"``), None before the first parallel call."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


def available() -> int:
    """How many threads a call may use at most (``NUMBA_NUM_THREADS``)."""
    return int(numba.config.NUMBA_NUM_THREADS)


def in_use() -> int:
    """How many threads a call made now uses: ``numba.set_num_threads`` of this thread, 1 where only serial is safe."""
    if not _started:
        _start()
    if _serial_only or (_forked and layer() == "omp"):
        return 1
    return int(_numba_threads._get_num_threads())  # the public function takes two locks first: 0.7 µs


def address_of_question() -> int:
    """Where the machine code stands that says how many threads a parallel call of this thread uses, once that is
    settled: a C function without arguments."""
    return ctypes.cast(_numba_threads._get_num_threads, ctypes.c_void_p).value or 0


# How many shares of a parallel loop make a task for whoever is free. By default (0) Numba hands each thread one equal
# part, and a core that is busy with something else, another library's threads that still spin, holds up everybody.
# These find the layer's functions by name when a kernel is loaded; Numba's own, once compiled, hold addresses of their
# process, and no cache can keep those.


@intrinsic
def share_size(typing: Any) -> Any:
    """How many shares make a task in this thread."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [])
        return builder.call(get_or_insert_function(builder.module, kind, "get_parallel_chunksize"), args)

    return types.uintp(), emit


@intrinsic
def set_share_size(typing: Any, size: Any) -> Any:
    """Sets how many shares make a task in this thread."""

    def emit(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(get_or_insert_function(builder.module, kind, "set_parallel_chunksize"), args)
        return context.get_dummy_value()

    return types.void(types.uintp), emit


def run(parallel: Callable[..., object], *arguments: object) -> bool:
    """Calls ``parallel(*arguments)``; False where another thread has the workqueue or is about to fork."""
    me = threading.get_ident()
    # First in, then look: of two threads that do so at the same time, one at least sees the other.
    _inside.add(me)
    try:
        if _forks or (len(_inside) > 1 and layer() == "workqueue"):
            return False
        parallel(*arguments)
        return True
    finally:
        _inside.discard(me)
        if _forks:
            with _door:
                _door.notify_all()


def _start() -> None:
    """Has Numba choose and start its threading layer, unless that is done."""
    global _started
    if layer() is None:
        with _openmp_threads_kept(), _start_method_kept():
            numba.get_num_threads()
    _started = True


@contextlib.contextmanager
def _start_method_kept() -> Iterator[None]:
    """Leaves ``multiprocessing.set_start_method`` to the user, who may call it once; Numba asks, which settles it."""
    import multiprocessing  # as Numba does here; importing the package does not need it

    undecided = multiprocessing.get_start_method(allow_none=True) is None
    yield
    if undecided:
        multiprocessing.set_start_method(None, force=True)


@contextlib.contextmanager
def _openmp_threads_kept() -> Iterator[None]:
    before = [(runtime, runtime.omp_get_max_threads()) for runtime in _openmp_runtimes()]
    yield
    for runtime, count in before:
        runtime.omp_set_num_threads(count)


def _openmp_runtimes() -> Iterator[Any]:
    """The OpenMP runtimes in this process that Numba's may turn out to be; none is loaded for this."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return
    for name in ("libgomp.so.1", "libgomp.so.1.0.0", "libomp.dylib", "libiomp5.dylib", None):
        with contextlib.suppress(OSError, AttributeError):
            runtime = ctypes.CDLL(name, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
            if runtime.omp_get_max_threads and runtime.omp_set_num_threads:
                yield runtime


def _before_fork() -> None:
    global _forks
    me = threading.get_ident()
    with _door:
        _forks += 1
        while _inside - {me}:
            _door.wait()
    making.acquire()


def _after_fork_in_parent() -> None:
    global _forks
    making.release()
    with _door:
        _forks -= 1


def _after_fork_in_child() -> None:
    global _door, _forks, _forked
    making.release()
    _door = threading.Condition()
    _inside.clear()
    _forks, _forked = 0, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

_find_tbb()
