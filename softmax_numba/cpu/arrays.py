"""Arrays inside compiled code: pointers into them, whatever their strides, and room for what a sweep notes."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from softmax_numba.cpu.jit import inlined
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.simd import BFLOAT, HALF, I8, I64


def _start(context, builder, array, value):
    return context.make_array(array)(context, builder, value).data


@intrinsic
def start_of(typing, array):
    """A pointer to the array's first element."""
    return types.CPointer(array.dtype)(array), lambda context, builder, sig, args: _start(
        context, builder, array, args[0]
    )


@intrinsic
def aligned(typing, array):
    """A pointer to the first cache line that begins in an array, which must have 64 bytes to spare."""
    pointer = types.CPointer(array.dtype)

    def emit(context, builder, sig, args):
        start = builder.ptrtoint(_start(context, builder, array, args[0]), I64)
        line = builder.and_(builder.add(start, ir.Constant(I64, 63)), ir.Constant(I64, ~63))
        return builder.inttoptr(line, context.get_value_type(pointer))

    return pointer(array), emit


@intrinsic(prefer_literal=True)
def on_stack(typing, like, count):
    """A pointer to room for ``count`` (a literal) numbers of the type of ``like``, on a cache line and until the
    function returns."""
    pointer = types.CPointer(like)
    size = count.literal_value

    def emit(context, builder, sig, args):
        kind = ir.ArrayType(context.get_value_type(like), size)
        with builder.goto_entry_block():
            room = builder.alloca(kind)
        room.align = 64
        return builder.bitcast(room, context.get_value_type(pointer))

    return pointer(like, count), emit


@intrinsic
def place(typing, array, o, i, j):
    """A pointer to ``array[o, i, j]``, inside the array or not."""
    pointer = types.CPointer(array.dtype)

    def emit(context, builder, sig, args):
        given = context.make_array(array)(context, builder, args[0])
        strides = cgutils.unpack_tuple(builder, given.strides)
        offset = ir.Constant(I64, 0)
        for index, stride in zip(args[1:], strides, strict=True):
            offset = builder.add(offset, builder.mul(index, stride))
        start = builder.bitcast(given.data, I8.as_pointer())
        return builder.bitcast(builder.gep(start, [offset]), context.get_value_type(pointer))

    return pointer(array, types.intp, types.intp, types.intp), emit


@intrinsic
def hold(typing, array):
    """Keeps an array alive up to here: Numba frees one after its last use, and a pointer is none."""
    return types.void(array), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic
def as_lanes(typing, array):
    """A 2-D array as (outer, length, 1), a 1-D array as (outer, 1, 1); borrowed, without a reference of its own."""
    lanes = types.Array(array.dtype, 3, "A", readonly=not array.mutable)

    def emit(context, builder, sig, args):
        from numba.np.arrayobj import populate_array  # 60 ms, which an import need not pay

        given = context.make_array(array)(context, builder, args[0])
        result = context.make_array(lanes)(context, builder)
        added = 3 - array.ndim
        shape = [*cgutils.unpack_tuple(builder, given.shape), *[ir.Constant(I64, 1)] * added]
        strides = [*cgutils.unpack_tuple(builder, given.strides), *[given.itemsize] * added]
        null = cgutils.get_null_value(given.meminfo.type)
        populate_array(result, given.data, shape, strides, given.itemsize, null)
        return result._getvalue()

    return lanes(array), emit


@intrinsic
def minus_infinity(typing, array):
    """-inf as the array stores it."""
    stored = {HALF: 0xFC00, BFLOAT: 0xFF80 - 0x10000}.get(array.dtype, float("-inf"))
    return array.dtype(array), lambda context, builder, sig, args: context.get_constant(array.dtype, stored)


@inlined
def apart(x, out):
    """Whether two arrays (not empty) share no memory."""
    low = high = address_of(start_of(x), 0)
    for axis in range(x.ndim):
        span = (x.shape[axis] - 1) * x.strides[axis]
        low, high = low + min(span, 0), high + max(span, 0)
    first = last = address_of(start_of(out), 0)
    for axis in range(out.ndim):
        span = (out.shape[axis] - 1) * out.strides[axis]
        first, last = first + min(span, 0), last + max(span, 0)
    return high + x.itemsize <= first or last + out.itemsize <= low
