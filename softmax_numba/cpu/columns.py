"""The sweep along columns: the lanes lie side by side, and a vector holds one value of each of its lanes.

A tile of neighbouring lanes is copied into the cache as it is read (tiles.py), so that memory is walked in whole cache
lines and only once; what the copy costs, the second and third look at each value save. The sums follow the order of
lane.py slot by slot, so that a column has the bits it would have as a row.
"""

import numpy as np

from softmax_numba.cpu.access import hide, temperature_of
from softmax_numba.cpu.across import across, leave_out
from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.jit import compiled, inlined
from softmax_numba.cpu.lane import (
    BLOCK,
    FIRST,
    LOG,
    NUMBERS,
    PEAK,
    SECOND,
    SUMS,
    TOP,
    Settled,
    safe_top,
)
from softmax_numba.cpu.memory import (
    address_of,
    fence,
    load,
    moved,
    number_at,
    put,
    store,
    store_first,
    stream,
)
from softmax_numba.cpu.scales import Scales, note_scale, scale_for
from softmax_numba.cpu.tiles import MOST_VECTORS, Tile, read_block, vectors_in_tile
from softmax_numba.cpu.waiting import nothing_waiting
from softmax_numba.cpu.wide import (
    load_apart,
    numbers_for,
)


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
    settle, maps_exponentials = operation.settle, operation.maps_exponentials
    one_number, hidden = operation.one_number, operation.hidden
    width = 64 // np.dtype(compute).itemsize
    (note_block, settle_block), map_block = across(operation, width), column_map(operation, width)
    most = (MOST_VECTORS + 1) * width
    steps = 1 if one_number else 2

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
        waiting = nothing_waiting(line)
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
                        note_block(tile, count, temperature, of_block, moved(summed, b * room), row, line, 0, waiting)
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
