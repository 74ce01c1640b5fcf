"""Are they right? Losses and ways back against exact values, in units in the last place (ULP) of what they are made of.

What one ULP is, always in the result's dtype:

- a loss: the spacing at it;
- an entry of its gradient, p - q over the number of lanes: the spacing at the larger of the two;
- an entry of softmax_vjp, y dy - y sum(y dy), or of log_softmax_vjp, dy - exp(y) sum(dy): the spacing at the largest of
  its terms, those of the sum among them;
- an entry of the gradients of a linear layer, which are matrix products: the spacing at the sum of its terms' sizes, by
  which the errors of matrix products are bounded.

A loss is the mean over all lanes, and all of them are looked at; the gradients are compared on lanes that are drawn by
the seed, the classes of a linear layer likewise. float64 serves the narrower dtypes, ``longdouble`` serves float64.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.bench.accuracy import Accuracy, Exact, Sample, Tally, smallest_normal, spacing
from softmax_numba.bench.exact import BLOCK
from softmax_numba.bench.workloads import result_dtype

__all__ = ["TrainingJudge", "Whole"]

Array = np.ndarray[Any, Any]
# A matrix product wants more rows at a time than a block has of a vocabulary.
_PRODUCT = 8 * BLOCK


class _Surprises(NamedTuple):
    """-log softmax of every lane at its target, and every lane's logsumexp."""

    losses: Array
    logs: Array


class Whole(NamedTuple):
    """What a loss is the mean of, where only some of its lanes are among the operands."""

    lanes: int
    loss: float  # the exact one


