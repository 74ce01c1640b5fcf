"""A term for every class: smoothing, probabilities, focal factors.

With q_k the targets' probabilities (1 at an index) and w_k the classes' weights, the loss of a lane is

    sum of c_k (1 - p_k)**gamma (-log p_k),    c_k = w_k ((1 - smoothing) q_k + smoothing / classes),
                                               -log p_k = (max - z_k) + log(sum exp(z - max)),

all of it in the type that computes, the sums in two numbers. What c_k becomes in the gradient is a class's *slope*:

    gain ((sum of slopes + 2 z_loss logsumexp) p_k - slope_k).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.lane import LOSS, lane
from softmax_numba.gpu.loss import WRONG
from softmax_numba.gpu.seam import across, device, fma
from softmax_numba.gpu.storage import STORAGES


class Targets(NamedTuple):
    """What makes c of q, and the focal exponent."""

    keep: Any
    even: Any
    gamma: Any


class Kind(NamedTuple):
    """What a lane's terms are made of."""

    storage: str
    probabilities: str | None  # their dtype; None: the targets are indices
    focal: bool
    weighted: bool


class Sums(NamedTuple):
    """What some classes come to: their terms and slopes, each in two numbers."""

    loss: Any
    loss_low: Any
    mass: Any
    mass_low: Any


class Terms(NamedTuple):
    """The device functions."""

    term: Callable  # class k's term and slope
    plus: Callable  # sums with one term more
    merged: Callable  # the sums of two
    over: Callable  # those of as many threads, for all of them
    factor: Callable  # what exponentials are multiplied by in the gradient, the gain, and whether there is one


@functools.cache
def terms(kind: Kind) -> Terms:
    """For the lanes of a kernel."""
    number = STORAGES[kind.storage].kind
    load_number, size = STORAGES[np.dtype(number).name].load, np.dtype(number).itemsize
    two_sum, term_of, weighted = lane(LOSS, number).two_sum, _term(number, kind.focal), kind.weighted
    zero, one, nan = number(0), number(1), number(np.nan)

    if kind.probabilities is None:

        @device
        def share(k, target, place, step):
            return one if k == target else zero

    else:
        load_share = STORAGES[kind.probabilities].load

        @device
        def share(k, target, place, step):
            return number(load_share(place + k * step))

    @device
    def term(k, z, target, place, a, targets, peak, log_sum):
        c = fma(share(k, target, place, a.other_step), targets.keep, targets.even)
        if weighted:
            c = fma(c, load_number(a.weights + k * size), zero)
        return term_of(c, (peak - z) + log_sum, targets.gamma)

    @device
    def plus(sums, loss, slope):
        loss, error = two_sum(sums.loss, loss)
        mass, less = two_sum(sums.mass, slope)
        return Sums(loss, sums.loss_low + error, mass, sums.mass_low + less)

    @device
    def merged(a, b):
        loss, error = two_sum(a.loss, b.loss)
        mass, less = two_sum(a.mass, b.mass)
        return Sums(loss, error + (a.loss_low + b.loss_low), mass, less + (a.mass_low + b.mass_low))

    @device
    def over(sums, threads):
        distance = threads >> 1
        while distance > 0:
            loss, loss_low = across(sums.loss, distance), across(sums.loss_low, distance)
            mass, mass_low = across(sums.mass, distance), across(sums.mass_low, distance)
            sums = merged(sums, Sums(loss, loss_low, mass, mass_low))
            distance >>= 1
        return sums

    @device
    def factor(sums, target, peak, log_sum, inverse, gains):
        gain, of_square = load_number(gains), load_number(gains + size)
        mass = sums.mass + sums.mass_low
        if of_square != zero:
            mass = fma(of_square, peak + log_sum, mass)
        found, shows = inverse * fma(mass, gain, zero), target >= 0 and gain != zero
        if target == WRONG:
            found, shows = nan, True
        return found, gain, shows

    return Terms(term, plus, merged, over, factor)


@functools.cache
def _term(number: Any, focal: bool) -> Callable:
    """The device function for a class's term and slope from its c and -log p."""
    zero, one, infinity = number(0), number(1), number(np.inf)

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
            left = number(-math.expm1(-surprise))  # 1 - p
            power = c * number(math.pow(left, gamma))
            hit = zero  # -p log p / (1 - p), which ends at 0 and at 1
            if surprise < infinity:
                hit = number(math.exp(-surprise))
                if left > zero:
                    hit = hit * (surprise / left)
            loss = fma(power, surprise, zero)
            slope = fma(power, fma(gamma, hit, one), zero)
        return loss, slope

    return with_factor if focal else plain
