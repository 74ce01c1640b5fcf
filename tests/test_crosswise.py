"""Many vectors reduced at once give each the bits that it has alone."""

import numpy as np
import pytest
from numba import njit
from oracle import same_bits

from softmax_numba.cpu import crosswise
from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.memory import filled, load, store
from softmax_numba.cpu.simd import largest_of
from softmax_numba.cpu.sums import as_total, collapsed

every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def on_a_line(array):
    """A copy that begins on a cache line."""
    room = np.empty(array.nbytes + 64, np.uint8)
    copy = room[-room.ctypes.data % 64 :][: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@njit(error_model="numpy")
def reduced(x, count, top, tied):
    p = start_of(x)
    store(start_of(top), 0, crosswise.largest_of_each(p, count))
    store(start_of(tied), 0, crosswise.sum_of_each(p, count))


@every_float
def test_largest_and_sum(dtype):
    width = 64 // np.dtype(dtype).itemsize
    for seed in range(20):
        x = np.random.default_rng(seed).integers(-1000, 1000, (width, width)).astype(dtype)
        x[seed % width, :] = -np.inf if seed % 2 else 7
        top, total = np.empty(width, dtype), np.empty(width, dtype)
        reduced(on_a_line(x), width, top, total)
        assert same_bits(top, x.max(1))
        assert same_bits(total, x.sum(1))


@njit(error_model="numpy")
def sums(x, count, notes, each, alone):
    """The sum of two vectors a row: through the notebook, and row by row."""
    p, q = start_of(x), start_of(notes)
    zero = filled(p, 0.0)
    for r in range(x.shape[0]):
        total = as_total(load(p, r * x.shape[1]))
        crosswise.note_total(q, r, zero, total)
        alone[0, r], alone[1, r] = collapsed(zero, total)
    high, low = crosswise.totals_of_each(q, zero, count)
    out = start_of(each)
    store(out, 0, high)
    store(out, 8, low)


@every_float
def test_sums_in_twice_the_precision(dtype):
    width = 64 // np.dtype(dtype).itemsize
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x = (rng.random((width, width)) * 2.0 ** rng.integers(-40, 40, (width, width))).astype(dtype)
        notes = on_a_line(np.empty(width * 16))
        each, alone = np.empty(16), np.empty((2, width))
        sums(x, width, notes, each, alone)
        expected = alone[0] if width == 16 else alone.ravel()
        assert same_bits(each, expected)
        exact = x.astype(np.longdouble).sum(1)
        assert np.all(np.abs(alone.astype(np.longdouble).sum(0) - exact) <= exact * 2.0**-50)
        few = 1 + seed % (width - 1)
        sums(x, few, notes, each, alone)
        some = each if width == 16 else each.reshape(2, 8)[0]
        assert same_bits(some[:few], expected[:few])
        assert (some[few:] == 1).all()
        assert width == 16 or not each[8 + few :].any()


@every_float
def test_a_row_without_a_largest_value(dtype):
    """Rows that nobody wrote to, of infinities say, leave the others alone."""
    width = 64 // np.dtype(dtype).itemsize
    x = np.full((width, width), np.inf, dtype)
    x[3] = np.arange(width)
    top, total = np.empty(width, dtype), np.empty(width, dtype)
    reduced(on_a_line(x), 5, top, total)
    assert top[3] == width - 1
    assert total[3] == width * (width - 1) / 2
    for found in (top, total):  # and come to a number that no processor is slow with
        assert (found[5:] == 1).all()

    @njit
    def alone(x):
        return largest_of(load(start_of(x), 0))

    assert alone(x[3]) == top[3]
