"""What cross-entropy makes of infinities, NaN, targets that count for nothing, and shapes without lanes or classes."""

import ml_dtypes
import numpy as np
import pytest
from grids import every_dtype, no_warnings, normal
from loss_cases import (
    CLASSES,
    INDEX,
    KEPT,
    KINDS,
    LANES,
    PLACES,
    Case,
    as_rows_and_columns,
    drawn,
    every_kind,
    every_option,
    every_reduction,
    logits,
)
from loss_oracle import BOUND, assert_close
from oracle import eps, same_bits

from softmax_numba import cross_entropy, cross_entropy_and_grad

pytestmark = no_warnings

STRANGE = {
    "NaN": np.nan,
    "+inf": np.inf,
    "-inf": -np.inf,
    "NaN and numbers": np.where(np.arange(CLASSES) == 4, np.nan, 1.0),
    "infinities": np.where(np.arange(CLASSES) % 2, np.inf, -np.inf),
    "the largest number": np.finfo(np.float32).max,
}
every_strange_lane = pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)


# --- targets that count for nothing -----------------------------------------------------


@every_option
@every_reduction
def test_everything_ignored(reduction, options):
    """0 where PyTorch has NaN, and no gradient, whatever the logits are."""
    for dtype in (np.float32, np.float64):
        x = logits(dtype)
        x[0], x[1, 3], x[2] = np.nan, np.inf, -np.inf
        for loss, gradient in as_rows_and_columns(x, np.full(LANES, -100), reduction=reduction, **options):
            assert same_bits(loss, np.zeros(LANES if reduction == "none" else (), dtype))
            assert (gradient == 0).all()


@every_option
@every_strange_lane
def test_an_ignored_lane_may_hold_anything(options, strange):
    """Its loss and its gradient are exactly 0; the others' bits, and the mean, are as without it."""
    for dtype in (np.float32, np.float64):
        x, y = logits(dtype), logits(dtype)
        y[~KEPT] = strange
        index = np.where(KEPT, INDEX, -1)
        for reduction in ("none", "mean"):
            given = {"ignore_index": -1, "reduction": reduction, **options}
            expected = list(as_rows_and_columns(x, index, **given))
            found = list(as_rows_and_columns(y, index, **given))
            for (loss, gradient), (same, same_gradient) in zip(found, expected, strict=True):
                assert same_bits(loss, same)
                assert (gradient[~KEPT] == 0).all()
                assert same_bits(gradient[KEPT], same_gradient[KEPT])
                assert reduction == "mean" or (loss[~KEPT] == 0).all()
            few, few_gradient = Case(x[KEPT], INDEX[KEPT], 1, given).exact()
            loss, gradient = found[0]
            assert_close(loss[KEPT] if reduction == "none" else loss, few)
            assert_close(gradient[KEPT], few_gradient)


@every_option
def test_ignore_index_may_be_a_class(options):
    """Then that class still takes its share of the probability, and of the smoothing."""
    for ignored in (0, 5, CLASSES - 1):
        elsewhere = np.where(ignored == INDEX, -100, INDEX)
        for reduction in ("mean", "sum", "none"):
            expected = list(as_rows_and_columns(logits(), elsewhere, reduction=reduction, **options))
            found = as_rows_and_columns(logits(), INDEX, reduction=reduction, ignore_index=ignored, **options)
            for one, other in zip(found, expected, strict=True):
                assert all(same_bits(a, b) for a, b in zip(one, other, strict=True))


def test_ignore_index_may_be_any_int64():
    for ignored in (-(2**63), -1, CLASSES, 2**63 - 2):
        index = np.where(KEPT, INDEX, ignored)
        loss, gradient = cross_entropy_and_grad(logits(), index, ignore_index=ignored)
        assert loss == cross_entropy(logits(), np.where(KEPT, INDEX, -100))
        assert (gradient[~KEPT] == 0).all()


@every_option
@every_strange_lane
def test_a_loss_is_defined_where_its_gradient_is(options, strange):
    """A lane whose target has weight 0 too: NaN in both, or in neither."""
    x = logits()
    x[~KEPT] = strange
    for weight in (np.ones(CLASSES), np.where(np.arange(CLASSES) % 2, 1.0, 0.0), np.zeros(CLASSES)):
        given = {**options, "weight": weight}
        for loss, gradient in as_rows_and_columns(x, INDEX, reduction="none", **given):
            assert np.array_equal(np.isnan(loss), np.isnan(gradient).any(axis=1))
        for loss, gradient in as_rows_and_columns(x, INDEX, **given):
            assert np.isnan(loss) or not np.isnan(gradient).any()


