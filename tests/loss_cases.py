"""Calls of cross_entropy: logits, targets and all options drawn from a seed, and arrays placed anywhere in memory."""

from __future__ import annotations

from typing import NamedTuple

import loss_oracle
import numpy as np
import pytest
from grids import normal
from loss_oracle import assert_close
from oracle import BFLOAT16, same_bits

from softmax_numba import cross_entropy, cross_entropy_and_grad


class Kind(NamedTuple):
    """What decides which kernel goes through the lanes again."""

    probabilities: bool = False
    smoothed: bool = False
    focal: bool = False


KINDS = {
    "indices": Kind(),
    "smoothed": Kind(smoothed=True),
    "probabilities": Kind(probabilities=True),
    "focal": Kind(focal=True),
    "focal, smoothed": Kind(smoothed=True, focal=True),
    "focal, probabilities": Kind(probabilities=True, focal=True),
    "smoothed probabilities": Kind(probabilities=True, smoothed=True),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])

# From nearly equal logits to one that has all probability, around 0 and near the contract's limit of 1e4.
SCALES = (0.01, 1.0, 3.0, 10.0, 40.0)
SHIFTS = (0.0, 700.0, -9500.0, 9500.0)
# By the logits' dtype: a kernel is compiled for each pair that computes in float32.
_PROBABILITIES = {
    "float16": [np.float32],
    "bfloat16": [BFLOAT16],
    "float32": [np.float32, np.float64],
    "float64": [np.float64, np.float16],
}


class Case(NamedTuple):
    """The arguments of a call."""

    logits: np.ndarray
    targets: np.ndarray
    axis: int
    options: dict

    def loss(self):
        return cross_entropy(self.logits, self.targets, self.axis, **self.options)

    def loss_and_gradient(self, **more):
        return cross_entropy_and_grad(self.logits, self.targets, self.axis, **self.options, **more)

    def exact(self):
        return loss_oracle.cross_entropy(self.logits, self.targets, self.axis, **self.options)

    def placed(self, how):
        """The same call of arrays that lie elsewhere."""
        return self._replace(logits=placed(self.logits, how), targets=placed(self.targets, how))

    def __str__(self):
        return f"{self.logits.shape} along {self.axis}, targets {self.targets.dtype}, {self.options}"


def drawn(seed, dtype, shape, axis, kind, **fixed) -> Case:
    """A call of one of KINDS, all its other options drawn too but for the `fixed` ones."""
    probabilities, smoothed, focal = KINDS[kind]
    rng = np.random.default_rng([seed, *shape])
    classes, kept = shape[axis], tuple(np.delete(shape, axis))
    logits = np.moveaxis(rng.normal(size=shape), axis, -1)
    logits = logits * rng.choice(SCALES, kept)[..., None] + rng.choice(SHIFTS)
    logits = np.ascontiguousarray(np.moveaxis(np.clip(logits, -9999, 9999), -1, axis)).astype(dtype)
    options = {
        "reduction": str(rng.choice(["mean", "sum", "none"])),
        "z_loss": float(rng.choice([0.0, 1e-4, 0.3])),
        "label_smoothing": float(rng.choice([0.01, 0.1, 0.9])) if smoothed else 0.0,
        "focal_gamma": float(rng.choice([0.5, 1.0, 2.0, 5.0])) if focal else 0.0,
    }
    if rng.random() < 0.5:
        options["weight"] = rng.uniform(0.1, 3, classes) * (rng.random(classes) < 0.8)
    if probabilities:
        targets = rng.exponential(size=shape) * (rng.random(shape) < 0.7)
        if rng.random() < 0.5:
            targets /= np.fmax(targets.sum(axis=axis, keepdims=True), 1e-3)
        targets = targets.astype(rng.choice(_PROBABILITIES[np.dtype(dtype).name]))
    else:
        options["ignore_index"] = int(rng.choice([-100, 0, classes - 1]))
        targets = np.asarray(rng.integers(0, classes, kept))
        targets[rng.random(kept) < 0.2] = options["ignore_index"]
        targets = targets.astype(rng.choice(["i2", "i4", "i8"] if classes < 2**15 else ["i4", "i8"]))
    return Case(logits, targets, axis, options | fixed)


def assert_right(case: Case) -> None:
    """Loss and gradient are within their bound, in the logits' dtype, and the loss alone has the same bits."""
    loss, gradient = case.loss_and_gradient()
    exact, exact_gradient = case.exact()
    assert loss.dtype == gradient.dtype == case.logits.dtype.newbyteorder("=")
    assert_close(loss, exact, f"loss of {case}")
    assert_close(gradient, exact_gradient, f"gradient of {case}")
    assert same_bits(case.loss(), loss), str(case)


PLACES = ("C", "F", "reversed", "every other", "unaligned", "big-endian")


def placed(values, how) -> np.ndarray:
    """An array of the same `values`, elsewhere in memory."""
    if how in ("C", "F"):
        return values.copy(how)
    if how == "reversed":
        return np.flip(np.flip(values).copy())
    if how == "big-endian":
        return values.copy() if values.dtype == BFLOAT16 else values.astype(values.dtype.newbyteorder(">"))
    if how == "unaligned":
        return np.frombuffer(b"\0" + values.tobytes(), np.uint8).copy()[1:].view(values.dtype).reshape(values.shape)
    room = np.zeros([2 * n for n in values.shape], values.dtype)
    view = room[(..., *[slice(None, None, 2)] * values.ndim)]
    view[...] = values
    return view


def as_rows_and_columns(logits, targets, **options):
    """Loss and gradient of the rows of 2-D logits, from rows and from columns, and of the loss alone."""
    loss, gradient = cross_entropy_and_grad(logits, targets, 1, **options)
    assert same_bits(cross_entropy(logits, targets, 1, **options), loss)
    yield loss, gradient
    across = np.ascontiguousarray(np.transpose(targets)) if np.ndim(targets) == 2 else targets
    columns = np.ascontiguousarray(np.transpose(logits))
    loss, gradient = cross_entropy_and_grad(columns, across, 0, **options)
    assert same_bits(cross_entropy(columns, across, 0, **options), loss)
    yield loss, gradient.T


# --- a few lanes, for what each option makes of special ones ---------------------------

LANES, CLASSES = 12, 9
KEPT = np.arange(LANES) % 3 != 1  # lanes that stay as they are while others change
# Every option that indices may go with.
OPTIONS = {
    "alone": {},
    "weighted": {"weight": np.linspace(0.5, 2, CLASSES)},
    "smoothed": {"label_smoothing": 0.1},
    "z-loss": {"z_loss": 0.1},
    "focal": {"focal_gamma": 2.0},
    "focal, smoothed": {"focal_gamma": 2.0, "label_smoothing": 0.1},
    "everything": {"weight": np.linspace(0.5, 2, CLASSES), "focal_gamma": 0.5, "label_smoothing": 0.1, "z_loss": 0.1},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def logits(dtype=np.float32):
    return normal((LANES, CLASSES), dtype)


INDEX = np.arange(LANES) % CLASSES
