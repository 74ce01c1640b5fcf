"""Every wrong argument of a loss is named with its value and what is allowed, before any work."""

import inspect

import numba
import numpy as np
import pytest
from grids import no_warnings

import softmax_numba
from softmax_numba import cross_entropy, cross_entropy_and_grad

pytestmark = no_warnings

LOSSES = {"cross_entropy": cross_entropy, "cross_entropy_and_grad": cross_entropy_and_grad}
every_loss = pytest.mark.parametrize("name", LOSSES)

X = np.zeros((2, 3), np.float32)
FROZEN = np.zeros((2, 3), np.float32)
FROZEN.flags.writeable = False

# What is changed of a call of two lanes and three classes, the exception, and words that its message must hold.
WRONG = {
    "logits of strings": ({"logits": [["a", "b"]]}, TypeError, ["dtype", "float64"]),
    "logits complex": ({"logits": X.astype(complex)}, TypeError, ["complex128", "float64"]),
    "logits longdouble": (
        {"logits": X.astype("g")},
        TypeError,
        ["float128" if np.dtype("g").itemsize == 16 else "dtype"],
    ),
    "logits of objects": ({"logits": X.astype(object)}, TypeError, ["object"]),
    "axis too large": ({"axis": 2}, np.exceptions.AxisError, ["axis 2", "2-D"]),
    "axis too small": ({"axis": -3}, np.exceptions.AxisError, ["axis -3", "2-D"]),
    "axis a float": ({"axis": 1.0}, TypeError, ["axis must be an int", "1.0"]),
    "axis a tuple": ({"axis": (0, 1)}, TypeError, ["axis must be an int", "(0, 1)"]),
    "axis None": ({"axis": None}, TypeError, ["axis must be an int", "None"]),
    "too few targets": ({"targets": [0]}, ValueError, ["targets", "(2,)", "(1,)"]),
    "a target too many": ({"targets": 0}, ValueError, ["targets", "(2,)", "()"]),
    "indices of the logits' shape": ({"targets": np.zeros((2, 3), int)}, ValueError, ["indices", "(2,)", "(2, 3)"]),
    "indices that are floats": ({"targets": [0.0, 1.0]}, ValueError, ["float64", "(2, 3)", "(2,)", "integers"]),
    "probabilities of another shape": ({"targets": np.zeros((3, 2))}, ValueError, ["(2, 3)", "(3, 2)"]),
    "targets of booleans": ({"targets": [True, False]}, TypeError, ["targets", "integers", "floats", "bool"]),
    "label_smoothing a number in a string": ({"label_smoothing": "0.1"}, TypeError, ["number", "'0.1'"]),
    "reduction an array": ({"reduction": np.array(["mean", "sum"])}, ValueError, ["reduction", "'none'"]),
    "targets masked": (
        {"targets": np.ma.array([0, 1], mask=[0, 1])},
        TypeError,
        ["targets is a masked array", "1 of 2", "filled"],
    ),
    "targets complex": ({"targets": X.astype(complex)}, TypeError, ["targets", "complex128"]),
    "targets of strings": ({"targets": ["a", "b"]}, TypeError, ["targets", "<U1"]),
    "targets missing": ({"targets": None}, TypeError, ["targets", "object"]),
    "weight of another length": ({"weight": np.ones(2)}, ValueError, ["weight", "(2,)", "3 classes"]),
    "weight a number": ({"weight": 1.0}, ValueError, ["weight", "()", "3 classes"]),
    "weight of each logit": ({"weight": np.ones((2, 3))}, ValueError, ["weight", "(2, 3)", "3 classes"]),
    "weight of strings": ({"weight": ["a", "b", "c"]}, TypeError, ["weight", "<U1", "numbers"]),
    "weight complex": ({"weight": np.ones(3, complex)}, TypeError, ["weight", "complex128", "numbers"]),
    "weight NaN": ({"weight": [1, np.nan, 2]}, ValueError, ["weight", "finite", "class 1", "nan"]),
    "weight infinite": ({"weight": [1, 1, -np.inf]}, ValueError, ["weight", "finite", "class 2", "-inf"]),
    "ignore_index a float": ({"ignore_index": -1.0}, TypeError, ["ignore_index must be an int", "-1.0"]),
    "ignore_index None": ({"ignore_index": None}, TypeError, ["ignore_index must be an int", "None"]),
    "ignore_index too large": ({"ignore_index": 2**63 - 1}, ValueError, ["ignore_index", str(2**63 - 1)]),
    "ignore_index too small": ({"ignore_index": -(2**63) - 1}, ValueError, ["ignore_index", str(-(2**63) - 1)]),
    "label_smoothing negative": ({"label_smoothing": -0.1}, ValueError, ["label_smoothing", "[0, 1)", "-0.1"]),
    "label_smoothing 1": ({"label_smoothing": 1}, ValueError, ["label_smoothing", "[0, 1)", "not 1"]),
    "label_smoothing NaN": ({"label_smoothing": np.nan}, ValueError, ["label_smoothing", "[0, 1)", "nan"]),
    "label_smoothing a string": ({"label_smoothing": "much"}, TypeError, ["label_smoothing", "[0, 1)", "'much'"]),
    "label_smoothing None": ({"label_smoothing": None}, TypeError, ["label_smoothing", "None"]),
    "z_loss negative": ({"z_loss": -1e-4}, ValueError, ["z_loss", "finite and not negative", "-0.0001"]),
    "z_loss infinite": ({"z_loss": np.inf}, ValueError, ["z_loss", "finite and not negative", "inf"]),
    "z_loss NaN": ({"z_loss": np.nan}, ValueError, ["z_loss", "finite and not negative", "nan"]),
    "z_loss a list": ({"z_loss": [1.0, 2.0]}, TypeError, ["z_loss", "number", "[1.0, 2.0]"]),
    "focal_gamma negative": ({"focal_gamma": -2}, ValueError, ["focal_gamma", "finite and not negative", "-2"]),
    "focal_gamma infinite": ({"focal_gamma": np.inf}, ValueError, ["focal_gamma", "finite and not negative", "inf"]),
    "focal_gamma complex": ({"focal_gamma": 1j}, TypeError, ["focal_gamma", "number", "1j"]),
    "reduction unknown": ({"reduction": "max"}, ValueError, ["reduction", "'mean'", "'sum'", "'none'", "'max'"]),
    "reduction None": ({"reduction": None}, ValueError, ["reduction", "'mean'", "'sum'", "'none'", "None"]),
}
WRONG_OUT = {
    "out of another shape": ({"out": np.zeros((3, 2), np.float32)}, ValueError, ["out", "(3, 2)", "(2, 3)"]),
    "out of the losses' shape": ({"out": np.zeros(2, np.float32)}, ValueError, ["out", "(2,)", "(2, 3)"]),
    "out of another dtype": ({"out": np.zeros((2, 3))}, TypeError, ["out", "float64", "float32"]),
    "out read-only": ({"out": FROZEN}, ValueError, ["out", "read-only"]),
    "out a list": ({"out": [[0.0] * 3] * 2}, TypeError, ["out", "array"]),
}


