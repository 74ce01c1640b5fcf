"""Lanes that are neighbours in memory: a warp walks 32 vectors of them, value by value along the lane.

A block is eight warps over the same lanes. Warp w takes the values w, w + 8, ... of each lane, as many as its threads
hold at a time; short lanes stay in registers, longer ones are read twice. The eight parts of a lane meet in shared
memory: the maxima first, then the sums relative to the largest.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import scales
from softmax_numba.gpu.lane import SOFTMAX, Operation, Part, Settled, lane
from softmax_numba.gpu.seam import cuda, device, load_byte, quotient
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
def columns(shape: ColumnShape) -> Callable:
    """The kernel."""
    operation, how = shape.operation, STORAGES[shape.storage]
    kind, word, width = how.kind, how.word, shape.width
    rows, words_held, store = ROWS[how.itemsize], how.words, how.store
    values_held = rows * width
    read, write = moves(shape.storage, width, rows)
    mathematics = lane(operation, kind)
    reference, relative, two_sum = mathematics.reference, mathematics.relative, mathematics.two_sum
    merge, lowered, settle, map_value = mathematics.merge, mathematics.lowered, mathematics.settle, mathematics.map
    weight, scale_of_lane = mathematics.weight, scales(kind, shape.heated)
    zero, one, nothing, hidden = kind(0), kind(1), kind(-np.inf), kind(operation.hidden)
    counts_ties, keeps, one_number = operation.counts_ties, operation.maps_exponentials, operation.one_number
    masked, softmax = shape.masked, operation is SOFTMAX
    deep, span = DEEP, 32 * width
    room, state_held = DEEP * span, 4 * width

    @device
    def cover(values, mask, step, inner_step, count, slot, base, across):
        """The bits of the values that take part; the others become -inf."""
        kept = np.uint32(0)
        for r in range(rows):
            row = base + r * deep + slot
            for c in range(width):
                if row < count and c < across and load_byte(mask + row * step + c * inner_step) != 0:
                    kept = np.uint32(kept | np.uint32(np.uint32(1) << np.uint32(r * width + c)))
                else:
                    values[r * width + c] = nothing
        return kept

    @device
    def scale_at(c, o, first, a, scale):
        """The Scale of lane ``c`` of the thread's; beyond the last lane, that of the last."""
        return scale_of_lane(o * a.inner + min(first + c, a.inner - 1), a.heats, scale)

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

    def settlements(c):
        @device
        def settle_lane(
            state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, across, y, o, first, a, scale
        ):
            """Adds up lane c's list; leaves 1 / sum and the logarithm in the thread's state."""
            high, low, ties = zero, zero, zero
            for s in range(deep):
                high, error = two_sum(high, meeting[list_at(s, c, lane_slot)])
                low += error + meeting_low[list_at(s, c, lane_slot)]
                if counts_ties:
                    ties += meeting_ties[list_at(s, c, lane_slot)]
            settled = settle(Part(peaks[c], high, low, ties), scale_at(c, o, first, a, scale))
            if one_number:
                if slot == 0 and c < across:
                    store(y + c * a.y_inner, settled.result)
            else:
                state[4 * c + 1], state[4 * c + 2] = settled.inverse, settled.log_sum

        return settle_lane

    def finishes(c):
        @device
        def finish(values, kept, state, peaks, here, o, first, a, scale):
            """The results of the values of lane c; ``here`` if they are exponentials still."""
            own = scale_at(c, o, first, a, scale)
            settled = Settled(peaks[c], state[4 * c + 1], state[4 * c + 2], zero)
            first_factor, second_factor = one, one
            if keeps:
                first_factor, second_factor = weight(state[4 * c], peaks[c], own)
                if not here:
                    ref = reference(state[4 * c], own)
                    for r in range(rows):
                        values[r * width + c] = relative(values[r * width + c], ref, own)
            for r in range(rows):
                k = r * width + c
                value = map_value(values[k], settled, first_factor, second_factor, own)
                if softmax and a.length == 1:
                    value = (value - value) + one
                if masked and not (kept >> np.uint32(k)) & np.uint32(1):
                    value = hidden
                values[k] = value

        return finish

    survey, meet = each(surveys, width), each(meetings, width)
    settle_lanes, finish = each(settlements, width), each(finishes, width)

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        slot, lane_slot = thread >> 5, (thread & 31) * width
        o = quotient(index, a.blocks)
        first = (index - o * a.blocks) * span + lane_slot
        across = a.inner - first  # lanes of this thread; none at all, perhaps
        x, y = a.x + o * a.x_outer + first * a.x_inner, a.y + o * a.y_outer + first * a.y_inner
        mask = a.mask + o * a.mask_outer + first * a.mask_inner
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        state, peaks = cuda.local.array(state_held, kind), cuda.local.array(width, kind)
        kept = np.uint32(0)
        for c in range(width):
            state[4 * c], state[4 * c + 1], state[4 * c + 2], state[4 * c + 3] = nothing, zero, zero, zero
        base = np.int64(0)
        while base < a.length:
            read(values, words, x, a.x_step, a.length, slot, base, across)
            if masked:
                kept = cover(values, mask, a.mask_step, a.mask_inner, a.length, slot, base, across)
            survey(values, state, o, first, a, scale)
            base += rows * deep

        meeting = cuda.shared.array(room, kind)  # the simulator knows them by their lines
        meeting_low = cuda.shared.array(room, kind)
        meeting_ties = cuda.shared.array(room, kind)  # and first the maxima
        for c in range(width):
            meeting_ties[list_at(slot, c, lane_slot)] = state[4 * c]
        cuda.syncthreads()
        meet(state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, o, first, a, scale)
        if counts_ties:
            cuda.syncthreads()  # the maxima have been read
            for c in range(width):
                meeting_ties[list_at(slot, c, lane_slot)] = state[4 * c + 3]
        cuda.syncthreads()
        settle_lanes(state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, across, y, o, first, a, scale)
        if not one_number:
            here = a.length <= rows * deep
            base = np.int64(0)
            while base < a.length:
                if not here:
                    read(values, words, x, a.x_step, a.length, slot, base, across)
                    if masked:
                        kept = cover(values, mask, a.mask_step, a.mask_inner, a.length, slot, base, across)
                finish(values, kept, state, peaks, here, o, first, a, scale)
                write(values, words, y, a.y_step, a.length, slot, base, across)
                base += rows * deep

    return kernel


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
