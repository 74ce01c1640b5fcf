"""Losses that have a term for every class: smoothing, probabilities, focal factors; two more looks at a lane.

``rows.py`` and ``long.py`` have noted what normalises the lanes. With q_k the targets' probabilities (1 at an index)
and w_k the classes' weights, c_k = w_k ((1 - smoothing) q_k + smoothing / classes), and the loss is

    sum of c_k (1 - p_k)**gamma (-log p_k),    -log p_k = (max - z_k) + log(sum exp(z - max)),

all of it in the type that computes, the sums in two numbers. Values are read one by one: a warp a lane, a block a long
one, as the length alone decides.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, other_of, results_of, values_of
from softmax_numba.gpu.exponential import Scale, exponential, scale_of
from softmax_numba.gpu.lane import LOSS, lane
from softmax_numba.gpu.loss import NOTES, WRONG
from softmax_numba.gpu.seam import across, cuda, device, fma, load_index
from softmax_numba.gpu.storage import STORAGES

WARP_BLOCK = 128
LONGEST_OF_WARP = 1024  # values


class Targets(NamedTuple):
    """What makes c of q, and the focal exponent."""

    keep: Any
    even: Any
    gamma: Any


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    storage: str
    probabilities: str | None  # their dtype; None: the targets are indices
    focal: bool
    gradient: bool
    threads: int  # a lane

    @property
    def block(self) -> int:
        return max(self.threads, WARP_BLOCK)


def threads_of(length: int) -> int:
    """How many threads a lane has."""
    return 32 if length <= LONGEST_OF_WARP else 256


@functools.cache
def _term(kind: Any, focal: bool) -> Callable:
    """The device function for a class's term from its c and -log p, and for its weight in the gradient."""
    zero, one, infinity = kind(0), kind(1), kind(np.inf)

    @device
    def plain(c, surprise, gamma):
        loss = zero
        if c != zero:
            loss = fma(c, surprise, zero)  # a product could be fused with the sum
        return loss, c

    @device
    def with_factor(c, surprise, gamma):
        loss, slope = zero, zero
        if c != zero:
            left = kind(-math.expm1(-surprise))  # 1 - p
            power = c * kind(math.pow(left, gamma))
            hit = zero  # -p log p / (1 - p), which ends at 0 and at 1
            if surprise < infinity:
                hit = kind(math.exp(-surprise))
                if left > zero:
                    hit = hit * (surprise / left)
            loss = fma(power, surprise, zero)
            slope = fma(power, fma(gamma, hit, one), zero)
        return loss, slope

    return with_factor if focal else plain


@functools.cache
def dense(shape: Shape) -> Callable:
    """The kernel: sums of a lane's terms into ``scratch``, and its gradient."""
    how, threads, block = STORAGES[shape.storage], shape.threads, shape.block
    kind, load, store, gradient = how.kind, how.load, how.store, shape.gradient
    name = np.dtype(kind).name
    load_number, store_number, size = STORAGES[name].load, STORAGES[name].store, np.dtype(kind).itemsize
    load_code, two_sum, term = load_index["int32"], lane(LOSS, kind).two_sum, _term(kind, shape.focal)
    reference, relative, _ = exponential(kind)
    per_octave, octave_high, octave_low, _ = (kind(number) for number in scale_of(1.0, kind))
    zero, one, nan, warps = kind(0), kind(1), kind(np.nan), threads // 32
    numbers = 4 * max(block // 32, 1)

    if shape.probabilities is None:

        @device
        def share(k, target, place, step):
            return one if k == target else zero

    else:
        load_share = STORAGES[shape.probabilities].load

        @device
        def share(k, target, place, step):
            return kind(load_share(place + k * step))

    @device
    def term_at(k, z, target, place, a, targets, peak, log_sum):
        c = fma(share(k, target, place, a.other_step), targets.keep, targets.even)
        if a.weights != 0:
            c = fma(c, load_number(a.weights + k * size), zero)
        return term(c, (peak - z) + log_sum, targets.gamma)

    @device
    def added(loss, loss_low, mass, mass_low):
        """The sums over a warp."""
        distance = 16
        while distance > 0:
            loss, error = two_sum(loss, across(loss, distance))
            loss_low = error + (loss_low + across(loss_low, distance))
            mass, error = two_sum(mass, across(mass, distance))
            mass_low = error + (mass_low + across(mass_low, distance))
            distance >>= 1
        return loss, loss_low, mass, mass_low

    def kernel(a, targets):
        thread = np.int64(cuda.threadIdx.x)
        number, slot = (np.int64(cuda.blockIdx.x) * block + thread) // threads, thread % threads
        count = a.length
        if number >= a.lanes:  # these threads take part in the shuffles and touch nothing
            number, count = np.int64(0), np.int64(0)
        where = mask_of(number, a)
        lane_at = (where - a.codes) >> 2
        target = load_code(where)
        notes = a.notes + lane_at * (NOTES * size)
        peak, log_sum, inverse = load_number(notes), load_number(notes + size), load_number(notes + 2 * size)
        x, place = values_of(number, a), other_of(number, a)
        loss, loss_low, mass, mass_low = zero, zero, zero, zero
        k = slot
        while k < count:
            more, slope = term_at(k, load(x + k * a.x_step), target, place, a, targets, peak, log_sum)
            loss, error = two_sum(loss, more)
            loss_low += error
            mass, error = two_sum(mass, slope)
            mass_low += error
            k += threads
        loss, loss_low, mass, mass_low = added(loss, loss_low, mass, mass_low)
        if warps > 1:
            meeting = cuda.shared.array(numbers, kind)
            warp = slot >> 5
            if slot & 31 == 0:
                meeting[4 * warp], meeting[4 * warp + 1] = loss, loss_low
                meeting[4 * warp + 2], meeting[4 * warp + 3] = mass, mass_low
            cuda.syncthreads()
            loss, loss_low, mass, mass_low = meeting[0], meeting[1], meeting[2], meeting[3]
            for w in range(1, warps):
                loss, error = two_sum(loss, meeting[4 * w])
                loss_low += error + meeting[4 * w + 1]
                mass, error = two_sum(mass, meeting[4 * w + 2])
                mass_low += error + meeting[4 * w + 3]
        if slot == 0 and count > 0:
            store_number(a.scratch + lane_at * (2 * size), loss)
            store_number(a.scratch + lane_at * (2 * size) + size, loss_low)
        if gradient:
            natural = Scale(per_octave, octave_high, octave_low, one)
            gain, of_square = load_number(a.gains), load_number(a.gains + size)
            ref, mass = reference(peak, natural), mass + mass_low
            if of_square != zero:
                mass = fma(of_square, peak + log_sum, mass)
            factor, shows = inverse * fma(mass, gain, zero), target >= 0 and gain != zero
            if target == WRONG:
                factor, shows = nan, True
            y = results_of(number, a)
            k = slot
            while k < count:
                z, value = load(x + k * a.x_step), zero
                if shows:
                    slope = term_at(k, z, target, place, a, targets, peak, log_sum)[1]
                    value = fma(relative(z, ref, natural), factor, -fma(slope, gain, zero))
                store(y + k * a.y_step, value)
                k += threads

    return kernel
