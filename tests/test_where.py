"""The where argument and masked arrays: what is masked out takes no part and is never seen."""

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
    no_warnings,
    normal,
)
from oracle import assert_accurate, same_bits

pytestmark = no_warnings

NOTHING = {"softmax": 0.0, "log_softmax": -np.inf, "logsumexp": -np.inf}


def some(shape, seed=1, share=0.6) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


@every_function
@every_dtype
@every_order
def test_masked_entries_take_no_part(name, dtype, order):
    for n in (1, 2, 5, 16, 17, 33, 64, 131, 300):
        lanes, keep = normal((6, n), dtype), some((6, n))
        for (x, axis), (where, _) in zip(arranged(lanes, order), arranged(keep, order), strict=True):
            y = FUNCTIONS[name](x, axis, where=where)
            assert_accurate(name, y, x, axis, where=where)
            if name != "logsumexp":
                assert (y[~where] == NOTHING[name]).all()
                assert not np.signbit(y[~where]).any() or name == "log_softmax"


@every_function
@every_dtype
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, "largest"])
def test_what_stands_in_a_masked_place_is_never_seen(name, dtype, junk):
    if junk == "largest":
        junk = {2: 60000, 4: 3e38, 8: 1e308}[dtype.itemsize]
    for n in (2, 7, 16, 33, 130, 300):
        x, where = normal((8, n), dtype), some((8, n))
        where[0] = False
        where[1] = True
        expected = {axis: FUNCTIONS[name](x, axis, where=where) for axis in (0, 1, None)}
        dirty = x.copy()
        dirty[~where] = junk
        for axis, clean in expected.items():
            for order in "CF":
                assert same_bits(FUNCTIONS[name](np.asarray(dirty, order=order), axis, where=where), clean)


@every_function
@every_dtype
@every_order
def test_a_lane_with_nothing_left(name, dtype, order):
    for n in (1, 3, 16, 40, 257):
        lanes, keep = normal((4, n), dtype), np.ones((4, n), bool)
        keep[2] = False
        for fill in (0.5, np.nan, np.inf, -np.inf):
            lanes[2] = fill
            for (x, axis), (where, _) in zip(arranged(lanes, order), arranged(keep, order), strict=True):
                y = FUNCTIONS[name](x, axis, where=where)
                gone = ~where.any(axis=axis) if name == "logsumexp" else ~where
                assert (y[gone] == NOTHING[name]).all()
                assert np.isfinite(y[~gone]).all()
    nothing = np.zeros((3, 4), bool)
    for axis in (0, 1, None, (0, 1)):
        assert (FUNCTIONS[name](np.full((3, 4), np.nan, dtype), axis, where=nothing) == NOTHING[name]).all()


@every_map
@every_dtype
def test_special_lanes_among_what_is_left(name, dtype):
    """The table of values holds for the entries left; the masked ones stay 0 or -inf beside the NaN."""
    for value in (np.nan, np.inf, -np.inf):
        for n in (3, 16, 40):
            x, where = normal((3, n), dtype), np.ones((3, n), bool)
            where[:, ::2] = False
            x[1, 1] = value
            if value == -np.inf:
                x[1, 1::2] = value
            for axis, a, w in ((1, x, where), (0, x.T.copy(), where.T.copy())):
                y = MAPS[name](a, axis, where=w) if axis else MAPS[name](a, axis, where=w).T
                assert np.isnan(y[1, 1::2]).all()
                assert (y[:, ::2] == NOTHING[name]).all()
                assert np.isfinite(y[::2, 1::2]).all()


@every_function
@every_dtype
def test_where_broadcasts(name, dtype):
    x = normal((3, 4, 5), dtype)
    masks = [
        some((5,)),
        some((4, 1)),
        some((3, 1, 1)),
        some((1, 4, 5)),
        some((1,)),
        some((3, 1, 5)),
        True,
        False,
    ]
    masks += [np.bool_(True), [True, False, True, True, False], np.broadcast_to(some((4, 5)), (3, 4, 5))]
    for where in masks:
        for axis in (0, 1, -1, (0, 2), None):
            full = np.broadcast_to(where, x.shape).copy()
            y = FUNCTIONS[name](x, axis, where=where)
            assert same_bits(y, FUNCTIONS[name](x, axis, where=full))
            assert_accurate(name, y, x, axis, where=full)


@every_function
@every_dtype
def test_where_in_any_layout(name, dtype):
    x, where = normal((6, 40), dtype), some((6, 40))
    double = np.zeros((12, 80), bool)
    double[::2, ::2] = where
    for axis in (0, 1, None):
        expected = FUNCTIONS[name](x, axis, where=where)
        for same in (np.asfortranarray(where), double[::2, ::2], where[::-1, ::-1].copy()[::-1, ::-1]):
            assert same_bits(FUNCTIONS[name](x, axis, where=same), expected)


@every_function
@every_dtype
def test_true_everywhere_is_no_mask(name, dtype):
    x = normal((5, 130), dtype)
    for axis in (0, 1, None):
        expected = FUNCTIONS[name](x, axis)
        for where in (True, np.ones(x.shape, bool), None):
            assert_accurate(name, FUNCTIONS[name](x, axis, where=where), x, axis)
        assert same_bits(FUNCTIONS[name](x, axis, where=None), expected)


