"""The exponential: its error against higher precision, and the cases in which it has none."""

import re
import subprocess
import sys

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from oracle import same_bits, ulp
from processes import environment

from softmax_numba import softmax
from softmax_numba.cpu import exponential
from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.exponential import Reference, exp_relative, reference, scale_of
from softmax_numba.cpu.host import PERMUTES
from softmax_numba.cpu.memory import load, store, width_of
from softmax_numba.cpu.powers import QUARTERS
from softmax_numba.cpu.wide import load_wide

LONG = np.longdouble
HEADROOM = {np.float32: 30, np.float64: 64}
# Relative to the maximum: below the first nothing may vanish, below the second all is exactly 0.
KEPT, GONE = {np.float32: -150, np.float64: -1075}, {np.float32: -160, np.float64: -1090}
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@njit(error_model="numpy")
def _relative(x, top, temperature, out):
    p, q = start_of(x), start_of(out)
    scale = scale_of(top, temperature)
    ref = reference(top, scale)
    for i in range(0, x.size, width_of(p)):
        store(q, i, exp_relative(load(p, i), ref, scale))
    return ref.exponent


@njit(error_model="numpy")
def _one(x, top, temperature):
    scale = scale_of(top, temperature)
    return exp_relative(x, reference(top, scale), scale)


def relative(x, top, temperature=None):
    """exp(x / T) * 2**(headroom - n) for vectors of any length, and n."""
    x = np.asarray(x)
    padded = np.zeros(-(-x.size // 16) * 16, x.dtype)
    padded[: x.size] = x
    out = np.empty_like(padded)
    n = _relative(padded, x.dtype.type(top), temperature, out)
    return out[: x.size], int(n)


def error(x, top, temperature=None):
    """The largest error in ULP over those `x` whose exponential is not 0."""
    found, n = relative(x, top, temperature)
    argument = x.astype(LONG) if temperature is None else x.astype(LONG) / LONG(temperature)
    exact = np.ldexp(np.exp(argument), HEADROOM[x.dtype.type] - n)
    assert np.all(found > 0)
    return float(np.max(np.abs(found - exact) / ulp(exact, x.dtype)))


def between(low, high, dtype, count, seed=0):
    return np.random.default_rng(seed).uniform(low, high, count).astype(dtype)


# --- the polynomials ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("coefficients", "steps", "bits", "bound"),
    [
        (exponential._Q32_OCTAVES, 1, 24, 0.05),
        (exponential._Q32_QUARTERS, QUARTERS, 24, 0.09),
        (exponential._Q64, 1, 53, 0.15),
    ],
    ids=["float32", "float32 by quarters", "float64"],
)
def test_polynomial(coefficients, steps, bits, bound):
    """Its distance from exp, in exact arithmetic, in ULP of exp: what the module's docstring claims."""
    with mpmath.workdps(50):
        half = mpmath.log(2) / steps / 2
        worst = 0
        for r in mpmath.linspace(-half, half, 2001):
            q = mpmath.polyval([mpmath.mpf(float(c)) for c in reversed(coefficients)], r)
            exact = mpmath.exp(r)
            unit = mpmath.mpf(2) ** (1 - bits if exact >= 1 else -bits)
            worst = max(worst, abs(1 + r + r * r * q - exact) / unit)
    assert worst <= bound


# --- the whole function -------------------------------------------------------------


@every_float
def test_error_over_one_octave(dtype):
    """One argument of every four in float32, a sample in float64: the last sum rounds to half an ULP, the one before it
    to a third of that, twice as much below 1, and the polynomial is 0.05 or 0.15 ULP off. By quarters: half an ULP for
    the last sum, a third for the power, and 0.09 for the polynomial."""
    if dtype is np.float32:
        low, high = np.float32([0.125, 0.35]).view(np.int32)
        x = np.arange(low, high, 4, dtype=np.int32).view(np.float32)
        x = np.concatenate([-x, x, between(-0.125, 0.125, dtype, 200_000)])
    else:
        x = between(-0.35, 0.35, dtype, 400_000)
    worst = 0.94 if PERMUTES else 0.75
    assert error(x, 0.35) <= (worst if dtype is np.float32 else 0.95)


@every_float
@pytest.mark.parametrize("top", [0.0, 1.0, -1.0, 88.7, -3000.0, 9999.0, -9900.0])
def test_error_over_the_span_below_any_maximum(dtype, top):
    """A few hundredths more for the remainder, wherever the maximum lies: at 1e4 a shift by it costs 100 ULP."""
    span = 100 if dtype is np.float32 else 700
    assert error(np.minimum(between(top - span, top, dtype, 200_000), dtype(top)), top) <= 0.95


@every_float
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.7, 1.5, 3.3, 1000.0])
def test_error_with_a_temperature(dtype, temperature):
    """1 / T and the product with it are rounded, too, a quarter of an ULP each at most, and less by quarters."""
    top = 20 * temperature
    assert error(between(-40 * temperature, top, dtype, 200_000), top, temperature) <= 1.3


