"""The accuracy table: bounds in ULP against extended precision, over lengths, scales, shifts, layouts and dtypes."""

import mpmath
import numpy as np
import oracle
import pytest
import scipy.special
from grids import FUNCTIONS, MAPS, every_dtype, every_function, every_map, no_warnings, normal, sums_to_one
from oracle import BFLOAT16, DTYPES, EXACT, assert_accurate, eps, largest, tiny, ulp, ulp_error

pytestmark = no_warnings

# Spreads from nearly uniform to one-hot, each around 0 and near the contract's limit of 1e4.
SCALES = (0.01, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SHIFTS = (0.0, 700.0, -9500.0, 9500.0)


def grid_of_lanes(n, dtype, seed=0) -> np.ndarray:
    """One lane of length `n` for each scale and shift."""
    rng = np.random.default_rng([seed, n])
    scale, shift = (a.reshape(-1, 1) for a in np.meshgrid(SCALES, SHIFTS))
    return np.clip(rng.normal(size=(scale.size, n)) * scale + shift, -9999, 9999).astype(dtype)


@every_function
@every_dtype
def test_every_length_to_300_as_rows(name, dtype):
    """Every remainder by any vector width or unrolling: a full lane of each length."""
    for n in range(1, 301):
        x = grid_of_lanes(n, dtype)[n % 2 :: 2]
        y = FUNCTIONS[name](x)
        assert_accurate(name, y, x)
        assert name != "softmax" or sums_to_one(y)


@every_function
@every_dtype
def test_every_length_to_300_down_columns(name, dtype):
    """The reduced axis first: 28 columns, and every count of columns from 1 to 40."""
    for n in range(1, 301, 7):
        x = np.ascontiguousarray(grid_of_lanes(n, dtype).T)
        y = FUNCTIONS[name](x, 0)
        assert_accurate(name, y, x, 0)
        assert name != "softmax" or sums_to_one(y, 0)
    for columns in range(1, 41):
        x = normal((2, 19, columns), dtype, scale=5, seed=columns)
        assert_accurate(name, FUNCTIONS[name](x, 1), x, 1)


@every_function
@every_dtype
def test_strided_lanes(name, dtype):
    for n in (1, 15, 16, 17, 64, 100, 257, 1000):
        x = grid_of_lanes(2 * n, dtype)[:, ::2]
        assert_accurate(name, FUNCTIONS[name](x), x)
        x = grid_of_lanes(n, dtype)[:, ::-1]
        assert_accurate(name, FUNCTIONS[name](x), x)


@every_function
@every_dtype
@pytest.mark.parametrize("n", [1000, 1023, 4096, 4097, 50257, 2**17 + 3, 2**20 + 1])
def test_longer_lanes(name, dtype, n):
    rows = {1000: 28, 1023: 28, 4096: 14, 4097: 14, 50257: 3}.get(n, 1)
    pick = np.linspace(0, 27, rows).astype(int) if rows > 1 else [4]
    rng = np.random.default_rng(n)
    scale, shift = (a.ravel()[pick, None] for a in np.meshgrid(SCALES, SHIFTS))
    x = np.clip(rng.normal(size=(rows, n)) * scale + shift, -9999, 9999).astype(dtype)
    y = FUNCTIONS[name](x)
    assert_accurate(name, y, x)
    assert name != "softmax" or sums_to_one(y)
    if rows > 1 and n <= 50257:
        columns = np.ascontiguousarray(x.T)
        assert_accurate(name, FUNCTIONS[name](columns, 0), columns, 0)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16], ids=["float64", "float16", "bfloat16"])
def test_lanes_of_16_million_in_other_types(dtype):
    """All values are in the sum; the results of a seventeenth are looked at."""
    x = (np.random.default_rng(4).standard_normal(2**24, np.float32) * np.float32(3)).astype(dtype)
    wide = x.astype(np.longdouble if dtype is np.float64 else np.float64)
    top = wide.max()
    total = np.exp(wide - top).sum()
    p, log, wide = MAPS["softmax"](x)[::17], MAPS["log_softmax"](x)[::17], wide[::17]
    exact = np.exp(wide - top) / total
    error = np.abs(p.astype(wide.dtype) - exact) / ulp(exact, np.dtype(dtype))
    assert float(np.max(error)) <= (4 if dtype is np.float64 else 0.501)
    exact = wide - top - np.log(total)
    assert float(np.max(np.abs(log.astype(wide.dtype) - exact) / ulp(np.maximum(-exact, 1), np.dtype(dtype)))) <= 4


