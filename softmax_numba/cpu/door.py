"""The door by which calls on few values come in: NumPy's arrays, read in compiled code as CPython hands them over.

Numba's dispatchers look up the types of what they are given and make of each array a structure with a reference of
its own: of a call on ten numbers that is half the time. A door is compiled code that gets the objects themselves. It
reads type, shape, strides and flags where NumPy's C interface has them (``PyArrayObject`` in its reference manual, part
of what extension modules are built on), decides what Python would take ten times as long for, and calls the sweep.

It takes what one thread does alone, and what is worth a second one while the crew is awake (``crew.py``). What it
cannot take it refuses, with nothing done: then the long way finds out what is to be said.

One machine code serves all operations and dtypes: a caller gives it the numbers of the door that it means. Compiling it
takes as long as compiling a sweep.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from softmax_numba.cpu import crew, folding, long
from softmax_numba.cpu.arrays import apart, place
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.folding import MOST_AXES, entry, fold
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import address_named, compiled, named, try_body
from softmax_numba.cpu.joining import ENDED, follows_closely, lead_unless_led, now, tell, threads_awake
from softmax_numba.cpu.lane import BLOCK, Operation
from softmax_numba.cpu.long import FAILED, NOT_DONE, lead_lanes_at
from softmax_numba.cpu.memory import number_at, put
from softmax_numba.cpu.plan import (
    CREW_FROM,
    LONG,
    PARALLEL_FROM,
    SHORT,
    SWEEPS,
    can_be_shared,
    is_past_cache,
    is_shared_by_crew,
    most_shares,
    sweep_over,
    units_of,
)
from softmax_numba.cpu.simd import COMPUTES_IN, I8, I32, I64
from softmax_numba.cpu.sweeps import DONE, REFUSED, Arrays, body_of
from softmax_numba.dtypes import dtype_of, storage_of

# What a door says beside REFUSED and DONE: that a plan is needed, that the door of another dtype is to be asked, and
# from MISSING on that something has to be made: a sweep, by its place in SWEEPS, or CERTAIN, or FOLD.
LARGE, OTHER, MISSING = range(2, 5)
# The numbers of a door: first what it calls by address, 0 as long as that is missing: the sweeps, and these.
CERTAIN, FOLD, LEAD_LANES, SHARE, PARTS = range(len(SWEEPS), len(SWEEPS) + 5)
# Then where its dtype stands, that dtype's size in bytes, whether the operation gives one number a lane, and whether
# that of a lane of one value is certain.
DTYPE, ITEMSIZE, ONE_NUMBER, IS_CERTAIN, NUMBERS = range(PARTS, PARTS + 5)

# --- objects ------------------------------------------------------------------------


class Handed(types.Type):
    """An object as the caller handed it over: nothing but its address, and no reference to it."""

    def __init__(self) -> None:
        super().__init__("Handed")


register_model(Handed)(models.OpaqueModel)


@unbox(Handed)
def _as_it_is(kind, handed, context):
    return NativeValue(handed)


# Every object begins with a head, whose last word is its type; an array goes on like this, in bytes.
_HEAD = object.__basicsize__
_TYPE, _DATA, _AXES, _SHAPE, _STRIDES, _DTYPE, _FLAGS = (_HEAD + n for n in (-8, 0, 8, 16, 24, 40, 48))
_C_CONTIGUOUS, _ALIGNED, _WRITEABLE = 0x1, 0x100, 0x400


@functools.cache
def readable() -> bool:
    """Whether NumPy's arrays look as they are read here: each field compared with what NumPy says of an array."""
    array = np.zeros((2, 3), np.float32)[:, ::2]

    def word(place: int, kind: Any = ctypes.c_int64) -> int:
        return int(kind.from_address(place).value)

    def words(place: int) -> tuple[int, ...]:
        return tuple(word(word(place) + 8 * i) for i in range(2))

    if not hasattr(ctypes, "pythonapi") or ctypes.sizeof(ctypes.c_void_p) != 8 or np.ndarray.__basicsize__ < _FLAGS + 4:
        return False
    at = id(array)
    flags = _ALIGNED | _WRITEABLE
    return (
        word(at + _TYPE) == id(np.ndarray)
        and word(at + _DATA) == array.ctypes.data
        and word(at + _AXES, ctypes.c_int32) == 2
        and words(at + _SHAPE) == array.shape
        and words(at + _STRIDES) == array.strides
        and word(at + _DTYPE) == id(array.dtype)
        and word(at + _FLAGS, ctypes.c_int32) & (flags | _C_CONTIGUOUS) == flags
    )


