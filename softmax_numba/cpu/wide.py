"""Four vectors as one, so that every step of a computation is four independent instructions.

A processor that must wait for one of them has three others to go on with; its schedulers look too few instructions
ahead to find those in the next turn of a loop. LLVM splits a wide vector into full registers.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.memory import loaded, loaded_first, place_of, spread_of
from softmax_numba.cpu.simd import I32, I64, Vector, joined, larger_of, split, vector_of


@intrinsic(prefer_literal=True)
def load_wide(typing, pointer, index, vectors):
    """As many full vectors (a literal number) as one wide vector."""
    signature, emit = loaded(pointer, vectors.literal_value)
    return signature.return_type(pointer, types.intp, vectors), emit


@intrinsic(prefer_literal=True)
def load_first_wide(typing, pointer, index, count, vectors):
    """The first ``count`` values of so many vectors (a literal), -inf in the other places."""
    signature, emit = loaded_first(pointer, vectors.literal_value)
    return signature.return_type(pointer, types.intp, types.intp, vectors), emit


@intrinsic(prefer_literal=True)
def load_first_zero(typing, pointer, index, count, vectors):
    """The same, with 0 in the other places."""
    signature, emit = loaded_first(pointer, vectors.literal_value, 0.0)
    return signature.return_type(pointer, types.intp, types.intp, vectors), emit


@intrinsic(prefer_literal=True)
def numbers_for(typing, pointer, index, lanes):
    """The numbers of so many lanes (a literal) from ``pointer[index]`` on, as vectors of their values need them.

    One lane: its number. As many lanes as a vector has places, or four vectors have: that vector, one number a place.
    Two or four lanes: a wide vector of four, each number in an equal share of the places.
    """
    count, single = lanes.literal_value, vector_of(pointer.dtype)
    result = pointer.dtype
    if count == single.count:
        result = single
    elif count > 1:
        result = Vector(pointer.dtype, 4 * single.count)

    def emit(context, builder, sig, args):
        if count == 1:
            return builder.load(builder.gep(args[0], [args[1]]))
        given = ir.VectorType(single.llvm.element, count)
        few = builder.load(place_of(builder, *args[:2], given), align=pointer.dtype.bitwidth // 8)
        if count == result.count:
            return few
        places = [i * count // result.count for i in range(result.count)]
        return builder.shuffle_vector(few, few, ir.Constant(ir.VectorType(I32, result.count), places))

    return result(pointer, types.intp, lanes), emit


@intrinsic(prefer_literal=True)
def numbers_over(typing, pointer, index, lanes, places):
    """The numbers of so many lanes (a literal) from ``pointer[index]`` on, all of them so many times (a literal)."""
    count, times = lanes.literal_value, places.literal_value
    few, wide = Vector(pointer.dtype, count), Vector(pointer.dtype, count * times)

    def emit(context, builder, sig, args):
        numbers = builder.load(place_of(builder, *args[:2], few.llvm), align=pointer.dtype.bitwidth // 8)
        return joined(builder, [numbers] * times)

    return wide(pointer, types.intp, lanes, places), emit


@intrinsic(prefer_literal=True)
def load_apart(typing, pointer, index, step, vectors):
    """A wide vector from ``vectors`` (a literal) single ones, ``step`` numbers from each to the next."""
    single = vector_of(pointer.dtype)
    wide = Vector(single.element, vectors.literal_value * single.count)

    def emit(context, builder, sig, args):
        parts = []
        for k in range(vectors.literal_value):
            place = builder.add(args[1], builder.mul(args[2], ir.Constant(I64, k)))
            parts.append(
                builder.load(place_of(builder, args[0], place, single.llvm), align=pointer.dtype.bitwidth // 8)
            )
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
            builder.store(part, place_of(builder, args[0], place, single.llvm), align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, wide), emit


@intrinsic(prefer_literal=True)
def filled_wide(typing, pointer, number, vectors):
    """As many such vectors (a literal number) as one wide vector."""
    signature, emit = spread_of(pointer, number, vectors.literal_value)
    return signature.return_type(pointer, number, vectors), emit


@intrinsic
def fourfold(typing, x):
    """A vector four times in one wide vector; what is no vector (a number, None) as it is."""
    if not isinstance(x, Vector):
        return x(x), lambda context, builder, sig, args: args[0]
    wide = Vector(x.element, 4 * x.count)
    return wide(x), lambda context, builder, sig, args: joined(builder, [args[0]] * 4)


@intrinsic
def joined_four(typing, a, b, c, d):
    """Four vectors as one wide vector."""
    wide = Vector(a.element, 4 * a.count)
    return wide(a, a, a, a), lambda context, builder, sig, args: joined(builder, args)


def quarters_of(builder, wide):
    """The four vectors of a wide one, as LLVM values."""
    return [part for half in split(builder, wide) for part in split(builder, half)]


@intrinsic
def quarters(typing, wide):
    """The four vectors of a wide one."""
    single = Vector(wide.element, wide.count // 4)

    def emit(context, builder, sig, args):
        return context.make_tuple(builder, sig.return_type, quarters_of(builder, args[0]))

    return types.UniTuple(single, 4)(wide), emit


def _is_wide(vector):
    return vector.count > vector_of(vector.element).count


def mapped_type(kind, type_of):
    """The type of a named tuple whose vectors have become what ``type_of`` says; of anything else in it, its own."""
    if isinstance(kind, Vector):
        return type_of(kind)
    if isinstance(kind, types.NamedUniTuple):
        return types.NamedUniTuple(mapped_type(kind.dtype, type_of), kind.count, kind.instance_class)
    if isinstance(kind, types.NamedTuple):
        return types.NamedTuple([mapped_type(field, type_of) for field in kind.types], kind.instance_class)
    return kind


def mapped(context, builder, value, kind, type_of, become):
    """The named tuple itself, of LLVM values: ``become(value, kind)`` of its vectors."""
    if isinstance(kind, Vector):
        return become(value, kind)
    if not isinstance(kind, types.NamedTuple | types.NamedUniTuple):
        return value
    fields = [
        mapped(context, builder, builder.extract_value(value, i), field, type_of, become)
        for i, field in enumerate(kind.types)
    ]
    return context.make_tuple(builder, mapped_type(kind, type_of), fields)


@intrinsic(prefer_literal=True)
def half(typing, x, place):
    """One half of a wide vector, and of those in a named tuple; what is no wide vector as it is."""

    def half_type(kind):
        return Vector(kind.element, kind.count // 2) if _is_wide(kind) else kind

    def emit(context, builder, sig, args):
        def half_of(value, kind):
            return split(builder, value)[place.literal_value] if _is_wide(kind) else value

        return mapped(context, builder, args[0], x, half_type, half_of)

    return mapped_type(x, half_type)(x, place), emit


@intrinsic
def joined_two(typing, a, b):
    """Two vectors as one."""
    wide = Vector(a.element, 2 * a.count)
    return wide(a, a), lambda context, builder, sig, args: joined(builder, args)


@intrinsic
def sum_of_quarters(typing, wide):
    """The sum of the four vectors of a wide one, added pairwise."""

    def emit(context, builder, sig, args):
        a, b, c, d = quarters_of(builder, args[0])
        return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))

    return Vector(wide.element, wide.count // 4)(wide), emit


@intrinsic
def largest_of_quarters(typing, wide):
    """The larger values, place by place, of the four vectors of a wide one without NaN."""

    def emit(context, builder, sig, args):
        a, b, c, d = quarters_of(builder, args[0])
        return larger_of(builder, larger_of(builder, a, b), larger_of(builder, c, d))

    return Vector(wide.element, wide.count // 4)(wide), emit
