"""The ways back of lanes longer than the registers of a block: segments, whose sums make up a list, as in ``long.py``.

``online``  one block a lane, which reads it twice
``split``   few lanes, several blocks each: ``survey`` lists the sums in global memory, ``finish`` maps
"""

import functools
from collections.abc import Callable

import numpy as np

from softmax_numba.gpu.arguments import mask_of, results_of, scales, values_of
from softmax_numba.gpu.lane import lane
from softmax_numba.gpu.plan import LONGEST_LIST
from softmax_numba.gpu.seam import cuda, device, quotient
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import tile
from softmax_numba.gpu.vjp import NUMBERS, Shape, steps


@functools.cache
def _segments(shape: Shape) -> tuple[Callable, Callable]:
    """``survey`` a segment: its sum; ``finish`` it: its results, by the sum of the lane."""
    kind = STORAGES[shape.storage].kind
    span = 32 * tile(*shape[1:5]).values
    take, total, give, _, _ = steps(shape)
    two_sum, zero = lane(shape.operation, kind).two_sum, kind(0)

    @device
    def survey(words, ys, dys, number, segment, a, slot):
        high, low = zero, zero
        for t in range(a.tiles):
            first = (segment * a.tiles + t) * span
            if first < a.length:
                y, dy = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
                take(words, ys, dys, y, a.x_step, dy, a.mask_step, min(a.length - first, np.int64(span)), slot)
                more, more_low = total(ys, dys)
                high, error = two_sum(high, more)
                low += error + more_low
        return high, low

    @device
    def finish(words, ys, dys, number, segment, whole, scale, a, slot):
        for t in range(a.tiles):
            first = (segment * a.tiles + t) * span
            if first < a.length:
                y, dy = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
                count = min(a.length - first, np.int64(span))
                take(words, ys, dys, y, a.x_step, dy, a.mask_step, count, slot)
                out = results_of(number, a) + first * a.y_step
                give(words, ys, dys, whole, scale, out, a.y_step, count, slot)

    return survey, finish


@functools.cache
def online(shape: Shape) -> Callable:
    """The kernel for one block a lane and two reads."""
    how = STORAGES[shape.storage]
    kind, word = how.kind, how.word
    moves = tile(*shape[1:5])
    values_held, words_held = moves.values, moves.words
    survey_segment, finish_segment = _segments(shape)
    added, scale_of_lane, number_type = steps(shape).added, scales(kind, shape.heated), np.dtype(kind)

    def kernel(a, scale):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot, warps = thread >> 5, thread & 31, np.int64(cuda.blockDim.x) >> 5
        words = cuda.local.array(words_held, word)
        ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
        meeting = cuda.shared.array(0, number_type)
        segment = warp
        while segment < a.segments:
            high, low = survey_segment(words, ys, dys, number, segment, a, slot)
            if slot == 0:
                meeting[NUMBERS * segment], meeting[NUMBERS * segment + 1] = high, low
            segment += warps
        cuda.syncthreads()
        whole = added(meeting, a.segments, slot)
        scale = scale_of_lane(number, a.heats, scale)
        segment = warp
        while segment < a.segments:
            finish_segment(words, ys, dys, number, segment, whole, scale, a, slot)
            segment += warps

    return kernel


@functools.cache
def survey(shape: Shape) -> Callable:
    """The first kernel for several blocks a lane: every warp lists a segment's sum in global memory."""
    how = STORAGES[shape.storage]
    kind, word, store, size = how.kind, how.word, STORAGES[np.dtype(how.kind).name].store, np.dtype(how.kind).itemsize
    moves = tile(*shape[1:5])
    values_held, words_held = moves.values, moves.words
    survey_segment, _ = _segments(shape)

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        number = quotient(index, a.blocks)
        segment = (index - number * a.blocks) * (np.int64(cuda.blockDim.x) >> 5) + (thread >> 5)
        slot = thread & 31
        if segment < a.segments:
            words = cuda.local.array(words_held, word)
            ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
            high, low = survey_segment(words, ys, dys, number, segment, a, slot)
            if slot == 0:
                place = a.scratch + (number * a.segments + segment) * (NUMBERS * size)
                store(place, high)
                store(place + size, low)

    return kernel


@functools.cache
def finish(shape: Shape) -> Callable:
    """The second: every block adds up its lane's list, and every warp maps a segment."""
    how = STORAGES[shape.storage]
    kind, word, load, size = how.kind, how.word, STORAGES[np.dtype(how.kind).name].load, np.dtype(how.kind).itemsize
    moves = tile(*shape[1:5])
    values_held, words_held = moves.values, moves.words
    _, finish_segment = _segments(shape)
    added, scale_of_lane, numbers = steps(shape).added, scales(kind, shape.heated), NUMBERS * LONGEST_LIST

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        number = quotient(index, a.blocks)
        segment = (index - number * a.blocks) * (np.int64(cuda.blockDim.x) >> 5) + (thread >> 5)
        slot = thread & 31
        meeting = cuda.shared.array(numbers, kind)
        place = a.scratch + number * a.segments * (NUMBERS * size)
        n = thread
        while n < NUMBERS * a.segments:
            meeting[n] = load(place + n * size)
            n += np.int64(cuda.blockDim.x)
        cuda.syncthreads()
        whole = added(meeting, a.segments, slot)
        if segment < a.segments:
            scale = scale_of_lane(number, a.heats, scale)
            words = cuda.local.array(words_held, word)
            ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
            finish_segment(words, ys, dys, number, segment, whole, scale, a, slot)

    return kernel
