"""Any shape, strides and axis as lanes (outer, length, inner), in compiled code: what lanes.py does, without a copy."""

from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.compiled import address_of_body, once
from softmax_numba.cpu.jit import call_at, compiled
from softmax_numba.cpu.simd import I64

MOST_AXES = 32
# What a fold comes to: whether it is one, the three lengths, and the strides of x and out in bytes.
_FOLD = types.UniTuple(types.intp, 10)


@intrinsic
def entry(typing, address, index):
    """An entry of a shape or of strides, by the address of the first."""

    def emit(context, builder, sig, args):
        return builder.load(builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]]))

    return types.int64(types.int64, types.intp), emit


def _fold(shape, strides, out_strides, axes, along, one_number, itemsize):
    """The axes of x and out, given by the addresses of their shape and strides, with that ``along`` as the lane's.

    The axes with longer strides than the lane's are outside, the others inside, each group from long to short strides,
    as in :func:`softmax_numba.lanes.split`. There is no fold where a group's strides, of x or of out, are not those of
    one axis, or where results would lie one on another.
    """
    length, step, out_step = entry(shape, along), entry(strides, along), itemsize
    if not one_number:
        out_step = entry(out_strides, along)
    if length == 1:
        step = out_step = itemsize
    least = abs(step) if length > 1 else 0
    folded = 0 if out_step == 0 else 1
    outer = inner = 1
    x_outer = out_outer = x_inner = out_inner = itemsize
    left = 0  # axes that are not looked at yet, a bit each
    for axis in range(axes):
        if axis != along and entry(shape, axis) > 1:
            left |= 1 << axis
    while left != 0:
        longest, axis = -1, 0
        for other in range(axes):
            if left >> other & 1 and abs(entry(strides, other)) > longest:
                longest, axis = abs(entry(strides, other)), other
        left &= ~(1 << axis)
        count, x_step = entry(shape, axis), entry(strides, axis)
        out_step_here = entry(out_strides, axis - 1 if one_number and axis > along else axis)
        if out_step_here == 0:
            folded = 0
        elif longest >= least:
            if outer > 1 and (x_outer != count * x_step or out_outer != count * out_step_here):
                folded = 0
            outer, x_outer, out_outer = outer * count, x_step, out_step_here
        else:
            if inner > 1 and (x_inner != count * x_step or out_inner != count * out_step_here):
                folded = 0
            inner, x_inner, out_inner = inner * count, x_step, out_step_here
    return folded, outer, length, inner, x_outer, step, x_inner, out_outer, out_step, out_inner


@once
def address() -> int:
    """Where the machine code of this stands: it is the same for all operations and dtypes."""
    return address_of_body(compiled(_fold, "fold", body=True), "fold", (types.intp,) * 7)


@intrinsic
def fold(typing, address, shape, strides, out_strides, axes, along, one_number, itemsize):
    """Calls it: there is a fold (not 0), outer, length, inner, three strides of x in bytes and three of out."""
    return call_at(_FOLD, address, *[types.intp] * 7)