@pytest.mark.parametrize("kind", ["normal", "equal", "falling"])
def test_a_float32_lane_of_16_million(kind):
    """Where float32 accumulators stagnate. float64 is reference enough: 2**29 of its ULP make one here."""
    n = 2**24
    if kind == "normal":
        x = np.random.default_rng(3).standard_normal(n, np.float32) * np.float32(2)
    else:
        x = np.linspace(0, {"equal": 0, "falling": -60}[kind], n, dtype=np.float32)
    e = np.exp(x.astype(np.float64) - float(x.max()))
    total = e.sum()
    p = e / total
    y = MAPS["softmax"](x)
    assert float(np.max(np.abs(y - p) / np.spacing(p.astype(np.float32)))) <= 4
    assert abs(y.sum(dtype=np.float64) - 1) <= 4 * eps(np.float32) * np.sqrt(n)
    logp = x.astype(np.float64) - float(x.max()) - np.log(total)
    y = MAPS["log_softmax"](x)
    assert float(np.max(np.abs(y - logp) / np.spacing(np.maximum(-logp, 1).astype(np.float32)))) <= 4
    exact = float(x.max()) + np.log(total)
    unit = np.spacing(np.float32(max(exact, float(np.abs(x).max()))))
    assert abs(float(FUNCTIONS["logsumexp"](x)) - exact) <= 4 * float(unit)


