"""The sweeps along rows of many blocks: vectors run along the lane, whose values lie side by side or are first put so.

A lane is read from memory once while its exponentials fit the ``waiting`` buffer (``KEEP_BYTES``, a share of the last
cache); a longer one is read twice and its exponentials computed twice, which costs less than writing them down.
"""

import numpy as np
from numba import prange

from softmax_numba.cpu.access import hide, row_at, temperature_of
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
    aligned,
    fence,
    filled,
    filled_wide,
    hold,
    load,
    load_first,
    load_wide,
    moved,
    place,
    pointer_to,
    prefetch,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.simd import compiled, inlined, larger, largest_of, quarters
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.threads import set_share_size, share_size

KEEP_BYTES = 2**21
_SPARE = 64  # bytes, to begin a buffer on a cache line


@inlined
def largest(p, count):
    """The largest of ``p[:count]`` that is not NaN; -inf if there is none."""
    width = width_of(p)
    tops, top = filled_wide(p, -np.inf, 4), filled(p, -np.inf)
    i = 0
    while i + 4 * width <= count:
        tops = larger(tops, load_wide(p, i, 4))
        i += 4 * width
    while i < count:
        top = larger(top, load_first(p, i, count - i))
        i += width
    a, b, c, d = quarters(tops)
    return largest_of(larger(top, larger(larger(a, b), larger(c, d))))


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
    def reduce_block(p, count, waiting, kept, scale, numbers, sums, block):
        """Notes the block's maximum and sums; its exponentials go to ``waiting`` if they are to be ``kept``."""
        width = width_of(p)
        top = largest(p, count)
        ref = reference(safe_top(top), scale)
        ties = zero = filled(p, 0.0)
        four_ties = filled_wide(p, 0.0, 4)
        total = as_total(zero)
        i = 0
        while i + 4 * width <= count:
            e, four_ties = visit(load_wide(p, i, 4), i, waiting, kept, ref, scale, top, four_ties)
            e0, e1, e2, e3 = quarters(e)
            total = plus_quad(total, e0, e1, e2, e3)
            for k in range(4):
                prefetch(p, i + BLOCK + k * width)
            i += 4 * width
        if i < count:  # the last quad: missing values are -inf and count as 0
            i1, i2, i3 = i + width, i + 2 * width, i + 3 * width
            e0, ties = visit(load_first(p, i, count - i), i, waiting, kept, ref, scale, top, ties)
            e1, ties = visit(load_first(p, i1, count - i1), i1, waiting, kept, ref, scale, top, ties)
            e2, ties = visit(load_first(p, i2, count - i2), i2, waiting, kept, ref, scale, top, ties)
            e3, ties = visit(load_first(p, i3, count - i3), i3, waiting, kept, ref, scale, top, ties)
            total = plus_quad(total, e0, e1, e2, e3)
        t0, t1, t2, t3 = quarters(four_ties)
        numbers[TOP, block] = top
        numbers[TIES, block] = collapsed(zero, as_total(((t0 + t1) + (t2 + t3)) + ties))[0]
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


def row_parts(operation):
    """Compiles what a whole row and a share of a long one have in common."""
    reduce_one, map_one = row_reduction(operation), stretch_map(operation)
    maps_exponentials = operation.maps_exponentials

    @inlined
    def reduce_blocks(x, mask, o, j, begin, end, waiting, kept, stage, scale, numbers, sums):
        """Blocks ``begin`` to ``end`` of a lane; returns how many values take part."""
        length = x.shape[1]
        left = 0
        for b in range(begin, end):
            start = b * BLOCK
            count = min(BLOCK, length - start)
            p, part = row_at(x, mask, o, start, j, count, stage)
            left += part
            reduce_one(p, count, moved(waiting, start), kept, scale, numbers, sums, b)
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


def blocks(operation, compute):
    """Compiles the sweep over lanes ``first`` to ``last``, of several blocks each, of x (outer, length, inner)."""
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    reduce_blocks, map_blocks = row_parts(operation)
    keeps, size = operation.maps_exponentials, np.dtype(compute).itemsize
    keep_length = KEEP_BYTES // size

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        count = (length + BLOCK - 1) // BLOCK
        kept = keeps and length <= keep_length
        held = np.empty((length if kept else BLOCK) + 2 * _SPARE, compute)
        waiting = aligned(held)
        stage = np.empty(BLOCK + _SPARE, x.dtype)
        numbers, sums = np.empty((NUMBERS, count), compute), np.empty((SUMS, count))
        for lane in range(first, last):
            o = lane // inner
            j = lane - o * inner
            scale = scale_of(compute(0), temperature_of(temperature, o, j))
            left = reduce_blocks(x, mask, o, j, 0, count, waiting, kept, stage, scale, numbers, sums)
            result = settle(numbers, sums, 0, 1, count, scale, left)
            if one_number:
                put(place(out, o, 0, j), 0, result)
            else:
                map_blocks(x, mask, out, o, j, 0, count, waiting, kept, stage, scale, numbers, past_cache)
                hide(mask, out, o, j, result, hidden)
        if past_cache:
            fence()
        hold(held)
        hold(stage)

    return compiled(sweep, f"{operation.name}_blocks")


def long_lanes(operation, compute):
    """Compiles the sweep that splits each lane over threads, at the ends of blocks."""
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    reduce_blocks, map_blocks = row_parts(operation)

    def reduce_share(x, mask, temperature, o, j, begin, end, numbers, sums):
        stage = np.empty(BLOCK + _SPARE, x.dtype)
        nowhere = np.empty(2 * _SPARE, compute)
        scale = scale_of(compute(0), temperature_of(temperature, o, j))
        left = reduce_blocks(x, mask, o, j, begin, end, aligned(nowhere), False, stage, scale, numbers, sums)
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

    reduce_share = compiled(reduce_share, f"{operation.name}_long_reduce", called=True)
    map_share = compiled(map_share, f"{operation.name}_long_map", called=True)

    def sweep(x, mask, temperature, out, shares, past_cache):
        outer, length, inner = x.shape
        blocks = (length + BLOCK - 1) // BLOCK
        numbers, sums = np.empty((NUMBERS, blocks), compute), np.empty((SUMS, blocks))
        before = share_size()
        set_share_size(1)
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
        set_share_size(before)

    return compiled(sweep, f"{operation.name}_long", parallel=True)
