"""log of a lane's sum, as accurate near 0 as anywhere.

The sum comes as ``ties + rest``: how often the largest term stands in it, and everything else. Both are divided by the
sum's power of two, which is exact, and 1 is subtracted from the ties before the rest is added: nothing of that is lost,
so that log(1 + 1e-30) is 1e-30: log1p without a branch, for one number or eight.

Source: the reduction of fdlibm's ``e_log.c`` (Sun Microsystems, 1993), log(1 + f) = 2 s + s z P(z) with s = f / (2 + f)
and z = s**2 on sqrt(1/2) <= 1 + f < sqrt(2). P is fitted anew, good to 0.04 ULP; tests/test_logarithm.py measures it.
For lanes of float32 values a shorter P (2**-35) does, and quotients that are as good as that (:func:`inverses`); there
the rest comes in units of the largest term, the sum's power of two is told from bits, and 2/3 < 1 + f < 3/2.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.exponential import LN2_LOW, hexadecimal
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.simd import Vector, fma, narrowed, widened

_LN2 = math.log(2)
_P = hexadecimal(
    float,
    "0x1.5555555555558p-1 0x1.99999999952CCp-2 0x1.2492492DF3BA9p-2 0x1.C71C62E26208Bp-3 0x1.7462B58E46EBEp-3 "
    "0x1.39FE42E9740A7p-3 0x1.2B59B713616C9p-3",
)
_P_FLOAT32 = hexadecimal(float, "0x1.5555541c49b38p-1 0x1.999be4376f96bp-2 0x1.23e7f8ee3c58dp-2 0x1.edbdb0e487f41p-3")
_SQRT_HALF, _ONE = 0x3FE6A09E667F3BCD, 0x3FF0000000000000  # their bits
_INTEGERS = 0x4330000000000000  # those of 2**52, whose lowest count up integers


@intrinsic
def octaves(typing, x):
    """``(k, 2**-k)`` with sqrt(1/2) <= x * 2**-k < sqrt(2), for positive normal float64."""

    def emit(context, builder, sig, args):
        integer, floating = ir.IntType(64), ir.DoubleType()

        def constant(value):
            return ir.Constant(integers, [value] * x.count if isinstance(x, Vector) else value)

        integers, floats = integer, floating
        if isinstance(x, Vector):
            integers, floats = ir.VectorType(integer, x.count), ir.VectorType(floating, x.count)
        pattern = builder.bitcast(args[0], integers)
        k = builder.ashr(builder.sub(pattern, constant(_SQRT_HALF)), constant(52))
        down = builder.bitcast(builder.sub(constant(_ONE), builder.shl(k, constant(52))), floats)
        return context.make_tuple(builder, sig.return_type, [builder.sitofp(k, floats), down])

    return types.UniTuple(x, 2)(x), emit


@inlined
def _reduced(ties, rest):
    """``(k, f)`` with ties + rest = (1 + f) * 2**k."""
    k, down = octaves(ties + rest)
    return k, fma(rest, down, fma(ties, down, -1.0))


@inlined
def log_of_sum(ties, rest):
    """log(ties + rest) for float64 ``ties`` >= 1 and ``rest`` >= 0; NaN where the sum is NaN."""
    k, f = _reduced(ties, rest)
    s = f / (f + 2.0)
    q = s * s
    p = fma(fma(fma(fma(fma(fma(q, _P[6], _P[5]), q, _P[4]), q, _P[3]), q, _P[2]), q, _P[1]), q, _P[0])
    return fma(k, _LN2, fma(s * q, p, s + s) + k * LN2_LOW)


@inlined
def inverses(low, high):
    """1 / x of two float64 vectors within 2**-45, whose values are normal in float32, too: a division there takes half
    as long as one of the two, and a step of Newton's method doubles the digits."""
    x, y = widened(np.float32(1) / narrowed(low, high))
    return fma(fma(-low, x, 1.0), x, x), fma(fma(-high, y, 1.0), y, y)


@intrinsic
def octaves_between(typing, total, unit):
    """``(k, 2**k)`` with 2/3 < total / unit * 2**-k < 3/2, nearly, for vectors of positive normal float64, ``total``
    not the smaller one: the bits of a floating-point number are its logarithm, but for at most 0.086 of an octave."""

    def emit(context, builder, sig, args):
        integers = ir.VectorType(ir.IntType(64), total.count)

        def constant(value):
            return ir.Constant(integers, [value] * total.count)

        of_total, of_unit = (builder.bitcast(arg, integers) for arg in args)
        apart = builder.add(builder.sub(of_total, of_unit), constant(1 << 51))
        digits = builder.or_(builder.lshr(apart, constant(52)), constant(_INTEGERS))
        k = builder.fsub(builder.bitcast(digits, total.llvm), ir.Constant(total.llvm, [2.0**52] * total.count))
        power = builder.add(builder.and_(apart, constant(-1 << 52)), constant(_ONE))
        return context.make_tuple(builder, sig.return_type, [k, builder.bitcast(power, total.llvm)])

    return types.UniTuple(total, 2)(total, unit), emit


@inlined
def _quotient(ties, unit, rest):
    """``(k, n, d)`` with ties + rest / unit = (1 + f) * 2**k and f / (2 + f) = n / d."""
    k, power = octaves_between(fma(ties, unit, rest), unit)
    return k, fma(ties - power, unit, rest), fma(ties + power, unit, rest)


@inlined
def _log_of_quotient(k, s):
    q = s * s
    p = fma(fma(fma(q, _P_FLOAT32[3], _P_FLOAT32[2]), q, _P_FLOAT32[1]), q, _P_FLOAT32[0])
    return fma(k, _LN2, s * fma(p, q, 2.0))


@inlined
def logs_of_sums(ties, unit, rest):
    """log(ties + rest / unit) of pairs of vectors, within 2**-34, by a single division."""
    k0, n0, d0 = _quotient(ties[0], unit[0], rest[0])
    k1, n1, d1 = _quotient(ties[1], unit[1], rest[1])
    inverse_0, inverse_1 = inverses(d0, d1)
    return _log_of_quotient(k0, n0 * inverse_0), _log_of_quotient(k1, n1 * inverse_1)
