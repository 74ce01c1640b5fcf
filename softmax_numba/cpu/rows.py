"""The sweep along rows of one block: vectors run along the lane, and several lanes are on their way at once.

One lane alone is a chain: its maximum, its exponentials, their sum, the quotient, the results, each waiting for the
one before. So as many lanes as the first cache holds take each step together. They are read into a *panel*, a lane
after the other and each filled up to whole vectors with -inf, whatever their strides, dtype and mask; what is one
number a lane (its maximum, its sum, its logarithm) is computed for all of them in one vector.

Exponentials are computed four vectors at a time as one wide vector, so that a processor finds four independent
instructions wherever one of them must wait: 0.85x the time of one vector after the other.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.access import hide, temperature_of
from softmax_numba.cpu.crosswise import largest_of_each, note_total, sum_of_each, totals_of_each
from softmax_numba.cpu.exponential import Reference, Scale, exp_relative, reference, scale_of
from softmax_numba.cpu.lane import Settled, as_total, plus, safe_top
from softmax_numba.cpu.memory import (
    address_of,
    aligned,
    fence,
    filled,
    filled_wide,
    hold,
    load,
    load_first,
    load_wide,
    mask_at,
    mask_first,
    moved,
    number_at,
    numbers_for,
    on_stack,
    place,
    prefetch,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.simd import INLINED, compiled, how_many, inlined, larger, quarters, select
from softmax_numba.cpu.stretch import copy, flush, stretch_map

# How much of the first cache a panel may take: half of the smallest in use (32 KB), as the rows themselves pass by.
PANEL_BYTES = 2**14
# A panel of so many numbers stands on the stack: a call on ten numbers would notice the allocation.
PANEL_ON_STACK = 2048
# And how many vectors their maxima may make.
MOST_VECTORS = 4
MOST_LANES = 16 * MOST_VECTORS
# Streaming stores pay for rows of this size: measured, 0.6x to 0.9x at 1 kB, 1.0x to 1.5x at 2 kB, 1.8x at 8 kB.
STREAMED_ROW_BYTES = 2048
_SPARE = 64


@inlined
def rows_in_panel(vectors, width):
    """How many lanes of ``vectors`` vectors are on their way at once."""
    return max(1, min(MOST_VECTORS * width, PANEL_BYTES // (64 * vectors)))


@inlined
def vectors_in_row(length, width):
    """How many vectors a lane has in the panel: 1, 2, or fours of them and at most one more.

    Two or three vectors after the last four take as long as four.
    """
    vectors = (length + width - 1) // width
    return vectors if vectors <= 2 or vectors & 3 <= 1 else (vectors + 3) & ~3


# --- into the panel -----------------------------------------------------------------


@inlined
def fill_up(panel, length, tail, vectors):
    """Puts -inf behind a lane's last vector."""
    width = width_of(panel)
    i = length - tail + width
    while i < vectors * width:
        store(panel, i, filled(panel, -np.inf))
        i += width


def read_row(x, mask, o, j, tail, vectors, panel):
    """Reads a lane into the panel; returns its largest values, a slot each, and how many values take part.

    ``tail`` is how many values the last vector has.
    """
    raise NotImplementedError("only inside compiled code")


@overload(read_row, jit_options=INLINED)
def _read_row(x, mask, o, j, tail, vectors, panel):
    if mask == types.none:

        def read_all(x, mask, o, j, tail, vectors, panel):
            length, width = x.shape[1], width_of(panel)
            p, top = place(x, o, 0, j), filled(panel, -np.inf)
            last = length - tail
            if x.strides[1] != x.itemsize:
                store(panel, last, top)
                for i in range(length):
                    put(panel, i, number_at(place(x, o, i, j), 0))
                for i in range(0, length, width):
                    top = larger(top, load(panel, i))
                fill_up(panel, length, tail, vectors)
                return top, length
            single = load_first(p, last, tail)
            store(panel, last, single)
            if vectors == 1:
                return single, length
            top = single
            i = 0
            if last >= 4 * width:
                tops = filled_wide(panel, -np.inf, 4)
                while i + 4 * width <= last:
                    wide = load_wide(p, i, 4)
                    store(panel, i, wide)
                    tops = larger(tops, wide)
                    i += 4 * width
                a, b, c, d = quarters(tops)
                top = larger(larger(larger(a, b), larger(c, d)), top)
            while i < last:
                single = load(p, i)
                store(panel, i, single)
                top = larger(top, single)
                i += width
            fill_up(panel, length, tail, vectors)
            return top, length

        return read_all

    def read_masked(x, mask, o, j, tail, vectors, panel):
        length, width = x.shape[1], width_of(panel)
        top = nothing = filled(panel, -np.inf)
        left = 0
        last = length - tail
        fill_up(panel, length, tail, vectors)
        if x.strides[1] == x.itemsize and mask.strides[1] == 1:
            p, m = place(x, o, 0, j), place(mask, o, 0, j)
            for i in range(0, last, width):
                part = mask_at(m, i, top)
                single = select(part, load(p, i), nothing)
                store(panel, i, single)
                top = larger(top, single)
                left += how_many(part)
            part = mask_first(m, last, tail, top)
            single = select(part, load_first(p, last, tail), nothing)
            store(panel, last, single)
            return larger(top, single), left + how_many(part)
        store(panel, last, nothing)
        for i in range(length):
            if mask[o, i, j]:
                left += 1
                put(panel, i, number_at(place(x, o, i, j), 0))
            else:
                put(panel, i, -np.inf)
        for i in range(0, length, width):
            top = larger(top, load(panel, i))
        return top, left

    return read_masked


