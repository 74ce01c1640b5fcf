"""`softmax_numba.special.logsumexp` with weights of either sign or complex ones: as SciPy, right where that is not."""

import mpmath
import numpy as np
import pytest
from grids import no_warnings, normal
from scipys import assert_like_scipys, theirs

from softmax_numba import special

pytestmark = no_warnings


def test_weighted_sums_are_scipys():
    rng = np.random.default_rng(5)
    for a_type in "?bhilefdgFDG":
        for b_type in "?bhilefdgFDG":
            a = (rng.normal(size=(4, 6)) * 3).astype(a_type)
            b = np.abs(rng.normal(size=(4, 6)) * 3 + 4).astype(b_type)
            b[1, 2] = 0
            for axis in (None, 0, 1):
                expected = theirs("logsumexp", a, axis, b)
                assert_like_scipys(special.logsumexp(a, axis, b), expected, 64 * float(np.finfo(expected.dtype).eps))
                if a_type not in "FDG" and b_type not in "FDG?":
                    b = np.where(np.arange(6) % 3 == 1, -b, b).astype(b_type)
                    ours = special.logsumexp(a, axis, b, return_sign=True)
                    exact = np.sum(b.astype("g") * np.exp(a.astype("g")), axis=axis)
                    assert np.array_equal(ours[1], np.sign(exact))
                    with np.errstate(divide="ignore"):
                        expected = np.log(np.abs(exact))
                    atol = 40 * float(np.finfo(ours[0].dtype).eps)
                    np.testing.assert_allclose(ours[0].astype("g"), expected, rtol=0, atol=atol)


def test_weights_that_are_numbers_adapt_to_the_exponents():
    a = np.array([1, 2], np.float32)
    for b in (2, 2.0, np.float64(2), np.float16(2), [1, 2], np.array(2.0), 2j):
        expected = theirs("logsumexp", a, b=b)
        assert_like_scipys(special.logsumexp(a, b=b), expected)
    assert special.logsumexp(3, b=np.ones(2, np.float32)).dtype == np.float32


def test_weights_broadcast_both_ways():
    for a_shape, b_shape in (((4, 1, 2, 1), (3, 1, 5)), ((3,), (2, 3)), ((), (4,)), ((2, 3), ())):
        a, b = normal(a_shape, np.float64), np.abs(normal(b_shape, np.float64, seed=1))
        for axis in (None, -1):
            assert_like_scipys(special.logsumexp(a, axis, b), theirs("logsumexp", a, axis, b))
    with pytest.raises(ValueError, match="broadcast"):
        special.logsumexp(np.zeros((2, 3)), b=np.ones(4))


def test_a_zero_weight_drops_nan_and_infinity():
    for dtype in "efdgFDG":
        a = np.array([np.nan, 1, np.inf, -np.inf], dtype)
        b = np.array([0, 1, 0, 0], dtype)
        assert special.logsumexp(a, b=b) == 1
        y, sign = special.logsumexp(a, b=0 * b, return_sign=True)
        assert (y, sign) == (-np.inf, 0)


def test_infinite_terms():
    inf, nan = np.inf, np.nan
    for a, b in (
        ([inf, 1], [-1, 1]),
        ([inf, inf], [-1, 1]),
        ([inf, -inf], [2, 1]),
        ([1, 2], [nan, 1]),
        ([1, 2], [inf, 1]),
        ([1, 2], [-inf, 1]),
        ([1, -inf], [1, inf]),
        ([nan, 1], [1, 1]),
        ([-inf, -inf], [1, -1]),
    ):
        for return_sign in (False, True):
            ours = special.logsumexp(a, b=b, return_sign=return_sign)
            expected = theirs("logsumexp", a, b=b, return_sign=return_sign)
            np.testing.assert_array_equal(ours, expected)
    # The finite term's exponential overflows in SciPy, which makes NaN of it.
    assert special.logsumexp([inf, 800], b=[1, -1]) == inf


