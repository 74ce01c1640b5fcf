"""Explicit vectors for Numba: values, memory and horizontal sums, one LLVM instruction each.

LLVM's auto-vectoriser takes no float ``max`` reduction and no loop around a polynomial it cannot prove
harmless, so nothing here depends on it: a :class:`Vector` is a Numba type whose value *is* ``<16 x float>`` or
``<8 x double>``. Vectors are 512 bits on every host: LLVM splits them into two AVX2 or four NEON registers where the
machine has no wider ones. The order of every sum is therefore the same on every machine.

``+ - * /`` and comparisons work on vectors and scalars as in NumPy; none of them carries a fast-math flag.
"""

import operator

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

BITS = 512
I1, I8, I16, I32, I64 = (ir.IntType(n) for n in (1, 8, 16, 32, 64))
_LLVM = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.int32: I32,
    types.int64: I64,
    types.boolean: I1,
}
# Numba has no 16-bit floats on the CPU: they travel as integers of the same size (see dtypes.py).
HALF, BFLOAT = types.uint16, types.int16
COMPUTES_IN = {HALF: types.float32, BFLOAT: types.float32, types.float32: types.float32, types.float64: types.float64}


class Vector(types.Type):
    """``count`` values of the scalar type ``element`` in registers."""

    def __init__(self, element, count):
        self.element, self.count = element, count
        super().__init__(f"Vector<{count} x {element}>")

    @property
    def llvm(self):
        return ir.VectorType(_LLVM[self.element], self.count)

    def of(self, element):
        """The vector type of as many values of another type."""
        return Vector(element, self.count)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.llvm)


def vector_of(element):
    """The full-width vector type of a compute dtype."""
    return Vector(element, BITS // element.bitwidth)


# --- building blocks ----------------------------------------------------------------


def _mangled(llvm_type):
    if isinstance(llvm_type, ir.PointerType):
        return "p0"
    if isinstance(llvm_type, ir.VectorType):
        return f"v{llvm_type.count}{_mangled(llvm_type.element)}"
    names = {ir.HalfType: "f16", ir.FloatType: "f32", ir.DoubleType: "f64"}
    return names.get(type(llvm_type)) or f"i{llvm_type.width}"


def call_llvm(builder, name, result, args, overloaded):
    """Call the LLVM intrinsic ``name``; llvmlite's own helper mangles no vector types."""
    kind = ir.FunctionType(result, [a.type for a in args])
    function = cgutils.get_or_insert_function(builder.module, kind, ".".join([name, *map(_mangled, overloaded)]))
    return builder.call(function, args)


def repeat(llvm_vector, value):
    return ir.Constant(llvm_vector, [value] * llvm_vector.count)


def spread(builder, scalar, count):
    vector = ir.VectorType(scalar.type, count)
    if isinstance(scalar, ir.Constant):
        return ir.Constant(vector, [scalar.constant] * count)
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, repeat(ir.VectorType(I32, count), 0))


def llvm_of(kind):
    return kind.llvm if isinstance(kind, Vector) else _LLVM[kind]


def element_of(kind):
    return kind.element if isinstance(kind, Vector) else kind


def _as_vector(context, builder, value, given, wanted):
    """``value`` as the type ``wanted``, a vector or (where the mathematics runs on one lane's numbers) a scalar."""
    if isinstance(given, Vector):
        return value
    scalar = context.cast(builder, value, given, element_of(wanted))
    return spread(builder, scalar, wanted.count) if isinstance(wanted, Vector) else scalar


# --- operators ----------------------------------------------------------------------


def _operand_type(args):
    """The vector type of ``a op b`` where one of the two may be a number; None if these are not ours."""
    vectors = [a for a in args if isinstance(a, Vector)]
    others = [a for a in args if not isinstance(a, Vector)]
    if not vectors or any(v != vectors[0] for v in vectors) or not all(isinstance(o, types.Number) for o in others):
        return None
    return vectors[0]


