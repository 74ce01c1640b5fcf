"""The ways back along rows: a row's sum, then its cotangents; some rows are woven, one written while the next is added.

Rows of a few vectors have a loop of their own, in which there is nothing but that.
"""

import functools
import math

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import on_stack, place
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
    prefetch,
    store,
    store_first,
)
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES
from softmax_numba.cpu.sums import collapsed
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.vjp_steps import (
    AHEAD,
    Due,
    block_sum,
    first_term_of,
    lies_side_by_side,
    release_all,
    row_steps,
    staged,
    stages_for,
)
from softmax_numba.cpu.vjp_sums import row_sums

# While a row is written, whose values are in the cache, memory is asked for the next one. Measured, log_softmax gains
# 1.2x to 1.3x at any length: its exponentials take as long as memory. Softmax gains 1.03x to 1.1x at up to so many
# bytes; rows of 8 kB would lose (0.91x).
ASKING_TO, MOST_BYTES = 2**12, 2**62
# Rows of so many bytes are woven: one is written while the next is added up. Not with 16 registers, where LLVM puts
# most of either on the stack: measured on a Zen 3, 0.65x to 0.9x for softmax and 0.85x to 1.06x for log_softmax.
WOVEN_FROM, WOVEN_TO = 256, 2**18
WEAVES = REGISTER_BITS == 512


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


@functools.cache
def vjp_rows(backward, compute):
    """Compiles the sweep over lanes ``first`` to ``last`` of y, dy and out (outer, length, inner)."""
    width = 64 // np.dtype(compute).itemsize
    likely, looks = backward.finite or backward.steps, backward.finite is not None
    asking_to = ASKING_TO if backward.finite else MOST_BYTES
    add_guarded, (_, _, _, map_piece) = block_sum(backward.steps, width), row_steps(backward.steps, width, asking_to)
    write_meanwhile, due_of, finish, _ = row_steps(likely, width, asking_to)
    # Where rows are not woven, LLVM would keep registers for what is never due, and put the sum on the stack: measured
    # on a Zen 3, 1.3x to 1.4x as long.
    add_up = block_sum(likely, width, write_meanwhile) if WEAVES else block_sum(likely, width)
    sum_of_few, _, _ = row_sums(likely, width, first_term_of(likely.term))
    write_few = _writing_few(likely.cotangent, width)

    @inlined
    def in_pieces(y, dy, temperature, out, o, j, one, stages):
        """One lane, whatever its strides and whatever its sum."""
        stage, other, _ = stages
        length, total = y.shape[1], (0.0, 0.0)
        for start in range(0, length, BLOCK):
            count = min(BLOCK, length - start)
            p, q = staged(y, dy, o, start, j, count, stage, other)
            total = add_guarded(p, q, 0, count, total, False, None)
        of_lane, scale = compute(total[0] + total[1]), scale_of(compute(0), temperature_of(temperature, o, j))
        for start in range(0, length, BLOCK):
            map_piece(y, dy, out, o, start, j, of_lane, scale.inverse, one, stages)

    @inlined
    def as_rows(y, dy, temperature, out, lane, last, one, nothing, past_cache, streamed):
        """Lanes from ``lane`` on whose values lie side by side, until ``last`` or one whose sum is not finite, which is
        returned."""
        length, inner = y.shape[1], y.shape[2]
        woven = WEAVES and WOVEN_FROM <= length * y.itemsize <= WOVEN_TO
        due = nothing
        o = lane // inner
        j = lane - o * inner
        while lane < last:
            p, q, to = place(y, o, 0, j), place(dy, o, 0, j), place(out, o, 0, j)
            total = 0.0, 0.0
            for start in range(0, length, BLOCK):
                total = add_up(p, q, start, min(length, start + BLOCK), total, past_cache, (due, one, streamed))
            finish(due, length, one, streamed)
            due = nothing
            of_lane = compute(total[0] + total[1])
            if looks and not math.isfinite(of_lane):
                break
            scale = scale_of(compute(0), temperature_of(temperature, o, j))
            due = due_of(p, q, length, to, of_lane, scale.inverse, one, past_cache, streamed)
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
        stages, direct = stages_for(y, dy, out), lies_side_by_side(y, dy, out)
        streamed = past_cache and direct and length * out.itemsize >= STREAMED_ROW_BYTES
        inverse = scale_of(compute(0), temperature_of(temperature, 0, 0)).inverse
        nothing = Due(place(y, 0, 0, 0), place(dy, 0, 0, 0), place(out, 0, 0, 0), 0, 0, compute(0), inverse, 0)
        lane = first
        while lane < last:
            if direct and length <= 4 * width:
                lane = as_short_rows(y, dy, temperature, out, lane, last, one)
            elif direct:
                lane = as_rows(y, dy, temperature, out, lane, last, one, nothing, past_cache, streamed)
            if lane < last:
                o = lane // inner
                in_pieces(y, dy, temperature, out, o, lane - o * inner, one, stages)
                lane += 1
        if streamed:
            fence()
        release_all(stages)

    return compiled(sweep, f"{backward.name}_rows", body=True)
