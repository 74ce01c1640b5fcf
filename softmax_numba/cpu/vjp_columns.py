"""The ways back along columns: lanes side by side, line by line of memory."""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, place, release
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.line_sums import FEW_LINES, line_sums, sum_of_few_lines
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    address_of,
    fence,
    filled,
    load,
    load_first,
    moved,
    number_at,
    put,
    store,
    store_first,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.scales import note_scale, scale_for, scales_at
from softmax_numba.cpu.sums import load_total, rounded, store_sums, sum_after
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.wide import load_wide, numbers_for

# A tile is in the second cache if lines of so many vectors allow, and no line of it is longer than a page.
TILE_BYTES, MOST_VECTORS, FEWEST_VECTORS = 2**19, 64, 16
# Lines of so many bytes are streamed past the caches: at the ends of shorter ones there are too many cache lines of
# which a part is stored. Measured on a Zen 3, 14 values a lane: 1.05x to 1.2x from 4 kB on, level there; below it 0.6x
# to 1x, of 16 bits down to a quarter. Gradients of losses did not gain. Nor do lines that are stored by 256 bytes as
# whole cache lines need be so long: 1.1x to 1.15x from 256 bytes on.
STREAMED_LINE_BYTES, STREAMED_AT_ONCE = 2**12, 256


@inlined
def of_whole_lines(out):
    """Whether the lines of an array (outer, length, inner) that lie side by side are stored as whole cache lines."""
    begins = out.strides[0] | out.strides[1] | address_of(place(out, 0, 0, 0), 0)
    return out.shape[2] * out.itemsize % STREAMED_AT_ONCE == 0 and begins & (LINE_BYTES - 1) == 0


class Tile(NamedTuple):
    """Where the lines of y and dy stand: pointers, and how many numbers there are from one to the next."""

    y: object
    dy: object
    y_step: int
    dy_step: int
    lanes: int


@functools.cache
def vjp_columns(backward, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes; those of y, dy and out lie side by
    side."""
    term, more, cotangent = backward.steps
    width = 64 // np.dtype(compute).itemsize
    wide = 4 * width

    @inlined
    def of_line(tile, i, k):
        """A vector of y and one of dy."""
        p, q = moved(tile.y, i * tile.y_step), moved(tile.dy, i * tile.dy_step)
        left = tile.lanes - k
        if left >= width:
            y, dy = load(p, k), load(q, k)
        else:
            y, dy = load_first(p, k, left), load_first(q, k, left)
        return y, dy

    @inlined
    def term_of_line(tile, i, k):
        y, dy = of_line(tile, i, k)
        return term(y, dy)

    @inlined
    def more_of_line(tile, total, i, k):
        y, dy = of_line(tile, i, k)
        return more(total, y, dy)

    add_up, sum_of_few = line_sums(width, term_of_line, more_of_line), sum_of_few_lines(term_of_line)

    @inlined
    def write(p, q, count, out, totals, scales, temperature, one, past_cache):
        k = 0
        if past_cache:
            k = min(count, to_full_vectors(out))
            if k > 0:
                given, other = load_first(p, 0, k), load_first(q, 0, k)
                inverse = scale_for(scales, 0, width, temperature).inverse
                store_first(out, 0, k, cotangent(given, other, numbers_for(totals, 0, width), inverse, one))
        while k + wide <= count:
            inverse = scale_for(scales, k, wide, temperature).inverse
            result = cotangent(load_wide(p, k, 4), load_wide(q, k, 4), numbers_for(totals, k, wide), inverse, one)
            if past_cache:
                stream(out, k, result)
            else:
                store(out, k, result)
            k += wide
        while k < count:
            given, other = load_first(p, k, count - k), load_first(q, k, count - k)
            inverse = scale_for(scales, k, width, temperature).inverse
            store_first(out, k, count - k, cotangent(given, other, numbers_for(totals, k, width), inverse, one))
            k += width

    def sweep(y, dy, temperature, out, first, last, past_cache):
        length, inner = y.shape[1], y.shape[2]
        past_cache = past_cache and (inner * out.itemsize >= STREAMED_LINE_BYTES or of_whole_lines(out))
        across = (inner + width - 1) // width
        vectors = max(FEWEST_VECTORS, min(MOST_VECTORS, TILE_BYTES // (2 * length * width * y.itemsize)))
        vectors = min(vectors, across, last - first)
        room = vectors * width + 2 * wide  # vectors may begin at any lane and reach beyond the last
        one = one_like(compute(0))
        totals = allocated(compute(0), 5 * room)
        scales = scales_at(moved(totals, room), room)
        slots, sums = allocated(0.0, 16 * width * vectors), allocated(0.0, 4 * room)
        block = moved(sums, 2 * room)
        step, other_step = y.strides[1] // y.itemsize, dy.strides[1] // dy.itemsize
        for k in range(room):
            put(totals, k, 0.0)
        zero = filled(totals, 0.0)
        begin = first
        while begin < last:
            o = begin // across
            j = (begin - o * across) * width
            lanes = min(inner - j, vectors * width, (last - begin) * width)
            begin += (lanes + width - 1) // width
            if temperature is not None:
                for k in range(room):  # lanes that fill up the last vectors take the last one's
                    note_scale(scales, k, temperature_of(temperature, o, j + min(k, lanes - 1)))
            tile = Tile(place(y, o, 0, j), place(dy, o, 0, j), step, other_step, lanes)
            if length <= FEW_LINES:
                for k in range(0, lanes, width):
                    store(totals, k, rounded(totals, sum_of_few(tile, length, k, zero)))
            elif length <= BLOCK:
                add_up(tile, length, lanes, totals, slots, vectors)
                for k in range(0, lanes, width):
                    store(totals, k, rounded(totals, load_total(slots, k // width)))
            else:
                for k in range(2 * room):
                    put(sums, k, 0.0)
                for start in range(0, length, BLOCK):
                    p, q = moved(tile.y, start * step), moved(tile.dy, start * other_step)
                    add_up(
                        Tile(p, q, step, other_step, lanes), min(BLOCK, length - start), lanes, totals, slots, vectors
                    )
                    for k in range(0, lanes, width):
                        store_sums(block, k, room, zero, load_total(slots, k // width))
                    for k in range(lanes):
                        before = number_at(sums, k), number_at(sums, k + room)
                        high, low = sum_after(before, (number_at(block, k), number_at(block, k + room)))
                        put(sums, k, high)
                        put(sums, k + room, low)
                for k in range(lanes):
                    put(totals, k, compute(number_at(sums, k) + number_at(sums, k + room)))
            for i in range(length):
                p, q = moved(tile.y, i * step), moved(tile.dy, i * other_step)
                write(p, q, lanes, place(out, o, i, j), totals, scales, temperature, one, past_cache)
        if past_cache:
            fence()
        release(totals)
        release(slots)
        release(sums)

    return compiled(sweep, f"{backward.name}_columns", body=True)