def check(function, changed, exception, words):
    with pytest.raises(exception) as error:
        function(**{"logits": X, "targets": [0, 1], **changed})
    message = str(error.value)
    assert all(word in message for word in words), message
    assert not isinstance(error.value, numba.core.errors.NumbaError)
    assert len(message) < 400


@every_loss
@pytest.mark.parametrize("case", WRONG)
def test_arguments(name, case):
    check(LOSSES[name], *WRONG[case])


@pytest.mark.parametrize("case", WRONG_OUT)
def test_out(case):
    check(cross_entropy_and_grad, *WRONG_OUT[case])


@every_loss
@pytest.mark.parametrize("case", ["axis too large", "weight of another length", "weight NaN", "reduction unknown"])
@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (3, 0, 3)], ids=str)
def test_empty_arguments_are_examined_too(name, case, shape):
    changed, exception, _ = WRONG[case]
    targets = np.full(shape[:-1], -100)
    if len(shape) == 3 and case == "axis too large":
        changed = {"axis": 3}
    with pytest.raises(exception):
        LOSSES[name](np.zeros(shape), targets, **changed)


# --- indices out of range ---------------------------------------------------------------

OUT_OF_RANGE = {
    "too large": ([0, 3], {}, "targets[1] is 3; allowed are 0 to 2, and ignore_index=-100"),
    "negative": ([-1, 0], {}, "targets[0] is -1; allowed are 0 to 2, and ignore_index=-100"),
    "the default's, not ignored": ([1, -100], {"ignore_index": 2}, "targets[1] is -100; allowed are 0 to 2, and"),
    "two of them": ([7, -9], {}, "targets[0] is 7;"),
    "after one that is ignored": ([-100, 5], {}, "targets[1] is 5;"),
    "in few bits": (np.array([2, 255], np.uint8), {}, "targets[1] is 255;"),
    "the least": (np.array([-(2**63), 0]), {}, f"targets[0] is {-(2**63)};"),
    "beyond int64": (np.array([1, 2**63 + 5], np.uint64), {}, f"targets[1] is {2**63 + 5};"),
    "what int64 makes -1 of": (
        np.array([2**64 - 1, 1], np.uint64),
        {"ignore_index": -1},
        f"targets[0] is {2**64 - 1};",
    ),
    "what int64 makes -100 of": (np.array([1, 2**64 - 100], np.uint64), {}, f"targets[1] is {2**64 - 100};"),
    "of another byte order": (np.array([0, 3], ">i4"), {}, "targets[1] is 3;"),
    "backwards": (np.array([3, 0])[::-1], {}, "targets[1] is 3;"),
}


