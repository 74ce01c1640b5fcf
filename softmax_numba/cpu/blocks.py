"""The sweeps along rows of many blocks: vectors run along the lane, whose values lie side by side or are first put so.

A lane is read from memory once while its exponentials fit the ``waiting`` buffer (``KEEP_BYTES``, a share of the last
cache); a longer one is read twice and its exponentials computed twice, which costs less than writing them down.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import hide, row_at, temperature_of
from softmax_numba.cpu.arrays import allocated, place, release, start_of
from softmax_numba.cpu.exponential import Scale, exp_relative, held, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.mates import Later, largest_values, look, mates
from softmax_numba.cpu.memory import (
    address_of,
    fence,
    filled,
    load_first,
    moved,
    number_at,
    pointer_like,
    prefetch,
    put,
    same_storage,
    store,
    store_first,
    stream,
    to_full_vectors,
    width_of,
)
from softmax_numba.cpu.settling import FIRST, HIGH, LOG, LOW, NUMBERS, PEAK, SECOND, SUMS, TIES, TOP, Settled, safe_top
from softmax_numba.cpu.simd import largest_of
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.sums import as_total, collapsed, plus, plus_quad
from softmax_numba.cpu.wide import load_first_wide, load_wide

KEEP_BYTES = 2**21
# A longer lane, or one that threads share, keeps them where its results will be, if the caches hold those.
KEEP_ALL_BYTES = 2**23
# How far behind the block that is looked at memory is asked for more, in values.
AHEAD = 2**11
_SPARE = 64  # bytes, to begin a buffer on a cache line


@inlined
def largest(p, count):
    """The largest of ``p[:count]`` that is not NaN; -inf if there is none."""
    return largest_of(largest_values(p, count, 0, filled(p, -np.inf)))


class Next(NamedTuple):
    """The block after the one that is computed."""

    values: object
    count: int  # 0 if there is none, or if its values do not lie side by side


@functools.cache
def row_reduction(operation):
    """Compiles the reduction of one block of a row, and of what memory does meanwhile."""
    term_of_quad = operation.term_of_quad
    term, keeps, (mate_of, write_quad, finish) = operation.term, operation.maps_exponentials, mates(operation)

    @inlined
    def visit(p, i, waiting, kept, ref, scale, top, ties):
        x = load_wide(p, i, 4)
        e = exp_relative(x, ref, scale)
        if keeps and kept:
            store(waiting, i, e)
        return term_of_quad(e, x, p, i, top, ties)

    @inlined
    def visit_first(p, i, count, waiting, kept, ref, scale, top, ties):
        """The same for a vector of which there are ``count - i`` values, if any."""
        x = load_first(p, i, count - i)
        e = exp_relative(x, ref, scale)
        if keeps and kept:
            store_first(waiting, i, count - i, e)
        return term(e, x, top, ties)

    @inlined
    def reduce_block(p, count, top, following, waiting, kept, scale, numbers, sums, block, mate):
        """Notes the block's maximum ``top`` and its sums; its exponentials go to ``waiting`` if they are to be
        ``kept``. Returns the maximum of the following block."""
        width = width_of(p)
        values, coming = following
        later = Later(values, min(count, coming) // (4 * width) * (4 * width), moved(values, AHEAD))
        tops = filled(p, -np.inf)
        ref, scale = reference(safe_top(top), scale), held(scale)
        ties = zero = filled(p, 0.0)
        total = as_total(zero)
        last = count // (4 * width) * (4 * width)
        for i in range(0, last, 4 * width):
            e, ties = visit(p, i, waiting, kept, ref, scale, top, ties)
            total = plus_quad(zero, total, e)
            tops = look(later, i, tops)
            write_quad(mate, i)
        if last < count:  # the last quad: missing values are -inf and count as 0
            i, i1, i2, i3 = last, last + width, last + 2 * width, last + 3 * width
            e0, ties = visit_first(p, i, count, waiting, kept, ref, scale, top, ties)
            e1, ties = visit_first(p, i1, count, waiting, kept, ref, scale, top, ties)
            e2, ties = visit_first(p, i2, count, waiting, kept, ref, scale, top, ties)
            e3, ties = visit_first(p, i3, count, waiting, kept, ref, scale, top, ties)
            total = plus(zero, total, as_total((e0 + e1) + (e2 + e3)))
        numbers[TOP, block] = top
        numbers[TIES, block] = collapsed(zero, as_total(ties))[0]
        sums[HIGH, block], sums[LOW, block] = collapsed(zero, total)
        return largest_of(largest_values(values, coming, later.whole, tops))

    return reduce_block, mate_of, finish


@inlined
def rescale(waiting, count, factor):
    """Multiplies exponentials by a power of two: their block is far below the lane's maximum."""
    for i in range(0, count, width_of(waiting)):
        store_first(waiting, i, count - i, load_first(waiting, i, count - i) * factor)


@inlined
def lies_side_by_side(x, mask):
    """Whether lanes are looked at and read in place."""
    return mask is None and x.strides[1] == x.itemsize


