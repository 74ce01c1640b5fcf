"""What the sums of a lane's blocks come to: its sum, or the logarithm of that, and what its values are mapped by.

Everything here runs on plain numbers, one lane at a time, and (the functions in the plural) on vectors of lanes.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.exponential import exp_relative, format_of, reference
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.logarithm import inverses, log_of_sum, logs_of_sums
from softmax_numba.cpu.simd import anywhere, fma, magnitude, narrowed, select, widened
from softmax_numba.cpu.sums import two_sum

# A sweep's notebook: `numbers` in the compute dtype and `sums` in float64, a row a quantity. A block's place in a row
# is lane + block * step; PEAK and LOG are the lane's and stand at each of its blocks.
TOP, TIES, UNIT, FIRST, SECOND, PEAK, LOG = range(7)
HIGH, LOW, WEIGHT = range(3)
NUMBERS, SUMS = 7, 3


@inlined
def safe_top(top):
    """The reference of a block of nothing but -inf is 0: its values then count as 0, and a NaN stays NaN."""
    return select(top == -np.inf, 0.0, top)


_ONE_FACTOR = -60


@inlined
def weigh(numbers, sums, lane, step, blocks, scale):
    """The lane's maximum; in ``sums[WEIGHT]`` what a block's sum counts relative to that of the maximum's block.

    Blocks are powers of two apart, which is exact. Only lanes shifted by their maximum (values beyond
    ``reach`` steps: in float32 1.8e5, or 7e5 by octaves) need an exponential here.
    """
    peak = numbers[TOP, lane]
    for b in range(1, blocks):
        peak = max(peak, numbers[TOP, lane + b * step])
    f = format_of(peak)
    of_lane = reference(safe_top(peak), scale)
    for b in range(blocks):
        k = lane + b * step
        top = numbers[TOP, k]
        first, second, weight = 1.0, 1.0, 1.0
        if top == -np.inf:
            first, weight = 0.0, 0.0
        elif top != peak:
            of_block = reference(top, scale)
            apart = np.float64(of_block.exponent) - np.float64(of_lane.exponent)
            if of_block.shift == 0.0 and of_lane.shift == 0.0:
                n = max(int(apart), f.vanished)
                weight = math.ldexp(1.0, n)
                # As one factor with the inverse of the sum, or as two, neither of them subnormal.
                if n >= _ONE_FACTOR:
                    second = weight
                else:
                    first = math.ldexp(1.0, max(n, f.least_exponent))
                    second = math.ldexp(1.0, min(n - f.least_exponent, 0))
            else:
                shifted = (np.float64(of_block.shift) - np.float64(of_lane.shift)) / scale.temperature
                first = weight = math.exp(shifted + apart * math.log(2.0))
        sums[WEIGHT, k] = weight
        numbers[FIRST, k] = first
        numbers[SECOND, k] = second
    return peak


@inlined
def settle_sum(numbers, sums, lane, step, blocks, scale, left):
    """Softmax: FIRST * SECOND of each block is its factor over the lane's sum; returns 1 / sum, NaN without one."""
    peak = weigh(numbers, sums, lane, step, blocks, scale)
    high, low = 0.0, 0.0
    for b in range(blocks):
        k = lane + b * step
        high, error = two_sum(high, sums[WEIGHT, k] * sums[HIGH, k])
        low += error + sums[WEIGHT, k] * sums[LOW, k]
    inverse = inverse_of(peak, high, low)
    for b in range(blocks):
        k = lane + b * step
        numbers[SECOND, k] = numbers[SECOND, k] * inverse if left else 0.0
    return inverse


@inlined
def inverse_of(peak, high, low):
    """1 / (high + low); NaN where there is nothing but -inf."""
    inverse = 1.0 / high
    if low != 0.0:  # float64: the quotient by the unrounded sum
        inverse += inverse * (fma(-high, inverse, 1.0) - low * inverse)
    return np.nan if peak == -np.inf else inverse


@inlined
def settle_log(numbers, sums, lane, step, blocks, scale, left):
    """log_softmax: LOG is the logarithm of the lane's sum relative to its largest term; returns the logsumexp.

    SECOND is what an exponential relative to that of PEAK is multiplied by to give a probability.
    """
    peak = weigh(numbers, sums, lane, step, blocks, scale)
    ties, high, low = 0.0, 0.0, 0.0
    for b in range(blocks):
        k = lane + b * step
        top, weight = numbers[TOP, k], sums[WEIGHT, k]
        extra = 0.0
        if top == peak:
            ties += numbers[TIES, k]
        elif top > -np.inf:
            largest = exp_relative(top, reference(top, scale), scale)
            extra = weight * (numbers[TIES, k] * largest)
        high, error = two_sum(high, weight * sums[HIGH, k])
        low += error + weight * sums[LOW, k] + extra
    unit = exp_relative(peak, reference(safe_top(peak), scale), scale)
    rest = (high + low) / unit
    log_sum = log_of_sum(ties, rest)
    result = np.float64(peak) + log_sum
    inverse = 1.0 / (ties * np.float64(unit) + high + low)
    if not left:
        peak, log_sum, result = 0.0, 0.0, -np.inf
    elif peak == np.inf or peak == -np.inf:
        inverse, log_sum, result = np.nan, np.nan, peak + (high + low)
    for b in range(blocks):
        numbers[SECOND, lane + b * step] = inverse
        numbers[PEAK, lane + b * step] = peak
        numbers[LOG, lane + b * step] = log_sum
    return result