@every_map
@every_dtype
def test_in_place_with_where(name, dtype):
    for shape, axis in (((6, 70), 1), ((70, 6), 0), ((5, 5, 5), (0, 2))):
        x, where = normal(shape, dtype), some(shape)
        expected = MAPS[name](x, axis, where=where)
        assert MAPS[name](x, axis, where=where, out=x) is x
        assert same_bits(x, expected)


@every_function
@pytest.mark.parametrize(
    "where", [[1, 0, 1, 1], np.ones(4), np.ones(4, np.uint8), 1, "yes", ["a"] * 4, np.ones(4, object)]
)
def test_where_must_be_boolean(name, where):
    with pytest.raises(TypeError, match="bool") as error:
        FUNCTIONS[name](np.zeros((3, 4)), where=where)
    dtype = np.asarray(where).dtype
    assert dtype.name in str(error.value) or str(dtype) in str(error.value)


@every_function
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4), (1, 3, 4), (2, 3, 4), (0,), (3, 0)])
def test_where_must_broadcast_to_x(name, shape):
    with pytest.raises(ValueError, match="where") as error:
        FUNCTIONS[name](np.zeros((3, 4)), where=np.ones(shape, bool))
    assert str(shape) in str(error.value)
    assert "(3, 4)" in str(error.value)


@every_function
def test_where_on_numbers_and_empty_arrays(name):
    kept = {"softmax": 1, "log_softmax": 0, "logsumexp": 2.5}[name]
    assert FUNCTIONS[name](2.5, where=True) == kept
    assert FUNCTIONS[name](2.5, where=False) == NOTHING[name]
    assert FUNCTIONS[name](np.zeros((0, 3)), where=np.ones(3, bool)).size == 0
    y = FUNCTIONS[name](np.zeros((3, 0)), where=True)
    assert y.shape == ((3,) if name == "logsumexp" else (3, 0))


# Masked arrays: the mask is honoured as `where`.


@every_map
@every_dtype
def test_masked_arrays_stay_masked(name, dtype):
    values, mask = normal((5, 40), dtype), ~some((5, 40))
    mask[2] = True
    values[mask] = np.nan
    x = np.ma.array(values, mask=mask)
    for axis in (0, 1, None):
        y = MAPS[name](x, axis)
        assert isinstance(y, np.ma.MaskedArray)
        assert y.dtype == dtype
        assert np.array_equal(np.ma.getmaskarray(y), mask)
        assert (np.ma.getdata(y)[mask] == NOTHING[name]).all()
        assert same_bits(np.ma.getdata(y), MAPS[name](values, axis, where=~mask))
    assert np.array_equal(x.mask, mask)
    assert np.isnan(x.data[mask]).all()


@every_dtype
def test_logsumexp_of_masked_arrays(dtype):
    logsumexp = FUNCTIONS["logsumexp"]
    values, mask = normal((5, 40), dtype), ~some((5, 40))
    mask[2] = mask[:, 7] = True
    values[mask] = np.nan
    x = np.ma.array(values, mask=mask)
    for axis in (0, 1):
        for keepdims in (False, True):
            y = logsumexp(x, axis, keepdims=keepdims)
            assert isinstance(y, np.ma.MaskedArray)
            assert y.dtype == dtype
            assert np.array_equal(np.ma.getmaskarray(y), mask.all(axis=axis, keepdims=keepdims))
            assert same_bits(np.ma.getdata(y), logsumexp(values, axis, keepdims=keepdims, where=~mask))
            assert (np.ma.getdata(y)[np.ma.getmaskarray(y)] == -np.inf).all()
    assert float(logsumexp(x, None)) == float(logsumexp(values, None, where=~mask))
    assert np.ma.is_masked(logsumexp(np.ma.masked_all((3, 4), dtype), None))


@every_function
def test_a_masked_array_without_masked_entries(name):
    values = normal((5, 40), np.float32)
    for x in (np.ma.array(values), np.ma.array(values, mask=np.zeros((5, 40), bool))):
        y = FUNCTIONS[name](x)
        assert isinstance(y, np.ma.MaskedArray)
        assert not np.ma.is_masked(y)
        assert_accurate(name, np.ma.getdata(y), values)


@every_function
def test_mask_and_where_together(name):
    """An entry takes part where it is neither masked nor excluded."""
    values, mask, where = normal((5, 40), np.float32), ~some((5, 40)), some((5, 40), seed=2)
    y = FUNCTIONS[name](np.ma.array(values, mask=mask), where=where)
    assert isinstance(y, np.ma.MaskedArray)
    assert same_bits(np.ma.getdata(y), FUNCTIONS[name](values, where=where & ~mask))
    for wrong in ([1.0] * 40, [1] * 40):  # the same error as without a mask
        with pytest.raises(TypeError, match="where has dtype"):
            FUNCTIONS[name](np.ma.array(values, mask=mask), where=wrong)
    for masked in (False, True):
        number = FUNCTIONS[name](np.ma.array(3.0, mask=masked), where=True)
        assert np.ma.is_masked(number) is masked


@every_function
def test_masked_integers_and_plain_out(name):
    x = np.ma.array([[1, 2, 99], [4, 99, 6]], mask=[[0, 0, 1], [0, 1, 0]])
    expected = FUNCTIONS[name](x.data, where=~x.mask)
    assert same_bits(np.ma.getdata(FUNCTIONS[name](x)), expected)
    out = np.empty_like(expected)
    assert FUNCTIONS[name](x, out=out) is out
    assert same_bits(out, expected)
