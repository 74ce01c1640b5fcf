"""The sweep along shallow columns: lanes that lie side by side and are so short that registers hold a vector of them.

Two classes a pixel, three channels an image: each line of memory is one value of every lane, and all lines are walked
at once, vector by vector, from values to results. The sums follow the order of lane.py slot by slot.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.exponential import Reference, exp_relative, reference
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    address_of,
    fence,
    load,
    load_first,
    moved,
    prefetch,
    put,
    store,
    store_first,
    stored_size,
    stream,
    width_of,
)
from softmax_numba.cpu.scales import note_scale, reference_of_four, scale_for, scale_of_four, scales_at
from softmax_numba.cpu.settling import Settled, safe_top
from softmax_numba.cpu.simd import in_compute_dtype, larger
from softmax_numba.cpu.sums import total_of_slots
from softmax_numba.cpu.wide import filled_wide, fourfold, joined_four, largest_of_quarters, quarters, sum_of_quarters

# A lane is one quad or two.
LONGEST = 8
# How far ahead memory is asked for every line.
AHEAD_BYTES = 512
# Whether results are streamed past the caches. A Zen 3, whose registers hold half a cache line, gains nothing by it:
# 0.8x to 1x, in one thread and in two, and 0.4x where values and results stand at the same place of a page, as those of
# new arrays do.
STREAMS = REGISTER_BITS == 512


class Lines(NamedTuple):
    """Four lines: a pointer to each, and how many there are. Those that there are not are a vector of -inf."""

    first: object
    second: object
    third: object
    fourth: object
    count: int


@inlined
def _lines(p, step, count, nothing):
    """Up to four lines, ``step`` numbers from each to the next."""
    return Lines(
        p if count > 0 else nothing,
        moved(p, step) if count > 1 else nothing,
        moved(p, 2 * step) if count > 2 else nothing,
        moved(p, 3 * step) if count > 3 else nothing,
        count,
    )


@inlined
def _values(lines, k):
    """One vector of each line."""
    ahead = k + AHEAD_BYTES // stored_size(lines.first)
    prefetch(lines.first, ahead)
    prefetch(lines.second, ahead)
    prefetch(lines.third, ahead)
    prefetch(lines.fourth, ahead)
    return joined_four(
        load(lines.first, k if lines.count > 0 else 0),
        load(lines.second, k if lines.count > 1 else 0),
        load(lines.third, k if lines.count > 2 else 0),
        load(lines.fourth, k if lines.count > 3 else 0),
    )


@inlined
def _first_values(lines, k, left):
    """The same for the first ``left`` lanes of a vector."""
    return joined_four(
        load_first(lines.first, k if lines.count > 0 else 0, left),
        load_first(lines.second, k if lines.count > 1 else 0, left),
        load_first(lines.third, k if lines.count > 2 else 0, left),
        load_first(lines.fourth, k if lines.count > 3 else 0, left),
    )


@inlined
def _write(p, result, past_cache):
    # Whole cache lines only: one that is streamed in part and stored in part takes several times as long.
    line_by_line = width_of(p) * stored_size(p) >= LINE_BYTES
    if past_cache and line_by_line and address_of(p, 0) & (LINE_BYTES - 1) == 0:
        stream(p, 0, result)
    else:
        store(p, 0, result)


@inlined
def _put_down(lines, k, results, past_cache):
    """One vector of results to each line."""
    a, b, c, d = quarters(results)
    _write(moved(lines.first, k), a, past_cache)
    if lines.count > 1:
        _write(moved(lines.second, k), b, past_cache)
    if lines.count > 2:
        _write(moved(lines.third, k), c, past_cache)
    if lines.count > 3:
        _write(moved(lines.fourth, k), d, past_cache)


@inlined
def _put_down_first(lines, k, results, left):
    """The same for the first ``left`` lanes of a vector."""
    a, b, c, d = quarters(results)
    store_first(lines.first, k, left, a)
    if lines.count > 1:
        store_first(lines.second, k, left, b)
    if lines.count > 2:
        store_first(lines.third, k, left, c)
    if lines.count > 3:
        store_first(lines.fourth, k, left, d)


@inlined
def shift_of(out, width, past_cache):
    """How many lanes stand before the first vector of each line: where every line of the result begins at the same
    place of a cache line, a vector begins at its start."""
    if past_cache and (out.strides[0] | out.strides[1]) & (LINE_BYTES - 1) == 0:
        return (-address_of(place(out, 0, 0, 0), 0) & (LINE_BYTES - 1)) // out.itemsize % width
    return 0


@inlined
def slab_at(begin, last, inner, width, shift):
    """Of vectors ``begin`` to ``last`` those of one slab: its number, its lanes' first and end, how many vectors."""
    across = (inner + width - 1) // width
    o, at = begin // across, begin % across
    end = at + min(across - at, last - begin)
    stop = inner if end == across else min(inner, end * width + shift)
    return o, at * width + (shift if at > 0 else 0), stop, end - at


