"""The bound: a copy that really copies, and a read that really reads."""

import numpy as np
import pytest

from softmax_numba.bench.machine import available_threads
from softmax_numba.bench.roofline import (
    COPY,
    EXPONENTIAL,
    MERGE,
    READ,
    STREAMING_COPY,
    STREAMING_MERGE,
    bounds,
    exponential,
    merges,
    one_block,
)


def fresh(count, dtype, offset):
    """An array that begins ``offset`` bytes after an aligned place."""
    raw = np.zeros(count * np.dtype(dtype).itemsize + 128, np.uint8)
    start = -raw.ctypes.data % 64 + offset
    return raw[start : start + count * np.dtype(dtype).itemsize].view(dtype)


@pytest.mark.parametrize("kind", [COPY, STREAMING_COPY])
@pytest.mark.parametrize("threads", sorted({1, available_threads()}))
@pytest.mark.parametrize(("count", "dtype"), [(1, "f4"), (33, "f4"), (4097, "f8"), (300_001, "f4"), (70_001, "u2")])
@pytest.mark.parametrize(("x_offset", "out_offset"), [(0, 0), (16, 16), (8, 48)])
def test_copy_moves_all_but_the_ends(kind, threads, count, dtype, x_offset, out_offset):
    x, out = fresh(count, dtype, x_offset), fresh(count, dtype, out_offset)
    x[:] = np.arange(count) % 97 + 1
    bounds(x, out, threads)[kind]()
    wrong = np.flatnonzero(out != x)
    assert wrong.size * x.itemsize < 128
    inner = out[128 // x.itemsize : -128 // x.itemsize]
    assert np.array_equal(inner, x[128 // x.itemsize : -128 // x.itemsize])


@pytest.mark.parametrize("layout", ["F", "reversed", "moved"])
def test_copy_stays_within_arrays_of_any_layout(layout):
    base = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
    x = {"F": np.asfortranarray(base), "reversed": base[::-1], "moved": np.moveaxis(base, 0, 1)}[layout]
    guarded = np.full(x.size + 64, -1, np.float32)
    out = guarded[32:-32].reshape(x.shape)
    for call in bounds(x, out, 1).values():
        call()
    assert (guarded[:32] == -1).all()
    assert (guarded[-32:] == -1).all()
    assert (out >= 0).mean() > 0.95


def test_read_bounds_a_reduction_and_leaves_the_result_alone():
    x, out = np.ones((1000, 700), np.float32), np.full(1000, 7, np.float32)
    calls = bounds(x, out, available_threads())
    assert list(calls) == [READ]
    calls[READ]()
    assert (out == 7).all()


def test_read_takes_time_in_proportion():
    """A read whose result nobody used would be optimised away."""
    from softmax_numba.bench.timing import Budget, interleaved, spread

    small, large = np.ones(2**16, np.float32), np.ones(2**20, np.float32)
    calls = {
        "small": bounds(small, small[:1], 1)[READ],
        "large": bounds(large, large[:1], 1)[READ],
    }
    figures = interleaved(calls, Budget(0.3, 5, 15))
    assert spread(figures["large"].seconds).median > 5 * spread(figures["small"].seconds).median


@pytest.mark.parametrize("kind", [MERGE, STREAMING_MERGE])
@pytest.mark.parametrize("threads", sorted({1, available_threads()}))
@pytest.mark.parametrize(("count", "offset"), [(1, 0), (33, 8), (300_001, 16)])
def test_a_merge_reads_both_arrays_and_writes_all_but_the_ends(kind, threads, count, offset):
    x, other, out = fresh(count, "i4", 0), fresh(count, "i4", offset), fresh(count, "i4", 2 * offset)
    x[:], other[:] = np.arange(1, count + 1), 2**25 + np.arange(count) % 7
    merges(x, other, out, threads)[kind]()
    right = out == x | other
    assert right.size - right.sum() < 32
    assert right[32:-32].all()


def test_what_differs_in_size_is_not_merged():
    x = np.ones(1000, np.float32)
    assert merges(x, x.astype(np.float64), np.empty_like(x), 1) == {}


def test_integers_have_a_bound_too():
    x, out = np.ones((100, 100), np.int16), np.zeros((100, 100), np.float64)
    calls = bounds(x, out, 1)
    for call in calls.values():
        call()
    assert set(calls) == {COPY, STREAMING_COPY}


@pytest.mark.parametrize("threads", sorted({1, available_threads()}))
@pytest.mark.parametrize("name", ["float32", "float64", "float16"])
def test_the_bare_exponential_is_one(name, threads):
    """Of every element but a few at the end, up to a power of two."""
    x = np.random.default_rng(0).uniform(-3, -1, (300, 1001)).astype(name)
    out = np.zeros_like(x)
    exponential(x, out, threads)[EXPONENTIAL]()
    done = x.size // 64 * 64
    if name == "float16":  # the factor is beyond the range of the results
        assert np.isinf(out.ravel()[:done]).all()
        return
    ratio = out.ravel()[:done] / np.exp(x.astype(np.float64)).ravel()[:done]
    factor = 2.0 ** np.round(np.log2(ratio[0]))
    assert np.allclose(ratio, factor, rtol=1e-6, atol=0)


def test_of_a_reduction_the_exponentials_are_only_added_up():
    x, out = np.ones((1000, 700), np.float32), np.full(1000, 7, np.float32)
    calls = exponential(x, out, available_threads())
    calls[EXPONENTIAL]()
    assert (out == 7).all()


def test_no_exponential_of_what_is_no_row_of_floats():
    x = np.ones((100, 100), np.float32)
    assert exponential(x.T, x, 1) == {}
    assert exponential(x.astype(int), x, 1) == {}


def test_one_block():
    x = np.ones((10, 12))
    assert one_block(x) and one_block(x.T) and one_block(x[2:5])
    assert not one_block(x[:, ::2]) and not one_block(x[::-1]) and not one_block(np.broadcast_to(x[0], x.shape))
