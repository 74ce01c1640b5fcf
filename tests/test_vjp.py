"""The ways back through softmax and log_softmax: accuracy, dtypes, axes, temperatures, masked-out places."""

import itertools

import mpmath
import numpy as np
import pytest
from grids import MAPS, arranged, every_dtype, every_map, no_warnings, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import PLACES, placed
from loss_oracle import Exact, assert_close, ulp_error
from oracle import DTYPES, EXACT, LONG, eps, same_bits, ulp, wide
from vjp_cases import EXACT_WAYS_BACK, GONE, WAYS_BACK, assert_right, cotangent, every_float, forward

pytestmark = no_warnings


# --- accuracy ---------------------------------------------------------------------------


@every_map
@every_dtype
def test_every_length(name, dtype):
    """As rows, as columns, and as columns of a batch."""
    for n in (1, 2, 7, 8, 9, 16, 33, 100, 257, 1000, 4096, 4097, 9000):
        for shape, axis in (((3, n), 1), ((n, 3), 0), ((2, n, 9), 1), ((n, 40), 0)):
            if n * shape[-1] <= 50_000 or axis == 1:
                seed = n + axis
                assert_right(name, forward(name, shape, dtype, axis, seed), cotangent(shape, dtype, seed), axis)


@every_map
def test_a_long_lane(name):
    n = 2**18 + 3
    assert_right(name, forward(name, n, np.float32), cotangent(n, np.float32))
    assert_right(name, forward(name, (n, 2), np.float32, 0), cotangent((n, 2), np.float32), 0)


@every_map
@every_dtype
def test_any_two_types(name, dtype):
    """The computation is as wide as the wider one; the result is of y's type."""
    for other in (*DTYPES, np.dtype(">f4"), np.dtype(np.int32), np.dtype(bool)):
        for shape, axis in [((5, 40), 1), ((40, 9), 0)][: 1 + (dtype == np.float32)]:
            y, dy = forward(name, shape, dtype, axis, scale=2), cotangent(shape, other)
            dx = assert_right(name, y, dy, axis)
            if dtype == np.float32 and other == np.float64:
                wider = WAYS_BACK[name](y.astype(np.float64), dy, axis)
                assert same_bits(dx, wider.astype(np.float32))


@every_map
def test_numbers_that_are_no_floats(name):
    y = np.array([[0, 1, 0], [1, 0, 0]]) if name == "softmax" else np.array([[-2, -1, -1], [0, -40, -50]])
    dy = [[1, 2, 3], [4, 5, 6]]
    for a in (y, y.tolist(), y.astype(np.int8)):
        dx = assert_right(name, a, dy)
        assert dx.dtype == np.float64
        assert same_bits(dx, WAYS_BACK[name](y.astype(float), np.array(dy, float)))


@every_map
@every_float
def test_temperatures(name, dtype):
    """A number, or one for each lane; 0.1 is no number of float32. At the ends of float32 too."""
    y, dy = forward(name, (6, 40), dtype), cotangent((6, 40), dtype)
    for t in (0.1, 1.0, 1, 3.3, 1e-20, 1e35, np.float32(0.7), np.array(2.0)):
        assert_right(name, y, dy, temperature=t)
        assert_right(name, y.T.copy(), dy.T.copy(), 0, temperature=t)
    t = np.linspace(0.1, 7.7, 6)
    rows = assert_right(name, y, dy, temperature=t[:, None])
    columns = assert_right(name, y.T.copy(), dy.T.copy(), 0, temperature=t)
    assert same_bits(rows, columns.T.copy())
    for i in range(6):
        assert same_bits(WAYS_BACK[name](y[i], dy[i], temperature=t[i]), rows[i])
    assert_right(name, y, dy, None, temperature=np.full((1, 1), 0.3))
    four, cotangents = y.reshape(3, 2, 5, 8), dy.reshape(3, 2, 5, 8)
    assert_right(name, four, cotangents, (1, 3), temperature=np.linspace(0.5, 2, 15).reshape(3, 1, 5, 1))
    assert_right(name, four, cotangents, 2, temperature=np.linspace(0.5, 2, 8))
    for same in (t.astype(">f8"), np.repeat(t, 2)[::2], list(t)):
        assert same_bits(WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0, temperature=same), columns)


