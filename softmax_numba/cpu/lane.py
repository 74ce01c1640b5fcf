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

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.exponential import exp_relative
from softmax_numba.cpu.hidden import again
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import put, store_first
from softmax_numba.cpu.settling import settle_log, settle_logs, settle_parts, settle_sum, settle_sums
from softmax_numba.cpu.simd import anywhere, as_numbers, difference, select
from softmax_numba.cpu.wide import largest_of_quarters, load_wide, sum_of_quarters

BLOCK = 4096

# --- what an operation adds up ------------------------------------------------------


@inlined
def every_term(e, x, top, ties):
    """Softmax: the plain sum."""
    return e, ties


@inlined
def every_term_of_quad(e, x, p, i, top, ties):
    """The same for four vectors of one lane."""
    return e, ties


@inlined
def terms_beside_the_largest(e, x, top, ties):
    """log_softmax: the largest values are counted, the rest is added up, so that log1p sees the rest's last digits."""
    tied = x == top
    return select(tied, 0.0, e), select(tied, ties + 1.0, ties)


@inlined
def quad_beside_the_largest(e, x, p, i, top, ties):
    """The same for four vectors of one lane, which stand at ``p[i:]`` and whose ties are one vector: few hold one of
    its largest values. (They are read anew: with few registers they would have to wait on the stack until here.)"""
    if anywhere(largest_of_quarters(load_wide(again(p), i, 4)) == top):
        tied = load_wide(again(p), i, 4) == top
        e, ties = select(tied, 0.0, e), ties + sum_of_quarters(as_numbers(tied, x))
    return e, ties


@inlined
def no_term(top, ref, scale):
    """Softmax: nobody asks for it."""
    return top


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
    term_of_quad: Callable  # the same for four vectors that stand somewhere, of one lane, whose ties are one vector
    settle: Callable
    settle_vector: Callable  # the same for lanes of a single block, side by side
    map: Callable
    maps_exponentials: bool  # the map takes exp(x) relative to the block, not x
    one_number: bool  # no map: `put` and its twin for a vector of lanes write what there is of a lane
    hidden: float  # the result at a masked-out place
    single: Callable | None  # the map where a lane has one value
    parts: bool = False  # and it is what others are computed from: three numbers a lane, in the compute dtype
    counts_ties: bool = True  # the largest values are told from the rest

    @property
    def largest_term(self) -> Callable:
        """That of a lane's largest value, which the sum of the others is divided by."""
        return exp_relative if self.counts_ties else no_term

    @property
    def put(self) -> Callable:
        """Writes what a lane comes to."""
        return put_parts if self.parts else put_number

    @property
    def store(self) -> Callable:
        """The same for a vector of lanes."""
        return store_parts if self.parts else store_number


SOFTMAX = Operation(
    "softmax",
    every_term,
    every_term_of_quad,
    settle_sum,
    settle_sums,
    probability,
    True,
    False,
    0.0,
    certainty,
    counts_ties=False,
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
# The same where exponentials are kept, from which gradients are made at once.
KEEPER = replace(NORMALISER, name="keeper", map=probability, maps_exponentials=True, one_number=False)