@every_dtype
def test_the_largest_log_probability_keeps_its_relative_accuracy(dtype):
    """log1p of the rest, not log of the sum: 8 ULP down to the smallest normal number, -1e-12 and beyond."""
    for n in (2, 3, 16, 17, 64, 300, 5000):
        gaps = np.linspace(1, -np.log(tiny(dtype)) * 0.99, 120)
        x = np.full((gaps.size, n), -np.inf)
        rng = np.random.default_rng(n)
        x[:, 1:] = -gaps[:, None] - rng.exponential(3, (gaps.size, n - 1)) * (np.arange(n - 1) > 0)
        for place in (0, n // 2, n - 1):
            for height in (0.0, 3.0):
                lanes = np.roll(np.where(np.arange(n) == 0, 0, x), place, axis=1) + height
                lanes = lanes.astype(dtype)
                y = MAPS["log_softmax"](lanes)
                exact = EXACT["log_softmax"](lanes)
                assert_accurate("log_softmax", y, lanes)
                top, got = exact[:, place], oracle.wide(y)[:, place]
                assert (np.abs(got - top) <= 8 * ulp(top, dtype)).all(), (n, place, height)
    if dtype.itemsize >= 4:
        x = np.array([0, np.log(1e-12)], dtype)
        assert abs(float(MAPS["log_softmax"](x)[0]) * 1e12 + 1) < 1e-4


@every_map
@every_dtype
def test_two_equal_maxima(name, dtype):
    """The rest of the sum is 1 then: every largest entry has the log-probability -log 2 and a little."""
    for n in (2, 5, 33, 300):
        x = np.full((2, n), -9.0, dtype)
        x[:, 0] = x[:, -1] = 2
        x[1, : n // 2] = 2
        assert_accurate(name, MAPS[name](x), x)


@every_function
@every_dtype
def test_larger_values(name, dtype):
    """Beyond 1e4, to the type's maximum: finite, sums to 1, and no worse than SciPy."""
    big = largest(dtype)
    rng = np.random.default_rng(11)
    for n in (2, 7, 64, 1000):
        for height in (3e4, 1e6, 1e10, big / 2, big):
            if height > big:
                continue
            lanes = [height * rng.uniform(-0.49, 0.49, n), height * 0.49 + rng.normal(size=n) * 20]
            lanes.append(height * (0.49 - rng.exponential(float(eps(dtype)), n)))
            x = np.clip(np.stack(lanes), -big / 2, big / 2).astype(dtype)
            for axis, a in ((1, x), (0, np.ascontiguousarray(x.T))):
                y = FUNCTIONS[name](a, axis)
                assert np.isfinite(y.astype(np.float64)).all()
                assert name != "softmax" or sums_to_one(y, axis)
                with np.errstate(all="ignore"):
                    theirs = getattr(scipy.special, name)(a, axis=axis).astype(dtype)
                allowed = max(ulp_error(name, theirs, a, axis), 4)
                assert ulp_error(name, y, a, axis) <= allowed, (n, height, axis)
    edges = np.array([[big, big], [-big, -big], [big, -big], [0, big], [-big, 0]], dtype)
    y = FUNCTIONS[name](edges)
    if name == "logsumexp":
        assert np.array_equal(y.astype(np.float64), [big, -big, big, big, 0])
    elif name == "softmax":
        assert np.array_equal(y.astype(np.float64), [[0.5, 0.5], [0.5, 0.5], [1, 0], [0, 1], [0, 1]])


@every_dtype
def test_no_other_peer_is_needed_for_the_sum(dtype):
    """Lanes sum to 1 within 4 eps sqrt(n), for the hardest shapes of a sum too."""
    for n in (3, 100, 4097, 50257):
        falling = np.linspace(0, -30, n)
        for lane in (np.zeros(n), falling, falling[::-1], np.where(np.arange(n) == n // 2, 8, 0.0)):
            x = np.stack([lane, lane + 100]).astype(dtype)
            assert sums_to_one(MAPS["softmax"](x))
            assert sums_to_one(MAPS["softmax"](np.ascontiguousarray(x.T), 0), 0)


def test_every_finite_float16_pair():
    """float16 has few enough numbers: the probability at every difference of two logits, correctly rounded."""
    steps = np.arange(2**15, dtype=np.uint16).view(np.float16)
    steps = steps[np.isfinite(steps)]
    x = np.stack([np.zeros_like(steps), -steps], axis=1)
    for name in FUNCTIONS:
        assert_accurate(name, FUNCTIONS[name](x), x)


def test_every_bfloat16_pair():
    steps = np.arange(2**15, dtype=np.uint16).view(oracle.BFLOAT16)
    steps = steps[np.isfinite(steps.astype(np.float32))]
    x = np.stack([np.zeros_like(steps), -steps], axis=1)
    for name in FUNCTIONS:
        assert_accurate(name, FUNCTIONS[name](x), x)


# The oracle itself.


@every_dtype
@pytest.mark.parametrize("temperature", [1.0, 0.1, 3.3])
def test_the_oracle_agrees_with_mpmath(dtype, temperature):
    """To a hundredth of a float64's ULP, at the shifts where ``x - max`` is hardest."""

    def difference(mine, theirs):
        high = float(mine)
        mine = mpmath.mpf(high) + mpmath.mpf(float(mine - np.longdouble(high)))
        return abs((mine - theirs) / theirs)

    with mpmath.workdps(600):
        for shift in (0, 3000):
            x = normal((41,), dtype, scale=20, shift=shift)
            logits = [mpmath.mpf(float(v)) / mpmath.mpf(temperature) for v in x]
            total = mpmath.fsum(mpmath.exp(v) for v in logits)
            p = EXACT["softmax"](x, temperature=temperature)
            logp = EXACT["log_softmax"](x, temperature=temperature)
            for i, v in enumerate(logits):
                if v - max(logits) > -700:
                    assert difference(p[i], mpmath.exp(v) / total) < 2.0**-58
                assert difference(logp[i], v - mpmath.log(total)) < 2.0**-58
            if temperature == 1:
                assert difference(EXACT["logsumexp"](x), mpmath.log(total)) < 2.0**-58


def test_the_oracle_notices_errors():
    """An entry 5 ULP off, a wrongly rounded half and a NaN in the wrong place are all caught."""
    for dtype in DTYPES[2:]:
        x = normal((3, 50), dtype)
        y = EXACT["softmax"](x).astype(dtype)
        assert_accurate("softmax", y, x)
        y[1, 7] += 5 * np.spacing(y[1, 7])
        assert 4 < ulp_error("softmax", y, x) < 6
        y[1, 7] = np.nan
        assert ulp_error("softmax", y, x) == np.inf
    for dtype in DTYPES[:2]:
        x = normal((3, 50), dtype)
        exact = EXACT["softmax"](x)
        y = exact.astype(np.float32).astype(dtype)
        assert oracle.wrongly_rounded(y, exact) == 0
        y.view(np.uint16)[1, 7] += 1
        y.view(np.uint16)[2, 9] -= 1
        assert oracle.wrongly_rounded(y, exact) == 2
