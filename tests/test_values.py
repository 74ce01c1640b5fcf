"""The table of values: NaN, infinities, empty and single-entry lanes, gradual underflow; never a warning."""

import numpy as np
import pytest
from grids import (
    FUNCTIONS,
    MAPS,
    arranged,
    every_dtype,
    every_function,
    every_map,
    every_order,
    lanes_of,
    no_warnings,
    normal,
)
from oracle import EXACT, assert_accurate, eps, largest, tiny, ulp

pytestmark = no_warnings

# Each side of the vector widths (8, 16, 32 entries) and of the blocks that several of them form.
LENGTHS = (2, 3, 7, 8, 9, 16, 17, 31, 33, 64, 65, 127, 130, 257, 1000)


def with_entry(value, dtype, order):
    """Lanes of every length with `value` at the start, in the middle, at the end; and one clean lane between."""
    for n in LENGTHS:
        lanes = normal((4, n), dtype, scale=1)
        for row, place in enumerate((0, n // 2, n - 1)):
            lanes[row, place] = value
        yield from arranged(lanes, order)


@every_dtype
@every_order
def test_a_nan_takes_its_lane_and_no_other(dtype, order):
    for x, axis in with_entry(np.nan, dtype, order):
        hit = np.isnan(x).any(axis=axis, keepdims=True)
        for function in MAPS.values():
            assert np.array_equal(np.isnan(function(x, axis)), np.broadcast_to(hit, x.shape))
        assert np.array_equal(np.isnan(FUNCTIONS["logsumexp"](x, axis, keepdims=True)), hit)


@every_dtype
@every_order
def test_a_positive_infinity(dtype, order):
    for x, axis in with_entry(np.inf, dtype, order):
        hit = np.isposinf(x).any(axis=axis, keepdims=True)
        for function in MAPS.values():
            assert np.array_equal(np.isnan(function(x, axis)), np.broadcast_to(hit, x.shape))
        y = FUNCTIONS["logsumexp"](x, axis, keepdims=True)
        assert np.array_equal(np.isposinf(y), hit)
        assert np.isfinite(y[~hit]).all()


@every_dtype
@every_order
def test_nan_wins_over_positive_infinity(dtype, order):
    for n in LENGTHS:
        lanes = normal((2, n), dtype)
        lanes[0, 0], lanes[0, -1] = np.nan, np.inf
        lanes[1, 0], lanes[1, -1] = np.inf, np.nan
        for x, axis in arranged(lanes, order):
            for function in FUNCTIONS.values():
                assert np.isnan(function(x, axis)).all()


@every_dtype
@every_order
def test_all_negative_infinity(dtype, order):
    for n in (*LENGTHS, 1):
        lanes = normal((3, n), dtype)
        lanes[1] = -np.inf
        for x, axis in arranged(lanes, order):
            hit = np.isneginf(x).all(axis=axis, keepdims=True)
            for function in MAPS.values():
                assert np.array_equal(np.isnan(function(x, axis)), np.broadcast_to(hit, x.shape))
            y = FUNCTIONS["logsumexp"](x, axis, keepdims=True)
            assert np.array_equal(np.isneginf(y), hit)
            assert not np.isnan(y).any()


@every_dtype
@every_order
def test_some_negative_infinity_counts_for_nothing(dtype, order):
    for x, axis in with_entry(-np.inf, dtype, order):
        gone = np.isneginf(x)
        p, logp = (MAPS[name](x, axis) for name in ("softmax", "log_softmax"))
        assert (p[gone] == 0).all() and not np.signbit(p[gone]).any()
        assert (logp[gone] == -np.inf).all()
        assert (p[~gone] > 0).all() and np.isfinite(logp[~gone]).all()
        for name, function in FUNCTIONS.items():
            assert_accurate(name, function(x, axis), x, axis)
    lane = normal(130, dtype)
    holed = lane.copy()
    holed[::3] = -np.inf
    for name, function in FUNCTIONS.items():
        rest = lane[~np.isneginf(holed)]
        got = function(holed)
        assert_accurate(name, got if name == "logsumexp" else got[~np.isneginf(holed)], rest)


@every_dtype
@every_order
def test_length_one(dtype, order):
    values = np.array([[0], [-0.0], [1], [-3.25], [60000], [tiny(dtype)], [largest(dtype)], [-largest(dtype)]])
    lanes = values.astype(dtype)
    for x, axis in arranged(lanes, order):
        p, logp = (MAPS[name](x, axis) for name in ("softmax", "log_softmax"))
        assert (p == 1).all() and p.dtype == dtype and p.shape == x.shape
        assert (logp == 0).all() and not np.signbit(logp).any() and logp.dtype == dtype
        assert np.array_equal(FUNCTIONS["logsumexp"](x, axis, keepdims=True), x)


@every_dtype
@every_order
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((0,), -1),
        ((0,), None),
        ((3, 0), 1),
        ((0, 3), 0),
        ((2, 0, 3), -2),
        ((2, 0, 3), (1, 2)),
        ((2, 0, 3), None),
        ((2, 3, 0), -1),
        ((2, 1, 3, 0), 3),
    ],
)
def test_length_zero(dtype, order, shape, axis):
    x = np.zeros(shape, dtype, order)
    for function in MAPS.values():
        y = function(x, axis)
        assert y.shape == shape and y.dtype == dtype
    for keepdims in (False, True):
        y = FUNCTIONS["logsumexp"](x, axis, keepdims=keepdims)
        assert y.shape == x.sum(axis=axis, keepdims=keepdims).shape and y.dtype == dtype
        assert (y == -np.inf).all()