def _read(builder, pointer, offset, kind):
    place = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
    return builder.load(place)


@intrinsic
def _word(typing, handed, offset):
    """The 8 bytes of an object at an offset, as an integer."""
    return types.int64(handed, types.intp), lambda context, builder, sig, args: _read(builder, *args, I64)


@intrinsic
def _half_word(typing, handed, offset):
    """The 4 bytes of an object at an offset, as an integer."""

    def emit(context, builder, sig, args):
        return builder.sext(_read(builder, *args, I32), I64)

    return types.int64(handed, types.intp), emit


@intrinsic
def _address(typing, handed):
    """Where an object stands."""
    return types.int64(handed), lambda context, builder, sig, args: builder.ptrtoint(args[0], I64)


@intrinsic
def _integer(typing, handed):
    """The value of a Python int, and whether it is too large for one."""

    def emit(context, builder, sig, args):
        too_large = cgutils.alloca_once_value(builder, I32(0))
        kind = ir.FunctionType(I64, [I8.as_pointer(), I32.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, kind, "PyLong_AsLongLongAndOverflow")
        value = builder.call(function, [args[0], too_large])
        too_large = builder.icmp_signed("!=", builder.load(too_large), I32(0))
        return context.make_tuple(builder, sig.return_type, [value, too_large])

    return types.Tuple((types.int64, types.boolean))(handed), emit


# Sweeps get arrays by the address of their data: here it does not matter which dtype that has.
_LANES = types.Array(types.uint8, 3, "A")


@intrinsic
def _lanes(typing, address, outer, length, inner, first, second, third, itemsize):
    """An array of three axes, borrowed, by its address, shape, strides and the size of its values, all in bytes."""

    def emit(context, builder, sig, args):
        from numba.np.arrayobj import populate_array  # 60 ms, which an import need not pay

        result = context.make_array(_LANES)(context, builder)
        data = builder.inttoptr(args[0], result.data.type)
        null = cgutils.get_null_value(result.meminfo.type)
        populate_array(result, data, args[1:4], args[4:7], args[7], null)
        return result._getvalue()

    return _LANES(types.int64, *[types.intp] * 7), emit


# --- Python's lock ------------------------------------------------------------------

_RELEASE_FROM = BLOCK  # values; for fewer, giving the lock to another thread would take longer than the sweep


@intrinsic
def _without_lock(typing, really):
    """Releases Python's lock, if ``really``; to be given to :func:`_with_lock`."""

    def emit(context, builder, sig, args):
        state = cgutils.alloca_once_value(builder, ir.Constant(I8.as_pointer(), None))
        release = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(I8.as_pointer(), []), "PyEval_SaveThread"
        )
        with builder.if_then(args[0]):
            builder.store(builder.call(release, []), state)
        return builder.ptrtoint(builder.load(state), I64)

    return types.int64(types.boolean), emit


