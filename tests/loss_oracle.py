"""What the losses and the ways back should return: computed in extended precision, with the size of what is added up.

Every ``-log p`` comes from ``oracle.log_softmax``, (max - z) + log1p(rest), so that a loss of 1e-12 has all its digits
here. ``test_losses.py`` and ``test_vjp.py`` check these formulas against mpmath and against differences.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import oracle
from oracle import LONG, Lanes, largest, tiny, ulp, wide

# ULP of the largest term, in the type that computes; 16-bit results are rounded once more.
BOUND = 8.0
# Terms below have fewer digits: exponentials are kept multiplied by 2**30 (2**64), factors divided by it.
_LEAST = {"float32": LONG(2) ** (-126 + 30), "float64": LONG(2) ** (-1022 + 64)}


class Exact(NamedTuple):
    """Exact values, and for each the size of the largest term that it is made of."""

    value: np.ndarray
    size: np.ndarray


@np.errstate(all="ignore")
def cross_entropy(
    logits,
    targets,
    axis=-1,
    *,
    weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    reduction="mean",
    z_loss=0.0,
    focal_gamma=0.0,
) -> tuple[Exact, Exact]:
    """The loss and its gradient as longdouble.

    A loss is a sum of terms that are not negative (but for negative weights), so that the largest it is made of is the
    sum of their sizes; an entry of the gradient is the difference of two.
    """
    logits, targets = np.asarray(logits), np.asarray(targets)
    lanes = Lanes(logits, axis)
    surprise = -lanes.rows(oracle.log_softmax(logits, axis))
    p = lanes.rows(oracle.softmax(logits, axis))
    of_all = np.reshape(oracle.logsumexp(logits, axis), (-1, 1))
    classes = surprise.shape[1]
    # As accurate as logsumexp can be: to the logarithm of the sum beside the largest.
    size_of_all = np.maximum(np.abs(of_all), surprise.min(axis=1, keepdims=True, initial=np.inf))

    smoothing, z_loss, gamma = LONG(label_smoothing), LONG(z_loss), LONG(focal_gamma)
    weight = np.ones(classes, LONG) if weight is None else wide(weight)
    if targets.dtype.kind in "iu":
        index = targets.reshape(-1, 1)
        counts = index != ignore_index
        q = (index == np.arange(classes)).astype(LONG)
        total = np.sum(q * weight, where=counts)
    else:
        q, counts = lanes.rows(wide(targets)), np.ones((len(surprise), 1), bool)
        total = LONG(len(surprise))
    own, even = (1 - smoothing) * q * weight, smoothing / max(classes, 1) * weight
    given, size = own + even, np.abs(own) + np.abs(even)

    left = -np.expm1(-surprise)
    factor = left**gamma
    hit = np.where(np.isinf(surprise), 0, np.exp(-surprise) * np.where(left == 0, 1, surprise / left))
    steepness = 1 + gamma * hit  # what a relative error of -log p becomes in the factor and its slope
    slope = factor * steepness
    terms = np.where(given == 0, 0, given * factor * surprise)
    sizes = np.where(size == 0, 0, size * factor * surprise * steepness)
    given, size = np.where(given == 0, 0, given * slope), np.where(size == 0, 0, size * slope * steepness)
    loss, loss_size = terms.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True)
    mass, mass_size = given.sum(axis=1, keepdims=True), size.sum(axis=1, keepdims=True)
    if z_loss:
        loss, loss_size = loss + z_loss * of_all**2, loss_size + z_loss * np.abs(of_all) * size_of_all
        mass, mass_size = mass + 2 * z_loss * of_all, mass_size + 2 * z_loss * size_of_all
    undefined = np.isnan(p).any(axis=1, keepdims=True)
    loss = np.where(undefined, np.nan, loss)
    least = tiny(np.float64 if logits.dtype == np.float64 else np.float32)  # below, p has fewer digits
    gradient, gradient_size = mass * p - given, np.maximum(mass_size * np.maximum(p, least), size)
    loss, loss_size, gradient, gradient_size = (
        np.where(counts, a, LONG(0)) for a in (loss, loss_size, gradient, gradient_size)
    )

    if reduction == "none":
        losses = Exact(lanes.reduced(loss, False), lanes.reduced(loss_size, False))
        return losses, Exact(lanes.back(gradient), lanes.back(gradient_size))
    gain = LONG(1)
    if reduction == "mean":
        gain = 1 / total if total else LONG(0)
    size = np.abs(gain)
    added = Exact(loss.sum() * gain, loss_size.sum() * size) if gain else Exact(gain, gain)
    return added, Exact(lanes.back(gradient * gain), lanes.back(gradient_size * size))


def _added_up(values) -> np.ndarray:
    """The sum of each row, (rows, 1), to the last digit: pairwise, with what every addition loses."""
    high, low = values, np.zeros_like(values)
    while high.shape[1] > 1:
        if high.shape[1] % 2:
            high, low = (np.pad(a, ((0, 0), (0, 1))) for a in (high, low))
        a, b = high[:, ::2], high[:, 1::2]
        high = a + b
        rest = high - a
        low = low[:, ::2] + low[:, 1::2] + ((a - (high - rest)) + (b - rest))
    return high + low if values.shape[1] else np.zeros((len(values), 1), values.dtype)


def _ways_back(y, dy, axis, temperature):
    y, dy = wide(y), wide(dy)
    lanes = Lanes(y, axis)
    t = np.asarray(temperature, LONG)
    t = t if t.ndim == 0 else lanes.rows(np.broadcast_to(t, y.shape))[:, :1]
    return lanes, lanes.rows(y), lanes.rows(dy), t


@np.errstate(all="ignore")
def softmax_vjp(y, dy, axis=-1, *, temperature=1.0) -> Exact:
    """y (dy - sum(y dy)) / T, exactly 0 where y is."""
    lanes, y, dy, t = _ways_back(y, dy, axis, temperature)
    products = np.where(y == 0, 0, y * dy)
    total = _added_up(products)
    largest_product = np.abs(products).max(axis=1, keepdims=True, initial=0)
    size = np.maximum(np.maximum(np.abs(dy), np.abs(total)), largest_product)
    return Exact(*(lanes.back(np.where(y == 0, 0, y * a / t)) for a in (dy - total, size)))


@np.errstate(all="ignore")
def log_softmax_vjp(y, dy, axis=-1, *, temperature=1.0) -> Exact:
    """(dy - exp(y) sum(dy)) / T, exactly 0 where y is -inf."""
    lanes, y, dy, t = _ways_back(y, dy, axis, temperature)
    there, p = y != -np.inf, np.exp(y)
    dy = np.where(there, dy, 0)
    total = _added_up(dy)
    largest_term = np.abs(dy).max(axis=1, keepdims=True, initial=0)
    size = np.maximum(np.abs(dy), p * np.maximum(np.abs(total), largest_term))
    return Exact(*(lanes.back(np.where(there, a / t, 0)) for a in (dy - p * total, size)))


@np.errstate(all="ignore")
def ulp_error(got, exact: Exact) -> float:
    """Worst error of `got` in ULP of the largest term, beside what rounding to 16 bits accounts for.

    Beyond the type's numbers, an infinity is exact; a NaN or an infinity must stand where the exact one stands.
    """
    dtype = np.asarray(got).dtype
    got, value = wide(got), np.asarray(exact.value)
    assert got.shape == value.shape, (got.shape, value.shape)
    end = LONG(largest(dtype))
    value = np.where(np.abs(value) >= end + ulp(end, dtype) / 2, np.copysign(LONG(np.inf), value), value)
    rounding, computes = LONG(0), dtype
    if dtype.itemsize == 2:
        rounding, computes = ulp(np.fmax(np.abs(got), np.abs(value)), dtype) / 2, np.dtype(np.float32)
    same = (got == value) | (np.isnan(got) & np.isnan(value))
    error = np.fmax(np.abs(got - value) - rounding, 0) + np.where(np.isnan(got) == np.isnan(value), 0, np.nan)
    error = np.where(same, 0, error / ulp(np.maximum(exact.size, _LEAST[computes.name]), computes))
    return float(np.max(np.where(np.isnan(error), np.inf, error), initial=0))


def assert_close(got, exact: Exact, what="") -> None:
    """`got` keeps the bound of the losses and the ways back."""
    error = ulp_error(got, exact)
    assert error <= BOUND, f"{what} in {np.asarray(got).dtype}: {error:.3g} ULP of the largest term, not {BOUND:g}"
