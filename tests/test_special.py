"""`softmax_numba.special`: a drop-in replacement for SciPy's three functions, judged by SciPy's own tests first."""

import inspect
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import scipy.special
from grids import no_warnings, normal
from oracle import DTYPES, assert_accurate
from scipys import assert_like_scipys, theirs

from softmax_numba import special

pytestmark = no_warnings

NAMES = ("softmax", "log_softmax", "logsumexp")
every_name = pytest.mark.parametrize("name", NAMES)

# Runs SciPy's test file with our functions in the place of the three names that it imported.
RUNNER = """
import collections, functools, json, sys
import pytest
import scipy.special
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
