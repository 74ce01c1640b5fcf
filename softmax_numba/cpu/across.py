"""Lanes that lie side by side in vectors: a vector holds one value of each of its lanes, and a lane is never folded.

The sums follow the order of lane.py slot by slot, so that a lane has the bits that it would have along a vector.
"""

import functools

import numpy as np

from softmax_numba.cpu.exponential import exp_relative, held, reference
from softmax_numba.cpu.hidden import again, some_zero
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import filled, load, moved, store, width_of
from softmax_numba.cpu.scales import reference_of_four, scale_for, scale_of_four
from softmax_numba.cpu.settling import HIGH, LOG, PEAK, SECOND, TIES, TOP, UNIT, safe_top
from softmax_numba.cpu.simd import larger
from softmax_numba.cpu.sums import as_total, load_sums, load_total, plus, store_sums, store_total, total_of_slots
from softmax_numba.cpu.wide import filled_wide, fourfold, largest_of_quarters, load_apart, store_apart, sum_of_quarters

QUAD = 4  # values that are computed at once


@inlined
def largest_of_lanes(p, step, count):
    """The largest value of each lane of one vector, whose values stand ``step`` numbers apart."""
    tops = filled_wide(p, -np.inf, 4)
    for i in range(0, count, 4):
        tops = larger(tops, load_apart(p, i * step, step, 4))
    return largest_of_quarters(tops)


@inlined
def _add_up(terms, step, count, slots, first):
    """Adds the terms of a chunk, at most four a slot, to the slots' running sums."""
    width = width_of(terms)
    row, rows = width * step, (count + width - 1) // width
    zero = filled(terms, 0.0)
    for s in range(min(count, width)):
        k = s * step
        quad = load(terms, k)
        if rows > 1:
            quad = quad + load(terms, k + row)
        if rows == 3:
            quad = quad + load(terms, k + 2 * row)
        elif rows == 4:
            quad = quad + (load(terms, k + 2 * row) + load(terms, k + 3 * row))
        total = as_total(quad)
        if not first:
            total = plus(zero, load_total(slots, s), total)
        store_total(slots, s, total)


@functools.cache
def _slots(width):
    """Compiles how many vectors of terms the running sum of so many values is made of."""
    half = width // 2

    @inlined
    def slots_of(count):
        if count <= QUAD:
            return QUAD
        if count <= half:
            return half
        return (count + width - 1) // width * width

    return slots_of


@functools.cache
def _total_of_few(width):
    half = width // 2

    @inlined
    def total_of_few(terms, step, count):
        """The running sum of at most four values a slot."""
        if count <= QUAD:
            return total_of_slots(terms, step, 1, QUAD)
        if count <= half:
            return total_of_slots(terms, step, 1, half)
        if count <= width:
            return total_of_slots(terms, step, 1, width)
        if count <= 2 * width:
            return total_of_slots(terms, step, 2, width)
        if count <= 3 * width:
            return total_of_slots(terms, step, 3, width)
        return total_of_slots(terms, step, 4, width)

    return total_of_few


def _in_place(operation):
    """Whether terms replace the values: they are the exponentials that are kept."""
    return operation.maps_exponentials and not operation.counts_ties