def _operator(function, emit, compares=False):
    @infer_global(function)
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            vector = _operand_type(args) if len(args) == 2 and not kws else None
            if vector is None:
                return None
            return signature(vector.of(types.boolean) if compares else vector, *args)

    def lower(context, builder, sig, args):
        wanted = _operand_type(sig.args)
        a, b = (_as_vector(context, builder, v, t, wanted) for v, t in zip(args, sig.args, strict=True))
        return emit(builder, wanted, a, b)

    for kinds in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(function, *kinds)(lower)


def _float_or_int(float_name, int_name):
    def emit(builder, vector, a, b):
        name = float_name if isinstance(vector.element, types.Float) else int_name
        return getattr(builder, name)(a, b)

    return emit


def _compare(sign):
    def emit(builder, vector, a, b):
        if isinstance(vector.element, types.Float):
            return builder.fcmp_ordered(sign, a, b)
        return builder.icmp_signed(sign, a, b)

    return emit


_operator(operator.add, _float_or_int("fadd", "add"))
_operator(operator.sub, _float_or_int("fsub", "sub"))
_operator(operator.mul, _float_or_int("fmul", "mul"))
_operator(operator.truediv, lambda builder, vector, a, b: builder.fdiv(a, b))
_operator(operator.and_, lambda builder, vector, a, b: builder.and_(a, b))
_operator(operator.or_, lambda builder, vector, a, b: builder.or_(a, b))
for _function, _sign in ((operator.lt, "<"), (operator.gt, ">"), (operator.eq, "==")):
    _operator(_function, _compare(_sign), compares=True)


@infer_global(operator.neg)
class _Negation(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if isinstance(args[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _negated(context, builder, sig, args):
    return builder.fneg(args[0])


# The functions below take vectors or plain numbers: the same formula serves one lane and sixteen.


@intrinsic
def fma(typing, x, y, z):
    """``x * y + z``, rounded once; ``y`` and ``z`` may be scalars beside a vector."""

    def emit(context, builder, sig, args):
        operands = [_as_vector(context, builder, v, t, x) for v, t in zip(args, sig.args, strict=True)]
        return call_llvm(builder, "llvm.fma", llvm_of(x), operands, [llvm_of(x)])

    return x(x, y, z), emit


@intrinsic
def times(typing, x, factor):
    """``x * factor``, and ``x`` itself where there is no factor (None)."""

    def emit(context, builder, sig, args):
        if factor == types.none:
            return args[0]
        return builder.fmul(args[0], _as_vector(context, builder, args[1], factor, x))

    return x(x, factor), emit


@intrinsic
def difference(typing, x, y, factor):
    """``(x - y) * factor``, finite where that is, even if ``x - y`` is not; ``x - y`` without a factor (None)."""

    def emit(context, builder, sig, args):
        other = _as_vector(context, builder, args[1], y, x)
        if factor == types.none:
            return builder.fsub(args[0], other)
        half = context.cast(builder, context.get_constant(types.float64, 0.5), types.float64, element_of(x))
        half = _as_vector(context, builder, half, element_of(x), x)
        scaled = _as_vector(context, builder, args[2], factor, x)
        halves = call_llvm(
            builder, "llvm.fma", llvm_of(x), [args[0], half, builder.fneg(builder.fmul(other, half))], [llvm_of(x)]
        )
        return builder.fmul(halves, builder.fadd(scaled, scaled))

    return x(x, y, factor), emit


def larger_of(builder, first, second):
    return builder.select(builder.fcmp_ordered(">", second, first), second, first)


@intrinsic
def larger(typing, a, b):
    """The larger of two values; ``a`` where either is NaN (one ``vmaxps``, which does just that)."""

    def emit(context, builder, sig, args):
        return larger_of(builder, args[0], _as_vector(context, builder, args[1], b, a))

    return a(a, b), emit


@intrinsic
def magnitude(typing, x):
    return x(x), lambda context, builder, sig, args: call_llvm(builder, "llvm.fabs", llvm_of(x), args, [llvm_of(x)])


@intrinsic
def select(typing, condition, yes, no):
    """``yes`` where the condition holds, else ``no``; one of the two may be a literal number."""
    # A literal is a float64 to Numba: the other one's type counts.
    result = min(yes, no, key=lambda kind: (not isinstance(kind, Vector), element_of(kind).bitwidth))

    def emit(context, builder, sig, args):
        values = [_as_vector(context, builder, v, t, result) for v, t in zip(args[1:], sig.args[1:], strict=True)]
        return builder.select(args[0], *values)

    return result(condition, yes, no), emit


@intrinsic
def merged(typing, count, first, rest):
    """The first ``count`` places of one vector and the others of another one."""

    def emit(context, builder, sig, args):
        places = ir.Constant(ir.VectorType(I32, first.count), list(range(first.count)))
        before = builder.icmp_signed("<", places, spread(builder, builder.trunc(args[0], I32), first.count))
        return builder.select(before, args[1], args[2])

    return first(types.intp, first, first), emit


@intrinsic
def less_at(typing, x, place, number):
    """A vector less a number at one of its places."""

    def emit(context, builder, sig, args):
        places = ir.Constant(ir.VectorType(I32, x.count), list(range(x.count)))
        there = builder.icmp_signed("==", places, spread(builder, builder.trunc(args[1], I32), x.count))
        less = builder.fsub(args[0], _as_vector(context, builder, args[2], number, x))
        return builder.select(there, less, args[0])

    return x(x, types.intp, number), emit


@intrinsic
def how_many(typing, mask):
    """How many places of a mask are true."""

    def emit(context, builder, sig, args):
        bits = ir.IntType(mask.count)
        count = call_llvm(builder, "llvm.ctpop", bits, [builder.bitcast(args[0], bits)], [bits])
        return builder.zext(count, I64)

    return types.intp(mask), emit


@intrinsic
def as_numbers(typing, mask, like):
    """1 where a mask is true and 0 elsewhere, as a vector of the type of ``like``."""
    return like(mask, like), lambda context, builder, sig, args: builder.uitofp(args[0], like.llvm)


# --- halves, widening, horizontal ---------------------------------------------------


def split(builder, value):
    """The lower and the upper half of an LLVM vector."""
    count = value.type.count // 2
    return [
        builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, count), list(range(first, first + count))))
        for first in (0, count)
    ]


