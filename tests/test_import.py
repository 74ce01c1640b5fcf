"""What importing the package does: compiles nothing, starts nothing, brings nothing along, takes no time."""

from pathlib import Path

import pytest
from processes import WATCH, run

BEFORE = (
    WATCH
    + """
import sys, threading
from pathlib import Path
import numba, numpy as np
def native_threads():
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1
modules, natives = set(sys.modules), native_threads()
import softmax_numba, softmax_numba.special
"""
)


def test_compiles_nothing_and_starts_no_thread():
    program = """
    assert made == [], made
    assert native_threads() == natives
    assert threading.active_count() == 1
    """
    run(program, before=BEFORE)


def test_settles_nothing_of_numba():
    """The user still chooses the threading layer, its number of threads and the start method of processes."""
    program = """
    import multiprocessing
    from softmax_numba.cpu import threads
    assert threads.layer() is None
    assert multiprocessing.get_start_method(allow_none=True) is None
    assert numba.config.THREADING_LAYER == "default"
    assert numba.config.CACHE_DIR == ""
    """
    run(program, before=BEFORE)


def test_brings_in_no_other_package():
    program = """
    brought = {name.partition(".")[0] for name in set(sys.modules) - modules}
    print(*sorted(brought - set(sys.stdlib_module_names)))
    """
    (line,) = run(program, before=BEFORE)
    assert "softmax_numba" in line.split()
    assert set(line.split()) <= {"softmax_numba", "numba", "numpy", "llvmlite"}


def test_does_not_read_or_write_the_cache(tmp_path):
    run("pass", before=BEFORE, SOFTMAX_NUMBA_CACHE_DIR=tmp_path / "kernels")
    assert not (tmp_path / "kernels").exists()


def test_calls_on_small_arrays_start_no_thread():
    """None beyond those of BLAS, which Numba brings in with any function that it compiles."""
    program = """
    numba.njit(lambda x: x.sum())(np.ones(3))
    natives = native_threads()
    for x in (np.ones(10, np.float32), np.ones((7, 5, 3), np.float32), np.ones((20, 1000), np.float32)):
        softmax_numba.softmax(x)
        softmax_numba.logsumexp(x, 0, where=x > 0)
    from softmax_numba.cpu import threads
    assert threads.layer() is None
    assert native_threads() == natives
    assert threading.active_count() == 1
    """
    run(program, before=BEFORE)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts the threads of a process by /proc")
def test_threads_are_started_by_the_first_large_call():
    """The counter that the tests above trust does see them."""
    run("softmax_numba.softmax(np.ones((700, 100), np.float32)); assert native_threads() > natives", before=BEFORE)


def test_costs_a_third_of_what_numba_does_at_most(tmp_path):
    """Of a processor, in fresh interpreters; the least of seven ratios: the machine may be busy, or slow.

    The first of them writes the byte code, which every installed package has.
    """
    program = """
    import time
    begun = time.process_time()
    import numpy, numba
    there = time.process_time()
    import softmax_numba
    print((time.process_time() - there) / (there - begun))
    """
    env = {"PYTHONDONTWRITEBYTECODE": None, "PYTHONPYCACHEPREFIX": tmp_path}
    ratios = sorted(float(run(program, **env)[0]) for _ in range(7))
    assert ratios[0] <= 1 / 3, ratios
