"""The sweep along columns of middling depth: lanes that lie side by side and of which the first cache holds a vector.

Twenty-one classes a pixel: a vector of every line is put into a panel in the first cache, where the lanes are reduced
(``across.py``), and results go from there to all lines. Nothing is written beside: with 16 registers what memory does
meanwhile, in the sweep along other columns, takes longer than it saves; where it only has to be asked, it does not.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.across import across, reduction_in_panel, settling
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    address_of,
    fence,
    filled,
    load,
    load_first,
    moved,
    prefetch,
    store,
    store_first,
    stored_size,
    stream,
    width_of,
)
from softmax_numba.cpu.scales import note_scale, scale_for, scales_at
from softmax_numba.cpu.settling import LOG, NUMBERS, PEAK, SECOND, SUMS, TOP, Settled
from softmax_numba.cpu.shallow import AHEAD_BYTES, lanes_in_vector, shift_of, slab_at
from softmax_numba.cpu.simd import in_compute_dtype, larger
from softmax_numba.cpu.tiles import Tile
from softmax_numba.cpu.wide import filled_wide, load_wide, store_apart

# Lines so many bytes apart, or a multiple, stand at the same place of every page: with registers that hold half a cache
# line their results are not streamed. Measured on a Zen 3 beside those that are: 1.1x to 1.2x at 9 to 16 values, level
# at 21; of other lines 0.8x to 0.95x.
PAGE_BYTES = 2**12

# From such lines of no more than so many values, for which there is one number a lane, so many vectors are taken at
# once, and memory is asked for a later group, line by line, while exponentials are computed. What a group needs, asked
# for at once, makes a core wait, and all of it belongs into a few sets of the caches, with room for eight lines each.
# Measured beside one vector after the other, 1.2x at 21 values (float64: 1.1x), and beside tiles 1.2x to 1.3x at 21 to
# 48. Of other lines 0.85x to 1.05x; with results, which would be written in as many lines at once, 0.65x to 1.1x.
GROUP, GROUPS_AHEAD = 4, 2
LONGEST_GROUPED = 48


@inlined
def _read(p, step, length, left, panel):
    """Puts a vector of each line into the panel, and -inf up to a whole number of quads; returns the lanes' maxima."""
    width, ahead = width_of(panel), AHEAD_BYTES // stored_size(p)
    top = other = nothing = filled(panel, -np.inf)
    i = 0
    if left == width:
        while i + 2 <= length:
            x, y = load(p, i * step), load(p, (i + 1) * step)
            prefetch(p, i * step + ahead)
            prefetch(p, (i + 1) * step + ahead)
            store(panel, i * width, x)
            store(panel, (i + 1) * width, y)
            top, other = larger(top, x), larger(other, y)
            i += 2
    while i < length:
        x = load_first(p, i * step, left)
        store(panel, i * width, x)
        top = larger(top, x)
        i += 1
    while i & 3 != 0:
        store(panel, i * width, nothing)
        i += 1
    return larger(top, other)


@inlined
def _read_group(p, step, length, panel, pitch, tops):
    """The same for a group of vectors, whose panels are ``pitch`` numbers apart; puts their maxima down at ``tops``."""
    width = width_of(panel)
    top = filled_wide(panel, -np.inf, GROUP)
    for i in range(length):
        x = load_wide(p, i * step, GROUP)
        store_apart(panel, i * width, pitch, x)
        top = larger(top, x)
    for i in range(length, (length + 3) & ~3):
        store_apart(panel, i * width, pitch, filled_wide(panel, -np.inf, GROUP))
    store(tops, 0, top)


class LaterGroup(NamedTuple):
    """A group of vectors that is computed later."""

    first: object  # its first line
    step: int  # from there to the next
    last: int  # the number of the last


class Buffers(NamedTuple):
    """Where the lanes of a group are computed: pointers."""

    panel: object
    pitch: int  # numbers from a vector's panel to the next one's
    terms: object
    slots: object
    noted: object
    summed: object
    results: object


@inlined
def ask_for_line(later, part, temperature):
    """Asks memory for a line of a later group: for all of them at once, a core would have to wait. There are as many
    parts as lines, since a group has as many vectors as a quad has values."""
    at = min(part, later.last) * later.step
    for k in range(GROUP):
        prefetch(later.first, at + k * width_of(later.first))


