"""Weights that make up for classes with few examples: formulas, their effect on a loss, and which calls are refused."""

import inspect
import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from grids import no_warnings
from hypothesis import given
from hypothesis import strategies as st
from oracle import eps

import softmax_numba
from softmax_numba import class_weights, cross_entropy

pytestmark = no_warnings

METHODS = ("balanced", "inverse", "effective")
every_method = pytest.mark.parametrize("method", METHODS)
# Of each class so many: none, one, many more.
COUNTS = (3, 0, 1, 10, 250, 7000)
EXAMPLES = np.repeat(np.arange(len(COUNTS)), COUNTS)


def weights_by_definition(method, counts, beta=0.999):
    """Exact weights, by rational numbers and mpmath: those of classes that occur."""
    there = [n for n in counts if n]
    if method == "balanced":
        return [Fraction(sum(counts), len(counts) * n) if n else 0 for n in counts]
    if method == "inverse":
        return [Fraction(1, n) if n else 0 for n in counts]
    with mpmath.workdps(50):
        base = mpmath.mpf(beta)
        found = {n: (1 - base) / (1 - base**n) for n in there}
        mean = mpmath.fsum(found[n] for n in there) / len(there)
        return [found[n] / mean if n else 0 for n in counts]


def assert_weights(found, exact):
    """A few roundings from the exact ones, exactly 0 for classes without examples."""
    assert found.dtype == np.float64
    assert found.shape == (len(exact),)
    for mine, theirs in zip(found, exact, strict=True):
        assert (mine == 0) == (theirs == 0)
        if theirs:
            wanted = theirs if isinstance(theirs, mpmath.mpf) else mpmath.mpf(theirs.numerator) / theirs.denominator
            assert abs(mpmath.mpf(float(mine)) / wanted - 1) <= 8 * eps(np.float64)


@every_method
def test_formulas(method):
    assert_weights(class_weights(EXAMPLES, len(COUNTS), method), weights_by_definition(method, COUNTS))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.sampled_from(METHODS), st.floats(0.01, 1 - 2**-40))
def test_any_counts(counts, method, beta):
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    found = class_weights(targets, len(counts), method, beta=beta)
    assert_weights(found, weights_by_definition(method, counts, beta) if any(counts) else [0] * len(counts))


def test_balanced_is_the_default_and_scikit_learns():
    """``n_samples / (n_classes * np.bincount(y))``, its definition of class_weight="balanced"."""
    y = np.random.default_rng(0).integers(0, 5, 200)
    found = class_weights(y, 5)
    np.testing.assert_array_max_ulp(found, len(y) / (5 * np.bincount(y)), maxulp=2)
    assert np.array_equal(found, class_weights(y, 5, "balanced"))
    # Every class counts the same in all.
    np.testing.assert_allclose(np.bincount(y) * found, len(y) / 5, rtol=4 * eps(np.float64))


def test_the_same_as_scikit_learn():
    compute_class_weight = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    y = np.random.default_rng(1).integers(0, 5, 200)
    theirs = compute_class_weight("balanced", classes=np.arange(5), y=y)
    np.testing.assert_array_max_ulp(class_weights(y, 5), theirs, maxulp=2)


def test_the_effective_number_of_examples():
    """From all the same at beta 0 to the inverse at beta 1; their mean over the classes that occur is 1."""
    same = class_weights(EXAMPLES, len(COUNTS), "effective", beta=0)
    assert np.array_equal(same, [1, 0, 1, 1, 1, 1])
    for beta in (1e-300, 0.5, 0.9, 0.9999, 1 - 2**-52):
        found = class_weights(EXAMPLES, len(COUNTS), "effective", beta=beta)
        assert abs(found.sum() / 5 - 1) <= 8 * eps(np.float64)
        assert_weights(found, weights_by_definition("effective", COUNTS, beta))
    inverse = class_weights(EXAMPLES, len(COUNTS), "inverse")
    np.testing.assert_allclose(found * inverse[0] / found[0], inverse, rtol=7000 * 2.0**-51)
    assert np.array_equal(
        class_weights(EXAMPLES, len(COUNTS), "effective"), class_weights(EXAMPLES, len(COUNTS), "effective", beta=0.999)
    )


@every_method
def test_ignored_targets_are_no_examples(method):
    expected = class_weights(EXAMPLES, len(COUNTS), method)
    for ignored in (-100, -1, len(COUNTS), 2**40):
        targets = np.concatenate([[ignored] * 7, EXAMPLES])
        how = {} if ignored == -100 else {"ignore_index": ignored}
        assert np.array_equal(class_weights(targets, len(COUNTS), method, **how), expected)
    without_four = np.where(EXAMPLES == 4, -100, EXAMPLES)
    found = class_weights(EXAMPLES, len(COUNTS), method, ignore_index=4)
    assert found[4] == 0
    assert np.array_equal(found, class_weights(without_four, len(COUNTS), method))


