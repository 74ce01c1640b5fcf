"""The sweep along short rows: each fills too few vectors of its own, so that a vector takes one value of many.

As many rows as a vector has places are read at once and turned into columns in registers (turning.py); from there on
they are lanes side by side, as in columns.py, and on the way out they are turned back.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.across import across, largest_of_lanes, settling
from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.inlining import for_both, inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import fence, filled, load, moved, number_at, prefetch, put, store, stored_size, width_of
from softmax_numba.cpu.scales import Scales, note_scale, scale_for, scale_over, scales_at
from softmax_numba.cpu.settling import LOG, NUMBERS, PEAK, SECOND, SUMS, TOP, Settled
from softmax_numba.cpu.simd import in_compute_dtype
from softmax_numba.cpu.tiles import Tile
from softmax_numba.cpu.turning import block_from, columns_from, height_of, rows_from
from softmax_numba.cpu.waiting import (
    Waiting,
    nothing_waiting,
    stream_quad,
    waiting_for,
    with_more,
    without_lines,
    write_out,
)
from softmax_numba.cpu.wide import numbers_over

# How much of the first cache the values of a tile may take, and how many vectors of lanes it has at most.
TILE_BYTES, MOST_VECTORS = 2**14, 16
_NARROWEST = 4  # values of a row that are turned at once: the steps in between take four vectors at a time


@for_both
def vectors_in_short_tile(length: int, width: int) -> int:
    """How many vectors of lanes are on their way at once."""
    return max(1, min(MOST_VECTORS, TILE_BYTES // (64 * ((length + width - 1) // width * width))))


@for_both
def short_tiles_of(lanes: int, length: int, itemsize: int) -> int:
    """Into how many tiles so many lanes are cut; for the caller of the sweep."""
    return -(-lanes // lanes_in_short_tile(length, itemsize))


@for_both
def lanes_in_short_tile(length: int, itemsize: int) -> int:
    """How many lanes a tile has, the last one perhaps excepted."""
    width = 8 if itemsize == 8 else 16
    return width * vectors_in_short_tile(length, width)


def _by_pieces(piece, wide):
    """Compiles ``piece(wide)`` for up to so many values of each row, by no wider a piece than it need be."""
    turn = piece(wide)
    if wide <= _NARROWEST:
        return turn
    half, turn_half = wide // 2, _by_pieces(piece, wide // 2)

    @inlined
    def turn_piece(p, stride, left, columns, given):
        if left <= half:
            return turn_half(p, stride, left, columns, given)
        return turn(p, stride, left, columns, given)

    return turn_piece


def _turned(piece, width):
    """Compiles the turning of as many rows of any length as a vector has places, a register's places at a time: two
    would be turned one after the other anyway. ``piece(wide)`` does it for up to so many values; what it returns is
    ``given`` to the next."""
    widest = height_of(width)
    turn_piece = _by_pieces(piece, widest)

    @inlined
    def turn_rows(p, stride, length, columns, given):
        for c in range(0, length, widest):
            given = turn_piece(moved(p, c), stride, min(widest, length - c), moved(columns, c * width), given)
        return given

    return turn_rows


# Of fewer rows than a vector has places: loops of as many turns, for LLVM unrolls those of sixteen.


@functools.cache
def rows_in(width):
    """Compiles the reading of the first ``count`` rows, ``stride`` bytes apart, as columns, which returns their largest
    values: where they are fewer than a vector has places, the last one stands for those that are missing."""

    def piece(wide):
        @inlined
        def read_piece(p, stride, left, columns, tops):
            return columns_from(p, stride, left, columns, tops, wide)

        return read_piece

    read_whole = _turned(piece, width)

    @inlined
    def read_rows(p, stride, count, length, columns):
        if count == width:
            return read_whole(p, stride, length, columns, filled(columns, -np.inf))
        step = stride // stored_size(p)
        for i in range((length + 3) & ~3):
            for r in range(count):
                put(columns, i * width + r, number_at(p, r * step + i) if i < length else -np.inf)
            for r in range(count, width):
                put(columns, i * width + r, number_at(columns, i * width + count - 1))
        return largest_of_lanes(columns, width, length)

    return read_rows


class Mapped(NamedTuple):
    """What a vector of rows is mapped by."""

    noted: object  # in rows of MOST_VECTORS vectors
    first: int  # the vector's first lane
    scales: Scales
    temperature: object


@functools.cache
def rows_out(width, value):
    """Compiles the way back, the first ``count`` rows of columns, mapped by ``value``."""
    most, height = MOST_VECTORS * width, height_of(width)

    def piece(wide):
        @inlined
        def write_piece(p, stride, left, columns, by):
            for r in range(0, width, height):
                k = by.first + r
                found = Settled(
                    numbers_over(by.noted, SECOND * most + k, height, wide),
                    numbers_over(by.noted, PEAK * most + k, height, wide),
                    numbers_over(by.noted, LOG * most + k, height, wide),
                )
                scale = scale_over(by.scales, k, height, wide, by.temperature)
                block = value(block_from(moved(columns, r), wide), found, scale)
                rows_from(moved(p, r * (stride // stored_size(p))), stride, left, block, wide)
            return by

        return write_piece

    write_whole = _turned(piece, width)

    @inlined
    def write_rows(p, stride, count, length, columns, by):
        if count == width:
            write_whole(p, stride, length, columns, by)
            return
        step = stride // stored_size(p)
        found = Settled(
            load(by.noted, SECOND * most + by.first),
            load(by.noted, PEAK * most + by.first),
            load(by.noted, LOG * most + by.first),
        )
        scale = scale_for(by.scales, by.first, width, by.temperature)
        for i in range(length):
            store(columns, i * width, value(load(columns, i * width), found, scale))
        for r in range(count):
            for i in range(length):
                put(p, r * step + i, number_at(columns, i * width + r))

    return write_rows


class Meanwhile(NamedTuple):
    """What memory does while a tile is computed."""

    waiting: Waiting
    later: object  # the next tile


@inlined
def read_and_write(meanwhile, part, temperature):
    later = meanwhile.later
    i = part * 4 * width_of(later)
    stream_quad(meanwhile.waiting, i)
    for k in range(4):  # as many values as are computed
        prefetch(later, i + k * width_of(later))


@functools.cache
def short_rows(operation, compute):
    """Compiles the sweep over tiles ``first`` to ``last`` of an array (1, length, lanes) whose lanes are rows: their
    own values lie side by side, and so do their results. There is no mask."""
    one_number, put_lane, store_lanes = operation.one_number, operation.put, operation.store
    width = 64 // np.dtype(compute).itemsize
    note_block, settle_block = across(operation, width, read_and_write), settling(operation, width)
    read_rows, write_rows = rows_in(width), rows_out(width, operation.map)
    most = MOST_VECTORS * width

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        vectors = vectors_in_short_tile(length, width)
        per_tile, pitch = vectors * width, (length + width - 1) // width * width * width
        values = allocated(compute(0), vectors * pitch + 4 * width * width + 4 * most)
        terms = moved(values, vectors * pitch)
        scales = scales_at(moved(terms, 4 * width * width), most)
        slots, results = allocated(0.0, 16 * width), allocated(0.0, most)
        numbers, sums = np.empty((NUMBERS, most), compute), np.empty((SUMS, most))
        noted, summed = start_of(numbers), start_of(sums)
        stride, down = out.strides[2], out.strides[1] // out.itemsize
        side_by_side = stride == out.itemsize
        # Results that nobody will read soon are put together in the cache and streamed as the stretch that they are.
        in_one = past_cache and not one_number and stride == length * out.itemsize
        waiting = nothing_waiting(place(out, 0, 0, first * per_tile))
        if in_one:
            waiting = waiting_for(out, waiting.target, per_tile * length)
        for t in range(first, last):
            j = t * per_tile
            lanes = min(per_tile, inner - j)
            tile = Tile(0, j, lanes, values, pitch, width, scales, values, terms, slots)
            if temperature is not None:
                for k in range(per_tile):  # lanes that fill up the last vector take the last one's
                    note_scale(scales, k, temperature_of(temperature, 0, j + min(k, lanes - 1)))
            p = values
            for k in range(0, lanes, width):
                top = read_rows(place(x, 0, 0, j + k), x.strides[2], min(width, lanes - k), length, p)
                store(noted, TOP * most + k, top)
                p = moved(p, pitch)
            quads = (lanes + width - 1) // width * ((length + 3) // 4)
            later = Meanwhile(waiting, place(x, 0, 0, j + per_tile))
            note_block(tile, length, temperature, noted, summed, most, later)
            if in_one:
                waiting = without_lines(waiting, min(waiting.whole, quads * 4 * width))
            settle_block(lanes, noted, summed, most, results)
            p = values
            for k in range(0, lanes, width):
                if one_number and side_by_side:
                    number = in_compute_dtype(values, (load(results, k), load(results, k + width - 8)))
                    factor, peak = load(noted, SECOND * most + k), load(noted, PEAK * most + k)
                    log_sum = load(noted, LOG * most + k)
                    store_lanes(place(out, 0, 0, j + k), down, lanes - k, number, factor, peak, log_sum)
                elif one_number:
                    for r in range(k, min(k + width, lanes)):
                        factor, peak = number_at(noted, SECOND * most + r), number_at(noted, PEAK * most + r)
                        log_sum = number_at(noted, LOG * most + r)
                        put_lane(out, 0, j + r, number_at(results, r), factor, peak, log_sum)
                else:
                    to = moved(waiting.values, waiting.end + k * length) if in_one else place(out, 0, 0, j + k)
                    write_rows(to, stride, min(width, lanes - k), length, p, Mapped(noted, k, scales, temperature))
                p = moved(p, pitch)
            if in_one:
                waiting = with_more(waiting, lanes * length)
        if in_one:
            write_out(waiting)
        if past_cache:
            fence()
        release(values)
        release(slots)
        release(results)
        hold(numbers)
        hold(sums)

    return compiled(sweep, f"{operation.name}_short", body=True)
