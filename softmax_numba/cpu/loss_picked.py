"""Cross-entropy at class indices where nothing but the target's own value counts: a number picked from each lane, and
that of lanes of a single class, which is certain.

That is a few instructions a lane, so nothing else may be done for each: places are counted on from lane to lane, and
whether a lane counts is no branch.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.arrays import place, start_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import OF_LOG, OF_PEAK
from softmax_numba.cpu.loss import options_from
from softmax_numba.cpu.memory import moved, number_at, put

NONE = -1  # no class


class Found(NamedTuple):
    """What is known of neighbouring lanes: pointers to the numbers of loss.Lane in the compute dtype."""

    factor: object
    peak: object
    log_sum: object


@inlined
def _entry_at(array, o, j):
    """A pointer to an entry of an array (outer, inner)."""
    return moved(start_of(array), (o * array.strides[0] + j * array.strides[1]) // array.itemsize)


@inlined
def _axis_of(x):
    """Along which axis of two, the outer and the inner one, lanes follow each other."""
    return 0 if x.shape[2] == 1 else 1


@inlined
def _in_line(x, first, last):
    """The outer and the inner place of lane ``first``, and how many lanes up to ``last`` are in line with it."""
    o = first // x.shape[2]
    j = first - o * x.shape[2]
    return o, j, last - first if _axis_of(x) == 0 else min(x.shape[2] - j, last - first)


@inlined
def _loss_of(p, down, peaks, logs, step, k, target, counts, own):
    """The loss of lane ``k``, whose first value ``p`` points to, from numbers ``step`` apart."""
    value = np.float64(number_at(p, target * down if counts else 0))
    peak, log_sum = np.float64(number_at(peaks, k * step)), np.float64(number_at(logs, k * step))
    return own * ((peak - value) + log_sum) if counts else 0.0


@inlined
def note_picked(x, targets, losses, found, part_step, lanes, o, j, count, own, gain, ignore):
    """The losses of lanes that follow each other along the inner axis, or the outer one if that is all there is, and
    what their gradients need: ``lanes.own``, ``factor`` and ``target``, NONE where there is no gradient; whether all
    have one. What is ``found`` of a lane stands ``part_step`` numbers after what is found of the one before.
    """
    along, down = _axis_of(x), x.strides[1] // x.itemsize
    step, target_step = x.strides[2 * along] // x.itemsize, targets.strides[along] // targets.itemsize
    loss_step = losses.strides[along] // losses.itemsize
    p, given, to = place(x, o, 0, j), _entry_at(targets, o, j), _entry_at(losses, o, j)
    every = True
    for k in range(count):
        target = given[k * target_step]
        counts = target != ignore
        at = moved(p, k * step)
        to[k * loss_step] = _loss_of(at, down, found.peak, found.log_sum, part_step, k, target, counts, own)
        shows = counts and gain != 0.0
        factor = np.float64(number_at(found.factor, k * part_step)) * own * gain
        put(lanes.own, k, own * gain)
        put(lanes.factor, k, factor if shows else 0.0)
        lanes.target[k] = target if shows else NONE
        every = every and shows
    return every


@functools.cache
def loss_picked():
    """Compiles the losses of lanes ``first`` to ``last`` of x (outer, length, inner); arguments as of
    :func:`softmax_numba.cpu.loss_rows.loss_rows`, of which only the targets' own weight is looked at."""

    def sweep(x, targets, share, even, parts, losses, out, numbers, ignore, first, last, past_cache):
        along, own = _axis_of(x), options_from(numbers).own
        step, down = x.strides[2 * along] // x.itemsize, x.strides[1] // x.itemsize
        part_step = parts.strides[2 * along] // parts.itemsize
        target_step, loss_step = targets.strides[along] // targets.itemsize, losses.strides[along] // losses.itemsize
        while first < last:
            o, j, count = _in_line(x, first, last)
            p, given, found = place(x, o, 0, j), _entry_at(targets, o, j), _entry_at(losses, o, j)
            peaks, logs = place(parts, o, OF_PEAK, j), place(parts, o, OF_LOG, j)
            for k in range(count):
                target = given[k * target_step]
                counts, at = target != ignore, moved(p, k * step)
                found[k * loss_step] = _loss_of(at, down, peaks, logs, part_step, k, target, counts, own)
            first += count

    return compiled(sweep, "loss_picked", body=True)


@functools.cache
def loss_certain(gradient):
    """Compiles the same for lanes of one value, and their gradients: 0, or NaN where it is not finite. Nothing need be
    known of a lane."""

    def sweep(x, targets, share, even, parts, losses, out, numbers, ignore, first, last, past_cache):
        along = _axis_of(x)
        step, out_step = x.strides[2 * along] // x.itemsize, out.strides[2 * along] // out.itemsize
        target_step, loss_step = targets.strides[along] // targets.itemsize, losses.strides[along] // losses.itemsize
        while first < last:
            o, j, count = _in_line(x, first, last)
            p, given, found = place(x, o, 0, j), _entry_at(targets, o, j), _entry_at(losses, o, j)
            to = place(out, o, 0, j)
            for k in range(count):
                value = number_at(p, k * step)
                loss = np.float64(value - value) if given[k * target_step] != ignore else 0.0
                found[k * loss_step] = loss
                if gradient:
                    put(to, k * out_step, loss)
            first += count

    return compiled(sweep, "loss_certain" + ("_gradient" if gradient else ""), body=True)
