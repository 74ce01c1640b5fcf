"""The Gibbs distribution exp(x/T)/Z: scalar and per-lane temperatures, and which are refused."""

import numpy as np
import pytest
from grids import MAPS, every_dtype, every_map, every_order, no_warnings, normal, sums_to_one
from oracle import assert_accurate, same_bits

pytestmark = no_warnings

# 0.1, 0.7 and 3.3 are not numbers of float32: rounding T to it alone would cost tens of ULP.
TEMPERATURES = (0.1, 0.25, 0.7, 1.0, 3.3, 1000.0)


@every_map
@every_dtype
@every_order
def test_scalar(name, dtype, order):
    for t in TEMPERATURES:
        for shape, axis in (
            ((4, 301), 1),
            ((301, 4), 0),
            ((6, 8, 5), 1),
            ((6, 8, 5), (0, 2)),
            ((6, 8, 5), None),
        ):
            x = normal(shape, dtype, scale=4 * t, shift=10 * t, order=order)
            y = MAPS[name](x, axis, temperature=t)
            assert y.dtype == dtype
            assert_accurate(name, y, x, axis, temperature=t)
            assert name == "log_softmax" or sums_to_one(y, axis)


@every_map
@every_dtype
@every_order
def test_one_for_each_lane(name, dtype, order):
    x = normal((3, 40, 5), dtype, order=order)
    rng = np.random.default_rng(7)
    for axis, shapes in (
        (1, [(3, 1, 5), (1, 1, 5), (3, 1, 1), (1, 5), (5,), (1,), ()]),
        (-1, [(3, 40, 1), (40, 1), (1, 1, 1)]),
        (0, [(40, 5), (1, 40, 5), (40, 1), (5,)]),
        ((0, 2), [(1, 40, 1), (40, 1)]),
        (None, [(1, 1, 1), (1,), ()]),
    ):
        for shape in shapes:
            t = rng.uniform(0.3, 4, shape)
            y = MAPS[name](x, axis, temperature=t)
            assert_accurate(name, y, x, axis, temperature=t)
            in_order = np.broadcast_to(t, np.broadcast_shapes(t.shape, (1, 1, 1)))
            assert same_bits(y, MAPS[name](x, axis, temperature=in_order))


@every_map
@every_dtype
def test_a_lanes_result_is_that_of_its_scalar_temperature(name, dtype):
    x = normal((5, 65), dtype)
    t = np.array([0.1, 0.5, 1.0, 2.0, 7.7])
    rows, columns = MAPS[name](x, 1, temperature=t[:, None]), MAPS[name](x.T.copy(), 0, temperature=t)
    for i in range(5):
        alone = MAPS[name](x[i], temperature=t[i])
        assert same_bits(rows[i], alone)
        assert same_bits(columns[:, i].copy(), alone)


@every_map
def test_any_real_type_of_temperature(name):
    x = normal((4, 30), np.float32)
    two = MAPS[name](x, temperature=2.0)
    for t in (2, np.float32(2), np.float16(2), np.int8(2), np.array(2), np.full((4, 1), 2), [[2.0]] * 4, [2]):
        assert same_bits(MAPS[name](x, temperature=t), two)
    t = np.array([[0.1], [0.2], [0.3], [0.4]])
    strided = np.zeros((8, 1))[::2]
    strided[...] = t
    expected = MAPS[name](x, temperature=t)
    for same in (strided, t[::-1].copy()[::-1], t.astype(">f8"), np.broadcast_to(t, (4, 1))):
        assert same_bits(MAPS[name](x, temperature=same), expected)


@every_map
@every_dtype
def test_one_is_the_default(name, dtype):
    x = normal((4, 100), dtype)
    expected = MAPS[name](x)
    for t in (1, 1.0, np.ones(()), np.ones((4, 1))):
        assert_accurate(name, MAPS[name](x, temperature=t), x)
    assert same_bits(MAPS[name](x, temperature=1.0), expected)


@every_map
@every_dtype
def test_extreme_temperatures(name, dtype):
    """Towards 0 all probability goes to the maximum, towards infinity all entries become equal."""
    x = np.array([[1.0, 3.0, 2.0, -5.0], [0.5, 0.5, -1.0, -2.0]], dtype)
    for t in (1e-300, 1e-100, 1e-42, 1e-30, 1e-6):
        y = MAPS[name](x, temperature=t)
        if name == "softmax":
            assert same_bits(y, np.array([[0, 1, 0, 0], [0.5, 0.5, 0, 0]], dtype))
        else:
            assert y[0, 1] == 0
            assert abs(float(y[1, 0]) + np.log(2)) < 1e-2
            assert (np.delete(y[0], 1) < -1e4).all()
    for t in (1e6, 1e30, 1e100, 1e300):
        assert_accurate(name, MAPS[name](x, temperature=t), x, temperature=t)


@every_map
def test_temperatures_next_to_the_ends_of_float64(name):
    """Where 1 / T or a share of T is no normal number, alone and beside ordinary temperatures."""
    x = normal((3, 20), np.float64)
    for t in (5e-324, 1e-310, 2.3e-308, 1e-305, 1e303, 1e306, 1.7e308):
        near = x * min(t, 1e306)
        assert_accurate(name, MAPS[name](near, temperature=t), near, temperature=t)
        if name == "softmax" or t > 1:  # quotients beyond float64 are -inf
            assert_accurate(name, MAPS[name](x, temperature=t), x, temperature=t)
        each = np.array([t, 1.0, t])
        lanes = MAPS[name](x.T.copy(), 0, temperature=each)
        assert same_bits(lanes[:, 0].copy(), MAPS[name](x[0], temperature=t))
        assert same_bits(lanes[:, 1].copy(), MAPS[name](x[1]))
        narrow = MAPS[name](x.astype(np.float32), temperature=t)
        assert not np.isnan(narrow).any()


