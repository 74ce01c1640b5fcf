"""The sweeps along rows of many blocks: vectors run along the lane, whose values lie side by side or are first put so.

A lane is read from memory once while its exponentials fit the ``waiting`` buffer (``KEEP_BYTES``, a share of the last
cache); a longer one is read twice and its exponentials computed twice, which costs less than writing them down.
"""

import numpy as np

from softmax_numba.cpu.access import hide, row_at, temperature_of
from softmax_numba.cpu.arrays import allocated, place, release
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.jit import compiled, inlined
from softmax_numba.cpu.lane import (
    BLOCK,
    FIRST,
    HIGH,
    LOG,
    LOW,
    NUMBERS,
    PEAK,
    SECOND,
    SUMS,
    TIES,
    TOP,
    Settled,
    safe_top,
)
from softmax_numba.cpu.memory import (
    fence,
    filled,
    load,
    load_first,
    moved,
    number_at,
    prefetch,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.simd import larger, largest_of
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.sums import as_total, collapsed, plus, plus_quad
from softmax_numba.cpu.wide import filled_wide, largest_of_quarters, load_wide, sum_of_quarters

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
    return largest_of(larger(top, largest_of_quarters(tops)))


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
        last = count // (4 * width) * (4 * width)
        for i in range(0, last, 4 * width):
            e, four_ties = visit(load_wide(p, i, 4), i, waiting, kept, ref, scale, top, four_ties)
            total = plus_quad(zero, total, e)
            for k in range(4):
                prefetch(p, i + BLOCK + k * width)
        if last < count:  # the last quad: missing values are -inf and count as 0
            i, i1, i2, i3 = last, last + width, last + 2 * width, last + 3 * width
            e0, ties = visit(load_first(p, i, count - i), i, waiting, kept, ref, scale, top, ties)
            e1, ties = visit(load_first(p, i1, count - i1), i1, waiting, kept, ref, scale, top, ties)
            e2, ties = visit(load_first(p, i2, count - i2), i2, waiting, kept, ref, scale, top, ties)
            e3, ties = visit(load_first(p, i3, count - i3), i3, waiting, kept, ref, scale, top, ties)
            total = plus(zero, total, as_total((e0 + e1) + (e2 + e3)))
        numbers[TOP, block] = top
        numbers[TIES, block] = collapsed(zero, as_total(sum_of_quarters(four_ties) + ties))[0]
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
            first, found = numbers[FIRST, b], Settled(numbers[SECOND, b], numbers[PEAK, b], numbers[LOG, b])
            target = place(out, o, start, j) if direct else stage
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
            if maps_exponentials and first != 1.0:
                rescale(p, count, first)
            map_one(p, count, target, found, scale, past_cache)
            if not direct:
                for i in range(count):
                    put(place(out, o, start + i, j), 0, number_at(stage, i))

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
        waiting = allocated(compute(0), (length if kept else BLOCK) + _SPARE)
        stage = allocated(x, BLOCK + _SPARE)
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
                if mask is not None and not np.isfinite(result):
                    hide(mask, out, o, j, hidden)
        if past_cache:
            fence()
        release(waiting)
        release(stage)

    return compiled(sweep, f"{operation.name}_blocks", body=True)


# The steps of a lane that threads share, in their order.
REDUCE, SETTLE, MAP, HIDE = range(4)


def long_lanes(operation, compute):
    """Compiles the steps of a lane (o, j) that threads share at the ends of blocks.

    They work on blocks ``begin`` to ``end``: REDUCE notes their sums in ``numbers`` and ``sums`` and returns how many
    values take part, MAP writes their results. SETTLE, in one thread between the two, gets the ``left`` of the whole
    lane, puts its result into ``results`` and returns whether there is something to map; HIDE, in one thread, ends.
    """
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    reduce_blocks, map_blocks = row_parts(operation)

    def part(x, mask, temperature, out, o, j, begin, end, numbers, sums, results, left, step, past_cache):
        scale = scale_of(compute(0), temperature_of(temperature, o, j))
        if step == SETTLE:
            results[0] = settle(numbers, sums, 0, 1, numbers.shape[1], scale, left)
            if one_number:
                put(place(out, o, 0, j), 0, results[0])
            return 0 if one_number else 1
        if step == HIDE:
            if mask is not None and not np.isfinite(results[0]):
                hide(mask, out, o, j, hidden)
            return 0
        waiting, stage = allocated(compute(0), BLOCK + _SPARE), allocated(x, BLOCK + _SPARE)
        if step == REDUCE:
            left = reduce_blocks(x, mask, o, j, begin, end, waiting, False, stage, scale, numbers, sums)
        else:
            map_blocks(x, mask, out, o, j, begin, end, waiting, False, stage, scale, numbers, past_cache)
            if past_cache:
                fence()
        release(waiting)
        release(stage)
        return left

    return compiled(part, f"{operation.name}_long", body=True)
