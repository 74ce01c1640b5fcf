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

import functools
import math
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.lane import OF_FACTOR, OF_LOG, OF_PEAK
from softmax_numba.cpu.memory import number_at


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


@inlined
def as_one(high, low):
    """A sum of two parts; of an infinite one the second, which is what rounding lost, is not a number."""
    return high + low if math.isfinite(high) else high


@inlined
def has_gradient(own, mass, gain, dense):
    """Whether a lane's gradient is to be computed; it is 0 where nothing in the lane has a weight, be it NaN.

    ``mass`` may be 0 where the target's ``own`` weight is not: the square of the logsumexp counts against it.
    """
    return gain != 0.0 and (dense or own != 0.0 or mass != 0.0)


# --- the target class -------------------------------------------------------------------


@inlined
def _index_at(targets, o, j):
    return targets[o, j]


@inlined
def _no_index(targets, o, j):
    return 0


@inlined
def _no_term(p, target, weighted, share, options, lane):
    return 0.0, 0.0


@inlined
def _whole(p, target, weighted, share, options, lane):
    return 0.0, 1.0


@functools.cache
def of_target(kind):
    """Which class is a lane's target, and its term and weight: none where the targets are probabilities."""
    if kind.nothing:
        return _index_at, _whole
    return (_no_index, _no_term) if kind.probabilities else (_index_at, own_term)