def test_weights_of_any_size():
    """A term is b exp(a), whatever either factor alone is (SciPy gives the logarithm of what does not underflow)."""
    rng = np.random.default_rng(8)
    for sign in (1, -1):
        for _ in range(20):
            a, exponents = rng.uniform(-900, 900, 4), rng.uniform(-307, 307, 4)
            b = 10**exponents * [1, 1, sign, 1]
            terms = [mpmath.mpf(weight) * mpmath.exp(x) for x, weight in zip(a, b, strict=True)]
            y, of_sum = special.logsumexp(a, b=b, return_sign=True)
            assert of_sum == mpmath.sign(sum(terms))
            assert abs(y - mpmath.log(abs(sum(terms)))) <= 4e-13
    assert special.logsumexp([0, -1000], b=[1e-300, 1e300]) == np.log(1e300) - 1000
    assert abs(special.logsumexp([0, 0], b=[1e308, 1e308]) - np.log(1e308) - np.log(2)) <= 2e-13
    assert special.logsumexp([0, 1e308], b=[np.inf, 1]) == np.inf
    assert special.logsumexp([1e308, 1e308], b=[-1, 1e300]) == 1e308  # what the weights change is below a digit of it


def test_nan_in_a_complex_lane():
    """The other exponents may be beyond the range of exp."""
    for other in (0, 1e5, -np.inf, np.inf):
        for a in ([complex(np.nan, 0), other + 3j], [other + 3j, complex(np.nan, 1)]):
            assert np.isnan(special.logsumexp(a))
            assert np.isnan(special.logsumexp(a, return_sign=True)).all()
    assert np.isnan(special.logsumexp([0, complex(np.inf, np.inf)], return_sign=True)[1])


def test_terms_that_cancel():
    """The largest terms cancel exactly: what remains is the smaller ones (SciPy gives NaN)."""
    assert special.logsumexp([1000, 1000, 999], b=[1, -1, 1]) == 999
    y, sign = special.logsumexp([1000, 1000, 999], b=[1, -1, -1], return_sign=True)
    assert (y, sign) == (999, -1)
    y, sign = special.logsumexp([1000.0, 1000.0], b=[1, -1], return_sign=True)
    assert (y, sign) == (-np.inf, 0)
    assert special.logsumexp([1.0, 1.0], b=[1, -1]) == -np.inf
    assert np.isnan(special.logsumexp([1.0, 2.0], b=[1, -1]))


def test_a_small_rest_beside_a_large_term():
    """log1p: e**-40 beside 1 is not lost, with weights and with complex exponents."""
    rest = float(mpmath.exp(-40))
    for a, b in (([0, -40], None), ([0, -40], [1, 1]), ([0, -40 + 0j], None), (np.array([0, -40], "g"), None)):
        y = special.logsumexp(a, b=b)
        assert abs(float(y.real) - rest) <= 4e-16 * rest
    assert abs(special.logsumexp([0, -40], b=[1, -1]) + rest) <= 4e-16 * rest
    y = special.log_softmax(np.array([40, 0], "g"))
    assert abs(float(y[0]) + rest) <= 4e-16 * rest
    assert y.dtype == np.longdouble


def test_complex_against_mpmath():
    rng = np.random.default_rng(8)
    a = rng.normal(size=12) * 5 + 1j * rng.uniform(-20, 20, 12)
    b = rng.normal(size=12) + 1j * rng.normal(size=12)
    with mpmath.workdps(40):
        total = mpmath.fsum(mpmath.mpc(w) * mpmath.exp(mpmath.mpc(v)) for v, w in zip(a, b, strict=True))
        expected = complex(mpmath.log(total))
        phase = complex(total / abs(total))
    y = special.logsumexp(a, b=b)
    assert abs(y - expected) < 1e-14
    size, sign = special.logsumexp(a, b=b, return_sign=True)
    assert abs(size - expected.real) < 1e-14
    assert abs(sign - phase) < 1e-14
    assert size.dtype == np.float64


def test_the_imaginary_part_lies_above_minus_pi():
    """(-pi, pi]: the logarithm of a negative number has pi, whatever the sign of its zero."""
    for dtype in (np.complex64, np.complex128):
        for angle in (0.0, -0.0):
            y = special.logsumexp(np.array([complex(1, angle)], dtype), b=np.array([-1], np.float32))
            assert y.imag == np.asarray(np.pi, y.real.dtype)
