"""Cross-entropy and its gradient along rows: a second look at lanes that stand in the cache, vector by vector.

``share`` and ``even`` are followed by zeros: their vectors may reach beyond the lane.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import row_at
from softmax_numba.cpu.arrays import allocated, place, release, start_of
from softmax_numba.cpu.exponential import exp_relative, held, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.loss import as_one, has_gradient, lane_at, of_target, options_from, with_z_loss
from softmax_numba.cpu.memory import (
    fence,
    filled,
    load,
    load_first,
    moved,
    number_at,
    prefetch,
    put,
    store,
    store_first,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.settling import safe_top
from softmax_numba.cpu.simd import fma, less_at, select
from softmax_numba.cpu.sums import as_total, collapsed, plus_four
from softmax_numba.cpu.wide import filled_wide, load_first_wide, load_first_zero, load_wide, quarters

_SPARE = 64  # bytes, to begin a buffer on a cache line


class Targets(NamedTuple):
    """What is subtracted from a stretch of a row's probabilities; pointers where the kind has something there."""

    target: int  # where the target class stands
    own: float  # its weight
    q: object
    share: object
    even: object
    gain: float


@inlined
def targets_from(targets, start, q):
    """The targets of the classes from ``start`` on, whose probabilities are ``q``."""
    share, even = moved(targets.share, start), moved(targets.even, start)
    return Targets(targets.target - start, targets.own, q, share, even, targets.gain)


@functools.cache
def row_parts(compute, kind):
    """Compiles the sum of a row's terms and its gradient, from values that lie side by side to such."""
    probabilities, dense, _ = kind
    width = 64 // np.dtype(compute).itemsize
    wide = 4 * width

    @inlined
    def even_weights(targets, i, count):
        """What four vectors of classes count, of which there are ``count``."""
        return load_wide(targets.even, i, 4)

    @inlined
    def all_weights(targets, i, count):
        q = load_wide(targets.q, i, 4) if count >= wide else load_first_zero(targets.q, i, count, 4)
        return fma(q, load_wide(targets.share, i, 4), load_wide(targets.even, i, 4))

    @inlined
    def first_even_weights(targets, i, count):
        """The same for one vector."""
        return load(targets.even, i)

    @inlined
    def first_weights_of_all(targets, i, count):
        q = load_first_zero(targets.q, i, count, 1)
        return fma(q, load(targets.share, i), load(targets.even, i))

    weights, first_weights = even_weights, first_even_weights
    if probabilities:
        weights, first_weights = all_weights, first_weights_of_all

    @inlined
    def values(p, i, count):
        return load_wide(p, i, 4) if count >= wide else load_first_wide(p, i, count, 4)

    @inlined
    def add_row(p, count, targets, peak, terms):
        """Adds the terms of ``p[:count]``, but for the logarithm of the lane's sum, and their weights."""
        zero = filled(p, 0.0)
        loss, mass = terms
        for i in range(0, count, wide):
            c = weights(targets, i, count - i)
            loss = plus_each(zero, loss, select(c == 0.0, 0.0, c * (peak - values(p, i, count - i))))
            mass = plus_each(zero, mass, c)
        return loss, mass

    @inlined
    def plus_each(zero, total, wide):
        a, b, c, d = quarters(wide)
        return plus_four(zero, total, as_total(a), as_total(b), as_total(c), as_total(d))

    @inlined
    def less(v, i, targets):
        """Four vectors of probabilities, scaled, less the targets."""
        if dense:
            v = fma(weights(targets, i, wide), -targets.gain, v)
        if not probabilities and i <= targets.target < i + wide:
            v = less_at(v, targets.target - i, targets.own)
        return v

    @inlined
    def write_first(p, i, end, out, ref, scale, factor, targets):
        """The same for one vector, of which there are the places before ``end``."""
        v = exp_relative(load_first(p, i, end - i), ref, scale) * factor
        if dense:
            v = fma(first_weights(targets, i, end - i), -targets.gain, v)
        if not probabilities and i <= targets.target < end:
            v = less_at(v, targets.target - i, targets.own)
        store_first(out, i, end - i, v)

    @inlined
    def write_row(p, count, out, ref, factor, targets, past_cache):
        """``out[:count]``: the gradient of ``p[:count]``."""
        scale, i = held(scale_of(compute(0), None)), 0
        if past_cache:
            i = min(count, to_full_vectors(out))
            if i > 0:
                write_first(p, 0, i, out, ref, scale, factor, targets)
        while i + wide <= count:
            v = less(exp_relative(load_wide(p, i, 4), ref, scale) * factor, i, targets)
            if past_cache:
                stream(out, i, v)
                for k in range(4):
                    prefetch(p, i + BLOCK + k * width)
            else:
                store(out, i, v)
            i += wide
        while i < count:
            write_first(p, i, min(count, i + width), out, ref, scale, factor, targets)
            i += width

    @inlined
    def write_zeros(out, count):
        for i in range(0, count, wide):
            store_first(out, i, min(wide, count - i), filled_wide(out, 0.0, 4))

    return add_row, write_row, write_zeros


