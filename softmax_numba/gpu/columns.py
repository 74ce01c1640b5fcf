"""Lanes that are neighbours in memory: a warp walks 32 vectors of them, value by value along the lane.

Short lanes stay in registers, longer ones are read twice; ``column_parts.py`` says who holds what.
"""

import functools
from collections.abc import Callable

import numpy as np

from softmax_numba.gpu.column_parts import DEEP, ROWS, ColumnShape, each, gathered, moves, own_scale
from softmax_numba.gpu.lane import SOFTMAX, Settled, lane
from softmax_numba.gpu.seam import cuda, device, load_byte, quotient
from softmax_numba.gpu.storage import STORAGES


@functools.cache
def columns(shape: ColumnShape) -> Callable:
    """The kernel."""
    operation, how = shape.operation, STORAGES[shape.storage]
    kind, word, width = how.kind, how.word, shape.width
    rows, words_held, store = ROWS[how.itemsize], how.words, how.store
    values_held = rows * width
    read, write = moves(shape.storage, width, rows)
    mathematics, scale_at = lane(operation, kind), own_scale(kind, shape.heated)
    reference, relative, weight = mathematics.reference, mathematics.relative, mathematics.weight
    settle, map_value = mathematics.settle, mathematics.map
    survey, meet, totals = gathered(shape)
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

    # What is done for lane c of a thread's. A loop over them would not be unrolled, and arrays not stay in registers.

    def settlements(c):
        total = totals[c]

        @device
        def settle_lane(
            state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, across, y, o, first, a, scale
        ):
            """Adds up lane c's list; leaves 1 / sum and the logarithm in the thread's state."""
            part = total(peaks, meeting, meeting_low, meeting_ties, lane_slot)
            settled = settle(part, scale_at(c, o, first, a, scale))
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
            meeting_ties[slot * span + lane_slot + c] = state[4 * c]
        cuda.syncthreads()
        meet(state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, o, first, a, scale)
        if counts_ties:
            cuda.syncthreads()  # the maxima have been read
            for c in range(width):
                meeting_ties[slot * span + lane_slot + c] = state[4 * c + 3]
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
