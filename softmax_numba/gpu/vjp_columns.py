"""The ways back of lanes that are neighbours in memory: warps and blocks as in ``columns.py``, half as many values."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import scales
from softmax_numba.gpu.column_parts import DEEP, ROWS, each, moves
from softmax_numba.gpu.lane import Operation, lane
from softmax_numba.gpu.seam import cuda, device, quotient
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.vjp import element


class ColumnShape(NamedTuple):
    """What a kernel is specialised for."""

    operation: Operation  # the function that came before
    storage: str
    width: int  # lanes a thread: those of a 16-byte vector, or one
    heated: bool


@functools.cache
def columns(shape: ColumnShape) -> Callable:
    """The kernel."""
    operation, how, width = shape.operation, STORAGES[shape.storage], shape.width
    kind, word, words_held = how.kind, how.word, how.words
    rows = ROWS[how.itemsize] // 2  # of each array
    values_held, deep, span = rows * width, DEEP, 32 * width
    read, write = moves(shape.storage, width, rows)
    two_sum, scale_of_lane, zero = lane(operation, kind).two_sum, scales(kind, shape.heated), kind(0)
    counted, term, value, collapsed = element(operation, kind)
    room, sums_held = DEEP * span, 2 * width

    @device
    def take(words, ys, dys, y, dy, a, slot, base, across):
        read(ys, words, y, a.x_step, a.length, slot, base, across)
        read(dys, words, dy, a.mask_step, a.length, slot, base, across)
        for k in range(values_held):
            dys[k] = counted(ys[k], dys[k])

    # What is done for lane c of a thread's. A loop over them would not be unrolled, and arrays not stay in registers.

    def surveys(c):
        @device
        def survey(ys, dys, sums):
            """Adds the values to what lane c has come to."""
            high, low = sums[2 * c], sums[2 * c + 1]
            for r in range(rows):
                more, lost = term(ys[r * width + c], dys[r * width + c])
                high, error = two_sum(high, more)
                low += error + lost
            sums[2 * c], sums[2 * c + 1] = high, low

        return survey

    def settlements(c):
        @device
        def settle(sums, meeting, meeting_low, lane_slot):
            """Adds up lane c's list; leaves the sum in the thread's."""
            high, low = zero, zero
            for s in range(deep):
                high, error = two_sum(high, meeting[s * span + lane_slot + c])
                low += error + meeting_low[s * span + lane_slot + c]
            sums[2 * c] = collapsed(high, low)

        return settle

    def finishes(c):
        @device
        def finish(ys, dys, sums, o, first, a, scale):
            """The results of lane c, in the place of y."""
            own = scale_of_lane(o * a.inner + min(first + c, a.inner - 1), a.heats, scale)
            for r in range(rows):
                k = r * width + c
                ys[k] = value(ys[k], dys[k], sums[2 * c], own)

        return finish

    survey, settle, finish = each(surveys, width), each(settlements, width), each(finishes, width)

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        slot, lane_slot = thread >> 5, (thread & 31) * width
        o = quotient(index, a.blocks)
        first = (index - o * a.blocks) * span + lane_slot
        across = a.inner - first  # lanes of this thread; none at all, perhaps
        y, out = a.x + o * a.x_outer + first * a.x_inner, a.y + o * a.y_outer + first * a.y_inner
        dy = a.mask + o * a.mask_outer + first * a.mask_inner
        words, sums = cuda.local.array(words_held, word), cuda.local.array(sums_held, kind)
        ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
        for c in range(sums_held):
            sums[c] = zero
        base = np.int64(0)
        while base < a.length:
            take(words, ys, dys, y, dy, a, slot, base, across)
            survey(ys, dys, sums)
            base += rows * deep

        meeting = cuda.shared.array(room, kind)  # the simulator knows them by their lines
        meeting_low = cuda.shared.array(room, kind)
        for c in range(width):
            meeting[slot * span + lane_slot + c] = sums[2 * c]
            meeting_low[slot * span + lane_slot + c] = sums[2 * c + 1]
        cuda.syncthreads()
        settle(sums, meeting, meeting_low, lane_slot)
        here = a.length <= rows * deep
        base = np.int64(0)
        while base < a.length:
            if not here:
                take(words, ys, dys, y, dy, a, slot, base, across)
            finish(ys, dys, sums, o, first, a, scale)
            write(ys, words, out, a.y_step, a.length, slot, base, across)
            base += rows * deep

    return kernel
