"""Lanes longer than the registers of a block: cut at fixed places into segments, whose parts make up a list.

``shared``  one block a lane, which keeps the lane in shared memory between the read and the write
``online``  one block a lane, which reads it twice: the second time from the cache, if it is still there
``split``   few lanes, several blocks each: ``survey`` lists the parts in global memory, ``finish`` maps

A segment is a tile, or several of them where the list would have more than LONGEST_LIST parts.
"""

import functools
from collections.abc import Callable

import numpy as np

from softmax_numba.gpu.arguments import mask_of, results_of, scales, values_of
from softmax_numba.gpu.ending import ending
from softmax_numba.gpu.held import Shape, gathered, held
from softmax_numba.gpu.lane import Part, lane
from softmax_numba.gpu.parts import NUMBERS
from softmax_numba.gpu.plan import LONGEST_LIST
from softmax_numba.gpu.seam import cuda, device, quotient
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import tile


@functools.cache
def _segments(shape: Shape) -> tuple[Callable, Callable]:
    """``survey`` a segment: its part; ``finish`` it: its results, by what the lane came to."""
    kind, span = STORAGES[shape.storage].kind, shape.span
    take, _, give = held(shape)
    of_tile, _, _ = gathered(shape)
    how = lane(shape.operation, kind)
    merge, weight, reference, relative = how.merge, how.weight, how.reference, how.relative
    zero, one, nothing = kind(0), kind(1), kind(-np.inf)
    keeps, count_values = shape.operation.maps_exponentials, shape.values
    seen_from = ending(shape).seen_from

    @device
    def survey(words, values, number, segment, a, scale, slot):
        part = Part(nothing, zero, zero, zero)
        x, mask = values_of(number, a), mask_of(number, a)
        for t in range(a.tiles):
            first = (segment * a.tiles + t) * span
            if first < a.length:
                given, given_mask = x + first * a.x_step, mask + first * a.mask_step
                count = min(a.length - first, np.int64(span))
                take(words, values, given, a.x_step, given_mask, a.mask_step, count, slot)
                part = merge(part, of_tile(values, scale), scale)
        return part

    @device
    def results(words, values, kept, top, settled, scale, y, y_step, count, slot):
        """From a tile's values: the exponentials anew, relative to the segment's maximum as in the survey."""
        first, second = one, one
        if keeps:
            first, second = weight(top, settled.peak, scale)
            ref = reference(top, scale)
            for k in range(count_values):
                values[k] = relative(values[k], ref, scale)
        give(words, values, kept, settled, first, second, scale, y, y_step, count, slot)

    @device
    def finish(words, values, number, segment, top, settled, a, scale, slot):
        x, y, mask = values_of(number, a), results_of(number, a), mask_of(number, a)
        for t in range(a.tiles):
            first = (segment * a.tiles + t) * span
            count = min(a.length - first, np.int64(span))
            if count > 0:
                given, given_mask = x + first * a.x_step, mask + first * a.mask_step
                kept = take(words, values, given, a.x_step, given_mask, a.mask_step, count, slot)
                target = y + first * a.y_step
                here = seen_from(settled, first)
                results(words, values, kept, top, here, scale, target, a.y_step, count, slot)

    return survey, finish


@functools.cache
def online(shape: Shape) -> Callable:
    """The kernel for one block a lane and two reads."""
    how = STORAGES[shape.storage]
    kind, word = how.kind, how.word
    values_held, words_held = shape.values, tile(*shape[1:5]).words
    survey, finish = _segments(shape)
    _, put, of_list = gathered(shape)
    settled_of, scale_of_lane = ending(shape).settled, scales(kind, shape.heated)
    one_number, number_type = shape.operation.one_number, np.dtype(kind)

    def kernel(a, scale):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot, warps = thread >> 5, thread & 31, np.int64(cuda.blockDim.x) >> 5
        scale = scale_of_lane(number, a.heats, scale)
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        meeting = cuda.shared.array(0, number_type)
        segment = warp
        while segment < a.segments:
            part = survey(words, values, number, segment, a, scale, slot)
            if slot == 0:
                put(meeting, segment, part)
            segment += warps
        cuda.syncthreads()
        settled = settled_of(of_list(meeting, a.segments, slot, scale), number, a, scale, thread == 0)
        if not one_number:
            segment = warp
            while segment < a.segments:
                finish(words, values, number, segment, meeting[NUMBERS * segment], settled, a, scale, slot)
                segment += warps

    return kernel


