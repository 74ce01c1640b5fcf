"""What the functions should return: computed in extended precision, lane by lane, with the error measured in ULP.

Every difference ``x - max`` and every quotient by the temperature is carried as an unevaluated sum of two
longdoubles, so the oracle's own error stays below 0.01 ULP of float64 however large the entries are.
``test_accuracy.py`` checks it against mpmath.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))
DTYPE_IDS = [d.name for d in DTYPES]
LONG = np.longdouble

# Significand bits with the leading one, exponent of the smallest subnormal number.
_PRECISION = {"float16": (11, -24), "bfloat16": (8, -133), "float32": (24, -149), "float64": (53, -1074)}

if np.finfo(LONG).nmant < 63:  # pragma: no cover - 64-bit longdouble (Windows, Apple silicon)
    raise ImportError("the oracle needs a longdouble of at least 64 significand bits")


def eps(dtype) -> float:
    """Distance from 1 to the next larger number of `dtype`."""
    return 2.0 ** (1 - _PRECISION[np.dtype(dtype).name][0])


def tiny(dtype) -> float:
    """Smallest positive normal number of `dtype`."""
    bits, low = _PRECISION[np.dtype(dtype).name]
    return 2.0 ** (low + bits - 1)


def largest(dtype) -> float:
    """Largest finite number of `dtype`."""
    return float(ml_dtypes.finfo(dtype).max)


def ulp(value, dtype) -> np.ndarray:
    """Spacing of the numbers of `dtype` in the binade of `value` (never below the smallest subnormal)."""
    bits, low = _PRECISION[np.dtype(dtype).name]
    significand, exponent = np.frexp(np.asarray(value, LONG))
    return np.ldexp(LONG(1), np.where(significand == 0, low, np.maximum(exponent - bits, low)))


def wide(x) -> np.ndarray:
    """`x` as longdouble, exactly (bfloat16 knows no direct way)."""
    x = np.asarray(x)
    return x.astype(np.float32).astype(LONG) if x.dtype == BFLOAT16 else x.astype(LONG)


def _two_difference(a, b):
    high = a - b
    back = high - a
    return high, (a - (high - back)) - (b + back)


def _two_product(a, b):
    def split(v):
        c = v * LONG(2**32 + 1)
        top = c - (c - v)
        return top, v - top

    high = a * b
    (a1, a2), (b1, b2) = split(a), split(b)
    return high, ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2


class Lanes:
    """`x` as rows of lanes, and back: the reduced axes moved last and flattened."""

    def __init__(self, x, axis):
        self.shape = x.shape
        if axis is None:
            axis = tuple(range(x.ndim))
        self.axes = tuple(a % max(x.ndim, 1) for a in ((axis,) if np.ndim(axis) == 0 else axis))
        if x.ndim == 0:
            self.axes = ()
        self.kept = tuple(a for a in range(x.ndim) if a not in self.axes)
        self.order = self.kept + self.axes
        self.outer = tuple(x.shape[a] for a in self.kept)
        self.inner = tuple(x.shape[a] for a in self.axes)

    def rows(self, a) -> np.ndarray:
        a = np.broadcast_to(a, self.shape).transpose(self.order)
        return np.ascontiguousarray(a.reshape(int(np.prod(self.outer)), int(np.prod(self.inner))))

    def back(self, rows) -> np.ndarray:
        return rows.reshape(self.outer + self.inner).transpose(np.argsort(self.order))

    def reduced(self, values, keepdims) -> np.ndarray:
        shape = [1 if a in self.axes else n for a, n in enumerate(self.shape)] if keepdims else self.outer
        return values.reshape(shape)


def _solve(rows, keep, t):
    """Per row: maximum, ``(x - max)/T`` (high, low), ``log1p(rest)``, ``1 + rest``, and where the table rules."""
    n = rows.shape[0]
    if rows.shape[1] == 0:
        return (
            np.zeros((n, 1), LONG),
            rows,
            rows,
            *np.zeros((2, n, 1), LONG),
            np.full((n, 1), "empty", "U12"),
        )
    left = np.where(keep, rows, -np.inf)
    top = left.max(axis=1, keepdims=True)
    state = np.full((n, 1), "finite", "U12")
    state[top == -np.inf] = "all -inf"
    state[top == np.inf] = "+inf"
    state[np.isnan(top)] = "nan"
    state[~keep.any(axis=1, keepdims=True)] = "nothing left"
    anchor = np.where(state == "finite", top, LONG(0))
    usable = np.isfinite(left)
    high, low = _two_difference(np.where(usable, left, anchor), anchor)
    q = high / t
    # exp of a quotient beyond 1e6 is 0 or overflows, and a correction of q * 2**-64 is no longer small.
    sane = np.abs(q) < 1e6
    product, error = _two_product(np.where(sane, q, 0), t)
    q, low = q, np.where(sane & (q != 0), (high - product - error + low) / t, LONG(0))
    q, low = np.where(usable, q, -np.inf), np.where(usable, low, 0)
    first = np.argmax(left, axis=1)
    e = np.exp(q) * (1 + low)
    e[np.arange(n), first] = 0
    rest = e.sum(axis=1, keepdims=True)
    return anchor, q, low, np.log1p(rest), 1 + rest, state


@np.errstate(all="ignore")
def _prepare(x, axis, where, temperature):
    x = wide(x)
    lanes = Lanes(x, axis)
    keep = lanes.rows(True if where is None else where)
    t = np.asarray(temperature, np.float64)
    t = t if t.ndim == 0 else lanes.rows(np.broadcast_to(t, x.shape))[:, :1]
    return lanes, keep, _solve(lanes.rows(x), keep, t.astype(LONG))


@np.errstate(all="ignore")
def softmax(x, axis=-1, *, where=None, temperature=1.0) -> np.ndarray:
    """Exact probabilities as longdouble."""
    lanes, keep, (_, q, low, _, total, state) = _prepare(x, axis, where, temperature)
    y = np.where(state == "finite", np.exp(q) * (1 + low) / total, np.nan)
    return lanes.back(np.where(keep, y, LONG(0)))


@np.errstate(all="ignore")
def log_softmax(x, axis=-1, *, where=None, temperature=1.0) -> np.ndarray:
    """Exact log-probabilities as longdouble, relative accuracy kept near 0."""
    lanes, keep, (_, q, low, log_total, _, state) = _prepare(x, axis, where, temperature)
    y = np.where(state == "finite", q - log_total + low, np.nan)
    return lanes.back(np.where(keep, y, -np.inf))


@np.errstate(all="ignore")
def logsumexp(x, axis=-1, *, where=None, keepdims=False) -> np.ndarray:
    """Exact logarithm of the sum of exponentials as longdouble."""
    lanes, _, (anchor, _, _, log_total, _, state) = _prepare(x, axis, where, 1.0)
    y = anchor + log_total
    for name, value in (("nan", np.nan), ("+inf", np.inf)):
        y = np.where(state == name, value, y)
    return lanes.reduced(np.where(np.isin(state, ("all -inf", "nothing left", "empty")), -np.inf, y), keepdims)


EXACT = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}


@np.errstate(all="ignore")
def _distance(got, exact, unit) -> float:
    """Largest ``|got - exact| / unit``; a NaN or an infinity must stand where the exact one stands."""
    got = wide(got)
    assert got.shape == exact.shape, (got.shape, exact.shape)
    same = (got == exact) | (np.isnan(got) & np.isnan(exact))
    error = np.where(same, 0, np.abs(got - exact) / unit)
    return float(np.max(np.where(np.isnan(error), np.inf, error), initial=0))


def ulp_error(name, got, x, axis=-1, *, where=None, temperature=1.0, keepdims=False, dtype=None) -> float:
    """Worst error of `got` as the result of function `name`, in the unit the contract gives it."""
    dtype = np.asarray(got).dtype if dtype is None else np.dtype(dtype)
    if name == "softmax":
        exact = softmax(x, axis, where=where, temperature=temperature)
        return _distance(got, exact, ulp(exact, dtype))
    if name == "log_softmax":
        exact = log_softmax(x, axis, where=where, temperature=temperature)
        return _distance(got, exact, ulp(np.maximum(np.abs(exact), 1), dtype))
    exact = logsumexp(x, axis, where=where, keepdims=keepdims)
    lanes = Lanes(np.asarray(x), axis)
    keep = lanes.rows(True if where is None else where)
    size = np.where(keep & np.isfinite(rows := lanes.rows(wide(x))), np.abs(rows), 0).max(axis=1, initial=0)
    return _distance(got, exact, ulp(np.fmax(np.abs(exact), lanes.reduced(size[:, None], keepdims)), dtype))


@np.errstate(all="ignore")
def wrongly_rounded(got, exact, slack=1e-3) -> int:
    """How many entries are neither correctly rounded nor the neighbour across a tie closer than `slack` ULP."""
    unit = ulp(exact, np.asarray(got).dtype)
    got = wide(got)
    below = np.floor(exact / unit) * unit
    neighbour = (got == below) | (got == below + unit)
    right = (got == exact) | (neighbour & (np.abs(got - exact) <= (0.5 + slack) * unit))
    return int(np.count_nonzero(~right & ~(np.isnan(got) & np.isnan(exact))))


def assert_accurate(name, got, x, axis=-1, *, bound=4.0, **how) -> None:
    """`got` keeps the accuracy contract of `name`: a bound in ULP, and correct rounding of 16-bit probabilities."""
    dtype = np.asarray(got).dtype
    if name == "softmax" and dtype.itemsize == 2:
        wrong = wrongly_rounded(got, softmax(x, axis, **how))
        assert wrong == 0, f"{wrong} of {np.size(got)} {dtype} probabilities are wrongly rounded"
        return
    error = ulp_error(name, got, x, axis, **how)
    assert error <= bound, f"{name} of {np.asarray(x).dtype} in {dtype}: {error:.3g} ULP, at most {bound} allowed"


def same_bits(a, b) -> bool:
    """Equal shapes, dtypes and bit patterns (the sign of zero counts; any NaN equals any NaN)."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    unsigned = np.dtype(f"u{a.dtype.itemsize}")
    equal = np.ascontiguousarray(a).view(unsigned) == np.ascontiguousarray(b).view(unsigned)
    return bool(np.all(equal | (np.isnan(a) & np.isnan(b))))
