"""Rows become columns and columns rows, in registers."""

import numpy as np
import pytest
from numba import njit
from oracle import same_bits

from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.turning import columns_from, columns_to
from softmax_numba.dtypes import dtype_of, for_kernel

WIDTHS = {"float16": (4, 8, 16), "bfloat16": (4, 8, 16), "float32": (4, 8, 16), "float64": (2, 4, 8)}
CASES = [(name, places) for name, widths in WIDTHS.items() for places in widths]
every_case = pytest.mark.parametrize(("name", "places"), CASES)


def on_a_line(count, dtype):
    room = np.zeros(count * np.dtype(dtype).itemsize + 64, np.uint8)
    return room[-room.ctypes.data % 64 :][: count * np.dtype(dtype).itemsize].view(dtype)


def turns(places):
    @njit
    def there(x, stride, count, room):
        columns_from(start_of(x), stride, count, start_of(room), places)

    @njit
    def back(out, stride, count, room):
        columns_to(start_of(out), stride, count, start_of(room), places)

    return there, back


@every_case
def test_there_and_back(name, places):
    """Value by value, any number of them, rows any distance apart; nothing else is read or written."""
    there, back = turns(places)
    rows = 8 if name == "float64" else 16
    compute = np.float64 if name == "float64" else np.float32
    rng = np.random.default_rng(places)
    for count in range(1, places + 1):
        for step in (count, count + 3, 40):
            size = (rows - 1) * step + count
            x = rng.normal(size=size).astype(dtype_of(name))
            room = on_a_line(places * rows, compute)
            given = for_kernel(x, name)
            there(given, step * x.itemsize, count, room)
            expected = np.full((places, rows), -np.inf, compute)
            for r in range(rows):
                expected[:count, r] = x[r * step : r * step + count]
            assert same_bits(room.reshape(places, rows), expected)
            out = np.full(size + 2, 7, dtype_of(name))
            back(for_kernel(out, name)[1:-1], step * x.itemsize, count, room)
            written = np.full_like(out, 7)
            for r in range(rows):
                written[1 + r * step : 1 + r * step + count] = x[r * step : r * step + count]
            assert same_bits(out, written)


def test_rows_in_reverse():
    there, _ = turns(8)
    x = np.arange(16.0 * 8, dtype=np.float32).reshape(16, 8)
    room = on_a_line(16 * 8, np.float32)
    there(x.ravel()[15 * 8 :], -32, 8, room)
    assert same_bits(room.reshape(8, 16), np.ascontiguousarray(x[::-1].T))
