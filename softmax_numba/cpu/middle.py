"""The sweep along columns of middling depth: lanes that lie side by side and of which the first cache holds a vector.

Twenty-one classes a pixel: a vector of every line is put into a panel in the first cache, where the lanes are reduced
(``across.py``), and results go from there to all lines. Nothing is done beside: with 16 registers what memory does
meanwhile, in the sweep along other columns, takes longer than it saves.
"""

import functools

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.across import reduction_in_panel
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
from softmax_numba.cpu.settling import Settled
from softmax_numba.cpu.shallow import AHEAD_BYTES, lanes_in_vector, shift_of, slab_at
from softmax_numba.cpu.simd import in_compute_dtype, larger

# Lines so many bytes apart, or a multiple, stand at the same place of every page: with registers that hold half a cache
# line their results are not streamed. Measured on a Zen 3 beside those that are: 1.1x to 1.2x at 9 to 16 values, level
# at 21; of other lines 0.8x to 0.95x.
PAGE_BYTES = 2**12


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


@functools.cache
def middle_columns(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes of an array (outer, length, inner)
    whose lanes lie side by side, as do their results. There is no mask."""
    settle, value, one_number = operation.settle_vector, operation.map, operation.one_number
    maps_exponentials, store_lanes = operation.maps_exponentials, operation.store
    width = 64 // np.dtype(compute).itemsize
    reduce_vector, of_scales = reduction_in_panel(operation, width), 4 * width

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

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        room = (length + 4 * width - 1) // (4 * width) * (4 * width) * width
        panel, slots = allocated(compute(0), 2 * room), allocated(0.0, 16 * width)
        terms = panel if maps_exponentials else moved(panel, room)
        scales = scales_at(on_stack(compute(0), of_scales), width)
        step, to_step = x.strides[1] // x.itemsize, out.strides[1] // out.itemsize
        shift = shift_of(out, width, past_cache)
        begin = first
        while begin < last:
            o, k, stop, vectors = slab_at(begin, last, inner, width, shift)
            while k < stop:
                left = lanes_in_vector(k, stop, width, shift)
                if temperature is not None:
                    for i in range(width):  # lanes that fill up the vector take the last one's
                        note_scale(scales, i, temperature_of(temperature, o, k + min(i, left - 1)))
                scale = scale_for(scales, 0, width, temperature)
                top = _read(place(x, o, 0, k), step, length, left, panel)
                ties, total = reduce_vector(panel, terms, length, top, scale, slots)
                factor, peak, log_sum, result = settle(top, ties, total, scale)
                to = place(out, o, 0, k)
                if one_number:
                    number = in_compute_dtype(panel, result)
                    store_lanes(to, to_step, left, number, factor, peak, log_sum)
                else:
                    write(panel, length, left, Settled(factor, peak, log_sum), scale, to, to_step, past_cache)
                k += left
            begin += vectors
        if past_cache:
            fence()
        release(panel)
        release(slots)

    return compiled(sweep, f"{operation.name}_middle", body=True)
