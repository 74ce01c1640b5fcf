"""The results of a tile of columns, written part by part while the next tile is computed.

Results that nobody will read soon are streamed past the caches, whole cache lines at a time. Where tiles meet within a
cache line, what the first one has of it waits for the second one: whoever writes a part of a cache line reads it from
memory first (measured, on lines of 512 bytes: half the speed).
"""

import functools
from typing import NamedTuple

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.copying import Share, quotient
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import (
    load,
    moved,
    number_at,
    pointer_like,
    put,
    store,
    store_first,
    stream,
    to_full_vectors,
    width_of,
)
from softmax_numba.cpu.scales import scale_for
from softmax_numba.cpu.settling import LOG, PEAK, SECOND, Settled
from softmax_numba.cpu.simd import merged
from softmax_numba.cpu.tiles import Tile
from softmax_numba.cpu.wide import load_wide, numbers_for, quarters

# What becomes of a part of a cache line: it is written, put down for another tile, or written with what was put down.
ALONE, LATER, TOGETHER = 0, 1, 2


class Turn(NamedTuple):
    """A tile and what was noted of its lanes."""

    tile: Tile
    noted: object
    row: int  # of the notes
    results: object


class Seams(NamedTuple):
    """Where results of two tiles share a cache line: within a line of memory, and from the end of one to the next."""

    heads: object  # of the tile that begins the lines, for the one that ends them, a vector a line
    tails: object  # for the next tile
    begins: int  # what becomes of a line's beginning
    ends: int  # and of its end


@inlined
def no_seams(p):
    return Seams(p, p, ALONE, ALONE)


@inlined
def seams_of(tile, first, last, across, inner, follow, heads, tails):
    """The seams of a tile in the share of vectors ``first`` to ``last``, of which a row of tiles has ``across``.

    ``follow`` tells whether a line of results begins where the line before ends.
    """
    width, row, begins, ends = width_of(tile.values), tile.o * across, ALONE, ALONE
    at, to = row + (tile.j + width - 1) // width, row + (tile.j + tile.lanes + width - 1) // width
    left = inner - tile.j - tile.lanes
    if tile.j > 0 and at > first and tile.lanes >= width:
        begins = TOGETHER
    if left >= width and to < last:
        ends = LATER
    if follow and first <= row and row + across <= last:
        if tile.j == 0:
            begins = LATER
        if left == 0:
            ends = TOGETHER
    return Seams(heads, tails, begins, ends)


class Due(NamedTuple):
    """The results of a tile that are to be written."""

    turn: Turn
    target: object
    step: int  # numbers from a line of results to the next
    lines: int  # 0 if nothing is due
    parts: Share  # of a line
    seams: Seams
    past_cache: bool


@inlined
def parts_of_line(lanes, width):
    """In how many parts a line of results is written."""
    return max(1, lanes // (4 * width))


@functools.cache
def tile_map(operation, width):
    """Compiles the map over a tile's lanes, ``width`` to a vector: of a whole block, or part by part."""
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
    def map_few(p, turn, k, stop, temperature, target):
        """The results of lanes ``k`` to ``stop`` of a line, vector by vector."""
        while k < stop:
            result = map_values(load(p, k), turn, k, width, temperature)
            store_first(target, k, stop - k, result)
            k += width

    @inlined
    def begin_line(result, p, turn, i, missing, temperature, target, seams):
        """The first vector of results, whose first ``missing`` places are not of this tile."""
        if seams.begins == TOGETHER:
            stream(target, -missing, merged(missing, load(seams.tails, i * width), result))
        else:
            store(seams.heads, i * width, result)
            if i == 0:
                map_few(p, turn, 0, width - missing, temperature, target)

    @inlined
    def end_line(p, turn, i, lines, k, temperature, target, seams):
        """The results of the lanes from ``k`` on, less than a vector."""
        result, count = map_values(load(p, k), turn, k, width, temperature), turn.tile.lanes - k
        if seams.ends == LATER:
            store(seams.tails, i * width, result)
        elif seams.ends == TOGETHER and i + 1 < lines:
            stream(target, k, merged(count, result, load(seams.heads, (i + 1) * width)))
        else:
            store_first(target, k, count, result)

    @inlined
    def map_part(turn, i, lines, part, parts, temperature, target, past_cache, seams):
        """One of so many parts of the results of line ``i``, which belong to ``target``.

        A part is four vectors, where full ones begin if they go past the cache. The first takes along what is before
        them, the last what is behind.
        """
        p, lanes = moved(turn.tile.values, i * turn.tile.down), turn.tile.lanes
        k = 0
        if past_cache:
            k = min(lanes, to_full_vectors(target))
            if k > 0 and seams.begins != ALONE:
                k -= width
            elif part == 0:
                map_few(p, turn, 0, k, temperature, target)
        k += part * wide
        if k + wide <= lanes:
            results = map_values(load_wide(p, k, 4), turn, k, wide, temperature)
            if k < 0:
                first, second, third, fourth = quarters(results)
                begin_line(first, p, turn, i, -k, temperature, target, seams)
                stream(target, k + width, second)
                stream(target, k + 2 * width, third)
                stream(target, k + 3 * width, fourth)
            elif past_cache:
                stream(target, k, results)
            else:
                store(target, k, results)
            k += wide
        if part == parts - 1:
            while k + width <= lanes:
                result = map_values(load(p, k), turn, k, width, temperature)
                if k < 0:
                    begin_line(result, p, turn, i, -k, temperature, target, seams)
                elif past_cache:
                    stream(target, k, result)
                else:
                    store(target, k, result)
                k += width
            if k < lanes:
                end_line(p, turn, i, lines, k, temperature, target, seams)

    @inlined
    def map_block(turn, start, count, temperature, out, past_cache):
        """The block's results from what the tile holds: exponentials, if that is what the operation maps."""
        tile, direct = turn.tile, out.strides[2] == out.itemsize
        parts = parts_of_line(tile.lanes, width)
        for i in range(count):
            target = place(out, tile.o, start + i, tile.j)
            if not direct:
                target = pointer_like(tile.line, target)
            for part in range(parts):
                streams, seams = past_cache and direct, no_seams(target)
                map_part(turn, i, count, part, parts, temperature, target, streams, seams)
            if not direct:
                for k in range(tile.lanes):
                    put(place(out, tile.o, start + i, tile.j + k), 0, number_at(tile.line, k))

    @inlined
    def write_part(due, part, temperature):
        """A part of what is due, if there is one."""
        i = quotient(part, due.parts)
        if i < due.lines:
            turn, target, parts = due.turn, moved(due.target, i * due.step), due.parts.count
            map_part(turn, i, due.lines, part - i * parts, parts, temperature, target, due.past_cache, due.seams)

    @inlined
    def finish_write(due, done, temperature):
        """What so many parts have left."""
        for part in range(done, due.lines * due.parts.count):
            write_part(due, part, temperature)

    return map_block, write_part, finish_write
