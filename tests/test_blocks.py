"""Lanes of several blocks whose maxima are far apart: merged by exact powers of two, down to subnormal results."""

import numpy as np
import pytest
from grids import every_dtype
from oracle import log_softmax as exact_log_softmax
from oracle import softmax as exact_softmax

from softmax_numba import log_softmax, logsumexp, softmax
from softmax_numba.cpu.lane import BLOCK


def lanes(dtype, gaps):
    rng = np.random.default_rng(3)
    x = rng.normal(0, 2, (len(gaps), 3 * BLOCK + 7))
    for lane, gap in zip(x, gaps, strict=True):
        lane[:BLOCK] -= gap
        lane[2 * BLOCK :] += gap / 3
    return x.astype(dtype)


@every_dtype
def test_blocks_apart(dtype):
    info = np.finfo(np.float32 if np.dtype(dtype).itemsize < 4 else dtype)
    # From level to beyond the smallest subnormal number, through both ends of what one factor holds.
    gaps = np.concatenate([np.linspace(0, 60, 13), -np.log(float(info.tiny)) * np.linspace(0.5, 1.2, 15)])
    x = lanes(dtype, gaps)
    got, exact = softmax(x), exact_softmax(x)
    smallest = np.spacing(np.zeros(1, dtype)).astype(np.longdouble)[0]
    spacing = np.maximum(np.spacing(np.abs(np.asarray(exact).astype(dtype))).astype(np.longdouble), smallest)
    assert np.max(np.abs(got.astype(np.longdouble) - exact) / spacing) <= 4
    assert np.array_equal(got, np.stack([softmax(lane) for lane in x]))
    columns = np.ascontiguousarray(x.T)
    assert np.array_equal(got, softmax(columns, 0).T)
    exact_log = exact_log_softmax(x)
    spacing = np.spacing(np.maximum(np.abs(exact_log), 1).astype(dtype)).astype(np.longdouble)
    assert np.max(np.abs(log_softmax(x).astype(np.longdouble) - exact_log) / spacing) <= 4


def test_many_blocks_that_are_nothing():
    """Beside a maximum that leaves nothing of them, no number of values counts."""
    for count, gap in ((100_000, 1000.0), (2_000_000, 130.0), (2_000_000, 115.0)):
        x = np.full(count, -gap, np.float32)
        x[0] = 0.0
        exact = -float(np.log1p((count - 1) * np.exp(-np.longdouble(gap))))
        least = float(np.spacing(np.float32(0)))
        assert abs(float(log_softmax(x)[0]) - exact) <= 8 * max(least, 2.0**-24 * abs(exact))
        assert abs(float(logsumexp(x)) + exact) <= 8 * max(least, 2.0**-24 * abs(exact))


@pytest.mark.parametrize("sign", [1, -1])
def test_blocks_of_minus_infinity(sign):
    """A causal mask hides whole blocks."""
    x = np.random.default_rng(4).normal(size=3 * BLOCK).astype(np.float32)[::sign]
    x = x.copy()
    x[BLOCK:] = -np.inf
    got = softmax(x)
    assert (got[BLOCK:] == 0).all()
    assert np.array_equal(got[:BLOCK], softmax(x[:BLOCK]))
    x[-1] = np.nan
    assert np.isnan(softmax(x)).all() and np.isnan(log_softmax(x)).all()
