"""The ways back along rows: a row's sum, then its cotangents; some rows are woven, one written while the next is added.

Rows of a few vectors have a loop of their own, in which there is nothing but that.
"""

import functools
import math
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import row_at, temperature_of
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.exponential import scale_of
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
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
    stored_size,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES
from softmax_numba.cpu.sums import as_total, collapsed
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.vjp_sums import row_sums
from softmax_numba.cpu.wide import load_first_zero, load_wide

_SPARE = 64  # bytes, to begin a buffer on a cache line
# How many numbers ahead a row asks memory for while it is added up. Measured: 1.3x to 1.7x of 4096; of none, level in
# one thread and 1.1x to 1.25x in two.
AHEAD = 256
# While a row is written, whose values are in the cache, memory is asked for the next one. Measured, log_softmax gains
# 1.2x to 1.3x at any length: its exponentials take as long as memory. Softmax gains 1.03x to 1.1x at up to so many
# bytes; rows of 8 kB would lose (0.91x).
ASKING_TO, MOST_BYTES = 2**12, 2**62
# Rows of so many bytes are woven: one is written while the next is added up. Not with 16 registers, where LLVM puts
# most of either on the stack: measured on a Zen 3, 0.65x to 0.9x for softmax and 0.85x to 1.06x for log_softmax.
WOVEN_FROM, WOVEN_TO = 256, 2**18
WEAVES = REGISTER_BITS == 512


class Due(NamedTuple):
    """The cotangents of a row that are to be written while the next row is added up."""

    y: object
    dy: object
    out: object
    count: int
    whole: int  # how many of them make up quads
    total: object
    inverse: object
    later: int  # how far on the same place of the next row is, which is asked for meanwhile; 0 if it is not


@functools.cache
def _first_term(term):
    @inlined
    def first_term(y, dy, i, count):
        return term(load_first_zero(y, i, count, 1), load_first_zero(dy, i, count, 1))

    return first_term