# --- one number a lane --------------------------------------------------------------


class Notes(NamedTuple):
    """What is noted of the lanes of a panel: pointers to a number a lane, in the compute dtype."""

    shift: object
    magic: object
    floor: object
    top: object
    per_octave: object
    octave_high: object
    octave_low: object
    inverse: object
    second: object
    peak: object
    log_sum: object


@inlined
def blank_notes(like):
    """A notebook on the stack, for numbers like ``like``."""
    return Notes(
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
        on_stack(like, MOST_LANES),
    )


def note_scale(notes, r, temperature, o, j):
    """Puts down the forms of a lane's temperature."""
    raise NotImplementedError("only inside compiled code")


@overload(note_scale, jit_options=INLINED)
def _note_scale(notes, r, temperature, o, j):
    if temperature == types.none:
        return lambda notes, r, temperature, o, j: None

    def note(notes, r, temperature, o, j):
        scale = scale_of(number_at(notes.top, 0), temperature_of(temperature, o, j))
        put(notes.per_octave, r, scale.per_octave)
        put(notes.octave_high, r, scale.octave_high)
        put(notes.octave_low, r, scale.octave_low)
        put(notes.inverse, r, scale.inverse)

    return note


def scale_noted(notes, r, rows, temperature):
    """The :class:`Scale` of ``rows`` (a literal) lanes from lane ``r`` on; without a temperature, plain numbers."""
    raise NotImplementedError("only inside compiled code")


@overload(scale_noted, jit_options=INLINED, prefer_literal=True)
def _scale_noted(notes, r, rows, temperature):
    if temperature == types.none:
        return lambda notes, r, rows, temperature: scale_of(number_at(notes.top, 0), None)
    count = rows.literal_value

    def tempered(notes, r, rows, temperature):
        return Scale(
            numbers_for(notes.per_octave, r, count),
            numbers_for(notes.octave_high, r, count),
            numbers_for(notes.octave_low, r, count),
            numbers_for(notes.inverse, r, count),
            1.0,
        )

    return tempered


def vector_scale(notes, r, temperature):
    """The :class:`Scale` of a whole vector of lanes from lane ``r`` on."""
    raise NotImplementedError("only inside compiled code")


@overload(vector_scale, jit_options=INLINED)
def _vector_scale(notes, r, temperature):
    if temperature == types.none:
        return lambda notes, r, temperature: scale_of(number_at(notes.top, 0), None)

    def tempered(notes, r, temperature):
        return Scale(
            load(notes.per_octave, r),
            load(notes.octave_high, r),
            load(notes.octave_low, r),
            load(notes.inverse, r),
            1.0,
        )

    return tempered


# --- the steps ----------------------------------------------------------------------


