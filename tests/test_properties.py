"""What holds for any input, searched by hypothesis: shifts, permutations, masks, and the functions among themselves."""

import hypothesis.extra.numpy as arrays
import numpy as np
from grids import FUNCTIONS, MAPS, no_warnings, sums_to_one
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import DTYPES, assert_accurate, eps, same_bits, ulp, wide

pytestmark = no_warnings
softmax, log_softmax, logsumexp = (FUNCTIONS[name] for name in ("softmax", "log_softmax", "logsumexp"))

quick = settings(max_examples=60)
dtypes = st.sampled_from(DTYPES)
wide_dtypes = st.sampled_from(DTYPES[2:])
names = st.sampled_from(list(FUNCTIONS))
maps = st.sampled_from(list(MAPS))


@st.composite
def logits(draw, dtypes=dtypes, min_dims=1, max_dims=4, limit=100.0, length=None):
    """An array with 1 to 4 dimensions, C or Fortran order, and one of its axes (or a tuple, or None)."""
    shape = draw(arrays.array_shapes(min_dims=min_dims, max_dims=max_dims, max_side=9))
    if length is not None:
        shape = (*shape[:-1], draw(length))
    dtype = draw(dtypes)
    entries = st.floats(-limit, limit, width=32)
    # Filled entries repeat one value: hypothesis draws few of them, so ties are common.
    x = draw(arrays.arrays(np.float64, shape, elements=entries)).astype(dtype)
    axis = draw(st.one_of(st.integers(-x.ndim, x.ndim - 1), st.none(), arrays.valid_tuple_axes(x.ndim, min_size=1)))
    return np.asarray(x, order=draw(st.sampled_from("CF"))), axis


@given(logits(), names)
@settings(max_examples=200)
def test_the_bounds_hold(case, name):
    x, axis = case
    assert_accurate(name, FUNCTIONS[name](x, axis), x, axis)


@given(logits(limit=9999.0, length=st.integers(1, 600), max_dims=2), names)
@quick
def test_the_bounds_hold_for_longer_lanes(case, name):
    x, axis = case
    assert_accurate(name, FUNCTIONS[name](x, axis), x, axis)


@given(logits())
@quick
def test_probabilities(case):
    """Between 0 and 1, sum 1, ordered as the logits; log-probabilities are not positive."""
    x, axis = case
    p, logp = softmax(x, axis), log_softmax(x, axis)
    assert ((p >= 0) & (p <= 1)).all()
    assert (logp <= 0).all()
    assert sums_to_one(p, axis)
    p, logp, x = (
        np.moveaxis(a, -1, -1).ravel().astype(np.float64) for a in (softmax(x, None), log_softmax(x, None), x)
    )
    order = np.argsort(x, kind="stable")
    assert (np.diff(p[order]) >= 0).all()
    assert (np.diff(logp[order]) >= 0).all()


@given(logits(), st.integers(-8, 8))
@quick
def test_a_shift_of_the_logits(case, shift):
    """Where ``x + c`` is exact, the maps of both are the same within the bounds, and logsumexp moves by c."""
    x, axis = case
    moved = (x.astype(np.float64) + shift * 16).astype(x.dtype)
    # Going there and coming back loses nothing only if going there did not: float64's own sum would not tell.
    assume(np.array_equal(moved.astype(np.float64) - shift * 16, x.astype(np.float64)))
    for name, function in MAPS.items():
        assert_accurate(name, function(moved, axis), x, axis)
    y, size = wide(logsumexp(moved, axis)), max(np.abs(x).max(), np.abs(moved).max()) + 8
    assert (np.abs(y - shift * 16 - wide(logsumexp(x, axis))) <= 8 * eps(x.dtype) * float(size)).all()


@given(logits(max_dims=2), st.randoms(use_true_random=False))
@quick
def test_a_permutation_of_a_lane(case, random):
    """The entries follow the permutation, each within the bounds; equal entries stay equal."""
    x, _ = case
    order = list(range(x.shape[-1]))
    random.shuffle(order)
    for name, function in MAPS.items():
        permuted = function(np.ascontiguousarray(x[..., order]))
        assert_accurate(name, permuted, x[..., order])
        a, b = wide(permuted), wide(function(x)[..., order])
        unit = np.maximum(np.abs(a), 1) if name == "log_softmax" else np.maximum(a, 2.0**-1000)
        small = a < 2 * float(np.finfo(np.float32).tiny) if x.dtype.itemsize > 2 else a < 1e-4
        assert (np.abs(a - b) <= 8 * eps(x.dtype) * unit)[~small | (name == "log_softmax")].all()
    y = logsumexp(np.ascontiguousarray(x[..., order]))
    assert_accurate("logsumexp", y, x)