@every_loss
@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_an_index_out_of_range(name, case):
    targets, options, words = OUT_OF_RANGE[case]
    for soft in ({}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}):
        with pytest.raises(IndexError) as error:
            LOSSES[name](X, targets, **options, **soft)
        assert str(error.value).startswith(words)


@every_loss
def test_the_first_place_in_the_order_of_the_axes(name):
    """Whatever order the targets have in memory, or the logits."""
    targets = np.zeros((3, 4, 5), int)
    targets[2, 0, 0] = targets[1, 3, 2] = targets[1, 3, 4] = 9
    for logits in (np.zeros((3, 6, 4, 5)), np.zeros((3, 6, 4, 5), order="F")):
        for given in (targets, np.asfortranarray(targets), targets.astype(np.int8)):
            with pytest.raises(
                IndexError, match=r"^targets\[1, 3, 2\] is 9; allowed are 0 to 5, and ignore_index=-100$"
            ):
                LOSSES[name](logits, given, 1)


@every_loss
def test_a_target_that_is_a_number(name):
    with pytest.raises(IndexError, match=r"^targets is 3; allowed are 0 to 2, and ignore_index=-100$"):
        LOSSES[name](X[0], 3)


# --- devices, signatures ----------------------------------------------------------------


class OnCuda:
    """Looks like a CUDA library's array: device type 2, and nothing that the host may read."""

    shape, dtype, ndim = (2, 3), np.dtype(np.float32), 2

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **how):
        raise AssertionError("a CUDA array must not be exported to the host")


@every_loss
def test_arrays_on_a_gpu(name):
    with pytest.raises(TypeError, match=r'pip install "softmax-numba\[cuda\]"'):
        LOSSES[name](OnCuda(), [0, 1])
    for mixed in ("targets", "weight") + (("out",) if name == "cross_entropy_and_grad" else ()):
        with pytest.raises(ValueError, match=f"one device.*{mixed} on the GPU"):
            LOSSES[name](**{"logits": X, "targets": [0, 1], mixed: OnCuda()})


@every_loss
def test_signatures(name):
    """Everything after the axis by keyword only."""
    signature = inspect.signature(LOSSES[name])
    expected = (
        "(logits, targets, axis=-1, *, weight=None, ignore_index=-100, label_smoothing=0.0, reduction='mean', "
        "z_loss=0.0, focal_gamma=0.0"
    )
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(bare)) == expected + (", out=None)" if name == "cross_entropy_and_grad" else ")")
    with pytest.raises(TypeError):
        LOSSES[name](X, [0, 1], -1, None)
    assert name in softmax_numba.__all__
