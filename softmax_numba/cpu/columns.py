"""The sweep along columns: the lanes lie side by side, and a vector holds one value of each of its lanes.

A tile of neighbouring lanes is copied into the cache as it is read (tiles.py), so that memory is walked in whole cache
lines and only once; what the copy costs, the second and third look at each value save. While a tile is computed the
results of the one before are written and the values of the one after are asked for. The sums follow the order of
lane.py slot by slot, so that a column has the bits it would have as a row.
"""

from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import hide, temperature_of
from softmax_numba.cpu.across import across, settling
from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
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
    LINE_BYTES,
    address_of,
    fence,
    load,
    moved,
    number_at,
    pointer_like,
    prefetch,
    put,
    store,
    store_first,
    stored_size,
    stream,
)
from softmax_numba.cpu.scales import Scales, note_scale, scale_for
from softmax_numba.cpu.tiles import MOST_VECTORS, Tile, lines_ahead, read_block, vectors_in_tile
from softmax_numba.cpu.wide import load_apart, numbers_for


class Turn(NamedTuple):
    """A tile and what was noted of its lanes."""

    tile: Tile
    noted: object
    row: int  # of the notes
    results: object


class Share(NamedTuple):
    """A divisor of small numbers."""

    count: int
    inverse: int


@inlined
def _shared(count):
    return Share(count, ((1 << 40) + count - 1) // max(count, 1))


@inlined
def _quotient(number, share):
    """``number // share.count`` without a division: exact for numbers below 2**34 and divisors up to 64."""
    return (number * share.inverse) >> 40


class Meanwhile(NamedTuple):
    """What memory does while a tile is computed."""

    before: Turn
    target: object  # where the results of the tile before go
    line: int  # and how many numbers from one of its lines to the next
    lines: int
    whole: Share  # pieces of four vectors in a line
    later: object  # the values of the tile after
    later_line: int
    parts: Share  # in a line
    past_cache: bool


def column_map(operation, width):
    """Compiles the map over a block of a tile's lanes, ``width`` to a vector, and the work of memory meanwhile."""
    value, wide = operation.map, 4 * width

    @inlined
    def map_values(p, turn, k, lanes, temperature):
        """The results of so many lanes (a literal) from lane ``k`` on, whose values are ``p``."""
        noted, row = turn.noted, turn.row
        found = Settled(
            numbers_for(noted, SECOND * row + k, lanes),
            numbers_for(noted, PEAK * row + k, lanes),
            numbers_for(noted, LOG * row + k, lanes),
        )
        return value(p, found, scale_for(turn.tile.scales, k, lanes, temperature))

    @inlined
    def map_piece(p, turn, k, temperature, target, past_cache):
        """Four vectors of results, side by side, from the values that stand at ``p`` and a pitch apart."""
        results = map_values(load_apart(p, 0, turn.tile.pitch, 4), turn, k, wide, temperature)
        if past_cache and address_of(target, 0) & (LINE_BYTES - 1) == 0:
            stream(target, 0, results)
        else:
            store(target, 0, results)

    @inlined
    def map_line(p, turn, k, temperature, target, past_cache):
        """One result of each lane from lane ``k`` on."""
        tile = turn.tile
        p = moved(p, k // width * tile.pitch)
        while k + wide <= tile.lanes:
            map_piece(p, turn, k, temperature, moved(target, k), past_cache)
            p = moved(p, 4 * tile.pitch)
            k += wide
        while k < tile.lanes:
            result = map_values(load(p, 0), turn, k, width, temperature)
            store_first(target, k, tile.lanes - k, result)
            p = moved(p, tile.pitch)
            k += width

    @inlined
    def map_block(turn, start, count, temperature, out, past_cache):
        """The block's results from what the tile holds: exponentials, if that is what the operation maps."""
        tile, direct = turn.tile, out.strides[2] == out.itemsize
        for i in range(count):
            target = place(out, tile.o, start + i, tile.j)
            if not direct:
                target = pointer_like(tile.line, target)
            map_line(moved(tile.values, i * width), turn, 0, temperature, target, past_cache and direct)
            if not direct:
                for k in range(tile.lanes):
                    put(place(out, tile.o, start + i, tile.j + k), 0, number_at(tile.line, k))

    @inlined
    def read_and_write(meanwhile, part, temperature):
        """A piece of the results before, and as much of the values after."""
        if meanwhile.lines > 0 and meanwhile.whole.count > 0:
            i = _quotient(part, meanwhile.whole)
            if i < meanwhile.lines:
                k, turn = (part - i * meanwhile.whole.count) * wide, meanwhile.before
                p = moved(turn.tile.values, i * width + k // width * turn.tile.pitch)
                target = moved(meanwhile.target, i * meanwhile.line + k)
                map_piece(p, turn, k, temperature, target, meanwhile.past_cache)
        i = _quotient(part, meanwhile.parts)
        later = moved(meanwhile.later, i * meanwhile.later_line + (part - i * meanwhile.parts.count) * wide)
        for k in range(0, wide, LINE_BYTES // stored_size(later)):
            prefetch(later, k)

    @inlined
    def finish(meanwhile, parts, temperature, out):
        """The results of the tile before that so many parts have left."""
        turn, past_cache = meanwhile.before, meanwhile.past_cache
        i, piece = 0, 0
        whole = meanwhile.whole.count
        if whole > 0:
            i = min(parts // whole, meanwhile.lines)
            piece = parts - i * whole if i < meanwhile.lines else 0
            if whole * wide < turn.tile.lanes:
                for k in range(i):
                    target, p = moved(meanwhile.target, k * meanwhile.line), moved(turn.tile.values, k * width)
                    map_line(p, turn, whole * wide, temperature, target, past_cache)
        for k in range(i, meanwhile.lines):
            target, p = moved(meanwhile.target, k * meanwhile.line), moved(turn.tile.values, k * width)
            map_line(p, turn, piece * wide, temperature, target, past_cache)
            piece = 0

    return map_block, read_and_write, finish


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


def columns(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes of a (outer, length, inner) array."""
    settle, maps_exponentials = operation.settle, operation.maps_exponentials
    one_number, hidden, put_lane = operation.one_number, operation.hidden, operation.put
    width = 64 // np.dtype(compute).itemsize
    map_block, read_and_write, finish = column_map(operation, width)
    note_block, settle_block = across(operation, width, read_and_write), settling(operation, width)
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

    @inlined
    def hide_lanes(turn, mask, out):
        if mask is not None:
            for k in range(turn.tile.lanes):
                if not np.isfinite(number_at(turn.results, k)):
                    hide(mask, out, turn.tile.o, turn.tile.j + k, hidden)

    @inlined
    def scales_at(at):
        return Scales(at, moved(at, most), moved(at, 2 * most), moved(at, 3 * most))

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        blocks = (length + BLOCK - 1) // BLOCK
        across = (inner + width - 1) // width
        vectors = vectors_in_tile(length, min(across, last - first), width)
        room = (vectors + 1) * width
        # Where every line of the result begins at the same place of a cache line, tiles begin at its start: streaming
        # stores must be aligned.
        shift = 0
        if past_cache and (out.strides[0] | out.strides[1]) & (LINE_BYTES - 1) == 0 and vectors < across:
            shift = (address_of(place(out, 0, 0, 0), 0) & (LINE_BYTES - 1)) // out.itemsize % width
        # An odd number of lines from one vector's block to the next: a power of two would meet in the same cache set.
        pitch = ((min(length, BLOCK) + width - 1) // width * width + 1) * width
        # The results of a tile of a single block are written while the next one is computed.
        direct = out.strides[2] == out.itemsize
        woven = blocks == 1 and direct and not one_number
        buffers = 2 if woven else 1
        size = (vectors + 1) * pitch + 4 * most
        values = allocated(compute(0), buffers * size + 4 * width * width)
        line, slots, results = allocated(x, most), allocated(0.0, 16 * width), allocated(0.0, 2 * most)
        row = blocks * room
        numbers, sums = np.empty((2 * NUMBERS, row), compute), np.empty((SUMS, row))
        noted, summed = start_of(numbers), start_of(sums)
        terms = moved(values, buffers * size)
        scales = scales_at(moved(values, (vectors + 1) * pitch))
        now = Turn(Tile(0, 0, 0, values, pitch, scales, line, terms, slots), noted, row, results)
        before = now
        if woven:
            other = moved(values, size)
            scales = scales_at(moved(other, (vectors + 1) * pitch))
            tile = Tile(0, 0, 0, other, pitch, scales, line, terms, slots)
            before = Turn(tile, moved(noted, NUMBERS * row), row, moved(results, most))
        begin = first
        while begin < last:
            o, number = begin // across, begin % across
            end = number + min(vectors, across - number, last - begin)
            j = max(0, number * width - shift)
            lanes = (inner if end == across else end * width - shift) - j
            tile = Tile(o, j, lanes, now.tile.values, pitch, now.tile.scales, line, terms, slots)
            now = Turn(tile, now.noted, row, now.results)
            if temperature is not None:
                for k in range(most):  # lanes that fill up the last vectors take the last one's
                    note_scale(tile.scales, k, temperature_of(temperature, o, j + min(k, lanes - 1)))
            o, j = (o, j + lanes) if end < across else (o + 1, 0)
            meanwhile = Meanwhile(
                before,
                place(out, before.tile.o, 0, before.tile.j),
                out.strides[1] // out.itemsize,
                length if begin > first and woven else 0,
                _shared(before.tile.lanes // (4 * width)),
                place(x, o, 0, j),
                x.strides[1] // x.itemsize,
                _shared((lanes + 4 * width - 1) // (4 * width)),
                past_cache,
            )
            ahead = lines_ahead(lanes, x.itemsize)
            for step in range(steps):
                for b in range(blocks):
                    start, of_block = b * BLOCK, moved(now.noted, b * room)
                    count = min(BLOCK, length - start)
                    if step == 0 or blocks > 1:
                        read_block(x, mask, tile, start, count, ahead)
                    if step == 0:
                        note_block(tile, count, temperature, of_block, moved(summed, b * room), row, meanwhile)
                    elif not woven:
                        if maps_exponentials and blocks > 1:
                            restore_exponentials(tile, count, temperature, of_block, row)
                        turn = Turn(tile, of_block, row, results)
                        map_block(turn, start, count, temperature, out, past_cache)
                if step == 0:
                    if blocks == 1:
                        settle_block(lanes, tile.scales, temperature, now.noted, summed, row, now.results)
                    else:
                        for k in range(tile.lanes):
                            scale = scale_of(compute(0), temperature_of(temperature, tile.o, tile.j + k))
                            put(results, k, settle(numbers, sums, k, room, blocks, scale, 1))
                    if mask is not None:
                        _leave_out(mask, tile, now.noted, row, room, now.results)
            if one_number:
                for k in range(lanes):
                    factor, peak = number_at(noted, SECOND * row + k), number_at(noted, PEAK * row + k)
                    log_sum = number_at(noted, LOG * row + k)
                    put_lane(out, tile.o, tile.j + k, number_at(results, k), factor, peak, log_sum)
            elif woven:
                parts = (lanes + width - 1) // width * ((length + 3) // 4)
                finish(meanwhile, parts, temperature, out)
                if begin > first:
                    hide_lanes(before, mask, out)
                now, before = before, now
            else:
                hide_lanes(now, mask, out)
            begin += end - number
        if woven:
            map_block(before, 0, length, temperature, out, past_cache)
            hide_lanes(before, mask, out)
        if past_cache:
            fence()
        release(values)
        release(line)
        release(slots)
        release(results)
        hold(numbers)
        hold(sums)

    return compiled(sweep, f"{operation.name}_columns", body=True)