@intrinsic
def _with_lock(typing, state):
    """Takes Python's lock again, if it was released."""

    def emit(context, builder, sig, args):
        take = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [I8.as_pointer()]), "PyEval_RestoreThread"
        )
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.Constant(I64, 0))):
            builder.call(take, [builder.inttoptr(args[0], I8.as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64), emit


# --- doors --------------------------------------------------------------------------


class Door(NamedTuple):
    """``enter(x, axis, out, numbers)``, and ``make(said - MISSING)`` for what it says is missing."""

    enter: Callable[[Any, Any, Any, np.ndarray], int]
    make: Callable[[int], None]
    numbers: np.ndarray


def _certain(x, mask, temperature, out, first, last, past_cache):
    """Softmax of lanes of one value: 1, or NaN beside an infinite one."""
    inner = x.shape[2]
    for lane in range(first, last):
        o = lane // inner
        j = lane - o * inner
        value = number_at(place(x, o, 0, j), 0)
        put(place(out, o, 0, j), 0, 1.0 if value - value == 0.0 else np.nan)


@once
def _certain_of(arrays: Arrays) -> int:
    signature = (*arrays.types, types.intp, types.intp, types.boolean)
    return address_of_body(compiled(_certain, "certain", body=True), "certain", signature)


@once
def door(operation: Operation, storage: str) -> Door:
    """The operation along an axis of a NumPy array of at least one and any strides, into ``out``.

    ``out`` has x's shape, or one axis less where the operation gives one number a lane, and x's dtype. ``DONE`` if it
    was done. Otherwise nothing was: ``REFUSED`` where a condition does not hold, the two overlap otherwise than in the
    same places, or three axes cannot tell of their strides; ``LARGE`` where threads may be worth while and cannot be
    had here; ``OTHER`` for another dtype of x; from ``MISSING`` on where something is to be made first.
    """
    arrays, dtype = Arrays(storage_of(storage), False, False), dtype_of(storage)
    numbers = np.zeros(NUMBERS, np.int64)
    numbers[DTYPE], numbers[ITEMSIZE] = id(dtype), dtype.itemsize
    # One value over itself need not be 1.
    numbers[ONE_NUMBER], numbers[IS_CERTAIN] = operation.one_number, operation.maps_exponentials

    def make(part: int) -> None:
        if part == FOLD:
            numbers[FOLD] = folding.address()
        elif part == CERTAIN:
            numbers[CERTAIN] = _certain_of(arrays)
        else:
            if part == LONG:
                numbers[LEAD_LANES], numbers[SHARE] = long.addresses(arrays.types, COMPUTES_IN[arrays.storage])
            numbers[part] = body_of(operation, SWEEPS[part], arrays)

    return Door(_enter(), make, numbers)


@once
def _enter() -> Callable[[Any, Any, Any, np.ndarray], int]:
    """What all doors are entered by."""
    for name, what in (("ndarray", np.ndarray), ("int", int), ("last", -1)):
        named(f"softmax_numba.{name}", id(what))
    named("softmax_numba.crew", crew.address())
    crew_numbers, ndarray = address_named("softmax_numba.crew"), address_named("softmax_numba.ndarray")
    integer, last_axis = address_named("softmax_numba.int"), address_named("softmax_numba.last")

    @inlined
    def is_array_of(handed, dtype):
        return _word(handed, _TYPE) == ndarray() and _word(handed, _DTYPE) == dtype

    @inlined
    def place_of_axis(axis, axes):
        """Which of so many axes is meant; -1 if none."""
        if _address(axis) == last_axis():
            return axes - 1
        if _word(axis, _TYPE) != integer():
            return -1
        value, too_large = _integer(axis)
        if too_large or value < -axes or value >= axes:
            return -1
        return value + axes if value < 0 else value

    @inlined
    def threads_for(values):
        """How many threads sweep over so many values that can be shared, 0 if that is not for a door to say."""
        if values < CREW_FROM:
            return 1
        many = 0
        if values <= crew.MOST_VALUES:
            many = threads_awake(crew_numbers(), values > crew.FEW_VALUES)
        if many == 0 and values < PARALLEL_FROM and not follows_closely(crew_numbers()):
            return 1
        return many

    @inlined
    def carry_out(x, out, sweep, at, units, shares, values, many, past_cache):
        """Whether it was done, and failed."""
        numbers, body = crew_numbers(), entry(at, sweep)
        if many == 1 or shares == 1:
            state = _without_lock(values > _RELEASE_FROM)
            failed = try_body(body, x, None, None, out, 0, units, past_cache)
            _with_lock(state)
            if values >= CREW_FROM:
                tell(numbers, ENDED, now())
            return True, failed
        state = _without_lock(True)
        if sweep == LONG:
            lead, share = entry(at, LEAD_LANES), entry(at, SHARE)
            said = lead_lanes_at(lead, numbers, body, share, x, None, None, out, shares, many - 1, past_cache)
            done, failed = said != NOT_DONE, said == FAILED
        else:
            done, failed = lead_unless_led(numbers, body, (x, None, None, out), units, shares, many - 1, past_cache)
        _with_lock(state)
        return done, failed

    def enter(x, axis, out, numbers):
        at = _word(numbers, _DATA)
        dtype, itemsize, one_number = entry(at, DTYPE), entry(at, ITEMSIZE), entry(at, ONE_NUMBER)
        if not is_array_of(x, dtype):
            return OTHER
        axes, flags, writing = _half_word(x, _AXES), _half_word(x, _FLAGS), _ALIGNED | _WRITEABLE
        if not is_array_of(out, dtype) or axes == 0 or axes > MOST_AXES or not flags & _ALIGNED:
            return REFUSED
        along, out_axes, out_flags = place_of_axis(axis, axes), _half_word(out, _AXES), _half_word(out, _FLAGS)
        if along < 0 or out_axes != axes - one_number or out_flags & writing != writing:
            return REFUSED
        shape, out_shape = _word(x, _SHAPE), _word(out, _SHAPE)
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
        if flags & out_flags & _C_CONTIGUOUS:
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
            strides, out_strides = _word(x, _STRIDES), _word(out, _STRIDES)
            folded, outer, length, inner, x_outer, step, x_inner, out_outer, out_step, out_inner = fold(
                fold_at, shape, strides, out_strides, axes, along, one_number, itemsize
            )
            if folded == 0:
                return REFUSED
        turnable, columnar = one_number != 0 or out_step == itemsize, x_inner == out_inner == itemsize
        sweep = sweep_over(outer, length, inner, itemsize, step == itemsize, one_number, turnable, columnar)
        many = 1
        if length == 1 and entry(at, IS_CERTAIN):
            sweep = CERTAIN
        elif can_be_shared(sweep, outer, length, inner, itemsize, one_number):
            many = threads_for(values)
            if many == 0:
                return LARGE
            if is_shared_by_crew(lanes, length, itemsize, many):
                sweep = LONG
        if entry(at, sweep) == 0:
            return MISSING + sweep
        data, out_data = _word(x, _DATA), _word(out, _DATA)
        out_length = 1 if one_number else length
        if sweep == SHORT:  # the lanes are the inner axis
            source = _lanes(data, 1, length, outer, values * itemsize, step, x_outer, itemsize)
            target = _lanes(out_data, 1, out_length, outer, values * itemsize, out_step, out_outer, itemsize)
        else:
            source = _lanes(data, outer, length, inner, x_outer, step, x_inner, itemsize)
            target = _lanes(out_data, outer, out_length, inner, out_outer, out_step, out_inner, itemsize)
        same = one_number == 0 and data == out_data and x_outer == out_outer and step == out_step
        if not (same and x_inner == out_inner) and not apart(source, target):
            return REFUSED
        units = units_of(sweep, outer, length, inner, itemsize)
        shares = crew.shares_of(most_shares(sweep, outer, length, inner, itemsize, one_number, many), values, many)
        past_cache = one_number == 0 and is_past_cache(values * itemsize)
        done, failed = carry_out(source, target, sweep, at, units, shares, values, many, past_cache)
        if failed:
            raise MemoryError("no memory for a buffer")
        return DONE if done else LARGE

    dispatcher: Any = compiled_for(compiled(enter, "door", nogil=False), "door", (Handed(),) * 4)
    (only,) = dispatcher.overloads.values()
    # The dispatcher itself would look up the types of what it is given.
    return only.entry_point
