"""Cross-entropy of a lane, and its gradient, from what normalises the lane (``lane.NORMALISER``).

The loss of a lane with logits z, targets c (weights, smoothing and all in them) and probabilities p is

    sum of c_k (-log p_k) + z_loss logsumexp(z)**2,        -log p_k = (max - z_k) + log(sum exp(z - max)),

a sum of terms that are not negative, so that nothing cancels; its derivative by z_k is

    (C + 2 z_loss logsumexp(z)) p_k - c_k,                 C = sum of c.

Where the targets are class indices, c is the class's own weight at one place and, with smoothing, ``even`` at all;
where they are probabilities q, it is ``share q + even``. The focal factor multiplies every term by (1 - p_k)**gamma.

Sources: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), the smoothing; Lin et al.,
"Focal Loss for Dense Object Detection" (2017); Chowdhery et al., "PaLM" (2022), the square of the logsumexp.
"""

import math
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import row_at
from softmax_numba.cpu.arrays import allocated, place, release, start_of
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.jit import compiled, inlined
from softmax_numba.cpu.lane import BLOCK, OF_FACTOR, OF_LOG, OF_PEAK, safe_top
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
from softmax_numba.cpu.simd import fma, less_at, select
from softmax_numba.cpu.sums import as_total, collapsed, plus_four, two_sum
from softmax_numba.cpu.wide import filled_wide, load_first_wide, load_first_zero, load_wide, quarters

_SPARE = 64  # bytes, to begin a buffer on a cache line


class Kind(NamedTuple):
    """What is subtracted from a lane's probabilities."""

    probabilities: bool  # the targets are such, not indices
    dense: bool  # there is something for every class
    nothing: bool = False  # not even targets: the gradient is the probabilities

    @property
    def name(self) -> str:
        if self.nothing:
            return "nothing"
        return "probabilities" if self.probabilities else "smooth" if self.dense else "indices"


# --- a lane's numbers, in float64 -------------------------------------------------------


class Options(NamedTuple):
    """What holds for all lanes: a call's array of as many numbers."""

    own: float  # the weight of an index's class, where all have the same
    z_loss: float  # what the square of the logsumexp counts
    gamma: float  # the focal exponent
    gain: float  # what the gradient is multiplied by


@inlined
def options_from(numbers):
    return Options(numbers[0], numbers[1], numbers[2], numbers[3])


class Lane(NamedTuple):
    """What is known of a lane."""

    factor: float  # an exponential relative to that of the peak, times this, is a probability
    peak: float
    log_sum: float


@inlined
def lane_at(parts, o, j):
    """What the sweep of ``lane.NORMALISER`` wrote."""
    return Lane(np.float64(parts[o, OF_FACTOR, j]), np.float64(parts[o, OF_PEAK, j]), np.float64(parts[o, OF_LOG, j]))


@inlined
def term_of(weight, surprise, gamma):
    """The term of a class from its -log p, and the weight that it has in the gradient."""
    if weight == 0.0:
        return 0.0, 0.0
    if gamma == 0.0:
        return weight * surprise, weight
    left = -math.expm1(-surprise)  # 1 - p
    power = weight * left**gamma
    hit = 0.0  # -p log p / (1 - p), which ends at 0 and at 1
    if surprise < np.inf:
        hit = math.exp(-surprise) * (1.0 if left == 0.0 else surprise / left)
    return power * surprise, power * (1.0 + gamma * hit)


@inlined
def own_term(p, target, weighted, share, options, lane):
    """The term of a lane's target class, whose value stands at ``p``, and its weight in the gradient."""
    weight = np.float64(number_at(share, target)) if weighted else options.own
    return term_of(weight, (lane.peak - np.float64(number_at(p, 0))) + lane.log_sum, options.gamma)


@inlined
def with_z_loss(loss, mass, lane, options):
    """A lane's loss and what its probabilities are multiplied by in the gradient, with the square of its logsumexp."""
    if options.z_loss == 0.0:
        return loss, mass
    of_all = lane.peak + lane.log_sum
    return loss + options.z_loss * of_all * of_all, mass + 2.0 * options.z_loss * of_all


# --- rows -------------------------------------------------------------------------------
#
# ``share`` and ``even`` are followed by zeros: their vectors may reach beyond the lane.


@inlined
def as_one(high, low):
    """A sum of two parts; of an infinite one the second, which is what rounding lost, is not a number."""
    return high + low if math.isfinite(high) else high


@inlined
def has_gradient(mass, gain, dense):
    """Whether a lane's gradient is to be computed; it is 0 where nothing in the lane has a weight, be it NaN."""
    return gain != 0.0 and (dense or mass != 0.0)


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
    def write_first(p, i, end, out, ref, factor, targets):
        """The same for one vector, of which there are the places before ``end``."""
        v = exp_relative(load_first(p, i, end - i), ref, scale_of(compute(0), None)) * factor
        if dense:
            v = fma(first_weights(targets, i, end - i), -targets.gain, v)
        if not probabilities and i <= targets.target < end:
            v = less_at(v, targets.target - i, targets.own)
        store_first(out, i, end - i, v)

    @inlined
    def write_row(p, count, out, ref, factor, targets, past_cache):
        """``out[:count]``: the gradient of ``p[:count]``."""
        scale, i = scale_of(compute(0), None), 0
        if past_cache:
            i = min(count, to_full_vectors(out))
            if i > 0:
                write_first(p, 0, i, out, ref, factor, targets)
        while i + wide <= count:
            v = less(exp_relative(load_wide(p, i, 4), ref, scale) * factor, i, targets)
            if past_cache:
                stream(out, i, v)
            else:
                store(out, i, v)
            for k in range(4):
                prefetch(p, i + BLOCK + k * width)
            i += wide
        while i < count:
            write_first(p, i, min(count, i + width), out, ref, factor, targets)
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


