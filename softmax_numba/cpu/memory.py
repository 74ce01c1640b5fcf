"""Vectors in and out of memory: loads, masked tails, streaming stores, in every storage type.

A pointer is Numba's ``CPointer(storage)``; an index counts elements. 16-bit floats become float32 in the register and
are rounded to nearest-even on the way out.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.partial import load_some, store_some
from softmax_numba.cpu.simd import (
    BFLOAT,
    COMPUTES_IN,
    HALF,
    I1,
    I8,
    I16,
    I32,
    I64,
    Vector,
    call_llvm,
    larger_of,
    repeat,
    spread,
    vector_of,
)

LINE_BYTES = 64  # of a cache
_STORED_AS = {HALF: ir.HalfType(), BFLOAT: I16, types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def stored(storage, count):
    return ir.VectorType(_STORED_AS[storage], count)


def place_of(builder, pointer, index, kind):
    return builder.bitcast(builder.gep(pointer, [index]), kind.as_pointer())


def decode(builder, value, storage, vector):
    if storage == HALF:
        return builder.fpext(value, vector.llvm)
    if storage == BFLOAT:
        integers = vector.of(types.int32).llvm
        wide = builder.shl(builder.zext(value, integers), repeat(integers, 16))
        return builder.bitcast(wide, vector.llvm)
    return value


def encode(builder, value, storage, vector):
    if storage == HALF:
        return builder.fptrunc(value, stored(HALF, vector.count))
    if storage == BFLOAT:
        # By integers: the AVX-512 instruction for this flushes subnormal numbers to zero.
        integers = vector.of(types.int32).llvm
        pattern = builder.bitcast(value, integers)
        odd = builder.and_(builder.lshr(pattern, repeat(integers, 16)), repeat(integers, 1))
        rounded = builder.add(builder.add(pattern, odd), repeat(integers, 0x7FFF))
        nan = builder.fcmp_unordered("uno", value, value)
        rounded = builder.select(nan, repeat(integers, 0x7FC00000), rounded)
        return builder.trunc(builder.lshr(rounded, repeat(integers, 16)), stored(BFLOAT, vector.count))
    return value


@intrinsic
def load(typing, pointer, index):
    """A full vector from ``pointer[index:]``, in the compute dtype; any alignment of whole elements."""
    return loaded(pointer, 1)


def loaded(pointer, vectors):
    storage = pointer.dtype
    single = vector_of(COMPUTES_IN[storage])
    vector = Vector(single.element, vectors * single.count)

    def emit(context, builder, sig, args):
        kind = stored(storage, vector.count)
        value = builder.load(place_of(builder, *args[:2], kind), align=storage.bitwidth // 8)
        return decode(builder, value, storage, vector)

    return vector(pointer, types.intp), emit


def _picked(reach, places):
    """Compiles a load of ``reach`` vectors' values, of which ``places(count)`` are one vector's."""

    @intrinsic
    def load_picked(typing, pointer, index):
        storage = pointer.dtype
        vector = vector_of(COMPUTES_IN[storage])

        def emit(context, builder, sig, args):
            kind = stored(storage, reach * vector.count)
            value = builder.load(place_of(builder, *args, kind), align=storage.bitwidth // 8)
            chosen = ir.Constant(ir.VectorType(I32, vector.count), places(vector.count))
            value = builder.shuffle_vector(value, ir.Constant(kind, ir.Undefined), chosen)
            return decode(builder, value, storage, vector)

        return vector(pointer, types.intp), emit

    return load_picked


# Every second value from ``pointer[index]`` on, the one after the last included in what is read; and a vector's values
# from ``pointer[index:]``, the last first.
load_every_other = _picked(2, lambda count: list(range(0, 2 * count, 2)))
load_reversed = _picked(1, lambda count: list(range(count))[::-1])


@intrinsic
def load_first(typing, pointer, index, count):
    """The first ``count`` values of a vector, -inf in the other places, whose memory is not touched."""
    signature, emit = loaded_first(pointer, 1)
    return signature.return_type(pointer, types.intp, types.intp), emit


def loaded_first(pointer, vectors, missing=float("-inf")):
    storage = pointer.dtype
    single = vector_of(COMPUTES_IN[storage])
    vector = Vector(single.element, vectors * single.count)

    def emit(context, builder, sig, args):
        kind = stored(storage, vector.count)
        fill = repeat(kind, missing)
        if storage == BFLOAT:
            fill = repeat(kind, 0xFF80 if missing else 0)
        value = load_some(builder, place_of(builder, *args[:2], kind), args[2], fill)
        return decode(builder, value, storage, vector)

    return vector(pointer, types.intp, types.intp), emit


@intrinsic
def store(typing, pointer, index, value):
    """A full vector to ``pointer[index:]``, rounded to the stored dtype."""
    storage = pointer.dtype

    def emit(context, builder, sig, args):
        address = place_of(builder, *args[:2], stored(storage, value.count))
        builder.store(encode(builder, args[2], storage, value), address, align=storage.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), emit


@intrinsic
def store_first(typing, pointer, index, count, value):
    """The first ``count`` values of a vector to ``pointer[index:]``."""
    storage = pointer.dtype

    def emit(context, builder, sig, args):
        encoded = encode(builder, args[3], storage, value)
        store_some(builder, [place_of(builder, *args[:2], encoded.type)], args[2], [encoded])
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, value), emit


@intrinsic
def stream(typing, pointer, index, value):
    """A full vector, or a wide one, past the cache; the address must be a multiple of a full one's stored size."""
    storage = pointer.dtype

    def emit(context, builder, sig, args):
        encoded = encode(builder, args[2], storage, value)
        size = vector_of(COMPUTES_IN[storage]).count * storage.bitwidth // 8
        instruction = builder.store(encoded, place_of(builder, *args[:2], encoded.type), align=size)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), emit


