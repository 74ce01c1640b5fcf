"""The sweep along columns: the lanes lie side by side, and a vector holds one value of each of its lanes.

A tile of neighbouring lanes is copied into the cache as it is read (tiles.py), so that memory is walked in whole cache
lines and only once; what the copy costs, the second and third look at each value save. Three tiles are under way at
once: while one is computed, the results of the one before are written (writing.py), and the one after is copied and
looked at for its maxima (copying.py). The sums follow the order of lane.py slot by slot, so that a column has the bits
it would have as a row.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import hide, temperature_of
from softmax_numba.cpu.across import across, note_tops, settling
from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.copying import Coming, coming_tile, copy_quad, finish_copy, shared
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    address_of,
    fence,
    filled,
    load,
    moved,
    number_at,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.scales import note_scale, scale_for, scales_at
from softmax_numba.cpu.settling import FIRST, LOG, NUMBERS, PEAK, SECOND, SUMS, TOP, safe_top
from softmax_numba.cpu.tiles import (
    MOST_VECTORS,
    Tile,
    lies_in_lines,
    line_at,
    line_step_of,
    read_block,
    vectors_in_tile,
)
from softmax_numba.cpu.writing import Due, Turn, no_seams, parts_of_line, seams_of, tile_map

# A row of tiles of at least so many vectors is cut where cache lines of the results begin, if that is the same in every
# line: shorter ones lose more by the vector that their last tile has more.
FEWEST_SHIFTED = 64
# For how many vectors of lanes there is room in a tile: shifted ones have one more.
_ROOM_VECTORS = MOST_VECTORS + 1


class Meanwhile(NamedTuple):
    """What memory does while a tile is computed."""

    due: Due
    coming: Coming


@inlined
def _left_by(mask, o, j):
    """How many values of a lane a mask leaves."""
    left = 0
    for i in range(mask.shape[1]):
        left += mask[o, i, j]
    return left


@inlined
def _leave_out(mask, tile, noted, row, step, results):
    """Settles lanes of which the mask leaves nothing."""
    for k in range(tile.lanes):
        if _left_by(mask, tile.o, tile.j + k) == 0:
            put(results, k, -np.inf)
            for b in range(k, row, step):
                put(noted, FIRST * row + b, 0.0)
                put(noted, SECOND * row + b, 0.0)
                put(noted, PEAK * row + b, 0.0)
                put(noted, LOG * row + b, 0.0)


@inlined
def _located(turn, o, j, lanes):
    """The buffers of a turn for another tile."""
    _, _, _, values, across, down, scales, line, terms, slots = turn.tile
    return Turn(Tile(o, j, lanes, values, across, down, scales, line, terms, slots), turn.noted, turn.row, turn.results)


@inlined
def _turn_with(number, values, size, down, line, terms, slots, noted, row, results):
    """One of three turns, without a tile yet, with its share of the buffers."""
    width = width_of(values)
    values, most = moved(values, number * size), _ROOM_VECTORS * width
    tile = Tile(0, 0, 0, values, width, down, scales_at(moved(values, size - 4 * most), most), line, terms, slots)
    return Turn(tile, moved(noted, number * NUMBERS * row), row, moved(results, number * most))


@inlined
def _fill_gaps(values, size, down, noted, row, room):
    """Puts ones beside lanes: what stands there is computed along, and a core is slow where numbers are tiny."""
    one, width = filled(values, 1.0), width_of(values)
    store(values, -width, one)
    for buffer in range(0, 3 * size, size):
        for i in range(down - width, size - 4 * _ROOM_VECTORS * width, down):
            store(values, buffer + i, one)
    for k in range(room - width, 3 * NUMBERS * row, room):
        store(noted, k, one)


@functools.cache
def columns(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes of a (outer, length, inner) array."""
    settle, maps_exponentials = operation.settle, operation.maps_exponentials
    one_number, hidden, put_lane = operation.one_number, operation.hidden, operation.put
    width = 64 // np.dtype(compute).itemsize
    map_block, write_part, finish_write = tile_map(operation, width)

    @inlined
    def read_and_write(meanwhile, part, temperature):
        write_part(meanwhile.due, part, temperature)
        copy_quad(meanwhile.coming, part)

    note_block, settle_block = across(operation, width, read_and_write), settling(operation, width)
    most = _ROOM_VECTORS * width

    @inlined
    def restore_exponentials(tile, count, temperature, noted, row):
        """Computes a block's exponentials again, relative to the lanes' largest block."""
        for k in range(0, tile.lanes, width):
            scale = scale_for(tile.scales, k, width, temperature)
            ref = reference(safe_top(load(noted, TOP * row + k)), scale)
            factor = load(noted, FIRST * row + k)
            for i in range(k, k + count * tile.down, tile.down):
                store(tile.values, i, exp_relative(load(tile.values, i), ref, scale) * factor)

    @inlined
    def hide_lanes(turn, mask, out):
        if mask is not None:
            for k in range(turn.tile.lanes):
                if not np.isfinite(number_at(turn.results, k)):
                    hide(mask, out, turn.tile.o, turn.tile.j + k, hidden)

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        blocks = (length + BLOCK - 1) // BLOCK
        across = (inner + width - 1) // width
        vectors = vectors_in_tile(length, min(across, last - first), width)
        room = (vectors + 1) * width
        # Where cache lines begin at the same lanes in every line of results, so do tiles, if there are many of them.
        shift = 0
        if past_cache and (out.strides[0] | out.strides[1]) & (LINE_BYTES - 1) == 0 and across >= FEWEST_SHIFTED:
            shift = (address_of(place(out, 0, 0, 0), 0) & (LINE_BYTES - 1)) // out.itemsize % width
        # An odd number of vectors from line to line: those of a power of two would meet in the same cache set.
        down = ((vectors if shift == 0 else vectors + 1) | 1) * width
        direct = out.strides[2] == out.itemsize
        copied, written = blocks == 1 and lies_in_lines(x, mask), blocks == 1 and direct and not one_number
        size, row = (min(length, BLOCK) + width - 1) // width * width * down + 4 * most, blocks * room
        room_before = allocated(compute(0), width + 3 * size + 4 * width * width)
        values = moved(room_before, width)
        line, slots, results = allocated(x, most), allocated(0.0, 16 * width), allocated(0.0, 3 * most)
        nothing = allocated(x, width)
        for i in range(width):
            put(nothing, i, -np.inf)
        numbers, sums = np.empty((3 * NUMBERS, row), compute), np.empty((SUMS, row))
        noted, summed = start_of(numbers), start_of(sums)
        terms = moved(values, 3 * size)
        _fill_gaps(values, size, down, noted, row, room)
        # Lanes of several blocks stay in the first turn, whose notes are where `numbers` begins.
        spare = _turn_with(0, values, size, down, line, terms, slots, noted, row, results)
        now = _turn_with(1, values, size, down, line, terms, slots, noted, row, results)
        before = _turn_with(2, values, size, down, line, terms, slots, noted, row, results)
        step, to_step = x.strides[1] // x.itemsize, out.strides[1] // out.itemsize
        # Whether the results of a line begin where the line before ends, and are not all of one tile.
        of_last = inner - ((across - 1) // vectors * vectors * width - shift)
        follow = to_step == inner and width <= of_last < inner
        joined = written and past_cache and mask is None
        heads = allocated(out, 2 * length * width if joined else 0)
        tails = moved(heads, length * width)
        begin = first
        while begin < last or now.tile.lanes > 0 or before.tile.lanes > 0:
            o, number = begin // across, begin % across
            end = number + min(vectors, across - number, last - begin)
            j = max(0, number * width - shift)
            lanes = max(0, (inner if end == across else end * width - shift) - j)
            coming = _located(spare, o, j, lanes)
            begin += end - number
            if temperature is not None:
                for k in range(most if lanes > 0 else 0):  # lanes that fill up the last vectors take the last one's
                    note_scale(coming.tile.scales, k, temperature_of(temperature, o, j + min(k, lanes - 1)))
            turn = coming if blocks > 1 else now
            o, k = (o, j + lanes) if end < across else (o + 1, 0)
            target = place(out, before.tile.o, 0, before.tile.j)
            seams = no_seams(target)
            if joined:
                seams = seams_of(before.tile, first, last, across, inner, follow, heads, tails)
            meanwhile = Meanwhile(
                Due(
                    before,
                    target,
                    to_step,
                    length if before.tile.lanes > 0 else 0,
                    shared(parts_of_line(before.tile.lanes, width)),
                    seams,
                    past_cache,
                ),
                coming_tile(
                    coming.tile,
                    moved(coming.noted, TOP * row),
                    place(x, coming.tile.o, 0, j),
                    step,
                    line_at(mask, coming.tile.o, j),
                    line_step_of(mask),
                    length if copied else 0,
                    place(x, o, 0, k),
                    nothing,
                ),
            )
            parts = 0
            if turn.tile.lanes > 0:
                tile = turn.tile
                parts = (tile.lanes + width - 1) // width * ((length + 3) // 4)
                for b in range(blocks):
                    count, of_block = min(BLOCK, length - b * BLOCK), moved(turn.noted, b * room)
                    if not copied:
                        read_block(x, mask, tile, b * BLOCK, count)
                        note_tops(tile, count, of_block, row)
                    note_block(tile, count, temperature, of_block, moved(summed, b * room), row, meanwhile)
                if blocks == 1:
                    settle_block(tile.lanes, turn.noted, summed, row, turn.results)
                else:
                    for k in range(tile.lanes):
                        scale = scale_of(compute(0), temperature_of(temperature, tile.o, tile.j + k))
                        put(turn.results, k, settle(numbers, sums, k, room, blocks, scale, 1))
                if mask is not None:
                    _leave_out(mask, tile, turn.noted, row, room, turn.results)
                if one_number:
                    for k in range(tile.lanes):
                        factor, peak = number_at(turn.noted, SECOND * row + k), number_at(turn.noted, PEAK * row + k)
                        log_sum = number_at(turn.noted, LOG * row + k)
                        put_lane(out, tile.o, tile.j + k, number_at(turn.results, k), factor, peak, log_sum)
                elif not written:
                    for b in range(blocks):
                        count, of_block = min(BLOCK, length - b * BLOCK), moved(turn.noted, b * room)
                        if blocks > 1:
                            read_block(x, mask, tile, b * BLOCK, count)
                            if maps_exponentials:
                                restore_exponentials(tile, count, temperature, of_block, row)
                        block = Turn(tile, of_block, row, turn.results)
                        map_block(block, b * BLOCK, count, temperature, out, past_cache)
                    hide_lanes(turn, mask, out)
            finish_copy(meanwhile.coming, parts)
            if before.tile.lanes > 0:
                finish_write(meanwhile.due, parts, temperature)
                hide_lanes(before, mask, out)
            if blocks == 1:
                spare = before
                before, now = now if written else _located(now, 0, 0, 0), coming
        if past_cache:
            fence()
        release(room_before)
        release(line)
        release(slots)
        release(results)
        release(nothing)
        release(heads)
        hold(numbers)
        hold(sums)

    return compiled(sweep, f"{operation.name}_columns", body=True)
