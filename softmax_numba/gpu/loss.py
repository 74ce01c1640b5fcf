"""Cross-entropy at class indices: what a lane's sum comes to, and what the target's class has of the gradient.

The gradient of a lane with probabilities p and the target t, whose class has the weight w, is

    gain (w + 2 z_loss logsumexp) p_k,   less gain w at t;     gain = 1 / total weight for a mean, else 1.

The lane's thread that tells notes what its loss is made of, and losses are computed from the notes in float64 by
loss_sums.py, a thread a lane: kernels of narrower lanes compute nothing in float64. The target's own logit is noted by
the thread that holds it, before the gradient overwrites it where both are in one place.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, values_of
from softmax_numba.gpu.lane import LOSS_AND_GRADIENT, Operation, lane
from softmax_numba.gpu.seam import device, fma, load_index
from softmax_numba.gpu.storage import STORAGES

# What stands for a target that counts for nothing, and for one out of range.
IGNORED, WRONG = -1, -2
CODE = 4  # bytes of a target, an int32
NOTES = 4  # numbers a lane: its maximum, log(sum / exp(max)), 1 / sum, the target's logit
GAINS = 2  # numbers a call: the gain and 2 z_loss


class Losing(NamedTuple):
    """What a lane comes to, for its gradient."""

    peak: Any
    inverse: Any  # what a kept exponential is multiplied by
    shows: Any  # whether the lane has a gradient; it is 0 where not, be the values NaN
    target: Any  # counted from a tile's first value
    own: Any  # what the target's class has less
    number: Any  # of the lane
    a: Any  # the kernel's arguments


@functools.cache
def noting(storage: str) -> Callable:
    """The device function that notes a target's own logit; of no target, that of class 0.

    It finds its addresses anew: kept until the target's tile comes they would be four registers.
    """
    how = STORAGES[storage]
    kind, load, load_code = how.kind, how.load, load_index["int32"]
    store, size = STORAGES[np.dtype(kind).name].store, np.dtype(kind).itemsize

    @device
    def note(number, a):
        where = mask_of(number, a)
        logit = values_of(number, a) + max(load_code(where), np.int64(0)) * a.x_step
        store(a.notes + ((where - a.codes) >> 2) * (NOTES * size) + 3 * size, kind(load(logit)))

    return note


@functools.cache
def ending(operation: Operation, storage: str) -> tuple[Callable, Callable]:
    """``settled`` and ``seen_from`` of ending.py. The codes of the targets stand in the mask's place."""
    how = STORAGES[storage]
    kind = how.kind
    settle, note, number_store = lane(operation, kind).settle, noting(storage), STORAGES[np.dtype(kind).name].store
    number_load, size = STORAGES[np.dtype(kind).name].load, np.dtype(kind).itemsize
    load_code = load_index["int32"]
    zero, one, nan = kind(0), kind(1), kind(np.nan)
    has_gradient = operation is LOSS_AND_GRADIENT

    @device
    def settled(part, number, a, scale, tells):
        found = settle(part, scale)
        where = mask_of(number, a)
        notes = a.notes + ((where - a.codes) >> 2) * (NOTES * size)
        target = load_code(where)
        counted = max(target, np.int64(0))
        if tells:
            number_store(notes, found.peak)
            number_store(notes + size, found.log_sum)
            if not has_gradient:
                number_store(notes + 2 * size, found.inverse)
                note(number, a)
        own, factor, shows = zero, zero, False
        if has_gradient:
            gain, of_square = number_load(a.gains), number_load(a.gains + size)
            own = one
            if a.weights != 0:
                own = number_load(a.weights + counted * size)
            mass = own
            if of_square != zero:
                mass = fma(of_square, found.result, own)
            own = fma(own, gain, zero)
            mass = fma(mass, gain, zero)
            factor = found.inverse * mass
            shows = target >= 0 and (mass != zero or own != zero)
            if target == WRONG:
                factor, shows = nan, True
        return Losing(found.peak, factor, shows, target, own, number, a)

    @device
    def seen_from(found, first):
        target = found.target - first if found.target >= 0 else found.target
        return Losing(found.peak, found.inverse, found.shows, target, found.own, found.number, found.a)

    return settled, seen_from


@functools.cache
def marking(storage: str, values: int, threads: int) -> Callable:
    """The device function that takes the target's own share from a tile of ``values`` values a thread."""
    how = STORAGES[storage]
    note, width, zero = noting(storage), how.per_vector, how.kind(0)
    low, across = width.bit_length() - 1, threads.bit_length() - 1

    @device
    def mark(values_held, settled, count, slot):
        target = settled.target
        if target >= 0 and target < count and (target >> low) & (threads - 1) == slot:
            note(settled.number, settled.a)
            own = settled.own if settled.shows else zero
            place = ((target >> (low + across)) << low) | (target & (width - 1))
            for k in range(values):
                values_held[k] -= own if k == place else zero  # a store under a condition would be by its index

    return mark
