"""Large results take the memory of earlier ones, and nobody can tell but by the clock."""

import threading

import numpy as np
import pytest
from oracle import same_bits
from processes import run

import softmax_numba
from softmax_numba import pages

LARGE = (1500, 1000)  # float32: 6 MB


@pytest.fixture(autouse=True)
def nothing_waits():
    softmax_numba.release_memory()
    yield
    softmax_numba.release_memory()


def address(array):
    return array.__array_interface__["data"][0]


def waiting():
    return [block.nbytes for block in pages._waiting]


def test_a_result_takes_the_memory_of_one_that_is_gone():
    x = np.ones(LARGE, np.float32)
    first = softmax_numba.softmax(x)
    where = address(first)
    second = softmax_numba.softmax(x)
    assert address(second) != where
    del first
    assert waiting() == [x.nbytes]
    third = softmax_numba.softmax(x)
    assert address(third) == where and waiting() == []
    assert same_bits(third, second)


VIEWS = {
    "slice": lambda result: result[10:20, ::3],
    "transposed": lambda result: result.T,
    "other dtype": lambda result: result.view(np.int32),
    "memoryview": memoryview,
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_keeps_its_memory(view):
    x = np.ones(LARGE, np.float32)
    result = softmax_numba.softmax(x)
    where, seen = address(result), VIEWS[view](result)
    del result
    assert waiting() == []
    again = softmax_numba.softmax(x)
    assert address(again) != where
    del seen
    assert waiting() == [x.nbytes]


@pytest.mark.parametrize("shape", [(3, 500, 1000), (1500, 1000), (1500 * 1000,)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_results_are_what_they_would_be(shape, order, name):
    """Shape, dtype, memory order and bits, in memory that holds something else already."""
    shape = (2 * shape[0], *shape[1:])
    x = np.asarray(np.random.default_rng(0).normal(size=shape), name, order=order)
    for _ in range(2):
        spoilt = softmax_numba.log_softmax(x)
        spoilt[...] = np.nan
        del spoilt
        result = softmax_numba.softmax(x)
        assert result.shape == x.shape and result.dtype == x.dtype
        assert result.strides == np.empty_like(x).strides
        assert same_bits(result, softmax_numba.softmax(x, out=np.empty_like(x)))
        assert result.flags.writeable and result.flags.aligned and type(result) is np.ndarray


@pytest.mark.parametrize("seed", range(40))
def test_memory_order_is_numpys(seed):
    """Of any view: axes in any order, reversed, skipped, of length 1."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.choice([1, 2, 3, 40], rng.integers(1, 5)))
    x = np.empty(tuple(2 * n for n in shape), np.float32)
    x = x[
        tuple(
            slice(None, None, step) if step != 1 else slice(n)
            for n, step in zip(shape, rng.choice([1, 2, -2], len(shape)), strict=True)
        )
    ]
    x = x.transpose(rng.permutation(x.ndim))
    assert pages.empty_like(x, np.float64).strides == np.empty_like(x, np.float64).strides
    wide = pages.empty_like(np.broadcast_to(x[..., :1], x.shape), np.float64)
    assert wide.shape == x.shape and (wide.flags.c_contiguous or x.shape[-1] == 1)


def test_small_results_and_given_ones_have_no_part_in_it():
    small, large = np.ones((100, 100), np.float32), np.ones(LARGE, np.float32)
    del_me = softmax_numba.softmax(small)
    assert del_me.base is None
    del del_me
    softmax_numba.softmax(large, out=np.empty_like(large))
    assert waiting() == []


def test_what_waits_is_bounded(monkeypatch):
    """The oldest goes first, and what is larger than the bound never waits."""
    monkeypatch.setattr(pages, "_LIMIT", 20 * 2**20)
    held = [pages.empty((n,), np.uint8) for n in (6 * 2**20, 7 * 2**20, 8 * 2**20)]
    while held:
        held.pop(0)
    assert waiting() == [7 * 2**20, 8 * 2**20]
    assert pages.empty((21 * 2**20,), np.uint8).base is None
    softmax_numba.release_memory()
    assert waiting() == []


def test_a_block_serves_results_of_about_its_size():
    block = pages.empty((2**23,), np.uint8)
    where = address(block)
    del block
    assert address(pages.empty((2**22,), np.uint8)) != where  # half of it would be wasted
    nearly = pages.empty((2**23 - 2**20,), np.uint8)
    assert address(nearly) == where and nearly.nbytes == 2**23 - 2**20


def test_many_threads_never_share_a_block():
    x = np.ones(LARGE, np.float32)
    failures = []

    def work(number):
        for _ in range(30):
            result = softmax_numba.softmax(x)
            result[...] = number
            if not (result == number).all():
                failures.append(number)
            del result

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures
    assert len(set(map(id, pages._waiting))) == len(pages._waiting) <= 5


@pytest.mark.parametrize(("given", "kept"), [("0", 0), ("5", 0), ("100", 1), ("no number", 1), ("", 1), ("inf", 1)])
def test_the_environment_sets_the_bound(given, kept):
    program = """
    import numpy as np
    import softmax_numba
    from softmax_numba import pages
    x = np.ones((1500, 1000), np.float32)
    softmax_numba.softmax(x)
    print(len(pages._waiting))
    kept = softmax_numba.softmax(x)  # what lives until the end of the process says nothing then
    """
    assert run(program, SOFTMAX_NUMBA_KEEP_MB=given) == [str(kept)]