@inlined
def lanes_in_vector(k, stop, width, shift):
    """How many lanes there are of the vector that begins at ``k``."""
    left = min(width, stop - k)
    return min(left, shift) if k == 0 and shift > 0 else left


@functools.cache
def shallow_columns(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes of an array (outer, length, inner)
    whose lanes lie side by side, as do their results. There is no mask."""
    term, largest_term = operation.term, operation.largest_term
    settle, value = operation.settle_vector, operation.map
    one_number, maps_exponentials = operation.one_number, operation.maps_exponentials
    store_lanes = operation.store
    width = 64 // np.dtype(compute).itemsize
    most = LONGEST * width

    @inlined
    def terms_of_four(x, top, ref, scale, terms):
        e, ties = term(exp_relative(x, ref, scale), x, top, filled_wide(terms, 0.0, 4))
        store(terms, 0, e)
        return e, ties

    @inlined
    def terms_of(x, top, ref, scale, terms):
        e, ties = terms_of_four(x, fourfold(top), ref, scale, terms)
        return e, sum_of_quarters(ties)

    @inlined
    def results_of(x, y, many, terms, scale):
        """What becomes of a vector of lanes, whose values are ``x`` and, if there are so ``many``, ``y``."""
        top = largest_of_quarters(larger(x, y) if many else x)
        one = reference(safe_top(top), scale)
        ref = reference_of_four(one.shift, one.magic, one.floor)
        wide = scale_of_four(scale)
        e, ties = terms_of(x, top, ref, wide, terms)
        more = e
        if many:
            more, tied = terms_of(y, top, ref, wide, moved(terms, 4 * width))
            ties = ties + tied
            total = total_of_slots(terms, width, 1, 8)
        else:
            total = total_of_slots(terms, width, 1, 4)
        factor, peak, log_sum, result = settle(top, largest_term(top, one, scale), ties, total)
        found = Settled(fourfold(factor), fourfold(peak), fourfold(log_sum))
        if maps_exponentials:
            x, y = e, more
        return value(x, found, wide), value(y, found, wide), Settled(factor, peak, log_sum), result

    @inlined
    def two_of_two(lines, k, to, to_step, terms, scale, past_cache):
        """Two vectors of lanes of two values: with one, the processor would wait, step by step, for half a quad."""
        width, ahead = width_of(terms), k + AHEAD_BYTES // stored_size(lines.first)
        a, b = load(lines.first, k), load(lines.second, k)
        c, d = load(lines.first, k + width), load(lines.second, k + width)
        for i in range(0, 2 * width, width):
            prefetch(lines.first, ahead + i)
            prefetch(lines.second, ahead + i)
        x, left, right = joined_four(a, b, c, d), larger(a, b), larger(c, d)
        one, other = reference(safe_top(left), scale), reference(safe_top(right), scale)
        ref, wide = (
            Reference(
                joined_four(one.shift, one.shift, other.shift, other.shift),
                0.0,
                joined_four(one.magic, one.magic, other.magic, other.magic),
                joined_four(one.floor, one.floor, other.floor, other.floor),
            ),
            scale_of_four(scale),
        )
        e, ties = terms_of_four(x, joined_four(left, left, right, right), ref, wide, terms)
        t0, t1, t2, t3 = quarters(ties)
        unit, total = largest_term(left, one, scale), total_of_slots(terms, width, 1, 2)
        f0, p0, l0, r0 = settle(left, unit, t0 + t1, total)
        unit, total = largest_term(right, other, scale), total_of_slots(moved(terms, 2 * width), width, 1, 2)
        f1, p1, l1, r1 = settle(right, unit, t2 + t3, total)
        if one_number:
            store_lanes(to, to_step, width, in_compute_dtype(terms, r0), f0, p0, l0)
            store_lanes(moved(to, width), to_step, width, in_compute_dtype(terms, r1), f1, p1, l1)
        else:
            found = Settled(joined_four(f0, f0, f1, f1), joined_four(p0, p0, p1, p1), joined_four(l0, l0, l1, l1))
            a, b, c, d = quarters(value(e if maps_exponentials else x, found, wide))
            _write(to, a, past_cache)
            _write(moved(to, width), c, past_cache)
            _write(moved(to, to_step), b, past_cache)
            _write(moved(to, to_step + width), d, past_cache)

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        past_cache = past_cache and STREAMS
        many, pairs = length > 4, length == 2 and temperature is None
        terms, room = on_stack(compute(0), most), on_stack(compute(0), most)
        scales = scales_at(room, width)
        nothing = allocated(x, width)
        for i in range(width):
            put(nothing, i, -np.inf)
        step, to_step = x.strides[1] // x.itemsize, out.strides[1] // out.itemsize
        shift = shift_of(out, width, past_cache)
        begin = first
        while begin < last:
            o, k, stop, vectors = slab_at(begin, last, inner, width, shift)
            upper, to_upper = place(x, o, 0, 0), place(out, o, 0, 0)
            lower, to_lower = moved(upper, 4 * step), moved(to_upper, 4 * to_step)
            given, more = _lines(upper, step, min(length, 4), nothing), _lines(lower, step, length - 4, nothing)
            to, to_more = (
                _lines(to_upper, to_step, min(length, 4), to_upper),
                _lines(to_lower, to_step, length - 4, to_upper),
            )
            while k < stop:
                left = lanes_in_vector(k, stop, width, shift)
                if pairs and left == width and k + 2 * width <= stop:
                    scale = scale_for(scales, 0, width, temperature)
                    two_of_two(given, k, moved(to_upper, k), to_step, terms, scale, past_cache)
                    k += 2 * width
                    continue
                if temperature is not None:
                    for i in range(width):  # lanes that fill up the vector take the last one's
                        note_scale(scales, i, temperature_of(temperature, o, k + min(i, left - 1)))
                scale = scale_for(scales, 0, width, temperature)
                y = filled_wide(terms, -np.inf, 4)
                if left == width:
                    if many:
                        y = _values(more, k)
                    upper_results, lower_results, found, result = results_of(_values(given, k), y, many, terms, scale)
                    if not one_number:
                        _put_down(to, k, upper_results, past_cache)
                        if many:
                            _put_down(to_more, k, lower_results, past_cache)
                else:
                    if many:
                        y = _first_values(more, k, left)
                    x0 = _first_values(given, k, left)
                    upper_results, lower_results, found, result = results_of(x0, y, many, terms, scale)
                    if not one_number:
                        _put_down_first(to, k, upper_results, left)
                        if many:
                            _put_down_first(to_more, k, lower_results, left)
                if one_number:
                    number = in_compute_dtype(terms, result)
                    store_lanes(moved(to_upper, k), to_step, left, number, found.factor, found.peak, found.log_sum)
                k += left
            begin += vectors
        if past_cache:
            fence()
        release(nothing)

    return compiled(sweep, f"{operation.name}_shallow", body=True)
