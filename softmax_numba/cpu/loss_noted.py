"""What is noted of neighbouring rows with index targets before their gradients are written, and their losses."""

from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.arrays import on_stack, place, start_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.loss import Kind, Lane, has_gradient, of_target, with_z_loss
from softmax_numba.cpu.loss_picked import NONE, note_picked
from softmax_numba.cpu.memory import number_at, put

_, _own_term = of_target(Kind(probabilities=False, dense=False))


class Rows(NamedTuple):
    """What is noted of them: pointers to a number a row."""

    factor: object  # of their exponentials
    own: object  # what the target takes away
    target: object  # int32; NONE where there is no gradient


@inlined
def blank_rows(like, most):
    """Room on the stack for ``most`` rows (a literal)."""
    return Rows(on_stack(like, most), on_stack(like, most), on_stack(np.int32(0), most))


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
    rows.target[r] = target if counts and has_gradient(own, mass, options.gain, False) else NONE


@inlined
def note_rows(x, targets, share, losses, row, count, found, options, ignore, rows):
    """The losses of ``count`` rows of x (rows, length, 1) from ``row`` on, and what their gradients are made of, from
    what is ``found`` of them."""
    if share.shape[0] == 0 and options.z_loss == 0.0 and options.gamma == 0.0:
        note_picked(x, targets, losses, found, 1, rows, row, 0, count, options.own, options.gain, ignore)
    else:
        for r in range(count):
            lane = Lane(
                np.float64(number_at(found.factor, r)),
                np.float64(number_at(found.peak, r)),
                np.float64(number_at(found.log_sum, r)),
            )
            _note_row(x, targets, share, losses, row + r, lane, options, ignore, r, rows)