@every_map
def test_temperatures_whose_inverse_is_no_number(name):
    """The ends of float64: the gradient by such a temperature, and 0 where there is none."""
    y = forward(name, (6, 40), np.float64)
    y[:, 3] = GONE[name]
    for t in (1e-310, 2.3e-308, 1.7e308):
        dy = cotangent((6, 40), np.float64) * min(t, 1e306)
        gradient = assert_right(name, y, dy, temperature=t)
        assert same_bits(gradient, WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0, temperature=[t] * 6).T.copy())
        beyond = WAYS_BACK[name](y, cotangent((6, 40), np.float64), temperature=t)
        assert (beyond[:, 3] == 0).all()
        large = WAYS_BACK[name](y, np.full((6, 40), 1e290), temperature=t)  # beyond float64, or a product that is not
        assert not np.isnan(large[:, [3]]).any()
    only = np.array([[1.0, 0.0]]) if name == "softmax" else np.array([[0.0, -np.inf]])
    assert same_bits(WAYS_BACK[name](only, np.array([[1e290, 1e290]]), temperature=1e-301), np.zeros((1, 2)))


@every_map
@every_dtype
def test_any_axes(name, dtype):
    shape = (3, 4, 5, 6)
    dy = cotangent(shape, dtype, 2)
    for axis in (0, 1, 2, -1, (0, 2), (1, 3), (3, 1), (0, 1, 2, 3), None, ()):
        y = forward(name, shape, dtype, axis, scale=2)
        expected = assert_right(name, y, dy, axis)
        assert same_bits(WAYS_BACK[name](np.asfortranarray(y), np.asfortranarray(dy), axis), expected)


