"""Cross-entropy and its gradient along columns: lanes that lie side by side, line by line of memory.

What a lane needs (where its exponentials begin, its factor, its target) is a number a lane in the first cache, and
every line of values takes those numbers along.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.exponential import Reference, exp_relative, held, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import OF_FACTOR, OF_LOG, OF_PEAK
from softmax_numba.cpu.line_sums import line_sums
from softmax_numba.cpu.loss import as_one, has_gradient, lane_at, of_target, options_from, with_z_loss
from softmax_numba.cpu.loss_picked import NONE, Found, note_picked
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    fence,
    filled,
    load,
    load_first,
    matches,
    moved,
    number_at,
    prefetch,
    put,
    store,
    store_first,
    stored_size,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.settling import safe_top
from softmax_numba.cpu.simd import fma, select
from softmax_numba.cpu.sums import as_total, load_total, store_sums
from softmax_numba.cpu.wide import filled_wide, load_first_zero, load_wide, numbers_for

# A line of a tile is at most a page of memory.
MOST_VECTORS = 64


class Lanes(NamedTuple):
    """Pointers to a number a lane."""

    shift: object
    magic: object
    floor: object
    factor: object
    peak: object
    own: object  # the weight of the target class
    gain: object  # what other weights are multiplied by
    target: object  # the target class, int32


class Lines(NamedTuple):
    """The lines of a tile: pointers, and how many numbers there are from one to the next."""

    x: object
    step: int
    q: object
    q_step: int
    share: object
    even: object
    peak: object
    lanes: int


@inlined
def _given_weights(lines, i, k):
    """What a vector of class ``i`` counts."""
    q = load_first_zero(moved(lines.q, i * lines.q_step), k, lines.lanes - k, 1)
    return fma(q, number_at(lines.share, i), filled(lines.even, number_at(lines.even, i)))


@inlined
def _even_weights(lines, i, k):
    return filled(lines.even, number_at(lines.even, i))


@functools.cache
def loss_columns(compute, kind, gradient):
    """Compiles the losses of vectors ``first`` to ``last`` of neighbouring lanes of x (outer, length, inner), and their
    gradients: lanes, results and probabilities lie side by side. The arguments are those of ``loss.loss_rows``."""
    probabilities, dense, _ = kind
    width = 64 // np.dtype(compute).itemsize
    wide = 4 * width
    weights_of_line = _given_weights if probabilities else _even_weights

    @inlined
    def loss_of_line(lines, i, k):
        c, x = weights_of_line(lines, i, k), load_first(moved(lines.x, i * lines.step), k, lines.lanes - k)
        return as_total(select(c == 0.0, 0.0, c * (load(lines.peak, k) - x)))

    @inlined
    def mass_of_line(lines, i, k):
        return as_total(weights_of_line(lines, i, k))

    add_losses, add_masses = line_sums(width, loss_of_line), line_sums(width, mass_of_line)

    @inlined
    def line_of(targets, o, i, j):
        return place(targets, o, i, j)

    @inlined
    def no_line(targets, o, i, j):
        return start_of(targets)

    @inlined
    def step_between(array):
        return array.strides[1] // array.itemsize

    @inlined
    def no_step(array):
        return 0

    step_of = step_between if probabilities else no_step
    target_of, first_term = of_target(kind)
    picked = not (probabilities or dense or kind.nothing)
    q_at = line_of if probabilities else no_line

    def results_of(vectors):
        """Compiles the gradient of so many vectors of lanes."""
        many = vectors * width

        @inlined
        def less_given(v, q, k, count, lanes, share, even):
            c = fma(load_first_zero(q, k, count, vectors), share, filled_wide(lanes.gain, even, vectors))
            return fma(c, -numbers_for(lanes.gain, k, many), v)

        @inlined
        def less_even(v, q, k, count, lanes, share, even):
            return fma(numbers_for(lanes.gain, k, many), -even, v)

        less = less_given if probabilities else less_even

        @inlined
        def results(x, i, k, count, lanes, q, share, even, scale):
            """The gradient of class ``i`` from lane ``k`` on."""
            ref = Reference(
                numbers_for(lanes.shift, k, many),
                0.0,
                numbers_for(lanes.magic, k, many),
                numbers_for(lanes.floor, k, many),
            )
            v = exp_relative(x, ref, scale) * numbers_for(lanes.factor, k, many)
            if dense:
                v = less(v, q, k, count, lanes, share, even)
            if not probabilities:
                v = select(matches(lanes.target, k, i, v), v - numbers_for(lanes.own, k, many), v)
            return v

        return results

    results, results_of_one = results_of(4), results_of(1)

    @inlined
    def write_line(p, i, count, step, out, lanes, q, share, even, past_cache):
        """The gradient of class ``i`` for so many lanes."""
        scale, k = held(scale_of(compute(0), None)), 0
        if past_cache:
            k = min(count, to_full_vectors(out))
            if k > 0:
                store_first(out, 0, k, results_of_one(load_first(p, 0, k), i, 0, k, lanes, q, share, even, scale))
        while k + wide <= count:
            given = results(load_wide(p, k, 4), i, k, wide, lanes, q, share, even, scale)
            if past_cache:
                stream(out, k, given)
            else:
                store(out, k, given)
            for ahead in range(0, wide, LINE_BYTES // stored_size(p)):
                prefetch(p, k + ahead + 2 * step)
            k += wide
        while k < count:
            left = min(width, count - k)
            if left == width:
                store(out, k, results_of_one(load(p, k), i, k, width, lanes, q, share, even, scale))
            else:
                given = results_of_one(load_first(p, k, left), i, k, left, lanes, q, share, even, scale)
                store_first(out, k, left, given)
            k += width

    def sweep(x, targets, share, even, parts, losses, out, numbers, ignore, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        across = (inner + width - 1) // width
        vectors = min(MOST_VECTORS, across, last - first)
        per_tile = vectors * width
        room = per_tile + 2 * width
        scale, options = scale_of(compute(0), None), options_from(numbers)
        gain, weighted = options.gain, share.shape[0] > 0
        picks = picked and not weighted and options.z_loss == 0.0 and options.gamma == 0.0
        share_at, even_at = start_of(share), start_of(even)
        at, classes = allocated(compute(0), 7 * room), np.empty(room, np.int32)
        lanes = Lanes(
            at,
            moved(at, room),
            moved(at, 2 * room),
            moved(at, 3 * room),
            moved(at, 4 * room),
            moved(at, 5 * room),
            moved(at, 6 * room),
            start_of(classes),
        )
        zero = filled(lanes.peak, 0.0)
        slots, sums = allocated(0.0, 16 * width * vectors), allocated(0.0, 4 * room)
        step, q_step = x.strides[1] // x.itemsize, step_of(targets)
        part_step = parts.strides[2] // parts.itemsize
        begin = first
        while begin < last:
            o = begin // across
            j = (begin - o * across) * width
            count = min(inner - j, per_tile, (last - begin) * width)
            begin += (count + width - 1) // width
            used = (count + width - 1) // width
            reach = count + width  # of vectors that begin at any lane
            for k in range(reach):
                put(lanes.peak, k, lane_at(parts, o, j + min(k, count - 1)).peak)
            if dense:
                lines = Lines(
                    place(x, o, 0, j), step, q_at(targets, o, 0, j), q_step, share_at, even_at, lanes.peak, count
                )
                add_losses(lines, length, count, lanes.peak, slots, vectors)
                for k in range(used):
                    store_sums(sums, k * width, room, zero, load_total(slots, k))
                add_masses(lines, length, count, lanes.peak, slots, vectors)
                for k in range(used):
                    store_sums(sums, 2 * room + k * width, room, zero, load_total(slots, k))
            every = True
            if picks:
                factors, peaks = place(parts, o, OF_FACTOR, j), place(parts, o, OF_PEAK, j)
                found = Found(factors, peaks, place(parts, o, OF_LOG, j))
                every = note_picked(x, targets, losses, found, part_step, lanes, o, j, count, options.own, gain, ignore)
            for k in range(0 if picks else count):
                target, found = target_of(targets, o, j + k), lane_at(parts, o, j + k)
                counts = probabilities or target != ignore
                loss, mass = 0.0, 0.0
                if counts:
                    loss, mass = first_term(place(x, o, target, j + k), target, weighted, share_at, options, found)
                own = mass
                put(lanes.own, k, own * gain)
                if counts:
                    if dense:
                        weight = number_at(sums, 2 * room + k) + number_at(sums, 3 * room + k)
                        loss += as_one(number_at(sums, k), number_at(sums, room + k)) + weight * found.log_sum
                        mass += weight
                    loss, mass = with_z_loss(loss, mass, found, options)
                losses[o, j + k] = loss
                shows = counts and has_gradient(own, mass, gain, dense)
                put(lanes.factor, k, found.factor * mass * gain if shows else 0.0)
                put(lanes.gain, k, gain if shows else 0.0)
                classes[k] = target if shows else NONE
                every = every and shows
            if gradient:
                for k in range(count, reach):
                    put(lanes.own, k, 0.0)
                    put(lanes.factor, k, 0.0)
                    put(lanes.gain, k, 0.0)
                    classes[k] = NONE
                for k in range(0, reach, width):
                    ref = reference(safe_top(load(lanes.peak, k)), scale)
                    store(lanes.shift, k, ref.shift)
                    store(lanes.magic, k, ref.magic)
                    store(lanes.floor, k, ref.floor)
                for i in range(length):
                    q, to = q_at(targets, o, i, j), place(out, o, i, j)
                    given, other = compute(0), compute(0)
                    if dense:
                        given, other = share[i], even[i]
                    write_line(place(x, o, i, j), i, count, step, to, lanes, q, given, other, past_cache)
                if not every:  # where a lane without a gradient is not finite, 0 times it is not 0
                    for k in range(count):
                        if classes[k] == NONE and not np.isfinite(lane_at(parts, o, j + k).log_sum):
                            for i in range(length):
                                put(place(out, o, i, j + k), 0, 0.0)
        if gradient and past_cache:
            fence()
        release(lanes.shift)
        release(slots)
        release(sums)
        hold(classes)

    name = f"loss_columns_{kind.name}"
    return compiled(sweep, name + ("_gradient" if gradient else ""), body=True)
