"""What is noted of neighbouring rows with index targets before their gradients are written, and their losses."""

from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.arrays import place, start_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.loss import Kind, Lane, has_gradient, of_target, with_z_loss
from softmax_numba.cpu.loss_picked import entry_at, loss_of
from softmax_numba.cpu.memory import moved, number_at, put

_, _own_term = of_target(Kind(probabilities=False, dense=False))


class Found(NamedTuple):
    """What is known of the rows: pointers to the numbers of loss.Lane in the compute dtype."""

    factor: object
    peak: object
    log_sum: object


class Rows(NamedTuple):
    """What is noted of them: pointers to a number a row."""

    factor: object  # of their exponentials
    own: object  # what the target takes away
    shown: object  # 0 where there is no gradient


@inlined
def _note_row(x, targets, share, losses, row, found, options, ignore, r, rows):
    target = targets[row, 0]
    counts, loss, own, mass = target != ignore, 0.0, 0.0, 0.0
    if counts:
        p = place(x, row, target, 0)
        loss, own = _own_term(p, target, share.shape[0] > 0, start_of(share), options, found)
        loss, mass = with_z_loss(loss, own, found, options)
    losses[row, 0] = loss
    put(rows.factor, r, found.factor * mass * options.gain)
    put(rows.own, r, own * options.gain)
    put(rows.shown, r, 1.0 if counts and has_gradient(own, mass, options.gain, False) else 0.0)


@inlined
def _note_picked_rows(x, targets, losses, row, count, found, part_step, options, ignore, rows):
    """Where nothing but the target's own value counts: a few instructions a row."""
    own, gain = options.own, options.gain
    step, target_step = x.strides[0] // x.itemsize, targets.strides[0] // targets.itemsize
    loss_step = losses.strides[0] // losses.itemsize
    p, given, to = place(x, row, 0, 0), entry_at(targets, row, 0), entry_at(losses, row, 0)
    for r in range(count):
        target = given[r * target_step]
        counts = target != ignore
        to[r * loss_step] = loss_of(moved(p, r * step), 1, found.peak, found.log_sum, part_step, r, target, counts, own)
        put(rows.factor, r, np.float64(number_at(found.factor, r * part_step)) * own * gain)
        put(rows.own, r, own * gain)
        put(rows.shown, r, 1.0 if counts and own * gain != 0.0 else 0.0)


@inlined
def note_rows(x, targets, share, losses, row, count, found, part_step, options, ignore, rows):
    """The losses of ``count`` rows of x (rows, length, 1) from ``row`` on, and what their gradients are made of.

    What is ``found`` of a row stands ``part_step`` numbers after what is found of the one before.
    """
    if share.shape[0] == 0 and options.z_loss == 0.0 and options.gamma == 0.0:
        _note_picked_rows(x, targets, losses, row, count, found, part_step, options, ignore, rows)
    else:
        for r in range(count):
            k = r * part_step
            lane = Lane(
                np.float64(number_at(found.factor, k)),
                np.float64(number_at(found.peak, k)),
                np.float64(number_at(found.log_sum, k)),
            )
            _note_row(x, targets, share, losses, row + r, lane, options, ignore, r, rows)
