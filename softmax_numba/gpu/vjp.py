"""The cotangents of x from those of softmax(x) and log_softmax(x), and from the functions' own results.

    softmax      y (dy - sum(y dy)) / T
    log_softmax  (dy - exp(y) sum(dy)) / T, where y is finite; a place that is -inf stays there, and counts for nothing

Two arrays are read, tile by tile as in ``rows.py`` and ``long.py``; the sums have twice the precision of their terms
and an order that the lane's length fixes. The second array's address and strides stand in the mask's place.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, results_of, scales, values_of
from softmax_numba.gpu.exponential import Scale, exponential, scale_of
from softmax_numba.gpu.lane import LOG_SOFTMAX, SOFTMAX, Operation, lane
from softmax_numba.gpu.plan import MOST_WARPS_IN_64, SHORT_BLOCK
from softmax_numba.gpu.seam import across, cuda, device, fma
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import Access, tile

NUMBERS = 2  # of a part: a sum and what its rounding lost
BACKWARD = {"softmax_vjp": SOFTMAX, "log_softmax_vjp": LOG_SOFTMAX}


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    operation: Operation  # the function that came before
    storage: str
    vectors: int
    threads: int
    access: Access
    heated: bool


class Steps(NamedTuple):
    """The device functions for one tile of each array."""

    take: Callable  # both from memory
    total: Callable  # the sum that a tile has, of all its threads
    give: Callable  # the cotangents
    added: Callable  # a list of sums
    collapsed: Callable  # a sum as one number


@functools.cache
def _steps(shape: Shape) -> Steps:
    how, threads = STORAGES[shape.storage], shape.threads
    kind = how.kind
    moves = tile(shape.storage, shape.vectors, threads, shape.access)
    read, write, spread, gather, values_held = moves.read, moves.write, moves.spread, moves.gather, moves.values
    two_sum = lane(shape.operation, kind).two_sum
    reference, relative, _ = exponential(kind)
    zero, one, nothing, infinity = kind(0), kind(1), kind(-np.inf), kind(np.inf)
    per_octave, octave_high, octave_low, _ = (kind(number) for number in scale_of(1.0, kind))
    unit = kind(2.0**-30 if kind is np.float32 else 2.0**-64)  # exponentials are kept multiplied by its inverse
    after_softmax, half = shape.operation is SOFTMAX, threads // 2
    gone = zero if after_softmax else nothing

    @device
    def take(words, ys, dys, y, y_step, dy, dy_step, count, slot):
        """Places beyond the lane's end hold -inf, and so count for nothing."""
        read(words, y, y_step, count, slot)
        spread(words, ys)
        read(words, dy, dy_step, count, slot)
        spread(words, dys)
        for k in range(values_held):
            if ys[k] == gone or ys[k] == nothing:
                dys[k] = zero

    @device
    def total(ys, dys):
        high, low = zero, zero
        for k in range(values_held):
            y, dy = ys[k], dys[k]
            if after_softmax:
                if y == nothing:
                    y = zero
                term = fma(y, dy, zero)  # a product could be fused with the sum
                low += fma(y, dy, -term)
            else:
                term = dy
            high, error = two_sum(high, term)
            low += error
        distance = half
        while distance > 0:
            high, error = two_sum(high, across(high, distance))
            low = error + (low + across(low, distance))
            distance >>= 1
        return high, low

    @device
    def collapsed(high, low):
        """One number; what an infinite sum lost by rounding is NaN."""
        return high if abs(high) == infinity else high + low

    @device
    def added(list_of_sums, count, slot):
        """The sum of a list: thread i takes numbers i, i + 32, ..., and the threads' sums are added as a tree."""
        high, low = zero, zero
        i = slot
        while i < count:
            high, error = two_sum(high, list_of_sums[NUMBERS * i])
            low += error + list_of_sums[NUMBERS * i + 1]
            i += 32
        distance = 16
        while distance > 0:
            high, error = two_sum(high, across(high, distance))
            low = error + (low + across(low, distance))
            distance >>= 1
        return collapsed(high, low)

    @device
    def give(words, ys, dys, whole, scale, out, step, count, slot):
        natural = Scale(per_octave, octave_high, octave_low, one)
        ref = reference(zero, natural)
        for k in range(values_held):
            y = ys[k]
            if after_softmax:
                value = fma(y, dys[k] - whole, zero) * scale.inverse
            else:
                value = fma(-(relative(y, ref, natural) * unit), whole, dys[k]) * scale.inverse
            if y == gone:
                value = zero
            ys[k] = value
        gather(ys, words)
        write(words, out, step, count, slot)

    return Steps(take, total, give, added, collapsed)