@every_float
def test_error_of_lanes_beyond_reach(dtype):
    """Beyond 2**20 (2**40) steps a lane is shifted by its maximum, which is exact for neighbours."""
    top = dtype(2.0**21 if dtype is np.float32 else 2.0**41)
    x = top - np.arange(0, 60, dtype=dtype) / 4
    found, n = relative(x, top)
    exact = np.ldexp(np.exp((x - top).astype(LONG)), HEADROOM[dtype] - n)
    assert n == 0
    assert np.max(np.abs(found - exact) / ulp(exact, dtype)) <= 0.95


# --- what is exact ------------------------------------------------------------------


@every_float
@pytest.mark.parametrize("temperature", [None, 0.37])
def test_another_maximum_is_another_power_of_two(dtype, temperature):
    """Nothing but the exponent depends on what the exponentials are relative to: blocks can be put together."""
    x = between(-20, 5, dtype, 10_000)
    first, n = relative(x, 5.0, temperature)
    for top in (6.0, 11.3, 24.0):
        other, m = relative(x, top, temperature)
        assert m > n
        first_value, other_value = np.ldexp(first.astype(LONG), n), np.ldexp(other.astype(LONG), m)
        counts = other_value > LONG(2) ** (m + HEADROOM[dtype] + KEPT[dtype])
        assert counts.any()
        np.testing.assert_array_equal(first_value[counts], other_value[counts])


@every_float
def test_zero_is_one(dtype):
    found, n = relative(np.zeros(3, dtype), 0.0)
    assert n == 0
    assert found.tolist() == [2.0 ** HEADROOM[dtype]] * 3


@every_float
def test_where_exponentials_vanish(dtype):
    """What a result can still show is there, what it cannot is exactly 0, and nothing in between is garbage."""
    octaves = np.linspace(-3000, 0, 30_001)
    x = (octaves * np.log(2)).astype(dtype)
    for top in (0.0, 50.0, -777.0):
        found, n = relative(x + dtype(top), top)
        size = (x + dtype(top)).astype(LONG) / LONG(np.log(LONG(2))) - n
        assert np.all(found >= 0) and np.all(np.isfinite(found))
        assert np.all(found[size > KEPT[dtype]] > 0)
        assert np.all(found[size < GONE[dtype]] == 0)
        assert np.all(np.diff(found[size < -2]) >= 0)


@every_float
@pytest.mark.parametrize("temperature", [None, 0.5, 30.0])
def test_special_values(dtype, temperature):
    most = np.finfo(dtype).max
    for top in (0.0, -5.0, 700.0):
        found, _ = relative(np.array([-np.inf, -most, np.nan, -1e30, top], dtype), top, temperature)
        assert found[0] == found[1] == found[3] == 0
        assert np.isnan(found[2])
        assert np.isfinite(found[4]) and found[4] > 0
    for top in (np.inf, np.nan):
        found, _ = relative(np.array([top, top], dtype), top, temperature)
        assert np.all(np.isnan(found))