# --- logits that are no numbers ---------------------------------------------------------


@every_kind
@pytest.mark.parametrize("strange", ["NaN", "+inf", "-inf", "NaN and numbers", "infinities"])
def test_a_lane_without_a_softmax(kind, strange):
    """NaN in its loss, in all of its gradient, and in every sum; nothing else changes."""
    for dtype in (np.float32, np.float64):
        case = drawn(0, dtype, (LANES, CLASSES), 1, kind, reduction="none", weight=None, ignore_index=-100)
        if not KINDS[kind].probabilities:
            case = case._replace(targets=INDEX)
        options = {k: v for k, v in case.options.items() if k != "ignore_index"}
        expected = list(as_rows_and_columns(case.logits, case.targets, **options))
        x = case.logits.copy()
        x[~KEPT] = STRANGE[strange]
        found = list(as_rows_and_columns(x, case.targets, **options))
        for (loss, gradient), (same, same_gradient) in zip(found, expected, strict=True):
            assert np.isnan(loss[~KEPT]).all()
            assert np.isnan(gradient[~KEPT]).all()
            assert same_bits(loss[KEPT], same[KEPT])
            assert same_bits(gradient[KEPT], same_gradient[KEPT])
        for reduction in ("mean", "sum"):
            for loss, _ in as_rows_and_columns(x, case.targets, **{**options, "reduction": reduction}):
                assert np.isnan(loss)


@pytest.mark.parametrize("strange", ["NaN", "+inf", "-inf"])
def test_a_lane_without_a_softmax_whose_targets_are_all_0(strange):
    """It has no loss either: 0 times NaN, with a focal factor as without."""
    for dtype in (np.float32, np.float64):
        x, targets = logits(dtype), np.full((LANES, CLASSES), 1 / CLASSES, dtype)
        x[~KEPT], targets[~KEPT] = STRANGE[strange], 0
        for options in ({}, {"weight": np.zeros(CLASSES), "label_smoothing": 0.2}, {"z_loss": 0.1}):
            for gamma in (0.0, 0.5, 2.0):
                given = {**options, "focal_gamma": gamma, "reduction": "none"}
                for loss, gradient in as_rows_and_columns(x, targets, **given):
                    assert np.array_equal(np.isnan(loss), ~KEPT)
                    assert np.array_equal(np.isnan(gradient).all(axis=1), ~KEPT)
                    assert not np.isnan(gradient[KEPT]).any()


@every_kind
def test_minus_infinity_where_the_target_is_0(kind):
    """It contributes nothing: the others' loss and gradient are those without this class."""
    for dtype in (np.float32, np.float64):
        x = logits(dtype)
        x[:, [2, 7]] = -np.inf
        weight = np.where(np.isin(np.arange(CLASSES), [2, 7]), 0.0, 1.0)
        probabilities, smoothed, focal = KINDS[kind]
        targets = np.where(np.isin(INDEX, [2, 7]), 0, INDEX)
        if probabilities:
            targets = np.abs(normal((LANES, CLASSES), dtype, seed=1)) * weight.astype(dtype)
        # Smoothing gives every class something, unless it has no weight.
        options = {"weight": weight, "label_smoothing": 0.1} if smoothed else {}
        options |= {"focal_gamma": 2.0 * focal, "reduction": "none", "z_loss": 0.1}
        exact, exact_gradient = Case(x, targets, 1, options).exact()
        assert np.isfinite(exact.value).all()
        for loss, gradient in as_rows_and_columns(x, targets, **options):
            assert_close(loss, exact)
            assert_close(gradient, exact_gradient)
            assert (gradient[:, [2, 7]] == 0).all()