def joined(builder, parts):
    """LLVM vectors of one type side by side in one; a power of two of them."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        places = ir.Constant(ir.VectorType(I32, count), list(range(count)))
        parts = [builder.shuffle_vector(a, b, places) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@intrinsic
def widened(typing, x):
    """A float32 vector as two float64 vectors."""
    half = Vector(types.float64, x.count // 2)

    def emit(context, builder, sig, args):
        parts = [builder.fpext(part, half.llvm) for part in split(builder, args[0])]
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(half, 2)(x), emit


@intrinsic
def narrowed(typing, low, high):
    """Two float64 vectors as one float32 vector."""
    vector = Vector(types.float32, 2 * low.count)

    def emit(context, builder, sig, args):
        places = ir.Constant(ir.VectorType(I32, vector.count), list(range(vector.count)))
        both = builder.shuffle_vector(*args, places)
        return builder.fptrunc(both, vector.llvm)

    return vector(low, high), emit


@intrinsic
def anywhere(typing, mask):
    """Whether any place of a mask is set."""
    integer = ir.IntType(mask.count)

    def emit(context, builder, sig, args):
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], integer), ir.Constant(integer, 0))

    return types.boolean(mask), emit


@intrinsic
def in_compute_dtype(typing, pointer, pair):
    """Lanes' float64 results, a pair of vectors as settling gives it, as one vector of what ``pointer`` points to."""
    vector = vector_of(pointer.dtype)

    def emit(context, builder, sig, args):
        parts = [builder.extract_value(args[1], i) for i in (0, 1)]
        if pointer.dtype == types.float64:
            return parts[0]
        places = ir.Constant(ir.VectorType(I32, vector.count), list(range(vector.count)))
        return builder.fptrunc(builder.shuffle_vector(*parts, places), vector.llvm)

    return vector(pointer, pair), emit


@intrinsic
def largest_of(typing, x):
    """The largest value of a vector without NaN."""

    def emit(context, builder, sig, args):
        # By halves: LLVM's own reduction heeds NaN and goes through the values one by one.
        value = args[0]
        while value.type.count > 1:
            value = larger_of(builder, *split(builder, value))
        return builder.extract_element(value, ir.Constant(I32, 0))

    return x.element(x), emit