@functools.cache
def _row_steps(steps, width, asking_to):
    """Compiles the sum over a stretch of a row, and its cotangents; rows of up to so many bytes ask for the next."""
    cotangent, wide = steps.cotangent, 4 * width
    _, with_quad, with_rest = row_sums(steps, width, _first_term(steps.term))

    @inlined
    def write_quad(due, i, one, past_cache):
        """A quad of what is due, if there is one."""
        if i < due.whole:
            result = cotangent(load_wide(due.y, i, 4), load_wide(due.dy, i, 4), due.total, due.inverse, one)
            if due.later > 0:
                for k in range(i, i + wide, width):
                    prefetch(due.y, k + due.later)
                    prefetch(due.dy, k + due.later)
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
            total = with_quad(zero, total, y, dy, i)
            for k in range(4):
                prefetch(y, i + AHEAD + k * width)
                prefetch(dy, i + AHEAD + k * width)
            write_quad(due, i, one, past_cache)
            i += wide
        return with_rest(zero, total, y, dy, i, count)

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
        later = count + i if (count + i) * stored_size(y) <= asking_to else 0
        return Due(moved(y, i), moved(dy, i), moved(out, i), count, count // wide * wide, total, inverse, later)

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


@functools.cache
def _writing_few(cotangent, width):
    """Compiles the writing of rows of at most four vectors, a vector at a time."""

    @inlined
    def write_few(y, dy, count, out, total, inverse, one):
        i = 0
        while i + width <= count:
            store(out, i, cotangent(load(y, i), load(dy, i), total, inverse, one))
            i += width
        if i < count:
            given, other = load_first(y, i, count - i), load_first(dy, i, count - i)
            store_first(out, i, count - i, cotangent(given, other, total, inverse, one))

    return write_few


@inlined
def staged(y, dy, o, start, j, count, stage, other):
    """Pointers to a stretch of y and one of dy, side by side."""
    return row_at(y, None, o, start, j, count, stage)[0], row_at(dy, None, o, start, j, count, other)[0]


@functools.cache
def vjp_rows(backward, compute):
    """Compiles the sweep over lanes ``first`` to ``last`` of y, dy and out (outer, length, inner)."""
    width, room = 64 // np.dtype(compute).itemsize, BLOCK + _SPARE
    likely, looks = backward.finite or backward.steps, backward.finite is not None
    asking_to = ASKING_TO if backward.finite else MOST_BYTES
    add_guarded, due_guarded, finish_guarded = _row_steps(backward.steps, width, asking_to)
    add_up, due_of, finish = _row_steps(likely, width, asking_to)
    sum_of_few, _, _ = row_sums(likely, width, _first_term(likely.term))
    write_few = _writing_few(likely.cotangent, width)

    @inlined
    def in_pieces(y, dy, temperature, out, o, j, one, nothing, stages):
        """One lane, whatever its strides and whatever its sum."""
        stage, other, result = stages
        length, zero = y.shape[1], filled(result, 0.0)
        total = as_total(zero)
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            p, q = staged(y, dy, o, start, j, count, stage, other)
            total = add_guarded(p, q, count, total, nothing, one, False)
        high, low = collapsed(zero, total)
        of_lane, scale = compute(high + low), scale_of(compute(0), temperature_of(temperature, o, j))
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            p, q = staged(y, dy, o, start, j, count, stage, other)
            finish_guarded(due_guarded(p, q, count, result, of_lane, scale.inverse, one, False), 0, one, False)
            for i in range(count):
                put(place(out, o, start + i, j), 0, number_at(result, i))

    @inlined
    def as_rows(y, dy, temperature, out, lane, last, one, nothing, streamed):
        """Lanes from ``lane`` on whose values lie side by side, until ``last`` or one whose sum is not finite, which is
        returned."""
        length, inner = y.shape[1], y.shape[2]
        zero = filled(on_stack(compute(0), width), 0.0)
        woven = WEAVES and WOVEN_FROM <= length * y.itemsize <= WOVEN_TO
        due = nothing
        o = lane // inner
        j = lane - o * inner
        while lane < last:
            p, q, to = place(y, o, 0, j), place(dy, o, 0, j), place(out, o, 0, j)
            total = add_up(p, q, length, as_total(zero), due, one, streamed)
            finish(due, length, one, streamed)
            due = nothing
            high, low = collapsed(zero, total)
            of_lane = compute(high + low)
            if looks and not math.isfinite(of_lane):
                break
            scale = scale_of(compute(0), temperature_of(temperature, o, j))
            due = due_of(p, q, length, to, of_lane, scale.inverse, one, streamed)
            if not woven:
                finish(due, 0, one, streamed)
                due = nothing
            lane, j = lane + 1, j + 1
            if j == inner:
                o, j = o + 1, 0
        finish(due, 0, one, streamed)
        return lane

    @inlined
    def as_short_rows(y, dy, temperature, out, lane, last, one):
        """The same for lanes of up to four vectors: there is next to nothing to do for each but this."""
        length, inner = y.shape[1], y.shape[2]
        zero = filled(on_stack(compute(0), width), 0.0)
        o = lane // inner
        j = lane - o * inner
        while lane < last:
            p, q, to = place(y, o, 0, j), place(dy, o, 0, j), place(out, o, 0, j)
            high, low = collapsed(zero, sum_of_few(zero, p, q, 0, length))
            for k in range(0, length, width):
                prefetch(p, k + 2 * AHEAD)
                prefetch(q, k + 2 * AHEAD)
            of_lane = compute(high + low)
            if looks and not math.isfinite(of_lane):
                break
            scale = scale_of(compute(0), temperature_of(temperature, o, j))
            write_few(p, q, length, to, of_lane, scale.inverse, one)
            lane, j = lane + 1, j + 1
            if j == inner:
                o, j = o + 1, 0
        return lane

    def sweep(y, dy, temperature, out, first, last, past_cache):
        length, inner = y.shape[1], y.shape[2]
        one = one_like(compute(0))
        stages = allocated(y, room), allocated(dy, room), allocated(out, room)
        direct = y.strides[1] == y.itemsize and dy.strides[1] == dy.itemsize and out.strides[1] == out.itemsize
        streamed = past_cache and direct and length * out.itemsize >= STREAMED_ROW_BYTES
        inverse = scale_of(compute(0), temperature_of(temperature, 0, 0)).inverse
        nothing = Due(place(y, 0, 0, 0), place(dy, 0, 0, 0), place(out, 0, 0, 0), 0, 0, compute(0), inverse, 0)
        staged_due = Due(stages[0], stages[1], stages[2], 0, 0, compute(0), inverse, 0)
        lane = first
        while lane < last:
            if direct and length <= 4 * width:
                lane = as_short_rows(y, dy, temperature, out, lane, last, one)
            elif direct:
                lane = as_rows(y, dy, temperature, out, lane, last, one, nothing, streamed)
            if lane < last:
                o = lane // inner
                in_pieces(y, dy, temperature, out, o, lane - o * inner, one, staged_due, stages)
                lane += 1
        if streamed:
            fence()
        release(stages[0])  # pointers to several types: no loop
        release(stages[1])
        release(stages[2])

    return compiled(sweep, f"{backward.name}_rows", body=True)
