"""Running sums: twice the precision of what is added, in an order that is fixed."""

import numpy as np
import pytest
from numba import njit
from oracle import same_bits

from softmax_numba.cpu import sums
from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.memory import filled, load, store
from softmax_numba.cpu.wide import load_wide

every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def width_of(dtype):
    return 64 // np.dtype(dtype).itemsize


def random(dtype, rows, seed):
    """Rows of a vector each, of either sign and over 80 octaves."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, width_of(dtype))) * 2.0 ** rng.integers(-40, 40, (rows, 1))).astype(dtype)


def test_two_sum_loses_nothing():
    @njit
    def both(a, b):
        return sums.two_sum(a, b)

    rng = np.random.default_rng(0)
    for a, b in rng.normal(size=(200, 2)) * 2.0 ** rng.integers(-30, 30, (200, 2)):
        high, low = both(a, b)
        assert high == a + b
        assert np.longdouble(high) + np.longdouble(low) == np.longdouble(a) + np.longdouble(b)


@njit(error_model="numpy")
def added_up(x, quads):
    """The rows' sum, row by row or four rows at a time."""
    p = start_of(x)
    zero = filled(p, 0.0)
    total = sums.as_total(zero)
    width = x.shape[1]
    for r in range(0, x.shape[0], 4):
        if quads:
            total = sums.plus_quad(zero, total, load_wide(p, r * width, 4))
        else:
            for k in range(r, r + 4):
                total = sums.plus(zero, total, sums.as_total(load(p, k * width)))
    return sums.collapsed(zero, total)


@every_float
def test_a_sum_has_twice_the_precision(dtype):
    for seed in range(50):
        x = random(dtype, 400, seed)
        high, low = added_up(x, False)
        exact, size = x.astype(np.longdouble).sum(), np.abs(x).sum()
        assert abs(np.longdouble(high) + np.longdouble(low) - exact) <= 2.0**-46 * float(size)


@every_float
def test_a_quad_is_added_pairwise_in_its_own_type(dtype):
    """Numbers for which that is exact: the sums of quads are the sum of all."""
    x = np.random.default_rng(0).integers(-1000, 1000, (40, width_of(dtype))).astype(dtype)
    assert added_up(x, True) == (x.sum(), 0)
    big, small = dtype(2.0 ** (24 if dtype is np.float32 else 53)), dtype(1)
    x = np.zeros((4, width_of(dtype)), dtype)
    x[:, 0] = big, small, small, -big
    # (big + 1) rounds to big, (1 - big) is exact: the sum is 1.
    assert added_up(x, True) == (1, 0)


@every_float
def test_slots_are_added_as_a_tree(dtype):
    """Halves to halves, down to one number."""
    for seed in range(20):
        x = random(dtype, 4, seed)
        x[1:] = 0
        high, low = added_up(x, False)
        if dtype is np.float32:
            expected = x[0].astype(np.float64)
            while expected.size > 1:
                middle = expected.size // 2
                expected = expected[:middle] + expected[middle:]
            assert (high, low) == (expected[0], 0)
        else:
            assert abs(np.longdouble(high) + np.longdouble(low) - x.astype(np.longdouble).sum()) <= 2.0**-100 * 2.0**40


@every_float
def test_sums_in_memory(dtype):
    """Both forms come back as they were put down, and touch nothing else; lanes' sums are rounded once."""

    @njit(error_model="numpy")
    def there_and_back(x, notes, table, row, out, narrow):
        p, q, t = start_of(x), start_of(notes), start_of(table)
        total = sums.plus(filled(p, 0.0), sums.as_total(load(p, 0)), sums.as_total(load(p, x.shape[1])))
        sums.store_total(q, 1, total)
        sums.store_sums(t, 3, row, load(p, 0), total)
        a, b = sums.load_total(q, 1), sums.load_sums(t, 3, row, load(p, 0))
        zero = filled(p, 0.0)
        store(start_of(narrow), 0, sums.rounded(p, total))
        out[0], out[1] = sums.collapsed(zero, total)
        out[2], out[3] = sums.collapsed(zero, a)
        out[4], out[5] = sums.collapsed(zero, b)

    width = width_of(dtype)
    for seed in range(20):
        x, out = random(dtype, 2, seed), np.empty(6)
        notes, row = np.full(48, 7.0), 40
        table = np.full(80, 7.0)
        narrow = np.full(width + 1, 7, dtype)
        there_and_back(x, notes, table, row, out, narrow)
        assert same_bits(out[2:4], out[:2]) and same_bits(out[4:], out[:2])
        assert (notes[:16] == 7).all() and (notes[32:] == 7).all()
        used = np.r_[3 : 3 + width, row + 3 : row + 3 + width]
        assert (np.delete(table, used) == 7).all()
        high, low = table[3 : 3 + width], table[row + 3 : row + 3 + width]
        assert same_bits(narrow, np.append((high + low).astype(dtype), dtype(7)))
        if dtype is np.float32:
            assert same_bits(high, x.astype(np.float64).sum(0)) and not low.any()
        else:
            assert same_bits(high, x.sum(0)) and (np.abs(low) <= np.spacing(np.abs(high)) / 2).all()
