"""One lane: its maximum, its sum of exponentials, and the result for each of its values.

An operation of the family is a *reduction* of the lane and a *map* back over it:

    softmax      sum of exp(x)                            exp(x) / sum
    log_softmax  sum of exp(x) beside the largest         x - max - log(sum / exp(max))
    logsumexp    the same                                 one number a lane: max + log(sum / exp(max))

A lane is reduced block by block (``BLOCK`` values), each block relative to its own maximum, and the blocks' sums are
then settled into the lane's. Within a block the exponentials are added in a fixed order: value i belongs to slot
i mod S (S the length of a vector), four vectors are added pairwise in the compute dtype, the slots collect such
quads with twice the precision, and the slots are added as a tree. The order depends on nothing but a value's
place in its lane, so the bits are the same for any layout, any number of threads and any company.

Everything here runs on vectors and on plain numbers: sixteen lanes at once, or one lane's own values.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.exponential import exp_relative, format_of, reference
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.logarithm import inverses, log_of_sum, logs_of_sums
from softmax_numba.cpu.memory import put, store_first
from softmax_numba.cpu.simd import anywhere, difference, fma, magnitude, narrowed, select, widened
from softmax_numba.cpu.sums import two_sum
from softmax_numba.cpu.wide import largest_of_quarters

BLOCK = 4096

# --- what an operation adds up ------------------------------------------------------


@inlined
def every_term(e, x, top, ties):
    """Softmax: the plain sum."""
    return e, ties


@inlined
def terms_beside_the_largest(e, x, top, ties):
    """log_softmax: the largest values are counted, the rest is added up, so that log1p sees the rest's last digits."""
    tied = x == top
    return select(tied, 0.0, e), select(tied, ties + 1.0, ties)


@inlined
def quad_beside_the_largest(e, x, top, ties):
    """The same for four vectors of one lane, few of which hold one of its largest values: 1.03x to 1.15x as fast."""
    if anywhere(largest_of_quarters(x) == top):
        e, ties = terms_beside_the_largest(e, x, top, ties)
    return e, ties


# --- what a lane comes to -----------------------------------------------------------

# A sweep's notebook: `numbers` in the compute dtype and `sums` in float64, a row a quantity. A block's place in a row
# is lane + block * step; PEAK and LOG are the lane's and stand at each of its blocks.
TOP, TIES, FIRST, SECOND, PEAK, LOG = range(6)
HIGH, LOW, WEIGHT = range(3)
NUMBERS, SUMS = 6, 3


@inlined
def safe_top(top):
    """The reference of a block of nothing but -inf is 0: its values then count as 0, and a NaN stays NaN."""
    return select(top == -np.inf, 0.0, top)


_ONE_FACTOR = -60


@inlined
def weigh(numbers, sums, lane, step, blocks, scale):
    """The lane's maximum; in ``sums[WEIGHT]`` what a block's sum counts relative to that of the maximum's block.

    Blocks are powers of two apart, which is exact. Only lanes shifted by their maximum (values beyond 2**20 in
    float32, 2**40 in float64) need an exponential here.
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


def settle_sums(top, ties, total, scale):
    """Softmax: the vectors SECOND, PEAK and LOG of Settled, and the lanes' results."""
    raise NotImplementedError("only inside compiled code")


@overload(settle_sums, jit_options=INLINED)
def _settle_sums(top, ties, total, scale):
    if top.element == types.float32:

        def settle_float32(top, ties, total, scale):
            low, high = inverses(*total)
            inverse = narrowed(low, high)
            inverse = select(top == -np.inf, np.nan, inverse)
            return inverse, top, inverse, widened(inverse)

        return settle_float32

    def settle_float64(top, ties, total, scale):
        high, low = total
        inverse = 1.0 / high
        nearer = inverse + inverse * (fma(-high, inverse, 1.0) - low * inverse)
        inverse = select(low == 0.0, inverse, nearer)
        inverse = select(top == -np.inf, np.nan, inverse)
        return inverse, top, inverse, (inverse, inverse)

    return settle_float64


def settle_logs(top, ties, total, scale):
    """log_softmax and logsumexp: as :func:`settle_sums`."""
    raise NotImplementedError("only inside compiled code")


@overload(settle_logs, jit_options=INLINED)
def _settle_logs(top, ties, total, scale):
    if top.element == types.float32:

        def settle_float32(top, ties, total, scale):
            unit = exp_relative(top, reference(safe_top(top), scale), scale)
            t = widened(top)
            inverse_0, inverse_1 = inverses(*widened(unit))
            logs = logs_of_sums(widened(ties), (total[0] * inverse_0, total[1] * inverse_1))
            log_0, result_0 = _finite_or_not(t[0], total[0], logs[0])
            log_1, result_1 = _finite_or_not(t[1], total[1], logs[1])
            return top, top, narrowed(log_0, log_1), (result_0, result_1)

        return settle_float32

    def settle_float64(top, ties, total, scale):
        unit = exp_relative(top, reference(safe_top(top), scale), scale)
        rest = total[0] + total[1]
        log_sum, result = _finite_or_not(top, rest, log_of_sum(ties, rest / unit))
        return top, top, log_sum, (result, result)

    return settle_float64


@inlined
def _finite_or_not(top, rest, log_sum):
    """The logarithm and the result of lanes, of which some may have an infinite maximum."""
    infinite = magnitude(top) == np.inf
    return select(infinite, np.nan, log_sum), select(infinite, top + rest, top + log_sum)


