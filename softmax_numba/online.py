"""logsumexp and probabilities of lanes that come in parts."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from softmax_numba import interop
from softmax_numba.arguments import checked_out, filled, like, may_write, native
from softmax_numba.cpu import loss_sweeps
from softmax_numba.dtypes import for_kernel, result_name
from softmax_numba.lanes import Split, as_lanes, lane_numbers, reduced_axes, split, write_back

__all__ = ["OnlineLogSumExp"]


class OnlineLogSumExp:
    """The logsumexp of lanes that are fed block by block, and then their probabilities, block by block again.

    For lanes that stand in no memory as a whole: a vocabulary that several machines share, scores that a generator
    yields, a memory map. What is kept is four float64 numbers a lane, whatever its length.

    Parameters
    ----------
    axis : int, default -1
        Along which axis of each block the lanes run. Blocks may differ in length along it, in nothing else of their
        shapes.

    Attributes
    ----------
    max : numpy.ndarray or scalar, float64
        The largest value of each lane so far; -inf where there is none yet, NaN where there is a NaN.
    logsumexp : numpy.ndarray or scalar, float64
        log(sum(exp(x))) over all values so far, as :func:`softmax_numba.logsumexp` has it.

    Notes
    -----
    A lane's state is its maximum m and d = sum(exp(x - m)). Two parts of a lane make one by

        m = max(m1, m2),    d = d1 exp(m1 - m) + d2 exp(m2 - m),

    which is associative and commutative but for rounding, and has the empty part (-inf, 0) for its zero. Source:
    Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018), section 3.1. So that many parts round
    no more than few, d is kept in twice the precision, and relative to a maximum of before for as long as exp does not
    overflow: every change of it rounds the sum.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import OnlineLogSumExp
    >>> x = np.log([[1.0, 2.0, 3.0, 4.0]])
    >>> seen = OnlineLogSumExp()
    >>> seen.update(x[:, :1]).update(x[:, 1:])
    OnlineLogSumExp(axis=-1, lanes=(1,), max=1.38629436..1.38629436, logsumexp=2.30258509..2.30258509)
    >>> seen.probabilities(x[:, 2:])
    array([[0.3, 0.4]])
    >>> other = OnlineLogSumExp().update(np.log([[10.0]]))
    >>> np.exp(seen.merge(other).logsumexp)
    array([20.])
    """

    def __init__(self, axis: int = -1) -> None:
        try:
            self.axis = operator.index(axis)
        except TypeError:
            raise TypeError(f"axis must be an int, not {axis!r}") from None
        # In the shape of the lanes: their maxima; and (high + low) exp(base) is the sum over the finite values.
        self._peak: np.ndarray | None = None
        self._base = self._high = self._low = np.array(0.0)

    @property
    def max(self) -> Any:
        return np.float64(-np.inf) if self._peak is None else self._peak.copy()[()]

    @property
    def logsumexp(self) -> Any:
        if self._peak is None:
            return np.float64(-np.inf)
        with np.errstate(all="ignore"):
            # As a sum that its largest term outweighs has the digits of the others.
            near = np.log1p((self._high - 1.0) + self._low)
            log = np.where(np.abs(self._high - 1.0) < 0.5, near, np.log(self._high) + self._low / self._high)
            return np.where(np.isfinite(self._peak), self._base + log, self._peak)[()]

    def update(self, block: Any) -> OnlineLogSumExp:
        """Takes in the next values of every lane.

        Parameters
        ----------
        block : array_like
            Types as for :func:`softmax_numba.softmax`; its length along ``axis`` may be 0.

        Returns
        -------
        OnlineLogSumExp
            Itself.

        Raises
        ------
        ValueError
            If the lanes have another shape than those of earlier blocks.
        TypeError, numpy.exceptions.AxisError
            As for :func:`softmax_numba.softmax`.
        """
        values, axes, storage, _ = self._values(block)
        shape = tuple(n for i, n in enumerate(values.shape) if i not in axes)
        peak, rest = np.full(shape, -np.inf), np.zeros(shape)
        if values.size:
            how = split(values, axes)
            found = loss_sweeps.normalised(storage, for_kernel(as_lanes(values, how), storage))
            peak, rest = (_back(lanes, how, values.shape) for lanes in found)
            # Infinite lanes have no sum. That of +inf is left to the maximum, as is a NaN.
            empty = peak == -np.inf
            if empty.any():
                peak[empty] = np.max(values, axis=axes)[empty]  # a NaN, if there is one
            peak[np.isnan(rest) & np.isfinite(peak)] = np.nan
        there = np.isfinite(peak)
        high, low = _two_sum(1.0, np.where(there, rest, -1.0))
        self._add(peak, np.where(there, peak, -np.inf), high, low)
        return self

    def merge(self, other: OnlineLogSumExp) -> OnlineLogSumExp:
        """Both parts of the same lanes as one; neither is changed.

        Raises
        ------
        ValueError
            If their lanes differ in shape.
        """
        if not isinstance(other, OnlineLogSumExp):
            raise TypeError(f"only an OnlineLogSumExp can be merged, not {other!r}")
        result = OnlineLogSumExp(self.axis)
        for part in (self, other):
            if part._peak is not None:
                result._add(part._peak, part._base, part._high, part._low)
        return result

    def probabilities(self, block: Any, *, out: Any = None) -> Any:
        """The softmax of values that have been fed, over all that have been.

        Parameters
        ----------
        block : array_like
            Values of every lane; not necessarily in the blocks in which they were fed.
        out : array, optional
            Where to put the result, of the block's shape and dtype; may be ``block``.

        Returns
        -------
        array of the block's shape and dtype, from its library (or ``out``)
            Within 4 ULP, float64 within 8. All NaN in lanes with a NaN, +inf or no finite value.

        Raises
        ------
        ValueError
            If nothing has been fed yet, or the lanes have another shape.
        """
        values, axes, storage, give_back = self._values(block)
        name = result_name(values.dtype, None, "block")
        shape = tuple(n for i, n in enumerate(values.shape) if i not in axes)
        if self._peak is None:
            raise ValueError("no block has been fed yet")
        if shape != self._peak.shape:
            raise ValueError(f"the lanes of the block have shape {shape}, those fed before {self._peak.shape}")
        target = None if out is None else checked_out(out, values.shape, name)
        direct = target is not None and may_write(values, target)
        answer = target if target is not None and direct else like(values, values.shape, name)
        if values.size:
            how = split(values, axes)
            kept = tuple(1 if i in axes else n for i, n in enumerate(values.shape))
            # Lanes without a sum: NaN for all their values.
            there = np.isfinite(self._peak)
            peak = np.where(there, self._peak, 0.0).reshape(kept)
            rest = np.where(there, self._beside_the_largest(), np.nan).reshape(kept)
            result = for_kernel(as_lanes(answer, how), storage)
            loss_sweeps.probabilities(
                storage,
                for_kernel(as_lanes(values, how), storage),
                lane_numbers(peak, how),
                lane_numbers(rest, how),
                result,
            )
            write_back(result, answer, how)
        if target is not None:
            if answer is not target:
                target[...] = answer
            return out
        return give_back(answer)

    def _values(self, block: Any) -> tuple[np.ndarray, tuple[int, ...], str, Any]:
        if isinstance(block, np.ma.MaskedArray):  # as by `where` of softmax
            block = filled(block, -np.inf)
        values, give_back = interop.take(block, "block")
        name = result_name(values.dtype, None, "block")
        values = native(values, name)
        if values.ndim == 0:
            raise ValueError("a block has at least one axis; got a number")
        return values, reduced_axes(self.axis, values.ndim), name, give_back

    def _add(self, peak: np.ndarray, base: np.ndarray, high: np.ndarray, low: np.ndarray) -> None:
        """Takes in a part of every lane: its maximum, and (high + low) exp(base), base -inf where that is nothing."""
        if self._peak is None:
            self._peak, self._base, self._high, self._low = peak, base, high, low
            return
        if peak.shape != self._peak.shape:
            raise ValueError(f"the lanes have shape {peak.shape}, those fed before {self._peak.shape}")
        with np.errstate(all="ignore"):
            to = np.where(base - self._base > _REACH, base, self._base)
            mine, my_error = _relative(self._high, self._low, self._base, to)
            theirs, their_error = _relative(high, low, base, to)
            self._high, error = _two_sum(mine, theirs)
            self._low = error + (my_error + their_error)
            self._base, self._peak = to, np.maximum(self._peak, peak)

    def _beside_the_largest(self) -> np.ndarray:
        """How far the sums of exponentials relative to the lanes' maxima exceed 1."""
        with np.errstate(all="ignore"):
            high, low = _relative(self._high, self._low, self._base, self._peak)
            return (high - 1.0) + low

    def __repr__(self) -> str:
        if self._peak is None:
            return f"OnlineLogSumExp(axis={self.axis})"
        ranges = []
        for name, values in (("max", self._peak), ("logsumexp", np.asarray(self.logsumexp))):
            if values.size:
                ranges.append(f", {name}={values.min():.9g}..{values.max():.9g}")
        return f"OnlineLogSumExp(axis={self.axis}, lanes={self._peak.shape}{''.join(ranges)})"


# How far the maximum may be above what a sum is relative to.
_REACH = 500.0


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b and its rounding error (Knuth, TAOCP vol. 2, 4.2.2)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _relative(high: Any, low: Any, base: Any, to: Any) -> tuple[Any, Any]:
    """(high + low) exp(base - to) in two parts; 0 where base is -inf."""
    apart, error = _two_sum(base, -to)
    factor = np.where(base == to, 1.0, np.exp(apart))
    error = np.where(np.isfinite(error), error, 0.0)
    nothing = base == -np.inf
    return np.where(nothing, 0.0, high * factor), np.where(nothing, 0.0, (low + high * error) * factor)


def _back(lanes: np.ndarray, how: Split, shape: tuple[int, ...]) -> np.ndarray:
    """An array (outer, inner) in the shape of the lanes of an array of ``shape``."""
    ordered = lanes.reshape([1 if a in how.reduced else shape[a] for a in how.order])
    return ordered.transpose(np.argsort(how.order)).squeeze(how.reduced)
