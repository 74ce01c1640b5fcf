"""The cotangents of x from those of softmax(x) and log_softmax(x), and from the functions' own results.

    softmax      y (dy - sum(y dy)) / T
    log_softmax  (dy - exp(y) sum(dy)) / T, where y is finite; a place that is -inf stays there, and counts for nothing

Two arrays are read, tile by tile as in ``rows.py`` (``vjp_long.py``: longer lanes; ``vjp_columns.py``: inner axes). The
sums have twice the precision of their terms and an order that the lane's length fixes. The second array's address and
strides stand in the mask's place.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, results_of, scales, values_of
from softmax_numba.gpu.exponential import Scale, exponential, scale_of
from softmax_numba.gpu.lane import LOG_SOFTMAX, SOFTMAX, Operation, lane
from softmax_numba.gpu.plan import MOST_BLOCKS, MOST_WARPS, MOST_WARPS_IN_64, SHORT_BLOCK
from softmax_numba.gpu.seam import across, cluster_rank, cluster_sync, cuda, device, fma, quotient, store_in_cluster
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


class Element(NamedTuple):
    """The device functions for one value of each array."""

    counted: Callable  # the cotangent, 0 where the place takes no part
    term: Callable  # what the sum gets, and what its rounding lost
    value: Callable  # the result
    collapsed: Callable  # a sum as one number


@functools.cache
def element(operation: Operation, kind: Any) -> Element:
    """The mathematics after ``operation``, computed in ``kind``; places beyond a lane's end hold -inf."""
    reference, relative, _ = exponential(kind)
    zero, one, nothing, infinity = kind(0), kind(1), kind(-np.inf), kind(np.inf)
    per_octave, octave_high, octave_low, _ = (kind(number) for number in scale_of(1.0, kind))
    unit = kind(2.0**-30 if kind is np.float32 else 2.0**-64)  # exponentials are kept multiplied by its inverse
    after_softmax = operation is SOFTMAX
    gone = zero if after_softmax else nothing

    @device
    def counted(y, dy):
        if y == gone:
            dy = zero
        if y == nothing:
            dy = zero
        return dy

    @device
    def term(y, dy):
        high, low = dy, zero
        if after_softmax:
            if y == nothing:
                y = zero
            high = fma(y, dy, zero)  # a product could be fused with the sum
            low = fma(y, dy, -high)
        return high, low

    @device
    def value(y, dy, whole, scale):
        natural = Scale(per_octave, octave_high, octave_low, one)
        if after_softmax:
            found = fma(y, dy - whole, zero) * scale.inverse
        else:
            found = fma(-(relative(y, reference(zero, natural), natural) * unit), whole, dy) * scale.inverse
        return zero if y == gone else found

    @device
    def collapsed(high, low):
        """What an infinite sum lost by rounding is NaN."""
        return high if abs(high) == infinity else high + low

    return Element(counted, term, value, collapsed)


@functools.cache
def steps(shape: Shape) -> Steps:
    """For the tiles of ``shape``."""
    how, threads = STORAGES[shape.storage], shape.threads
    kind, half = how.kind, threads // 2
    moves = tile(shape.storage, shape.vectors, threads, shape.access)
    read, write, spread, gather, values_held = moves.read, moves.write, moves.spread, moves.gather, moves.values
    two_sum, zero = lane(shape.operation, kind).two_sum, kind(0)
    counted, term, value, collapsed = element(shape.operation, kind)

    @device
    def take(words, ys, dys, y, y_step, dy, dy_step, count, slot):
        read(words, y, y_step, count, slot)
        spread(words, ys)
        read(words, dy, dy_step, count, slot)
        spread(words, dys)
        for k in range(values_held):
            dys[k] = counted(ys[k], dys[k])

    @device
    def total(ys, dys):
        high, low = zero, zero
        for k in range(values_held):
            more, lost = term(ys[k], dys[k])
            high, error = two_sum(high, more)
            low += error + lost
        distance = half
        while distance > 0:
            high, error = two_sum(high, across(high, distance))
            low = error + (low + across(low, distance))
            distance >>= 1
        return high, low

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
        for k in range(values_held):
            ys[k] = value(ys[k], dys[k], whole, scale)
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
    take, total, give, _, collapsed = steps(shape)
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
    take, total, give, added, _ = steps(shape)
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
def cluster(shape: Shape) -> Callable:
    """The kernel for lanes of as many tiles as a cluster has warps: the only one of sm_90."""
    how = STORAGES[shape.storage]
    kind, word = how.kind, how.word
    moves = tile(*shape[1:5])
    values_held, words_held, span = moves.values, moves.words, 32 * moves.values
    take, total, give, added, _ = steps(shape)
    scale_of_lane, numbers = scales(kind, shape.heated), NUMBERS * MOST_WARPS * MOST_BLOCKS

    def kernel(a, scale):
        thread, rank = np.int64(cuda.threadIdx.x), cluster_rank()
        blocks = a.blocks
        number = quotient(np.int64(cuda.blockIdx.x), blocks)
        slot, own_tile = thread & 31, rank * (np.int64(cuda.blockDim.x) >> 5) + (thread >> 5)
        first = own_tile * span
        count = min(max(a.length - first, np.int64(0)), np.int64(span))
        words = cuda.local.array(words_held, word)
        ys, dys = cuda.local.array(values_held, kind), cuda.local.array(values_held, kind)
        y, dy = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
        take(words, ys, dys, y, a.x_step, dy, a.mask_step, count, slot)
        high, low = total(ys, dys)
        meeting = cuda.shared.array(numbers, kind)
        cluster_sync()  # every block has begun, so that its shared memory may be written to
        if slot < blocks and own_tile < a.segments:  # a thread for each block to tell
            store_in_cluster(meeting, NUMBERS * own_tile, slot, high)
            store_in_cluster(meeting, NUMBERS * own_tile + 1, slot, low)
        cluster_sync()
        whole = added(meeting, a.segments, slot)
        scale = scale_of_lane(number, a.heats, scale)
        out = results_of(number, a) + first * a.y_step
        give(words, ys, dys, whole, scale, out, a.y_step, count, slot)

    return kernel
