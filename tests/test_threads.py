"""Calls from many Python threads, each threading layer, and peace with everyone else who has threads."""

import importlib.metadata

import numba
import numpy as np
import pytest
from processes import CALLS, LAYERS, THREADS, WATCH, attempt, needs, run

from softmax_numba import softmax
from softmax_numba.cpu import sweeps, threads

every_layer = pytest.mark.parametrize("layer", LAYERS)

# The first calls of a process, from eight threads at once: the layer starts and kernels are made under their feet.
AT_ONCE = """
import threading
start, found, errors = threading.Barrier(8), {}, []
def work(k):
    start.wait()
    try:
        found[k] = [results(first=k) for _ in range(3)]
    except BaseException as error:
        errors.append(error)
workers = [threading.Thread(target=work, args=(k,)) for k in range(8)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert not errors, errors
expected = serial_results()
assert sorted(found) == list(range(8))
assert all(r == expected for rounds in found.values() for r in rounds)
print(numba.threading_layer())
"""


def wheel_of_tbb():
    try:
        return importlib.metadata.version("tbb")
    except importlib.metadata.PackageNotFoundError:
        return None


@every_layer
def test_first_calls_from_eight_threads_at_once(layer):
    needs(layer)
    assert run(AT_ONCE, before=CALLS, NUMBA_THREADING_LAYER=layer) == [layer]


def test_first_calls_from_eight_threads_at_once_without_a_cache():
    """Threads that ask for one kernel at the same time get it, though only one of them makes it."""
    program = """
    import threading, numpy as np, numba
    from softmax_numba import logsumexp
    start, found = threading.Barrier(8), []
    x = np.random.default_rng(0).normal(size=(30, 40))
    def work():
        start.wait()
        found.append(logsumexp(x).tobytes())
    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    assert found == [logsumexp(x).tobytes()] * 8
    assert made.count("logsumexp_rows") == 1, made
    """
    run(program, before=WATCH, SOFTMAX_NUMBA_CACHE_DIR="")


@every_layer
def test_a_long_lane_after_rows_while_the_layer_is_taken(layer):
    """Whatever was called before: two threads with one long lane each, whose second may have to run serially."""
    needs(layer)
    program = """
    import threading
    x = np.random.default_rng(1).normal(size=1_000_000).astype(np.float32)
    softmax(x[:70_000].reshape(700, 100)); numba.set_num_threads(1); softmax(x[:70_000].reshape(700, 100), 1)
    expected = softmax(x).tobytes()
    found = []
    def work():
        for _ in range(20):
            found.append(softmax(x).tobytes() == expected)
    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    assert found == [True] * 60
    """
    run(program, before=CALLS, NUMBA_THREADING_LAYER=layer)


@pytest.mark.skipif(wheel_of_tbb() is None, reason="the tbb wheel exists for x86-64 Linux and Windows only")
def test_the_default_is_tbb():
    """From the wheel, whose folder the loader does not search; also where the user asks Numba first."""
    assert run("results(); print(numba.threading_layer())", before=CALLS, LD_LIBRARY_PATH=None) == ["tbb"]
    program = "import numba, softmax_numba; numba.set_num_threads(1); print(numba.threading_layer())"
    assert run(program, LD_LIBRARY_PATH=None) == ["tbb"]


@every_layer
def test_the_users_choice_in_numba_config(layer):
    needs(layer)
    program = f"numba.config.THREADING_LAYER = {layer!r}; results(); print(numba.threading_layer())"
    assert run(program, before=CALLS) == [layer]


def test_an_unknown_layer_is_numbas_error():
    """It names the value; with one thread, and for small arrays, nobody asks."""
    finished = attempt("softmax(np.ones((5, 5))); results()", before=CALLS, NUMBA_THREADING_LAYER="nosuch")
    assert finished.returncode == 1
    assert "nosuch" in finished.stderr.splitlines()[-1]


@every_layer
def test_with_a_users_own_parallel_function(layer):
    """The layer that it started is used as it is; both are right before and after."""
    needs(layer)
    program = """
    @numba.njit(parallel=True)
    def total(x):
        s = 0.0
        for i in numba.prange(x.size):
            s += x[i]
        return s
    ones = np.ones(100_000)
    assert total(ones) == 100_000
    numba.set_num_threads(2)
    expected = serial_results()
    for _ in range(3):
        assert results() == expected and total(ones) == 100_000
    assert numba.get_num_threads() == 2
    print(numba.threading_layer())
    """
    assert run(program, before=CALLS, NUMBA_THREADING_LAYER=layer) == [layer]