# The same for the lanes of one vector, where each is a single block. Such lanes are settled here and nowhere else: a
# shorter logarithm gives them other bits than the functions above would.


def settle_sums(top, unit, ties, total):
    """Softmax: the vectors SECOND, PEAK and LOG of Settled, and the lanes' results. ``total`` is the
    sum of all terms, and nobody asks for the ``unit`` and the ``ties``."""
    raise NotImplementedError("only inside compiled code")


@overload(settle_sums, jit_options=INLINED)
def _settle_sums(top, unit, ties, total):
    if top.element == types.float32:

        def settle_float32(top, unit, ties, total):
            low, high = inverses(*total)
            inverse = narrowed(low, high)
            inverse = select(top == -np.inf, np.nan, inverse)
            return inverse, top, inverse, widened(inverse)

        return settle_float32

    def settle_float64(top, unit, ties, total):
        high, low = total
        inverse = 1.0 / high
        nearer = inverse + inverse * (fma(-high, inverse, 1.0) - low * inverse)
        inverse = select(low == 0.0, inverse, nearer)
        inverse = select(top == -np.inf, np.nan, inverse)
        return inverse, top, inverse, (inverse, inverse)

    return settle_float64


def settle_logs(top, unit, ties, total):
    """log_softmax and logsumexp: as :func:`settle_sums`, but ``unit`` is the term of a lane's largest value, ``ties``
    how often that one stands in it, and ``total`` the sum of the other terms."""
    raise NotImplementedError("only inside compiled code")


@overload(settle_logs, jit_options=INLINED)
def _settle_logs(top, unit, ties, total):
    if top.element == types.float32:

        def settle_float32(top, unit, ties, total):
            t = widened(top)
            log_0, log_1 = logs_of_sums(widened(ties), widened(unit), total)
            result_0, result_1 = t[0] + log_0, t[1] + log_1
            if anywhere(magnitude(top) == np.inf):
                log_0, result_0 = _finite_or_not(t[0], total[0], log_0)
                log_1, result_1 = _finite_or_not(t[1], total[1], log_1)
            return top, top, narrowed(log_0, log_1), (result_0, result_1)

        return settle_float32

    def settle_float64(top, unit, ties, total):
        rest = total[0] + total[1]
        log_sum = log_of_sum(ties, rest / unit)
        result = top + log_sum
        if anywhere(magnitude(top) == np.inf):
            log_sum, result = _finite_or_not(top, rest, log_sum)
        return top, top, log_sum, (result, result)

    return settle_float64


@inlined
def _finite_or_not(top, rest, log_sum):
    """The logarithm and the result of lanes, of which some may have an infinite maximum."""
    infinite = magnitude(top) == np.inf
    return select(infinite, np.nan, log_sum), select(infinite, top + rest, top + log_sum)


def settle_parts(top, unit, ties, total):
    """All that :func:`settle_log` notes: as :func:`settle_logs`, and SECOND too."""
    raise NotImplementedError("only inside compiled code")


@overload(settle_parts, jit_options=INLINED)
def _settle_parts(top, unit, ties, total):
    if top.element == types.float32:

        def settle_float32(top, unit, ties, total):
            u, n = widened(unit), widened(ties)
            low, high = inverses(fma(n[0], u[0], total[0]), fma(n[1], u[1], total[1]))
            inverse = narrowed(low, high)
            _, peak, log_sum, result = settle_logs(top, unit, ties, total)
            return select(magnitude(top) == np.inf, np.nan, inverse), peak, log_sum, result

        return settle_float32

    def settle_float64(top, unit, ties, total):
        inverse = 1.0 / fma(ties, unit, total[0] + total[1])
        _, peak, log_sum, result = settle_logs(top, unit, ties, total)
        return select(magnitude(top) == np.inf, np.nan, inverse), peak, log_sum, result

    return settle_float64


class Settled(NamedTuple):
    """What the map needs of a lane: numbers, or one vector a number for a group of lanes."""

    factor: float
    peak: float
    log_sum: float