@st.composite
def calls(draw):
    """Arrays of 1 to 4 dimensions, their axes, types and places drawn too."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axes = draw(st.none() | st.lists(st.integers(0, len(shape) - 1), unique=True).map(tuple))
    name, dtype = draw(st.sampled_from(list(MAPS))), draw(st.sampled_from([np.float32, np.float64]))
    seed = draw(st.integers(0, 99))
    y, dy = (
        forward(name, shape, dtype, axes, seed, draw(st.sampled_from([0.1, 3.0, 50.0]))),
        cotangent(shape, dtype, seed),
    )
    y[draw(st.just(np.zeros(shape, bool)) | st.just(dy > dy.mean()))] = GONE[name]
    how = {"temperature": draw(st.just(1.0) | st.floats(0.01, 100))}
    return name, placed(y, draw(st.sampled_from(PLACES))), placed(dy, draw(st.sampled_from(PLACES))), axes, how


@given(calls())
@settings(max_examples=150)
def test_any_call(call):
    name, y, dy, axes, how = call
    expected = assert_right(name, y, dy, axes, **how)
    ours = WAYS_BACK[name](y.copy(), dy.copy(), axes, **how)
    assert same_bits(ours, expected)


@every_map
@every_float
def test_the_sum_has_twice_the_precision_of_its_terms(name, dtype):
    """Terms that cancel exactly leave a small one, which is all that a place without a cotangent of its own has."""
    unit = eps(dtype)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        half, large = rng.uniform(0.1, 1, 150), rng.normal(size=150) * 2**20
        y = np.concatenate([half, half, [0.7, 0.3]]).astype(dtype)
        dy = np.concatenate([large, -large, [2**20 * unit**1.5, 0]]).astype(dtype)
        p, small = (y[-1], y[-2]) if name == "softmax" else (np.exp(wide(y[-1])), 1)
        exact = -wide(p) * wide(small) * wide(dy[-2])
        order = rng.permutation(302)
        dx = WAYS_BACK[name](y[order], dy[order])[np.argmax(order == 301)]
        assert abs(wide(dx) - exact) <= 4 * ulp(exact, dtype) + p * unit**2 * np.abs(wide(dy)).sum()


@every_map
@pytest.mark.parametrize("axis", [1, 0, (0, 2), None], ids=str)
def test_the_same_as_pytorchs_autograd(name, axis):
    torch = pytest.importorskip("torch")
    shape = (4, 9, 12)
    x, dy = normal(shape, np.float64), cotangent(shape, np.float64)
    for t in (1.0, 0.3):
        given = torch.tensor(x, requires_grad=True)
        axes = tuple(range(3)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        y = given / t - torch.logsumexp(given / t, axes, keepdim=True)
        y = y.exp() if name == "softmax" else y
        y.backward(torch.tensor(dy))
        ours = WAYS_BACK[name](EXACT[name](x, axis, temperature=t).astype(np.float64), dy, axis, temperature=t)
        # PyTorch's y is off by an ULP of the largest logit, and so is what it makes of dy.
        allowed = 64 * np.finfo(np.float64).eps * np.abs(x / t).max() * np.abs(dy).sum() / t
        np.testing.assert_allclose(ours, given.grad.numpy(), rtol=0, atol=allowed)


# --- what did not come through ----------------------------------------------------------


@every_map
@every_float
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e30])
def test_masked_out_places_have_no_gradient(name, dtype, strange):
    """Exactly 0, whatever dy is there, and it changes nothing elsewhere: in rows, columns and batches."""
    x, dy = normal((12, 40), dtype), cotangent((12, 40), dtype)
    where = normal((12, 40), np.float32, seed=3) > -0.3
    where[5] = False
    y, dy_where = EXACT[name](x, where=where).astype(dtype), np.where(where, dy, dtype(strange))
    for (a, axis), (b, _), (keep, _) in zip(arranged(y), arranged(dy_where), arranged(where), strict=True):
        dx = assert_right(name, a, b, axis)
        assert (dx[~keep] == 0).all()
        assert np.isfinite(dx).all()
        without = np.where(keep, b, dtype(0))
        assert same_bits(dx, WAYS_BACK[name](a, without, axis))


@every_map
@every_dtype
@pytest.mark.parametrize("shape", [(70, 5), (70, 16), (9, 30), (9, 100), (3, 1000), (2, 9000), (5, 7, 3)], ids=str)
def test_an_infinite_cotangent_is_infinite_to_its_lane(name, dtype, shape):
    """What the formula says where the sum is infinite: along rows, columns and what lies between."""
    y, dy = EXACT[name](normal(shape, np.float64), axis=1).astype(dtype), np.abs(cotangent(shape, dtype))
    y[0, 2] = y[1, -1] = 0.25 if name == "softmax" else -1.4
    dy[0, 2], dy[1, -1] = np.inf, -np.inf
    for axis, (a, b) in ((1, (y, dy)), (0, (np.moveaxis(y, 1, 0).copy(), np.moveaxis(dy, 1, 0).copy()))):
        dx = np.moveaxis(WAYS_BACK[name](a, b, axis), axis, 1)
        for lane, place, sign in ((0, 2, 1), (1, -1, -1)):
            assert np.isnan(dx[lane, place]).all()
            given, rest = (np.delete(each[lane], place, 0) for each in (y, dx))
            assert (rest == np.where(given == 0, 0, -sign * np.inf)).all()
        assert np.isfinite(dx[2:]).all()


@every_map
@every_dtype
def test_lanes_with_nothing_left_have_no_gradient(name, dtype):
    y = np.full((9, 30), GONE[name], dtype)
    for strange in (np.nan, np.inf, 1.0):
        dy = np.full((9, 30), strange, dtype)
        for axis in (0, 1, None):
            dx = WAYS_BACK[name](y, dy, axis)
            assert (dx == 0).all()
            assert dx.dtype == dtype


@every_map
def test_logits_of_minus_infinity(name):
    """They are masked-out places too: softmax is 0 there, log_softmax -inf."""
    x = normal((6, 20), np.float64)
    x[:, 3] = -np.inf
    dy = cotangent((6, 20), np.float64)
    dx = assert_right(name, MAPS[name](x), dy)
    assert (dx[:, 3] == 0).all()
    few = np.delete(np.arange(20), 3)
    removed = EXACT_WAYS_BACK[name](EXACT[name](x[:, few]), dy[:, few])
    assert_close(dx[:, few], removed)


@every_map
@every_float
def test_what_is_undefined_stays_in_its_lane(name, dtype):
    """NaN in y, or in one place of dy: the lane has no number but at masked-out places, and no other lane sees it."""
    y, dy = forward(name, (12, 40), dtype), cotangent((12, 40), dtype)
    expected = WAYS_BACK[name](y, dy)
    y[[2, 7]], dy[9, 3] = np.nan, np.nan
    y[[2, 7, 9], 6] = GONE[name]
    undefined, gone = np.isin(np.arange(12), [2, 7, 9]), y == GONE[name]
    rows, columns = WAYS_BACK[name](y, dy), WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0).T
    for dx in (rows, columns):
        assert same_bits(dx[~undefined].copy(), expected[~undefined])
        assert (dx[gone] == 0).all()
        assert np.isnan(dx[undefined[:, None] & ~gone]).all()


@every_map
def test_masked_arrays(name):
    """A mask of y is one of its places; a mask of dy is a cotangent of 0."""
    for dtype in DTYPES:
        y, dy = forward(name, (6, 20), dtype), cotangent((6, 20), dtype)
        mask = normal((6, 20), np.float64, seed=5) > 0.5
        dx = WAYS_BACK[name](np.ma.array(y, mask=mask), dy)
        assert type(dx) is np.ndarray
        assert same_bits(dx, WAYS_BACK[name](np.where(mask, dtype.type(GONE[name]), y), dy))
        dx = WAYS_BACK[name](y, np.ma.array(np.where(mask, dtype.type(np.nan), dy), mask=mask))
        assert same_bits(dx, WAYS_BACK[name](y, np.where(mask, dtype.type(0), dy)))
    whole = np.array([[0, 1, 0]]) if name == "softmax" else np.array([[0, -40, -50]])
    dx = WAYS_BACK[name](np.ma.array(whole, mask=[[0, 0, 1]]), np.ma.array([[1, 2, 3]], mask=[[0, 1, 0]]))
    assert same_bits(dx, WAYS_BACK[name](np.array([[*map(float, whole[0, :2]), GONE[name]]]), [[1.0, 0.0, 3.0]]))


@every_map
@every_dtype
def test_empty_arrays_and_numbers(name, dtype):
    for shape, axis in (((0, 3), 1), ((0, 3), 0), ((3, 0), 1), ((3, 0), None), ((0,), 0), ((2, 0, 3), 2)):
        dx = WAYS_BACK[name](np.empty(shape, dtype), np.empty(shape, dtype), axis)
        assert dx.shape == shape
        assert dx.dtype == dtype
        lanes = np.sum(dx, axis, keepdims=True).shape
        dx = WAYS_BACK[name](np.empty(shape, dtype), np.empty(shape, dtype), axis, temperature=np.ones(lanes))
        assert dx.shape == shape
    whole = dtype.type(1 if name == "softmax" else 0)
    for axis in (-1, 0, None):
        dx = WAYS_BACK[name](whole, dtype.type(3), axis)
        assert type(dx) is dtype.type
        assert dx == 0


# --- the oracle itself ------------------------------------------------------------------


@every_map
@pytest.mark.parametrize("axis", [1, 0, (0, 1)], ids=str)
def test_the_oracle_is_the_slope_of_the_functions(name, axis):
    """Against central differences of the oracle's own softmax in longdouble, for one temperature and one a lane."""
    x, dy = wide(normal((4, 5), np.float64)), wide(cotangent((4, 5), np.float64))
    h = LONG(2.0**-21)
    lanes = np.sum(np.ones((4, 5)), axis=axis, keepdims=True).shape
    for t in (1.0, 0.5, np.linspace(0.5, 2, np.prod(lanes)).reshape(lanes)):
        exact = EXACT_WAYS_BACK[name](EXACT[name](x, axis, temperature=t), dy, axis, temperature=t)
        for place in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[place] = h
            after, before = (np.sum(EXACT[name](a, axis, temperature=t) * dy) for a in (x + step, x - step))
            slope = (after - before) / (2 * h)
            assert abs(slope - exact.value[place]) <= 2.0**-32 * float(np.abs(dy).max())