@every_kind
def test_minus_infinity_at_a_target(kind):
    """An infinite loss, and a gradient that is finite all the same."""
    for dtype in (np.float32, np.float64):
        case = drawn(2, dtype, (LANES, CLASSES), 1, kind, reduction="none", ignore_index=-100, weight=None)
        if not KINDS[kind].probabilities:
            case = case._replace(targets=INDEX)
        at = INDEX[~KEPT] if not KINDS[kind].probabilities else case.targets[~KEPT].argmax(axis=1)
        x = case.logits.copy()
        x[np.flatnonzero(~KEPT), at] = -np.inf
        case = case._replace(logits=x)
        options = {k: v for k, v in case.options.items() if k != "ignore_index"}
        exact, exact_gradient = case.exact()
        assert np.array_equal(np.isinf(exact.value), ~KEPT)
        assert np.isfinite(exact_gradient.value).all()
        for loss, gradient in as_rows_and_columns(x, case.targets, **options):
            assert_close(loss, exact)
            assert_close(gradient, exact_gradient)
        for reduction in ("mean", "sum"):
            for loss, _ in as_rows_and_columns(x, case.targets, **{**options, "reduction": reduction}):
                assert loss == np.inf


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
def test_minus_infinity_at_a_target_of_negative_weight(focal_gamma):
    x = logits()
    x[~KEPT, 3] = -np.inf
    for label_smoothing in (0.0, 0.1):
        options = {"weight": -np.ones(CLASSES), "label_smoothing": label_smoothing, "focal_gamma": focal_gamma}
        for loss, _ in as_rows_and_columns(x, np.full(LANES, 3), reduction="none", **options):
            assert np.array_equal(np.isneginf(loss), ~KEPT)
            assert np.isfinite(loss[KEPT]).all()


@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
def test_probabilities_that_are_no_numbers(strange, focal_gamma):
    """They make their own lane's loss NaN or infinite, and no other's: the same in rows and columns."""
    q = np.abs(normal((LANES, CLASSES), np.float32, seed=1))
    expected = cross_entropy(logits(), q, reduction="none", focal_gamma=focal_gamma)
    q[~KEPT, 3] = strange
    rows, columns = as_rows_and_columns(logits(), q, reduction="none", focal_gamma=focal_gamma)
    assert not np.isfinite(rows[0][~KEPT]).any()
    assert same_bits(rows[0][KEPT], expected[KEPT])
    assert all(same_bits(a, b) for a, b in zip(rows, columns, strict=True))


@every_kind
def test_masked_logits_are_minus_infinity(kind):
    """As where the mask of a NumPy masked array says so; what stands below it is never seen."""
    weight = np.where(np.arange(CLASSES) == 4, 0.0, 1.0)  # nothing is asked of the masked-out class
    for dtype in (np.float32, np.float64, ml_dtypes.bfloat16):
        case = drawn(4, dtype, (LANES, CLASSES), 1, kind, weight=weight)
        mask = np.zeros((LANES, CLASSES), bool)
        mask[:, 4] = True
        below = np.where(mask, np.array(np.nan, dtype), case.logits)
        x = case._replace(logits=np.where(mask, np.array(-np.inf, dtype), case.logits))
        loss, gradient = case._replace(logits=np.ma.array(below, mask=mask)).loss_and_gradient()
        expected, expected_gradient = x.loss_and_gradient()
        assert same_bits(loss, expected)
        assert same_bits(gradient, expected_gradient)
        assert type(gradient) is np.ndarray
    loss, gradient = cross_entropy_and_grad(np.ma.array([[1, 2, 3]], mask=[[0, 0, 1]]), [0])
    assert loss.dtype == gradient.dtype == np.float64
    assert loss == cross_entropy([[1.0, 2.0, -np.inf]], [0])


# --- shapes -----------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("shape", [(0, 5), (5, 0, 3), (0, 0)], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_no_lanes(dtype, shape, soft):
    """Their sum and their mean are 0."""
    axis = 0 if shape == (5, 0, 3) else 1
    kept = tuple(np.delete(shape, axis))
    targets = np.zeros(shape, dtype) if soft else np.zeros(kept, int)
    for reduction, expected in (("none", np.empty(kept, dtype)), ("sum", dtype.type(0)), ("mean", dtype.type(0))):
        loss, gradient = cross_entropy_and_grad(np.zeros(shape, dtype), targets, axis, reduction=reduction)
        assert same_bits(loss, expected)
        assert gradient.shape == shape
        assert gradient.dtype == dtype
        assert same_bits(cross_entropy(np.zeros(shape, dtype), targets, axis, reduction=reduction), expected)
    assert cross_entropy(np.zeros((0, 5)), []) == 0


