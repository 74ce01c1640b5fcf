"""The door by which calls on few values come in: NumPy's arrays, read in compiled code as CPython hands them over.

Numba's dispatchers look up the types of what they are given and make of each array a structure with a reference of
its own: of a call on ten numbers that is half the time. A door is compiled code that gets the objects themselves. It
reads type, shape, strides and flags where NumPy's C interface has them (``PyArrayObject`` in its reference manual, part
of what extension modules are built on), decides what Python would take ten times as long for, and calls the sweep.

It takes what one thread does alone, and what is worth a second one while the crew is awake (``crew.py``). What it
cannot take it refuses, with nothing done: then the long way finds out what is to be said.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from softmax_numba.cpu import crew
from softmax_numba.cpu.arrays import apart, place
from softmax_numba.cpu.compiled import compiled_for, once
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import address_named, body_named, compiled, named
from softmax_numba.cpu.joining import ENDED, follows_closely, lead_unless_led, now, tell, threads_awake
from softmax_numba.cpu.lane import BLOCK, Operation
from softmax_numba.cpu.memory import number_at, put
from softmax_numba.cpu.plan import (
    CREW_FROM,
    FEWEST_SHORT,
    PARALLEL_FROM,
    is_past_cache,
    is_shared_lane,
    is_woven,
    longest_short,
)
from softmax_numba.cpu.short import vectors_in_short_tile
from softmax_numba.cpu.simd import I8, I32, I64
from softmax_numba.cpu.sweeps import DONE, REFUSED, Arrays, body_of
from softmax_numba.dtypes import dtype_of, storage_of

# What a door says beside REFUSED and DONE: that a plan is needed, or that another door is to be asked, of another dtype
# (OTHER) or of one of these forms.
LARGE, OTHER, ROWS, SHORT, WOVEN, BLOCKS = range(2, 8)
SWEEPS = {ROWS: "rows", SHORT: "short", WOVEN: "woven", BLOCKS: "blocks"}

Door = Callable[[Any, Any], int]

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
def _entry(typing, address, index):
    """An entry of a shape or of strides, by the address of the first."""

    def emit(context, builder, sig, args):
        return builder.load(builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]]))

    return types.int64(types.int64, types.intp), emit


def _lanes_of(storage: types.Type, readonly: bool) -> Callable[..., Any]:
    """Compiles to an array of three axes, borrowed, by its address, shape and strides."""
    array = types.Array(storage, 3, "A", readonly=readonly)

    @intrinsic
    def lanes(typing, address, outer, length, inner, first, second, third):
        def emit(context, builder, sig, args):
            from numba.np.arrayobj import populate_array  # 60 ms, which an import need not pay

            result = context.make_array(array)(context, builder)
            data = builder.inttoptr(args[0], result.data.type)
            itemsize = ir.Constant(I64, storage.bitwidth // 8)
            null = cgutils.get_null_value(result.meminfo.type)
            populate_array(result, data, args[1:4], args[4:], itemsize, null)
            return result._getvalue()

        return array(types.int64, *[types.intp] * 6), emit

    return lanes


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


@inlined
def _settle_certain(x, out):
    """Softmax of lanes of one value: 1, or NaN beside an infinite one."""
    for o in range(x.shape[0]):
        value = number_at(place(x, o, 0, 0), 0)
        put(place(out, o, 0, 0), 0, 1.0 if value - value == 0.0 else np.nan)


@once
def door(operation: Operation, storage: str, form: int) -> Door:
    """``enter(x, out)``: the operation along the last axis of a NumPy array of at least one, into ``out``.

    ``out`` has x's shape, or one axis less where the operation gives one number a lane, and x's dtype. Arrays of one
    axis or two may have any strides, those of more are in C order. ``DONE`` if it was done. Otherwise nothing was:
    ``REFUSED`` where a condition does not hold, or where the two overlap otherwise than in the same places; ``LARGE``
    where threads may be worth while and cannot be had here; ``OTHER`` for another dtype of x; else the form of the door
    to ask.
    """
    arrays, one_number = Arrays(storage_of(storage), False, False), operation.one_number
    dtype = dtype_of(storage)
    symbol = f"softmax_numba.{operation.name}.{SWEEPS[form]}.{storage}"
    named(symbol, body_of(operation, SWEEPS[form], arrays))
    named("softmax_numba.ndarray", id(np.ndarray))
    named(f"softmax_numba.dtype.{storage}", id(dtype))
    named("softmax_numba.crew", crew.address())
    body = body_named(symbol, tried=True)
    address_of_body, crew_numbers = address_named(symbol), address_named("softmax_numba.crew")
    ndarray, this_dtype = address_named("softmax_numba.ndarray"), address_named(f"softmax_numba.dtype.{storage}")
    given, result = _lanes_of(arrays.storage, True), _lanes_of(arrays.storage, False)
    itemsize, per_vector = dtype.itemsize, 64 // arrays.compute.itemsize
    shares_of = inlined(crew.shares_of)
    longest, certain = longest_short(itemsize), operation.maps_exponentials  # one value over itself need not be 1
    short, woven, is_long, is_past = form == SHORT, inlined(is_woven), inlined(is_shared_lane), inlined(is_past_cache)

    @inlined
    def of_this_dtype(handed):
        return _word(handed, _TYPE) == ndarray() and _word(handed, _DTYPE) == this_dtype()

    @inlined
    def wanted(lanes, length, side_by_side):
        if length > BLOCK:
            return BLOCKS
        if side_by_side and length <= longest and lanes >= FEWEST_SHORT and not (length == 1 and certain):
            return SHORT
        return WOVEN if not one_number and side_by_side and woven(lanes, length, itemsize) else ROWS

    @inlined
    def threads_for(lanes, length, flags):
        """How many threads sweep over so many values, 0 if that is not for a door to say."""
        values = lanes * length
        if values < CREW_FROM or length == 1:
            return 1 if values < PARALLEL_FROM else 0
        many = 0
        if flags & _C_CONTIGUOUS and values <= crew.MOST_VALUES:
            many = threads_awake(crew_numbers(), values > crew.FEW_VALUES)
        if is_long(lanes, length, many):
            return 0
        if many == 0 and values < PARALLEL_FROM and not follows_closely(crew_numbers()):
            return 1
        return many

    @inlined
    def sweep(x, out, lanes, length, many):
        """By rows; for the sweep along short ones the lanes are the inner axis. Whether it was done, and failed."""
        if length == 1 and certain:
            _settle_certain(x, out)
            return True, False
        units = lanes
        if short:
            per_tile = vectors_in_short_tile(length, per_vector) * per_vector
            units = (lanes + per_tile - 1) // per_tile
        numbers = crew_numbers()
        past_cache = not one_number and is_past(lanes * length * itemsize)
        if many == 1 or units == 1:
            state = _without_lock(lanes * length > _RELEASE_FROM)
            failed = body(x, None, None, out, 0, units, past_cache)
            _with_lock(state)
            if lanes * length >= CREW_FROM:
                tell(numbers, ENDED, now())
            return True, failed
        state, shares = _without_lock(True), shares_of(units, lanes * length, many)
        given = x, None, None, out
        both = lead_unless_led(numbers, address_of_body(), given, units, shares, many - 1, past_cache)
        _with_lock(state)
        return both

    def enter(x, out):
        if not of_this_dtype(x):
            return OTHER
        axes, flags, writing = _half_word(x, _AXES), _half_word(x, _FLAGS), _ALIGNED | _WRITEABLE
        if not of_this_dtype(out) or axes == 0 or not flags & _ALIGNED:
            return REFUSED
        out_axes, out_flags = _half_word(out, _AXES), _half_word(out, _FLAGS)
        if out_axes != axes - one_number or out_flags & writing != writing:
            return REFUSED
        if axes > 2 and not flags & out_flags & _C_CONTIGUOUS:
            return REFUSED
        shape, strides = _word(x, _SHAPE), _word(x, _STRIDES)
        out_shape, out_strides = _word(out, _SHAPE), _word(out, _STRIDES)
        lanes = 1
        for i in range(axes - 1):
            if _entry(shape, i) != _entry(out_shape, i):
                return REFUSED
            lanes *= _entry(shape, i)
        length = _entry(shape, axes - 1)
        values = lanes * length
        if values == 0:
            return REFUSED
        many = threads_for(lanes, length, flags & out_flags)
        if many == 0:
            return LARGE
        step, out_step = _entry(strides, axes - 1), itemsize
        row, out_row = length * itemsize, itemsize if one_number else length * itemsize
        if not one_number:
            out_step = _entry(out_strides, axes - 1)
            if _entry(out_shape, axes - 1) != length or out_step == 0:
                return REFUSED
        if axes == 2:
            row, out_row = _entry(strides, 0), _entry(out_strides, 0)
            if out_row == 0 and lanes > 1:
                return REFUSED
        asked = wanted(lanes, length, step == itemsize and out_step == itemsize)
        if asked != form:
            return asked
        data, out_data = _word(x, _DATA), _word(out, _DATA)
        out_length = 1 if one_number else length
        if short:
            source = given(data, 1, length, lanes, values * itemsize, step, row)
            target = result(out_data, 1, out_length, lanes, values * itemsize, out_step, out_row)
        else:
            source = given(data, lanes, length, 1, row, step, itemsize)
            target = result(out_data, lanes, out_length, 1, out_row, out_step, itemsize)
        same = not one_number and data == out_data and row == out_row and step == out_step
        if not same and not apart(source, target):
            return REFUSED
        done, failed = sweep(source, target, lanes, length, many)
        if failed:
            raise MemoryError("no memory for a buffer")
        return DONE if done else LARGE

    name = f"{operation.name}-door-{SWEEPS[form]}-{storage}"
    holding = compiled(enter, name.replace("-", "_"), nogil=False)
    dispatcher: Any = compiled_for(holding, name, (Handed(), Handed()))
    (only,) = dispatcher.overloads.values()
    return only.entry_point  # the dispatcher itself would look up the types of what it is given
