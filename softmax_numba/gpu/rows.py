"""Lanes that stay in registers between the one read and the one write.

``several``  up to 32 threads a lane, so that a warp holds one lane or more; nothing but shuffles between them
``block``    a tile a warp, a lane a block: the parts of its warps meet once in shared memory
``cluster``  as many blocks of sixteen or 32 tiles as a lane needs, whose parts meet in the shared memory of each
"""

import functools
from collections.abc import Callable

import numpy as np

from softmax_numba.gpu.arguments import mask_of, results_of, scales, values_of
from softmax_numba.gpu.ending import ending
from softmax_numba.gpu.held import Shape, gathered, held
from softmax_numba.gpu.lane import lane
from softmax_numba.gpu.parts import NUMBERS
from softmax_numba.gpu.plan import MOST_BLOCKS, MOST_WARPS_IN_64, SHORT_BLOCK
from softmax_numba.gpu.seam import cluster_rank, cluster_sync, cuda, device, quotient, store_in_cluster
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import tile

MOST_TILES = MOST_WARPS_IN_64 * MOST_BLOCKS


@functools.cache
def _last_step(shape: Shape) -> Callable:
    """From what a tile and its lane came to, to the tile's results, or to the lane's one number."""
    how = STORAGES[shape.storage]
    weight, one = lane(shape.operation, how.kind).weight, how.kind(1)
    settled_of, seen_from = ending(shape)
    one_number, keeps = shape.operation.one_number, shape.operation.maps_exponentials
    _, _, give = held(shape)

    @device
    def last_step(words, values, kept, own, whole, number, first, a, scale, count, slot, tells):
        """``tells``: whether this thread is the one that writes the lane's number."""
        settled = seen_from(settled_of(whole, number, a, scale, tells), first)
        if not one_number:
            factors = one, one
            if keeps:
                factors = weight(own.top, whole.top, scale)
            target = results_of(number, a) + first * a.y_step
            give(words, values, kept, settled, factors[0], factors[1], scale, target, a.y_step, count, slot)

    return last_step


@functools.cache
def several(shape: Shape) -> Callable:
    """The kernel for lanes of one tile."""
    how = STORAGES[shape.storage]
    kind, word = how.kind, how.word
    values_held, words_held = shape.values, tile(*shape[1:5]).words
    take, _, give = held(shape)
    of_tile, _, _ = gathered(shape)
    settled_of, scale_of_lane, one = ending(shape).settled, scales(kind, shape.heated), kind(1)
    one_number, threads, block = shape.operation.one_number, shape.threads, SHORT_BLOCK

    def kernel(a, scale):
        thread = np.int64(cuda.threadIdx.x)
        number, slot = (np.int64(cuda.blockIdx.x) * block + thread) // threads, thread % threads
        count = a.length
        if number >= a.lanes:  # these threads take part in the shuffles and touch nothing
            number, count = np.int64(0), np.int64(0)
        scale = scale_of_lane(number, a.heats, scale)
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        kept = take(words, values, values_of(number, a), a.x_step, mask_of(number, a), a.mask_step, count, slot)
        settled = settled_of(of_tile(values, scale), number, a, scale, slot == 0 and count > 0)
        if not one_number:
            give(words, values, kept, settled, one, one, scale, results_of(number, a), a.y_step, count, slot)

    return kernel


@functools.cache
def block(shape: Shape) -> Callable:
    """The kernel for lanes of as many tiles as a block has warps."""
    how = STORAGES[shape.storage]
    kind, word, span = how.kind, how.word, shape.span
    values_held, words_held = shape.values, tile(*shape[1:5]).words
    take, last_step = held(shape).take, _last_step(shape)
    of_tile, put, of_list = gathered(shape)
    scale_of_lane = scales(kind, shape.heated)
    numbers = NUMBERS * MOST_WARPS_IN_64

    def kernel(a, scale):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot = thread >> 5, thread & 31
        first = warp * span
        count = min(a.length - first, np.int64(span))
        scale = scale_of_lane(number, a.heats, scale)
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        given, given_mask = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
        kept = take(words, values, given, a.x_step, given_mask, a.mask_step, count, slot)
        own = of_tile(values, scale)
        meeting = cuda.shared.array(numbers, kind)
        if slot == 0:
            put(meeting, warp, own)
        cuda.syncthreads()
        whole = of_list(meeting, a.segments, slot, scale)
        last_step(words, values, kept, own, whole, number, first, a, scale, count, slot, thread == 0)

    return kernel


@functools.cache
def cluster(shape: Shape) -> Callable:
    """The kernel for lanes of as many tiles as a cluster has warps: the only one of sm_90."""
    how = STORAGES[shape.storage]
    kind, word, span = how.kind, how.word, shape.span
    values_held, words_held = shape.values, tile(*shape[1:5]).words
    take, last_step = held(shape).take, _last_step(shape)
    of_tile, _, of_list = gathered(shape)
    scale_of_lane = scales(kind, shape.heated)
    numbers = NUMBERS * MOST_TILES

    def kernel(a, scale):
        thread, rank = np.int64(cuda.threadIdx.x), cluster_rank()
        blocks = a.blocks
        number = quotient(np.int64(cuda.blockIdx.x), blocks)
        slot, own_tile = thread & 31, rank * (np.int64(cuda.blockDim.x) >> 5) + (thread >> 5)
        first = own_tile * span
        count = min(max(a.length - first, np.int64(0)), np.int64(span))
        scale = scale_of_lane(number, a.heats, scale)
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        given, given_mask = values_of(number, a) + first * a.x_step, mask_of(number, a) + first * a.mask_step
        kept = take(words, values, given, a.x_step, given_mask, a.mask_step, count, slot)
        own = of_tile(values, scale)
        meeting = cuda.shared.array(numbers, kind)
        cluster_sync()  # every block has begun, so that its shared memory may be written to
        if slot < blocks and own_tile < a.segments:  # a thread for each block to tell
            store_in_cluster(meeting, NUMBERS * own_tile, slot, own.top)
            store_in_cluster(meeting, NUMBERS * own_tile + 1, slot, own.high)
            store_in_cluster(meeting, NUMBERS * own_tile + 2, slot, own.low)
            store_in_cluster(meeting, NUMBERS * own_tile + 3, slot, own.ties)
        cluster_sync()
        whole = of_list(meeting, a.segments, slot, scale)
        tells = thread == 0 and rank == 0
        last_step(words, values, kept, own, whole, number, first, a, scale, count, slot, tells)

    return kernel
