"""The ways back along lanes with few neighbours, gathered into vectors and scattered again (``narrow.py``)."""

import functools

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, release
from softmax_numba.cpu.exponential import scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.line_sums import FEW_LINES, line_sums, sum_of_few_lines
from softmax_numba.cpu.memory import filled, load, moved, put, store
from softmax_numba.cpu.narrow import gather, next_lane, scatter
from softmax_numba.cpu.sums import load_total, rounded
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.vjp_short import inverses_at


@functools.cache
def vjp_narrow(backward, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of lanes of y, dy and out (outer, length, inner): lanes of
    at most a block, their strides whole numbers of values."""
    term, more, cotangent = backward.steps
    width = 64 // np.dtype(compute).itemsize

    @inlined
    def term_of_line(panels, i, k):
        y, dy = panels
        return term(load(y, i * width), load(dy, i * width))

    @inlined
    def more_of_line(panels, total, i, k):
        y, dy = panels
        return more(total, load(y, i * width), load(dy, i * width))

    add_up, sum_of_few = line_sums(width, term_of_line, more_of_line), sum_of_few_lines(term_of_line)

    def sweep(y, dy, temperature, out, first, last, past_cache):
        length, inner, lanes = y.shape[1], y.shape[2], y.shape[0] * y.shape[2]
        one = one_like(compute(0))
        given = allocated(compute(0), 2 * length * width + width)
        other, inverses = moved(given, length * width), moved(given, 2 * length * width)
        slots, zero = allocated(0.0, 16 * width), filled(given, 0.0)
        for lane in range(first * width, min(last * width, lanes), width):
            left = min(width, lanes - lane)
            gather(y, lane, left, 0.0, given)
            gather(dy, lane, left, 0.0, other)
            if temperature is not None:
                o, j = lane // inner, lane % inner
                for k in range(left):
                    put(inverses, k, scale_of(compute(0), temperature_of(temperature, o, j)).inverse)
                    o, j = next_lane(o, j, inner)
            if length <= FEW_LINES:
                total = rounded(given, sum_of_few((given, other), length, 0, zero))
            else:
                add_up((given, other), length, width, given, slots, 1)
                total = rounded(given, load_total(slots, 0))
            inverse = inverses_at(inverses, 0, 1, temperature)
            for i in range(0, length * width, width):
                store(given, i, cotangent(load(given, i), load(other, i), total, inverse, one))
            scatter(given, lane, left, out)
        release(given)
        release(slots)

    return compiled(sweep, f"{backward.name}_narrow", body=True)
