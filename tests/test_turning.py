"""Rows become columns and columns rows, in registers."""

import numpy as np
import pytest
from numba import njit
from oracle import same_bits

from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.memory import load, moved, store
from softmax_numba.cpu.turning import block_from, columns_from, height_of, rows_from
from softmax_numba.dtypes import dtype_of, for_kernel

PLACES = {"float16": 16, "bfloat16": 16, "float32": 16, "float64": 8}  # of a vector
CASES = [(name, places) for name, most in PLACES.items() for places in (2, 4, 8, 16) if places <= height_of(most)]
every_case = pytest.mark.parametrize(("name", "places"), CASES)


def on_a_line(count, dtype):
    room = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
    return room[-room.ctypes.data % 64 :][: count * np.dtype(dtype).itemsize].view(dtype)


def turns(places):
    @njit
    def there(x, stride, count, room, tops):
        store(
            start_of(tops), 0, columns_from(start_of(x), stride, count, start_of(room), load(start_of(tops), 0), places)
        )

    @njit
    def back(out, stride, count, room, rows, height):
        for r in range(0, rows, height):
            p = moved(start_of(out), r * (stride // out.itemsize))
            rows_from(p, stride, count, block_from(moved(start_of(room), r), places), places)

    return there, back


@every_case
def test_there_and_back(name, places):
    """Value by value, any number of them, rows any distance apart; nothing else is read or written."""
    there, back = turns(places)
    rows = PLACES[name]
    compute = np.float64 if name == "float64" else np.float32
    rng = np.random.default_rng(places)
    for count in range(1, places + 1):
        for step in (count, count + 3, 40):
            size = (rows - 1) * step + count
            x = rng.normal(size=size).astype(dtype_of(name))
            room = on_a_line(places * rows, compute)
            given = for_kernel(x, name)
            tops = np.full(rows, -1, compute)
            there(given, step * x.itemsize, count, room, tops)
            expected = np.full((places, rows), -np.inf, compute)
            for r in range(rows):
                expected[:count, r] = x[r * step : r * step + count]
            assert same_bits(room.reshape(places, rows), expected)
            assert same_bits(tops, np.maximum(expected.max(axis=0), compute(-1)))
            out = np.full(size + 2, 7, dtype_of(name))
            back(for_kernel(out, name)[1:-1], step * x.itemsize, count, room, rows, height_of(rows))
            written = np.full_like(out, 7)
            for r in range(rows):
                written[1 + r * step : 1 + r * step + count] = x[r * step : r * step + count]
            assert same_bits(out, written)


def test_rows_in_reverse():
    there, _ = turns(8)
    x = np.arange(16.0 * 8, dtype=np.float32).reshape(16, 8)
    room = on_a_line(16 * 8, np.float32)
    tops = np.full(16, -np.inf, np.float32)
    there(x.ravel()[15 * 8 :], -32, 8, room, tops)
    assert same_bits(room.reshape(8, 16), np.ascontiguousarray(x[::-1].T))


def test_largest_values_beside_nan():
    there, _ = turns(4)
    x = np.arange(16.0 * 4, dtype=np.float32).reshape(16, 4)
    x[0, 3] = x[1, 0] = x[2, :] = np.nan
    x[3, 1] = np.inf
    tops = np.full(16, -np.inf, np.float32)
    there(x.ravel(), 16, 4, on_a_line(16 * 4, np.float32), tops)
    assert same_bits(tops, np.array([2, 7, -np.inf, np.inf, *range(19, 64, 4)], np.float32))
