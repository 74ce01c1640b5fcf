"""Each operation on vectors against NumPy's on arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from oracle import same_bits, ulp

from softmax_numba.cpu import powers, simd
from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.host import PERMUTES
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import load, store, width_of

every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
# Values at which formulas differ: signed zeros, subnormal numbers, infinities, NaN, extremes.
SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-40, 6e-8, 65504.0, 3e38, -3e38, np.inf, -np.inf, np.nan, 0.1, 2.5, -7.25]

BINARY = {
    "a + b": (lambda a, b: a + b, np.add),
    "a - b": (lambda a, b: a - b, np.subtract),
    "a * b": (lambda a, b: a * b, np.multiply),
    "a / b": (lambda a, b: a / b, np.divide),
    "-a": (lambda a, b: -a, lambda a, b: -a),
    "a + 2": (lambda a, b: a + 2.0, lambda a, b: a + a.dtype.type(2)),
    "1 - b": (lambda a, b: 1.0 - b, lambda a, b: b.dtype.type(1) - b),
    "a < b": (lambda a, b: simd.select(a < b, a, 5.0), lambda a, b: np.where(a < b, a, a.dtype.type(5))),
    "a > b": (lambda a, b: simd.select(a > b, 5.0, b), lambda a, b: np.where(a > b, b.dtype.type(5), b)),
    "a == b": (lambda a, b: simd.select(a == b, a, b), lambda a, b: np.where(a == b, a, b)),
    "a == 1": (lambda a, b: simd.select(a == 1.0, a, b), lambda a, b: np.where(a == 1, a, b)),
    "and": (
        lambda a, b: simd.select((a < b) & (b > 0.0), a, b),
        lambda a, b: np.where((a < b) & (b > 0), a, b),
    ),
    "or": (
        lambda a, b: simd.select((a < b) | (b > 0.0), a, b),
        lambda a, b: np.where((a < b) | (b > 0), a, b),
    ),
    "larger": (lambda a, b: simd.larger(a, b), lambda a, b: np.where(b > a, b, a)),
    "as numbers": (lambda a, b: simd.as_numbers(a < b, a), lambda a, b: (a < b).astype(a.dtype)),
    "magnitude": (lambda a, b: simd.magnitude(a), lambda a, b: np.abs(a)),
    "times a number": (lambda a, b: simd.times(a, 3.0), lambda a, b: a * a.dtype.type(3)),
    "times nothing": (lambda a, b: simd.times(a, None), lambda a, b: a),
}


@every_float
def test_operators_are_numpys(dtype):
    """On every pair of special values and on random ones, bit by bit; NaN stays NaN."""
    with np.errstate(all="ignore"):
        special = np.array(SPECIAL, dtype)
        random = np.random.default_rng(0).normal(size=(2, 64)).astype(dtype)
        a = np.concatenate([np.repeat(special, 16), random[0]])
        b = np.concatenate([np.tile(special, 16), random[1]])
        for name, (function, expected) in BINARY.items():
            inner = inlined(function)

            @njit(error_model="numpy")
            def everywhere(a, b, out, inner=inner):
                p, q = start_of(a), start_of(b)
                r = start_of(out)
                for i in range(0, a.size, width_of(p)):
                    store(r, i, inner(load(p, i), load(q, i)))

            out = np.empty_like(a)
            everywhere(a, b, out)
            assert same_bits(out, expected(a, b)), name


@njit(error_model="numpy")
def _fma(a, b, c, out):
    p, q, r = start_of(a), start_of(b), start_of(c)
    store(start_of(out), 0, simd.fma(load(p, 0), load(q, 0), load(r, 0)))


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 3), min_size=16, max_size=16))
def test_fma_rounds_once(triples):
    """float32: the product is exact in float64, and so is the sum in longdouble, as long as no digit is lost."""
    a, b, c = np.array(triples, np.float32).T.copy()
    out = np.empty(16, np.float32)
    _fma(a, b, c, out)
    product = a.astype(np.longdouble) * b
    exact = product + c
    lost = (exact - product != c) | (exact - c != product)
    assert (lost | (out == exact.astype(np.float32)) | _double_rounded(exact)).all()
    low = np.full(8, 2.0**-53)
    out = np.empty(8)
    _fma(1 + low * 2, 1 - low * 2, np.full(8, -1.0), out)
    assert (out == -(2.0**-104)).all()


def _double_rounded(exact):
    """Where longdouble itself stands on a tie of float32, which only an inexact sum can be."""
    half = np.ldexp(np.longdouble(1), np.frexp(exact)[1] - 25)
    return (exact / half) % 2 == 1


@every_float
def test_largest_and_how_many(dtype):
    @njit(error_model="numpy")
    def several(x, y, out):
        v = load(start_of(x), 0)
        out[0] = simd.largest_of(v)
        return simd.how_many(v > y), simd.how_many(v == y)

    count = 64 // np.dtype(dtype).itemsize
    for place in range(count):
        x = np.random.default_rng(place).permutation(count).astype(dtype) - 5
        x[place] = 50
        out = np.empty(1, dtype)
        assert several(x, dtype(49), out) == (1, 0)
        assert several(x, dtype(50), out) == (0, 1)
        assert several(x, dtype(-6), out) == (count, 0)
        assert out == 50
        x[place] = -np.inf
        several(x, dtype(49), out)
        assert out == x.max()


def test_widening_and_narrowing():
    @njit
    def there_and_back(x, wide, out):
        low, high = simd.widened(load(start_of(x), 0))
        q = start_of(wide)
        store(q, 0, low)
        store(q, 8, high)
        store(start_of(out), 0, simd.narrowed(low / 3.0, high / 3.0))

    x = np.array(SPECIAL, np.float32)
    wide, out = np.empty(16), np.empty(16, np.float32)
    there_and_back(x, wide, out)
    assert same_bits(wide, x.astype(np.float64))
    assert same_bits(out, (x.astype(np.float64) / 3).astype(np.float32))


@every_float
def test_exponent_of(dtype):
    magic, bias = {np.float32: (1.5 * 2.0**23, 127), np.float64: (1.5 * 2.0**52, 1023)}[dtype]

    @njit
    def power(x):
        return powers.exponent_of(x)

    for k in (1 - bias, -1, 0, 1, 7, bias):
        assert power(dtype(magic + bias + k)) == 2.0**k
    assert power(dtype(magic)) == 0


@pytest.mark.skipif(not PERMUTES, reason="nothing is looked up in a register")
def test_power_of_quarters():
    """All there are, in a vector and as numbers; those with an exponent field of 0 count as nothing."""

    @njit
    def power(k, out):
        p, q = start_of(k), start_of(out)
        for i in range(0, k.size, width_of(p)):
            store(q, i, powers.power_of_quarters(load(p, i)))

    @njit
    def power_of_one(k):
        return powers.power_of_quarters(k)

    steps = np.arange(4 * 255)
    k, out = (1.5 * 2.0**23 + steps).astype(np.float32), np.empty(steps.size + 4, np.float32)
    k = np.concatenate([k, k[:4]])
    power(k, out)
    assert [power_of_one(one) for one in k] == out.tolist()
    exact = np.exp2(steps.astype(np.longdouble) / 4 - 127)
    assert np.max(np.abs(out[4:-4] - exact[4:]) / ulp(exact[4:], np.float32)) <= 0.32
    assert np.all(out[4:-4:4] == exact[4::4])
    assert out[0] == 0 and np.all(np.abs(out[:4]) < 2.0**-126)
