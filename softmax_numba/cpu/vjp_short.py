"""The ways back along very short rows: turned into columns in registers as in short.py, and their cotangents back."""

import functools

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, place, release
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.line_sums import line_sums
from softmax_numba.cpu.memory import fence, load, moved, prefetch, store
from softmax_numba.cpu.scales import note_scale, scale_for, scale_of_four, scales_at
from softmax_numba.cpu.short import rows_in, rows_out
from softmax_numba.cpu.sums import load_total, rounded
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.waiting import nothing_waiting, stream_quad, waiting_for, with_more, without_lines, write_out
from softmax_numba.cpu.wide import fourfold, load_wide


@functools.cache
def vjp_short(backward, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of lanes of y, dy and out (lanes, length, 1), whose own
    values lie side by side."""
    term, _, cotangent = backward.steps
    width = 64 // np.dtype(compute).itemsize
    read_rows, write_rows = rows_in(width), rows_out(width)

    @inlined
    def term_of_line(columns, i, k):
        y, dy = columns
        return term(load(y, i * width), load(dy, i * width))

    add_up = line_sums(width, term_of_line)

    def sweep(y, dy, temperature, out, first, last, past_cache):
        lanes, length = y.shape[0], y.shape[1]
        one = one_like(compute(0))
        room = (length + width - 1) // width * width * width
        given = allocated(compute(0), 2 * room + 4 * width)
        other = moved(given, room)
        scales = scales_at(moved(other, room), width)
        slots = allocated(0.0, 16 * width)
        # Results that nobody will read soon are put together in the cache and streamed as the stretch that they are.
        in_one = past_cache and out.strides[0] == length * out.itemsize
        waiting = nothing_waiting(place(out, first * width, 0, 0))
        if in_one:
            waiting = waiting_for(out, waiting.target, width * length)
        for lane in range(first * width, min(last * width, lanes), width):
            few = min(width, lanes - lane)
            if temperature is not None:
                for r in range(width):
                    note_scale(scales, r, temperature_of(temperature, lane + min(r, few - 1), 0))
            read_rows(place(y, lane, 0, 0), y.strides[0], few, length, given)
            read_rows(place(dy, lane, 0, 0), dy.strides[0], few, length, other)
            add_up((given, other), length, width, given, slots, 1)
            total = fourfold(rounded(given, load_total(slots, 0)))
            inverse = scale_of_four(scale_for(scales, 0, width, temperature)).inverse
            next_y, next_dy = place(y, lane + width, 0, 0), place(dy, lane + width, 0, 0)
            for i in range(0, length * width, 4 * width):
                store(other, i, cotangent(load_wide(given, i, 4), load_wide(other, i, 4), total, inverse, one))
                stream_quad(waiting, i)
                for k in range(i, i + 4 * width, width):
                    prefetch(next_y, k)
                    prefetch(next_dy, k)
            if in_one:
                waiting = without_lines(waiting, min(waiting.whole, (length + 3) // 4 * 4 * width))
                write_rows(moved(waiting.values, waiting.end), out.strides[0], few, length, other)
                waiting = with_more(waiting, few * length)
            else:
                write_rows(place(out, lane, 0, 0), out.strides[0], few, length, other)
        if in_one:
            write_out(waiting)
        if past_cache:
            fence()
        release(given)
        release(slots)

    return compiled(sweep, f"{backward.name}_short", body=True)