@every_map
def test_the_oracles_sums_are_exact(name):
    """Against mpmath, where the terms cancel to a ten-thousand-millionth of the largest."""
    y, dy = forward(name, 501, np.float64, scale=1), cotangent(501, np.float64, 2)
    dy[1:] -= dy[1:].mean()
    with mpmath.workdps(60):
        products = [mpmath.mpf(float(a)) * mpmath.mpf(float(b)) for a, b in zip(y, dy, strict=True)]
        total = mpmath.fsum(products) if name == "softmax" else mpmath.fsum(mpmath.mpf(float(b)) for b in dy)
        exact = EXACT_WAYS_BACK[name](y, dy)
        for i in range(0, 501, 50):
            v, d = mpmath.mpf(float(y[i])), mpmath.mpf(float(dy[i]))
            theirs = v * (d - total) if name == "softmax" else d - mpmath.exp(v) * total
            mine = mpmath.mpf(float(exact.value[i])) + mpmath.mpf(float(exact.value[i] - LONG(float(exact.value[i]))))
            assert abs(mine - theirs) <= 2.0**-60 * float(exact.size[i])


def test_the_oracle_notices_errors():
    """An entry that is 10 ULP off, and a NaN in the wrong place."""
    for name, dtype in itertools.product(MAPS, (np.float32, np.float64)):
        exact = EXACT_WAYS_BACK[name](forward(name, (3, 40), dtype), cotangent((3, 40), dtype))
        got = exact.value.astype(dtype)
        assert ulp_error(got, exact) <= 1
        place = np.unravel_index(np.argmax(exact.size), (3, 40))
        got[place] += dtype(10 * ulp(exact.size[place], dtype))
        assert 9 < ulp_error(got, exact) < 11
        got[place] = np.nan
        assert ulp_error(got, Exact(*exact)) == np.inf
