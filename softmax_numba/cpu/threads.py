"""Threads: Numba's pool, used so that it takes no process down.

What goes wrong without care, each with its answer here: pip's ``libtbb`` lies off the loader's path, so that Numba does
not find it (it is loaded by its full path first); the *workqueue* layer aborts the process when two Python threads
use it at once (the second runs serially); GNU OpenMP ends a forked child at its first parallel kernel (it runs
serially); Numba's OpenMP layer changes the number of threads of everyone who shares the runtime, PyTorch among them (it
is put back).
"""

import contextlib
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numba

_guard = threading.Lock()
_serial_only = False


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
                    ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
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
    if _serial_only:
        return 1
    return int(numba.get_num_threads())


def run(parallel: Callable[[], object], serial: Callable[[], object]) -> None:
    """Calls ``parallel``, or ``serial`` where the threading layer is taken by another Python thread."""
    name = layer()
    if name is None:
        # The first call starts the pool; two at once could start a workqueue and use it before it is known as one.
        with _guard, _openmp_threads_kept():
            parallel()
    elif name == "workqueue":
        if _guard.acquire(blocking=False):
            try:
                parallel()
            finally:
                _guard.release()
        else:
            serial()
    elif name == "omp":
        with _openmp_threads_kept():
            parallel()
    else:
        parallel()


@functools.cache
def _openmp() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """The OpenMP runtime's own getter and setter of this thread's number of threads."""
    names = {"linux": "libgomp.so.1", "darwin": "libomp.dylib", "win32": "vcomp140.dll"}
    try:
        runtime = ctypes.CDLL(names.get(sys.platform, ""))
        return runtime.omp_get_max_threads, runtime.omp_set_num_threads
    except (OSError, AttributeError):
        return None


@contextlib.contextmanager
def _openmp_threads_kept() -> Iterator[None]:
    runtime = _openmp()
    if runtime is None:
        yield
        return
    get, put = runtime
    before = get()
    try:
        yield
    finally:
        put(before)


def _after_fork() -> None:
    global _guard, _serial_only
    _guard = threading.Lock()
    if layer() == "omp":
        _serial_only = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

_find_tbb()
