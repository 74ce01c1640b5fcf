"""The sweep along columns: the lanes lie side by side, and a vector holds one value of each of its lanes.

A tile of neighbouring lanes is copied into the cache as it is read (tiles.py), so that memory is walked in whole cache
lines and only once; what the copy costs, the second and third look at each value save. The sums follow the order of
lane.py slot by slot, so that a column has the bits it would have as a row.
"""

import numpy as np

from softmax_numba.cpu.access import hide, temperature_of
from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.exponential import Reference, Scale, exp_relative, reference, scale_of
from softmax_numba.cpu.jit import compiled, inlined
from softmax_numba.cpu.lane import (
    BLOCK,
    FIRST,
    HIGH,
    LOG,
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
    address_of,
    fence,
    filled,
    load,
    moved,
    number_at,
    put,
    store,
    store_first,
    stream,
    width_of,
)
from softmax_numba.cpu.scales import Scales, note_scale, scale_for
from softmax_numba.cpu.simd import larger
from softmax_numba.cpu.sums import as_total, load_sums, load_total, plus, store_sums, store_total
from softmax_numba.cpu.tiles import MOST_VECTORS, Tile, left_by, read_block, vectors_in_tile
from softmax_numba.cpu.wide import (
    filled_wide,
    fourfold,
    largest_of_quarters,
    load_apart,
    load_wide,
    numbers_for,
    sum_of_quarters,
)


@inlined
def _largest(p, count):
    """The largest value of each lane of one vector."""
    width = width_of(p)
    tops = filled_wide(p, -np.inf, 4)
    for i in range(0, count, 4):
        tops = larger(tops, load_wide(p, i * width, 4))
    return largest_of_quarters(tops)


@inlined
def _add_up(terms, count, slots, first):
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
            total = plus(zero, load_total(slots, s), total)
        store_total(slots, s, total)


