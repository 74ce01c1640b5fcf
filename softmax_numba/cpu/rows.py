"""The sweep along rows: vectors run along the lane, whose values lie side by side (or are first put so).

A lane is read from memory once while its exponentials fit the ``waiting`` buffer (``KEEP_BYTES``, a share of the last
cache); a longer one is read twice and its exponentials computed twice, which costs less than writing them down.
"""

import numpy as np
from numba import prange

from softmax_numba.cpu.access import hide, place, row_at, temperature_of
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.lane import (
    BLOCK,
    HIGH,
    LOW,
    NUMBERS,
    SUMS,
    TIES,
    TOP,
    as_total,
    collapsed,
    plus_quad,
    safe_top,
    settled,
)
from softmax_numba.cpu.memory import (
    address_of,
    aligned,
    fence,
    filled,
    hold,
    load,
    load_first,
    moved,
    pointer_to,
    prefetch,
    put,
    store,
    store_first,
    stream,
    width_of,
)
from softmax_numba.cpu.simd import compiled, inlined, larger, largest_of

KEEP_BYTES = 2**21
_SPARE = 64  # bytes, to begin a buffer on a cache line


@inlined
def largest(p, count):
    """The largest of ``p[:count]`` that is not NaN; -inf if there is none."""
    width = width_of(p)
    a = b = c = d = filled(p, -np.inf)
    i = 0
    while i + 4 * width <= count:
        a = larger(a, load(p, i))
        b = larger(b, load(p, i + width))
        c = larger(c, load(p, i + 2 * width))
        d = larger(d, load(p, i + 3 * width))
        i += 4 * width
    while i < count:
        a = larger(a, load_first(p, i, min(count - i, width)))
        i += width
    return largest_of(larger(larger(a, b), larger(c, d)))


def row_reduction(operation):
    """Compiles the reduction of one block of a row."""
    term, keeps = operation.term, operation.maps_exponentials

    @inlined
    def visit(x, i, waiting, kept, ref, scale, top, ties):
        e = exp_relative(x, ref, scale)
        if keeps and kept:
            store(waiting, i, e)
        return term(e, x, top, ties)

    @inlined
    def visit_last(p, i, count, waiting, kept, ref, scale, top, ties):
        if i >= count:
            return filled(p, 0.0), ties
        return visit(load_first(p, i, min(count - i, width_of(p))), i, waiting, kept, ref, scale, top, ties)

    @inlined
    def reduce_block(p, count, ahead, waiting, kept, scale, numbers, sums, block):
        """Notes the block's maximum and sums; its exponentials go to ``waiting`` if they are to be ``kept``."""
        width = width_of(p)
        top = largest(p, count)
        ref = reference(safe_top(top), scale)
        ties = zero = filled(p, 0.0)
        total = as_total(zero)
        i0 = 0
        while i0 + 4 * width <= count:
            i1, i2, i3 = i0 + width, i0 + 2 * width, i0 + 3 * width
            e0, ties = visit(load(p, i0), i0, waiting, kept, ref, scale, top, ties)
            e1, ties = visit(load(p, i1), i1, waiting, kept, ref, scale, top, ties)
            e2, ties = visit(load(p, i2), i2, waiting, kept, ref, scale, top, ties)
            e3, ties = visit(load(p, i3), i3, waiting, kept, ref, scale, top, ties)
            total = plus_quad(total, e0, e1, e2, e3)
            prefetch(p, i0 + ahead)
            prefetch(p, i1 + ahead)
            prefetch(p, i2 + ahead)
            prefetch(p, i3 + ahead)
            i0 += 4 * width
        if i0 < count:  # the last quad: missing values count as 0
            i1, i2, i3 = i0 + width, i0 + 2 * width, i0 + 3 * width
            e0, ties = visit_last(p, i0, count, waiting, kept, ref, scale, top, ties)
            e1, ties = visit_last(p, i1, count, waiting, kept, ref, scale, top, ties)
            e2, ties = visit_last(p, i2, count, waiting, kept, ref, scale, top, ties)
            e3, ties = visit_last(p, i3, count, waiting, kept, ref, scale, top, ties)
            total = plus_quad(total, e0, e1, e2, e3)
        numbers[TOP, block] = top
        numbers[TIES, block] = collapsed(zero, as_total(ties))[0]
        sums[HIGH, block], sums[LOW, block] = collapsed(zero, total)

    return reduce_block


@inlined
def exponentials(p, count, waiting, ref, scale):
    """Computes a block's exponentials again."""
    width = width_of(p)
    i = 0
    while i + width <= count:
        store(waiting, i, exp_relative(load(p, i), ref, scale))
        i += width
    if i < count:
        store(waiting, i, exp_relative(load_first(p, i, count - i), ref, scale))


@inlined
def rescale(waiting, count, factor):
    """Multiplies exponentials by a power of two: their block is far below the lane's maximum."""
    for i in range(0, count, width_of(waiting)):
        store(waiting, i, load(waiting, i) * factor)


