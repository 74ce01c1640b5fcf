"""One lane: its parts, what they come to together, and the result for each value. ``softmax_numba.cpu.lane`` in parts.

A *part* is what some values of a lane come to: the largest, the sum of the exponentials relative to it (in two numbers,
so that its rounding errors are kept), and how often the largest occurs. Where an operation counts the largest instead
of adding it (log_softmax, logsumexp), the sum is that of the rest and log1p sees its last digits.

Parts are merged in an order that the lane's length fixes. Merging is commutative to the bit. No product is left to be
added to something: the compiler would fuse the two in one kernel and not in the next, and their bits would differ.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.exponential import exponential
from softmax_numba.gpu.seam import device, fma, reciprocal32, reciprocal64


class Part(NamedTuple):
    """What some of a lane's values come to."""

    top: Any
    high: Any
    low: Any
    ties: Any


class Settled(NamedTuple):
    """What a lane comes to: its maximum, 1 / sum, log(sum / exp(max)), and its logsumexp."""

    peak: Any
    inverse: Any
    log_sum: Any
    result: Any


class Operation(NamedTuple):
    """A member of the family."""

    name: str
    counts_ties: bool  # the largest values are counted, the others added
    maps_exponentials: bool  # the map takes exp(x) relative to its part, not x
    one_number: bool  # no map: one number a lane is all there is
    hidden: float  # the result at a masked-out place


SOFTMAX = Operation("softmax", False, True, False, 0.0)
LOG_SOFTMAX = Operation("log_softmax", True, False, False, -math.inf)
LOGSUMEXP = Operation("logsumexp", True, False, True, -math.inf)
OPERATIONS = (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP)
# What loss.py makes of a lane's sum.
LOSS = Operation("cross_entropy", True, False, True, 0.0)
LOSS_AND_GRADIENT = Operation("cross_entropy_and_grad", True, True, False, 0.0)
LOSSES = (LOSS, LOSS_AND_GRADIENT)


class Lane(NamedTuple):
    """The device functions for one compute dtype and operation."""

    lowered: Callable
    merge: Callable
    settle: Callable
    map: Callable
    weight: Callable
    reference: Callable
    relative: Callable
    two_sum: Callable


@functools.cache
def lane(operation: Operation, kind: Any) -> Lane:
    """The mathematics of ``operation``, computed in ``kind``."""
    reference, relative, weight = exponential(kind)
    zero, half, one, infinity, nan = kind(0), kind(0.5), kind(1), kind(np.inf), kind(np.nan)
    reciprocal = reciprocal32 if kind is np.float32 else reciprocal64
    counts_ties, loses = operation.counts_ties, operation in LOSSES

    @device
    def two_sum(a, b):
        """a + b and its rounding error (Knuth, TAOCP vol. 2, 4.2.2)."""
        s = a + b
        t = s - a
        return s, (a - (s - t)) + (b - t)

    @device
    def lowered(part, peak, scale):
        """The part relative to a larger maximum, where its own largest are ordinary terms."""
        high, low, ties = part.high, part.low, part.ties
        if part.top != peak:
            first, second = weight(part.top, peak, scale)
            if counts_ties and part.top > -infinity:
                low = fma(ties, relative(part.top, reference(part.top, scale), scale), low)
                high, low = two_sum(high, low)
            high, low, ties = high * first * second, low * first * second, zero
        return Part(peak, high, low, ties)

    @device
    def merge(a, b, scale):
        peak = a.top if a.top > b.top else b.top
        a, b = lowered(a, peak, scale), lowered(b, peak, scale)
        high, error = two_sum(a.high, b.high)
        return Part(peak, high, error + (a.low + b.low), a.ties + b.ties)

    if counts_ties:

        @device
        def settle(part, scale):
            """log_softmax, logsumexp and the losses."""
            peak = part.top
            unit = relative(peak, reference(peak, scale), scale)
            rest = fma(part.high + part.low, reciprocal(unit), part.ties - one)
            log_sum = kind(math.log1p(rest))
            result, inverse = peak + log_sum, one
            if loses:
                inverse = reciprocal(fma(part.ties, unit, part.high) + part.low)
            if peak == infinity or peak == -infinity:
                log_sum, result, inverse = nan, peak + (part.high + part.low), nan
            return Settled(peak, inverse, log_sum, result)

    else:

        @device
        def settle(part, scale):
            """softmax: 1 / sum, NaN where there is nothing but -inf."""
            high, low = part.high, part.low
            inverse = reciprocal(high)
            inverse = fma(inverse, fma(-low, inverse, fma(-high, inverse, one)), inverse)
            if part.top == -infinity:
                inverse = nan
            return Settled(part.top, inverse, zero, zero)

    if loses:

        @device
        def map_value(e, settled, first, second, scale):
            """The probability's share of a gradient (loss.py); the product is fused with nothing."""
            value = fma(e * first, second * settled.inverse, zero)
            if not settled.shows:
                value = zero
            return value

    elif counts_ties:

        @device
        def map_value(x, settled, first, second, scale):
            """Subtracting the maximum first is exact where it matters, near 0; of halves, which do not overflow."""
            return fma(fma(x, half, -half * settled.peak), scale.inverse + scale.inverse, -settled.log_sum)

    else:

        @device
        def map_value(e, settled, first, second, scale):
            """``e`` relative to a part whose weight is first * second; the last product underflows gradually."""
            return e * first * (second * settled.inverse)

    return Lane(lowered, merge, settle, map_value, weight, reference, relative, two_sum)
