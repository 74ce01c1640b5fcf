"""Running sums in twice the precision of what is added: two float64 vectors, one number a slot.

Of float32 vectors the two are the halves, widened: value i of a vector goes to the slot i of both taken together; a
vector of four has one part. Of float64 vectors they are the sum and what its rounding lost. The functions take a vector
``like`` those added, to tell the two apart.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import place_of
from softmax_numba.cpu.simd import I32, I64, Vector, call_llvm, joined, repeat, split, vector_of
from softmax_numba.cpu.wide import sum_of_quarters

_DOUBLES = vector_of(types.float64)
_TOTAL = types.UniTuple(_DOUBLES, 2)


def total_of(x):
    """The type of running sums of vectors of the type ``x``."""
    whole = x.element == types.float64 or x.count <= _DOUBLES.count
    doubles = Vector(types.float64, x.count if whole else x.count // 2)
    return types.UniTuple(doubles, 2 if x.element == types.float64 or not whole else 1)


def _widened_parts(builder, value):
    """A float32 vector as the parts of a running sum."""
    parts = split(builder, value) if value.type.count > _DOUBLES.count else [value]
    return [builder.fpext(part, ir.VectorType(ir.DoubleType(), part.type.count)) for part in parts]


def exact_sum(builder, a, b):
    """a + b and its rounding error, of LLVM values (Knuth, TAOCP vol. 2, 4.2.2)."""
    s = builder.fadd(a, b)
    t = builder.fsub(s, a)
    return s, builder.fadd(builder.fsub(a, builder.fsub(s, t)), builder.fsub(b, t))


def exact_sum_of_pairs(builder, a, b):
    """The same of numbers that are sum and error each."""
    s, error = exact_sum(builder, a[0], b[0])
    return s, builder.fadd(error, builder.fadd(a[1], b[1]))


def known_error(builder, error):
    """The rounding error of a sum; of an infinite one, whose error is not a number, 0: that is what it comes to."""
    nothing = ir.Constant(error.type, 0.0) if isinstance(error.type, ir.DoubleType) else repeat(error.type, 0.0)
    return builder.select(builder.fcmp_ordered("ord", error, error), error, nothing)


@intrinsic
def two_sum(typing, a, b):
    """a + b and its rounding error."""
    return types.UniTuple(a, 2)(a, b), lambda context, builder, sig, args: context.make_tuple(
        builder, sig.return_type, exact_sum(builder, *args)
    )


@inlined
def sum_after(before, block):
    """Two sums, high and low, as one."""
    high, error = two_sum(before[0], block[0])
    low = error + block[1]
    if low != low:  # beside an infinite sum: that is what both come to
        low = 0.0
    return high, before[1] + low


@intrinsic
def as_total(typing, x):
    """One vector as a running sum; what is one as it is."""
    if isinstance(x, types.UniTuple):
        return x(x), lambda context, builder, sig, args: args[0]

    def emit(context, builder, sig, args):
        if x.element == types.float32:
            parts = _widened_parts(builder, args[0])
        else:
            parts = [args[0], builder.fsub(args[0], args[0])]  # NaN beside a NaN
        return context.make_tuple(builder, sig.return_type, parts)

    return total_of(x)(x), emit


def parts_of(builder, total):
    return [builder.extract_value(total, i) for i in range(total.type.count)]


@intrinsic
def plus(typing, like, total, other):
    """The sum of two running sums; of two vectors, their own sum."""
    if isinstance(total, Vector):
        return total(like, total, total), lambda context, builder, sig, args: builder.fadd(*args[1:])

    def emit(context, builder, sig, args):
        a, b = (parts_of(builder, each) for each in args[1:])
        if like.element == types.float32:
            parts = [builder.fadd(x, y) for x, y in zip(a, b, strict=True)]
        else:
            parts = exact_sum_of_pairs(builder, a, b)
        return context.make_tuple(builder, sig.return_type, parts)

    return total(like, total, total), emit


@inlined
def plus_quad(like, total, quad):
    """The running sum and four vectors of values, which come as one wide vector."""
    return plus(like, total, as_total(sum_of_quarters(quad)))


@intrinsic
def product_total(typing, x, y):
    """The products of two vectors as a running sum: exact."""

    def emit(context, builder, sig, args):
        if x.element == types.float32:
            a, b = (_widened_parts(builder, arg) for arg in args)
            parts = [builder.fmul(one, other) for one, other in zip(a, b, strict=True)]
        else:
            product = builder.fmul(*args)
            parts = [product, call_llvm(builder, "llvm.fma", x.llvm, [*args, builder.fneg(product)], [x.llvm])]
        return context.make_tuple(builder, sig.return_type, parts)

    return total_of(x)(x, x), emit


@intrinsic
def plus_product(typing, total, x, y):
    """The running sum and the products of two vectors, whose own rounding is not lost."""

    def emit(context, builder, sig, args):
        a, b = parts_of(builder, args[0]), args[1:]
        if x.element == types.float32:
            x_parts, y_parts = (_widened_parts(builder, arg) for arg in b)
            kind = a[0].type
            parts = [
                call_llvm(builder, "llvm.fma", kind, [*factors], [kind])
                for factors in zip(x_parts, y_parts, a, strict=True)
            ]
        else:
            product = builder.fmul(*b)
            error = call_llvm(builder, "llvm.fma", x.llvm, [*b, builder.fneg(product)], [x.llvm])
            parts = exact_sum_of_pairs(builder, a, [product, error])
        return context.make_tuple(builder, sig.return_type, parts)

    return total(total, x, x), emit


@inlined
def plus_four(like, total, a, b, c, d):
    """The running sum and four others, or four vectors, added pairwise."""
    return plus(like, total, as_total(plus(like, plus(like, a, b), plus(like, c, d))))


@intrinsic
def collapsed(typing, like, total):
    """The sum over the slots as two float64 numbers, high and low; halves are added to halves."""

    def emit(context, builder, sig, args):
        parts = parts_of(builder, args[1])
        if like.element == types.float32:
            value = builder.fadd(*parts)
            while value.type.count > 1:
                value = builder.fadd(*split(builder, value))
            value, error = builder.extract_element(value, ir.Constant(I32, 0)), ir.Constant(ir.DoubleType(), 0.0)
        else:
            while parts[0].type.count > 1:
                sums, errors = (split(builder, part) for part in parts)
                parts = exact_sum_of_pairs(builder, *zip(sums, errors, strict=True))
            value, error = (builder.extract_element(part, ir.Constant(I32, 0)) for part in parts)
            error = known_error(builder, error)
        return context.make_tuple(builder, sig.return_type, [value, error])

    return types.UniTuple(types.float64, 2)(like, total), emit


@intrinsic
def rounded(typing, like, total):
    """Running sums of lanes that lie side by side as a vector ``like`` points to: each lane's, rounded once.

    No sum is -0, as none is that :func:`collapsed` gives the high and the low of.
    """
    single = vector_of(like.dtype)

    def emit(context, builder, sig, args):
        parts = parts_of(builder, args[1])
        if single.element == types.float64:
            return builder.fadd(parts[0], known_error(builder, parts[1]))
        half, zero = ir.VectorType(ir.FloatType(), single.count // 2), ir.Constant(_DOUBLES.llvm, [0.0] * 8)
        return joined(builder, [builder.fptrunc(builder.fadd(part, zero), half) for part in parts])

    return single(like, _TOTAL), emit


@intrinsic(prefer_literal=True)
def total_of_slots(typing, pointer, step, rows, slots):
    """The sum over so many slots (a literal: a power of two) that stand in memory as vectors of lanes, ``step`` numbers
    from each to the next; a slot has so many ``rows`` (a literal: 1 to 4) of them, as many vectors apart as a vector
    has places."""
    single, count, most = vector_of(pointer.dtype), rows.literal_value, slots.literal_value

    def emit(context, builder, sig, args):
        def value(slot, row):
            place = builder.mul(args[1], ir.Constant(I64, row * single.count + slot))
            return builder.load(place_of(builder, args[0], place, single.llvm), align=pointer.dtype.bitwidth // 8)

        def quad(slot):
            total = value(slot, 0)
            if count > 1:
                total = builder.fadd(total, value(slot, 1))
            if count > 2:
                rest = value(slot, 2)
                total = builder.fadd(total, builder.fadd(rest, value(slot, 3)) if count > 3 else rest)
            if single.element == types.float32:
                return [builder.fpext(part, _DOUBLES.llvm) for part in split(builder, total)]
            return [total, builder.fsub(total, total)]

        def tree(slot, step):
            if step == most:
                return quad(slot)
            a, b = tree(slot, 2 * step), tree(slot + step, 2 * step)
            if single.element == types.float32:
                return [builder.fadd(x, y) for x, y in zip(a, b, strict=True)]
            return exact_sum_of_pairs(builder, a, b)

        return context.make_tuple(builder, sig.return_type, tree(0, 1))

    return _TOTAL(pointer, types.intp, rows, slots), emit


# --- in memory ----------------------------------------------------------------------


def _place(builder, pointer, index, per_index, offset):
    """Where a vector stands that is ``offset`` numbers after ``per_index * index``."""
    at = builder.add(builder.mul(index, ir.Constant(I64, per_index)), offset)
    return place_of(builder, pointer, at, _DOUBLES.llvm)


def _parts(builder, pointer, index):
    return [_place(builder, pointer, index, 16, ir.Constant(I64, offset)) for offset in (0, 8)]


@intrinsic
def store_total(typing, pointer, index, total):
    """Puts a running sum at place ``index`` of many."""

    def emit(context, builder, sig, args):
        for value, at in zip(parts_of(builder, args[2]), _parts(builder, *args[:2]), strict=True):
            builder.store(value, at, align=8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, _TOTAL), emit


@intrinsic
def load_total(typing, pointer, index):
    """The running sum at place ``index``."""

    def emit(context, builder, sig, args):
        parts = [builder.load(at, align=8) for at in _parts(builder, *args)]
        return context.make_tuple(builder, sig.return_type, parts)

    return _TOTAL(pointer, types.intp), emit


@intrinsic
def store_sums(typing, pointer, index, row, like, total):
    """Puts a running sum as one float64 sum a lane at ``pointer[index:]``, and its error ``row`` places further on."""

    def emit(context, builder, sig, args):
        parts = parts_of(builder, args[4])
        zero = ir.Constant(_DOUBLES.llvm, [0.0] * 8)
        if like.element == types.float32:
            upper = builder.add(args[2], ir.Constant(I64, 8))
            places = [(ir.Constant(I64, 0), parts[0]), (ir.Constant(I64, 8), parts[1]), (args[2], zero), (upper, zero)]
        else:
            places = [(ir.Constant(I64, 0), parts[0]), (args[2], parts[1])]
        for offset, value in places:
            builder.store(value, _place(builder, args[0], args[1], 1, offset), align=8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, like, _TOTAL), emit


@intrinsic
def load_sums(typing, pointer, index, row, like):
    """What :func:`store_sums` put down."""

    def emit(context, builder, sig, args):
        offsets = ir.Constant(I64, 0), ir.Constant(I64, 8) if like.element == types.float32 else args[2]
        parts = [builder.load(_place(builder, args[0], args[1], 1, offset), align=8) for offset in offsets]
        return context.make_tuple(builder, sig.return_type, parts)

    return _TOTAL(pointer, types.intp, types.intp, like), emit
