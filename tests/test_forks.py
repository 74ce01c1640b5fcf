"""A forked child gets right results and ends well, whatever the parent was doing with threads."""

import os
import time

import pytest
from processes import CALLS, LAYERS, needs, run

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
every_layer = pytest.mark.parametrize("layer", LAYERS)

# `child(depth)`: whether a forked child, its child and so on all find the parent's results and end well.
FORK = (
    CALLS
    + """
import os, signal, threading, time
def child(expected, depth=0):
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)  # a child that waits for ever ends badly
        good = results() == expected and (depth == 0 or child(expected, depth - 1)) and results() == expected
        os._exit(0 if good else 3)
    return os.waitpid(pid, 0)[1] == 0
"""
)


@every_layer
def test_child_and_grandchild_of_parallel_use(layer):
    needs(layer)
    program = """
    expected = results()
    assert child(expected, depth=2) and child(expected)
    assert results() == expected == serial_results()
    print(numba.threading_layer())
    """
    assert run(program, before=FORK, NUMBA_THREADING_LAYER=layer) == [layer]


@every_layer
def test_child_of_somebody_elses_parallel_use(layer):
    """Only another Numba function ran in parallel: the runtime that a child inherits is used all the same."""
    needs(layer)
    program = """
    @numba.njit(parallel=True)
    def total(x):
        s = 0.0
        for i in numba.prange(x.size):
            s += x[i]
        return s
    assert total(np.ones(100_000)) == 100_000
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        os._exit(0 if results() == serial_results() else 3)
    assert os.waitpid(pid, 0)[1] == 0
    assert results() == serial_results()
    """
    run(program, before=FORK, NUMBA_THREADING_LAYER=layer)


def test_child_of_a_parent_whose_openmp_pytorch_used():
    """libgomp's pool is gone in the child, although our own layer starts there afresh."""
    pytest.importorskip("torch")
    needs("omp")
    program = """
    import torch
    torch.set_num_threads(2)
    torch.ones(2000, 2000).softmax(-1)
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        os._exit(0 if results() == serial_results() else 3)
    assert os.waitpid(pid, 0)[1] == 0
    """
    run(program, before=FORK, python=("-W", "ignore"), NUMBA_THREADING_LAYER="omp")


@every_layer
def test_fork_while_other_threads_are_in_parallel_calls(layer):
    needs(layer)
    program = """
    expected = results()
    large = np.random.default_rng(0).normal(size=(2000, 1000)).astype(np.float32)
    right, stop, counts = softmax(large).tobytes(), False, [0, 0, 0]
    def work(k):
        mine = np.empty_like(large)
        while not stop:
            softmax(large, out=mine)
            counts[k] += 1
        if mine.tobytes() != right:
            counts[k] = 0
    workers = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for worker in workers: worker.start()
    good = [child(expected, depth=i % 2) for i in range(8)]
    stop = True
    for worker in workers: worker.join()
    assert all(good), good
    assert min(counts) > 0, counts
    assert results() == expected
    """
    run(program, before=FORK, NUMBA_THREADING_LAYER=layer)


@every_layer
def test_fork_by_another_thread(layer):
    """Also while the main thread is in parallel calls. TBB's own word about that goes to stderr from Numba."""
    needs(layer)
    program = """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    expected, good = results(), []
    worker = threading.Thread(target=lambda: good.extend(child(expected, depth=1) for _ in range(3)))
    worker.start()
    while worker.is_alive():
        assert results() == expected
    assert good == [True] * 3, good
    """
    run(program, before=FORK, NUMBA_THREADING_LAYER=layer)


def test_fork_while_another_thread_makes_a_kernel():
    """The child would wait for ever for a lock that nobody of its own holds."""
    program = """
    from numba.core import event
    begun = threading.Event()
    class Watch(event.Listener):
        def on_start(self, event): begun.set()
        def on_end(self, event): pass
    event.register("numba:compile", Watch())
    x = np.random.default_rng(0).normal(size=(30, 40))
    worker = threading.Thread(target=logsumexp, args=(x,))
    worker.start()
    assert begun.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        good = np.allclose(logsumexp(x), np.log(np.exp(x).sum(-1)))
        os._exit(0 if good else 3)
    assert os.waitpid(pid, 0)[1] == 0
    worker.join()
    """
    run(program, before=FORK, SOFTMAX_NUMBA_CACHE_DIR="")


def test_fork_by_the_thread_that_makes_a_kernel():
    """A signal handler may fork in the middle of anything: it does not wait for itself."""
    program = """
    from softmax_numba.cpu import threads
    expected = results()
    statuses = []
    def handler(number, frame):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        statuses.append(os.waitpid(pid, 0)[1])
    signal.signal(signal.SIGUSR1, handler)
    def interrupted():
        os.kill(os.getpid(), signal.SIGUSR1)
        time.sleep(0.01)
    threads.run(interrupted)
    assert statuses == [0]
    assert results() == expected
    """
    run(program, before=FORK)


@every_layer
def test_process_pools(layer, tmp_path):
    """multiprocessing's and concurrent.futures' workers, forked and spawned, after parallel use by the parent."""
    needs(layer)
    (tmp_path / "work.py").write_text(CALLS, encoding="utf-8")
    program = """
    import multiprocessing, numba, sys
    from concurrent.futures import ProcessPoolExecutor
    sys.path.insert(0, "")
    if __name__ == "__main__":
        import work
        expected = work.results()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(work.results, range(4)) == [expected] * 4
        for method in ("fork", "spawn") if numba.threading_layer() == "omp" else ("fork",):
            with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
                assert list(pool.map(work.results, range(2))) == [expected] * 2
        assert work.results() == expected
    """
    run(program, python=("-W", "ignore"), cwd=tmp_path, NUMBA_THREADING_LAYER=layer)


def test_forks_from_threads_that_call_in_turn():
    """Many forks against many calls, for a while: neither side waits for ever."""
    program = """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    expected, end, counts = results(), time.monotonic() + 3, {"calls": 0, "forks": 0}
    def call():
        while time.monotonic() < end:
            assert results() == expected
            counts["calls"] += 1
    def fork():
        while time.monotonic() < end:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            counts["forks"] += 1
    workers = [threading.Thread(target=f) for f in (call, call, call, fork, fork)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    assert min(counts.values()) > 5, counts
    """
    started = time.monotonic()
    run(program, before=FORK, NUMBA_THREADING_LAYER="workqueue")
    assert time.monotonic() - started < 60
