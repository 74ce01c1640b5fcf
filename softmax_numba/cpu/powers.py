"""Powers of two made of bits: a sum with a magic number holds an integer k in its lowest bits, and becomes 2**k."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.simd import I32, I64, Vector, element_of, joined, llvm_of, repeat, split


@intrinsic
def exponent_of(typing, x):
    """``2**(k - bias)`` for a float whose lowest bits hold the biased exponent k (a magic-number sum)."""
    bits, digits = {types.float32: (32, 23), types.float64: (64, 52)}[element_of(x)]

    def emit(context, builder, sig, args):
        integers, shift = ir.IntType(bits), digits
        if isinstance(x, Vector):
            integers = ir.VectorType(integers, x.count)
            shift = [digits] * x.count
        shifted = builder.shl(builder.bitcast(args[0], integers), ir.Constant(integers, shift))
        return builder.bitcast(shifted, llvm_of(x))

    return x(x), emit


QUARTERS = 4  # of an octave: as many as 128 bits hold numbers of 32
# 2**(j / 4) to float32 without its exponent, and less what j adds once it is shifted to where whole octaves stand.
_TABLE = [int(np.float32(2.0 ** (j / QUARTERS)).view(np.int32)) - (127 << 23) - (j << 21) for j in range(QUARTERS)]


def _looked_up(builder, places):
    """The number of the table for each of a vector's integers, of which the lowest bits count."""
    count = places.type.count
    if count > REGISTER_BITS // 32:
        return joined(builder, [_looked_up(builder, part) for part in split(builder, places)])
    name = {8: "llvm.x86.avx.vpermilvar.ps.256", 16: "llvm.x86.avx512.vpermilvar.ps.512"}[count]
    floats = ir.VectorType(ir.FloatType(), count)
    table = builder.bitcast(ir.Constant(places.type, _TABLE * (count // QUARTERS)), floats)
    kind = ir.FunctionType(floats, [floats, places.type])
    found = builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [table, places])
    return builder.bitcast(found, places.type)


@intrinsic
def power_of_quarters(typing, x):
    """``2**(k / 4 - bias)``, within 0.32 ULP, for float32 whose lowest bits hold the biased k (a magic-number sum).

    It is 0 for a k of 0. For 1 to 3, where that is subnormal, it is a smaller subnormal number: no result shows it.
    """

    def emit(context, builder, sig, args):
        if isinstance(x, Vector):
            k = builder.bitcast(args[0], ir.VectorType(I32, x.count))
            quarters, shift = _looked_up(builder, k), repeat(k.type, 21)
        else:
            k, shift = builder.bitcast(args[0], I32), ir.Constant(I32, 21)
            table = cgutils.global_constant(builder, "quarters", ir.Constant(ir.ArrayType(I32, QUARTERS), _TABLE))
            place = builder.zext(builder.and_(k, ir.Constant(I32, QUARTERS - 1)), I64)
            quarters = builder.load(builder.gep(table, [ir.Constant(I64, 0), place]))
        return builder.bitcast(builder.add(quarters, builder.shl(k, shift)), llvm_of(x))

    return x(x), emit
