"""The door by which calls on few values come in: compiled code that is given Python's objects.

Numba's dispatchers look up the types of what they are given and make of each array a structure with a reference of
its own: of a call on ten numbers that is half the time. A door is compiled code that gets the objects themselves. It
reads type, shape, strides and flags where they stand (``handed.py``), decides what Python would take ten times as long
for, and calls the sweep.

It takes what one thread does alone, and what is worth a second one while the crew is awake (``crew.py``). What it
cannot take it refuses, with nothing done: then the long way finds out what is to be said.

One machine code serves all operations and dtypes: a caller gives it the numbers of the door that it means. Compiling it
takes as long as compiling a sweep.
"""

from collections.abc import Callable

import numpy as np

from softmax_numba.cpu import crew, entering, folding, long
from softmax_numba.cpu.arrays import apart, lanes_at
from softmax_numba.cpu.compiled import once
from softmax_numba.cpu.entering import LARGE, MISSING, OTHER, Door
from softmax_numba.cpu.folding import MOST_AXES, entry, fold
from softmax_numba.cpu.handed import (
    ALIGNED,
    AXES,
    C_CONTIGUOUS,
    DATA,
    FLAGS,
    SHAPE,
    STRIDES,
    WRITEABLE,
    Handed,
    half_word,
    word,
)
from softmax_numba.cpu.lane import Operation
from softmax_numba.cpu.plan import (
    LONG,
    SWEEPS,
    can_be_shared,
    is_past_cache,
    is_shared_by_crew,
    is_turned,
    most_shares,
    sweep_over,
    units_of,
    work_of,
)
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.sweeps import DONE, REFUSED, Arrays, body_of
from softmax_numba.dtypes import dtype_of, storage_of

# The numbers of a door: first what it calls by address, 0 as long as that is missing: the sweeps, by their places in
# SWEEPS, and these.
SINGLE, FOLD, LEAD_LANES, SHARE, PARTS = range(len(SWEEPS), len(SWEEPS) + 5)
# Then where its dtype stands, that dtype's size in bytes, whether the operation gives one number a lane, and whether it
# takes a logarithm of each.
DTYPE, ITEMSIZE, ONE_NUMBER, LOGARITHMS, NUMBERS = range(PARTS, PARTS + 5)

# What all doors are entered by: its name, and that it is given x, the axis, out and a door's numbers.
ENTRY = "door", *[Handed()] * 4


@once
def door(operation: Operation, storage: str) -> Door:
    """The operation along an axis of a NumPy array of at least one and any strides, into ``out``.

    ``out`` has x's shape, or one axis less where the operation gives one number a lane, and x's dtype. ``DONE`` if it
    was done. Otherwise nothing was: ``REFUSED`` where a condition does not hold, the two overlap otherwise than in the
    same places, or three axes cannot tell of their strides; ``LARGE`` where threads may be worth while and cannot be
    had here; ``OTHER`` for another dtype of x; from ``MISSING`` on where something is to be made first: a sweep,
    ``SINGLE`` or ``FOLD``.
    """
    arrays, dtype = Arrays(storage_of(storage), False, False), dtype_of(storage)
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[DTYPE], numbers[ITEMSIZE] = id(dtype), dtype.itemsize
    numbers[ONE_NUMBER], numbers[LOGARITHMS] = operation.one_number, not operation.maps_exponentials

    def make(part: int) -> None:
        if part == FOLD:
            numbers[FOLD] = folding.address()
        elif part == SINGLE:
            numbers[SINGLE] = body_of(operation, "single", arrays)
        else:
            if part == LONG:
                numbers[LEAD_LANES], numbers[SHARE] = long.addresses(arrays.types, COMPUTES_IN[arrays.storage])
            numbers[part] = body_of(operation, SWEEPS[part], arrays)

    return Door(_enter(), make, numbers)