@functools.cache
def _exponentials(operation, width, work):
    """Compiles the terms of some values of one vector of lanes."""
    slots_of = _slots(width)
    term, counts_ties = operation.term, operation.counts_ties
    keeps_both = operation.maps_exponentials and counts_ties

    @inlined
    def exponentials(p, step, terms, term_step, count, ref, scale, top, temperature, meanwhile, begun):
        """The terms of ``count`` values, and zeros in what else there is of slots; returns the ties. Where the
        exponentials are kept, and are not the terms, they replace the values.

        Every quad of values takes a part of the work for memory along, the first of them part ``begun``.
        """
        ties, none = filled(p, 0.0), filled_wide(p, 0.0, 4)
        for i in range(0, count, 4):
            x = load_apart(p, i * step, step, 4)
            e = exp_relative(x, ref, scale)
            if counts_ties:
                x = load_apart(again(p), i * step, step, 4)
            if keeps_both:
                store_apart(p, i * step, step, e)
            e, tied = term(e, x, top, none)
            ties = ties + sum_of_quarters(tied)  # one vector to carry along, not four
            store_apart(terms, i * term_step, term_step, e)
            work(meanwhile, begun + i // 4, temperature)
        zeros = filled_wide(terms, some_zero(terms), 4)
        for i in range((count + 3) & ~3, slots_of(count), 4):
            store_apart(terms, i * term_step, term_step, zeros)
        return ties

    return exponentials


@functools.cache
def _reduction(operation, width, work):
    """Compiles the reduction of one vector of lanes, ``count`` values each."""
    in_place, term = _in_place(operation), operation.largest_term
    exponentials, total_of_few = _exponentials(operation, width, work), _total_of_few(width)

    @inlined
    def reduce_vector(p, terms, step, count, top, scale, slots, temperature, meanwhile, begun):
        """The lanes' largest terms, their ties and their running sums."""
        narrow = reference(safe_top(top), scale)
        ref = reference_of_four(narrow.shift, narrow.magic, narrow.floor)
        wide = scale_of_four(held(scale))
        ties = zero = filled(p, 0.0)
        chunk, term_step = 4 * width, step if in_place else width
        if count <= chunk:
            ties = exponentials(
                p, step, terms, term_step, count, ref, wide, fourfold(top), temperature, meanwhile, begun
            )
            return term(top, narrow, scale), ties, total_of_few(terms, term_step, count)
        for start in range(0, count, chunk):
            at, some = moved(p, start * step), min(chunk, count - start)
            to = at if in_place else terms
            part = begun + start // 4
            ties = ties + exponentials(
                at, step, to, term_step, some, ref, wide, fourfold(top), temperature, meanwhile, part
            )
            _add_up(to, term_step, some, slots, start == 0)
        used, step = min(count, width), width // 2
        while step > 0:
            for s in range(min(step, used - step)):
                store_total(slots, s, plus(zero, load_total(slots, s), load_total(slots, s + step)))
            used, step = min(used, step), step // 2
        return term(top, narrow, scale), ties, load_total(slots, 0)

    return reduce_vector


@inlined
def _no_work(meanwhile, part, temperature):
    """What is done for memory where nothing is."""


@functools.cache
def reduction_in_panel(operation, width):
    """Compiles the reduction of a vector of lanes whose values stand one vector after the other, with nothing else to
    be done meanwhile."""

    reduce_one = _reduction(operation, width, _no_work)

    @inlined
    def reduce_vector(panel, terms, count, top, scale, slots):
        return reduce_one(panel, terms, width, count, top, scale, slots, None, None, 0)

    return reduce_vector


@inlined
def note_tops(tile, count, noted, row):
    """Notes the maxima of the block's lanes, in rows of so many numbers."""
    p = tile.values
    for k in range(0, tile.lanes, width_of(p)):
        store(noted, TOP * row + k, largest_of_lanes(p, tile.down, count))
        p = moved(p, tile.across)


@functools.cache
def across(operation, width, work):
    """Compiles the reduction of a block of a tile's lanes, ``width`` to a vector, whose maxima have been noted.

    ``work(meanwhile, part, temperature)`` is done for every quad of values, counted by ``part``: a core that computes
    has time to read and to write.
    """
    in_place, reduce_vector = _in_place(operation), _reduction(operation, width, work)
    counts_ties = operation.counts_ties

    @inlined
    def note_block(tile, count, temperature, noted, summed, row, meanwhile):
        """Notes the sums of the block's lanes, in rows of so many numbers."""
        p, quads = tile.values, (count + 3) // 4
        for k in range(0, tile.lanes, width):
            top, scale = load(noted, TOP * row + k), scale_for(tile.scales, k, width, temperature)
            terms, part = p if in_place else tile.terms, k // width * quads
            unit, ties, total = reduce_vector(
                p, terms, tile.down, count, top, scale, tile.slots, temperature, meanwhile, part
            )
            if counts_ties:
                store(noted, UNIT * row + k, unit)
                store(noted, TIES * row + k, ties)
            store_sums(summed, HIGH * row + k, row, top, total)
            p = moved(p, tile.across)

    return note_block


@functools.cache
def settling(operation, width):
    """Compiles the step from sums to what the map needs."""
    settle, counts_ties = operation.settle_vector, operation.counts_ties

    @inlined
    def settle_block(lanes, noted, summed, row, results):
        """Settles lanes of a single block, a vector of them at once."""
        for k in range(0, lanes, width):
            top = unit = ties = load(noted, TOP * row + k)
            if counts_ties:
                unit, ties = load(noted, UNIT * row + k), load(noted, TIES * row + k)
            total = load_sums(summed, HIGH * row + k, row, top)
            factor, peak, log_sum, result = settle(top, unit, ties, total)
            store(noted, SECOND * row + k, factor)
            store(noted, PEAK * row + k, peak)
            store(noted, LOG * row + k, log_sum)
            store(results, k, result[0])
            store(results, k + width - 8, result[1])

    return settle_block
