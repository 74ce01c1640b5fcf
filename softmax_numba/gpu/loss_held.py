"""Terms of all classes of lanes that stay in registers: normalised, summed and mapped from one read.

``several`` and ``block`` as in rows.py; whether a lane has one tile, a warp each, or is too long is decided by its
length alone. The exponentials are computed anew for the gradient: the terms need the values.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, other_of, results_of, values_of
from softmax_numba.gpu.exponential import Scale, exponential, scale_of
from softmax_numba.gpu.lane import LOSS, lane
from softmax_numba.gpu.loss import NOTES
from softmax_numba.gpu.loss_terms import Kind, Sums, terms
from softmax_numba.gpu.parts import NUMBERS, parts
from softmax_numba.gpu.plan import ALONE, MOST_WARPS, SHARE, SHORT_BLOCK, Device, Plan
from softmax_numba.gpu.seam import cuda, device, fma, load_index
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import Access, tile


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    kind: Kind
    gradient: bool
    vectors: int
    threads: int
    access: Access


class _Steps(NamedTuple):
    """Device functions for a tile."""

    take: Callable
    total: Callable  # its terms, over its threads
    finish: Callable  # notes what the lane came to, and maps


@functools.cache
def _steps(shape: Shape) -> _Steps:
    how, threads, gradient = STORAGES[shape.kind.storage], shape.threads, shape.gradient
    kind, width = how.kind, how.per_vector
    name, size = np.dtype(kind).name, np.dtype(kind).itemsize
    load_code, store_number = load_index["int32"], STORAGES[name].store
    moves = tile(shape.kind.storage, shape.vectors, threads, shape.access)
    read, write, spread, gather, held = moves.read, moves.write, moves.spread, moves.gather, moves.values
    term, plus, _, over, factor_of = terms(shape.kind)
    reference, relative, _ = exponential(kind)
    per_octave, octave_high, octave_low, _ = (kind(number) for number in scale_of(1.0, kind))
    zero, one = kind(0), kind(1)

    @device
    def take(words, values, number, first, a, count, slot):
        read(words, values_of(number, a) + first * a.x_step, a.x_step, count, slot)
        spread(words, values)

    @device
    def at(k, slot):
        """The place in the tile of a thread's value k."""
        return ((k // width) * threads + slot) * width + k % width

    @device
    def total(values, settled, number, first, a, targets, count, slot):
        target, place = load_code(mask_of(number, a)), other_of(number, a)
        sums = Sums(zero, zero, zero, zero)
        for k in range(held):
            i = at(k, slot)
            if i < count:
                more = term(first + i, values[k], target, place, a, targets, settled.peak, settled.log_sum)
                sums = plus(sums, more[0], more[1])
        return over(sums, threads)

    @device
    def finish(words, values, settled, sums, number, first, a, targets, count, slot, tells):
        where, place = mask_of(number, a), other_of(number, a)
        target, lane_at = load_code(where), (where - a.codes) >> 2
        if tells:
            notes, terms_at = a.notes + lane_at * (NOTES * size), a.scratch + lane_at * (2 * size)
            store_number(notes, settled.peak)
            store_number(notes + size, settled.log_sum)
            store_number(terms_at, sums.loss)
            store_number(terms_at + size, sums.loss_low)
        if gradient:
            natural = Scale(per_octave, octave_high, octave_low, one)
            ref, factors = (
                reference(settled.peak, natural),
                factor_of(sums, target, settled.peak, settled.log_sum, settled.inverse, a.gains),
            )
            for k in range(held):
                i, value = at(k, slot), zero
                if factors[2] and i < count:
                    more = term(first + i, values[k], target, place, a, targets, settled.peak, settled.log_sum)
                    value = fma(relative(values[k], ref, natural), factors[0], -fma(more[1], factors[1], zero))
                values[k] = value
            gather(values, words)
            write(words, results_of(number, a) + first * a.y_step, a.y_step, count, slot)

    return _Steps(take, total, finish)


@functools.cache
def several(shape: Shape) -> Callable:
    """The kernel for lanes of one tile."""
    how, threads, block = STORAGES[shape.kind.storage], shape.threads, SHORT_BLOCK
    kind, word = how.kind, how.word
    moves = tile(shape.kind.storage, shape.vectors, threads, shape.access)
    values_held, words_held = moves.values, moves.words
    take, total, finish = _steps(shape)
    of_tile, settle = parts(LOSS, kind, values_held, threads).of_tile, lane(LOSS, kind).settle
    per_octave, octave_high, octave_low, inverse = (kind(number) for number in scale_of(1.0, kind))

    def kernel(a, targets):
        thread = np.int64(cuda.threadIdx.x)
        number, slot = (np.int64(cuda.blockIdx.x) * block + thread) // threads, thread % threads
        count = a.length
        if number >= a.lanes:
            number, count = np.int64(0), np.int64(0)
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        scale, first = Scale(per_octave, octave_high, octave_low, inverse), np.int64(0)
        take(words, values, number, first, a, count, slot)
        settled = settle(of_tile(values, scale), scale)
        sums = total(values, settled, number, first, a, targets, count, slot)
        finish(words, values, settled, sums, number, first, a, targets, count, slot, slot == 0 and count > 0)

    return kernel


@functools.cache
def block(shape: Shape) -> Callable:
    """The kernel for lanes of as many tiles as a block has warps."""
    how, threads = STORAGES[shape.kind.storage], shape.threads
    kind, word = how.kind, how.word
    moves = tile(shape.kind.storage, shape.vectors, threads, shape.access)
    values_held, words_held, span = moves.values, moves.words, threads * moves.values
    take, total, finish = _steps(shape)
    of_tile, put, of_list = parts(LOSS, kind, values_held, threads)
    settle, merged, numbers = lane(LOSS, kind).settle, terms(shape.kind).merged, NUMBERS * MOST_WARPS
    per_octave, octave_high, octave_low, inverse = (kind(number) for number in scale_of(1.0, kind))

    def kernel(a, targets):
        thread, number = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        warp, slot = thread >> 5, thread & 31
        first = warp * span
        count = min(a.length - first, np.int64(span))
        words, values = cuda.local.array(words_held, word), cuda.local.array(values_held, kind)
        scale = Scale(per_octave, octave_high, octave_low, inverse)
        take(words, values, number, first, a, count, slot)
        own = of_tile(values, scale)
        meeting = cuda.shared.array(numbers, kind)
        of_terms = cuda.shared.array(numbers, kind)
        if slot == 0:
            put(meeting, warp, own)
        cuda.syncthreads()
        settled = settle(of_list(meeting, a.segments, slot, scale), scale)
        sums = total(values, settled, number, first, a, targets, count, slot)
        if slot == 0:
            i = 4 * warp
            of_terms[i], of_terms[i + 1] = sums.loss, sums.loss_low
            of_terms[i + 2], of_terms[i + 3] = sums.mass, sums.mass_low
        cuda.syncthreads()
        sums = Sums(of_terms[0], of_terms[1], of_terms[2], of_terms[3])
        w = np.int64(1)
        while w < a.segments:
            i = 4 * w
            sums = merged(sums, Sums(of_terms[i], of_terms[i + 1], of_terms[i + 2], of_terms[i + 3]))
            w += 1
        finish(words, values, settled, sums, number, first, a, targets, count, slot, thread == 0)

    return kernel


def holds(how: Plan, itemsize: int, device: Device) -> bool:
    """Whether the lanes of a plan stay in registers; float64 of more than eight warps would spill."""
    return how.sweep in MAKERS and how.block <= (SHARE if itemsize == 8 or device.tight else ALONE)


MAKERS: dict[str, Callable[[Shape], Callable]] = {"several": several, "warp": several, "block": block}
