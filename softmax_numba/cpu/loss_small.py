"""The losses of a few lanes in one compiled call, which takes plain arrays and the options that most callers leave.

What loss_sweeps.py finds out before it calls a body costs several times what ten rows do.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numba import types

from softmax_numba.cpu.arrays import apart, as_columns, as_lanes, start_of
from softmax_numba.cpu.compiled import once
from softmax_numba.cpu.jit import call_body, call_loss_body, compiled
from softmax_numba.cpu.lane import BLOCK, NORMALISER, PARTS
from softmax_numba.cpu.loss_sweeps import INDICES, Kernel, added_up, body_of_losses, counts_of
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.plan import FEWEST_SHORT, longest_short
from softmax_numba.cpu.short import vectors_in_short_tile
from softmax_numba.cpu.sweeps import DONE, REFUSED, Arrays, body_of, compiled_for
from softmax_numba.dtypes import dtype_of, storage_of

Reduction = Literal["mean", "sum", "none"]


class SmallLosses(NamedTuple):
    """``kernel(normalise, lose, x, targets, found, out, ignore)``: REFUSED and nothing done, or DONE."""

    kernel: Callable[..., int]
    normalise: int
    lose: int

    def __call__(self, *arrays: Any) -> int:
        return self.kernel(self.normalise, self.lose, *arrays)


def sweep_of(storage: str, lanes: int, classes: int) -> str:
    """Which sweep normalises so many rows."""
    if classes > BLOCK:
        return "blocks"
    return "short" if classes <= longest_short(dtype_of(storage).itemsize) and lanes >= FEWEST_SHORT else "rows"


@once
def small_losses(storage: str, sweep: str, reduction: Reduction, gradient: bool) -> SmallLosses:
    """The kernel for x (lanes, classes) in C order, and targets (lanes,), int64, for one thread.

    ``found`` gets the losses of the lanes, or their one sum or mean; ``out``, of x's shape, the gradient, or is
    empty. It refuses an index out of range, and arrays that overlap otherwise than in the same places.
    """
    arrays = Arrays(storage_of(storage), False, False, True)
    normalise = body_of(NORMALISER, sweep, arrays)
    lose = body_of_losses(Kernel("rows", storage, INDICES, False, gradient))
    compute = arrays.compute.type
    stored = dtype_of(storage).type
    per_vector = 64 // arrays.compute.itemsize
    short, mean, single = sweep == "short", reduction == "mean", reduction != "none"

    def losses_of_few(normalise, lose, x, targets, found, out, ignore):
        lanes, classes = x.shape
        counted, wrong = counts_of(targets, classes, ignore)
        if wrong > 0:
            return REFUSED
        if gradient:
            same = address_of(start_of(x), 0) == address_of(start_of(out), 0)
            if not (same or apart(x, out)) or not apart(targets, out):
                return REFUSED
        gain = 1.0
        if mean:
            gain = 1.0 / counted if counted > 0 else 0.0
        losses = np.zeros((lanes + 7) // 8 * 8)
        parts, none = np.empty((lanes, PARTS), compute), np.empty(0, compute)
        options = np.array([1.0, 0.0, 0.0, gain])
        if short:
            per_tile = vectors_in_short_tile(classes, per_vector) * per_vector
            tiles = (lanes + per_tile - 1) // per_tile
            call_body(normalise, as_columns(x), None, None, as_columns(parts), 0, tiles, False)
        else:
            call_body(normalise, as_lanes(x), None, None, as_lanes(parts), 0, lanes, False)
        call_loss_body(
            lose,
            as_lanes(x),
            targets.reshape(lanes, 1),
            none,
            none,
            as_lanes(parts),
            losses[:lanes].reshape(lanes, 1),
            as_lanes(out),
            options,
            ignore,
            0,
            lanes,
            False,
        )
        if single:
            total = added_up(losses)
            if mean:
                total = total / counted if counted > 0 else 0.0
            found[0] = stored(total)
        else:
            for k in range(lanes):
                found[k] = stored(losses[k])
        return DONE

    values = types.Array(arrays.storage, 2, "C", readonly=True)
    indices = types.Array(types.int64, 1, "C", readonly=True)
    results = types.Array(arrays.storage, 1, "C"), types.Array(arrays.storage, 2, "C")
    signature = (types.intp, types.intp, values, indices, *results, types.int64)
    name = f"losses_of_few_{sweep}_{reduction}" + ("_gradient" if gradient else "")
    return SmallLosses(compiled_for(compiled(losses_of_few, name), name, signature), normalise, lose)
