"""What is read of deep columns (deep.py): lines of memory, for the lanes' largest values and for their sums."""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.exponential import exp_relative, held
from softmax_numba.cpu.hidden import again
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import (
    filled,
    load,
    load_first,
    moved,
    prefetch,
    raise_to,
    store,
    stored_size,
    width_of,
)
from softmax_numba.cpu.scales import reference_of_four, scale_for, scale_of_four
from softmax_numba.cpu.sums import as_total, load_total, plus, plus_quad, store_total
from softmax_numba.cpu.wide import (
    filled_wide,
    fourfold,
    joined_four,
    largest_of_quarters,
    store_apart,
    sum_of_quarters,
)

# How far ahead memory is asked for lines.
AHEAD_BYTES = 2**15


class Kept(NamedTuple):
    """Where the lanes' exponentials are kept, if they are, a line after the other."""

    values: object
    pitch: int  # numbers from one line to the next, as many as whole vectors take; 0 if nothing is kept


class Lines(NamedTuple):
    """Where the lines of a tile stand: pointers, and how many numbers there are from one to the next."""

    x: object
    step: int
    nothing: object  # a line of -inf, for those that a block lacks
    lanes: int


@inlined
def _line(lines, i, count):
    return moved(lines.x, i * lines.step) if i < count else lines.nothing


@inlined
def _four_lines(lines, i, apart, count):
    """Line ``i`` and three more, so many lines ``apart``."""
    return (
        _line(lines, i, count),
        _line(lines, i + apart, count),
        _line(lines, i + 2 * apart, count),
        _line(lines, i + 3 * apart, count),
    )


@inlined
def _ask_for(p, q, r, s, k):
    """Asks memory for a vector of each of four lines."""
    prefetch(p, k)
    prefetch(q, k)
    prefetch(r, k)
    prefetch(s, k)


@inlined
def _four(p, q, r, s, k, left):
    """One vector of each of four lines, -inf in lanes that there are not."""
    return joined_four(load_first(p, k, left), load_first(q, k, left), load_first(r, k, left), load_first(s, k, left))


@inlined
def _four_full(p, q, r, s, k):
    return joined_four(load(p, k), load(q, k), load(r, k), load(s, k))


@inlined
def largest_of_lines(lines, count, tops):
    """The lanes' largest values in a block."""
    width = width_of(tops)
    ahead = (AHEAD_BYTES // (lines.lanes * stored_size(lines.x)) + 4) * lines.step
    for k in range(0, lines.lanes, width):
        store(tops, k, filled(tops, -np.inf))
    whole = lines.lanes // width * width
    for i in range(0, count, 4):
        p, q, r, s = _four_lines(lines, i, 1, count)
        for k in range(0, whole, width):
            x = _four_full(p, q, r, s, k)
            raise_to(tops, k, largest_of_quarters(x))
            _ask_for(p, q, r, s, k + ahead)
        if whole < lines.lanes:
            x = _four(p, q, r, s, whole, lines.lanes - whole)
            raise_to(tops, whole, largest_of_quarters(x))


@inlined
def _scale_at(of_all, scales, k, width, temperature):
    """The scale of a vector of lanes; without temperatures ``of_all`` is it."""
    if temperature is None:
        return of_all
    return scale_for(scales, k, width, temperature)


@functools.cache
def line_adder(operation, width):
    """Compiles the sums of a block."""
    term, counts_ties, keeps = operation.term, operation.counts_ties, operation.maps_exponentials

    @inlined
    def add_quad(x, again_x, k, tops, refs, scale, ties, slot, kept):
        """Adds four values of each of a vector's lanes, which come twice: once as they are read again; ``kept`` begins
        with the first of their lines."""
        ref = reference_of_four(load(refs.shift, k), load(refs.magic, k), load(refs.floor, k))
        e = exp_relative(x, ref, scale_of_four(scale))
        if keeps and kept.pitch > 0:
            store_apart(kept.values, k, kept.pitch * width, e)
        e, tied = term(e, again_x, fourfold(load(tops, k)), filled_wide(tops, 0.0, 4))
        at = k // width
        store_total(slot, at, plus_quad(filled(tops, 0.0), load_total(slot, at), e))
        if counts_ties:
            store(ties, k, load(ties, k) + sum_of_quarters(tied))

    @inlined
    def add_up(lines, count, tops, refs, scales, temperature, ties, slots, vectors, ahead, kept):
        """The lanes' sums, a slot after the other with ``vectors`` of lanes each, and how many values are largest; of
        memory that many numbers ``ahead`` is asked for."""
        zero = filled(tops, 0.0)
        for k in range(0, lines.lanes, width):
            store(ties, k, zero)
        for at in range(width * vectors):
            store_total(slots, at, as_total(zero))
        whole = lines.lanes // width * width
        of_all = held(scale_for(scales, 0, width, temperature))
        for start in range(0, count, 4 * width):
            for s in range(min(width, count - start)):
                i = start + s
                a, b, c, d = _four_lines(lines, i, width, count)
                slot = moved(slots, s * vectors * 16)
                to = Kept(moved(kept.values, i * kept.pitch), kept.pitch)
                for k in range(0, whole, width):
                    scale = _scale_at(of_all, scales, k, width, temperature)
                    x = again_x = _four_full(a, b, c, d, k)
                    if counts_ties:
                        again_x = _four_full(again(a), again(b), again(c), again(d), k)
                    add_quad(x, again_x, k, tops, refs, scale, ties, slot, to)
                    _ask_for(a, b, c, d, k + ahead)
                if whole < lines.lanes:
                    x = _four(a, b, c, d, whole, lines.lanes - whole)
                    scale = _scale_at(of_all, scales, whole, width, temperature)
                    add_quad(x, x, whole, tops, refs, scale, ties, slot, to)
        used, step = min(count, width), width // 2
        while step > 0:
            for s in range(min(step, used - step)):
                for at in range(s * vectors, (s + 1) * vectors):
                    total = plus(zero, load_total(slots, at), load_total(slots, at + step * vectors))
                    store_total(slots, at, total)
            used, step = min(used, step), step // 2

    return add_up
