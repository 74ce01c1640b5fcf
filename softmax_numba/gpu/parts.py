"""From a tile to its part, and from a list of parts to the lane's: the exchanges between threads.

A list of parts lies in shared memory, four numbers each. Whoever made it, and however many blocks, it is added up in
one order: thread i takes parts i, i + 32, ..., relative to the largest maximum of all, and the threads' sums are added
as a tree. Every warp does so for itself, so that no second exchange is needed to tell the others.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.lane import Operation, Part, lane
from softmax_numba.gpu.seam import across, device

NUMBERS = 4  # a part's


class Parts(NamedTuple):
    """Device functions for one operation, dtype and tile."""

    of_tile: Callable
    put: Callable
    of_list: Callable


@functools.cache
def parts(operation: Operation, kind: Any, values: int, threads: int) -> Parts:
    """For tiles of ``values`` values in each of ``threads`` threads."""
    how = lane(operation, kind)
    reference, relative, two_sum, lowered = how.reference, how.relative, how.two_sum, how.lowered
    counts_ties, keeps = operation.counts_ties, operation.maps_exponentials
    zero, one, nothing = kind(0), kind(1), kind(-np.inf)
    group = min(values, 4)
    half = threads // 2

    @device
    def term(tile, k, top, ref, scale):
        """What value k adds to the sum, and to the number of the largest; softmax keeps its exponential."""
        x = tile[k]
        e = relative(x, ref, scale)
        if keeps:
            tile[k] = e
        tie = zero
        if counts_ties and x == top:
            e, tie = zero, one
        return e, tie

    @device
    def of_tile(tile, scale):
        """The part of what ``threads`` threads hold."""
        top = nothing
        for k in range(values):
            top = max(top, tile[k])
        distance = half
        while distance > 0:
            top = max(top, across(top, distance))
            distance >>= 1
        ref = reference(top, scale)
        high, low, ties = zero, zero, zero
        for q in range(values // group):
            e, tie = term(tile, q * group, top, ref, scale)
            f, tie_f = term(tile, q * group + 1, top, ref, scale)
            e, tie = e + f, tie + tie_f
            if group == 4:
                f, tie_f = term(tile, q * group + 2, top, ref, scale)
                g, tie_g = term(tile, q * group + 3, top, ref, scale)
                e, tie = e + (f + g), tie + (tie_f + tie_g)
            high, error = two_sum(high, e)
            low += error
            ties += tie
        distance = half
        while distance > 0:
            high, error = two_sum(high, across(high, distance))
            low = error + (low + across(low, distance))
            if counts_ties:
                ties += across(ties, distance)
            distance >>= 1
        return Part(top, high, low, ties)

    @device
    def put(list_of_parts, i, part):
        list_of_parts[NUMBERS * i] = part.top
        list_of_parts[NUMBERS * i + 1] = part.high
        list_of_parts[NUMBERS * i + 2] = part.low
        list_of_parts[NUMBERS * i + 3] = part.ties

    @device
    def of_list(list_of_parts, count, slot, scale):
        """The part of ``count`` parts together; ``slot`` is the thread's number in its warp."""
        peak = nothing
        i = slot
        while i < count:
            peak = max(peak, list_of_parts[NUMBERS * i])
            i += 32
        distance = 16
        while distance > 0:
            peak = max(peak, across(peak, distance))
            distance >>= 1
        high, low, ties = zero, zero, zero
        i = slot
        while i < count:
            k = NUMBERS * i
            given = Part(list_of_parts[k], list_of_parts[k + 1], list_of_parts[k + 2], list_of_parts[k + 3])
            part = lowered(given, peak, scale)
            high, error = two_sum(high, part.high)
            low += error + part.low
            ties += part.ties
            i += 32
        distance = 16
        while distance > 0:
            high, error = two_sum(high, across(high, distance))
            low = error + (low + across(low, distance))
            ties += across(ties, distance)
            distance >>= 1
        return Part(peak, high, low, ties)

    return Parts(of_tile, put, of_list)