# --- the number of threads ----------------------------------------------------------


@pytest.fixture
def recorded_shares(monkeypatch):
    """The shares of every plan that is carried out."""
    shares, run_plan = [], sweeps.run
    monkeypatch.setattr(sweeps, "run", lambda *a: (shares.append(a[1].shares), run_plan(*a))[1])
    return shares


@pytest.fixture
def set_threads():
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core: nothing runs in parallel")
def test_set_num_threads_is_respected(recorded_shares, set_threads):
    x = np.zeros((700, 100), ">f4")  # foreign bytes: a door would not ask for a plan
    set_threads(1)
    softmax(x)
    assert recorded_shares == [1]
    assert numba.get_num_threads() == 1
    set_threads(2)
    softmax(x)
    assert recorded_shares[1] > 1
    assert numba.get_num_threads() == 2


@every_layer
def test_number_of_threads_belongs_to_the_python_thread(layer):
    needs(layer)
    program = """
    import threading
    from softmax_numba.cpu import threads
    numba.set_num_threads(1)
    found = []
    def work():
        found.append(threads.in_use()); results(); numba.set_num_threads(2); found.append(threads.in_use())
    worker = threading.Thread(target=work)
    worker.start(); worker.join()
    print(*found, threads.in_use(), threads.available())
    """
    expected = f"{THREADS} 2 1 {THREADS}"
    assert run(program, before=CALLS, NUMBA_THREADING_LAYER=layer) == [expected]


def test_reported_numbers(set_threads):
    assert threads.available() == numba.config.NUMBA_NUM_THREADS
    set_threads(1)
    assert threads.in_use() == 1
    assert threads.layer() == numba.threading_layer()


def test_a_call_does_not_settle_how_multiprocessing_starts_processes():
    """Numba asks for the start method, after which Python lets nobody set it; and one that is set stays."""
    program = """
    import multiprocessing
    results()
    multiprocessing.set_start_method("spawn")
    assert multiprocessing.get_start_method() == "spawn"
    """
    run(program, before=CALLS)
    program = """
    import multiprocessing
    multiprocessing.set_start_method("spawn")
    results()
    assert multiprocessing.get_start_method(allow_none=True) == "spawn"
    """
    run(program, before=CALLS)


# --- beside PyTorch -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "order"),
    [
        ("default", "torch, softmax_numba"),
        ("omp", "torch, softmax_numba"),
        ("omp", "softmax_numba, torch"),
        ("workqueue", "softmax_numba, torch"),
    ],
)
def test_pytorch_keeps_its_number_of_threads(layer, order):
    """Set to 1, 2 and 3 before our first, later and many-threaded calls; its own results stay, too."""
    pytest.importorskip("torch")
    if layer != "default":
        needs(layer)
    program = """
    import threading
    x = torch.arange(200_000, dtype=torch.float32).remainder(83).reshape(2000, 100)
    for count in (3, 1, 2):
        torch.set_num_threads(count)
        before = torch.softmax(x, -1)
        y = softmax_numba.softmax(x)
        assert torch.get_num_threads() == count, (count, torch.get_num_threads())
        assert torch.equal(torch.softmax(x, -1), before)
        assert torch.allclose(y, before, rtol=1e-5) and torch.equal(softmax_numba.softmax(x), y)
        def work():
            mine = torch.get_num_threads()
            softmax_numba.softmax(x)
            assert torch.get_num_threads() == mine
        worker = threading.Thread(target=work)
        worker.start(); worker.join()
        assert torch.get_num_threads() == count
    """
    run(program, before=f"import {order}", python=("-W", "ignore"), NUMBA_THREADING_LAYER=layer)


def test_pytorch_imported_after_our_first_call():
    pytest.importorskip("torch")
    needs("omp")
    program = """
    results()
    import torch
    for count in (3, 1):
        torch.set_num_threads(count)
        expected = torch.ones(300, 300).softmax(-1)
        results()
        assert torch.get_num_threads() == count
        assert torch.equal(torch.ones(300, 300).softmax(-1), expected)
    """
    run(program, before=CALLS, python=("-W", "ignore"), NUMBA_THREADING_LAYER="omp")