@every_map
def test_values_beside_which_such_temperatures_are_nothing(name):
    """Only the largest values count; what is masked out does not say which they are."""
    small = 1e-301
    x = np.array([[0.0, 1e290, 1e290], [-1e290, -1e300, -1e290], [small, -1e308, 2 * small], [7e307, -7e307, 0.0]])
    top = MAPS[name](np.array([0.0, 0.0]))[0]  # of two that are equal
    left = 0.0 if name == "softmax" else -np.inf
    for t in (small, 5e-324):
        for lanes, axis in ((x, 1), (np.asfortranarray(x.T), 0)):
            y = MAPS[name](lanes, axis, temperature=t)
            y = y if axis else y.T
            assert same_bits(y[0].copy(), np.array([left, top, top])), t
            assert same_bits(y[1].copy(), np.array([top, left, top])), t
            assert same_bits(y[3].copy(), MAPS[name](np.array([0.0, -np.inf, -np.inf]))), t
        assert same_bits(y[2].copy(), MAPS[name](np.array([small, -np.inf, 2 * small]), temperature=t))
        where = np.array([True, False, True])
        hidden = np.array([[small, np.inf, 2 * small], [small, np.nan, 2 * small], [small, 1e308, 2 * small]])
        for lane in MAPS[name](hidden, where=where, temperature=t):
            assert same_bits(lane[where], MAPS[name](hidden[0, where], temperature=t))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_beyond_the_type_whose_quotients_are_not(dtype):
    """log_softmax of values at both ends of the type, in rows and columns of every length."""
    big = np.finfo(dtype).max
    for n in (2, 9, 40, 1000, 5000):
        x = np.zeros((70, n), dtype)
        x[:, 0], x[:, -1], x[:, n // 2] = -big, big * dtype(0.75), big
        y = MAPS["log_softmax"](x, temperature=10.0)
        assert_accurate("log_softmax", y, x, temperature=10.0)
        assert np.isfinite(y).all()
        assert same_bits(MAPS["log_softmax"](np.ascontiguousarray(x.T), 0, temperature=10.0).T.copy(), y)


@every_map
@every_dtype
def test_special_lanes(name, dtype):
    x = normal((4, 20), dtype)
    x[0, 3], x[1, 4], x[2, 5] = np.nan, np.inf, -np.inf
    x[3] = -np.inf
    for t in (0.5, 3.0, np.array([[0.5], [1], [2], [3]])):
        y = MAPS[name](x, temperature=t)
        assert np.isnan(y[[0, 1, 3]]).all()
        assert y[2, 5] == (0 if name == "softmax" else -np.inf)
        assert_accurate(name, y[2:3], x[2:3], temperature=np.broadcast_to(t, (4, 1))[2:3])


@every_map
def test_with_where_dtype_and_out(name):
    x = normal((4, 50), np.float16)
    where = normal((4, 50), np.float32, seed=3) > 0
    t = np.array([[0.1], [0.7], [1.3], [2.9]])
    out = np.empty((4, 50), np.float64)
    y = MAPS[name](x, where=where, temperature=t, dtype=np.float64, out=out)
    assert y is out
    assert_accurate(name, y, x, where=where, temperature=t)


@every_map
@pytest.mark.parametrize("bad", [0, 0.0, -0.0, -1, -2.5, np.nan, np.inf, -np.inf])
def test_must_be_positive_and_finite(name, bad):
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match="temperature") as error:
        MAPS[name](x, temperature=bad)
    assert str(bad).lstrip("-") in str(error.value)
    with pytest.raises(ValueError, match="temperature") as error:
        MAPS[name](x, temperature=np.array([[1.0], [bad], [2.0]]))
    assert str(float(bad)).removesuffix(".0") in str(error.value)


@every_map
@pytest.mark.parametrize("bad", ["hot", 1j, [None], np.array(["1"]), np.array([1 + 0j])], ids=str)
def test_must_be_real_numbers(name, bad):
    with pytest.raises(TypeError, match="temperature"):
        MAPS[name](np.zeros((1, 4)), temperature=bad)


@every_map
@pytest.mark.parametrize(
    ("axis", "shape"),
    [(1, (3, 4)), (1, (4,)), (1, (2, 1)), (0, (3, 1)), (1, (1, 3, 1)), (None, (4,)), ((0, 1), (3, 1))],
)
def test_must_broadcast_against_the_lanes(name, axis, shape):
    with pytest.raises(ValueError, match="temperature") as error:
        MAPS[name](np.zeros((3, 4)), axis, temperature=np.ones(shape))
    assert str(shape) in str(error.value)
    assert str(tuple(np.zeros((3, 4)).sum(axis=axis, keepdims=True).shape)) in str(error.value)


@every_map
def test_of_numbers_and_empty_arrays(name):
    assert MAPS[name](2.5, temperature=0.5) == (1 if name == "softmax" else 0)
    assert MAPS[name](np.zeros((0, 3)), temperature=2.0).shape == (0, 3)
    assert MAPS[name](np.zeros((3, 0)), temperature=np.ones((3, 1))).shape == (3, 0)
    with pytest.raises(ValueError, match="temperature"):
        MAPS[name](np.zeros((0, 3)), temperature=0.0)
