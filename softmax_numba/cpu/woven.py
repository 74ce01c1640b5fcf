"""The sweep along rows whose values lie side by side: three of them are under way at once, woven quad by quad.

The exponentials of a row keep a core's arithmetic busy and its memory idle; looking for the maximum of a row and
writing results do the opposite. So while four vectors of a row's exponentials are computed, four of a later row are
looked at for its maximum and four results of an earlier one are written (mates.py): measured, 1.2x to 1.3x the speed of
one step after the other (rows.py) where the rows stay in a cache.

What is one number a row (its maximum, its sum, its logarithm) is computed for a group of rows in one vector. A group's
rows have been looked at a group before their exponentials are computed, and their results are written a group after,
so that nothing waits for a chain of operations from one to the next.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.crosswise import note_total, sum_of_each, totals_of_each
from softmax_numba.cpu.exponential import Reference, exp_relative, held
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.mates import Later, largest_values, look, mates
from softmax_numba.cpu.memory import (
    fence,
    filled,
    load,
    load_first,
    moved,
    number_at,
    store,
    store_first,
    width_of,
)
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES, referring
from softmax_numba.cpu.scales import Scales, note_scale, scale_for
from softmax_numba.cpu.settling import Settled
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.sums import as_total, plus, plus_quad
from softmax_numba.cpu.waiting import (
    handed_over,
    nothing_waiting,
    stream_quad,
    waiting_for,
    with_more,
    without_lines,
    write_out,
)
from softmax_numba.cpu.wide import filled_wide, load_first_wide, load_wide, sum_of_quarters

# How much of the caches the exponentials of a group take, if it is more than one row. There are two groups of them,
# and two of results that wait: with registers of 512 bits, twice as much was 0.87x as fast past the caches. With others
# such rows do not wait: measured on a Zen 3 1.03x to 1.14x, since one row is settled in the time of sixteen.
GROUP_BYTES = 2**12 if REGISTER_BITS == 512 else 2**15
# Where none are kept, so much of the rows themselves: measured on a Zen 3, 1.05x to 1.25x the speed of groups of 4 kB.
ROWS_BYTES = 2**15
MOST = 16  # rows of a group: one vector of them
# Three groups are on their way at once: with fewer than so many, too little is woven. Measured on a Zen 3 with 12 to 64
# rows a thread, 1.05x to 1.1x; where a group is longest for its logarithms' sake, 0.88x to 1.1x.
LEAST_GROUPS = 4
# Rows of up to so many bytes that follow each other wait until later ones are computed and are streamed as one stretch.
WAITING_ROW_BYTES = 2**12
# Results of so many bytes a row are written from where a cache line begins: measured, 1.1x at 4 kB, 0.95x at 400 B.
ALIGNED_ROW_BYTES = 2**10
# How far ahead of the rows it looks at a sweep asks memory for more.
AHEAD_BYTES = 2**13


class Notes(NamedTuple):
    """What is noted of the rows of a group before their exponentials are computed: pointers to a number a row."""

    top: object
    unit: object
    shift: object
    magic: object
    floor: object
    scales: Scales


@inlined
def _blank(like):
    return on_stack(like, MOST)


@inlined
def _blank_notes(like):
    scales = Scales(_blank(like), _blank(like), _blank(like), _blank(like))
    return Notes(_blank(like), _blank(like), _blank(like), _blank(like), _blank(like), scales)


@functools.cache
def _row_step(operation):
    """Compiles what is done while the exponentials of a row are computed."""
    term, term_of_quad, keeps, value = (
        operation.term,
        operation.term_of_quad,
        operation.maps_exponentials,
        operation.map,
    )
    _, write_quad, _ = mates(operation)

    @inlined
    def visit(kept, i, x, ref, scale):
        e = exp_relative(x, ref, scale)
        if keeps:
            store(kept, i, e)
        return e

    @inlined
    def compute_row(p, length, kept, notes, r, temperature, later, mate, rest_too, waiting, begun):
        """The running sum of row ``r`` of a group, its ties, and the largest values of the whole quads of the later
        one. Of the mate the last results, less than a quad, are written only if ``rest_too``."""
        width = width_of(notes.top)
        ref = Reference(number_at(notes.shift, r), 0.0, number_at(notes.magic, r), number_at(notes.floor, r))
        scale, top = held(scale_for(notes.scales, r, 1, temperature)), number_at(notes.top, r)
        zero = filled(notes.top, 0.0)
        total, ties = as_total(zero), zero
        tops = filled(notes.top, -np.inf)
        whole = length // (4 * width) * (4 * width)
        for i in range(0, whole, 4 * width):
            x = load_wide(p, i, 4)
            e, ties = term_of_quad(visit(kept, i, x, ref, scale), x, p, i, top, ties)
            total = plus_quad(zero, total, e)
            tops = look(later, i, tops)
            write_quad(mate, i)
            stream_quad(waiting, begun + i)
        rest = length - whole
        if rest > 0:
            tops = look(later, whole, tops)
            stream_quad(waiting, begun + whole)
            if rest_too:
                given = load_first_wide(mate.source, whole, rest, 4)
                store_first(mate.target, whole, rest, value(given, mate.found, mate.scale))
        if rest > width:
            x = load_first_wide(p, whole, rest, 4)
            e, tied = term(visit(kept, whole, x, ref, scale), x, top, filled_wide(notes.top, 0.0, 4))
            ties = ties + sum_of_quarters(tied)
            total = plus_quad(zero, total, e)
        elif rest > 0:
            single = load_first(p, whole, rest)
            e, ties = term(visit(kept, whole, single, ref, scale), single, top, ties)
            total = plus(zero, total, as_total(e))
        return total, ties, tops

    return compute_row


@functools.cache
def woven(operation, compute):
    """Compiles the sweep over rows ``first`` to ``last``, of one block each, of an array (rows, length, 1) whose rows'
    own values lie side by side, and so do their results, of which there is one for each. There is no mask."""
    settle, keeps, map_to = operation.settle_vector, operation.maps_exponentials, stretch_map(operation.map)
    compute_row, (mate_of, _, finish) = _row_step(operation), mates(operation)
    size = np.dtype(compute).itemsize
    width = 64 // size
    refer_rows = referring(operation, width)
    quad, square = 4 * width, width * width
    sums = 128  # numbers of the running sums of a group

    @inlined
    def settle_rows(totals, ties, count, notes, settled):
        """Notes what each row comes to."""
        top = load(notes.top, 0)
        unit = tied = top
        if not keeps:
            unit, tied = load(notes.unit, 0), sum_of_each(ties, count)
        total = totals_of_each(totals, top, count)
        factor, peak, log_sum, _ = settle(top, unit, tied, total)
        store(settled.factor, 0, factor)
        store(settled.peak, 0, peak)
        store(settled.log_sum, 0, log_sum)

    @inlined
    def of_row(settled, r):
        return Settled(number_at(settled.factor, r), number_at(settled.peak, r), number_at(settled.log_sum, r))

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, zero = x.shape[1], compute(0)
        whole, padded = length // quad * quad, (length + quad - 1) // quad * quad
        room_bytes = GROUP_BYTES if keeps else ROWS_BYTES
        most = (last - first) // LEAST_GROUPS if keeps else last - first
        group = max(1, min(width, room_bytes // (padded * size), most))
        # Rows that go past the cache wait where they follow each other, long ones are streamed row by row.
        waits = past_cache and out.strides[0] == length * out.itemsize <= WAITING_ROW_BYTES
        streamed = past_cache and not waits and length * out.itemsize >= STREAMED_ROW_BYTES
        aligned = not waits and length * out.itemsize >= ALIGNED_ROW_BYTES
        kept = others = room = allocated(zero, 2 * group * padded if keeps else 0)
        if keeps:
            others = moved(room, group * padded)
        waiting = leaving = nothing_waiting(place(out, first, 0, 0))
        if waits:
            leaving = waiting_for(out, waiting.target, group * length)
            waiting = waiting_for(out, waiting.target, group * length)
        tops, ties = on_stack(zero, square), on_stack(zero, square)
        notes, next_notes, scales = _blank_notes(zero), _blank_notes(zero), _blank_notes(zero).scales
        settled = Settled(_blank(zero), _blank(zero), _blank(zero))
        totals = on_stack(0.0, sums)
        nothing, ahead = filled(tops, -np.inf), AHEAD_BYTES // x.itemsize
        step, out_step = x.strides[0] // x.itemsize, out.strides[0] // out.itemsize
        # Of the group that begins at `at`, `count` rows are computed; of the one before, `before` results are written;
        # the `known` rows of the next one have been looked at; the `coming` ones of the one after that are.
        at, before, count, known = first - 2 * group, 0, 0, 0
        while at < last + group:
            coming = max(0, min(group, last - at - 2 * group))
            if waits:
                leaving, waiting = handed_over(waiting, leaving.values)
            if known > 0:
                if temperature is not None:
                    for r in range(width):
                        note_scale(next_notes.scales, r, temperature_of(temperature, at + group + min(r, known - 1), 0))
                refer_rows(tops, known, next_notes, temperature)
            # The first row of each group: computed, looked at, mapped, and written.
            here, there = place(x, at, 0, 0), place(x, at + 2 * group, 0, 0)
            source, source_step = (others, padded) if keeps else (place(x, at - group, 0, 0), step)
            target, target_step = place(out, at - group, 0, 0), out_step
            if waits:
                target, target_step = moved(waiting.values, waiting.end), length
            for r in range(count):
                due = length if r < before else 0
                given, to = moved(source, r * source_step), moved(target, r * target_step)
                found, scale = of_row(settled, r), scale_for(scales, r, 1, temperature)
                mate = mate_of(given, to, due, found, scale, aligned, streamed)
                seen = moved(there, r * step)
                later, rest_too = Later(seen, whole if r < coming else 0, moved(seen, ahead)), due > 0 and not aligned
                row, kept_row = moved(here, r * step), moved(kept, r * padded)
                total, tied, largest = compute_row(
                    row, length, kept_row, notes, r, temperature, later, mate, rest_too, leaving, r * padded
                )
                note_total(totals, r, tied, total)
                if not keeps:
                    store(ties, r * width, tied)
                if r < coming:
                    store(tops, r * width, largest_values(seen, length, whole, largest))
                if due > 0 and aligned:
                    finish(mate, whole)
            for r in range(count, coming):
                store(tops, r * width, largest_values(moved(there, r * step), length, 0, nothing))
            for r in range(count, before):
                given, to = moved(source, r * source_step), moved(target, r * target_step)
                map_to(given, length, to, of_row(settled, r), scale_for(scales, r, 1, temperature), streamed)
            if count > 0:
                settle_rows(totals, ties, count, notes, settled)
            if waits:
                without_lines(leaving, min(leaving.whole, count * padded))
                waiting = with_more(waiting, before * length)
            at, before, count, known = at + group, count, known, coming
            kept, others = others, kept
            spare = Notes(notes.top, notes.unit, notes.shift, notes.magic, notes.floor, scales)
            scales, notes, next_notes = notes.scales, next_notes, spare
        if waits:
            release(leaving.values)
            write_out(waiting)
        if past_cache:
            fence()
        release(room)

    return compiled(sweep, f"{operation.name}_woven", body=True)