@given(logits(), names, st.data())
@settings(max_examples=100)
def test_where_is_removal(case, name, data):
    """What is left behaves as a shorter lane that never held the others."""
    x, axis = case
    x = np.ascontiguousarray(x)
    where = data.draw(arrays.arrays(bool, x.shape))
    y = FUNCTIONS[name](x, axis, where=where)
    assert_accurate(name, y, x, axis, where=where)
    if where.any():
        flat = FUNCTIONS[name](x, None, where=where)
        removed = x[where]
        assert_accurate(name, flat if name == "logsumexp" else flat[where], removed)


@given(logits())
@quick
def test_minus_infinity_is_removal_too(case):
    x, axis = case
    gone = np.arange(x.size).reshape(x.shape) % 3 == 1
    assume((~gone).any(axis=axis).all())
    for name, function in FUNCTIONS.items():
        with_inf = np.where(gone, x.dtype.type(-np.inf), x)
        assert_accurate(name, function(with_inf, axis), x, axis, where=~gone)


@given(logits(wide_dtypes, limit=50.0))
@quick
def test_the_three_functions_agree(case):
    """softmax = exp(log_softmax) and log_softmax = x - logsumexp, as far as each is bounded."""
    x, axis = case
    p, logp, lse = wide(softmax(x, axis)), wide(log_softmax(x, axis)), wide(logsumexp(x, axis))
    unit = eps(x.dtype)
    lse = np.reshape(lse, np.sum(x, axis=axis, keepdims=True).shape)
    size = np.maximum(np.abs(x), np.maximum(np.abs(lse), 1))
    assert (np.abs(wide(x) - lse - logp) <= 10 * unit * size).all()
    # Below the normal numbers a ULP is the smallest subnormal one.
    assert (np.abs(np.exp(logp) - p) <= 5 * unit * (np.abs(logp) + 2) * p + 4 * float(ulp(0, x.dtype))).all()


@given(logits(), maps, st.sampled_from([0.25, 0.5, 2.0, 4.0]))
@quick
def test_a_power_of_two_as_temperature_scales_the_logits(case, name, t):
    x, axis = case
    scaled = (x.astype(np.float64) / t).astype(x.dtype)
    assume(np.array_equal(scaled.astype(np.float64) * t, x.astype(np.float64)))
    y = MAPS[name](x, axis, temperature=t)
    assert_accurate(name, y, x, axis, temperature=t)
    assert_accurate(name, y, scaled, axis)


@given(logits(st.sampled_from(DTYPES), max_dims=3), st.floats(0.01, 100), names)
@quick
def test_any_temperature(case, t, name):
    x, axis = case
    if name == "logsumexp":
        return
    assert_accurate(name, MAPS[name](x, axis, temperature=t), x, axis, temperature=t)


@given(logits(), maps)
@quick
def test_in_place_equals_fresh(case, name):
    x, axis = case
    expected = MAPS[name](x, axis)
    assert MAPS[name](x, axis, out=x) is x
    assert same_bits(x, expected)


@given(
    arrays.arrays(
        np.float32,
        arrays.array_shapes(max_dims=2, max_side=20),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    st.sampled_from([0, -1, None]),
)
@settings(max_examples=300)
def test_any_bit_pattern(x, axis):
    """NaN, infinities, subnormal and huge entries in any mixture follow the table of values, without a warning."""
    nan = np.isnan(x).any(axis=axis, keepdims=True)
    inf = np.isposinf(x).any(axis=axis, keepdims=True) & ~nan
    nothing = np.isneginf(x).all(axis=axis, keepdims=True)
    undefined = np.broadcast_to(nan | inf | nothing, x.shape)
    p, logp, lse = softmax(x, axis), log_softmax(x, axis), logsumexp(x, axis, keepdims=True)
    assert np.array_equal(np.isnan(p), undefined)
    assert np.array_equal(np.isnan(logp), undefined)
    assert np.array_equal(np.isnan(lse), nan)
    assert np.array_equal(np.isposinf(lse), inf)
    assert np.array_equal(np.isneginf(lse), nothing)
    assert ((p >= 0) & (p <= 1))[~undefined].all()
    assert (logp <= 0)[~undefined].all()
    assert (p[np.isneginf(x) & ~undefined] == 0).all()