def loss_rows(compute, kind, gradient):
    """Compiles the losses of lanes ``first`` to ``last`` of x (outer, length, inner), and their gradients.

    ``targets`` are indices (outer, inner), ``ignore`` counting for nothing, or probabilities of x's shape. ``out`` may
    be x.
    """
    probabilities, dense, nothing = kind
    add_row, write_row, write_zeros = row_parts(compute, kind)
    room = BLOCK + _SPARE

    @inlined
    def index_at(targets, o, j):
        return targets[o, j]

    @inlined
    def no_index(targets, o, j):
        return 0

    @inlined
    def term_of_index(p, target, weighted, share, options, found):
        return own_term(p, target, weighted, share, options, found)

    @inlined
    def no_term(p, target, weighted, share, options, found):
        return 0.0, 0.0

    @inlined
    def whole(p, target, weighted, share, options, found):
        return 0.0, 1.0

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

    target_of, first_term, row_of, fits = index_at, term_of_index, no_weights, not_needed
    if probabilities:
        target_of, first_term, row_of, fits = no_index, no_term, weights_at, adjacent

    if nothing:
        first_term = whole
    at_place = place_in if probabilities else no_place
    one_term = not (gradient or dense or nothing)

    @inlined
    def lose_terms(x, targets, share, parts, losses, own, ignore, first, last):
        """The losses of lanes that are one term each."""
        inner, weighted, of_class = x.shape[2], share.shape[0] > 0, start_of(share)
        o = first // inner
        j = first - o * inner - 1
        for _ in range(first, last):
            j += 1
            if j == inner:
                o, j = o + 1, 0
            target, loss = target_of(targets, o, j), 0.0
            if target != ignore:
                weight = np.float64(number_at(of_class, target)) if weighted else own
                peak, log_sum = np.float64(parts[o, OF_PEAK, j]), np.float64(parts[o, OF_LOG, j])
                surprise = (peak - np.float64(number_at(place(x, o, target, j), 0))) + log_sum
                loss = weight * surprise if weight != 0.0 else 0.0
            losses[o, j] = loss

    def sweep(x, targets, share, even, parts, losses, out, numbers, ignore, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        options = options_from(numbers)
        if one_term and options.gamma == 0.0 and options.z_loss == 0.0:
            lose_terms(x, targets, share, parts, losses, options.own, ignore, first, last)
            return
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
            of_lane = Targets(target, compute(mass * gain), other, share_at, even_at, compute(gain))
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
                shows = counts and has_gradient(mass, gain, dense)
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


# --- every class's own factor -----------------------------------------------------------


def focal_lanes(compute, kind, gradient):
    """The same where each of many classes has a focal factor of its own: number by number, in float64."""
    probabilities = kind.probabilities

    @inlined
    def index_weight(targets, o, k, j, share, even, own):
        weight = np.float64(even[k])
        if targets[o, j] == k:
            weight += own if share.shape[0] == 0 else np.float64(share[k])
        return weight

    @inlined
    def probability_weight(targets, o, k, j, share, even, own):
        return np.float64(share[k]) * np.float64(number_at(place(targets, o, k, j), 0)) + np.float64(even[k])

    @inlined
    def index_counts(targets, o, j, ignore):
        return targets[o, j] != ignore

    @inlined
    def always_counts(targets, o, j, ignore):
        return True

    weight_at = probability_weight if probabilities else index_weight
    counts_at = always_counts if probabilities else index_counts

    def sweep(x, targets, share, even, parts, losses, out, numbers, ignore, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        options, scale = options_from(numbers), scale_of(compute(0), None)
        gain, gamma, own = options.gain, options.gamma, options.own
        for lane in range(first, last):
            o = lane // inner
            j = lane - o * inner
            found, counts = lane_at(parts, o, j), counts_at(targets, o, j, ignore)
            ref = reference(safe_top(compute(found.peak)), scale)
            loss, mass, lost, missing = 0.0, 0.0, 0.0, 0.0
            if counts:
                for k in range(length):
                    surprise = (found.peak - np.float64(number_at(place(x, o, k, j), 0))) + found.log_sum
                    term, weight = term_of(weight_at(targets, o, k, j, share, even, own), surprise, gamma)
                    loss, error = two_sum(loss, term)
                    mass, less = two_sum(mass, weight)
                    lost, missing = lost + error, missing + less
                if math.isfinite(loss):
                    loss += lost
                loss, mass = with_z_loss(loss, mass + missing, found, options)
            losses[o, j] = loss
            if gradient:
                for k in range(length):
                    value = 0.0
                    if counts and gain != 0.0:
                        z = number_at(place(x, o, k, j), 0)
                        surprise = (found.peak - np.float64(z)) + found.log_sum
                        p = found.factor * np.float64(exp_relative(z, ref, scale))
                        weight = weight_at(targets, o, k, j, share, even, own)
                        value = gain * ((mass * p if mass != 0.0 else 0.0) - term_of(weight, surprise, gamma)[1])
                    put(place(out, o, k, j), 0, value)

    name = f"loss_focal_{kind.name}"
    return compiled(sweep, name + ("_gradient" if gradient else ""), body=True)
