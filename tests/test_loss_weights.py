"""Class weights in losses: none at all, beyond the type, and against each other."""

import numpy as np
import pytest
from grids import no_warnings
from loss_cases import CLASSES, INDEX, Case, as_rows_and_columns, every_option, every_reduction, logits
from loss_oracle import assert_close

from softmax_numba import cross_entropy_and_grad

pytestmark = no_warnings


@pytest.mark.parametrize("size", [1e-280, 1e-50, 1e-40, 1e39, 1e300])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"focal_gamma": 2.0}])
def test_weights_beyond_float32(options, size):
    """A mean does not depend on the weights' size."""
    weight = np.linspace(1.0, 2.0, CLASSES)
    right = cross_entropy_and_grad(logits(), INDEX, axis=1, weight=weight, **options)
    found = cross_entropy_and_grad(logits(), INDEX, axis=1, weight=size * weight, **options)
    for one, other in zip(found, right, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@every_option
@every_reduction
def test_weights_of_0(reduction, options):
    """A class of weight 0 has no term; a mean divides by the weight that is left."""
    for which in ([3], [0, 8], range(1, CLASSES)):
        weight = np.array(options.get("weight", np.ones(CLASSES)))
        weight[list(which)] = 0
        case = Case(logits(), INDEX, 1, {**options, "weight": weight, "reduction": reduction})
        exact, exact_gradient = case.exact()
        for loss, gradient in as_rows_and_columns(case.logits, INDEX, **case.options):
            assert_close(loss, exact)
            assert_close(gradient, exact_gradient)


@every_option
def test_a_total_weight_of_0(options):
    """The mean of nothing is 0, its gradient too: PyTorch has NaN."""
    weight = np.where(np.arange(CLASSES) == 4, 2.0, 0.0)
    index = np.where(INDEX == 4, -100, INDEX)
    for given in (weight, np.zeros(CLASSES)):
        for loss, gradient in as_rows_and_columns(logits(), index, **{**options, "weight": given}):
            assert loss == 0
            assert (gradient == 0).all()
    negative = np.where(np.arange(CLASSES) % 2, 1.0, -1.0)
    for loss, gradient in as_rows_and_columns(logits()[:2], [0, 1], **{**options, "weight": negative}):
        assert loss == 0
        assert (gradient == 0).all()


@pytest.mark.parametrize("inner", [1, 40])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.5])
def test_weights_that_cancel(inner, label_smoothing):
    """The target's weight and the z-loss add up to nothing, and the target still has its share."""
    _, gradient = cross_entropy_and_grad(
        np.full((1, inner), -1.0), np.zeros(inner, int), 0, z_loss=0.5, label_smoothing=label_smoothing, reduction="sum"
    )
    assert (gradient == -1.0).all()