def panel_sums(operation):
    """Compiles the step from values to sums; a panel keeps the exponentials if those are what the operation maps."""
    term, keeps = operation.term, operation.maps_exponentials

    @inlined
    def visit(panel, i, x, ref, scale, top, ties):
        e = exp_relative(x, ref, scale)
        if keeps:
            store(panel, i, e)
        return term(e, x, top, ties)

    @inlined
    def visit_rows(panel, i, rows, notes, r, temperature):
        """The terms of four vectors, which are ``rows`` (a literal) lanes, and their ties."""
        ref = Reference(
            numbers_for(notes.shift, r, rows), 0.0, numbers_for(notes.magic, r, rows), numbers_for(notes.floor, r, rows)
        )
        scale, top = scale_noted(notes, r, rows, temperature), numbers_for(notes.top, r, rows)
        return visit(panel, i, load_wide(panel, i, 4), ref, scale, top, filled_wide(panel, 0.0, 4))

    @inlined
    def sum_lane(panel, vectors, notes, r, temperature, next_row):
        """The running sum of a lane of any length, and its ties."""
        width = width_of(panel)
        ref = Reference(number_at(notes.shift, r), 0.0, number_at(notes.magic, r), number_at(notes.floor, r))
        scale, top = scale_noted(notes, r, 1, temperature), number_at(notes.top, r)
        zero = filled(panel, 0.0)
        total = as_total(zero)
        four_ties, ties = filled_wide(panel, 0.0, 4), zero
        i = 0
        for _ in range(vectors // 4):
            e, four_ties = visit(panel, i, load_wide(panel, i, 4), ref, scale, top, four_ties)
            e0, e1, e2, e3 = quarters(e)
            total = plus(zero, total, as_total((e0 + e1) + (e2 + e3)))
            for k in range(4):
                prefetch(next_row, i + k * width)
            i += 4 * width
        if vectors & 1:
            e, ties = visit(panel, i, load(panel, i), ref, scale, top, ties)
            total = plus(zero, total, as_total(e))
        t0, t1, t2, t3 = quarters(four_ties)
        return total, ((t0 + t1) + (t2 + t3)) + ties

    @inlined
    def sum_panel(panel, rows, vectors, notes, temperature, next_row, step, totals, ties):
        """Puts down the sums of the panel's lanes; of lanes beyond ``rows`` whatever comes out."""
        width = width_of(panel)
        if vectors == 1:
            for r in range(0, rows, 4):
                i = r * width
                e, t = visit_rows(panel, i, 4, notes, r, temperature)
                e0, e1, e2, e3 = quarters(e)
                note_total(totals, r, e0, as_total(e0))
                note_total(totals, r + 1, e1, as_total(e1))
                note_total(totals, r + 2, e2, as_total(e2))
                note_total(totals, r + 3, e3, as_total(e3))
                if not keeps:
                    store(ties, i, t)
        elif vectors == 2:
            for r in range(0, rows, 2):
                i = 2 * r * width
                e, t = visit_rows(panel, i, 2, notes, r, temperature)
                e0, e1, e2, e3 = quarters(e)
                note_total(totals, r, e0, as_total(e0 + e1))
                note_total(totals, r + 1, e2, as_total(e2 + e3))
                if not keeps:
                    t0, t1, t2, t3 = quarters(t)
                    store(ties, r * width, t0 + t1)
                    store(ties, r * width + width, t2 + t3)
        else:
            for r in range(rows):
                at = r * vectors * width
                ahead = moved(next_row, r * step)
                total, t = sum_lane(moved(panel, at), vectors, notes, r, temperature, ahead)
                note_total(totals, r, t, total)
                if not keeps:
                    store(ties, r * width, t)

    return sum_panel


def row_map(operation):
    """Compiles the step from a panel to results in memory."""
    value, map_to = operation.map, stretch_map(operation)

    @inlined
    def write_row(panel, found, scale, out, o, j, length, past_cache):
        if out.strides[1] == out.itemsize:
            map_to(panel, length, place(out, o, 0, j), found, scale, past_cache)
            return
        width = width_of(panel)
        for i in range(0, length, width):
            store(panel, i, value(load(panel, i), found, scale))
        for i in range(length):
            put(place(out, o, i, j), 0, number_at(panel, i))

    return write_row


def leave_out(mask, notes, left, rows, results):
    """Settles lanes of which the mask leaves nothing."""
    raise NotImplementedError("only inside compiled code")


@overload(leave_out, jit_options=INLINED)
def _leave_out(mask, notes, left, rows, results):
    if mask == types.none:
        return lambda mask, notes, left, rows, results: None

    def leave_out_masked(mask, notes, left, rows, results):
        for r in range(rows):
            if number_at(left, r) == 0.0:
                put(results, r, -np.inf)
                put(notes.second, r, 0.0)
                put(notes.peak, r, 0.0)
                put(notes.log_sum, r, 0.0)

    return leave_out_masked


def rows(operation, compute):
    """Compiles the sweep over lanes ``first`` to ``last``, of one block each, of a (outer, length, inner) array."""
    settle, one_number, hidden = operation.settle_vector, operation.one_number, operation.hidden
    sum_panel, write_row, map_to = panel_sums(operation), row_map(operation), stretch_map(operation)
    counts_ties = not operation.maps_exponentials
    width = 64 // np.dtype(compute).itemsize
    doubles = 128 // width  # of a running sum
    most = MOST_VECTORS * width
    square, sums = width * most, doubles * most

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        vectors = vectors_in_row(length, width)
        tail = length - (length - 1) // width * width
        group = max(1, min(rows_in_panel(vectors, width), last - first))
        zero = compute(0)
        panel, needed = on_stack(zero, PANEL_ON_STACK), max(group, 4) * vectors * width
        if needed > PANEL_ON_STACK:
            held = np.empty(needed + 2 * _SPARE, compute)
            panel = aligned(held)
        tops, ties = on_stack(zero, square), on_stack(zero, square)
        notes = blank_notes(zero)
        totals, results, left = on_stack(0.0, sums), on_stack(0.0, most), on_stack(0.0, most)
        step = x.strides[0] // x.itemsize if inner == 1 else 0
        # Rows too short to be streamed one by one are streamed as the single stretch that they are.
        streamed = past_cache and length * out.itemsize >= STREAMED_ROW_BYTES
        in_one = mask is None and past_cache and length * out.itemsize < STREAMED_ROW_BYTES
        in_one = in_one and inner == 1 and out.strides[1] == out.itemsize and out.strides[0] == length * out.itemsize
        waiting = target = place(out, first, 0, 0)
        if in_one:
            queue = np.empty(group * length + 4 * _SPARE, out.dtype)
            waiting = aligned(queue)
        head = end = (address_of(target, 0) & 63) // out.itemsize
        target = moved(target, -head)
        for begin in range(first, last, group):
            count = min(group, last - begin)
            start = begin // inner
            o, j = start, begin - start * inner
            for r in range(count):
                top, part = read_row(x, mask, o, j, tail, vectors, moved(panel, r * vectors * width))
                store(tops, r * width, top)
                put(left, r, part)
                note_scale(notes, r, temperature, o, j)
                j += 1
                if j == inner:
                    o, j = o + 1, 0

            for r in range(0, count, width):
                top = largest_of_each(moved(tops, r * width))
                ref = reference(safe_top(top), vector_scale(notes, r, temperature))
                store(notes.top, r, top)
                store(notes.shift, r, ref.shift)
                store(notes.magic, r, ref.magic)
                store(notes.floor, r, ref.floor)
            next_row = place(x, begin + group, 0, 0)
            sum_panel(panel, count, vectors, notes, temperature, next_row, step, totals, ties)

            for r in range(0, count, width):
                top, scale = load(notes.top, r), vector_scale(notes, r, temperature)
                tied = sum_of_each(moved(ties, r * width)) if counts_ties else top
                total = totals_of_each(moved(totals, r * doubles), top)
                second, peak, log_sum, result = settle(top, tied, total, scale)
                store(notes.second, r, second)
                store(notes.peak, r, peak)
                store(notes.log_sum, r, log_sum)
                store(results, r, result[0])
                store(results, r + width - 8, result[1])
            leave_out(mask, notes, left, count, results)

            o, j = start, begin - start * inner
            for r in range(count):
                if one_number:
                    put(place(out, o, 0, j), 0, number_at(results, r))
                else:
                    found = Settled(
                        1.0, number_at(notes.second, r), number_at(notes.peak, r), number_at(notes.log_sum, r)
                    )
                    row, of_row = moved(panel, r * vectors * width), scale_noted(notes, r, 1, temperature)
                    if in_one:
                        map_to(row, length, moved(waiting, end), found, of_row, streamed)
                        end += length
                    else:
                        write_row(row, found, of_row, out, o, j, length, streamed)
                    hide(mask, out, o, j, number_at(results, r), hidden)
                j += 1
                if j == inner:
                    o, j = o + 1, 0
            if in_one:
                head, end, target = flush(waiting, head, end, target)
        if in_one:
            copy(moved(waiting, head), end - head, moved(target, head))
        if past_cache:
            fence()
        if needed > PANEL_ON_STACK:
            hold(held)
        if in_one:
            hold(queue)

    return compiled(sweep, f"{operation.name}_rows")
