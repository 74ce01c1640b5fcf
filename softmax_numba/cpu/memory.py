"""Vectors in and out of memory: loads, masked tails, streaming stores, in every storage type.

A pointer is Numba's ``CPointer(storage)``; an index counts elements. 16-bit floats become float32 in the register and
are rounded to nearest-even on the way out.
"""

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from softmax_numba.cpu.simd import (
    BFLOAT,
    COMPUTES_IN,
    HALF,
    I8,
    I16,
    I32,
    I64,
    INLINED,
    Vector,
    call_llvm,
    inlined,
    joined,
    repeat,
    spread,
    vector_of,
)

_STORED_AS = {HALF: ir.HalfType(), BFLOAT: I16, types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def _stored(storage, count):
    return ir.VectorType(_STORED_AS[storage], count)


def _at(builder, pointer, index, kind):
    return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())


def _first(builder, count, width):
    """Mask of the first ``count`` places."""
    places = ir.Constant(ir.VectorType(I32, width), list(range(width)))
    return builder.icmp_signed("<", places, spread(builder, builder.trunc(count, I32), width))


def _decode(builder, value, storage, vector):
    if storage == HALF:
        return builder.fpext(value, vector.llvm)
    if storage == BFLOAT:
        integers = vector.of(types.int32).llvm
        wide = builder.shl(builder.zext(value, integers), repeat(integers, 16))
        return builder.bitcast(wide, vector.llvm)
    return value


def _encode(builder, value, storage, vector):
    if storage == HALF:
        return builder.fptrunc(value, _stored(HALF, vector.count))
    if storage == BFLOAT:
        # By integers: the AVX-512 instruction for this flushes subnormal numbers to zero.
        integers = vector.of(types.int32).llvm
        pattern = builder.bitcast(value, integers)
        odd = builder.and_(builder.lshr(pattern, repeat(integers, 16)), repeat(integers, 1))
        rounded = builder.add(builder.add(pattern, odd), repeat(integers, 0x7FFF))
        nan = builder.fcmp_unordered("uno", value, value)
        rounded = builder.select(nan, repeat(integers, 0x7FC00000), rounded)
        return builder.trunc(builder.lshr(rounded, repeat(integers, 16)), _stored(BFLOAT, vector.count))
    return value


@intrinsic
def pointer_to(typing, address, array):
    """``address`` (an integer) as a pointer to elements of the array's dtype."""
    pointer = types.CPointer(array.dtype)

    def emit(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(pointer))

    return pointer(types.intp, array), emit


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
def load(typing, pointer, index):
    """A full vector from ``pointer[index:]``, in the compute dtype; any alignment of whole elements."""
    return _load(pointer, 1)


@intrinsic(prefer_literal=True)
def load_wide(typing, pointer, index, vectors):
    """As many full vectors (a literal number) as one wide vector."""
    signature, emit = _load(pointer, vectors.literal_value)
    return signature.return_type(pointer, types.intp, vectors), emit