def settle_parts(top, ties, total, scale):
    """All that :func:`settle_log` notes: as :func:`settle_logs`, and SECOND too."""
    raise NotImplementedError("only inside compiled code")


@overload(settle_parts, jit_options=INLINED)
def _settle_parts(top, ties, total, scale):
    if top.element == types.float32:

        def settle_float32(top, ties, total, scale):
            unit = exp_relative(top, reference(safe_top(top), scale), scale)
            u, n = widened(unit), widened(ties)
            low, high = inverses(fma(n[0], u[0], total[0]), fma(n[1], u[1], total[1]))
            inverse = narrowed(low, high)
            _, peak, log_sum, result = settle_logs(top, ties, total, scale)
            return select(magnitude(top) == np.inf, np.nan, inverse), peak, log_sum, result

        return settle_float32

    def settle_float64(top, ties, total, scale):
        unit = exp_relative(top, reference(safe_top(top), scale), scale)
        inverse = 1.0 / fma(ties, unit, total[0] + total[1])
        _, peak, log_sum, result = settle_logs(top, ties, total, scale)
        return select(magnitude(top) == np.inf, np.nan, inverse), peak, log_sum, result

    return settle_float64


class Settled(NamedTuple):
    """What the map needs of a lane: numbers, or one vector a number for a group of lanes."""

    factor: float
    peak: float
    log_sum: float


# --- the maps -----------------------------------------------------------------------


@inlined
def probability(e, settled, scale):
    """Softmax of a value whose exponential relative to its block, times FIRST, is ``e``."""
    return e * settled.factor


@inlined
def log_probability(x, settled, scale):
    """log_softmax of ``x``; subtracting the maximum first is exact where it matters, near 0."""
    return difference(x, settled.peak, scale.inverse) - settled.log_sum


@inlined
def no_map(x, settled, scale):
    """logsumexp: one number a lane is all there is."""
    return x


# --- the maps of a lane of one value --------------------------------------------------


@inlined
def certainty(x, settled, scale):
    """Softmax of the only value: 1, or NaN where that is not finite."""
    nothing = x - x
    return select(nothing == 0.0, 1.0, nothing)


@inlined
def log_certainty(x, settled, scale):
    """log_softmax of the only value: 0, or NaN."""
    return x - x


@inlined
def itself(x, settled, scale):
    """logsumexp of the only value; never -0."""
    return x + 0.0


# --- what is written of a lane that has no results of its own for its values --------------


@inlined
def put_number(out, o, j, result, factor, peak, log_sum):
    """The lane's result, in an ``out`` of shape (outer, 1, inner)."""
    put(place(out, o, 0, j), 0, result)


# The rows of an ``out`` of shape (outer, 3, inner).
OF_FACTOR, OF_PEAK, OF_LOG = range(3)
PARTS = 3


@inlined
def put_parts(out, o, j, result, factor, peak, log_sum):
    """What probabilities, logarithms and losses are computed from, in the compute dtype."""
    put(place(out, o, OF_FACTOR, j), 0, factor)
    put(place(out, o, OF_PEAK, j), 0, peak)
    put(place(out, o, OF_LOG, j), 0, log_sum)


@inlined
def store_number(p, step, left, result, factor, peak, log_sum):
    """:func:`put_number` for the first ``left`` lanes of a vector; ``step`` numbers from a row to the next."""
    store_first(p, 0, left, result)


@inlined
def store_parts(p, step, left, result, factor, peak, log_sum):
    """:func:`put_parts` for the first ``left`` lanes of a vector."""
    store_first(p, OF_FACTOR * step, left, factor)
    store_first(p, OF_PEAK * step, left, peak)
    store_first(p, OF_LOG * step, left, log_sum)


@dataclass(frozen=True, eq=False)
class Operation:
    """A member of the family, for the sweeps: what is added up, what that comes to, and what each value becomes."""

    name: str
    term: Callable
    term_of_quad: Callable  # the same for four vectors of one lane
    settle: Callable
    settle_vector: Callable  # the same for lanes of a single block, side by side
    map: Callable
    maps_exponentials: bool  # the map takes exp(x) relative to the block, not x
    one_number: bool  # no map: `put` and its twin for a vector of lanes write what there is of a lane
    hidden: float  # the result at a masked-out place
    single: Callable | None  # the map where a lane has one value
    parts: bool = False  # and it is what others are computed from: three numbers a lane, in the compute dtype

    @property
    def put(self) -> Callable:
        """Writes what a lane comes to."""
        return put_parts if self.parts else put_number

    @property
    def store(self) -> Callable:
        """The same for a vector of lanes."""
        return store_parts if self.parts else store_number


SOFTMAX = Operation(
    "softmax", every_term, every_term, settle_sum, settle_sums, probability, True, False, 0.0, certainty
)
LOG_SOFTMAX = Operation(
    "log_softmax",
    terms_beside_the_largest,
    quad_beside_the_largest,
    settle_log,
    settle_logs,
    log_probability,
    False,
    False,
    -np.inf,
    log_certainty,
)
LOGSUMEXP = Operation(
    "logsumexp",
    terms_beside_the_largest,
    quad_beside_the_largest,
    settle_log,
    settle_logs,
    no_map,
    False,
    True,
    -np.inf,
    itself,
)
NORMALISER = Operation(
    "normaliser",
    terms_beside_the_largest,
    quad_beside_the_largest,
    settle_log,
    settle_parts,
    no_map,
    False,
    True,
    -np.inf,
    None,
    parts=True,
)