@once
def _enter() -> Callable[..., int]:
    """What all doors are entered by."""
    is_array_of, place_of_axis, crew_numbers, carry_out = entering.steps()

    def enter(x, axis, out, numbers):
        at = word(numbers, DATA)
        dtype, itemsize, one_number = entry(at, DTYPE), entry(at, ITEMSIZE), entry(at, ONE_NUMBER)
        if not is_array_of(x, dtype):
            return OTHER
        axes, flags, writing = half_word(x, AXES), half_word(x, FLAGS), ALIGNED | WRITEABLE
        if not is_array_of(out, dtype) or axes == 0 or axes > MOST_AXES or not flags & ALIGNED:
            return REFUSED
        along, out_axes, out_flags = place_of_axis(axis, axes), half_word(out, AXES), half_word(out, FLAGS)
        if along < 0 or out_axes != axes - one_number or out_flags & writing != writing:
            return REFUSED
        shape, out_shape = word(x, SHAPE), word(out, SHAPE)
        length, outer, inner = entry(shape, along), 1, 1
        if one_number == 0 and entry(out_shape, along) != length:
            return REFUSED
        for i in range(along):
            outer *= entry(shape, i)
            if entry(out_shape, i) != entry(shape, i):
                return REFUSED
        for i in range(along + 1, axes):
            inner *= entry(shape, i)
            if entry(out_shape, i - one_number) != entry(shape, i):
                return REFUSED
        lanes, values = outer * inner, outer * length * inner
        if values == 0:
            return REFUSED
        if flags & out_flags & C_CONTIGUOUS:
            if length == 1:
                outer, inner = lanes, 1
            step, x_inner = inner * itemsize, itemsize
            x_outer = length * step
            out_outer, out_step, out_inner = x_outer, step, itemsize
            if one_number:
                out_outer, out_step = step, itemsize
        else:
            fold_at = entry(at, FOLD)
            if fold_at == 0:
                return MISSING + FOLD
            strides, out_strides = word(x, STRIDES), word(out, STRIDES)
            folded, outer, length, inner, x_outer, step, x_inner, out_outer, out_step, out_inner = fold(
                fold_at, shape, strides, out_strides, axes, along, one_number, itemsize
            )
            if folded == 0:
                return REFUSED
        turnable, columnar = one_number != 0 or out_step == itemsize, x_inner == out_inner == itemsize
        logarithms = entry(at, LOGARITHMS) != 0
        sweep = sweep_over(outer, length, inner, itemsize, step == itemsize, one_number, turnable, columnar, logarithms)
        many, work = 1, work_of(values, lanes, itemsize, logarithms and length > 1)
        if length == 1:
            sweep = SINGLE
        if can_be_shared(sweep, outer, length, inner, itemsize, one_number):
            many = crew.threads_for(crew_numbers(), work)
            if many == 0:
                if length > 1:
                    return LARGE
                many = 1  # nothing is computed: there is little that threads could share
            if is_shared_by_crew(lanes, length, itemsize, many):
                sweep = LONG
        if entry(at, sweep) == 0:
            return MISSING + sweep
        data, out_data = word(x, DATA), word(out, DATA)
        out_length = 1 if one_number else length
        if is_turned(sweep):  # the lanes are the inner axis
            source = lanes_at(data, 1, length, outer, values * itemsize, step, x_outer, itemsize)
            target = lanes_at(out_data, 1, out_length, outer, values * itemsize, out_step, out_outer, itemsize)
        else:
            source = lanes_at(data, outer, length, inner, x_outer, step, x_inner, itemsize)
            target = lanes_at(out_data, outer, out_length, inner, out_outer, out_step, out_inner, itemsize)
        same = one_number == 0 and data == out_data and x_outer == out_outer and step == out_step
        if not (same and x_inner == out_inner) and not apart(source, target):
            return REFUSED
        units = units_of(sweep, outer, length, inner, itemsize)
        shares = crew.shares_of(most_shares(sweep, outer, length, inner, itemsize, one_number, many), values, many)
        past_cache = one_number == 0 and is_past_cache(values * itemsize)
        lead, share = entry(at, LEAD_LANES), entry(at, SHARE)
        given = source, None, None, target
        done, failed = carry_out(
            given, entry(at, sweep), sweep == LONG, lead, share, units, shares, work, many, past_cache
        )
        if failed:
            raise MemoryError("no memory for a buffer")
        return DONE if done else LARGE

    return entering.entry_of(enter, *ENTRY)