def _load(pointer, vectors):
    storage = pointer.dtype
    single = vector_of(COMPUTES_IN[storage])
    vector = Vector(single.element, vectors * single.count)

    def emit(context, builder, sig, args):
        kind = _stored(storage, vector.count)
        value = builder.load(_at(builder, *args[:2], kind), align=storage.bitwidth // 8)
        return _decode(builder, value, storage, vector)

    return vector(pointer, types.intp), emit


@intrinsic(prefer_literal=True)
def numbers_for(typing, pointer, index, rows):
    """The numbers of ``rows`` (a literal) rows from ``pointer[index]`` on, as they stand in a wide vector of four.

    One number for one row; for several, each in an equal share of the places.
    """
    count = rows.literal_value
    single = pointer.dtype if count == 1 else Vector(pointer.dtype, 4 * vector_of(pointer.dtype).count)

    def emit(context, builder, sig, args):
        if count == 1:
            return builder.load(builder.gep(args[0], [args[1]]))
        few = builder.load(
            _at(builder, *args[:2], ir.VectorType(single.llvm.element, count)), align=pointer.dtype.bitwidth // 8
        )
        places = [i * count // single.count for i in range(single.count)]
        return builder.shuffle_vector(few, few, ir.Constant(ir.VectorType(I32, single.count), places))

    return single(pointer, types.intp, rows), emit


def _masked(builder, name, result, pointer, mask, others):
    """A masked load or store of single elements; LLVM 22 moved the alignment from an operand to an attribute."""
    vector = others[0].type
    alignment = [] if llvm_version_info >= (22,) else [ir.Constant(I32, 1)]
    if name == "llvm.masked.load":
        operands = [pointer, *alignment, mask, *others]
    else:
        operands = [*others, pointer, *alignment, mask]
    return call_llvm(builder, name, result, operands, [vector, pointer.type])


@intrinsic
def load_first(typing, pointer, index, count):
    """The first ``count`` values of a vector, -inf in the other places, whose memory is not touched."""
    storage = pointer.dtype
    vector = vector_of(COMPUTES_IN[storage])

    def emit(context, builder, sig, args):
        kind = _stored(storage, vector.count)
        fill = repeat(kind, 0xFF80 if storage == BFLOAT else float("-inf"))
        address, mask = _at(builder, *args[:2], kind), _first(builder, args[2], vector.count)
        value = _masked(builder, "llvm.masked.load", kind, address, mask, [fill])
        return _decode(builder, value, storage, vector)

    return vector(pointer, types.intp, types.intp), emit


@intrinsic(prefer_literal=True)
def load_apart(typing, pointer, index, step, vectors):
    """A wide vector from ``vectors`` (a literal) single ones, ``step`` numbers from each to the next."""
    single = vector_of(pointer.dtype)
    wide = Vector(single.element, vectors.literal_value * single.count)

    def emit(context, builder, sig, args):
        parts = []
        for k in range(vectors.literal_value):
            place = builder.add(args[1], builder.mul(args[2], ir.Constant(I64, k)))
            parts.append(builder.load(_at(builder, args[0], place, single.llvm), align=pointer.dtype.bitwidth // 8))
        return joined(builder, parts)

    return wide(pointer, types.intp, types.intp, vectors), emit


@intrinsic
def store_apart(typing, pointer, index, step, wide):
    """A wide vector as single ones, ``step`` numbers from each to the next."""
    single = vector_of(pointer.dtype)

    def emit(context, builder, sig, args):
        for k in range(wide.count // single.count):
            places = [k * single.count + i for i in range(single.count)]
            part = builder.shuffle_vector(args[3], args[3], ir.Constant(ir.VectorType(I32, single.count), places))
            place = builder.add(args[1], builder.mul(args[2], ir.Constant(I64, k)))
            builder.store(part, _at(builder, args[0], place, single.llvm), align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, wide), emit


@intrinsic
def store(typing, pointer, index, value):
    """A full vector to ``pointer[index:]``, rounded to the stored dtype."""
    storage = pointer.dtype

    def emit(context, builder, sig, args):
        address = _at(builder, *args[:2], _stored(storage, value.count))
        builder.store(_encode(builder, args[2], storage, value), address, align=storage.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), emit


@intrinsic
def store_first(typing, pointer, index, count, value):
    """The first ``count`` values of a vector to ``pointer[index:]``."""
    storage = pointer.dtype

    def emit(context, builder, sig, args):
        encoded = _encode(builder, args[3], storage, value)
        address, mask = _at(builder, *args[:2], encoded.type), _first(builder, args[2], value.count)
        _masked(builder, "llvm.masked.store", ir.VoidType(), address, mask, [encoded])
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, value), emit


@intrinsic
def stream(typing, pointer, index, value):
    """A full vector, or a wide one, past the cache; the address must be a multiple of a full one's stored size."""
    storage = pointer.dtype

    def emit(context, builder, sig, args):
        encoded = _encode(builder, args[2], storage, value)
        size = vector_of(COMPUTES_IN[storage]).count * storage.bitwidth // 8
        instruction = builder.store(encoded, _at(builder, *args[:2], encoded.type), align=size)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), emit


@intrinsic
def fence(typing):
    """Orders streaming stores before what other threads are told next (``sfence`` on x86)."""

    def emit(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def prefetch(typing, pointer, index):
    """Ask for the cache line of ``pointer[index]``, to be read soon; any address is allowed."""

    def emit(context, builder, sig, args):
        address = builder.bitcast(builder.gep(args[0], [args[1]]), I8.as_pointer())
        hints = [ir.Constant(I32, value) for value in (0, 2, 1)]  # read, keep in L2, data
        call_llvm(builder, "llvm.prefetch", ir.VoidType(), [address, *hints], [address.type])
        return context.get_dummy_value()

    return types.void(pointer, types.intp), emit


@intrinsic
def put(typing, pointer, index, number):
    """One number to ``pointer[index]``, rounded to the stored dtype."""
    storage = pointer.dtype
    single = Vector(COMPUTES_IN[storage], 1)

    def emit(context, builder, sig, args):
        scalar = context.cast(builder, args[2], number, single.element)
        encoded = _encode(builder, spread(builder, scalar, 1), storage, single)
        builder.store(encoded, _at(builder, *args[:2], encoded.type), align=storage.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, number), emit


@intrinsic
def filled(typing, pointer, number):
    """A full vector of ``number`` in the compute dtype of ``pointer``."""
    return _filled(pointer, number, 1)


@intrinsic(prefer_literal=True)
def filled_wide(typing, pointer, number, vectors):
    """As many such vectors (a literal number) as one wide vector."""
    signature, emit = _filled(pointer, number, vectors.literal_value)
    return signature.return_type(pointer, number, vectors), emit


def _filled(pointer, number, vectors):
    single = vector_of(COMPUTES_IN[pointer.dtype])
    vector = Vector(single.element, vectors * single.count)

    def emit(context, builder, sig, args):
        return spread(builder, context.cast(builder, args[1], number, vector.element), vector.count)

    return vector(pointer, number), emit


@intrinsic
def number_like(typing, pointer):
    """A 0 of the compute dtype of ``pointer``."""
    number = COMPUTES_IN[pointer.dtype]
    return number(pointer), lambda context, builder, sig, args: context.get_constant(number, 0)


@intrinsic
def number_at(typing, pointer, index):
    """``pointer[index]`` as a number of the compute dtype."""
    storage = pointer.dtype
    single = Vector(COMPUTES_IN[storage], 1)

    def emit(context, builder, sig, args):
        value = builder.load(_at(builder, *args, _stored(storage, 1)), align=storage.bitwidth // 8)
        return builder.extract_element(_decode(builder, value, storage, single), ir.Constant(I32, 0))

    return single.element(pointer, types.intp), emit


@intrinsic
def mask_at(typing, pointer, index, like):
    """As many truth values from ``pointer[index:]`` as ``like`` has places."""
    mask = like.of(types.boolean)

    def emit(context, builder, sig, args):
        given = builder.load(_at(builder, *args[:2], ir.VectorType(I8, mask.count)), align=1)
        return builder.icmp_unsigned("!=", given, repeat(given.type, 0))

    return mask(pointer, types.intp, like), emit


@intrinsic
def mask_first(typing, pointer, index, count, like):
    """The first ``count`` of such truth values, and False in the other places."""
    mask = like.of(types.boolean)

    def emit(context, builder, sig, args):
        bytes_ = ir.VectorType(I8, mask.count)
        address, first = _at(builder, *args[:2], bytes_), _first(builder, args[2], mask.count)
        given = _masked(builder, "llvm.masked.load", bytes_, address, first, [repeat(bytes_, 0)])
        return builder.icmp_unsigned("!=", given, repeat(bytes_, 0))

    return mask(pointer, types.intp, types.intp, like), emit


@intrinsic
def width_of(typing, pointer):
    """How many elements of ``pointer`` one vector holds."""
    count = vector_of(COMPUTES_IN[pointer.dtype]).count
    return types.intp(pointer), lambda context, builder, sig, args: ir.Constant(I64, count)


@intrinsic
def address_of(typing, pointer, index):
    def emit(context, builder, sig, args):
        return builder.ptrtoint(builder.gep(args[0], [args[1]]), I64)

    return types.intp(pointer, types.intp), emit


@intrinsic
def moved(typing, pointer, index):
    """The pointer to ``pointer[index]``."""
    return pointer(pointer, types.intp), lambda context, builder, sig, args: builder.gep(args[0], [args[1]])


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


@inlined
def aligned(array):
    """A pointer to the first cache line that begins in ``array``, which must have 64 bytes to spare."""
    return pointer_to((array.ctypes.data + 63) & ~63, array)


def minus_infinity(array):
    """-inf as the array stores it."""
    raise NotImplementedError("only inside compiled code")


@overload(minus_infinity, jit_options=INLINED)
def _minus_infinity(array):
    stored = {HALF: np.uint16(0xFC00), BFLOAT: np.int16(0xFF80 - 0x10000)}.get(array.dtype, -np.inf)
    return lambda array: stored


@intrinsic
def store_pair(typing, pointer, index, pair):
    """A pair of float64 vectors at place ``index`` of an array of such pairs."""

    def emit(context, builder, sig, args):
        for half in range(2):
            value = builder.extract_value(args[2], half)
            builder.store(value, _pair_at(builder, args, half, value.type), align=8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, pair), emit


@intrinsic
def load_pair(typing, pointer, index, pair):
    """The pair of vectors of the type of ``pair`` that stands at place ``index``."""

    def emit(context, builder, sig, args):
        kind = pair.dtype.llvm
        halves = [builder.load(_pair_at(builder, args, half, kind), align=8) for half in range(2)]
        return context.make_tuple(builder, sig.return_type, halves)

    return pair(pointer, types.intp, pair), emit


def _pair_at(builder, args, half, kind):
    count = ir.Constant(I64, kind.count)
    place = builder.add(
        builder.mul(args[1], builder.mul(count, ir.Constant(I64, 2))), builder.mul(count, ir.Constant(I64, half))
    )
    return _at(builder, args[0], place, kind)