@every_method
def test_any_shape_type_and_layout(method):
    examples = EXAMPLES[: 12 * 21].reshape(12, 21)
    expected = class_weights(examples, len(COUNTS), method)
    for targets in (
        examples.ravel(),
        examples[None, :, None],
        np.asfortranarray(examples),
        examples[::-1, ::-1],
        examples.astype(np.uint8),
        examples.astype(">i2"),
        examples.astype(np.uint64),
        examples.tolist(),
    ):
        assert np.array_equal(class_weights(targets, len(COUNTS), method), expected)
    assert np.array_equal(class_weights(examples, np.int8(len(COUNTS)), method), expected)
    assert class_weights(2, 3, method).shape == (3,)


@every_method
def test_no_examples(method):
    for targets in ([], np.empty(0, np.int32), np.empty((3, 0), np.uint64), [-100, -100]):
        assert np.array_equal(class_weights(targets, 3, method), np.zeros(3))


def test_the_targets_stay_as_they_were():
    targets = np.array([[0, -100], [2, 1]])
    targets.flags.writeable = False
    class_weights(targets, 3)
    assert np.array_equal(targets, [[0, -100], [2, 1]])


def test_tensors():
    torch = pytest.importorskip("torch")
    found = class_weights(torch.tensor(EXAMPLES), len(COUNTS))
    assert type(found) is np.ndarray
    assert np.array_equal(found, class_weights(EXAMPLES, len(COUNTS)))


def test_what_they_do_to_a_loss():
    """With balanced weights each class that occurs counts the same: the mean of the classes' means."""
    rng = np.random.default_rng(2)
    targets = np.repeat([0, 1, 3], [5, 30, 100])
    x = rng.normal(size=(135, 4))
    loss = cross_entropy(x, targets, weight=class_weights(targets, 4))
    of_classes = [float(cross_entropy(x[targets == k], targets[targets == k])) for k in (0, 1, 3)]
    assert math.isclose(loss, math.fsum(of_classes) / 3, rel_tol=16 * eps(np.float64))


WRONG = {
    "method unknown": ({"method": "sqrt"}, ValueError, ["method", "'balanced'", "'inverse'", "'effective'", "'sqrt'"]),
    "method None": ({"method": None}, ValueError, ["method", "'balanced'", "None"]),
    "num_classes a float": ({"num_classes": 3.0}, TypeError, ["num_classes must be an int", "3.0"]),
    "num_classes a string": ({"num_classes": "3"}, TypeError, ["num_classes must be an int", "'3'"]),
    "no classes": ({"num_classes": 0}, ValueError, ["num_classes", "at least 1", "not 0"]),
    "num_classes negative": ({"num_classes": -2}, ValueError, ["num_classes", "at least 1", "-2"]),
    "beta 1": ({"beta": 1.0}, ValueError, ["beta", "[0, 1)", "1.0"]),
    "beta negative": ({"beta": -0.5}, ValueError, ["beta", "[0, 1)", "-0.5"]),
    "beta NaN": ({"beta": math.nan}, ValueError, ["beta", "[0, 1)", "nan"]),
    "beta a string": ({"beta": "much"}, TypeError, ["beta", "number", "'much'"]),
    "ignore_index a float": ({"ignore_index": 1.5}, TypeError, ["ignore_index must be an int", "1.5"]),
    "ignore_index too large": ({"ignore_index": 2**70}, ValueError, ["ignore_index", str(2**70)]),
    "targets of floats": ({"targets": [0.0, 1.0]}, TypeError, ["targets must be integers", "float64"]),
    "targets of booleans": ({"targets": [True, False]}, TypeError, ["targets must be integers", "bool"]),
    "targets of no type": ({"targets": np.empty(0)}, TypeError, ["targets must be integers", "float64"]),
    "a target too large": ({"targets": [0, 3, 4]}, IndexError, ["targets[1] is 3", "0 to 2", "ignore_index=-100"]),
    "a target negative": ({"targets": [[0, 1], [-1, 2]]}, IndexError, ["targets[1, 0] is -1", "0 to 2"]),
    "a target beyond int64": ({"targets": np.array([2**64 - 1], np.uint64)}, IndexError, [f"is {2**64 - 1}"]),
}


@every_method
@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_value_and_what_is_allowed(method, case):
    changed, exception, words = WRONG[case]
    with pytest.raises(exception) as error:
        class_weights(**{"targets": [0, 1, 2], "num_classes": 3, "method": method, **changed})
    message = str(error.value)
    assert all(word in message for word in words), message


def test_signature():
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(class_weights).parameters.values()]
    expected = "(targets, num_classes, method='balanced', *, ignore_index=-100, beta=0.999)"
    assert str(inspect.Signature(bare)) == expected
    assert "class_weights" in softmax_numba.__all__
