"""The sweep along rows of one block: vectors run along the lane, and several lanes are on their way at once.

One lane alone is a chain: its maximum, its exponentials, their sum, the quotient, the results, each waiting for the
one before. So as many lanes as a panel holds take each step together. They are read into a panel or where they stand
(panel.py), and what is one number a lane (its maximum, its sum, its logarithm) is computed for all of them in one
vector.

Exponentials are computed four vectors at a time (wide.py): 0.85x the time of one vector after the other.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import hide, temperature_of
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.crosswise import largest_of_each, note_total, sum_of_each, totals_of_each
from softmax_numba.cpu.exponential import Reference, exp_relative, reference
from softmax_numba.cpu.hidden import again
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import (
    fence,
    filled,
    load,
    moved,
    number_at,
    prefetch,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.panel import MOST_VECTORS, lanes_in_panel, read_in_place, read_lane, rows_of, vectors_in_lane
from softmax_numba.cpu.scales import Scales, note_scale, scale_for
from softmax_numba.cpu.settling import Settled, safe_top
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.sums import as_total, plus, plus_quad
from softmax_numba.cpu.waiting import nothing_waiting, stream_quad, waiting_for, with_more, without_lines, write_out
from softmax_numba.cpu.wide import (
    filled_wide,
    load_apart,
    load_wide,
    numbers_for,
    quarters,
    store_apart,
)

MOST_LANES = 16 * MOST_VECTORS
# A panel of so many numbers stands on the stack: a call on ten numbers would notice the allocation.
PANEL_ON_STACK = 2048
# Rows that follow each other wait until the next panel is computed and are streamed meanwhile: measured, 1.05x to 1.4x
# up to this size, and nothing where a panel is a single row.
WAITING_ROW_BYTES = 2**13
# Others are streamed one by one from here on: measured, 0.6x to 0.9x at 1 kB, 1.0x to 1.5x at 2 kB, 1.8x at 8 kB.
STREAMED_ROW_BYTES = 2**11
# How far ahead of the lanes it computes a panel asks memory for more.
AHEAD_BYTES = 2**15


class Notes(NamedTuple):
    """What is noted of the lanes of a panel: pointers to a number a lane, in the compute dtype."""

    shift: object
    magic: object
    floor: object
    top: object
    unit: object
    factor: object
    peak: object
    log_sum: object
    scales: Scales


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
        Scales(
            on_stack(like, MOST_LANES),
            on_stack(like, MOST_LANES),
            on_stack(like, MOST_LANES),
            on_stack(like, MOST_LANES),
        ),
    )


@inlined
def lanes_ahead(group, lanes, lane_bytes):
    """How many lanes ahead of a panel of ``group`` memory is asked for, of so many ``lanes``."""
    if group < lanes:
        return (AHEAD_BYTES // (group * lane_bytes) + 1) * group
    return group


@functools.cache
def referring(operation, width):
    """Compiles the step from lanes' largest values to what their exponentials are relative to."""
    term, counts_ties = operation.largest_term, operation.counts_ties

    @inlined
    def refer_lanes(tops, count, notes, temperature):
        for r in range(0, count, width):
            top = largest_of_each(moved(tops, r * width), count - r)
            scale = scale_for(notes.scales, r, width, temperature)
            ref = reference(safe_top(top), scale)
            store(notes.top, r, top)
            if counts_ties:
                store(notes.unit, r, term(top, ref, scale))
            store(notes.shift, r, ref.shift)
            store(notes.magic, r, ref.magic)
            store(notes.floor, r, ref.floor)

    return refer_lanes


