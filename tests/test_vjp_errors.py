"""The ways back refuse what they cannot do, name the value and what is allowed, and write nothing."""

import inspect

import numba
import numpy as np
import pytest
from grids import every_map, no_warnings
from vjp_cases import WAYS_BACK

import softmax_numba

pytestmark = no_warnings


# --- errors -----------------------------------------------------------------------------

Y = np.full((2, 3), 0.25, np.float32)
FROZEN = Y.copy()
FROZEN.flags.writeable = False


class OnCuda:
    """Looks like a CUDA library's array."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **how):
        raise AssertionError("a CUDA array must not be exported to the host")


WRONG = {
    "dy of another shape": ({"dy": np.ones((3, 2))}, ValueError, ["y and dy", "(2, 3)", "(3, 2)"]),
    "dy that would broadcast": ({"dy": np.ones(3)}, ValueError, ["y and dy", "(2, 3)", "(3,)"]),
    "y of strings": ({"y": [["a"]]}, TypeError, ["<U1", "float64"]),
    "dy complex": ({"dy": np.ones((2, 3), complex)}, TypeError, ["complex128", "float64"]),
    "dy longdouble": ({"dy": np.ones((2, 3), "g")}, TypeError, ["float64"]),
    "axis too large": ({"axis": 2}, np.exceptions.AxisError, ["axis 2", "2-D"]),
    "axis repeated": ({"axis": (1, -1)}, ValueError, ["axis", "twice"]),
    "axis a float": ({"axis": 1.5}, TypeError, ["axis", "1.5"]),
    "axis a list": ({"axis": [0, 1]}, TypeError, ["axis", "[0, 1]"]),
    "temperature zero": ({"temperature": 0}, ValueError, ["temperature", "positive", "0"]),
    "temperature NaN": ({"temperature": np.nan}, ValueError, ["temperature", "nan"]),
    "one temperature wrong": ({"temperature": np.array([[1.0], [-3.5]])}, ValueError, ["temperature", "-3.5"]),
    "temperatures along the lane": ({"temperature": np.ones(3)}, ValueError, ["temperature", "(3,)", "(2, 1)"]),
    "temperature a string": ({"temperature": "hot"}, TypeError, ["temperature"]),
    "out of another shape": ({"out": np.zeros((3, 2), np.float32)}, ValueError, ["out", "(3, 2)", "(2, 3)"]),
    "out of another dtype": ({"out": np.zeros((2, 3))}, TypeError, ["out", "float64", "float32"]),
    "out read-only": ({"out": FROZEN}, ValueError, ["out", "read-only"]),
    "out a list": ({"out": [[0.0] * 3] * 2}, TypeError, ["out", "array"]),
    "dy on a GPU": ({"dy": OnCuda()}, ValueError, ["one device", "y on the CPU", "dy on the GPU"]),
    "out on a GPU": ({"out": OnCuda()}, ValueError, ["one device", "out on the GPU"]),
}


@every_map
@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_value_and_what_is_allowed(name, case):
    changed, exception, words = WRONG[case]
    with pytest.raises(exception) as error:
        WAYS_BACK[name](**{"y": Y, "dy": Y, **changed})
    message = str(error.value)
    assert all(word in message for word in words), message
    assert not isinstance(error.value, numba.core.errors.NumbaError)


@every_map
def test_nothing_is_written_when_an_argument_is_wrong(name):
    out = np.full((2, 3), 77, np.float32)
    for changed in ({"dy": np.ones((3, 2))}, {"axis": 5}, {"temperature": -1.0}):
        with pytest.raises(ValueError):  # noqa: PT011  (the test before this one has the messages)
            WAYS_BACK[name](**{"y": Y, "dy": Y, "out": out, **changed})
    assert (out == 77).all()


@every_map
def test_signatures(name):
    bare = [
        p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(WAYS_BACK[name]).parameters.values()
    ]
    assert str(inspect.Signature(bare)) == "(y, dy, axis=-1, *, temperature=1.0, out=None)"
    assert f"{name}_vjp" in softmax_numba.__all__
