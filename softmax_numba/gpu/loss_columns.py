"""Losses of lanes that are neighbours in memory, at class indices: ``columns.py`` with what loss.py makes of a sum.

The target's own logit is noted before anything is written, since the gradient may go where the logits are.
"""

import functools
from collections.abc import Callable

import numpy as np

from softmax_numba.gpu.column_parts import DEEP, ROWS, ColumnShape, each, gathered, moves
from softmax_numba.gpu.lane import LOSS_AND_GRADIENT, lane
from softmax_numba.gpu.loss import IGNORED, Losing, ending, noting
from softmax_numba.gpu.seam import cuda, device, quotient
from softmax_numba.gpu.storage import STORAGES


@functools.cache
def columns(shape: ColumnShape) -> Callable:
    """The kernel."""
    operation, how, width = shape.operation, STORAGES[shape.storage], shape.width
    kind, word, words_held, rows = how.kind, how.word, how.words, ROWS[how.itemsize]
    values_held, deep, span = rows * width, DEEP, 32 * width
    room, state_held = DEEP * span, 4 * width
    read, write = moves(shape.storage, width, rows)
    mathematics, gradient = lane(operation, kind), operation is LOSS_AND_GRADIENT
    reference, relative, weight = mathematics.reference, mathematics.relative, mathematics.weight
    map_value, (settled_of, _), note = mathematics.map, ending(operation, shape.storage), noting(shape.storage)
    survey, meet, totals = gathered(shape)
    zero, nothing, nowhere = kind(0), kind(-np.inf), np.int64(IGNORED)

    # What is done for lane c of a thread's. A loop over them would not be unrolled, and arrays not stay in registers.

    def settlements(c):
        total = totals[c]

        @device
        def settle(state, peaks, marked, meeting, meeting_low, meeting_ties, slot, lane_slot, across, number, a, scale):
            """Notes what lane c came to; leaves in the thread's state what its gradient needs."""
            part = total(peaks, meeting, meeting_low, meeting_ties, lane_slot)
            own = number + max(min(np.int64(c), across - 1), np.int64(0))  # beyond the last lane, the last
            found = settled_of(part, own, a, scale, slot == 0 and c < across)
            if gradient:
                state[4 * c + 1], state[4 * c + 2] = found.inverse, found.own
                marked[c] = found.target if found.shows else nowhere

        return settle

    def finishes(c):
        @device
        def finish(values, state, peaks, marked, here, row, a, scale):
            """The gradient of the values of lane c; ``here`` if they are exponentials still."""
            first, second = weight(state[4 * c], peaks[c], scale)
            if not here:
                ref = reference(state[4 * c], scale)
                for r in range(rows):
                    values[r * width + c] = relative(values[r * width + c], ref, scale)
            target = marked[c]
            settled = Losing(peaks[c], state[4 * c + 1], target != nowhere, target, zero, row, a)
            for r in range(rows):
                value = map_value(values[r * width + c], settled, first, second, scale)
                if row + r * deep == target:
                    value -= state[4 * c + 2]
                values[r * width + c] = value

        return finish

    settle, finish = each(settlements, width), each(finishes, width)

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        slot, lane_slot = thread >> 5, (thread & 31) * width
        o = quotient(index, a.blocks)
        first = (index - o * a.blocks) * span + lane_slot
        # Lanes of this thread; where there are none, it reads nothing and settles with the last lane.
        across, number = a.inner - first, o * a.inner + min(first, a.inner - 1)
        x = a.x + o * a.x_outer + first * a.x_inner
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        state, peaks = cuda.local.array(state_held, kind), cuda.local.array(width, kind)
        marked = cuda.local.array(width, np.int32)
        for c in range(width):
            state[4 * c], state[4 * c + 1], state[4 * c + 2], state[4 * c + 3] = nothing, zero, zero, zero
            if gradient and slot == 0 and c < across:
                note(number + c, a)
        base = np.int64(0)
        while base < a.length:
            read(values, words, x, a.x_step, a.length, slot, base, across)
            survey(values, state, o, first, a, scale)
            base += rows * deep

        meeting = cuda.shared.array(room, kind)  # the simulator knows them by their lines
        meeting_low = cuda.shared.array(room, kind)
        meeting_ties = cuda.shared.array(room, kind)  # and first the maxima
        for c in range(width):
            meeting_ties[slot * span + lane_slot + c] = state[4 * c]
        cuda.syncthreads()
        meet(state, peaks, meeting, meeting_low, meeting_ties, slot, lane_slot, o, first, a, scale)
        cuda.syncthreads()  # the maxima have been read
        for c in range(width):
            meeting_ties[slot * span + lane_slot + c] = state[4 * c + 3]
        cuda.syncthreads()
        settle(state, peaks, marked, meeting, meeting_low, meeting_ties, slot, lane_slot, across, number, a, scale)
        if gradient:
            y = a.y + o * a.y_outer + first * a.y_inner
            here = a.length <= rows * deep
            base = np.int64(0)
            while base < a.length:
                if not here:
                    read(values, words, x, a.x_step, a.length, slot, base, across)
                finish(values, state, peaks, marked, here, base + slot, a, scale)
                write(values, words, y, a.y_step, a.length, slot, base, across)
                base += rows * deep

    return kernel