def column_reduction(operation):
    """Compiles the reduction of one vector of lanes, ``count`` values each."""
    term, keeps = operation.term, operation.maps_exponentials

    @inlined
    def exponentials(p, terms, count, ref, scale, top):
        """The terms of ``count`` values, and zeros up to a whole number of values a slot; returns the ties."""
        width = width_of(p)
        ties = filled_wide(p, 0.0, 4)
        for i in range(0, count, 4):
            x = load_wide(p, i * width, 4)
            e, ties = term(exp_relative(x, ref, scale), x, top, ties)
            store(terms, i * width, e)
        for i in range((count + 3) & ~3, (count + width - 1) // width * width, 4):
            store(terms, i * width, filled_wide(p, 0.0, 4))
        return sum_of_quarters(ties)

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
            _add_up(terms, some, slots, start == 0)
        used, step = min(count, width), width // 2
        while step > 0:
            for s in range(min(step, used - step)):
                store_total(slots, s, plus(zero, load_total(slots, s), load_total(slots, s + step)))
            used, step = min(used, step), step // 2
        return ties, load_total(slots, 0)

    return reduce_vector


def column_map(operation, width):
    """Compiles the map over a block of a tile's lanes, ``width`` to a vector."""
    value, wide = operation.map, 4 * width

    @inlined
    def map_values(p, noted, row, k, lanes, tile, temperature):
        """The results of so many lanes (a literal) from lane ``k`` on, whose values are ``p``."""
        found = Settled(
            numbers_for(noted, SECOND * row + k, lanes),
            numbers_for(noted, PEAK * row + k, lanes),
            numbers_for(noted, LOG * row + k, lanes),
        )
        return value(p, found, scale_for(tile.scales, k, lanes, temperature))

    @inlined
    def map_line(p, tile, temperature, noted, row, target, past_cache):
        """One result of each lane, side by side, from the values that stand at ``p`` and a pitch apart."""
        streams = past_cache and address_of(target, 0) & 63 == 0
        k = 0
        while k + wide <= tile.lanes:
            results = map_values(load_apart(p, 0, tile.pitch, 4), noted, row, k, wide, tile, temperature)
            if streams:
                stream(target, k, results)
            else:
                store(target, k, results)
            p = moved(p, 4 * tile.pitch)
            k += wide
        while k < tile.lanes:
            result = map_values(load(p, 0), noted, row, k, width, tile, temperature)
            store_first(target, k, tile.lanes - k, result)
            p = moved(p, tile.pitch)
            k += width

    @inlined
    def map_block(tile, start, count, temperature, noted, row, out, past_cache):
        """The block's results from what the tile holds: exponentials, if that is what the operation maps."""
        direct = out.strides[2] == out.itemsize
        for i in range(count):
            target = place(out, tile.o, start + i, tile.j) if direct else tile.line
            p = moved(tile.values, i * width)
            map_line(p, tile, temperature, noted, row, target, past_cache and direct)
            if not direct:
                for k in range(tile.lanes):
                    put(place(out, tile.o, start + i, tile.j + k), 0, number_at(tile.line, k))

    return map_block


def columns(operation, compute):
    """Compiles the sweep over tiles ``first`` to ``last`` of a (outer, length, inner) array."""
    settle, settle_vector = operation.settle, operation.settle_vector
    one_number, hidden, maps_exponentials = operation.one_number, operation.hidden, operation.maps_exponentials
    width = 64 // np.dtype(compute).itemsize
    reduce_vector, map_block = column_reduction(operation), column_map(operation, width)
    most = (MOST_VECTORS + 1) * width
    steps = 1 if one_number else 2

    @inlined
    def note_block(tile, count, temperature, noted, summed, row):
        """Notes maximum and sums of the block's lanes, in rows of so many numbers."""
        p = tile.values
        for k in range(0, tile.lanes, width):
            top, scale = _largest(p, count), scale_for(tile.scales, k, width, temperature)
            ties, total = reduce_vector(p, count, top, scale, tile)
            store(noted, TOP * row + k, top)
            store(noted, TIES * row + k, ties)
            store_sums(summed, HIGH * row + k, row, top, total)
            p = moved(p, tile.pitch)

    @inlined
    def settle_block(tile, temperature, noted, summed, row, results):
        """Settles lanes of a single block, a vector of them at once."""
        for k in range(0, tile.lanes, width):
            top, scale = load(noted, TOP * row + k), scale_for(tile.scales, k, width, temperature)
            total = load_sums(summed, HIGH * row + k, row, top)
            factor, peak, log_sum, result = settle_vector(top, load(noted, TIES * row + k), total, scale)
            store(noted, SECOND * row + k, factor)
            store(noted, PEAK * row + k, peak)
            store(noted, LOG * row + k, log_sum)
            store(results, k, result[0])
            store(results, k + width - 8, result[1])

    @inlined
    def leave_out(mask, tile, numbers, step, results):
        """Settles lanes of which the mask leaves nothing."""
        for k in range(tile.lanes):
            if left_by(mask, tile.o, tile.j + k) == 0:
                put(results, k, -np.inf)
                for b in range(k, numbers.shape[1], step):
                    numbers[FIRST, b] = numbers[SECOND, b] = numbers[PEAK, b] = numbers[LOG, b] = 0.0

    @inlined
    def restore_exponentials(tile, count, temperature, noted, row):
        """Computes a block's exponentials again, relative to the lanes' largest block."""
        p = tile.values
        for k in range(0, tile.lanes, width):
            scale = scale_for(tile.scales, k, width, temperature)
            ref = reference(safe_top(load(noted, TOP * row + k)), scale)
            factor = load(noted, FIRST * row + k)
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
        values = allocated(compute(0), (vectors + 1) * pitch + 4 * width * width + 4 * most)
        line, slots, results = allocated(out, most), allocated(0.0, 16 * width), allocated(0.0, most)
        numbers, sums = np.empty((NUMBERS, blocks * room), compute), np.empty((SUMS, blocks * room))
        noted, summed, row = start_of(numbers), start_of(sums), blocks * room
        terms = moved(values, (vectors + 1) * pitch)
        at = moved(terms, 4 * width * width)
        scales = Scales(at, moved(at, most), moved(at, 2 * most), moved(at, 3 * most))
        for t in range(first, last):
            o, number = t // tiles, t % tiles
            j = max(0, number * per_tile - shift)
            lanes = (inner if number == tiles - 1 else (number + 1) * per_tile - shift) - j
            tile = Tile(o, j, lanes, values, pitch, scales, line, terms, slots)
            if temperature is not None:
                for k in range(most):  # lanes that fill up the last vectors take the last one's
                    note_scale(scales, k, temperature_of(temperature, o, j + min(k, lanes - 1)))
            for step in range(steps):
                for b in range(blocks):
                    start, of_block = b * BLOCK, moved(noted, b * room)
                    count = min(BLOCK, length - start)
                    if step == 0 or blocks > 1:
                        read_block(x, mask, tile, start, count)
                    if step == 0:
                        note_block(tile, count, temperature, of_block, moved(summed, b * room), row)
                    else:
                        if maps_exponentials and blocks > 1:
                            restore_exponentials(tile, count, temperature, of_block, row)
                        map_block(tile, start, count, temperature, of_block, row, out, past_cache)
                if step == 0:
                    if blocks == 1:
                        settle_block(tile, temperature, noted, summed, row, results)
                    else:
                        for k in range(lanes):
                            scale = scale_of(compute(0), temperature_of(temperature, o, j + k))
                            put(results, k, settle(numbers, sums, k, room, blocks, scale, 1))
                    if mask is not None:
                        leave_out(mask, tile, numbers, room, results)
            for k in range(lanes):
                if one_number:
                    put(place(out, o, 0, j + k), 0, number_at(results, k))
                elif mask is not None and not np.isfinite(number_at(results, k)):
                    hide(mask, out, o, j + k, hidden)
        if past_cache:
            fence()
        release(values)
        release(line)
        release(slots)
        release(results)
        hold(numbers)
        hold(sums)

    return compiled(sweep, f"{operation.name}_columns", body=True)