@functools.cache
def panel_sums(operation):
    """Compiles the step from values to sums; a panel keeps the exponentials if those are what the operation maps."""
    term, term_of_quad, keeps = operation.term, operation.term_of_quad, operation.maps_exponentials
    counts_ties = operation.counts_ties

    @inlined
    def visit_lanes(panel, i, step, lanes, notes, r, temperature):
        """The terms of four vectors, ``step`` numbers apart, of so many lanes (a literal), and their ties."""
        ref = Reference(
            numbers_for(notes.shift, r, lanes),
            0.0,
            numbers_for(notes.magic, r, lanes),
            numbers_for(notes.floor, r, lanes),
        )
        scale, top = scale_for(notes.scales, r, lanes, temperature), numbers_for(notes.top, r, lanes)
        x = load_apart(panel, i, step, 4)
        e = exp_relative(x, ref, scale)
        if counts_ties:
            x = load_apart(again(panel), i, step, 4)
        if keeps:
            store_apart(panel, i, step, e)
        return term(e, x, top, filled_wide(panel, 0.0, 4))

    @inlined
    def sum_lane(panel, values, whole, vectors, notes, r, temperature, later, waiting):
        """The running sum of a lane of any length, whose ``whole`` first values are not in the panel, and its ties;
        meanwhile memory has its turn."""
        width = width_of(panel)
        ref = Reference(number_at(notes.shift, r), 0.0, number_at(notes.magic, r), number_at(notes.floor, r))
        scale, top = scale_for(notes.scales, r, 1, temperature), number_at(notes.top, r)
        zero = filled(panel, 0.0)
        total, ties = as_total(zero), zero
        last = (vectors & ~3) * width
        for i in range(0, last, 4 * width):
            p = values if i < whole else panel
            x = load_wide(p, i, 4)
            e = exp_relative(x, ref, scale)
            rest, ties = term_of_quad(e, x, p, i, top, ties)
            if keeps:
                store(panel, i, e)
            total = plus_quad(zero, total, rest)
            for k in range(4):
                prefetch(later, i + k * width)
            stream_quad(waiting, r * last + i)
        if vectors & 1:
            one = load(panel, last)
            e = exp_relative(one, ref, scale)
            rest, ties = term(e, one, top, ties)
            if keeps:
                store(panel, last, e)
            total = plus(zero, total, as_total(rest))
        return total, ties

    @inlined
    def sum_panel(panel, in_x, lanes, vectors, notes, temperature, later, step, waiting, totals, ties):
        """Puts down the sums of the panel's lanes; of lanes beyond ``lanes`` whatever comes out."""
        width = width_of(panel)
        if vectors == 1 or vectors == 3:
            apart = vectors * width
            for r in range(0, lanes, 4):
                e, t = visit_lanes(panel, r * apart, apart, 4, notes, r, temperature)
                for i in range(r * apart + width, (r + 1) * apart, width):
                    more, tied = visit_lanes(panel, i, apart, 4, notes, r, temperature)
                    e, t = e + more, t + tied
                e0, e1, e2, e3 = quarters(e)
                note_total(totals, r, e0, as_total(e0))
                note_total(totals, r + 1, e1, as_total(e1))
                note_total(totals, r + 2, e2, as_total(e2))
                note_total(totals, r + 3, e3, as_total(e3))
                if counts_ties:
                    store(ties, r * width, t)
        elif vectors == 2:
            for r in range(0, lanes, 2):
                i = 2 * r * width
                e, t = visit_lanes(panel, i, width, 2, notes, r, temperature)
                e0, e1, e2, e3 = quarters(e)
                note_total(totals, r, e0, as_total(e0 + e1))
                note_total(totals, r + 1, e2, as_total(e2 + e3))
                if counts_ties:
                    t0, t1, t2, t3 = quarters(t)
                    store(ties, r * width, t0 + t1)
                    store(ties, r * width + width, t2 + t3)
        else:
            for r in range(lanes):
                lane, values = moved(panel, r * vectors * width), moved(in_x.values, r * in_x.apart)
                asked = moved(later, r * step)
                total, t = sum_lane(lane, values, in_x.whole, vectors, notes, r, temperature, asked, waiting)
                note_total(totals, r, t, total)
                if counts_ties:
                    store(ties, r * width, t)

    return sum_panel


@inlined
def _leave_out(notes, left, lanes, results):
    """Settles lanes of which the mask leaves nothing."""
    for r in range(lanes):
        if number_at(left, r) == 0.0:
            put(results, r, -np.inf)
            put(notes.factor, r, 0.0)
            put(notes.peak, r, 0.0)
            put(notes.log_sum, r, 0.0)