@functools.cache
def several(shape: Shape) -> Callable:
    """The kernel for lanes of one tile."""
    how, threads, block = STORAGES[shape.storage], shape.threads, SHORT_BLOCK
    kind, word = how.kind, how.word
    moves = tile(*shape[1:5])
    values_held, words_held = moves.values, moves.words
    take, total, give, _, collapsed = _steps(shape)
    scale_of_lane = scales(kind, shape.heated)

    def kernel(a, scale):
        thread = np.int64(cuda.threadIdx.x)
        number, slot = (np.int64(cuda.blockIdx.x) * block + thread) // threads, thread % threads
        count = a.length
        if number >= a.lanes:
            number, count = np.int64(0), np.int64(0)
        words = cuda.local.array(words_held, word)
        ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
        y, dy = values_of(number, a), mask_of(number, a)
        take(words, ys, dys, y, a.x_step, dy, a.mask_step, count, slot)
        high, low = total(ys, dys)
        scale = scale_of_lane(number, a.heats, scale)
        give(words, ys, dys, collapsed(high, low), scale, results_of(number, a), a.y_step, count, slot)

    return kernel


@functools.cache
def block(shape: Shape) -> Callable:
    """The kernel for lanes of as many tiles as a block has warps."""
    how = STORAGES[shape.storage]
    kind, word = how.kind, how.word
    moves = tile(*shape[1:5])
    values_held, words_held, span = moves.values, moves.words, 32 * moves.values
    take, total, give, added, _ = _steps(shape)
    scale_of_lane, numbers = scales(kind, shape.heated), NUMBERS * MOST_WARPS_IN_64

    def kernel(a, scale):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot = thread >> 5, thread & 31
        first = warp * span
        count = min(a.length - first, np.int64(span))
        words = cuda.local.array(words_held, word)
        ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
        y, dy = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
        take(words, ys, dys, y, a.x_step, dy, a.mask_step, count, slot)
        high, low = total(ys, dys)
        meeting = cuda.shared.array(numbers, kind)
        if slot == 0:
            meeting[NUMBERS * warp], meeting[NUMBERS * warp + 1] = high, low
        cuda.syncthreads()
        whole = added(meeting, a.segments, slot)
        scale = scale_of_lane(number, a.heats, scale)
        out = results_of(number, a) + first * a.y_step
        give(words, ys, dys, whole, scale, out, a.y_step, count, slot)

    return kernel


@functools.cache
def online(shape: Shape) -> Callable:
    """The kernel for one block a lane and two reads."""
    how = STORAGES[shape.storage]
    kind, word = how.kind, how.word
    moves = tile(*shape[1:5])
    values_held, words_held, span = moves.values, moves.words, 32 * moves.values
    take, total, give, added, _ = _steps(shape)
    two_sum, scale_of_lane, zero = lane(shape.operation, kind).two_sum, scales(kind, shape.heated), kind(0)
    number_type = np.dtype(kind)

    def kernel(a, scale):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot, warps = thread >> 5, thread & 31, np.int64(cuda.blockDim.x) >> 5
        words = cuda.local.array(words_held, word)
        ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
        meeting = cuda.shared.array(0, number_type)
        segment = warp
        while segment < a.segments:
            high, low = zero, zero
            for t in range(a.tiles):
                first = (segment * a.tiles + t) * span
                if first < a.length:
                    y, dy = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
                    count = min(a.length - first, np.int64(span))
                    take(words, ys, dys, y, a.x_step, dy, a.mask_step, count, slot)
                    more, more_low = total(ys, dys)
                    high, error = two_sum(high, more)
                    low += error + more_low
            if slot == 0:
                meeting[NUMBERS * segment], meeting[NUMBERS * segment + 1] = high, low
            segment += warps
        cuda.syncthreads()
        whole = added(meeting, a.segments, slot)
        scale = scale_of_lane(number, a.heats, scale)
        segment = warp
        while segment < a.segments:
            for t in range(a.tiles):
                first = (segment * a.tiles + t) * span
                if first < a.length:
                    y, dy = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
                    count = min(a.length - first, np.int64(span))
                    take(words, ys, dys, y, a.x_step, dy, a.mask_step, count, slot)
                    out = results_of(number, a) + first * a.y_step
                    give(words, ys, dys, whole, scale, out, a.y_step, count, slot)
            segment += warps

    return kernel


MAKERS: dict[str, Callable[[Shape], Callable]] = {
    "several": several,
    "warp": several,
    "block": block,
    "online": online,
}
