"""The judge of accuracy, judged: known errors come out as the ULP that they are, known faults as faults."""

import ml_dtypes
import mpmath
import numpy as np
import pytest

from softmax_numba.bench.accuracy import Judge, spacing
from softmax_numba.bench.exact import Arithmetic, Decimals, reference_for
from softmax_numba.bench.workloads import OPS, dtype_named, result_shape

DTYPES = ["float16", "bfloat16", "float32", "float64"]
WIDE = np.finfo(np.longdouble).nmant >= 63
LAYOUTS = [((7, 33), -1, "C"), ((33, 7), 0, "C"), ((3, 11, 5), 1, "C"), ((6, 40), 1, "F"), ((19,), 0, "C")]


def lanes_of(x, axis):
    return np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def exact(op, x, axis):
    """High-precision results as Python objects, in the result's shape."""
    with mpmath.workprec(200):
        rows = []
        for lane in lanes_of(x, axis):
            values = [mpmath.mpf(float(v)) for v in lane]
            total = mpmath.fsum(mpmath.exp(v) for v in values)
            if op == "logsumexp":
                rows.append([mpmath.log(total)])
            elif op == "softmax":
                rows.append([mpmath.exp(v) / total for v in values])
            else:
                rows.append([v - mpmath.log(total) for v in values])
    table = np.array(rows, dtype=object)
    if op == "logsumexp":
        return table.reshape(result_shape(op, x.shape, axis))
    moved = np.moveaxis(x, axis, -1).shape
    return np.moveaxis(table.reshape(moved), -1, axis)


def rounded(values, dtype):
    """Correctly rounded: mpmath rounds once to the significand's width."""
    digits = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[dtype]

    def one(value):
        with mpmath.workprec(digits):
            return float(+value)

    return np.vectorize(one, otypes=[np.float64])(values).astype(dtype_named(dtype))


def sample(shape, dtype, order="C", seed=0):
    x = np.random.default_rng(seed).normal(0, 2, shape)
    return np.array(x, order=order).astype(dtype_named(dtype), order="K")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_spacing_is_numpys(dtype):
    info = np.finfo(dtype)
    values = np.array([1.0, 0.75, 1e-3, 3.0, info.tiny, info.tiny / 4, info.max / 3], dtype)
    assert np.array_equal(spacing(values.astype(np.float64), dtype), np.spacing(values).astype(np.float64))


def test_spacing_of_bfloat16_is_the_distance_to_the_neighbour():
    values = np.array([1.0, 0.75, 1e-3, 3.0, 1e30], ml_dtypes.bfloat16)
    above = (values.view(np.uint16) + 1).view(ml_dtypes.bfloat16)
    expected = above.astype(np.float64) - values.astype(np.float64)
    assert np.array_equal(spacing(values.astype(np.float64), "bfloat16"), expected)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "axis", "order"), LAYOUTS)
def test_correctly_rounded_results_are_within_half_an_ulp(op, dtype, shape, axis, order):
    x = sample(shape, dtype, order)
    judge = Judge(x, axis)
    y = rounded(exact(op, x, axis), dtype)
    found = judge.judge(op, {"y": judge.take(op, y)})["y"]
    assert found.fault is None
    assert found.values == y.size
    assert found.max_ulp <= 0.5005
    assert 0 < found.mean_ulp <= found.max_ulp


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_result_that_is_off_by_known_ulps_is_measured_so(op, dtype):
    x = sample((5, 30), dtype)
    values = exact(op, x, -1).astype(np.float64)
    right = rounded(exact(op, x, -1), dtype)
    size = np.abs(values)
    if op == "log_softmax":
        size = np.maximum(size, 1)
    elif op == "logsumexp":
        size = np.maximum(size, np.abs(x.astype(np.float64)).max(axis=-1))
    place = (2, 7) if op != "logsumexp" else (2,)
    off = right.copy()
    off[place] = (right[place].astype(np.float64) + 6 * spacing(size, dtype)[place]).astype(dtype_named(dtype))
    judge = Judge(x, -1)
    found = judge.judge(op, {"right": judge.take(op, right), "off": judge.take(op, off)})
    assert found["right"].max_ulp <= 0.5005
    assert 5.4 <= found["off"].max_ulp <= 6.6


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("scale", [0.01, 3.0, 100.0])
def test_both_arithmetics_agree_with_high_precision(op, scale):
    x = np.random.default_rng(1).normal(0, scale, (4, 50))
    truth = exact(op, x, -1)
    for arithmetic in (Decimals(), Arithmetic(np.longdouble, "longdouble")):
        largest, total = arithmetic.sums(x)
        high, low = arithmetic.values(op, x, largest, total)
        with mpmath.workprec(200):
            pairs = zip(high.ravel(), low.ravel(), truth.ravel(), strict=True)
            # A longdouble is the sum of two doubles, and mpmath takes doubles as they are.
            errors = [
                abs(mpmath.fsum(map(float, (h, h - type(h)(float(h)), low))) - t)
                / (abs(t) if op == "softmax" else max(abs(t), 1))
                for h, low, t in pairs
            ]
        assert max(errors) < (1e-17 if isinstance(arithmetic, Decimals) or WIDE else 1e-15)