def row_map(operation):
    """Compiles the map over one block of a row."""
    value = operation.map

    @inlined
    def map_block(p, count, out, found, scale, past_cache):
        """``out[:count]`` from ``p``, which holds exponentials if that is what the operation maps."""
        width = width_of(out)
        i = 0
        if past_cache:
            size = address_of(out, 1) - address_of(out, 0)
            i = min(count, (-address_of(out, 0) & (width * size - 1)) // size)
            if i > 0:
                store_first(out, 0, i, value(load_first(p, 0, i), found, scale))
            while i + width <= count:
                stream(out, i, value(load(p, i), found, scale))
                i += width
        while i + width <= count:
            store(out, i, value(load(p, i), found, scale))
            i += width
        if i < count:
            store_first(out, i, count - i, value(load_first(p, i, count - i), found, scale))

    return map_block


def row_parts(operation):
    """Compiles what a whole row and a share of a long one have in common."""
    reduce_one, map_one = row_reduction(operation), row_map(operation)
    maps_exponentials = operation.maps_exponentials

    @inlined
    def reduce_blocks(x, mask, o, j, begin, end, ahead, waiting, kept, stage, scale, numbers, sums):
        """Blocks ``begin`` to ``end`` of a lane; returns how many values take part."""
        length = x.shape[1]
        left = 0
        for b in range(begin, end):
            start = b * BLOCK
            count = min(BLOCK, length - start)
            p, part = row_at(x, mask, o, start, j, count, stage)
            left += part
            reduce_one(p, count, ahead, moved(waiting, start), kept, scale, numbers, sums, b)
        return left

    @inlined
    def map_blocks(x, mask, out, o, j, begin, end, waiting, kept, stage, scale, numbers, past_cache):
        length = x.shape[1]
        direct = out.strides[1] == out.itemsize
        for b in range(begin, end):
            start = b * BLOCK
            count = min(BLOCK, length - start)
            found = settled(numbers, b)
            target = place(out, o, start, j) if direct else pointer_to(stage.ctypes.data, stage)
            p = waiting
            if maps_exponentials and kept:
                p = moved(waiting, start)
            else:
                given, _ = row_at(x, mask, o, start, j, count, stage)
                if maps_exponentials:
                    ref = reference(safe_top(numbers[TOP, b]), scale)
                    exponentials(given, count, waiting, ref, scale)
                else:
                    p = given
            if maps_exponentials and found.first != 1.0:
                rescale(p, count, found.first)
            map_one(p, count, target, found, scale, past_cache)
            if not direct:
                for i in range(count):
                    out[o, start + i, j] = stage[i]

    return reduce_blocks, map_blocks


def rows(operation, compute):
    """Compiles the sweep over lanes ``first`` to ``last`` of a (outer, length, inner) array."""
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    reduce_blocks, map_blocks = row_parts(operation)
    keeps, size = operation.maps_exponentials, np.dtype(compute).itemsize
    keep_length = KEEP_BYTES // size

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        blocks = (length + BLOCK - 1) // BLOCK
        kept = keeps and length <= keep_length
        held = np.empty((length if kept else min(length, BLOCK)) + 2 * _SPARE, compute)
        waiting = aligned(held)
        stage = np.empty(min(length, BLOCK) + _SPARE, x.dtype)
        numbers, sums = np.empty((NUMBERS, blocks), compute), np.empty((SUMS, blocks))
        for lane in range(first, last):
            o = lane // inner
            j = lane - o * inner
            ahead = x.strides[0] // x.itemsize if blocks == 1 and inner == 1 else BLOCK
            scale = scale_of(compute(0), temperature_of(temperature, o, j))
            left = reduce_blocks(x, mask, o, j, 0, blocks, ahead, waiting, kept, stage, scale, numbers, sums)
            result = settle(numbers, sums, 0, 1, blocks, scale, left)
            if one_number:
                put(place(out, o, 0, j), 0, result)
            else:
                map_blocks(x, mask, out, o, j, 0, blocks, waiting, kept, stage, scale, numbers, past_cache)
                hide(mask, out, o, j, result, hidden)
        if past_cache:
            fence()
        hold(held)
        hold(stage)

    return compiled(sweep, f"{operation.name}_rows")


def long_lanes(operation, compute):
    """Compiles the sweep that splits each lane over threads, at the ends of blocks."""
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    reduce_blocks, map_blocks = row_parts(operation)

    def reduce_share(x, mask, temperature, o, j, begin, end, numbers, sums):
        stage = np.empty(BLOCK + _SPARE, x.dtype)
        nowhere = np.empty(2 * _SPARE, compute)
        scale = scale_of(compute(0), temperature_of(temperature, o, j))
        left = reduce_blocks(x, mask, o, j, begin, end, BLOCK, aligned(nowhere), False, stage, scale, numbers, sums)
        hold(nowhere)
        hold(stage)
        return left

    def map_share(x, mask, temperature, out, o, j, begin, end, numbers, past_cache):
        stage = np.empty(BLOCK + _SPARE, x.dtype)
        held = np.empty(BLOCK + 2 * _SPARE, compute)
        scale = scale_of(compute(0), temperature_of(temperature, o, j))
        map_blocks(x, mask, out, o, j, begin, end, aligned(held), False, stage, scale, numbers, past_cache)
        if past_cache:
            fence()
        hold(held)
        hold(stage)

    reduce_share = compiled(reduce_share, f"{operation.name}_long_reduce")
    map_share = compiled(map_share, f"{operation.name}_long_map")

    def sweep(x, mask, temperature, out, shares, past_cache):
        outer, length, inner = x.shape
        blocks = (length + BLOCK - 1) // BLOCK
        numbers, sums = np.empty((NUMBERS, blocks), compute), np.empty((SUMS, blocks))
        for o in range(outer):
            for j in range(inner):
                left = 0
                for k in prange(shares):
                    begin, end = blocks * k // shares, blocks * (k + 1) // shares
                    left += reduce_share(x, mask, temperature, o, j, begin, end, numbers, sums)
                scale = scale_of(compute(0), temperature_of(temperature, o, j))
                result = settle(numbers, sums, 0, 1, blocks, scale, left)
                if one_number:
                    put(place(out, o, 0, j), 0, result)
                else:
                    for k in prange(shares):
                        begin, end = blocks * k // shares, blocks * (k + 1) // shares
                        map_share(x, mask, temperature, out, o, j, begin, end, numbers, past_cache)
                    hide(mask, out, o, j, result, hidden)

    return compiled(sweep, f"{operation.name}_long", parallel=True)
