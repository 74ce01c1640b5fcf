"""The cotangents of x from those of softmax(x) and log_softmax(x), and from the functions' own results.

    softmax      y (dy - sum(y dy)) / T
    log_softmax  (dy - exp(y) sum(dy)) / T, where y is finite; a place that is -inf stays there, and counts for nothing

The sums have twice the precision of their terms and the order of lane.py, in rows and columns alike.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import row_at, temperature_of
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.exponential import Reference, Scale, exp_relative, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.line_sums import line_sums
from softmax_numba.cpu.memory import (
    fence,
    filled,
    load,
    load_first,
    moved,
    number_at,
    prefetch,
    put,
    store,
    store_first,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES
from softmax_numba.cpu.scales import Scales, note_scale, scale_for
from softmax_numba.cpu.simd import fma, select, times
from softmax_numba.cpu.sums import (
    as_total,
    collapsed,
    load_total,
    plus,
    plus_four,
    plus_product,
    product_total,
    store_sums,
)
from softmax_numba.cpu.wide import load_first_wide, load_first_zero, load_wide, numbers_for

_SPARE = 64  # bytes, to begin a buffer on a cache line
# A tile of columns: in the second cache if lines of so many vectors allow, and no line of it longer than a page.
TILE_BYTES, MOST_VECTORS, FEWEST_VECTORS = 2**19, 64, 16
# How many numbers ahead a row asks memory for while it is added up. Measured: 1.3x to 1.7x of 4096; of none, level in
# one thread and 1.1x to 1.25x in two.
AHEAD = 256


# Rows of so many bytes are woven: one is written while the next is added up.
WOVEN_FROM, WOVEN_TO = 256, 2**18


class One(NamedTuple):
    """What exp(y) is computed relative to: exp(0), and what that comes to."""

    ref: Reference
    scale: Scale
    inverse: float


@inlined
def softmax_term(y, dy):
    return product_total(y, select(y == 0.0, 0.0, dy))


@inlined
def softmax_more(total, y, dy):
    return plus_product(total, y, select(y == 0.0, 0.0, dy))


@inlined
def softmax_cotangent(y, dy, total, inverse, one):
    return select(y == 0.0, 0.0, times(fma(y, dy - total, 0.0), inverse))  # 0, not -0


@inlined
def finite_term(y, dy):
    return product_total(y, dy)


@inlined
def finite_more(total, y, dy):
    return plus_product(total, y, dy)


@inlined
def finite_cotangent(y, dy, total, inverse, one):
    return times(fma(y, dy - total, 0.0), inverse)


@inlined
def log_softmax_term(y, dy):
    return as_total(select(y == -np.inf, 0.0, dy))


@inlined
def log_softmax_more(total, y, dy):
    return plus(y, total, log_softmax_term(y, dy))


@inlined
def log_softmax_cotangent(y, dy, total, inverse, one):
    p = exp_relative(y, one.ref, one.scale) * one.inverse
    return select(y == -np.inf, 0.0, times(dy - p * total, inverse))


class Steps(NamedTuple):
    """What is done to two vectors, or four."""

    term: Callable  # what they have of a lane's sum
    more: Callable  # the sum with theirs
    cotangent: Callable  # of each place, from that sum


@dataclass(frozen=True, eq=False)
class Backward:
    """The way back through one function."""

    name: str
    steps: Steps
    # The same without a look at each place, for lanes whose sum this makes finite: then dy is, wherever y is 0.
    finite: Steps | None


SOFTMAX_VJP = Backward(
    "softmax_vjp",
    Steps(softmax_term, softmax_more, softmax_cotangent),
    Steps(finite_term, finite_more, finite_cotangent),
)
LOG_SOFTMAX_VJP = Backward("log_softmax_vjp", Steps(log_softmax_term, log_softmax_more, log_softmax_cotangent), None)


@inlined
def _one(like):
    scale = scale_of(like, None)
    ref = reference(like, scale)
    return One(ref, scale, 1.0 / exp_relative(like, ref, scale))


class Due(NamedTuple):
    """The cotangents of a row that are to be written while the next row is added up."""

    y: object
    dy: object
    out: object
    count: int
    whole: int  # how many of them make up quads
    total: object
    inverse: object


def _row_steps(steps, width):
    """Compiles the sum over a stretch of a row, and its cotangents."""
    term, more, cotangent = steps
    wide = 4 * width

    @inlined
    def first_term(y, dy, i, count):
        """The terms of a vector of which there are ``count - i`` places, if any; the others hold zeros."""
        return term(load_first_zero(y, i, count - i, 1), load_first_zero(dy, i, count - i, 1))

    @inlined
    def write_quad(due, i, one, past_cache):
        """A quad of what is due, if there is one."""
        if i < due.whole:
            result = cotangent(load_wide(due.y, i, 4), load_wide(due.dy, i, 4), due.total, due.inverse, one)
            if past_cache:
                stream(due.out, i, result)
            else:
                store(due.out, i, result)

    @inlined
    def add_up(y, dy, count, total, due, one, past_cache):
        """The sum over a stretch; meanwhile, a quad for each of its quads, what is due is written."""
        zero = filled(y, 0.0)
        i = 0
        while i + wide <= count:
            a, b, c, d = i, i + width, i + 2 * width, i + 3 * width
            first = more(term(load(y, a), load(dy, a)), load(y, b), load(dy, b))
            second = more(term(load(y, c), load(dy, c)), load(y, d), load(dy, d))
            total = plus(zero, total, plus(zero, first, second))
            for k in range(4):
                prefetch(y, i + AHEAD + k * width)
                prefetch(dy, i + AHEAD + k * width)
            write_quad(due, i, one, past_cache)
            i += wide
        if 0 < count - i <= width:
            total = plus(zero, total, first_term(y, dy, i, count))
        elif i < count:
            a, b, c, d = i, i + width, i + 2 * width, i + 3 * width
            first, second = first_term(y, dy, a, count), first_term(y, dy, b, count)
            total = plus_four(zero, total, first, second, first_term(y, dy, c, count), first_term(y, dy, d, count))
        return total

    @inlined
    def due_of(y, dy, count, out, total, inverse, one, past_cache):
        """The cotangents of a row as due: from where :func:`stream` may put them, if it shall; the others are written
        at once."""
        i = 0
        if past_cache:
            i = min(count, to_full_vectors(out))
            if i > 0:
                store_first(out, 0, i, cotangent(load_first(y, 0, i), load_first(dy, 0, i), total, inverse, one))
        count -= i
        return Due(moved(y, i), moved(dy, i), moved(out, i), count, count // wide * wide, total, inverse)

    @inlined
    def finish(due, done, one, past_cache):
        """What is due but for the quads before ``done``."""
        i = min(done, due.whole)
        while i < due.whole:
            write_quad(due, i, one, past_cache)
            i += wide
        while i < due.count:
            given, other = load_first(due.y, i, due.count - i), load_first(due.dy, i, due.count - i)
            store_first(due.out, i, due.count - i, cotangent(given, other, due.total, due.inverse, one))
            i += width

    return add_up, due_of, finish


@inlined
def staged(y, dy, o, start, j, count, stage, other):
    """Pointers to a stretch of y and one of dy, side by side."""
    return row_at(y, None, o, start, j, count, stage)[0], row_at(dy, None, o, start, j, count, other)[0]


def vjp_rows(backward, compute):
    """Compiles the sweep over lanes ``first`` to ``last`` of y, dy and out (outer, length, inner)."""
    width, room = 64 // np.dtype(compute).itemsize, BLOCK + _SPARE
    looks = backward.finite is not None
    add_guarded, due_guarded, finish_guarded = _row_steps(backward.steps, width)
    add_up, due_of, finish = _row_steps(backward.finite or backward.steps, width)

    def sweep(y, dy, temperature, out, first, last, past_cache):
        length, inner = y.shape[1], y.shape[2]
        zero, one = filled(on_stack(compute(0), width), 0.0), _one(compute(0))
        stage, other, result = allocated(y, room), allocated(dy, room), allocated(out, room)
        direct = y.strides[1] == y.itemsize and dy.strides[1] == dy.itemsize and out.strides[1] == out.itemsize
        size = length if direct else BLOCK
        streamed = past_cache and direct and length * out.itemsize >= STREAMED_ROW_BYTES
        woven = direct and WOVEN_FROM <= length * y.itemsize <= WOVEN_TO
        inverse = scale_of(compute(0), temperature_of(temperature, 0, 0)).inverse
        nothing = Due(place(y, 0, 0, 0), place(dy, 0, 0, 0), place(out, 0, 0, 0), 0, 0, compute(0), inverse)
        due = nothing
        o = first // inner
        j = first - o * inner - 1
        for _ in range(first, last):
            j += 1
            if j == inner:
                o, j = o + 1, 0
            total = as_total(zero)
            for start in range(0, length, size):
                count = min(size, length - start)
                p, q = place(y, o, start, j), place(dy, o, start, j)
                if not direct:
                    p, q = staged(y, dy, o, start, j, count, stage, other)
                total = add_up(p, q, count, total, due, one, streamed)
            finish(due, length, one, streamed)
            due = nothing
            high, low = collapsed(zero, total)
            guarded = looks and not math.isfinite(high + low)
            if guarded:
                total = as_total(zero)
                for start in range(0, length, size):
                    count = min(size, length - start)
                    p, q = staged(y, dy, o, start, j, count, stage, other)
                    total = add_guarded(p, q, count, total, nothing, one, streamed)
                high, low = collapsed(zero, total)
            of_lane, scale = compute(high + low), scale_of(compute(0), temperature_of(temperature, o, j))
            for start in range(0, length, size):
                count = min(size, length - start)
                p, q, to = place(y, o, start, j), place(dy, o, start, j), place(out, o, start, j)
                if not direct:
                    p, q = staged(y, dy, o, start, j, count, stage, other)
                    to = result
                if guarded:
                    now = due_guarded(p, q, count, to, of_lane, scale.inverse, one, streamed)
                    finish_guarded(now, 0, one, streamed)
                else:
                    due = due_of(p, q, count, to, of_lane, scale.inverse, one, streamed)
                    if not woven:
                        finish(due, 0, one, streamed)
                        due = nothing
                if not direct:
                    for i in range(count):
                        put(place(out, o, start + i, j), 0, number_at(result, i))
        finish(due, 0, one, streamed)
        if streamed:
            fence()
        release(stage)
        release(other)
        release(result)

    return compiled(sweep, f"{backward.name}_rows", body=True)


class Tile(NamedTuple):
    """Where the lines of y and dy stand: pointers, and how many numbers there are from one to the next."""

    y: object
    dy: object
    y_step: int
    dy_step: int
    lanes: int


def vjp_columns(backward, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes; those of y, dy and out lie side by
    side."""
    term, _, cotangent = backward.steps
    width = 64 // np.dtype(compute).itemsize
    wide = 4 * width

    @inlined
    def term_of_line(tile, i, k):
        p, q = moved(tile.y, i * tile.y_step), moved(tile.dy, i * tile.dy_step)
        left = tile.lanes - k
        if left >= width:
            y, dy = load(p, k), load(q, k)
        else:
            y, dy = load_first(p, k, left), load_first(q, k, left)
        return term(y, dy)

    add_up = line_sums(width, term_of_line)

    @inlined
    def write(p, q, count, out, totals, scales, temperature, one, past_cache):
        k = 0
        if past_cache:
            k = min(count, to_full_vectors(out))
            if k > 0:
                given, other = load_first_wide(p, 0, k, 4), load_first_wide(q, 0, k, 4)
                inverse = scale_for(scales, 0, wide, temperature).inverse
                store_first(out, 0, k, cotangent(given, other, numbers_for(totals, 0, wide), inverse, one))
        while k + wide <= count:
            inverse = scale_for(scales, k, wide, temperature).inverse
            result = cotangent(load_wide(p, k, 4), load_wide(q, k, 4), numbers_for(totals, k, wide), inverse, one)
            if past_cache:
                stream(out, k, result)
            else:
                store(out, k, result)
            k += wide
        if k < count:
            given, other = load_first_wide(p, k, count - k, 4), load_first_wide(q, k, count - k, 4)
            inverse = scale_for(scales, k, wide, temperature).inverse
            store_first(out, k, count - k, cotangent(given, other, numbers_for(totals, k, wide), inverse, one))

    def sweep(y, dy, temperature, out, first, last, past_cache):
        length, inner = y.shape[1], y.shape[2]
        across = (inner + width - 1) // width
        vectors = max(FEWEST_VECTORS, min(MOST_VECTORS, TILE_BYTES // (2 * length * width * y.itemsize)))
        vectors = min(vectors, across, last - first)
        room = vectors * width + 2 * wide  # vectors may begin at any lane and reach beyond the last
        one = _one(compute(0))
        totals = allocated(compute(0), 5 * room)
        at = moved(totals, room)
        scales = Scales(at, moved(at, room), moved(at, 2 * room), moved(at, 3 * room))
        zero = filled(totals, 0.0)
        slots, sums = allocated(0.0, 16 * width * vectors), allocated(0.0, 2 * room)
        step, other_step = y.strides[1] // y.itemsize, dy.strides[1] // dy.itemsize
        for k in range(room):
            put(totals, k, 0.0)
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
            add_up(tile, length, lanes, totals, slots, vectors)
            for k in range(0, lanes, width):
                store_sums(sums, k, room, zero, load_total(slots, k // width))
            for k in range(lanes):
                put(totals, k, number_at(sums, k) + number_at(sums, room + k))
            for i in range(length):
                p, q = moved(tile.y, i * step), moved(tile.dy, i * other_step)
                write(p, q, lanes, place(out, o, i, j), totals, scales, temperature, one, past_cache)
        if past_cache:
            fence()
        release(totals)
        release(slots)
        release(sums)

    return compiled(sweep, f"{backward.name}_columns", body=True)