@every_float
@given(data=st.data())
def test_numbers_and_vectors_are_one_function(dtype, data):
    """A lane's own numbers go through the same formula as sixteen lanes at once."""
    width = 32 if dtype is np.float32 else 64
    values = st.floats(-1e4, 1e4, width=width)
    x, top = data.draw(values), data.draw(values)
    temperature = data.draw(st.sampled_from([None, 0.3, 2.0]))
    x, top = dtype(min(x, top)), dtype(max(x, top))
    assert _one(x, top, temperature) == relative(np.array([x]), top, temperature)[0][0]


@njit(error_model="numpy")
def _wide(x, tops, temperature, of_one, of_each, singly):
    p, q, t = start_of(x), width_of(start_of(x)), start_of(tops)
    scale = scale_of(x[0], temperature)
    one = reference(tops[0], scale)
    each = reference(load_wide(t, 0, 4), scale)
    store(start_of(of_one), 0, exp_relative(load_wide(p, 0, 4), one, scale))
    of_four = Reference(each.shift, 0.0, each.magic, each.floor)
    store(start_of(of_each), 0, exp_relative(load_wide(p, 0, 4), of_four, scale))
    for k in range(0, 4 * q, q):
        store(start_of(singly), k, exp_relative(load(p, k), one, scale))


@every_float
@pytest.mark.parametrize("temperature", [None, 0.7])
def test_four_vectors_are_one_function(dtype, temperature):
    """A wide vector's exponentials have the bits of its vectors', relative to one number or to one each."""
    count = 4 * (16 if dtype is np.float32 else 8)
    x = between(-90, 9, dtype, count)
    x[5::9] = [-np.inf, np.nan, 9.0, -2000.0, 0.0, -0.0, 8.5][: x[5::9].size]
    tops = np.full(count, 9, dtype)
    of_one, of_each, singly = (np.empty(count, dtype) for _ in range(3))
    _wide(x, tops, temperature, of_one, of_each, singly)
    assert same_bits(of_one, singly) and same_bits(of_each, singly)
    tops[count // 2 :] = 30  # halves of different references
    _wide(x, tops, temperature, of_one, of_each, singly)
    later = relative(x, 30.0, temperature)[0]
    assert same_bits(of_each[: count // 2], singly[: count // 2])
    assert same_bits(of_each[count // 2 :], later[count // 2 :])


@every_float
def test_accuracy_where_errors_add_up(dtype):
    """Two values of which the largest term is as much too large as it can be and the other as much too small, or the
    other way round, and all that is rounded after them: 4 ULP are promised."""
    rng = np.random.default_rng(5)
    top = rng.uniform(0, 0.7, 100_000).astype(dtype)
    other = rng.uniform(-14, -0.1, 400_000).astype(dtype)

    def too_large(x, most):
        exact = np.exp(x.astype(LONG)) * LONG(2) ** HEADROOM[dtype]
        found, n = relative(x, most)
        return (np.ldexp(found.astype(LONG), n) - exact) / exact

    of_top, of_other = too_large(top, 0.7), too_large(other, 0.7)
    for first, second in ((of_top, -of_other), (-of_top, of_other)):
        a, b = top[np.argsort(first)[-300:]], other[np.argsort(second)[-3000:]]
        x = np.stack(np.broadcast_arrays(a[:, None], b), axis=-1)
        terms = np.exp(x.astype(LONG))
        exact = terms / terms.sum(axis=-1, keepdims=True)
        assert np.max(np.abs(softmax(x) - exact) / ulp(exact, dtype)) <= 4


@pytest.mark.skipif(not PERMUTES, reason="what is tested here already")
def test_where_nothing_is_looked_up_in_a_register(tmp_path):
    """A processor without such an instruction goes by octaves: the same tests, as Numba compiles for it."""
    tests = "octave or span or vanish or special or one_function or add_up"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", f"float32 and ({tests})"]
    fewer = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx,+fma", "SOFTMAX_NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment(**fewer), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10 and "failed" not in done.stdout