@every_option
@every_reduction
def test_no_classes(reduction, options):
    """Only what is ignored can be a target there."""
    options = {**options, "weight": np.ones(0)} if "weight" in options else options
    for shape, axis in (((3, 0), 1), ((0, 3), 0), ((2, 0, 4), 1)):
        kept = tuple(np.delete(shape, axis))
        loss, gradient = cross_entropy_and_grad(
            np.zeros(shape), np.full(kept, -100), axis, reduction=reduction, **options
        )
        assert same_bits(loss, np.zeros(kept) if reduction == "none" else np.float64(0))
        assert gradient.shape == shape
    with pytest.raises(IndexError, match=r"targets\[1\] is 0.*no classes"):
        cross_entropy(np.zeros((3, 0)), [-100, 0, 0], **options)


@every_dtype
@every_reduction
def test_one_lane(dtype, reduction):
    """1-D logits: the target is a number, and so is the loss."""
    x = normal(40, dtype)
    for target in (7, np.int8(7), np.array(7), np.array(7, ">u2")):
        loss, gradient = cross_entropy_and_grad(x, target, reduction=reduction)
        assert type(loss) is dtype.type
        assert gradient.shape == (40,)
        expected, expected_gradient = cross_entropy_and_grad(x[None], [7], reduction="sum")
        assert same_bits(loss, expected)
        assert same_bits(gradient, expected_gradient[0])
        assert type(cross_entropy(x, target, reduction=reduction)) is dtype.type
    assert cross_entropy(x, -100) == 0
    loss, gradient = cross_entropy_and_grad(x[0], 0, reduction=reduction)  # one class
    assert type(loss) is type(gradient) is dtype.type
    assert loss == 0 and abs(float(gradient)) < 1e-6


@every_reduction
def test_one_class(reduction):
    """All of the probability is there: nothing is lost, and there is nothing to gain."""
    for shape, axis in (((4, 1), 1), ((1, 4), 0), ((1,), 0), ((2, 1, 9), 1), ((), 0)):
        x = normal(shape, np.float64)
        index = np.zeros(tuple(np.delete(shape, axis)) if shape else (), int)
        loss, gradient = cross_entropy_and_grad(x, index, axis, reduction=reduction)
        assert (loss == 0).all()
        assert (np.abs(gradient) <= BOUND * eps(np.float64)).all()
        assert np.shape(gradient) == shape
        assert type(loss) is np.float64 or (reduction == "none" and loss.ndim)
    with pytest.raises(IndexError, match="targets is 1; allowed are 0 to 0"):
        cross_entropy(2.0, 1)


def test_lists():
    loss, gradient = cross_entropy_and_grad([[1.0, 2.0], [0.5, 0.25]], [1, 0])
    expected, expected_gradient = cross_entropy_and_grad(np.array([[1.0, 2.0], [0.5, 0.25]]), np.array([1, 0]))
    assert type(loss) is np.float64
    assert same_bits(loss, expected)
    assert same_bits(gradient, expected_gradient)
    soft = cross_entropy([[1.0, 2.0]], [[0.25, 0.75]], weight=[1, 2])
    assert soft == cross_entropy(np.array([[1.0, 2.0]]), np.array([[0.25, 0.75]]), weight=np.array([1.0, 2.0]))


@every_dtype
def test_beyond_the_types_numbers_is_infinity(dtype):
    """Without a warning. A mean of losses that the dtype still holds is one that it holds."""
    big = float(ml_dtypes.finfo(dtype).max)
    x = np.zeros((4, 3), dtype)
    x[:, 0] = big
    assert (cross_entropy(x, [1] * 4, reduction="none").astype(np.float64) == big).all()
    assert cross_entropy(x, [1] * 4, reduction="sum") == np.inf
    assert cross_entropy(x, [1] * 4, z_loss=1.0) == np.inf
    if dtype.itemsize < 8:
        assert float(cross_entropy(x, [1] * 4)) == big


@pytest.mark.parametrize("how", PLACES)
def test_broadcast_arguments(how):
    """Zero strides: one lane, one logit or one target for all."""
    row = normal(CLASSES, np.float32)
    for x, axis in (
        (np.broadcast_to(row, (LANES, CLASSES)), 1),
        (np.broadcast_to(row[:, None], (CLASSES, LANES)), 0),
        (np.broadcast_to(np.float32(2.5), (LANES, CLASSES)), 1),
    ):
        for targets in (np.broadcast_to(3, LANES), np.broadcast_to(np.float32(0.2), x.shape)):
            case = Case(x, targets, axis, {})
            expected, gradient = case.placed(how).loss_and_gradient()
            loss, same = case.loss_and_gradient()
            assert same_bits(loss, expected)
            assert same_bits(same, gradient)