@functools.cache
def rows(operation, compute):
    """Compiles the sweep over lanes ``first`` to ``last``, of one block each, of a (outer, length, inner) array."""
    settle, one_number, hidden = operation.settle_vector, operation.one_number, operation.hidden
    put_lane = operation.put
    value, sum_panel, map_to = operation.map, panel_sums(operation), stretch_map(operation.map)
    keeps = operation.maps_exponentials  # in the panel; others map the values
    counts_ties = operation.counts_ties
    width = 64 // np.dtype(compute).itemsize
    refer_lanes, doubles = referring(operation, width), 128 // width  # of a running sum
    most = MOST_VECTORS * width
    square, sums = width * most, doubles * most

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        vectors = vectors_in_lane(length, width)
        tail = length - (length - 1) // width * width
        group = max(1, min(lanes_in_panel(vectors, width, one_number), last - first))
        zero = compute(0)
        in_place = read_in_place(x, mask, zero)
        filled_up = (group + 3) // 4 * 4 if vectors <= 3 else group
        panel, needed = on_stack(zero, PANEL_ON_STACK), filled_up * vectors * width
        if needed > PANEL_ON_STACK:
            panel = allocated(zero, needed)
        tops, ties = on_stack(zero, square), on_stack(zero, square)
        notes = blank_notes(zero)
        totals, results, left = on_stack(0.0, sums), on_stack(0.0, most), on_stack(0.0, most)
        step = x.strides[0] // x.itemsize if inner == 1 else 0
        ahead = lanes_ahead(group, last - first, length * x.itemsize)
        side_by_side = out.strides[1] == out.itemsize
        in_one = mask is None and not one_number and past_cache and inner == 1 and side_by_side
        in_one = in_one and out.strides[0] == length * out.itemsize < WAITING_ROW_BYTES
        streamed = past_cache and not in_one and length * out.itemsize >= STREAMED_ROW_BYTES
        waiting = nothing_waiting(place(out, first, 0, 0))
        if in_one:
            waiting = waiting_for(out, waiting.target, group * length)
        # What is computed of no lane, because four vectors or sixteen lanes are taken at once: of some number, since
        # half of a pointer that was left there would be a subnormal one (crosswise.py).
        for r in range(group, filled_up):
            for i in range(vectors):
                store(panel, (r * vectors + i) * width, filled(panel, 0.0))
        if temperature is not None:
            for r in range(group, (group + width - 1) // width * width):
                note_scale(notes.scales, r, 1.0)
        for begin in range(first, last, group):
            count = min(group, last - begin)
            start = begin // inner
            o, j = start, begin - start * inner
            for r in range(count):
                top, part = read_lane(x, mask, o, j, tail, vectors, moved(panel, r * vectors * width), in_place)
                store(tops, r * width, top)
                put(left, r, part)
                if temperature is not None:
                    note_scale(notes.scales, r, temperature_of(temperature, o, j))
                j += 1
                if j == inner:
                    o, j = o + 1, 0

            refer_lanes(tops, count, notes, temperature)
            later = place(x, begin + ahead, 0, 0)
            in_x = rows_of(x, begin, panel, in_place)
            sum_panel(panel, in_x, count, vectors, notes, temperature, later, step, waiting, totals, ties)
            if in_one:
                done = min(waiting.whole, count * (vectors & ~3) * width)
                waiting = without_lines(waiting, done if vectors > 3 else 0)

            for r in range(0, count, width):
                top = load(notes.top, r)
                unit = tied = top
                if counts_ties:
                    unit, tied = load(notes.unit, r), sum_of_each(moved(ties, r * width), count - r)
                total = totals_of_each(moved(totals, r * doubles), top, count - r)
                factor, peak, log_sum, result = settle(top, unit, tied, total)
                store(notes.factor, r, factor)
                store(notes.peak, r, peak)
                store(notes.log_sum, r, log_sum)
                store(results, r, result[0])
                store(results, r + width - 8, result[1])
            if mask is not None:
                _leave_out(notes, left, count, results)

            o, j = start, begin - start * inner
            for r in range(count):
                found = Settled(number_at(notes.factor, r), number_at(notes.peak, r), number_at(notes.log_sum, r))
                if one_number:
                    put_lane(out, o, j, number_at(results, r), found.factor, found.peak, found.log_sum)
                else:
                    lane, scale = moved(panel, r * vectors * width), scale_for(notes.scales, r, 1, temperature)
                    if side_by_side:
                        to = moved(waiting.values, waiting.end + r * length) if in_one else place(out, o, 0, j)
                        if not keeps and in_x.whole > 0:
                            lane = moved(in_x.values, r * in_x.apart)
                        map_to(lane, length, to, found, scale, streamed)
                    else:
                        for i in range(0, length, width):
                            given = lane
                            if not keeps and i < in_x.whole:
                                given = moved(in_x.values, r * in_x.apart)
                            store(lane, i, value(load(given, i), found, scale))
                        for i in range(length):
                            put(place(out, o, i, j), 0, number_at(lane, i))
                    if mask is not None and not np.isfinite(number_at(results, r)):
                        hide(mask, out, o, j, hidden)
                j += 1
                if j == inner:
                    o, j = o + 1, 0
            if in_one:
                waiting = with_more(waiting, count * length)
        if in_one:
            write_out(waiting)
        if past_cache:
            fence()
        if needed > PANEL_ON_STACK:
            release(panel)

    return compiled(sweep, f"{operation.name}_rows", body=True)
