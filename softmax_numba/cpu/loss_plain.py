"""Losses of lanes in C order in one compiled call, with the options that most callers leave as they are.

What loss_sweeps.py finds out in Python before it calls a body costs several times what ten rows do; and after a call
that has put megabytes through the caches, Python's own code comes from memory again: measured, 200 us instead of 30.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba import pages
from softmax_numba.cpu import crew, handed, loss_door, threads
from softmax_numba.cpu.entering import LARGE
from softmax_numba.cpu.lane import NORMALISER
from softmax_numba.cpu.loss_sweeps import INDICES, NORMALISED, Arrangement, arranged, body_of_losses
from softmax_numba.cpu.plan import PARALLEL_FROM, SWEEPS, most_shares, work_of
from softmax_numba.cpu.sweeps import DONE, REFUSED, Arrays, body_of
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.dtypes import dtype_of, storage_of

REDUCTIONS = {"none": loss_door.NONE, "sum": loss_door.SUM, "mean": loss_door.MEAN}
_INT64 = np.dtype(np.int64)


class Prepared(NamedTuple):
    """What is known of a call by its dtype, shape and axis."""

    storage: str
    lanes: tuple[int, int, int]
    gradient: bool
    kept: tuple[int, ...]  # the shape without the axis
    result: np.dtype  # what the losses are found in: float64 for logits of 16 bits
    few: bool  # neither the gradient nor the losses have pages of their own
    enter: Callable[..., tuple[int, float]]
    numbers: np.ndarray
    address: int  # of the numbers


@functools.lru_cache(maxsize=1024)
def prepared(storage: str, shape: tuple[int, ...], axis: int, gradient: bool) -> Prepared | None:
    """None where there is no such axis, or nothing, or objects cannot be read in compiled code."""
    if not -len(shape) <= axis < len(shape) or 0 in shape or not handed.readable():
        return None
    axis %= len(shape)
    outer, classes, inner = lanes = math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
    dtype, kinds = dtype_of(storage), Arrays(storage_of(storage), False, False, True)
    how = _arranged(storage, lanes, gradient, 1)
    columns = how.kernel.form == "columns"
    of_unit = how.of_unit
    if columns:
        of_unit = vectors_across(inner, dtype.itemsize), 8 if dtype.itemsize == 8 else 16, inner
    result = np.dtype(np.float64) if dtype.itemsize == 2 else dtype
    most = most_shares(SWEEPS.index(how.plan.sweep), *lanes, dtype.itemsize, not gradient, 2)
    sizes = dtype.itemsize, kinds.compute.itemsize, result.itemsize
    normalise = 0 if how.kernel.form in NORMALISED else body_of(NORMALISER, how.plan.sweep, kinds)
    sweeps = normalise, body_of_losses(how.kernel)
    turned, size = how.plan.turned, min(how.size, how.units)
    numbers = np.array(
        [
            *(*lanes, axis, id(dtype), id(_INT64), *sizes, gradient),
            *(*sweeps, turned, columns, *of_unit, size, how.units, most, how.past_cache),
        ],
        np.int64,
    )
    few = dtype.itemsize * outer * classes * inner < pages.LEAST_BYTES and outer * inner < loss_door.ROOM_FROM
    kept, enter = shape[:axis] + shape[axis + 1 :], loss_door.door()
    return Prepared(storage, lanes, gradient, kept, result, few, enter, numbers, numbers.ctypes.data)


def _arranged(storage: str, lanes: tuple[int, int, int], gradient: bool, many: int) -> Arrangement:
    rows = lanes[2] == 1
    return arranged(storage, INDICES, lanes, rows, True, True, False, False, gradient, many, rows, True)


def run(
    how: Prepared,
    x: np.ndarray,
    targets: np.ndarray,
    found: np.ndarray | None,
    out: np.ndarray | None,
    ignore: int,
    reduction: int,
) -> tuple[bool, float]:
    """Whether the losses were taken, and their sum or mean: not where an array is not as below, an index is out of
    range, or arrays overlap otherwise than in the same places, nor of lanes so long and few that threads share them.

    Parameters
    ----------
    how : Prepared
        For the dtype, shape and axis of x, and whether there is a gradient.
    x : numpy.ndarray
        In C order.
    targets : numpy.ndarray
        Int64 in C order, of x's shape without the axis.
    found : numpy.ndarray, optional
        New, of ``how.result`` and in C order: gets the losses unless they are reduced.
    out : numpy.ndarray, optional
        As x: gets the gradient.
    ignore : int
        The index that counts for nothing.
    reduction : int
        One of REDUCTIONS.

    Raises
    ------
    OverflowError
        If ``ignore`` is no int64.
    """
    room = None
    if not how.few:
        room = pages.empty((-(-how.lanes[0] * how.lanes[2] // 8) * 8,), np.float64)
    said, loss = how.enter(x, targets, room, found, out, ignore, how.address, reduction, 0)
    if said == LARGE:
        said, loss = _with_threads(how, x, targets, found, out, ignore, reduction)
    return said == DONE, loss


def _with_threads(
    how: Prepared,
    x: np.ndarray,
    targets: np.ndarray,
    found: np.ndarray | None,
    out: np.ndarray | None,
    ignore: int,
    reduction: int,
) -> tuple[int, float]:
    """The same where threads may be worth while and are not awake."""
    lanes = how.lanes[0] * how.lanes[2]
    work = work_of(x.size, lanes, x.itemsize, True)
    many = threads.in_use() if work >= PARALLEL_FROM else 1
    plan = _arranged(how.storage, how.lanes, how.gradient, many).plan
    if plan.sweep == "long":
        return REFUSED, 0.0
    room = pages.empty((-(-lanes // 8) * 8,), np.float64)
    arrays, options = (x, targets, room, found, out), (ignore, how.address, reduction)
    many = crew.begin(work)
    if many > 0:
        try:
            said, loss = how.enter(*arrays, *options, many)
        finally:
            crew.end()
        if said != loss_door.LED:
            return said, loss
    states: list[tuple[int, float]] = []
    places = [0 if array is None else array.ctypes.data for array in arrays]
    if plan.shares == 1 or not threads.run(lambda: states.append(loss_door.shared()(*places, *options, plan.shares))):
        states.append(how.enter(*arrays, *options, 1))
    crew.ended(work)
    return states[0]
