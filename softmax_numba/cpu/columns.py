"""The sweep along columns: the lanes lie side by side, and a vector holds one value of each of its lanes.

A tile of neighbouring lanes is copied into a cache-resident buffer as it is read, so that memory is walked in whole
cache lines and only once; what the copy costs, the second and third look at each value save. The sums follow the order
of lane.py slot by slot, so that a column has the bits it would have as a row.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.access import hide, takes_part, temperature_of
from softmax_numba.cpu.exponential import Reference, Scale, exp_relative, reference, scale_of
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
    as_total,
    plus,
    safe_top,
)
from softmax_numba.cpu.memory import (
    address_of,
    aligned,
    fence,
    filled,
    filled_wide,
    hold,
    load,
    load_apart,
    load_first,
    load_pair,
    load_wide,
    mask_first,
    moved,
    number_at,
    number_like,
    place,
    pointer_to,
    prefetch,
    put,
    store,
    store_apart,
    store_first,
    store_pair,
    stream,
    width_of,
)
from softmax_numba.cpu.simd import INLINED, compiled, fourfold, inlined, larger, quarters, select

# A tile of short lanes is wide, so that memory is walked in long steps; one of long lanes still fits the second cache.
TILE_BYTES, MOST_VECTORS = 2**20, 64
# Threads share out tiles: there should be so many, unless they would become narrower than this.
MANY_TILES, FEW_VECTORS = 64, 4
# How far ahead of the line it reads a tile asks for memory, which is walked in steps that no prefetcher follows.
AHEAD_BYTES = 2**14
_SPARE = 64


@inlined
def vectors_in_tile(outer, length, inner, width):
    """How many vectors of neighbouring lanes a tile has: the same for any number of threads, but enough for many."""
    vectors = (inner + width - 1) // width
    fitting = TILE_BYTES // (64 * min(length, BLOCK) + 1)
    shared = max(FEW_VECTORS, outer * vectors // MANY_TILES)
    return max(1, min(MOST_VECTORS, fitting, vectors, shared))


def tiles_of(outer: int, length: int, inner: int, itemsize: int) -> int:
    """Into how many tiles ``inner`` lanes of ``length`` values are cut; for the caller of a sweep."""
    width = 8 if itemsize == 8 else 16
    per_tile = width * vectors_in_tile.py_func(outer, length, inner, width)
    return -(-inner // per_tile)


class Tile(NamedTuple):
    """Where a tile is, and the buffers that it passes through, all pointers."""

    o: int
    j: int
    lanes: int
    values: object  # a block of every vector of lanes, one after the other
    pitch: int  # numbers from one vector's block to the next one's
    scales: object  # the forms of the lanes' temperatures, a row a form
    line: object  # one value of each lane, where they do not lie side by side
    terms: object  # room for the exponentials of a chunk, where the tile keeps the values
    slots: object  # room for a running sum a slot


def read_line(x, mask, tile, i, row):
    """Copies one value of each lane into row ``row`` of the tile, masked-out ones as -inf."""
    raise NotImplementedError("only inside compiled code")


@overload(read_line, jit_options=INLINED)
def _read_line(x, mask, tile, i, row):
    def read_direct(x, mask, tile, i, row):
        if x.strides[2] == x.itemsize:
            spread_line(place(x, tile.o, i, tile.j), tile, row)
        else:
            for k in range(tile.lanes):
                put(tile.line, k, number_at(place(x, tile.o, i, tile.j + k), 0))
            spread_line(tile.line, tile, row)

    def read_masked(x, mask, tile, i, row):
        width, lanes = width_of(tile.values), tile.lanes
        if x.strides[2] == x.itemsize and mask.strides[2] == 1:
            p, m = place(x, tile.o, i, tile.j), place(mask, tile.o, i, tile.j)
            nothing = filled(tile.values, -np.inf)
            at = moved(tile.values, row * width)
            for k in range(0, lanes, width):
                left = lanes - k
                store(at, 0, select(mask_first(m, k, left, nothing), load_first(p, k, left), nothing))
                at = moved(at, tile.pitch)
        else:
            for k in range(lanes):
                here = mask[tile.o, i, tile.j + k]
                put(tile.line, k, number_at(place(x, tile.o, i, tile.j + k), 0) if here else -np.inf)
            spread_line(tile.line, tile, row)

    return read_direct if mask == types.none else read_masked


@inlined
def spread_line(p, tile, row):
    """Copies one value of each lane, which lie side by side at ``p``, to the lanes' vectors."""
    width = width_of(tile.values)
    at = moved(tile.values, row * width)
    k = 0
    while k + 4 * width <= tile.lanes:
        store_apart(at, 0, tile.pitch, load_wide(p, k, 4))
        at = moved(at, 4 * tile.pitch)
        k += 4 * width
    while k < tile.lanes:
        store(at, 0, load_first(p, k, tile.lanes - k))
        at = moved(at, tile.pitch)
        k += width


