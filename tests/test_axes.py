"""The axis argument: integers, tuples, None, negative, repeated, out of range; up to five dimensions."""

import itertools

import numpy as np
import pytest
from grids import FUNCTIONS, MAPS, every_dtype, every_function, every_map, every_order, no_warnings, normal
from oracle import assert_accurate, same_bits

pytestmark = no_warnings

SHAPE = (3, 2, 5, 4, 3)


@every_function
@every_dtype
@every_order
def test_every_single_axis(name, dtype, order):
    for ndim in range(1, 6):
        x = normal(SHAPE[:ndim], dtype, order=order)
        for axis in range(ndim):
            y = FUNCTIONS[name](x, axis)
            assert_accurate(name, y, x, axis)
            assert same_bits(y, FUNCTIONS[name](x, axis - ndim))
            assert same_bits(y, FUNCTIONS[name](x, np.int64(axis)))
            assert same_bits(y, FUNCTIONS[name](x, (axis,)))


@every_function
@every_dtype
@every_order
def test_every_tuple_of_axes(name, dtype, order):
    """Adjacent or not, in any order of naming: the same lanes."""
    for ndim in (2, 3, 5) if dtype == np.float32 else (2, 4):
        x = normal(SHAPE[:ndim], dtype, order=order)
        for size in range(2, ndim + 1):
            for axes in itertools.combinations(range(ndim), size):
                y = FUNCTIONS[name](x, axes)
                assert_accurate(name, y, x, axes)
                backwards = tuple(a - ndim if a % 2 else a for a in reversed(axes))
                assert same_bits(y, FUNCTIONS[name](x, backwards))


@every_function
@every_dtype
@every_order
def test_none_reduces_everything(name, dtype, order):
    for ndim in range(1, 6):
        x = normal(SHAPE[:ndim], dtype, order=order)
        y = FUNCTIONS[name](x, None)
        assert np.shape(y) == (() if name == "logsumexp" else x.shape)
        assert_accurate(name, y, x, None)
        assert same_bits(y, FUNCTIONS[name](x, tuple(range(ndim))))


@every_function
@every_dtype
def test_an_empty_tuple_makes_each_entry_its_own_lane(name, dtype):
    x = normal((3, 4), dtype)
    expected = {"softmax": np.ones_like(x), "log_softmax": np.zeros_like(x), "logsumexp": x}[name]
    assert same_bits(FUNCTIONS[name](x, ()), expected)


@every_function
def test_the_last_axis_is_the_default(name):
    x = normal((3, 4, 5), np.float32)
    assert same_bits(FUNCTIONS[name](x), FUNCTIONS[name](x, 2))


@every_dtype
@every_order
def test_keepdims(dtype, order):
    logsumexp = FUNCTIONS["logsumexp"]
    x = normal(SHAPE, dtype, order=order)
    for axis in (0, 2, -1, (1, 3), (0, -1), None, tuple(range(5))):
        y = logsumexp(x, axis, keepdims=True)
        assert y.shape == x.sum(axis=axis, keepdims=True).shape
        assert same_bits(np.squeeze(y, axis), logsumexp(x, axis))
        assert logsumexp(x, axis, keepdims=False).shape == x.sum(axis=axis).shape


@every_function
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3,), 1), ((3,), -2), ((2, 3), 2), ((2, 3), -3), ((2, 3), (0, 2)), ((2, 3), (-3,)), ((), 1), ((), -2)],
)
def test_out_of_range(name, shape, axis):
    with pytest.raises(np.exceptions.AxisError) as error:
        FUNCTIONS[name](np.zeros(shape), axis)
    wrong = next(a for a in np.atleast_1d(axis) if not -max(len(shape), 1) <= a < max(len(shape), 1))
    assert str(wrong) in str(error.value)
    assert str(len(shape)) in str(error.value)


@every_function
@pytest.mark.parametrize("axis", [(0, 0), (1, -1), (0, 1, -2), (2, 0, 2)])
def test_repeated(name, axis):
    with pytest.raises(ValueError, match="axis") as error:
        FUNCTIONS[name](np.zeros((2, 3, 2)[: 3 if 2 in axis else 2]), axis)
    assert not isinstance(error.value, np.exceptions.AxisError)


@every_function
@pytest.mark.parametrize("axis", [1.0, "0", [0, 1], (0, 1.0), np.array([0, 1]), {0}, 1j], ids=repr)
def test_not_an_integer(name, axis):
    with pytest.raises(TypeError):
        FUNCTIONS[name](np.zeros((2, 3)), axis)


@every_map
@every_order
def test_shape_and_axes_of_length_one(name, order):
    for shape in ((1, 6), (6, 1), (1, 1), (4, 1, 3), (1, 5, 1), (1, 1, 1, 1)):
        x = normal(shape, np.float32, order=order)
        for axis in (*range(len(shape)), None, (0, -1)):
            y = MAPS[name](x, axis)
            assert y.shape == shape
            assert_accurate(name, y, x, axis)
