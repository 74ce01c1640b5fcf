"""Is it right? Results against exact values, in units in the last place (ULP).

What one ULP is:

- softmax: the spacing of the result's dtype at the exact value; only normal results count, since gradual
  underflow robs the others of digits;
- log_softmax: the spacing at max(\\|y\\|, 1);
- logsumexp: the spacing at max(\\|result\\|, max \\|x\\|).

Large inputs are judged on whole lanes, drawn by the seed; of one very long lane a sample of places is
compared, with the sum taken over all of it. Losses and ways back have a judge of their own, in
:mod:`softmax_numba.bench.training`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.bench.exact import BLOCK, DECIMAL_VALUES, Arithmetic, Decimals, reference_for
from softmax_numba.bench.workloads import result_dtype

__all__ = ["Accuracy", "Exact", "Judge", "Sample", "Tally", "smallest_normal", "spacing"]

Array = np.ndarray[Any, Any]
# Significand bits with the hidden one, and the frexp exponent of the smallest normal number.
_FORMATS = {"float64": (53, -1021), "float32": (24, -125), "float16": (11, -13), "bfloat16": (8, -125)}
# No rounding does this: a lane whose result is off by more than a tenth in total is wrong, not inaccurate.
_GROSS = 0.1
# What a fault calls the results of each op.
_RESULTS = {
    "softmax": "the probabilities of a lane are",
    "loss": "the loss is",
    "gradient": "the gradients of a lane are",
}


@dataclass(frozen=True)
class Accuracy:
    """How far a result is from the exact one.

    Attributes
    ----------
    reference : str
        What the exact values were computed in.
    lanes, values : int
        How many lanes, and how many of their results, were compared.
    max_ulp, mean_ulp : float or None
        None where no finite normal result was expected.
    fault : str or None
        What is plainly wrong, in words.
    """

    reference: str
    lanes: int
    values: int
    max_ulp: float | None
    mean_ulp: float | None
    fault: str | None


def spacing(values: Array, dtype: str) -> Array:
    """The distance between neighbours in ``dtype`` at \\|values\\|, in the dtype of ``values``.

    Examples
    --------
    >>> float(spacing(np.array([1.0]), "float32")[0]) == 2.0**-23
    True
    """
    digits, least = _FORMATS[dtype]
    _, exponent = np.frexp(values)
    return np.ldexp(np.ones_like(values), np.maximum(exponent, least) - digits)


def smallest_normal(dtype: str) -> float:
    """Below this, numbers lose digits."""
    return math.ldexp(1.0, _FORMATS[dtype][1] - 1)


class Exact(NamedTuple):
    """A block of exact values.

    They are high + low; ``unit`` is what one ULP is, ``counts`` which of them count, ``rounded`` high in the result's
    dtype. ``terms`` has the sizes of what a gradient is the difference of, and is None for other results.
    """

    op: str
    rows: slice
    columns: slice
    high: Array
    low: Array
    unit: Array
    counts: Array
    rounded: Array
    terms: Array | None = None


class Tally:
    """What has been seen of one contender's results so far."""

    def __init__(self) -> None:
        self._largest, self._total, self._counted, self._compared = 0.0, 0.0, 0, 0
        self._fault: str | None = None

    def add(self, y: Array, exact: Exact) -> None:
        wide = y.astype(exact.high.dtype)
        self._compared += y.size
        finite = np.isfinite(exact.rounded) & np.isfinite(wide)
        error = np.abs(np.where(finite, wide - exact.high - exact.low, 0))
        counted = exact.counts & finite
        if counted.any():
            ulp = error[counted] / exact.unit[counted]
            self._largest = max(self._largest, float(ulp.max()))
            self._total += float(ulp.sum())
            self._counted += int(counted.sum())
        if self._fault is None:
            self._fault = self._wrong_kind(wide, exact.rounded) or self._gross(wide, exact, finite)

    @staticmethod
    def _wrong_kind(wide: Array, right: Array) -> str | None:
        """NaN or infinity in the wrong place."""
        both_nan = np.isnan(wide) & np.isnan(right)
        agrees = np.where(np.isfinite(right), np.isfinite(wide), both_nan | (wide == right))
        if agrees.all():
            return None
        place = np.unravel_index(int(np.argmin(agrees)), agrees.shape)
        return f"{int((~agrees).sum())} results such as {wide[place]:.6g} where {right[place]:.6g} is right"

    @staticmethod
    def _gross(wide: Array, exact: Exact, finite: Array) -> str | None:
        """What ULP of normal results cannot see: probabilities that are lost, or far off together."""
        off = np.abs(np.where(finite, wide - exact.rounded, 0)).astype(np.float64)
        size = np.abs(np.where(finite, exact.rounded, 0)).astype(np.float64)
        if exact.op == "softmax":
            worst = _worst_share(off.sum(axis=1), size.sum(axis=1))
        elif exact.terms is not None:
            # Many small entries, or one that is large: a lane that lacks either is wrong.
            size = np.where(finite, exact.terms, 0).astype(np.float64)
            worst = _worst_share(off.sum(axis=1), size.sum(axis=1))
            worst = max(worst, _worst_share(off.max(axis=1), size.max(axis=1)))
        else:
            worst = _worst_share(off, np.maximum(size, 1))
        if worst <= _GROSS:
            return None
        return f"{_RESULTS.get(exact.op, 'a result is')} off by {100 * worst:.3g} %"

    def accuracy(self, reference: str, lanes: int) -> Accuracy:
        seen = self._counted > 0
        return Accuracy(
            reference=reference,
            lanes=lanes,
            values=self._compared,
            max_ulp=self._largest if seen else None,
            mean_ulp=self._total / self._counted if seen else None,
            fault=self._fault,
        )


