"""log of a lane's sum, as accurate near 0 as anywhere.

The sum comes as ``ties + rest``: how often the largest term stands in it, and everything else. What ``ties + rest``
loses by rounding is kept and added as its first-order term, so that log(1 + 1e-30) is 1e-30: log1p without a branch,
for one number or eight.

Source: the reduction of fdlibm's ``e_log.c`` (Sun Microsystems, 1993), log(1 + f) = 2 s + s z P(z) with s = f / (2 + f)
and z = s**2 on sqrt(1/2) <= 1 + f < sqrt(2). P is fitted anew, good to 0.04 ULP; tests/test_logarithm.py measures it.
"""

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.exponential import LN2_LOW, hexadecimal
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.simd import Vector, fma

_LN2 = math.log(2)
_P = hexadecimal(
    float,
    "0x1.5555555555558p-1 0x1.99999999952CCp-2 0x1.2492492DF3BA9p-2 0x1.C71C62E26208Bp-3 0x1.7462B58E46EBEp-3 "
    "0x1.39FE42E9740A7p-3 0x1.2B59B713616C9p-3",
)
_SQRT_HALF = 0x3FE6A09E667F3BCD  # its bits


@intrinsic
def octaves(typing, x):
    """``(k, z)`` with x = z * 2**k and sqrt(1/2) <= z < sqrt(2), for positive normal float64."""

    def emit(context, builder, sig, args):
        integer, floating = ir.IntType(64), ir.DoubleType()

        def constant(value):
            return ir.Constant(integers, [value] * x.count if isinstance(x, Vector) else value)

        integers, floats = integer, floating
        if isinstance(x, Vector):
            integers, floats = ir.VectorType(integer, x.count), ir.VectorType(floating, x.count)
        pattern = builder.bitcast(args[0], integers)
        k = builder.ashr(builder.sub(pattern, constant(_SQRT_HALF)), constant(52))
        z = builder.bitcast(builder.sub(pattern, builder.shl(k, constant(52))), floats)
        return context.make_tuple(builder, sig.return_type, [builder.sitofp(k, floats), z])

    return types.UniTuple(x, 2)(x), emit


@inlined
def log_of_sum(ties, rest):
    """log(ties + rest) for float64 ``ties`` >= 1 and ``rest`` >= 0; NaN where the sum is NaN."""
    total = ties + rest
    larger_part = total - ties
    lost = (ties - (total - larger_part)) + (rest - larger_part)
    k, z = octaves(total)
    f = z - 1.0
    s = f / (f + 2.0)
    q = s * s
    p = fma(fma(fma(fma(fma(fma(q, _P[6], _P[5]), q, _P[4]), q, _P[3]), q, _P[2]), q, _P[1]), q, _P[0])
    small = fma(k, LN2_LOW, lost / total)
    return fma(k, _LN2, fma(s * q, p, s + s) + small) + (total - total)
