"""Python's objects in compiled code, as CPython hands them over, and Python's lock.

NumPy's arrays are read where its C interface has their fields (``PyArrayObject`` in its reference manual, part of what
extension modules are built on); :func:`readable` says whether they are there.
"""

import ctypes
import functools
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

from softmax_numba.cpu.simd import I8, I32, I64

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
TYPE, DATA, AXES, SHAPE, STRIDES, DESCRIPTION, FLAGS = (_HEAD + n for n in (-8, 0, 8, 16, 24, 40, 48))
C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400


@functools.cache
def readable() -> bool:
    """Whether NumPy's arrays look as they are read here: each field compared with what NumPy says of an array."""
    array = np.zeros((2, 3), np.float32)[:, ::2]

    def seen(place: int, kind: Any = ctypes.c_int64) -> int:
        return int(kind.from_address(place).value)

    def two_seen(place: int) -> tuple[int, ...]:
        return tuple(seen(seen(place) + 8 * i) for i in range(2))

    if not hasattr(ctypes, "pythonapi") or ctypes.sizeof(ctypes.c_void_p) != 8 or np.ndarray.__basicsize__ < FLAGS + 4:
        return False
    at = id(array)
    flags = ALIGNED | WRITEABLE
    return (
        seen(at + TYPE) == id(np.ndarray)
        and seen(at + DATA) == array.ctypes.data
        and seen(at + AXES, ctypes.c_int32) == 2
        and two_seen(at + SHAPE) == array.shape
        and two_seen(at + STRIDES) == array.strides
        and seen(at + DESCRIPTION) == id(array.dtype)
        and seen(at + FLAGS, ctypes.c_int32) & (flags | C_CONTIGUOUS) == flags
    )


def _read(builder, pointer, offset, kind):
    place = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
    return builder.load(place)


@intrinsic
def word(typing, handed, offset):
    """The 8 bytes of an object at an offset, as an integer."""
    return types.int64(handed, types.intp), lambda context, builder, sig, args: _read(builder, *args, I64)


@intrinsic
def half_word(typing, handed, offset):
    """The 4 bytes of an object at an offset, as an integer."""

    def emit(context, builder, sig, args):
        return builder.sext(_read(builder, *args, I32), I64)

    return types.int64(handed, types.intp), emit


@intrinsic
def place_in_memory(typing, handed):
    """Where an object stands."""
    return types.int64(handed), lambda context, builder, sig, args: builder.ptrtoint(args[0], I64)


@intrinsic
def integer(typing, handed):
    """The value of a Python int, and whether it is too large for one."""

    def emit(context, builder, sig, args):
        too_large = cgutils.alloca_once_value(builder, I32(0))
        kind = ir.FunctionType(I64, [I8.as_pointer(), I32.as_pointer()])
        function = cgutils.get_or_insert_function(builder.module, kind, "PyLong_AsLongLongAndOverflow")
        value = builder.call(function, [args[0], too_large])
        too_large = builder.icmp_signed("!=", builder.load(too_large), I32(0))
        return context.make_tuple(builder, sig.return_type, [value, too_large])

    return types.Tuple((types.int64, types.boolean))(handed), emit


# --- Python's lock ------------------------------------------------------------------


@intrinsic
def without_lock(typing, really):
    """Releases Python's lock, if ``really``; to be given to :func:`with_lock`."""

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
def with_lock(typing, state):
    """Takes Python's lock again, if it was released."""

    def emit(context, builder, sig, args):
        take = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [I8.as_pointer()]), "PyEval_RestoreThread"
        )
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.Constant(I64, 0))):
            builder.call(take, [builder.inttoptr(args[0], I8.as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64), emit
