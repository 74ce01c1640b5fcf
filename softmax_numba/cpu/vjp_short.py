"""The ways back along short rows that stand end to end: their sums first (vjp_sums.py), then the cotangents of all of
them, by whole vectors.

It is done in tiles. What is less than a wide vector at a tile's end is written with the next tile: a cache line that
is written in part, among others that are streamed past the cache, has the processor wait for memory.
"""

import functools
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, place, release
from softmax_numba.cpu.exponential import scale_of
from softmax_numba.cpu.few import computed
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import (
    fence,
    filled,
    load_first,
    moved,
    prefetch,
    store,
    store_first,
    stream,
    to_full_vectors,
    width_of,
)
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.vjp_sums import one_by_one, tile_sums
from softmax_numba.cpu.wide import load_wide

TILE_VALUES = 1024  # of y, of dy and of what is spread: together they stay in the first cache


def inverses_at(inverses, i, vectors, temperature):
    """The factors of so many ``vectors`` (a literal) of places from ``i`` on; None where there is no temperature."""
    raise NotImplementedError("only inside compiled code")


@overload(inverses_at, jit_options=INLINED, prefer_literal=True)
def _inverses_at(inverses, i, vectors, temperature):
    if temperature == types.none:
        return lambda inverses, i, vectors, temperature: None
    count = vectors.literal_value
    return lambda inverses, i, vectors, temperature: load_wide(inverses, i, count)


class Tile(NamedTuple):
    """Pointers to the places of some rows: their values, and what has been spread over them."""

    y: object
    dy: object
    totals: object
    inverses: object
    count: int  # of places
    next_y: object  # what will be read after them, as it is stored
    next_dy: object


@functools.cache
def _writing(cotangent, width):
    """Compiles the way out for cotangents from place ``i`` of a tile on, which may be before its first."""
    wide = 4 * width

    @inlined
    def write_some(tile, i, end, temperature, one, to):
        """Up to any place."""
        while i < end:
            count = min(end - i, width)
            y, dy = load_first(tile.y, i, count), load_first(tile.dy, i, count)
            inverse = inverses_at(tile.inverses, i, 1, temperature)
            store_first(to, i, count, cotangent(y, dy, load_wide(tile.totals, i, 1), inverse, one))
            i += width

    @inlined
    def write(tile, i, temperature, one, to, past_cache):
        """As many wide vectors as there are; returns the place after the last one. Meanwhile memory is asked for the
        next tile."""
        while i + wide <= tile.count:
            y, dy, total = load_wide(tile.y, i, 4), load_wide(tile.dy, i, 4), load_wide(tile.totals, i, 4)
            result = cotangent(y, dy, total, inverses_at(tile.inverses, i, 4, temperature), one)
            for k in range(i, i + wide, width):
                prefetch(tile.next_y, k)
                prefetch(tile.next_dy, k)
            if past_cache:
                stream(to, i, result)
            else:
                store(to, i, result)
            i += wide
        return i

    return write_some, write


@inlined
def _keep(p, count):
    """Moves the last of so many numbers to before the first, a wide vector of them."""
    wide = 4 * width_of(p)
    store(p, -wide, load_wide(p, count - wide, 4))


@functools.cache
def vjp_short(backward, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of lanes: y, dy and out (lanes, length, 1) in C order."""
    width = 64 // np.dtype(compute).itemsize
    wide = 4 * width
    likely, looks = backward.finite or backward.steps, backward.finite is not None
    add_likely, add_up = tile_sums(likely, width), one_by_one(backward.steps, width)
    write_likely, write = _writing(likely.cotangent, width)
    write_any, _ = _writing(backward.steps.cotangent, width)

    def sweep(y, dy, temperature, out, first, last, past_cache):
        lanes, length = y.shape[0], y.shape[1]
        one = one_like(compute(0))
        per_tile = max(1, TILE_VALUES // length)
        if per_tile > 4:  # short rows are added up four at once
            per_tile = per_tile // 4 * 4
        room = wide + (per_tile + 4) * length + wide
        totals = moved(allocated(compute(0), 4 * room), wide)
        inverses, given, other = moved(totals, room), moved(totals, 2 * room), moved(totals, 3 * room)
        end, left = min(last * width, lanes), 0
        for lane in range(first * width, end, per_tile):
            rows = min(per_tile, end - lane)
            count = rows * length
            if temperature is not None:
                for r in range(rows):
                    inverse = scale_of(compute(0), temperature_of(temperature, lane + r, 0)).inverse
                    for k in range(0, length, width):
                        store(inverses, r * length + k, filled(inverses, inverse))
            from_y, from_dy, to = place(y, lane, 0, 0), place(dy, lane, 0, 0), place(out, lane, 0, 0)
            at_end = (lanes - lane - rows) * length < wide
            p, q = computed(from_y, -left, count, given, at_end), computed(from_dy, -left, count, other, at_end)
            tile = Tile(p, q, totals, inverses, count, moved(from_y, count), moved(from_dy, count))
            finite = add_likely(p, q, rows, length, totals)
            if looks and not finite:
                add_up(p, q, rows, length, totals)
                write_likely(tile, -left, 0, temperature, one, to)
                write_any(tile, 0, count, temperature, one, to)
                left = 0
                continue
            i = -left
            if left == 0 and past_cache:
                i = min(count, to_full_vectors(to))
                write_likely(tile, 0, i, temperature, one, to)
            i = write(tile, i, temperature, one, to, past_cache)
            if lane + rows == end:
                write_likely(tile, i, count, temperature, one, to)
            else:  # the rest, less than a wide vector, goes with the next tile
                left = count - i
                _keep(totals, count)
                if temperature is not None:
                    _keep(inverses, count)
        if past_cache:
            fence()
        release(moved(totals, -wide))

    return compiled(sweep, f"{backward.name}_short", body=True)