def _worst_share(off: Array, size: Array) -> float:
    return float((off[size > 0] / size[size > 0]).max(initial=0))


class Sample:
    """Lanes of an array, and the places of them that are compared, drawn by a seed.

    Parameters
    ----------
    shape : tuple of int
    axis : int
    values : int or None
        About how many values to draw: whole lanes, or places of one that is longer; None: all of them.
    seed : int

    Attributes
    ----------
    length : int
        Of a lane.
    lanes : int
        How many are drawn.
    lane_numbers : ndarray of int
        Which ones, counted in the order of the other axes.
    places : slice or ndarray of int
        Which entries of a lane.
    """

    def __init__(self, shape: tuple[int, ...], axis: int, values: int | None, seed: int) -> None:
        self._axis = axis % len(shape)
        self.length = shape[self._axis]
        outer = shape[: self._axis] + shape[self._axis + 1 :]
        count = math.prod(outer)
        generator = np.random.default_rng(seed)
        wanted = count if values is None else max(1, values // self.length)
        chosen = np.arange(count) if wanted >= count else np.sort(generator.choice(count, wanted, replace=False))
        # The indices of a 1-D input's only lane are an empty tuple.
        self._chosen = np.unravel_index(chosen, outer) if outer else ()
        self.lanes, self.lane_numbers = len(chosen), chosen
        self.places: Array | slice = slice(None)
        if values is not None and self.length > values:
            self.places = np.sort(generator.choice(self.length, values, replace=False))

    def whole(self, array: Array) -> Array:
        """The lanes of an array of the shape, (lanes, length)."""
        return np.moveaxis(array, self._axis, -1)[self._chosen].reshape(self.lanes, self.length)

    def one_each(self, array: Array) -> Array:
        """Those of an array with one number a lane, (lanes, 1)."""
        return np.array(array[self._chosen]).reshape(self.lanes, 1)


class Judge:
    """Compares results for one input with exact values.

    Parameters
    ----------
    x : ndarray
    axis : int
    values : int or None
        About how many results to compare; None: all of them.
    seed : int
        Draws the lanes, and the places of a lane that is longer than ``values``.
    arithmetic : Arithmetic, optional
        What the exact values are computed in; default: the best this platform has for the dtype.

    Examples
    --------
    >>> x = np.log(np.array([[1.0, 2.0, 5.0]], np.float32))
    >>> judge = Judge(x, -1)
    >>> right = judge.take("softmax", np.array([[0.125, 0.25, 0.625]], np.float32))
    >>> judge.judge("softmax", {"by hand": right})["by hand"].max_ulp < 2
    True
    """

    def __init__(
        self,
        x: Array,
        axis: int,
        *,
        values: int | None = None,
        seed: int = 0,
        arithmetic: Arithmetic | None = None,
    ) -> None:
        self._dtype = result_dtype(x.dtype)
        self._arithmetic = arithmetic or reference_for(self._dtype.name)
        if isinstance(self._arithmetic, Decimals):
            values = min(values or DECIMAL_VALUES, DECIMAL_VALUES)
        self._sample = Sample(x.shape, axis, values, seed)
        self.lanes = self._sample.lanes
        self._x = self._sample.whole(x)
        if x.dtype != self._dtype:
            self._x = self._x.astype(self._dtype)
        # The sums of a block of lanes, by its first lane: every op needs them, and a long lane takes seconds.
        self._sums: dict[int, tuple[Array, Array]] = {}

    def take(self, op: str, y: Array) -> Array:
        """A copy of the judged part of the result ``y``: (lanes, places), or (lanes, 1) of logsumexp."""
        if op == "logsumexp":
            return self._sample.one_each(y)
        return np.array(self._sample.whole(y)[:, self._sample.places])

    def judge(self, op: str, taken: Mapping[str, Array]) -> dict[str, Accuracy]:
        """The accuracy of each contender's result, as :meth:`take` gave it."""
        tallies = {name: Tally() for name in taken}
        # NaN and infinity are compared like other values here, and what a peer returned may hold anything.
        with np.errstate(all="ignore"):
            for exact in self._blocks(op):
                for name, tally in tallies.items():
                    tally.add(taken[name][exact.rows, exact.columns], exact)
        return {name: tally.accuracy(self._arithmetic.name, self.lanes) for name, tally in tallies.items()}

    def _blocks(self, op: str) -> Iterator[Exact]:
        smallest = smallest_normal(self._dtype.name)
        step = max(1, BLOCK // self._sample.length)
        for first in range(0, self.lanes, step):
            rows = slice(first, first + step)
            lanes = self._x[rows]
            if first not in self._sums:
                self._sums[first] = self._arithmetic.sums(lanes)
            largest, total = self._sums[first]
            places = lanes[:, self._sample.places]
            for left in range(0, 1 if op == "logsumexp" else places.shape[1], BLOCK):
                columns = slice(left, left + BLOCK)
                high, low = self._arithmetic.values(op, places[:, columns], largest, total)
                size = np.abs(high)
                if op == "log_softmax":
                    size = np.maximum(size, 1)
                elif op == "logsumexp":
                    size = np.maximum(size, _largest_magnitudes(lanes).astype(size.dtype))
                counts = np.isfinite(size) & (size >= (smallest if op == "softmax" else 0))
                unit = spacing(np.where(np.isfinite(size), size, 1), self._dtype.name)
                rounded = high.astype(self._dtype).astype(high.dtype)
                yield Exact(op, rows, columns, high, low, unit, counts, rounded)


def _largest_magnitudes(lanes: Array) -> Array:
    finite = np.where(np.isfinite(lanes), lanes, lanes.dtype.type(0))
    return np.maximum(np.abs(finite.max(axis=1)), np.abs(finite.min(axis=1)))[:, None]