@intrinsic
def raise_to(typing, pointer, index, value):
    """Puts a full vector of the compute dtype in the place of smaller numbers at ``pointer[index:]``."""
    vector = vector_of(pointer.dtype)

    def emit(context, builder, sig, args):
        place = place_of(builder, *args[:2], vector.llvm)
        there = builder.load(place, align=pointer.dtype.bitwidth // 8)
        # Of a choice between new values and those that stand there LLVM 22 makes a masked store, which takes a Zen 3
        # as long as thirteen others: a quarter of the time of columns. Where a frozen value came from it cannot see.
        larger = larger_of(builder, _frozen(builder, there), args[2])
        builder.store(larger, place, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), emit


def _frozen(builder, value):
    """``value``, of which LLVM does not know any more where it comes from; llvmlite has no method for this."""
    frozen = ir.Instruction(builder.block, value.type, "freeze", [value])
    builder._insert(frozen)
    return frozen


def _streaming(size_of):
    """Compiles the way past the cache for ``size_of(storage)`` bytes as they are stored, from ``source[index:]`` to
    ``target[index:]``; both places and the size are multiples of a cache line."""

    @intrinsic
    def stream_stored(typing, target, source, index):
        kind = ir.VectorType(I32, size_of(target.dtype) // 4)

        def emit(context, builder, sig, args):
            to, given, at = args
            value = builder.load(place_of(builder, given, at, kind), align=LINE_BYTES)
            instruction = builder.store(value, place_of(builder, to, at, kind), align=LINE_BYTES)
            instruction.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))
            return context.get_dummy_value()

        return types.void(target, source, types.intp), emit

    return stream_stored