def test_reference_is_wider_than_what_it_judges():
    for dtype in DTYPES:
        arithmetic = reference_for(dtype)
        digits = 130 if isinstance(arithmetic, Decimals) else np.finfo(arithmetic.dtype).nmant
        assert digits >= ml_dtypes.finfo(dtype_named(dtype)).nmant + 11


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_lanes_are_right_as_the_contract_says(dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[0, nan, 1], [inf, 0, 1], [-inf, -inf, -inf], [-inf, 0, 0]], dtype_named(dtype))
    judge = Judge(x, -1)
    results = {
        "softmax": [[nan] * 3, [nan] * 3, [nan] * 3, [0, 0.5, 0.5]],
        "log_softmax": [[nan] * 3, [nan] * 3, [nan] * 3, [-inf, -np.log(2), -np.log(2)]],
        "logsumexp": [nan, inf, -inf, np.log(2)],
    }
    for op, values in results.items():
        right = np.array(values).astype(x.dtype)
        wrong = np.array(right)
        wrong.flat[0] = 0.25
        found = judge.judge(op, {"right": judge.take(op, right), "wrong": judge.take(op, wrong)})
        assert found["right"].fault is None, op
        assert "where nan is right" in found["wrong"].fault


@pytest.mark.parametrize("op", OPS)
def test_nan_where_a_number_belongs_is_a_fault(op):
    x = sample((4, 9), "float32")
    y = rounded(exact(op, x, -1), "float32")
    y.flat[3] = np.nan
    judge = Judge(x, -1)
    assert "nan" in judge.judge(op, {"y": judge.take(op, y)})["y"].fault


def test_lost_probabilities_are_a_fault_although_none_is_normal():
    x = np.zeros((1, 100_000), np.float16)
    judge = Judge(x, -1)
    right = np.full(x.shape, np.float16(1e-5))
    found = judge.judge("softmax", {"right": judge.take("softmax", right), "lost": judge.take("softmax", x)})
    assert found["right"].fault is None
    assert found["right"].max_ulp is None, "1e-5 is subnormal in float16"
    assert "100 %" in found["lost"].fault


@pytest.mark.parametrize(("op", "values"), [("log_softmax", [[-0.9, -0.9]]), ("logsumexp", [1.0])])
def test_gross_error_in_logarithms_is_a_fault(op, values):
    judge = Judge(np.zeros((1, 2), np.float32), -1)
    assert "off by" in judge.judge(op, {"y": judge.take(op, np.array(values, np.float32))})["y"].fault


def test_sampled_places_are_judged_with_the_sum_over_the_whole_lane():
    x = np.zeros(1 << 16, np.float32)
    x[::2] = 1.0
    judge = Judge(x, 0, values=500)
    total = np.exp(x.astype(np.float64) - 1).sum()
    right = (np.exp(x.astype(np.float64) - 1) / total).astype(np.float32)
    off = (right * np.float32(1 + 1e-4)).astype(np.float32)
    found = judge.judge("softmax", {"right": judge.take("softmax", right), "off": judge.take("softmax", off)})
    assert found["right"].values == 500
    assert found["right"].max_ulp <= 0.5005
    assert 700 < found["off"].max_ulp < 1800, "1e-4 is 840 to 1680 ULP"


def test_sampled_lanes_are_whole_and_drawn_by_the_seed():
    x = sample((200, 16), "float32")
    judges = [Judge(x, -1, values=160, seed=seed) for seed in (0, 0, 1)]
    taken = [judge.take("softmax", x) for judge in judges]
    assert taken[0].shape == (10, 16)
    assert np.array_equal(taken[0], taken[1])
    assert not np.array_equal(taken[0], taken[2])
    rows = {row.tobytes() for row in x}
    assert all(row.tobytes() in rows for row in taken[0])


def test_integers_are_judged_as_float64():
    x = np.array([[1, 2, 3]], np.int32)
    judge = Judge(x, -1)
    y = rounded(exact("softmax", x, -1), "float64")
    found = judge.judge("softmax", {"y": judge.take("softmax", y)})["y"]
    assert found.max_ulp <= 0.5005
    coarse = y.astype(np.float32).astype(np.float64)
    assert judge.judge("softmax", {"y": judge.take("softmax", coarse)})["y"].max_ulp > 1e6


def test_results_in_blocks_are_all_seen(monkeypatch):
    import softmax_numba.bench.accuracy as module

    x = sample((50, 30), "float32")
    right = rounded(exact("softmax", x, -1), "float32")
    off = right.copy()
    off[-1, -1] *= 1 + 2.0**-20
    monkeypatch.setattr(module, "BLOCK", 64)
    judge = Judge(x, -1)
    found = judge.judge("softmax", {"right": judge.take("softmax", right), "off": judge.take("softmax", off)})
    assert found["right"].max_ulp <= 0.5005
    assert found["right"].values == x.size
    assert found["off"].max_ulp > 4
