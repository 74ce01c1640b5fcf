"""Every error names the value at fault and what is allowed, comes before any work, and never from the compiler."""

import inspect
import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from grids import FUNCTIONS, MAPS, every_function, every_map, no_warnings

import softmax_numba

pytestmark = no_warnings

X = np.zeros((2, 3), np.float32)
FROZEN = np.zeros((2, 3), np.float32)
FROZEN.flags.writeable = False

# The call's arguments, the exception, and words that its message must hold.
WRONG = {
    "axis too large": ({"axis": 2}, np.exceptions.AxisError, ["2"]),
    "axis too small": ({"axis": -3}, np.exceptions.AxisError, ["-3", "2"]),
    "axis repeated": ({"axis": (0, 0)}, ValueError, ["axis", "0"]),
    "axis repeated under two names": ({"axis": (1, -1)}, ValueError, ["axis"]),
    "axis a float": ({"axis": 1.5}, TypeError, ["axis", "1.5"]),
    "axis a list": ({"axis": [0, 1]}, TypeError, ["axis", "[0, 1]"]),
    "where of integers": ({"where": [1, 0, 1]}, TypeError, ["where", "int64", "bool"]),
    "where too long": ({"where": np.ones(4, bool)}, ValueError, ["where", "(4,)", "(2, 3)"]),
    "where larger than x": (
        {"where": np.ones((5, 2, 3), bool)},
        ValueError,
        ["where", "(5, 2, 3)", "(2, 3)"],
    ),
    "where masked": (
        {"where": np.ma.array([True, False, True], mask=[0, 0, 1])},
        TypeError,
        ["where", "masked array", "1 of 3", "filled"],
    ),
    "dtype of integers": (
        {"dtype": "int32"},
        TypeError,
        ["int32", "float16", "bfloat16", "float32", "float64"],
    ),
    "dtype complex": ({"dtype": complex}, TypeError, ["complex", "float64"]),
    "out not an array": ({"out": [0.0]}, TypeError, ["out", "array"]),
}
WRONG_FOR_MAPS = {
    "temperature zero": ({"temperature": 0}, ValueError, ["temperature", "0", "positive"]),
    "temperature negative": ({"temperature": -2.5}, ValueError, ["temperature", "-2.5", "positive"]),
    "temperature NaN": ({"temperature": np.nan}, ValueError, ["temperature", "nan"]),
    "temperature infinite": ({"temperature": np.inf}, ValueError, ["temperature", "inf", "finite"]),
    "one temperature wrong": (
        {"temperature": np.array([[1.0], [-3.5]])},
        ValueError,
        ["temperature", "-3.5"],
    ),
    "temperatures along the lane": (
        {"temperature": np.ones(3)},
        ValueError,
        ["temperature", "(3,)", "(2, 1)"],
    ),
    "temperature None": ({"temperature": None}, TypeError, ["temperature", "None"]),
    "temperature masked": (
        {"temperature": np.ma.array([[1.0], [2.0]], mask=[[0], [1]])},
        TypeError,
        ["temperature", "masked array", "1 of 2"],
    ),
    "temperature a string": ({"temperature": "hot"}, TypeError, ["temperature"]),
    "out of another shape": ({"out": np.zeros((3, 2), np.float32)}, ValueError, ["out", "(3, 2)", "(2, 3)"]),
    "out of another dtype": ({"out": np.zeros((2, 3))}, TypeError, ["out", "float64", "float32"]),
    "out read-only": ({"out": FROZEN}, ValueError, ["out", "read-only"]),
}


def check(function, how, exception, words):
    with pytest.raises(exception) as error:
        function(X, **how)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert not isinstance(error.value, numba.core.errors.NumbaError)
    assert len(message) < 400


@every_function
@pytest.mark.parametrize("case", WRONG)
def test_arguments_of_all_functions(name, case):
    check(FUNCTIONS[name], *WRONG[case])


@every_map
@pytest.mark.parametrize("case", WRONG_FOR_MAPS)
def test_arguments_of_the_maps(name, case):
    check(MAPS[name], *WRONG_FOR_MAPS[case])


@pytest.mark.parametrize(
    ("how", "exception", "words"),
    [
        ({"out": np.zeros((2, 1), np.float32)}, ValueError, ["out", "(2, 1)", "(2,)"]),
        ({"out": np.zeros(2, np.float32), "keepdims": True}, ValueError, ["out", "(2, 1)", "(2,)"]),
        ({"out": np.zeros(2)}, TypeError, ["out", "float64", "float32"]),
        ({"out": FROZEN[:, 0]}, ValueError, ["out", "read-only"]),
        ({"temperature": 2.0}, TypeError, ["temperature"]),
    ],
)
def test_arguments_of_logsumexp(how, exception, words):
    check(FUNCTIONS["logsumexp"], how, exception, words)


@every_function
def test_an_axis_error_is_numpys(name):
    """Both an IndexError and a ValueError, as callers of NumPy expect, with the axis and the dimensions."""
    with pytest.raises(np.exceptions.AxisError) as error:
        FUNCTIONS[name](X, axis=7)
    assert isinstance(error.value, ValueError)
    assert isinstance(error.value, IndexError)
    assert error.value.axis in (7, None)


@every_function
def test_signatures(name):
    """The signatures of the contract, everything after the axis by keyword only."""
    signature = inspect.signature(FUNCTIONS[name])
    expected = {
        "softmax": "(x, axis=-1, *, where=None, temperature=1.0, dtype=None, out=None)",
        "log_softmax": "(x, axis=-1, *, where=None, temperature=1.0, dtype=None, out=None)",
        "logsumexp": "(x, axis=-1, *, where=None, keepdims=False, dtype=None, out=None)",
    }[name]
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == expected
    with pytest.raises(TypeError):
        FUNCTIONS[name](X, -1, None)
    with pytest.raises(TypeError):
        FUNCTIONS[name](X, dim=1)
    with pytest.raises(TypeError):
        FUNCTIONS[name]()


def test_without_a_compiler():
    """NUMBA_DISABLE_JIT=1 is for those who look for errors in kernels of their own."""
    code = "from softmax_numba import softmax; softmax([1.0, 2.0])"
    disabled = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=disabled)
    assert "RuntimeError: softmax_numba is Numba's compiled code: NUMBA_DISABLE_JIT must be 0" in done.stderr


@every_function
def test_errors_survive_optimised_python(name):
    """``python -O`` drops assert statements: validation must not be made of them."""
    code = (
        "import numpy as np\n"
        f"from softmax_numba import {name} as f\n"
        "for how in (dict(axis=5), dict(where=np.ones(7, bool)), dict(out=np.zeros((9, 9)))):\n"
        "    try:\n"
        "        f(np.zeros((2, 3)), **how)\n"
        "    except ValueError:\n"
        "        continue\n"
        "    raise SystemExit(f'no error for {how}')\n"
    )
    subprocess.run([sys.executable, "-O", "-c", code], check=True, timeout=300)


def test_public_names():
    assert set(FUNCTIONS) <= set(softmax_numba.__all__)
    for name in FUNCTIONS:
        assert getattr(softmax_numba, name).__doc__