@every_dtype
@every_order
@pytest.mark.parametrize(
    ("shape", "axis"), [((0, 3), 1), ((3, 0), 0), ((2, 0, 3), 2), ((2, 0, 3), (0, 2)), ((0, 1, 5, 0), 2)]
)
def test_another_axis_is_empty(dtype, order, shape, axis):
    x = np.zeros(shape, dtype, order)
    for name, function in FUNCTIONS.items():
        y = function(x, axis)
        assert y.shape == (x.sum(axis=axis).shape if name == "logsumexp" else shape)
        assert y.size == 0 and y.dtype == dtype


@every_dtype
@every_order
def test_underflow_is_gradual(dtype, order):
    """Probabilities below the smallest normal number are subnormal numbers, not zero."""
    smallest = float(ulp(0.0, dtype))
    # bfloat16 holds logits with 8 bits: its own numbers from 0 down past the smallest subnormal.
    depth = np.linspace(0, -np.log(smallest) * 1.05, 400)
    lanes = np.concatenate([np.zeros((2, 1)), -np.stack([depth, depth[::-1]])], axis=1).astype(dtype)
    for x, axis in arranged(lanes, order):
        exact = EXACT["softmax"](x, axis)
        y = MAPS["softmax"](x, axis)
        subnormal = (exact < tiny(dtype)) & (exact > smallest)
        assert np.count_nonzero(subnormal) >= 10
        assert (y[subnormal] > 0).all()
        assert (np.abs(y.astype(np.longdouble) - exact)[exact < tiny(dtype)] <= 4 * smallest).all()
        assert (y[exact < smallest / 4] == 0).all()
        assert_accurate("log_softmax", MAPS["log_softmax"](x, axis), x, axis)


def test_a_probability_of_1e_40_is_a_subnormal_float32():
    y = MAPS["softmax"](np.array([0, np.log(1e-40)], np.float32))
    assert 0 < y[1] < np.finfo(np.float32).tiny
    assert abs(float(y[1]) - 1e-40) < 2e-45


@every_map
@every_dtype
def test_differences_beyond_the_range_of_exp(name, dtype):
    """The farthest two entries can lie apart, in either order, at lane starts and ends."""
    big = largest(dtype)
    for n in LENGTHS:
        lanes = np.full((2, n), -big, dtype)
        lanes[0, 0] = lanes[1, -1] = big
        y = MAPS[name](lanes)
        top = lanes == big
        if name == "softmax":
            assert np.array_equal(y, top.astype(dtype))
        else:
            assert (y[top] == 0).all() and (y[~top] <= -big).all()


@every_function
@every_dtype
def test_equal_entries(name, dtype):
    """The uniform distribution, at any height: ``1/n``, ``-log n``, ``c + log n``."""
    for n in LENGTHS:
        for height in (0.0, 1.0, -77.0, 9000.0):
            x = np.full((2, n), height, dtype)
            y = FUNCTIONS[name](x)
            assert_accurate(name, y, x)
            assert len(set(lanes_of(y, -1).ravel().tolist())) == 1
    if name == "softmax":
        x = np.zeros((1, 2 ** (11 if dtype.itemsize > 2 else 5)), dtype)
        assert abs(float(MAPS[name](x)[0, 0]) * x.shape[1] - 1) <= 4 * eps(dtype)


@every_map
def test_the_largest_entry_is_the_likeliest(name):
    for dtype in (np.float32, np.float64):
        x = normal((50, 200), dtype)
        assert np.array_equal(np.argmax(MAPS[name](x), axis=1), np.argmax(x, axis=1))
