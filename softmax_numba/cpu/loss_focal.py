"""Cross-entropy and its gradient where each class has a focal factor of its own: number by number, in float64."""

import functools
import math

import numpy as np

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.loss import lane_at, options_from, term_of, with_z_loss
from softmax_numba.cpu.memory import number_at, put
from softmax_numba.cpu.settling import safe_top
from softmax_numba.cpu.sums import two_sum


@functools.cache
def loss_focal(compute, kind, gradient):
    """Compiles the same as ``loss_rows``."""
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
                loss = mass = 0.0 * found.log_sum  # a lane without a softmax has no loss, even if no class counts
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