@functools.cache
def middle_columns(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes of an array (outer, length, inner)
    whose lanes lie side by side, as do their results. There is no mask."""
    settle, value, one_number = operation.settle_vector, operation.map, operation.one_number
    maps_exponentials, store_lanes = operation.maps_exponentials, operation.store
    width = 64 // np.dtype(compute).itemsize
    note_block, settle_block = across(operation, width, ask_for_line), settling(operation, width)
    reduce_vector = reduction_in_panel(operation, width)
    most = GROUP * width
    of_scales, of_notes, of_sums = 4 * width, NUMBERS * most, SUMS * most

    @inlined
    def write(panel, length, left, found, scale, to, to_step, past_cache):
        # Whole cache lines only: one that is streamed in part takes several times as long.
        streamed = past_cache and (address_of(to, 0) | to_step * stored_size(to)) & (LINE_BYTES - 1) == 0
        streamed = streamed and width * stored_size(to) >= LINE_BYTES
        streamed = streamed and (REGISTER_BITS == 512 or to_step * stored_size(to) % PAGE_BYTES != 0)
        if left < width:
            for i in range(length):
                store_first(to, i * to_step, left, value(load(panel, i * width), found, scale))
        elif streamed:
            for i in range(length):
                stream(to, i * to_step, value(load(panel, i * width), found, scale))
        else:
            for i in range(length):
                store(to, i * to_step, value(load(panel, i * width), found, scale))

    @inlined
    def number_group(p, step, length, buffers, to, to_step):
        """The results of a group of vectors, a number a lane; without temperatures, nobody looks at the scales."""
        panel, noted, results = buffers.panel, buffers.noted, buffers.results
        _read_group(p, step, length, panel, buffers.pitch, moved(noted, TOP * most))
        tile = Tile(0, 0, most, panel, buffers.pitch, width, scales_at(panel, 0), panel, buffers.terms, buffers.slots)
        later = LaterGroup(moved(p, GROUPS_AHEAD * most), step, length - 1)
        note_block(tile, length, None, noted, buffers.summed, most, later)
        settle_block(most, noted, buffers.summed, most, results)
        for k in range(0, most, width):
            number = in_compute_dtype(panel, (load(results, k), load(results, k + width - 8)))
            factor, peak = load(noted, SECOND * most + k), load(noted, PEAK * most + k)
            store_lanes(moved(to, k), to_step, width, number, factor, peak, load(noted, LOG * most + k))

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        # Vectors' panels do not begin at the same place of a page: what is stored in one would look like the other's.
        pitch = ((length + width - 1) // width * width + 1) * width
        grouped = one_number and temperature is None
        grouped = grouped and x.strides[1] % PAGE_BYTES == 0 and length <= LONGEST_GROUPED
        group = GROUP if grouped else 1
        panel, slots = allocated(compute(0), group * pitch + 4 * width * width), allocated(0.0, 16 * width)
        terms = panel if maps_exponentials else moved(panel, group * pitch)
        scales = scales_at(on_stack(compute(0), of_scales), width)
        notes = on_stack(compute(0), of_notes), on_stack(0.0, of_sums), on_stack(0.0, most)
        buffers = Buffers(panel, pitch, terms, slots, *notes)
        step, to_step = x.strides[1] // x.itemsize, out.strides[1] // out.itemsize
        shift = shift_of(out, width, past_cache)
        begin = first
        while begin < last:
            o, k, stop, vectors = slab_at(begin, last, inner, width, shift)
            while k < stop:
                p, to = place(x, o, 0, k), place(out, o, 0, k)
                if one_number and grouped and stop - k >= most:
                    number_group(p, step, length, buffers, to, to_step)
                    k += most
                    continue
                left = lanes_in_vector(k, stop, width, shift)
                if temperature is not None:
                    for i in range(width):  # lanes that fill up the vector take the last one's
                        note_scale(scales, i, temperature_of(temperature, o, k + min(i, left - 1)))
                k += left
                scale = scale_for(scales, 0, width, temperature)
                top = _read(p, step, length, left, panel)
                unit, ties, total = reduce_vector(panel, terms, length, top, scale, slots)
                factor, peak, log_sum, result = settle(top, unit, ties, total)
                if one_number:
                    store_lanes(to, to_step, left, in_compute_dtype(panel, result), factor, peak, log_sum)
                else:
                    write(panel, length, left, Settled(factor, peak, log_sum), scale, to, to_step, past_cache)
            begin += vectors
        if past_cache:
            fence()
        release(panel)
        release(slots)

    return compiled(sweep, f"{operation.name}_middle", body=True)
