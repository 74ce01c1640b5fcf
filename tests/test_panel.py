"""Which rows are read where they stand, and which from the panel."""

import numpy as np
import pytest
from numba import njit

from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.panel import read_in_place, rows_of


@njit
def _read(x, mask, panel):
    in_place = read_in_place(x, mask, panel[0])
    rows = rows_of(x, 1, start_of(panel), in_place)
    return in_place, rows.whole, rows.apart, rows.values[0]


def values(dtype):
    """Four rows of 400 values, each a number of its own."""
    return np.arange(1600).astype(dtype).reshape(4, 400, 1)


@pytest.mark.parametrize(("dtype", "quad"), [(np.float32, 64), (np.float64, 32)], ids=["float32", "float64"])
def test_rows_whose_values_lie_side_by_side_are_read_there_in_whole_quads(dtype, quad):
    """But for a last one, which is always copied."""
    x, panel = values(dtype), np.full(1, -7, dtype)
    for length, whole in ((400, 384), (200, 192), (quad + 1, quad), (quad, 0), (3, 0)):
        assert _read(x[:, :length], None, panel) == (True, whole, 400, 400)
    assert _read(x[::2], None, panel) == (True, 384, 800, 800)


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        pytest.param(values(np.float32)[:, ::2], None, id="strided"),
        pytest.param(values(np.float32).reshape(4, 200, 2), None, id="inner axis"),
        pytest.param(values(np.float32), np.ones((4, 400, 1), bool), id="masked"),
        pytest.param(values(np.float64), None, id="another dtype"),
        pytest.param(values(np.uint16), None, id="float16"),
    ],
)
def test_others_are_copied(x, mask):
    assert _read(x, mask, np.full(1, -7, np.float32)) == (False, 0, 0, -7)