@inlined
def _scatter(stage, count, out, o, start, j):
    for i in range(count):
        put(place(out, o, start + i, j), 0, number_at(stage, i))


@functools.cache
def loss_rows(compute, kind, gradient):
    """Compiles the losses of lanes ``first`` to ``last`` of x (outer, length, inner), and their gradients.

    ``targets`` are indices (outer, inner), ``ignore`` counting for nothing, or probabilities of x's shape. ``out`` may
    be x.
    """
    probabilities, dense, _ = kind
    add_row, write_row, write_zeros = row_parts(compute, kind)
    room = BLOCK + _SPARE

    @inlined
    def weights_at(targets, o, start, j, count, stage):
        return row_at(targets, None, o, start, j, count, stage)[0]

    @inlined
    def no_weights(targets, o, start, j, count, stage):
        return stage

    @inlined
    def staged(x, targets, o, start, j, count, stage, other):
        """Pointers to a stretch of x and one of the probabilities, side by side."""
        return row_at(x, None, o, start, j, count, stage)[0], row_of(targets, o, start, j, count, other)

    @inlined
    def place_in(targets, stage, o, start, j):
        return place(targets, o, start, j)

    @inlined
    def no_place(targets, stage, o, start, j):
        return stage

    @inlined
    def adjacent(array):
        return array.strides[1] == array.itemsize

    @inlined
    def not_needed(array):
        return True

    target_of, first_term = of_target(kind)
    row_of, fits, at_place = no_weights, not_needed, no_place
    if probabilities:
        row_of, fits, at_place = weights_at, adjacent, place_in

    def sweep(x, targets, share, even, parts, losses, out, numbers, ignore, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        options = options_from(numbers)
        scale, zero = scale_of(compute(0), None), filled(start_of(share), 0.0)
        stage, other, result = allocated(x, room), allocated(targets, room), allocated(out, room)
        direct = x.strides[1] == x.itemsize and fits(targets)
        if gradient:
            direct = direct and out.strides[1] == out.itemsize
        size = length if direct else BLOCK
        weighted = share.shape[0] > 0
        gain, share_at, even_at = options.gain, start_of(share), start_of(even)
        o = first // inner
        j = first - o * inner - 1
        for _ in range(first, last):
            j += 1
            if j == inner:
                o, j = o + 1, 0
            target, found = target_of(targets, o, j), lane_at(parts, o, j)
            counts = probabilities or target != ignore
            loss, mass = 0.0, 0.0
            if counts:
                loss, mass = first_term(place(x, o, target, j), target, weighted, share_at, options, found)
            own = mass
            of_lane = Targets(target, compute(own * gain), other, share_at, even_at, compute(gain))
            if counts and dense:
                terms = as_total(zero), as_total(zero)
                for start in range(0, length, size):
                    count = min(size, length - start)
                    p, q = place(x, o, start, j), at_place(targets, other, o, start, j)
                    if not direct:
                        p, q = staged(x, targets, o, start, j, count, stage, other)
                    terms = add_row(p, count, targets_from(of_lane, start, q), compute(found.peak), terms)
                high, low = collapsed(zero, terms[0])
                weight, rest = collapsed(zero, terms[1])
                loss += as_one(high, low) + (weight + rest) * found.log_sum
                mass += weight + rest
            if counts:
                loss, mass = with_z_loss(loss, mass, found, options)
            losses[o, j] = loss
            if gradient:
                shows = counts and has_gradient(own, mass, gain, dense)
                ref = reference(safe_top(compute(found.peak)), scale)
                factor = compute(found.factor * mass * gain)
                for start in range(0, length, size):
                    count = min(size, length - start)
                    to = place(out, o, start, j)
                    if not direct:
                        to = result
                    if shows:
                        p, q = place(x, o, start, j), at_place(targets, other, o, start, j)
                        if not direct:
                            p, q = staged(x, targets, o, start, j, count, stage, other)
                        here = targets_from(of_lane, start, q)
                        write_row(p, count, to, ref, factor, here, past_cache and direct)
                    else:
                        write_zeros(to, count)
                    if not direct:
                        _scatter(to, count, out, o, start, j)
        if gradient and past_cache:
            fence()
        release(stage)
        release(other)
        release(result)

    name = f"loss_rows_{kind.name}"
    return compiled(sweep, name + ("_gradient" if gradient else ""), body=True)
