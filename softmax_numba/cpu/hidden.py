"""What the compiler is not told, by an empty assembly statement: it would fill registers or the stack with it."""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.host import FEW_REGISTERS, REGISTER_BITS
from softmax_numba.cpu.simd import I32, joined


def hidden(builder, value, register="r", in_memory=False):
    """For an intrinsic: the same value in a general register, or one of floats ("x"), unknown to the compiler to be so;
    what it points to may have changed, too, if that is ``in_memory``."""
    kind = ir.FunctionType(value.type, [value.type])
    same = builder.asm(kind, "", f"={register},0", [value], side_effect=False)
    same.attributes.add("nounwind")
    if not in_memory:
        same.attributes.add("readnone")
    return same


@intrinsic
def unknown(typing, x):
    """The same float32, or tuple of them, unknown to the compiler if registers are few; anything else as it is."""

    def alike(builder, value):
        if value.type != ir.FloatType() or not FEW_REGISTERS:
            return value
        return hidden(builder, value, "x")

    def emit(context, builder, sig, args):
        if not isinstance(x, types.UniTuple):
            return alike(builder, args[0])
        values = [alike(builder, builder.extract_value(args[0], i)) for i in range(x.count)]
        return context.make_tuple(builder, x, values)

    return x(x), emit


@intrinsic
def again(typing, pointer):
    """The same pointer, unknown to the compiler to be so: values that are read there a second time do not occupy
    registers, or the stack, in between."""
    return pointer(pointer), lambda context, builder, sig, args: hidden(builder, args[0], in_memory=True)


@intrinsic
def some_zero(typing, pointer):
    """A 0 of what a pointer points to, not known to be one: of a loop that puts down zeros LLVM makes a call."""

    def emit(context, builder, sig, args):
        zero = ir.Constant(ir.IntType(pointer.dtype.bitwidth), 0)
        return builder.bitcast(hidden(builder, zero), context.get_value_type(pointer.dtype))

    return pointer.dtype(pointer), emit


@intrinsic
def after(typing, x, other):
    """The vector ``x``, of which nothing is computed before there is the ``other`` one, if registers are few.

    It costs no instruction, and the processor need not wait: it only keeps the compiler from taking the steps of two
    computations in turns, between which their numbers would not fit into the registers.
    """

    def emit(context, builder, sig, args):
        if not FEW_REGISTERS:
            return args[0]
        parts = []
        count = REGISTER_BITS // x.element.bitwidth
        for first in range(0, x.count, count):
            places = ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
            registers = [builder.shuffle_vector(arg, arg, places) for arg in args]
            kind = ir.FunctionType(registers[0].type, [each.type for each in registers])
            same = builder.asm(kind, "", "=x,0,x", registers, side_effect=False)
            for attribute in ("nounwind", "readnone"):
                same.attributes.add(attribute)
            parts.append(same)
        return joined(builder, parts)

    return x(x, other), emit
