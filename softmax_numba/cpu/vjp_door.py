"""The door of the ways back, as ``door.py`` is that of the operations: two arrays come in instead of one."""

from collections.abc import Callable

import numpy as np

from softmax_numba.cpu import crew, entering, folding, long
from softmax_numba.cpu.arrays import apart, lanes_at, start_of
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
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.plan import is_past_cache, is_shared_by_crew
from softmax_numba.cpu.sweeps import DONE, REFUSED
from softmax_numba.cpu.vjp import Backward
from softmax_numba.cpu.vjp_plan import LONG, SWEEPS, can_be_shared, most_shares, sweep_over, units_of
from softmax_numba.cpu.vjp_sweeps import Arrays, body_of
from softmax_numba.dtypes import dtype_of

# The numbers of a door: first what it calls by address, 0 as long as that is missing: the sweeps, by their places in
# SWEEPS, and these. Then where its dtype stands, and that dtype's size in bytes.
FOLD, LEAD_LANES, SHARE, PARTS = range(len(SWEEPS), len(SWEEPS) + 4)
DTYPE, ITEMSIZE, NUMBERS = range(PARTS, PARTS + 3)

# What all doors are entered by: its name, and that it is given y, dy, the axis, out and a door's numbers.
ENTRY = "vjp_door", *[Handed()] * 5


@once
def vjp_door(backward: Backward, storage: str) -> Door:
    """The way back along an axis, ``enter(y, dy, axis, out, numbers)``, for NumPy arrays of one shape and dtype.

    It says what :func:`softmax_numba.cpu.door.door` does.
    """
    arrays, dtype = Arrays(storage, storage, False), dtype_of(storage)
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[DTYPE], numbers[ITEMSIZE] = id(dtype), dtype.itemsize

    def make(part: int) -> None:
        if part == FOLD:
            numbers[FOLD] = folding.address()
        else:
            if part == LONG:
                numbers[LEAD_LANES], numbers[SHARE] = long.addresses(arrays.types, arrays.compute)
            numbers[part] = body_of(backward, SWEEPS[part], arrays)

    return Door(_enter(), make, numbers)


@once
def _enter() -> Callable[..., int]:
    """What all of them are entered by."""
    is_array_of, place_of_axis, crew_numbers, carry_out = entering.steps()

    @inlined
    def kept_apart(given, out):
        """Whether results may be written while an array is read: to the same places, or to others."""
        same = address_of(start_of(given), 0) == address_of(start_of(out), 0) and given.strides == out.strides
        return same or apart(given, out)

    def enter(y, dy, axis, out, numbers):
        at = word(numbers, DATA)
        dtype, itemsize = entry(at, DTYPE), entry(at, ITEMSIZE)
        if not is_array_of(y, dtype):
            return OTHER
        axes, writing = half_word(y, AXES), ALIGNED | WRITEABLE
        if not is_array_of(dy, dtype) or not is_array_of(out, dtype) or axes == 0 or axes > MOST_AXES:
            return REFUSED
        if half_word(dy, AXES) != axes or half_word(out, AXES) != axes:
            return REFUSED
        flags, out_flags = half_word(y, FLAGS) & half_word(dy, FLAGS), half_word(out, FLAGS)
        along = place_of_axis(axis, axes)
        if along < 0 or not flags & ALIGNED or out_flags & writing != writing:
            return REFUSED
        shape, other_shape, out_shape = word(y, SHAPE), word(dy, SHAPE), word(out, SHAPE)
        outer, inner, length = 1, 1, entry(shape, along)
        for i in range(axes):
            count = entry(shape, i)
            if entry(other_shape, i) != count or entry(out_shape, i) != count:
                return REFUSED
            if i < along:
                outer *= count
            elif i > along:
                inner *= count
        values = outer * length * inner
        if values == 0:
            return REFUSED
        if flags & out_flags & C_CONTIGUOUS:
            if length == 1:
                outer, inner = outer * inner, 1
            step = other_step = out_step = inner * itemsize
            y_outer = other_outer = out_outer = length * step
            y_inner = other_inner = out_inner = itemsize
        else:
            fold_at = entry(at, FOLD)
            if fold_at == 0:
                return MISSING + FOLD
            strides, other_strides, out_strides = word(y, STRIDES), word(dy, STRIDES), word(out, STRIDES)
            folded, outer, length, inner, y_outer, step, y_inner, out_outer, out_step, out_inner = fold(
                fold_at, shape, strides, out_strides, axes, along, 0, itemsize
            )
            if folded == 0:
                return REFUSED
            also, o, n, i, other_outer, other_step, other_inner, to_outer, to_step, to_inner = fold(
                fold_at, shape, other_strides, out_strides, axes, along, 0, itemsize
            )
            # Where results are in the same places, both have their axes in one order.
            alike = o == outer and n == length and i == inner
            if not (also and alike and to_outer == out_outer and to_step == out_step and to_inner == out_inner):
                return REFUSED
        side_by_side = step == other_step == out_step == itemsize
        in_columns = y_inner == other_inner == out_inner == itemsize
        row = length * itemsize
        end_to_end = inner == 1 and side_by_side and y_outer == other_outer == out_outer == row
        sweep = sweep_over(outer, length, inner, itemsize, end_to_end, in_columns and not side_by_side)
        many = 1
        if can_be_shared(sweep, outer, length, inner, itemsize):
            many = crew.threads_for(crew_numbers(), values)
            if many == 0:
                return LARGE
            if is_shared_by_crew(outer * inner, length, itemsize, many):
                sweep = LONG
        body = entry(at, sweep)
        if body == 0:
            return MISSING + sweep
        given = lanes_at(word(y, DATA), outer, length, inner, y_outer, step, y_inner, itemsize)
        other = lanes_at(word(dy, DATA), outer, length, inner, other_outer, other_step, other_inner, itemsize)
        target = lanes_at(word(out, DATA), outer, length, inner, out_outer, out_step, out_inner, itemsize)
        if not kept_apart(given, target) or not kept_apart(other, target):
            return REFUSED
        units = units_of(sweep, outer, length, inner, itemsize)
        shares = crew.shares_of(most_shares(sweep, outer, length, inner, itemsize, many), values, many)
        past_cache = is_past_cache(values * itemsize)
        arrays, lead, share = (given, other, None, target), entry(at, LEAD_LANES), entry(at, SHARE)
        done, failed = carry_out(arrays, body, sweep == LONG, lead, share, units, shares, values, many, past_cache)
        if failed:
            raise MemoryError("no memory for a buffer")
        return DONE if done else LARGE

    return entering.entry_of(enter, *ENTRY)
