"""The sweep along lanes with few neighbours: gathered into vectors, a value at a time, and scattered again.

Lanes of an array such as (1000, 10, 3) along axis 1 lie neither end to end nor side by side in whole vectors. Gathered
they are columns in the first cache (``middle.py``), whatever slabs they are of.
"""

import functools

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.across import largest_of_lanes, reduction_in_panel
from softmax_numba.cpu.arrays import allocated, on_stack, place, release
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import filled, load, moved, number_at, put, store, width_of
from softmax_numba.cpu.scales import note_scale, scale_for, scales_at
from softmax_numba.cpu.settling import Settled
from softmax_numba.cpu.simd import in_compute_dtype


@inlined
def next_lane(o, j, inner):
    return (o + 1, 0) if j + 1 == inner else (o, j + 1)


@inlined
def gather(x, lane, left, missing, panel):
    """Puts ``left`` lanes from ``lane`` on into the panel, side by side, and what is ``missing`` beside them."""
    length, inner, width, step = x.shape[1], x.shape[2], width_of(panel), x.strides[1] // x.itemsize
    if left < width:
        for i in range(length):
            store(panel, i * width, filled(panel, missing))
    o, j = lane // inner, lane % inner
    for k in range(left):
        p = place(x, o, 0, j)
        for i in range(length):
            put(panel, i * width + k, number_at(p, i * step))
        o, j = next_lane(o, j, inner)


@inlined
def scatter(panel, lane, left, out):
    """Writes that many lanes."""
    length, inner, width, step = out.shape[1], out.shape[2], width_of(panel), out.strides[1] // out.itemsize
    o, j = lane // inner, lane % inner
    for k in range(left):
        p = place(out, o, 0, j)
        for i in range(length):
            put(p, i * step, number_at(panel, i * width + k))
        o, j = next_lane(o, j, inner)


@functools.cache
def narrow_lanes(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of lanes of an array (outer, length, inner). There is no
    mask, and the strides of lanes are whole numbers of values."""
    settle, value, one_number = operation.settle_vector, operation.map, operation.one_number
    maps_exponentials, put_lane = operation.maps_exponentials, operation.put
    width = 64 // np.dtype(compute).itemsize
    reduce_vector, of_scales = reduction_in_panel(operation, width), 4 * width

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        room = (length + 4 * width - 1) // (4 * width) * (4 * width) * width
        panel, notes = allocated(compute(0), 2 * room), allocated(compute(0), of_scales)
        slots = allocated(0.0, 16 * width)
        terms = panel if maps_exponentials else moved(panel, room)
        scales = scales_at(on_stack(compute(0), of_scales), width)
        for lane in range(first * width, min(last * width, x.shape[0] * inner), width):
            left = min(width, x.shape[0] * inner - lane)
            if temperature is not None:
                for k in range(width):  # lanes that fill up the vector take the last one's
                    o = (lane + min(k, left - 1)) // inner
                    note_scale(scales, k, temperature_of(temperature, o, lane + min(k, left - 1) - o * inner))
            scale = scale_for(scales, 0, width, temperature)
            gather(x, lane, left, -np.inf, panel)
            for i in range(length, (length + 3) & ~3):
                store(panel, i * width, filled(panel, -np.inf))
            top = largest_of_lanes(panel, width, length)
            unit, ties, total = reduce_vector(panel, terms, length, top, scale, slots)
            factor, peak, log_sum, result = settle(top, unit, ties, total)
            if one_number:
                store(notes, 0, factor)
                store(notes, width, peak)
                store(notes, 2 * width, log_sum)
                store(notes, 3 * width, in_compute_dtype(panel, result))
                o, j = lane // inner, lane % inner
                for k in range(left):
                    of_factor, of_peak = number_at(notes, k), number_at(notes, k + width)
                    of_log, number = number_at(notes, k + 2 * width), number_at(notes, k + 3 * width)
                    put_lane(out, o, j, number, of_factor, of_peak, of_log)
                    o, j = next_lane(o, j, inner)
            else:
                found = Settled(factor, peak, log_sum)
                for i in range(length):
                    store(panel, i * width, value(load(panel, i * width), found, scale))
                scatter(panel, lane, left, out)
        release(panel)
        release(slots)
        release(notes)

    return compiled(sweep, f"{operation.name}_narrow", body=True)