class Before(NamedTuple):
    """A lane that has been reduced and whose results are written while the next one is."""

    source: object
    target: object
    numbers: object  # the notebook
    scale: Scale
    blocks: int  # none where the results are written at once
    past_cache: bool


@functools.cache
def row_parts(operation):
    """Compiles what a whole row and a share of a long one have in common."""
    (reduce_one, mate_of, finish), map_one = row_reduction(operation), stretch_map(operation.map)
    maps_exponentials, value = operation.maps_exponentials, operation.map

    @inlined
    def settled(numbers, b):
        return Settled(numbers[SECOND, b], numbers[PEAK, b], numbers[LOG, b])

    @inlined
    def reduce_blocks(x, mask, o, j, begin, end, top, following, waiting, kept, stage, scale, numbers, sums, before):
        """Blocks ``begin`` to ``end`` of a lane, the first with the maximum ``top`` if its values are to be looked at
        in place; returns how many values take part, and the maximum of what is following."""
        length, quad = x.shape[1], 4 * width_of(waiting)
        left, direct = 0, lies_side_by_side(x, mask)
        for b in range(begin, end):
            start = b * BLOCK
            count = min(BLOCK, length - start)
            p, part = row_at(x, mask, o, start, j, count, stage)
            left += part
            others, found = count if b < before.blocks else 0, settled(before.numbers, b)
            source, target = moved(before.source, start), moved(before.target, start)
            mate = mate_of(source, target, others, found, before.scale, True, before.past_cache)
            if not direct:
                top = largest(p, count)
            after, coming = place(x, o, start + BLOCK, j), min(BLOCK, length - start - BLOCK) if direct else 0
            if b + 1 == end:
                after, coming = following
            kept_at = moved(waiting, start)
            top = reduce_one(p, count, top, Next(after, coming), kept_at, kept, scale, numbers, sums, b, mate)
            if mate.left > 0:
                finish(mate, count // quad * quad)
        return left, top

    @inlined
    def compute_again(p, count, target, ref, first, found, scale, past_cache):
        """A block's results from its values, whose exponentials are computed again."""
        scale, width, i = held(scale), width_of(p), 0
        if past_cache:
            i = min(count, to_full_vectors(target))
            if i > 0:
                e = exp_relative(load_first(p, 0, i), ref, scale)
                store_first(target, 0, i, value(e * first, found, scale))
        while i + 4 * width <= count:
            result = value(exp_relative(load_wide(p, i, 4), ref, scale) * first, found, scale)
            if past_cache:
                stream(target, i, result)
            else:
                store(target, i, result)
            for k in range(4):
                prefetch(p, i + BLOCK + k * width)
            i += 4 * width
        if i < count:
            e = exp_relative(load_first_wide(p, i, count - i, 4), ref, scale)
            store_first(target, i, count - i, value(e * first, found, scale))

    @inlined
    def map_blocks(x, mask, out, o, j, begin, end, waiting, kept, stage, scale, numbers, past_cache):
        length = x.shape[1]
        direct = out.strides[1] == out.itemsize
        for b in range(begin, end):
            start = b * BLOCK
            count = min(BLOCK, length - start)
            first, found = numbers[FIRST, b], settled(numbers, b)
            target = place(out, o, start, j)
            if not direct:
                target = pointer_like(stage, target)
            if maps_exponentials and kept:
                p = moved(waiting, start)
                if first != 1.0:
                    rescale(p, count, first)
                map_one(p, count, target, found, scale, past_cache)
            else:
                given, _ = row_at(x, mask, o, start, j, count, stage)
                if maps_exponentials:
                    ref = reference(safe_top(numbers[TOP, b]), scale)
                    compute_again(given, count, target, ref, first, found, scale, past_cache and direct)
                else:
                    map_one(given, count, target, found, scale, past_cache and direct)
            if not direct:
                for i in range(count):
                    put(place(out, o, start + i, j), 0, number_at(target, i))

    @inlined
    def map_lane(before, length):
        """All results of a lane that has no successor."""
        for b in range(before.blocks):
            start = b * BLOCK
            found, count = settled(before.numbers, b), min(BLOCK, length - start)
            source, target = moved(before.source, start), moved(before.target, start)
            map_one(source, count, target, found, before.scale, before.past_cache)

    @inlined
    def keeps_in_out(x, out, like):
        """Whether exponentials wait where the results will be: if they have the same type, and caches hold them all."""
        if not maps_exponentials or out.strides[1] != out.itemsize or x.size * x.itemsize > KEEP_ALL_BYTES:
            return False
        return same_storage(place(out, 0, 0, 0), like)

    return reduce_blocks, map_blocks, map_lane, keeps_in_out


@functools.cache
def blocks(operation, compute):
    """Compiles the sweep over lanes ``first`` to ``last``, of several blocks each, of x (outer, length, inner)."""
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    put_lane = operation.put
    reduce_blocks, map_blocks, map_lane, keeps_in_out = row_parts(operation)
    keeps, size = operation.maps_exponentials, np.dtype(compute).itemsize
    keep_length = KEEP_BYTES // size

    @inlined
    def results_of(x, waiting, o, j):
        """What the map takes: exponentials that were kept, or values."""
        if keeps:
            return waiting
        return place(x, o, 0, j)

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        count = (length + BLOCK - 1) // BLOCK
        kept = keeps and length <= keep_length
        # Results are written while the next lane is reduced, if the caches hold two.
        direct = lies_side_by_side(x, mask)
        woven = direct and not one_number and length <= keep_length and out.strides[1] == out.itemsize
        room = (length if kept else BLOCK) + _SPARE
        waiting = now = allocated(compute(0), 2 * room if woven else room)
        in_out = not kept and keeps_in_out(x, out, waiting)
        kept, past_cache = kept or in_out, past_cache and not in_out
        stage = allocated(x, BLOCK + _SPARE)
        numbers, other = np.empty((NUMBERS, count), compute), np.empty((NUMBERS, count), compute)
        sums = np.empty((SUMS, count))
        scale = scale_of(compute(0), temperature_of(temperature, 0, 0))
        before = Before(results_of(x, waiting, 0, 0), place(out, 0, 0, 0), other, scale, 0, past_cache)
        top = compute(0)
        if direct:
            top = largest(place(x, first // inner, 0, first % inner), min(BLOCK, length))
        for lane in range(first, last):
            o = lane // inner
            j = lane - o * inner
            coming = min(BLOCK, length) if direct and lane + 1 < last else 0
            following = Next(place(x, (lane + 1) // inner, 0, (lane + 1) % inner), coming)
            scale = scale_of(compute(0), temperature_of(temperature, o, j))
            if in_out:
                now = pointer_like(place(out, o, 0, j), waiting)
            left, top = reduce_blocks(
                x, mask, o, j, 0, count, top, following, now, kept, stage, scale, numbers, sums, before
            )
            result = settle(numbers, sums, 0, 1, count, scale, left)
            if one_number:
                put_lane(out, o, j, result, numbers[SECOND, 0], numbers[PEAK, 0], numbers[LOG, 0])
            elif woven:
                if keeps:
                    for b in range(count):
                        if numbers[FIRST, b] != 1.0:
                            start = b * BLOCK
                            rescale(moved(now, start), min(BLOCK, length - start), numbers[FIRST, b])
                before = Before(results_of(x, now, o, j), place(out, o, 0, j), numbers, scale, count, past_cache)
                numbers, other = other, numbers
                now = moved(waiting, room) if address_of(now, 0) == address_of(waiting, 0) else waiting
            else:
                map_blocks(x, mask, out, o, j, 0, count, now, kept, stage, scale, numbers, past_cache)
                if mask is not None and not np.isfinite(result):
                    hide(mask, out, o, j, hidden)
        if woven:
            map_lane(before, length)
        if past_cache:
            fence()
        release(waiting)
        release(stage)

    return compiled(sweep, f"{operation.name}_blocks", body=True)


# The steps of a lane that threads share, in their order.
REDUCE, SETTLE, MAP, HIDE = range(4)


@functools.cache
def long_lanes(operation, compute):
    """Compiles the steps of a lane (o, j) that threads share at the ends of blocks.

    They work on blocks ``begin`` to ``end``: REDUCE notes their sums in ``numbers`` and ``sums`` and returns how many
    values take part, MAP writes their results. SETTLE, in one thread between the two, gets the ``left`` of the whole
    lane, puts its result into ``results`` and returns whether there is something to map; HIDE, in one thread, ends.
    """
    settle, one_number, hidden = operation.settle, operation.one_number, operation.hidden
    put_lane = operation.put
    reduce_blocks, map_blocks, _, keeps_in_out = row_parts(operation)

    def part(x, mask, temperature, out, o, j, begin, end, numbers, sums, results, left, step, past_cache):
        scale = scale_of(compute(0), temperature_of(temperature, o, j))
        numbers_at = start_of(numbers)
        if step == SETTLE:
            results[0] = settle(numbers, sums, 0, 1, numbers.shape[1], scale, left)
            if one_number:
                put_lane(out, o, j, results[0], numbers[SECOND, 0], numbers[PEAK, 0], numbers[LOG, 0])
            return 0 if one_number else 1
        if step == HIDE:
            if mask is not None and not np.isfinite(results[0]):
                hide(mask, out, o, j, hidden)
            return 0
        stage, target = allocated(x, BLOCK + _SPARE), place(out, o, 0, j)
        waiting, kept = pointer_like(target, numbers_at), keeps_in_out(x, out, numbers_at)
        if step == REDUCE:
            before = Before(waiting, target, numbers, scale, 0, past_cache)
            first = place(x, o, begin * BLOCK, j)
            direct = lies_side_by_side(x, mask)
            top = compute(0)
            if direct:
                top = largest(first, min(BLOCK, x.shape[1] - begin * BLOCK))
            left, _ = reduce_blocks(
                x, mask, o, j, begin, end, top, Next(first, 0), waiting, kept, stage, scale, numbers, sums, before
            )
        else:
            past_cache = past_cache and not kept
            map_blocks(x, mask, out, o, j, begin, end, waiting, kept, stage, scale, numbers, past_cache)
            if past_cache:
                fence()
        release(stage)
        return left

    return compiled(part, f"{operation.name}_long", body=True)
