"""The sweep along rows that a register holds: a vector of them is turned, computed, turned back and done with.

What short.py does for a tile, one step after the other, is done here for as many rows as a vector has places, without
a loop for each of their values: beside rows of eight, what there is around the exponentials takes longer than those.
(The sums alone from here, and all else from short.py: measured on a Zen 3, 0.8x to 0.9x, and 0.4x to 0.6x of 16 to 63
rows.)
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.exponential import exp_relative, reference
from softmax_numba.cpu.hidden import after, again
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import fence, filled, load, moved, number_at, store, stored_size
from softmax_numba.cpu.scales import Scales, note_scale, scale_for, scale_over
from softmax_numba.cpu.settling import Settled, safe_top
from softmax_numba.cpu.short import MOST_VECTORS, Meanwhile, read_and_write
from softmax_numba.cpu.simd import in_compute_dtype
from softmax_numba.cpu.stretch import copy_stretch
from softmax_numba.cpu.sums import load_total, store_total, total_of_slots
from softmax_numba.cpu.turning import block_from, columns_from, for_block, height_of, rows_from, store_block
from softmax_numba.cpu.waiting import handed_over, nothing_waiting, waiting_for, with_more, without_lines, write_out
from softmax_numba.cpu.wide import joined_two, numbers_over, sum_of_quarters


class Notes(NamedTuple):
    """What is noted of the rows of a tile: pointers to a number a row."""

    top: object
    unit: object
    ties: object
    factor: object
    peak: object
    log_sum: object
    totals: object  # two vectors of sums for as many rows as a vector has places
    scales: Scales


@functools.cache
def _steps(operation, width, wide):
    """Compiles the steps from as many rows as a vector has places, of up to so many values, to sums, and back."""
    term, value, unit_of = operation.term, operation.map, operation.largest_term
    keeps, counts_ties = operation.maps_exponentials, operation.counts_ties
    height = height_of(width)
    in_two = height < width

    @inlined
    def note_terms(columns, terms, block, before, top, ref, scale):
        """Puts down the terms of a block's values, four of each row at a time, none of them computed ``before`` others;
        returns the last ones and the ties. Exponentials that are kept replace the values, and ``terms`` is where those
        stand if they are the terms."""
        ref, scale, top = for_block(ref, block, 4), for_block(scale, block, 4), for_block(top, block, 4)
        none = for_block(filled(columns, 0.0), block, 4)
        ties = for_block(filled(columns, 0.0), block, 1)
        for c in range(block * height, block * height + wide * width, 4 * width):
            p = moved(columns, c)
            e = exp_relative(after(block_from(p, 4), before), ref, scale)
            before = e
            x = e
            if counts_ties:
                x = block_from(again(p), 4)
                if keeps:
                    store_block(p, e, 4)
            e, tied = term(e, x, top, none)
            if counts_ties:
                ties = ties + sum_of_quarters(tied)
            store_block(moved(terms, c), e, 4)
        return before, ties

    @inlined
    def read_rows(p, stride, length, columns):
        return columns_from(p, stride, length, columns, filled(columns, -np.inf), wide)

    @inlined
    def sum_rows(columns, terms, notes, k, temperature):
        """Notes the sums of rows from ``k`` on."""
        top, scale = load(notes.top, k), scale_for(notes.scales, k, width, temperature)
        ref = reference(safe_top(top), scale)
        first, ties = note_terms(columns, terms, 0, block_from(columns, 4), top, ref, scale)
        if in_two:
            _, more = note_terms(columns, terms, 1, first, top, ref, scale)
            if counts_ties:
                store(notes.ties, k, joined_two(ties, more))
        elif counts_ties:
            store(notes.ties, k, ties)
        if counts_ties:
            store(notes.unit, k, unit_of(top, ref, scale))
        store_total(notes.totals, k // width, total_of_slots(terms, width, 1, wide))

    @inlined
    def write_block(to, step, length, columns, notes, k, block, temperature):
        k += block * height
        found = Settled(
            numbers_over(notes.factor, k, height, wide),
            numbers_over(notes.peak, k, height, wide),
            numbers_over(notes.log_sum, k, height, wide),
        )
        scale = scale_over(notes.scales, k, height, wide, temperature)
        results = value(block_from(moved(columns, block * height), wide), found, scale)
        rows_from(moved(to, block * height * step), step * stored_size(to), length, results, wide)

    @inlined
    def write_rows(to, step, length, columns, notes, k, temperature):
        write_block(to, step, length, columns, notes, k, 0, temperature)
        if in_two:
            write_block(to, step, length, columns, notes, k, 1, temperature)

    return read_rows, sum_rows, write_rows


@functools.cache
def tiny_rows(operation, compute):
    """Compiles the sweep over tiles ``first`` to ``last`` of an array (1, length, lanes) whose lanes are rows no longer
    than a register: their own values lie side by side, and so do their results. There is no mask."""
    one_number, put_lane, store_lanes = operation.one_number, operation.put, operation.store
    settle, counts_ties, keeps = operation.settle_vector, operation.counts_ties, operation.maps_exponentials
    width = 64 // np.dtype(compute).itemsize
    height = height_of(width)
    half = height // 2
    in_halves = half >= 4
    read_few, sum_few, write_few = _steps(operation, width, max(4, half))
    read_many, sum_many, write_many = _steps(operation, width, height)
    room = width * height
    most = MOST_VECTORS * width
    all_columns, sums = MOST_VECTORS * room, 16 * MOST_VECTORS

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        few = in_halves and length <= half
        zero = compute(0)
        columns, terms, totals = on_stack(zero, all_columns), on_stack(zero, room), on_stack(0.0, sums)
        tops, units, ties = on_stack(zero, most), on_stack(zero, most), on_stack(zero, most)
        factors, peaks, logs = on_stack(zero, most), on_stack(zero, most), on_stack(zero, most)
        scales = Scales(on_stack(zero, most), on_stack(zero, most), on_stack(zero, most), on_stack(zero, most))
        notes = Notes(tops, units, ties, factors, peaks, logs, totals, scales)
        results = on_stack(0.0, most)
        # Of rows fewer than a vector has places: the last one stands for those that are missing.
        padded, padded_out = allocated(x, room), allocated(out, room)
        step, to_step, down = x.strides[2] // x.itemsize, out.strides[2] // out.itemsize, out.strides[1] // out.itemsize
        in_one = past_cache and not one_number and to_step == length
        waiting = leaving = nothing_waiting(place(out, 0, 0, first * most))
        if in_one:
            leaving = waiting_for(out, waiting.target, most * length)
            waiting = waiting_for(out, waiting.target, most * length)
        quads = (length + 3) // 4
        for t in range(first, last):
            j = t * most
            lanes = min(most, inner - j)
            if temperature is not None:
                for k in range((lanes + width - 1) // width * width):
                    note_scale(scales, k, temperature_of(temperature, 0, j + min(k, lanes - 1)))
            if in_one:
                leaving, waiting = handed_over(waiting, leaving.values)
            for k in range(0, lanes, width):
                p, x_step, count = place(x, 0, 0, j + k), step, lanes - k
                if count < width:
                    for r in range(width):
                        copy_stretch(moved(p, min(r, count - 1) * step), length, moved(padded, r * height))
                    p, x_step = padded, height
                at = moved(columns, k * height)
                if few:
                    store(tops, k, read_few(p, x_step * x.itemsize, length, at))
                else:
                    store(tops, k, read_many(p, x_step * x.itemsize, length, at))
            meanwhile = Meanwhile(leaving, place(x, 0, 0, j + most))
            for k in range(0, lanes, width):
                for q in range(k // width * quads, (k // width + 1) * quads):
                    read_and_write(meanwhile, q, temperature)
                at = moved(columns, k * height)
                if few:
                    sum_few(at, terms if counts_ties else at, notes, k, temperature)
                else:
                    sum_many(at, terms if counts_ties else at, notes, k, temperature)
            for k in range(0, lanes, width):
                top = unit = tied = load(tops, k)
                if counts_ties:
                    unit, tied = load(units, k), load(ties, k)
                factor, peak, log_sum, result = settle(top, unit, tied, load_total(totals, k // width))
                if keeps or one_number:
                    store(factors, k, factor)
                if not keeps or one_number:
                    store(peaks, k, peak)
                    store(logs, k, log_sum)
                if one_number:
                    store(results, k, result[0])
                    store(results, k + width - 8, result[1])
            for k in range(0, lanes, width):
                to, count = place(out, 0, 0, j + k), lanes - k
                if one_number and to_step == 1:
                    number = in_compute_dtype(columns, (load(results, k), load(results, k + width - 8)))
                    store_lanes(to, down, count, number, load(factors, k), load(peaks, k), load(logs, k))
                elif one_number:
                    for r in range(k, min(k + width, lanes)):
                        factor, peak, log_sum = number_at(factors, r), number_at(peaks, r), number_at(logs, r)
                        put_lane(out, 0, j + r, number_at(results, r), factor, peak, log_sum)
                else:
                    if in_one:
                        to = moved(waiting.values, waiting.end + k * length)
                    whole, whole_step = to, to_step
                    if count < width:
                        whole, whole_step = padded_out, height
                    if few:
                        write_few(whole, whole_step, length, moved(columns, k * height), notes, k, temperature)
                    else:
                        write_many(whole, whole_step, length, moved(columns, k * height), notes, k, temperature)
                    if count < width:
                        for r in range(count):
                            copy_stretch(moved(padded_out, r * height), length, moved(to, r * to_step))
            if in_one:
                done = (lanes + width - 1) // width * quads * 4 * width
                without_lines(leaving, min(leaving.whole, done))
                waiting = with_more(waiting, lanes * length)
        if in_one:
            write_out(waiting)
            release(leaving.values)
        if past_cache:
            fence()
        release(padded)
        release(padded_out)

    return compiled(sweep, f"{operation.name}_tiny", body=True)
