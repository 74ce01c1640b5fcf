"""Lanes that are neighbours in memory: how their values move, and what they come to.

A block is eight warps over the same 32 vectors of lanes. Warp w takes the values w, w + 8, ... of each lane, as many as
its threads hold at a time. The eight parts of a lane meet in shared memory: the maxima first, then the sums relative to
the largest.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import scales
from softmax_numba.gpu.lane import Operation, Part, lane
from softmax_numba.gpu.seam import device
from softmax_numba.gpu.storage import STORAGES

DEEP = 8  # warps along the lane
BLOCK = 32 * DEEP
ROWS = {2: 4, 4: 8, 8: 8}  # values of a lane that a thread holds, by itemsize: 32 in all, 16 of float64


class ColumnShape(NamedTuple):
    """What a kernel is specialised for."""

    operation: Operation
    storage: str
    width: int  # lanes a thread: those of a 16-byte vector, or one
    masked: bool
    heated: bool


class Gathered(NamedTuple):
    """The device functions; a thread's ``state`` has four numbers a lane, at first those of an empty part."""

    survey: Callable  # adds values to what the lanes have come to; where maps take exponentials, leaves those
    meet: Callable  # lists the thread's parts relative to the maxima of the lanes
    totals: tuple[Callable, ...]  # for each of a thread's lanes: its part, of the list


@functools.cache
def moves(storage: str, width: int, rows: int) -> tuple[Callable, Callable]:
    """``read`` and ``write`` for ``rows`` values of each of a thread's ``width`` lanes."""
    how = STORAGES[storage]
    size, nothing = how.itemsize, how.kind(-np.inf)
    load, store, load_vector, store_vector = how.load, how.store, how.load_vector, how.store_vector
    spread, gather, deep = how.spread, how.gather, DEEP

    @device
    def read(values, words, x, step, count, slot, base, across):
        """Rows ``base + slot, base + slot + deep, ...`` of ``across`` lanes; -inf beyond the ends."""
        for r in range(rows):
            row = base + r * deep + slot
            place = x + row * step
            if width > 1 and row < count and across >= width:
                load_vector(place, words, 0)
                spread(words, 0, values, r * width)
            else:
                for c in range(width):
                    found = nothing
                    if row < count and c < across:
                        found = load(place + c * size)
                    values[r * width + c] = found

    @device
    def write(values, words, y, step, count, slot, base, across):
        for r in range(rows):
            row = base + r * deep + slot
            place = y + row * step
            if row < count:
                if width > 1 and across >= width:
                    gather(values, r * width, words, 0)
                    store_vector(place, words, 0)
                else:
                    for c in range(width):
                        if c < across:
                            store(place + c * size, values[r * width + c])

    return read, write


@functools.cache
def gathered(shape: ColumnShape) -> Gathered:
    """For the lanes of a kernel."""
    kind, width, rows = STORAGES[shape.storage].kind, shape.width, ROWS[STORAGES[shape.storage].itemsize]
    mathematics = lane(shape.operation, kind)
    reference, relative, two_sum = mathematics.reference, mathematics.relative, mathematics.two_sum
    merge, lowered, scale_at = mathematics.merge, mathematics.lowered, own_scale(kind, shape.heated)
    zero, one, nothing = kind(0), kind(1), kind(-np.inf)
    counts_ties, keeps, deep, span = shape.operation.counts_ties, shape.operation.maps_exponentials, DEEP, 32 * width

    @device
    def list_at(s, c, lane_slot):
        return s * span + lane_slot + c

    # What is done for lane c of a thread's. A loop over them would not be unrolled, and arrays not stay in registers.

    def surveys(c):
        @device
        def survey(values, state, o, first, a, scale):
            """Adds the values to what lane c has come to; softmax keeps the exponentials."""
            own = scale_at(c, o, first, a, scale)
            top = nothing
            for r in range(rows):
                top = max(top, values[r * width + c])
            ref = reference(top, own)
            high, low, ties = zero, zero, zero
            for r in range(rows):
                x = values[r * width + c]
                e = relative(x, ref, own)
                if keeps:
                    values[r * width + c] = e
                if counts_ties and x == top:
                    e = zero
                    ties += one
                high, error = two_sum(high, e)
                low += error
            before = Part(state[4 * c], state[4 * c + 1], state[4 * c + 2], state[4 * c + 3])
            part = merge(before, Part(top, high, low, ties), own)
            state[4 * c], state[4 * c + 1], state[4 * c + 2], state[4 * c + 3] = (
                part.top,
                part.high,
                part.low,
                part.ties,
            )

        return survey

    def meetings(c):
        @device
        def meet(state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, o, first, a, scale):
            """Lists the thread's part, relative to the maximum of the lane."""
            peak = nothing
            for s in range(deep):
                peak = max(peak, meeting_ties[list_at(s, c, lane_slot)])
            peaks[c] = peak
            own = scale_at(c, o, first, a, scale)
            part = lowered(Part(state[4 * c], state[4 * c + 1], state[4 * c + 2], state[4 * c + 3]), peak, own)
            meeting[list_at(slot, c, lane_slot)] = part.high
            meeting_low[list_at(slot, c, lane_slot)] = part.low
            state[4 * c + 3] = part.ties

        return meet

    def totals(c):
        @device
        def total(peaks, meeting, meeting_low, meeting_ties, lane_slot):
            high, low, ties = zero, zero, zero
            for s in range(deep):
                high, error = two_sum(high, meeting[list_at(s, c, lane_slot)])
                low += error + meeting_low[list_at(s, c, lane_slot)]
                if counts_ties:
                    ties += meeting_ties[list_at(s, c, lane_slot)]
            return Part(peaks[c], high, low, ties)

        return total

    return Gathered(each(surveys, width), each(meetings, width), tuple(totals(c) for c in range(width)))


@functools.cache
def own_scale(kind: Any, heated: bool) -> Callable:
    """The device function for the Scale of lane ``c`` of the thread's; beyond the last lane, that of the last."""
    scale_of_lane = scales(kind, heated)

    @device
    def scale_at(c, o, first, a, scale):
        return scale_of_lane(o * a.inner + min(first + c, a.inner - 1), a.heats, scale)

    return scale_at


def each(made: Callable[[int], Callable], count: int) -> Callable:
    """One device function for what ``made(0)``, ``made(1)``, ... do with the same arguments."""
    head = made(0)
    for c in range(1, count):
        head = _both(head, made(c))
    return head


def _both(one: Callable, other: Callable) -> Callable:
    @device
    def both(*arguments):
        one(*arguments)
        other(*arguments)

    return both