stream_line = _streaming(lambda storage: LINE_BYTES)
stream_four = _streaming(lambda storage: 4 * vector_of(COMPUTES_IN[storage]).count * storage.bitwidth // 8)


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
        encoded = encode(builder, spread(builder, scalar, 1), storage, single)
        builder.store(encoded, place_of(builder, *args[:2], encoded.type), align=storage.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, number), emit


@intrinsic
def filled(typing, pointer, number):
    """A full vector of ``number`` in the compute dtype of ``pointer``."""
    return spread_of(pointer, number, 1)


def spread_of(pointer, number, vectors):
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
        value = builder.load(place_of(builder, *args, stored(storage, 1)), align=storage.bitwidth // 8)
        return builder.extract_element(decode(builder, value, storage, single), ir.Constant(I32, 0))

    return single.element(pointer, types.intp), emit


@intrinsic
def mask_at(typing, pointer, index, like):
    """As many truth values from ``pointer[index:]`` as ``like`` has places."""
    mask = like.of(types.boolean)

    def emit(context, builder, sig, args):
        given = builder.load(place_of(builder, *args[:2], ir.VectorType(I8, mask.count)), align=1)
        return builder.icmp_unsigned("!=", given, repeat(given.type, 0))

    return mask(pointer, types.intp, like), emit


@intrinsic
def mask_first(typing, pointer, index, count, like):
    """The first ``count`` of such truth values, and False in the other places."""
    mask = like.of(types.boolean)

    def emit(context, builder, sig, args):
        bytes_ = ir.VectorType(I8, mask.count)
        given = load_some(builder, place_of(builder, *args[:2], bytes_), args[2], repeat(bytes_, 0))
        return builder.icmp_unsigned("!=", given, repeat(bytes_, 0))

    return mask(pointer, types.intp, types.intp, like), emit


@intrinsic
def matches(typing, pointer, index, number, like):
    """Where int32 numbers from ``pointer[index:]`` are ``number``, a truth value for each place of ``like``."""
    mask = like.of(types.boolean)

    def emit(context, builder, sig, args):
        kind = ir.VectorType(I32, mask.count)
        given = builder.load(place_of(builder, *args[:2], kind), align=4)
        return builder.icmp_signed("==", given, spread(builder, builder.trunc(args[2], I32), mask.count))

    return mask(pointer, types.intp, types.intp, like), emit


@intrinsic
def width_of(typing, pointer):
    """How many elements of ``pointer`` one vector holds."""
    count = vector_of(COMPUTES_IN[pointer.dtype]).count
    return types.intp(pointer), lambda context, builder, sig, args: ir.Constant(I64, count)


@intrinsic
def stored_size(typing, pointer):
    """How many bytes a number takes there; known to the compiler."""
    size = pointer.dtype.bitwidth // 8
    return types.intp(pointer), lambda context, builder, sig, args: ir.Constant(I64, size)


@intrinsic
def address_of(typing, pointer, index):
    def emit(context, builder, sig, args):
        return builder.ptrtoint(builder.gep(args[0], [args[1]]), I64)

    return types.intp(pointer, types.intp), emit


@intrinsic
def to_full_vectors(typing, pointer):
    """How many numbers stand before the first place where :func:`stream` may put a full vector."""
    count, size = vector_of(COMPUTES_IN[pointer.dtype]).count, pointer.dtype.bitwidth // 8

    def emit(context, builder, sig, args):
        address = builder.ptrtoint(args[0], I64)
        missing = builder.and_(builder.neg(address), ir.Constant(I64, count * size - 1))
        return builder.udiv(missing, ir.Constant(I64, size))

    return types.intp(pointer), emit


@intrinsic
def same_storage(typing, pointer, other):
    """Whether two pointers are to numbers of one type; known to the compiler."""
    result = int(pointer == other)
    return types.boolean(pointer, other), lambda context, builder, sig, args: ir.Constant(I1, result)


@intrinsic
def pointer_like(typing, pointer, other):
    """``pointer``, as one to the type that ``other`` points to: for where the two are the same."""
    return other(pointer, other), lambda context, builder, sig, args: builder.bitcast(
        args[0], context.get_value_type(other)
    )


@intrinsic
def moved(typing, pointer, index):
    """The pointer to ``pointer[index]``."""
    return pointer(pointer, types.intp), lambda context, builder, sig, args: builder.gep(args[0], [args[1]])
