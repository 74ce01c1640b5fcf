"""Losses of lanes in C order in one compiled call, with the options that most callers leave as they are.

What loss_sweeps.py finds out in Python before it calls a body costs several times what ten rows do; and after a call
that has put megabytes through the caches, Python's own code comes from memory again: measured, 200 us instead of 30.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange, types

from softmax_numba import pages
from softmax_numba.cpu import crew, threads
from softmax_numba.cpu.arrays import apart, presented, start_of
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import address_named, call_body, call_loss_body, compiled, named
from softmax_numba.cpu.joining import lead_unless_led
from softmax_numba.cpu.lane import NORMALISER, PARTS
from softmax_numba.cpu.loss_sweeps import INDICES, arranged, body_of_losses
from softmax_numba.cpu.loss_totals import added_up, counts_of
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.plan import CREW_FROM, PARALLEL_FROM
from softmax_numba.cpu.sweeps import DONE, REFUSED, Arrays, body_of
from softmax_numba.cpu.threads import set_share_size, share_size
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.dtypes import STORED, dtype_of, storage_of

REDUCTIONS = {"none": 0, "sum": 1, "mean": 2}
_NONE, _MEAN = REDUCTIONS["none"], REDUCTIONS["mean"]
# Only loops that say so: Numba would share out an array of ten zeros too.
_PRANGE = {
    name: name == "prange"
    for name in ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion", "prange")
}


# The ways to go through the lanes: in one thread, with the layer's threads, with the crew. What a kernel says beside
# REFUSED and DONE: that somebody else leads the crew.
_ALONE, _LAYER, _CREW = "", "_shared", "_together"
_LED = 2


# What a kernel is told of a call: its lanes, as lanes.py presents them; whether they are rows that are turned into
# columns, and whether losses are taken along columns; how many lanes a unit has, and all units between two steps of the
# outer axis; into how many shares the layer's threads cut them, and the crew at most.
OUTER, CLASSES, INNER, SHORT, COLUMNS, ROW, LANES, WHOLE, SIZE, UNITS, SHARES, MOST, PAST_CACHE = range(13)


class _Arrangement(NamedTuple):
    """How a call is carried out: a kernel, if it can be one with threads, and what the kernel takes."""

    storage: str
    gradient: bool
    parallel: bool
    alone: Callable[..., int]  # the kernel for one thread
    normalise: int
    lose: int
    numbers: np.ndarray

    def kernel(self, way: str) -> Callable[..., int]:
        return _kernel(self.storage, self.gradient, way)


@functools.lru_cache(maxsize=1024)
def _arranged(storage: str, shape: tuple[int, int, int], gradient: bool, many: int) -> _Arrangement | None:
    rows = shape[2] == 1
    how = arranged(storage, INDICES, shape, rows, True, True, False, False, gradient, many)
    sweep, shares = how.plan.sweep, how.plan.shares
    if sweep == "long":
        return None
    normalise = body_of(NORMALISER, sweep, Arrays(storage_of(storage), False, False, True))
    columns = how.kernel.form == "columns"
    of_unit = how.of_unit
    if columns:
        of_unit = (
            vectors_across(shape[2], dtype_of(storage).itemsize),
            8 if dtype_of(storage).itemsize == 8 else 16,
            shape[2],
        )
    size, most = min(how.size, how.units), shares if how.plan.across else how.units
    given = *shape, sweep == "short", columns, *of_unit, size, how.units, shares, most, how.past_cache
    alone = _kernel(storage, gradient, _ALONE)
    lose = body_of_losses(how.kernel)
    return _Arrangement(storage, gradient, shares > 1, alone, normalise, lose, np.array(given, np.int64))


def run(
    storage: str,
    shape: tuple[int, int, int],
    x: np.ndarray,
    targets: np.ndarray,
    found: np.ndarray,
    out: np.ndarray | None,
    ignore: int,
    reduction: int,
) -> bool:
    """Whether the losses were taken: not where an index is out of range, nor where arrays overlap otherwise than in
    the same places, nor of lanes so long and few that threads share them.

    Parameters
    ----------
    storage : str
        The dtype of x.
    shape : tuple of int
        Of the lanes: (outer, classes, inner), none of them 0.
    x : numpy.ndarray
        Of two axes and so many numbers in C order, as kernels take it.
    targets : numpy.ndarray, shape (outer * inner,)
        Contiguous int64.
    found : numpy.ndarray
        Gets the losses of the lanes, or their one sum or mean: of x's dtype, of float64 for 16 bits.
    out : numpy.ndarray, optional
        As x: gets the gradient.
    ignore : int
        The index that counts for nothing.
    reduction : int
        One of REDUCTIONS.

    Raises
    ------
    TypeError, OverflowError
        If an array is in another order or read-only, or ``ignore`` is no int64.
    """
    values, lanes = x.size, shape[0] * shape[2]
    many = threads.in_use() if values >= PARALLEL_FROM else 1
    how = _arranged(storage, shape, out is not None, many)
    if how is None:
        return False
    if out is None:
        out = _NOTHING[storage]
    if values < CREW_FROM:  # one thread; what is below costs as much as ten rows
        losses = np.empty((lanes + 7) // 8 * 8)
        said = how.alone(how.normalise, how.lose, x, targets, losses, found, out, ignore, reduction, how.numbers, 1, 0)
        return said == DONE
    losses = pages.empty(((lanes + 7) // 8 * 8,), np.float64)
    call = how.normalise, how.lose, x, targets, losses, found, out, ignore, reduction, how.numbers
    many = crew.begin(values)
    if many > 0:
        try:
            said = how.kernel(_CREW)(*call, many, crew.address())
        finally:
            crew.end()
        if said != _LED:
            return said == DONE
    states: list[int] = []
    if not how.parallel or not threads.run(lambda: states.append(how.kernel(_LAYER)(*call, 1, 0))):
        states.append(how.alone(*call, 1, 0))
    crew.ended(values)
    return states[0] == DONE


_NOTHING = {name: np.empty((0, 0), dtype) for name, dtype in STORED.items()}  # in the place of a gradient


@inlined
def _share(normalise, lose, x, targets, losses, out, options, ignore, numbers, k, shares, room):
    """Part ``k`` of so many. What normalises a chunk of lanes stands where that of the last one stood: in the cache."""
    outer, classes, inner = shape = numbers[OUTER], numbers[CLASSES], numbers[INNER]
    row, lanes, whole, size = numbers[ROW], numbers[LANES], numbers[WHOLE], numbers[SIZE]
    count, room_of_one = outer * inner, size * lanes
    steps = classes * inner, inner, 1
    values, gradient = presented(x, 0, shape, steps), presented(out, 0, shape, steps)
    turned = presented(x, 0, (1, classes, count), (0, 1, classes))
    indices, found, none = targets.reshape(outer, inner), losses[:count].reshape(outer, inner), room[:0]
    first, last = numbers[UNITS] * k // shares, numbers[UNITS] * (k + 1) // shares
    while first < last:
        end = min(last, first + size)
        begin = first // row * whole + min(first % row * lanes, whole)
        stop = end // row * whole + min(end % row * lanes, whole)
        noted = presented(room, begin, (outer, PARTS, inner), (inner, room_of_one, 1))
        if numbers[SHORT] != 0:
            noted_turned = presented(room, begin, (1, PARTS, count), (0, room_of_one, 1))
            call_body(normalise, turned, None, None, noted_turned, first, end, False)
        else:
            call_body(normalise, values, None, None, noted, first, end, False)
        if numbers[COLUMNS] != 0:
            begin, stop = first, end
        past_cache = numbers[PAST_CACHE] != 0
        call_loss_body(
            lose, values, indices, none, none, noted, found, gradient, options, ignore, begin, stop, past_cache
        )
        first = end


@once
def _body_of_shares(storage: str, gradient: bool) -> int:
    """What who joins the crew carries out: shares ``first`` to ``last``."""

    def shares_of_losses(
        normalise, lose, x, targets, losses, out, options, ignore, numbers, shares, first, last, past_cache
    ):
        room = np.empty(numbers[SIZE] * numbers[LANES] * PARTS, compute)
        for k in range(first, last):
            _share(normalise, lose, x, targets, losses, out, options, ignore, numbers, k, shares, room)

    compute = Arrays(storage_of(storage), False, False, True).compute.type
    values, indices, losses, _, out = _arrays(storage)
    options, numbers = types.Array(types.float64, 1, "C"), types.Array(types.int64, 1, "C")
    given = (types.intp, types.intp, values, indices, losses, out, options, types.int64, numbers, types.intp)
    body = compiled(shares_of_losses, "shares_of_losses", body=True)
    return address_of_body(body, "shares_of_losses", (*given, types.intp, types.intp, types.boolean))


def _arrays(storage: str) -> tuple[types.Type, ...]:
    """The types of x, targets, losses, what is found, and the gradient."""
    kind = storage_of(storage)
    values, indices = types.Array(kind, 2, "C", readonly=True), types.Array(types.int64, 1, "C", readonly=True)
    found = types.float64 if dtype_of(storage).itemsize == 2 else kind
    return values, indices, types.Array(types.float64, 1, "C"), types.Array(found, 1, "C"), types.Array(kind, 2, "C")


@once
def _kernel(storage: str, gradient: bool, way: str) -> Callable[..., int]:
    arrays = Arrays(storage_of(storage), False, False, True)
    compute = arrays.compute.type
    stored = np.float64 if dtype_of(storage).itemsize == 2 else compute

    @inlined
    def refuses(x, targets, out, wrong):
        if wrong > 0:
            return True
        if not gradient:
            return False
        same = address_of(start_of(x), 0) == address_of(start_of(out), 0)
        return not (same or apart(x, out)) or not apart(targets, out)

    @inlined
    def options_of(counted, reduction):
        gain = 1.0
        if reduction == _MEAN:
            gain = 1.0 / counted if counted > 0 else 0.0
        return np.array([1.0, 0.0, 0.0, gain])

    @inlined
    def reduce(losses, lanes, counted, reduction, found):
        for k in range(lanes, losses.shape[0]):
            losses[k] = 0.0
        if reduction == _NONE:
            for k in range(lanes):
                found[k] = stored(losses[k])
        else:
            total = added_up(losses)
            if reduction == _MEAN:
                total = total / counted if counted > 0 else 0.0
            found[0] = stored(total)

    @inlined
    def no_tasks():
        return 0

    @inlined
    def no_more_tasks(before):
        pass

    @inlined
    def tasks():
        before = share_size()
        set_share_size(1)
        return before

    @inlined
    def no_task_left(before):
        set_share_size(before)

    begin, finish = (tasks, no_task_left) if way == _LAYER else (no_tasks, no_more_tasks)

    def plain_losses(normalise, lose, x, targets, losses, found, out, ignore, reduction, numbers, many, crew_numbers):
        counted, wrong = counts_of(targets, numbers[CLASSES], ignore)
        if refuses(x, targets, out, wrong):
            return REFUSED
        options, before = options_of(counted, reduction), begin()
        shares = numbers[SHARES]
        for k in prange(shares):  # in one thread a loop like any other
            room = np.empty(numbers[SIZE] * numbers[LANES] * PARTS, compute)
            _share(normalise, lose, x, targets, losses, out, options, ignore, numbers, k, shares, room)
        finish(before)
        reduce(losses, targets.size, counted, reduction, found)
        return DONE

    def losses_together(
        normalise, lose, x, targets, losses, found, out, ignore, reduction, numbers, many, crew_numbers
    ):
        counted, wrong = counts_of(targets, numbers[CLASSES], ignore)
        if refuses(x, targets, out, wrong):
            return REFUSED
        options, shares = options_of(counted, reduction), shares_of(numbers[MOST], x.size, many)
        given = normalise, lose, x, targets, losses, out, options, ignore, numbers, shares
        done, failed = lead_unless_led(crew_numbers, body(), given, shares, shares, many - 1, False)
        if failed:
            raise MemoryError("no memory for a buffer")
        if not done:
            return _LED
        reduce(losses, targets.size, counted, reduction, found)
        return DONE

    call = losses_together if way == _CREW else plain_losses
    shares_of = crew.shares_of
    if way == _CREW:
        symbol = f"softmax_numba.shares_of_losses.{storage}" + (".gradient" if gradient else "")
        named(symbol, _body_of_shares(storage, gradient))
        body = address_named(symbol)
    name = "plain_losses" + way + ("_gradient" if gradient else "")
    counts = types.int64, types.intp, types.Array(types.int64, 1, "C"), types.intp, types.intp
    signature = (types.intp, types.intp, *_arrays(storage), *counts)
    return compiled_for(compiled(call, name, parallel=_PRANGE if way == _LAYER else False), name, signature)