@functools.cache
def shared(shape: Shape) -> Callable:
    """The kernel for one block a lane that stays in shared memory: segments of one tile."""
    how = STORAGES[shape.storage]
    kind, word, span = how.kind, how.word, shape.span
    moves = tile(*shape[1:5])
    values_held, words_held, read = shape.values, moves.words, moves.read
    words_kept = words_held - how.words
    _, dress, give = held(shape)
    of_tile, put, of_list = gathered(shape)
    mathematics = lane(shape.operation, kind)
    weight, scale_of_lane = mathematics.weight, scales(kind, shape.heated)
    settled_of, seen_from = ending(shape)
    reference, relative = mathematics.reference, mathematics.relative
    keeps, one = shape.operation.maps_exponentials, kind(1)
    number_type, word_type = np.dtype(kind), np.dtype(word)
    words_a_number = number_type.itemsize // word_type.itemsize

    def kernel(a, scale):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot, warps = thread >> 5, thread & 31, np.int64(cuda.blockDim.x) >> 5
        scale = scale_of_lane(number, a.heats, scale)
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        meeting = cuda.shared.array(0, number_type)
        store_room = cuda.shared.array(0, word_type)  # the same memory
        after = NUMBERS * a.segments * words_a_number
        segment = warp
        while segment < a.segments:
            first = segment * span
            count = min(a.length - first, np.int64(span))
            read(words, values_of(number, a) + first * a.x_step, a.x_step, count, slot)
            for w in range(words_kept):
                store_room[after + (segment * words_kept + w) * 32 + slot] = words[w]
            dress(words, values, mask_of(number, a) + first * a.mask_step, a.mask_step, count, slot)
            part = of_tile(values, scale)
            if slot == 0:
                put(meeting, segment, part)
            segment += warps
        cuda.syncthreads()
        settled = settled_of(of_list(meeting, a.segments, slot, scale), number, a, scale, thread == 0)
        segment = warp
        while segment < a.segments:
            first = segment * span
            count = min(a.length - first, np.int64(span))
            for w in range(words_kept):
                words[w] = store_room[after + (segment * words_kept + w) * 32 + slot]
            kept = dress(words, values, mask_of(number, a) + first * a.mask_step, a.mask_step, count, slot)
            first_factor, second_factor = one, one
            if keeps:
                top = meeting[NUMBERS * segment]
                first_factor, second_factor = weight(top, settled.peak, scale)
                ref = reference(top, scale)
                for k in range(values_held):
                    values[k] = relative(values[k], ref, scale)
            target, here = results_of(number, a) + first * a.y_step, seen_from(settled, first)
            give(words, values, kept, here, first_factor, second_factor, scale, target, a.y_step, count, slot)
            segment += warps

    return kernel


@functools.cache
def survey(shape: Shape) -> Callable:
    """The first kernel for several blocks a lane: every warp lists a segment's part in global memory."""
    how = STORAGES[shape.storage]
    kind, word, store, size = how.kind, how.word, STORAGES[np.dtype(how.kind).name].store, np.dtype(how.kind).itemsize
    values_held, words_held = shape.values, tile(*shape[1:5]).words
    survey_segment, _ = _segments(shape)
    scale_of_lane = scales(kind, shape.heated)

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        number = quotient(index, a.blocks)
        segment = (index - number * a.blocks) * (np.int64(cuda.blockDim.x) >> 5) + (thread >> 5)
        slot = thread & 31
        if segment < a.segments:
            scale = scale_of_lane(number, a.heats, scale)
            words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
            part = survey_segment(words, values, number, segment, a, scale, slot)
            if slot == 0:
                place = a.scratch + (number * a.segments + segment) * (NUMBERS * size)
                store(place, part.top)
                store(place + size, part.high)
                store(place + 2 * size, part.low)
                store(place + 3 * size, part.ties)

    return kernel


@functools.cache
def finish(shape: Shape) -> Callable:
    """The second: every block adds up its lane's list, and every warp maps a segment."""
    how = STORAGES[shape.storage]
    kind, word, load, size = how.kind, how.word, STORAGES[np.dtype(how.kind).name].load, np.dtype(how.kind).itemsize
    values_held, words_held = shape.values, tile(*shape[1:5]).words
    _, finish_segment = _segments(shape)
    _, _, of_list = gathered(shape)
    settled_of, scale_of_lane = ending(shape).settled, scales(kind, shape.heated)
    one_number, numbers = shape.operation.one_number, NUMBERS * LONGEST_LIST

    def kernel(a, scale):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        number = quotient(index, a.blocks)
        segment = (index - number * a.blocks) * (np.int64(cuda.blockDim.x) >> 5) + (thread >> 5)
        slot = thread & 31
        scale = scale_of_lane(number, a.heats, scale)
        meeting = cuda.shared.array(numbers, kind)
        place = a.scratch + number * a.segments * (NUMBERS * size)
        n = thread
        while n < NUMBERS * a.segments:
            meeting[n] = load(place + n * size)
            n += np.int64(cuda.blockDim.x)
        cuda.syncthreads()
        tells = thread == 0 and index == number * a.blocks
        settled = settled_of(of_list(meeting, a.segments, slot, scale), number, a, scale, tells)
        if not one_number and segment < a.segments:
            words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
            finish_segment(words, values, number, segment, meeting[NUMBERS * segment], settled, a, scale, slot)

    return kernel