class TrainingJudge:
    """Compares losses and ways back for one set of operands with exact values.

    Parameters
    ----------
    operands : tuple of ndarray
        As ``Workload.operands`` has them.
    axis : int
    values : int or None
        About how many entries of a gradient to compare; None: all of them.
    seed : int
        Draws the lanes, and the places of a lane that is longer than ``values``; the targets are always among them.
    whole : Whole or None
        What the operands are some lanes of; None: they are all there are.

    Examples
    --------
    >>> y, dy = np.array([[0.25, 0.75]]), np.array([[1.0, 0.0]])
    >>> judge = TrainingJudge((y, dy), -1)
    >>> right = judge.take("softmax_vjp", np.array([[0.1875, -0.1875]]))
    >>> judge.judge("softmax_vjp", {"by hand": right})["by hand"].max_ulp
    0.0
    """

    def __init__(
        self,
        operands: tuple[Array, ...],
        axis: int,
        *,
        values: int | None = None,
        seed: int = 0,
        whole: Whole | None = None,
    ) -> None:
        self._operands, self._axis, self._seed, self._whole = operands, axis, seed, whole
        self._dtype = result_dtype(operands[0].dtype)
        narrow = self._dtype.itemsize < 8
        self._wide = np.dtype(np.float64 if narrow else np.longdouble)
        self._reference = "float64" if narrow else f"longdouble, {np.finfo(np.longdouble).nmant + 1}-bit significand"
        self._sample = Sample(operands[0].shape, axis, values, seed)
        self._seen: _Surprises | None = None

    def take(self, op: str, *results: Array) -> tuple[Array, ...]:
        """Copies of the judged parts of an op's results."""
        if op == "cross_entropy":
            return (_alone(results[0]),)
        if op == "cross_entropy_and_grad":
            loss, gradient = results
            return _alone(loss), np.array(self._sample.whole(gradient)[:, self._places])
        if op == "linear_cross_entropy_and_grad":
            loss, of_hidden, of_weight = results
            return _alone(loss), np.array(self._sample.whole(of_hidden)), np.array(of_weight[self._classes])
        return (np.array(self._sample.whole(results[0])[:, self._sample.places]),)

    def judge(self, op: str, taken: Mapping[str, tuple[Array, ...]]) -> dict[str, Accuracy]:
        """The accuracy of each contender's results together, as :meth:`take` gave them."""
        tallies = {name: Tally() for name in taken}
        # What a peer returned may hold anything.
        with np.errstate(all="ignore"):
            for part, exact in self._blocks(op):
                for name, tally in tallies.items():
                    tally.add(taken[name][part][exact.rows, exact.columns], exact)
        return {name: tally.accuracy(self._reference, self._sample.lanes) for name, tally in tallies.items()}

    def _blocks(self, op: str) -> Iterator[tuple[int, Exact]]:
        """Exact values, and of which result they are."""
        if op.endswith("_vjp"):
            yield from ((0, exact) for exact in self._ways_back(op))
            return
        yield 0, self._loss()
        if op == "cross_entropy_and_grad":
            yield from ((1, exact) for exact in self._gradient())
        elif op == "linear_cross_entropy_and_grad":
            yield 1, self._of_hidden()
            yield 2, self._of_weight()

    def _exact(self, op: str, value: Array, size: Array, first: int = 0) -> Exact:
        """Values of lanes from ``first`` on, which are made of terms of that size."""
        name = self._dtype.name
        counts = np.isfinite(size) & (size >= smallest_normal(name))
        unit = spacing(np.where(np.isfinite(size), size, 1), name)
        rounded = value.astype(self._dtype).astype(value.dtype)
        rows, low = slice(first, first + len(value)), np.zeros_like(value)
        terms = size if op == "gradient" else None
        return Exact(op, rows, slice(None), value, low, unit, counts, rounded, terms)

    # --- losses -------------------------------------------------------------------------

    def _rows(self, step: int) -> Iterator[tuple[slice, Array]]:
        """The logits of all lanes in wide numbers, some lanes at a time."""
        first = self._operands[0]
        if self._linear:
            weight = self._operands[1].astype(self._wide).T
            rows = first.reshape(-1, first.shape[-1])
        else:
            rows = np.moveaxis(first, self._axis, -1).reshape(-1, self._sample.length)
        for start in range(0, len(rows), step):
            some = rows[start : start + step].astype(self._wide)
            yield slice(start, start + len(some)), some @ weight if self._linear else some

    @property
    def _linear(self) -> bool:
        return len(self._operands) == 3

    @property
    def _targets(self) -> Array:
        return self._operands[-1].reshape(-1)

    @property
    def _surprises(self) -> _Surprises:
        """Taken over all lanes, which takes seconds: ops of one judge share them."""
        if self._seen is None:
            classes = self._operands[1].shape[0] if self._linear else self._sample.length
            step = max(1, (_PRODUCT if self._linear else BLOCK) // classes)
            parts = [_surprises(lanes, self._targets[rows]) for rows, lanes in self._rows(step)]
            self._seen = _Surprises(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        return self._seen

    def _loss(self) -> Exact:
        mean = self._surprises.losses.mean() if self._whole is None else self._whole.loss
        value = np.array([[mean]], self._wide)
        return self._exact("loss", value, np.abs(value))

    @property
    def _places(self) -> Array | slice:
        """The sampled places of a lane with its target."""
        places = self._sample.places
        if isinstance(places, slice):
            return places
        return np.union1d(places, self._targets[self._sample.lane_numbers])

    def _gradient(self) -> Iterator[Exact]:
        x, chosen = self._sample.whole(self._operands[0]), self._sample.lane_numbers
        lanes = len(self._targets) if self._whole is None else self._whole.lanes
        entries = np.arange(self._sample.length)[self._places]
        step = max(1, BLOCK // self._sample.length)
        for first in range(0, len(x), step):
            some = chosen[first : first + step]
            high = x[first : first + step, self._places].astype(self._wide)
            p = np.exp(high - self._surprises.logs[some, None])
            q = entries == self._targets[some, None]
            yield self._exact("gradient", (p - q) / lanes, np.maximum(p, q) / lanes, first)

    # --- ways back ----------------------------------------------------------------------

    def _ways_back(self, op: str) -> Iterator[Exact]:
        y, dy = (self._sample.whole(operand) for operand in self._operands)
        step = max(1, BLOCK // self._sample.length)
        for first in range(0, len(y), step):
            some = slice(first, first + step)
            factor, back = y[some].astype(self._wide), dy[some].astype(self._wide)
            if op == "log_softmax_vjp":
                factor, terms = np.exp(factor), back
                value = back - factor * terms.sum(axis=1, keepdims=True)
                size = np.maximum(np.abs(back), factor * _largest_in_sum(terms))
            else:
                terms = factor * back
                value = factor * (back - terms.sum(axis=1, keepdims=True))
                size = factor * np.maximum(np.abs(back), _largest_in_sum(terms))
            places = self._sample.places
            yield self._exact("gradient", value[:, places], size[:, places], first)

    # --- a linear layer -----------------------------------------------------------------

    @property
    def _classes(self) -> Array:
        """Classes whose weights' gradients are compared: as many as lanes are, and the targets of these."""
        classes, of_lanes = self._operands[1].shape[0], self._targets[self._sample.lane_numbers]
        drawn = np.random.default_rng(self._seed).integers(0, classes, len(of_lanes))
        return np.union1d(drawn, of_lanes)

    def _of_hidden(self) -> Exact:
        hidden, weight = self._sample.whole(self._operands[0]), self._operands[1]
        chosen, wide, lanes = self._sample.lane_numbers, weight.astype(self._wide), len(self._targets)
        p = np.exp(hidden.astype(self._wide) @ wide.T - self._surprises.logs[chosen, None])
        own = wide[self._targets[chosen]]
        value, size = p @ wide - own, p @ np.abs(wide) + np.abs(own)
        return self._exact("gradient", value / lanes, size / lanes)

    def _of_weight(self) -> Exact:
        hidden = self._operands[0].reshape(-1, self._operands[0].shape[-1]).astype(self._wide)
        classes, lanes = self._classes, len(self._targets)
        p = np.exp(hidden @ self._operands[1][classes].astype(self._wide).T - self._surprises.logs[:, None])
        q = self._targets[:, None] == classes
        value, size = (p - q).T @ hidden, (p + q).T @ np.abs(hidden)
        return self._exact("gradient", value / lanes, size / lanes)


def _alone(loss: Array) -> Array:
    return np.array(loss).reshape(1, 1)


def _surprises(lanes: Array, targets: Array) -> tuple[Array, Array]:
    """Of each lane: its loss to the last digit, however small, and its logsumexp."""
    numbers = np.arange(len(lanes))
    top = lanes.argmax(axis=1)
    largest, wanted = lanes[numbers, top], lanes[numbers, targets]
    terms = np.exp(lanes - largest[:, None])
    terms[numbers, top] = 0  # is 1: log1p adds it
    above = np.log1p(terms.sum(axis=1))
    return (largest - wanted) + above, largest + above


def _largest_in_sum(terms: Array) -> Array:
    """The sum of each lane or its largest term, whichever is larger."""
    return np.maximum(np.abs(terms.sum(axis=1, keepdims=True)), np.abs(terms).max(axis=1, keepdims=True))
