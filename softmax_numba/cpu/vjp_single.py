"""The ways back along lanes of a single value, which stand end to end: each place by itself, vector by vector."""

import functools

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import allocated, place, release
from softmax_numba.cpu.exponential import scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    fence,
    load,
    load_first,
    put,
    store,
    store_first,
    stored_size,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.sums import as_total, rounded
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.vjp_short import inverses_at


@functools.cache
def vjp_single(backward, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of lanes: y, dy and out (lanes, 1, 1) in C order."""
    term, _, cotangent = backward.steps
    width = 64 // np.dtype(compute).itemsize

    @inlined
    def results(y, dy, inverses, temperature, one):
        total = rounded(inverses, as_total(term(y, dy)))
        return cotangent(y, dy, total, inverses_at(inverses, 0, 1, temperature), one)

    def sweep(y, dy, temperature, out, first, last, past_cache):
        one, inverses = one_like(compute(0)), allocated(compute(0), width)
        begin, end = first * width, min(last * width, y.shape[0])
        p, q, to = place(y, begin, 0, 0), place(dy, begin, 0, 0), place(out, begin, 0, 0)
        # Whole cache lines only: one that is streamed in part takes several times as long.
        streamed = past_cache and width * stored_size(to) >= LINE_BYTES and to_full_vectors(to) == 0
        i = 0
        while begin + i < end:
            count = min(width, end - begin - i)
            if temperature is not None:
                for k in range(count):
                    put(inverses, k, scale_of(compute(0), temperature_of(temperature, begin + i + k, 0)).inverse)
            if count < width:
                given, other = load_first(p, i, count), load_first(q, i, count)
                store_first(to, i, count, results(given, other, inverses, temperature, one))
            elif streamed:
                stream(to, i, results(load(p, i), load(q, i), inverses, temperature, one))
            else:
                store(to, i, results(load(p, i), load(q, i), inverses, temperature, one))
            i += width
        if streamed:
            fence()
        release(inverses)

    return compiled(sweep, f"{backward.name}_single", body=True)
