"""`softmax_numba.special`: a drop-in replacement for SciPy's three functions, judged by SciPy's own tests first."""

import inspect
import json
import os
import subprocess
import sys

import ml_dtypes
import mpmath
import numpy as np
import pytest
import scipy.special
from grids import no_warnings, normal
from oracle import DTYPES, assert_accurate

from softmax_numba import special

pytestmark = no_warnings

NAMES = ("softmax", "log_softmax", "logsumexp")
every_name = pytest.mark.parametrize("name", NAMES)

# Runs SciPy's test file with our functions in the place of the three names that it imported.
RUNNER = """
import collections, functools, json, sys
import pytest
from softmax_numba import special

class InPlaceOfScipys:
    def __init__(self):
        self.outcomes, self.calls = collections.Counter(), collections.Counter()

    def counted(self, name):
        @functools.wraps(getattr(special, name))
        def call(*args, **how):
            self.calls[name] += 1
            return getattr(special, name)(*args, **how)
        return call

    def pytest_collection_modifyitems(self, items):
        replaced = {name: self.counted(name) for name in ("softmax", "log_softmax", "logsumexp")}
        for item in items:
            vars(item.module).update(replaced)

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            kind = "expected failure" if hasattr(report, "wasxfail") else report.outcome
            self.outcomes[kind] += 1

plugin = InPlaceOfScipys()
arguments = ["--pyargs", "scipy.special.tests.test_logsumexp", "-q", "-p", "no:cacheprovider", "--tb=short"]
code = pytest.main(arguments, plugins=[plugin])
print("COUNTED", json.dumps({"code": code, "outcomes": plugin.outcomes, "calls": plugin.calls}))
"""


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_scipys_own_tests(backend, tmp_path):
    """The whole file, no test deselected: with NumPy arrays, and with tensors by SciPy's array-API machinery."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SCIPY_", "PYTEST_"))}
    if backend != "numpy":
        pytest.importorskip(backend)
        environment["SCIPY_ARRAY_API"] = json.dumps([backend])
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    counted = [line for line in done.stdout.splitlines() if line.startswith("COUNTED ")]
    assert counted, done.stdout + done.stderr
    found = json.loads(counted[0].removeprefix("COUNTED "))
    assert found["code"] == 0, done.stdout
    assert set(found["outcomes"]) == {"passed"}
    # SciPy 1.17.1 has 407 tests a backend, 324 of them for pairs of infinities.
    assert found["outcomes"]["passed"] >= 400
    assert found["calls"]["logsumexp"] >= 400
    assert found["calls"]["softmax"] >= 10
    assert found["calls"]["log_softmax"] >= 10


def theirs(name, *args, **how):
    with np.errstate(all="ignore"):
        return getattr(scipy.special, name)(*args, **how)


def assert_like_scipys(ours, expected, rtol=None):
    """Same type, dtype, shape and special values; values as close as SciPy's own accuracy lets them be."""
    assert type(ours) is type(expected)
    assert ours.dtype == expected.dtype
    assert ours.shape == expected.shape
    if rtol is None:
        rtol = 32 * float(np.finfo(ours.dtype).eps)
    np.testing.assert_allclose(ours, expected, rtol=rtol, atol=rtol)


INPUTS = {
    **{
        c: np.array([[1, 2, 3], [5, 5, 6]], c)
        for c in ("h", "i", "l", "q", "e", "f", "d", "g", "F", "D", "G", ">f", ">d")
    },
    "int8": np.array([[1, 2, 3], [5, 6, 6]], np.int8),
    "list": [[1, 2, 3], [4.5, 5, 6]],
    "integers": [[1, 2, 3]],
    "number": 3,
    "float": 2.5,
    "complex number": 1 + 2j,
    "float32 scalar": np.float32(2.5),
    "0-d": np.array(2.5, np.float32),
    "0-d complex": np.array(2.5 - 1j),
    "complex": np.array([[1 + 1j, 2 - 1j], [-2 + 3j, 0.5j]]),
    "Fortran": np.asfortranarray(normal((3, 4), np.float64)),
}


@every_name
@pytest.mark.parametrize("kind", INPUTS)
def test_types_and_shapes_are_scipys(name, kind):
    x = INPUTS[kind]
    axes = [None, -1, 0] + ([] if np.ndim(x) < 2 else [1, (0, 1), (1,), (), np.int64(1)])
    for axis in axes:
        assert_like_scipys(getattr(special, name)(x, axis=axis), theirs(name, x, axis=axis))
        if name == "logsumexp":
            for keepdims in (False, True):
                ours = special.logsumexp(x, axis=axis, keepdims=keepdims, return_sign=True)
                expected = theirs(name, x, axis=axis, keepdims=keepdims, return_sign=True)
                for a, b in zip(ours, expected, strict=True):
                    assert_like_scipys(a, b)


@every_name
@pytest.mark.parametrize("dtype", ["b", "B", "h", "H", "I", "Q"])
def test_integers_never_wrap_around(name, dtype):
    """SciPy subtracts in the integers' own type, where 0 - 1 may be 255; its result type is kept."""
    limits = np.iinfo(dtype)
    x = np.array([limits.min, limits.max, limits.max - 2], dtype)
    y = getattr(special, name)(x)
    assert y.dtype == theirs(name, x).dtype
    assert_accurate(name, y, x.astype(np.float64))


