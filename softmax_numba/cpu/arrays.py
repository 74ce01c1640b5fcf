"""Arrays inside compiled code: pointers into them, whatever their strides, and room for what a sweep notes."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.simd import I8, I64

_LINE = 64  # bytes of the cache


def _start(context, builder, array, value):
    return context.make_array(array)(context, builder, value).data


@intrinsic
def start_of(typing, array):
    """A pointer to the array's first element."""
    return types.CPointer(array.dtype)(array), lambda context, builder, sig, args: _start(
        context, builder, array, args[0]
    )


@intrinsic
def allocated(typing, like, count):
    """A pointer to room for ``count`` numbers of the type of ``like`` (a number, or an array of them), on a cache line.

    Give it back by :func:`release`.
    """
    pointer = types.CPointer(like.dtype if isinstance(like, types.Array) else like)

    def emit(context, builder, sig, args):
        size = context.get_abi_sizeof(context.get_value_type(pointer.dtype))
        room = builder.add(builder.mul(args[1], ir.Constant(I64, size)), ir.Constant(I64, 2 * _LINE))
        base = context.nrt.allocate(builder, room)
        with cgutils.if_unlikely(builder, cgutils.is_null(builder, base)):
            context.call_conv.return_user_exc(builder, MemoryError, ("no memory for a buffer",))
        past = builder.add(builder.ptrtoint(base, I64), ir.Constant(I64, _LINE + 8))
        line = builder.and_(past, ir.Constant(I64, -_LINE))
        # What the allocator gave stands just before.
        builder.store(base, builder.inttoptr(builder.sub(line, ir.Constant(I64, 8)), base.type.as_pointer()))
        return builder.inttoptr(line, context.get_value_type(pointer))

    return pointer(like, types.intp), emit


@intrinsic
def release(typing, pointer):
    """Gives back the room that :func:`allocated` found."""

    def emit(context, builder, sig, args):
        line = builder.ptrtoint(args[0], I64)
        base = builder.load(builder.inttoptr(builder.sub(line, ir.Constant(I64, 8)), I8.as_pointer().as_pointer()))
        context.nrt.free(builder, base)
        return context.get_dummy_value()

    return types.void(pointer), emit


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


def _borrowed(context, builder, array, data, shape, strides, itemsize):
    """An array of a type by what it is made of, without a reference of its own."""
    from numba.np.arrayobj import populate_array  # 60 ms, which an import need not pay

    result = context.make_array(array)(context, builder)
    start = builder.bitcast(data, result.data.type)
    populate_array(result, start, shape, strides, itemsize, cgutils.get_null_value(result.meminfo.type))
    return result._getvalue()


@intrinsic
def lanes_at(typing, address, outer, length, inner, first, second, third, itemsize):
    """An array of three axes, borrowed, by its address, shape, strides and the size of its values, all in bytes.

    It is one of bytes, for calls by address: to them it does not matter which dtype the values have.
    """
    lanes = types.Array(types.uint8, 3, "A")

    def emit(context, builder, sig, args):
        data = builder.inttoptr(args[0], I8.as_pointer())
        return _borrowed(context, builder, lanes, data, args[1:4], args[4:7], args[7])

    return lanes(types.int64, *[types.intp] * 7), emit


@intrinsic
def array_at(typing, address, like, shape):
    """An array in C order of numbers of the type of ``like``, borrowed, by its address and shape."""
    array = types.Array(like, len(shape), "C")

    def emit(context, builder, sig, args):
        axes = cgutils.unpack_tuple(builder, args[2])
        itemsize = ir.Constant(I64, context.get_abi_sizeof(context.get_data_type(array.dtype)))
        strides = [itemsize]
        for length in axes[:0:-1]:
            strides.insert(0, builder.mul(strides[0], length))
        data = builder.inttoptr(args[0], context.get_data_type(array.dtype).as_pointer())
        return _borrowed(context, builder, array, data, axes, strides, itemsize)

    return array(address, like, shape), emit


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