@inlined
def read_block(x, mask, tile, start, count):
    """Copies a block of every lane into the tile, up to a whole number of quads."""
    width = width_of(tile.values)
    size = tile.lanes * x.itemsize
    ahead = AHEAD_BYTES // size + 1
    for i in range(count):
        read_line(x, mask, tile, start + i, i)
        later = place(x, tile.o, start + i + ahead, tile.j)
        k = 0
        while k < size:
            prefetch(later, k // x.itemsize)
            k += 64
    for i in range(count, (count + 3) & ~3):
        for k in range(0, tile.lanes, width):
            store(tile.values, k // width * tile.pitch + i * width, filled(tile.values, -np.inf))


@inlined
def largest(p, count):
    """The largest value of each lane of one vector."""
    width = width_of(p)
    tops = filled_wide(p, -np.inf, 4)
    i = 0
    while i < count:
        tops = larger(tops, load_wide(p, i * width, 4))
        i += 4
    a, b, c, d = quarters(tops)
    return larger(larger(a, b), larger(c, d))


def column_reduction(operation):
    """Compiles the reduction of one vector of lanes, ``count`` values each."""
    term, keeps = operation.term, operation.maps_exponentials

    @inlined
    def exponentials(p, terms, count, ref, scale, top):
        """The terms of ``count`` values, and zeros up to a whole number of values a slot; returns the ties."""
        width = width_of(p)
        ties = filled_wide(p, 0.0, 4)
        i = 0
        while i < count:
            x = load_wide(p, i * width, 4)
            e, ties = term(exp_relative(x, ref, scale), x, top, ties)
            store(terms, i * width, e)
            i += 4
        while i % width:
            store(terms, i * width, filled(p, 0.0))
            i += 1
        t0, t1, t2, t3 = quarters(ties)
        return (t0 + t1) + (t2 + t3)

    @inlined
    def add_up(terms, count, slots, first):
        """Adds the terms of a chunk, at most four a slot, to the slots' running sums."""
        width = width_of(terms)
        row, rows = width * width, (count + width - 1) // width
        zero = filled(terms, 0.0)
        for s in range(min(count, width)):
            k = s * width
            quad = load(terms, k)
            if rows > 1:
                quad = quad + load(terms, k + row)
            if rows == 3:
                quad = quad + load(terms, k + 2 * row)
            elif rows == 4:
                quad = quad + (load(terms, k + 2 * row) + load(terms, k + 3 * row))
            total = as_total(quad)
            if not first:
                total = plus(zero, load_pair(slots, s, total), total)
            store_pair(slots, s, total)

    @inlined
    def reduce_vector(p, count, top, scale, tile):
        """The lanes' ties and their running sums."""
        width, slots = width_of(p), tile.slots
        narrow = reference(safe_top(top), scale)
        ref = Reference(fourfold(narrow.shift), 0.0, fourfold(narrow.magic), fourfold(narrow.floor))
        wide = Scale(
            fourfold(scale.per_octave),
            fourfold(scale.octave_high),
            fourfold(scale.octave_low),
            fourfold(scale.inverse),
            1.0,
        )
        ties = zero = filled(p, 0.0)
        chunk = 4 * width
        for start in range(0, count, chunk):
            at, some = moved(p, start * width), min(chunk, count - start)
            terms = at if keeps else tile.terms
            ties = ties + exponentials(at, terms, some, ref, wide, fourfold(top))
            add_up(terms, some, slots, start == 0)
        used = min(count, width)
        total = as_total(zero)
        step = width // 2
        while step > 0:
            for s in range(min(step, used - step)):
                a, b = load_pair(slots, s, total), load_pair(slots, s + step, total)
                store_pair(slots, s, plus(zero, a, b))
            used = min(used, step)
            step //= 2
        return ties, load_pair(slots, 0, total)

    return reduce_vector


def scale_at(tile, k, temperature):
    """The :class:`Scale` of the vector of lanes at ``k``: numbers without a temperature, vectors with one."""
    raise NotImplementedError("only inside compiled code")


@overload(scale_at, jit_options=INLINED)
def _scale_at(tile, k, temperature):
    if temperature == types.none:
        return lambda tile, k, temperature: scale_of(number_like(tile.values), None)

    def tempered(tile, k, temperature):
        row = (MOST_VECTORS + 1) * width_of(tile.values)
        at = moved(tile.scales, k)
        return Scale(load(at, 0), load(at, row), load(at, 2 * row), load(at, 3 * row), 1.0)

    return tempered


def wide_scale_at(tile, k, temperature):
    """The same for four vectors of lanes at once."""
    raise NotImplementedError("only inside compiled code")


@overload(wide_scale_at, jit_options=INLINED)
def _wide_scale_at(tile, k, temperature):
    if temperature == types.none:
        return lambda tile, k, temperature: scale_of(number_like(tile.values), None)

    def tempered(tile, k, temperature):
        row = (MOST_VECTORS + 1) * width_of(tile.values)
        at = moved(tile.scales, k)
        return Scale(
            load_wide(at, 0, 4), load_wide(at, row, 4), load_wide(at, 2 * row, 4), load_wide(at, 3 * row, 4), 1.0
        )

    return tempered


def note_scales(scales, tile, temperature):
    """Fills the tile's ``scales`` (an array) from the lanes' temperatures."""
    raise NotImplementedError("only inside compiled code")


@overload(note_scales, jit_options=INLINED)
def _note_scales(scales, tile, temperature):
    if temperature == types.none:
        return lambda scales, tile, temperature: None

    def note(scales, tile, temperature):
        for k in range(scales.shape[1]):
            # Lanes that fill up the last vector take the last one's.
            s = scale_of(scales[0, 0], temperature[tile.o, tile.j + min(k, tile.lanes - 1)])
            scales[0, k], scales[1, k], scales[2, k], scales[3, k] = (
                s.per_octave,
                s.octave_high,
                s.octave_low,
                s.inverse,
            )

    return note


def note_total(like, total, sums, place):
    """The lanes' sums from ``place`` on: float32's are a pair of halves, float64's a sum and its error."""
    raise NotImplementedError("only inside compiled code")


@overload(note_total, jit_options=INLINED)
def _note_total(like, total, sums, place):
    wide = like.element == types.float32

    def note(like, total, sums, place):
        base = pointer_to(sums.ctypes.data, sums)
        row = sums.shape[1]
        store(base, HIGH * row + place, total[0])
        if wide:
            store(base, HIGH * row + place + 8, total[1])
            store(base, LOW * row + place, total[0] - total[0])
            store(base, LOW * row + place + 8, total[0] - total[0])
        else:
            store(base, LOW * row + place, total[1])

    return note


def leave_out(mask, tile, numbers, step, results):
    """Settles lanes of which the mask leaves nothing."""
    raise NotImplementedError("only inside compiled code")


@overload(leave_out, jit_options=INLINED)
def _leave_out(mask, tile, numbers, step, results):
    if mask == types.none:
        return lambda mask, tile, numbers, step, results: None

    def leave_out_masked(mask, tile, numbers, step, results):
        for k in range(tile.lanes):
            if takes_part(mask, tile.o, tile.j + k) == 0:
                results[k] = -np.inf
                for b in range(k, numbers.shape[1], step):
                    numbers[FIRST, b] = numbers[SECOND, b] = numbers[PEAK, b] = numbers[LOG, b] = 0.0

    return leave_out_masked


def columns(operation, compute):
    """Compiles the sweep over tiles ``first`` to ``last`` of a (outer, length, inner) array."""
    settle, settle_vector = operation.settle, operation.settle_vector
    one_number, hidden = operation.one_number, operation.hidden
    value, maps_exponentials = operation.map, operation.maps_exponentials
    reduce_vector = column_reduction(operation)
    width = 64 // np.dtype(compute).itemsize
    most = (MOST_VECTORS + 1) * width

    @inlined
    def note_block(tile, count, temperature, numbers, sums, first):
        """Notes maximum and sums of the block's lanes from place ``first`` on."""
        noted, row = pointer_to(numbers.ctypes.data, numbers), numbers.shape[1]
        p = tile.values
        for k in range(0, tile.lanes, width):
            top, scale = largest(p, count), scale_at(tile, k, temperature)
            ties, total = reduce_vector(p, count, top, scale, tile)
            store(noted, TOP * row + first + k, top)
            store(noted, TIES * row + first + k, ties)
            note_total(top, total, sums, first + k)
            p = moved(p, tile.pitch)

    @inlined
    def settle_block(tile, count, temperature, numbers, results):
        """Settles lanes of a single block, a vector of them at once."""
        noted, row = pointer_to(numbers.ctypes.data, numbers), numbers.shape[1]
        settled_results = pointer_to(results.ctypes.data, results)
        p = tile.values
        for k in range(0, tile.lanes, width):
            top, scale = largest(p, count), scale_at(tile, k, temperature)
            ties, total = reduce_vector(p, count, top, scale, tile)
            second, peak, log_sum, result = settle_vector(top, ties, total, scale)
            store(noted, SECOND * row + k, second)
            store(noted, PEAK * row + k, peak)
            store(noted, LOG * row + k, log_sum)
            store(settled_results, k, result[0])
            store(settled_results, k + width - 8, result[1])
            p = moved(p, tile.pitch)

    @inlined
    def map_block(tile, start, count, temperature, numbers, first, out, past_cache):
        """The block's results from what the tile holds: exponentials, if that is what the operation maps."""
        row, at = numbers.shape[1], moved(pointer_to(numbers.ctypes.data, numbers), first)
        direct = out.strides[2] == out.itemsize
        for i in range(count):
            target = place(out, tile.o, start + i, tile.j)
            p = moved(tile.values, i * width)
            streams = past_cache and direct and address_of(target, 0) & 63 == 0
            k = 0
            while k < tile.lanes:
                left = tile.lanes - k
                if direct and left >= 4 * width:
                    found = Settled(
                        1.0,
                        load_wide(at, SECOND * row + k, 4),
                        load_wide(at, PEAK * row + k, 4),
                        load_wide(at, LOG * row + k, 4),
                    )
                    results = value(load_apart(p, 0, tile.pitch, 4), found, wide_scale_at(tile, k, temperature))
                    if streams:
                        stream(target, k, results)
                    else:
                        store(target, k, results)
                    p = moved(p, 4 * tile.pitch)
                    k += 4 * width
                else:
                    one = Settled(1.0, load(at, SECOND * row + k), load(at, PEAK * row + k), load(at, LOG * row + k))
                    result = value(load(p, 0), one, scale_at(tile, k, temperature))
                    if direct:
                        store_first(target, k, left, result)
                    else:
                        store(tile.line, k, result)
                    p = moved(p, tile.pitch)
                    k += width
            if not direct:
                for k in range(tile.lanes):
                    put(place(out, tile.o, start + i, tile.j + k), 0, number_at(tile.line, k))

    @inlined
    def restore_exponentials(tile, count, temperature, numbers, first):
        """Computes a block's exponentials again, relative to the lanes' largest block."""
        row, at, p = numbers.shape[1], moved(pointer_to(numbers.ctypes.data, numbers), first), tile.values
        for k in range(0, tile.lanes, width):
            scale = scale_at(tile, k, temperature)
            ref = reference(safe_top(load(at, TOP * row + k)), scale)
            factor = load(at, FIRST * row + k)
            for i in range(0, count * width, width):
                store(p, i, exp_relative(load(p, i), ref, scale) * factor)
            p = moved(p, tile.pitch)

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        blocks = (length + BLOCK - 1) // BLOCK
        vectors = vectors_in_tile(x.shape[0], length, inner, width)
        per_tile, room = vectors * width, (vectors + 1) * width
        tiles = (inner + per_tile - 1) // per_tile
        # Where every line of the result begins at the same place of a cache line, tiles begin at its start: streaming
        # stores must be aligned.
        shift = 0
        if past_cache and (out.strides[0] | out.strides[1]) & 63 == 0 and tiles > 1:
            shift = (address_of(place(out, 0, 0, 0), 0) & 63) // out.itemsize % width
        # An odd number of lines from one vector's block to the next: a power of two would meet in the same cache set.
        pitch = ((min(length, BLOCK) + width - 1) // width * width + 1) * width
        held = np.empty((vectors + 1) * pitch + 4 * width * width + most + 3 * _SPARE, compute)
        slots = np.empty(2 * 8 * width + _SPARE)
        scales = np.empty((4, most), compute)
        numbers, sums = np.empty((NUMBERS, blocks * room), compute), np.empty((SUMS, blocks * room))
        results = np.empty(most)
        values = aligned(held)
        terms = moved(values, (vectors + 1) * pitch)
        line, scales_at = moved(terms, 4 * width * width), pointer_to(scales.ctypes.data, scales)
        for t in range(first, last):
            number = t % tiles
            j = max(0, number * per_tile - shift)
            lanes = (inner if number == tiles - 1 else (number + 1) * per_tile - shift) - j
            tile = Tile(t // tiles, j, lanes, values, pitch, scales_at, line, terms, aligned(slots))
            note_scales(scales, tile, temperature)
            if blocks == 1:
                read_block(x, mask, tile, 0, length)
                settle_block(tile, length, temperature, numbers, results)
            else:
                for b in range(blocks):
                    count = min(BLOCK, length - b * BLOCK)
                    read_block(x, mask, tile, b * BLOCK, count)
                    note_block(tile, count, temperature, numbers, sums, b * room)
                for k in range(lanes):
                    scale = scale_of(compute(0), temperature_of(temperature, tile.o, j + k))
                    results[k] = settle(numbers, sums, k, room, blocks, scale, 1)
            leave_out(mask, tile, numbers, room, results)
            if one_number:
                for k in range(lanes):
                    put(place(out, tile.o, 0, j + k), 0, results[k])
            else:
                for b in range(blocks):
                    count = min(BLOCK, length - b * BLOCK)
                    if blocks > 1:
                        read_block(x, mask, tile, b * BLOCK, count)
                        if maps_exponentials:
                            restore_exponentials(tile, count, temperature, numbers, b * room)
                    map_block(tile, b * BLOCK, count, temperature, numbers, b * room, out, past_cache)
                for k in range(lanes):
                    hide(mask, out, tile.o, j + k, results[k], hidden)
        if past_cache:
            fence()
        hold(held)
        hold(slots)
        hold(scales)
        hold(numbers)

    return compiled(sweep, f"{operation.name}_columns")