def test_bfloat16_and_booleans():
    x = normal((3, 9), np.dtype(ml_dtypes.bfloat16))
    for name in ("softmax", "log_softmax"):
        y = getattr(special, name)(x, axis=1)
        assert y.dtype == x.dtype
        assert_accurate(name, y, x, 1)
    y = special.logsumexp(x, axis=1)
    assert y.dtype == theirs("logsumexp", x, axis=1).dtype == np.float64
    assert_accurate("logsumexp", y, x, 1)
    for name in NAMES:
        y = getattr(special, name)([True, False, True])
        assert y.dtype == np.float64
        assert_accurate(name, y, np.array([1.0, 0, 1]))


@every_name
def test_real_accuracy_is_the_packages(name):
    for dtype in DTYPES:
        if name == "logsumexp" and dtype.name == "bfloat16":
            continue
        for axis in (0, 1, None):
            x = normal((30, 70), dtype, scale=20, shift=50)
            assert_accurate(name, getattr(special, name)(x, axis), x, axis)


@every_name
@pytest.mark.parametrize("dtype", ["e", "f", "d", "g"])
def test_special_values_are_scipys(name, dtype):
    """All but the warnings: in log_softmax a lane with +inf is NaN there and -inf beside it."""
    inf, nan = np.inf, np.nan
    x = np.array(
        [[nan, 1, 2], [inf, 1, -inf], [-inf, -inf, -inf], [-inf, 1, 2], [inf, nan, 1], [inf, inf, 0], [0, 1, 2]], dtype
    )
    for a, axis in ((x, 1), (np.ascontiguousarray(x.T), 0), (x[:, None], (1, 2)), (x[1], None), (x[1], ()), (x[6], 0)):
        assert_like_scipys(getattr(special, name)(a, axis), theirs(name, a, axis))


@every_name
def test_empty_arrays(name):
    function = getattr(special, name)
    for shape, axis in (((0,), None), ((0, 3), 0), ((3, 0), 1), ((0, 3), 1), ((3, 0), 0), ((2, 0, 3), 2)):
        for dtype in "fdgD":
            x = np.ones(shape, dtype)
            try:
                expected = theirs(name, x, axis)
            except ValueError:
                with pytest.raises(ValueError, match="length 0"):
                    function(x, axis)
            else:
                assert_like_scipys(function(x, axis), expected)
    if name == "logsumexp":
        # SciPy fails here by an error of its own.
        assert function(np.ones((0, 3))) == -np.inf
        assert function(np.ones((0, 3)), axis=(0, 1), keepdims=True).shape == (1, 1)
        assert function([], return_sign=True) == theirs(name, [], return_sign=True)
        assert function([], b=[]) == -np.inf


@every_name
@pytest.mark.parametrize(
    ("axis", "exception"),
    [
        (2, np.exceptions.AxisError),
        (-3, np.exceptions.AxisError),
        ((0, 0), ValueError),
        ((0, -2), ValueError),
        (1.0, TypeError),
        ([0, 1], TypeError),
    ],
)
def test_wrong_axes(name, axis, exception):
    for x in (np.ones((2, 3)), np.ones((2, 3), complex)):
        with pytest.raises(exception):
            theirs(name, x, axis)
        with pytest.raises(exception):
            getattr(special, name)(x, axis)


@every_name
@pytest.mark.parametrize("x", [np.array([1, "a"], object), np.array(["a"]), np.array(["2020-01-01"], "M8[D]"), None])
def test_wrong_types(name, x):
    with pytest.raises(TypeError, match="dtype"):
        getattr(special, name)(x)
    with pytest.raises(TypeError, match="dtype"):
        special.logsumexp(np.ones(1), b=x if x is not None else [None])


# Weights


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


def test_inputs_are_not_written():
    a, b = normal((4, 5), np.float64), normal((4, 5), np.float64, seed=1)
    a.flags.writeable = b.flags.writeable = False
    for x in (a, a.astype(complex), a.astype("g")):
        before = x.copy()
        for name in NAMES:
            getattr(special, name)(x, 1)
        special.logsumexp(x, 1, b, return_sign=True)
        assert np.array_equal(x, before)


def test_masked_arrays_are_plain_arrays_as_in_scipy():
    """Of a masked array SciPy sees the data alone; so do its replacements."""
    x = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 1], [0, 0]])
    for name in NAMES:
        y = getattr(special, name)(x, 1)
        assert type(y) is np.ndarray
        assert_like_scipys(y, theirs(name, x.data, 1))


def test_tensors_keep_their_type():
    """Without SCIPY_ARRAY_API too; integers become PyTorch's default float, as SciPy has it there."""
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 5, dtype=torch.float64)
    for name in NAMES:
        y = getattr(special, name)(x, 1)
        assert type(y) is torch.Tensor
        np.testing.assert_array_equal(y.numpy(), getattr(special, name)(x.numpy(), 1))
        assert getattr(special, name)(torch.arange(4)).dtype == torch.get_default_dtype()
        assert getattr(special, name)(x.to(torch.bfloat16)).dtype == torch.bfloat16
    y, sign = special.logsumexp(x, 1, b=-torch.ones(5), return_sign=True)
    assert y.dtype == sign.dtype == torch.float64
    assert (sign == -1).all()
    assert special.logsumexp([1, 2], b=torch.ones(2)).dtype == torch.float32


def test_signatures_are_scipys():
    for name in NAMES:
        ours, expected = (inspect.signature(getattr(m, name)) for m in (special, scipy.special))
        assert [(p.name, p.default, p.kind) for p in ours.parameters.values()] == [
            (p.name, p.default, p.kind) for p in expected.parameters.values()
        ]
