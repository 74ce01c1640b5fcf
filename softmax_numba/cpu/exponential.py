"""exp(x / T), as accurate as its argument: the number is kept as ``p * 2**n`` and only the integers are subtracted.

The textbook form exp(x - max) rounds ``x - max`` to half an ULP of a number that may be 80, and exp turns that into
60 ULP. Here the argument of the *unshifted* x is reduced, exp(x) = p * 2**n with n = round(x / ln 2), and the ratio
exp(x) / 2**n_top is ``p * 2**(n - n_top)``, in which nothing but p was rounded. Subtracting the largest exponent costs
nothing: it sits in the magic number that rounds x / ln 2 to an integer, so that the sum's lowest bits are already the
exponent field of the result.

With a temperature, ln 2 becomes T ln 2 in two parts and the remainder is divided by T at the end: x / T is never
rounded either.

Where a processor looks numbers up in a register, float32 goes by quarters of an octave, n = round(4 x / ln 2), and
beside 2**(n / 4) so little is left of x that two products less will do. The largest error is 0.94 instead of 0.75 ULP;
probabilities of two values whose errors add up stay within 3.8. (By eighths it would be 0.88 and 3.9, but looking
those up takes two instructions, of the units that multiply: measured on a Zen 3, sweeps by quarters take 0.91 to 0.99
of the time, and by octaves 1.03 to 1.1.)

Sources: Cody and Waite, *Software Manual for the Elementary Functions* (1980), the reduction in two constants; Tang,
"Table-driven implementation of the exponential function in IEEE floating-point arithmetic" (1989), the steps; Dukhan
and Ablavatski, "Two-Pass Softmax Algorithm" (2020), the exponent kept apart. The polynomials are minimax approximations
of (exp(r) - 1 - r) / r**2 on abs(r) <= half a step of ln(2) or ln(2) / 4, good to 0.05 (float32), 0.09 (by quarters)
and 0.15 ULP (float64); tests/test_exponential.py measures them.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.hidden import after, unknown
from softmax_numba.cpu.host import FEW_REGISTERS, PERMUTES
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.powers import QUARTERS, exponent_of, power_of_quarters
from softmax_numba.cpu.simd import Vector, fma, larger, magnitude, select, times, vector_of
from softmax_numba.cpu.wide import half, joined_two


class Format(NamedTuple):
    """What the reduction needs to know of a floating-point type, each field a number of that type."""

    steps_in_octave: float
    log2_e: float  # log2(e) and ln(2), of steps
    ln2_high: float
    ln2_low: float
    # Adding and subtracting it rounds to an integer, which then stands in the lowest bits; to an octave of steps.
    round_to_integer: float
    round_to_octave: float
    # The first, plus the steps to 2**HEADROOM from where the exponent field is 0.
    exponent_field: float
    # Up to so many steps all sums of them are exact; beyond, the lane is shifted by its maximum first.
    reach: float
    # The smallest normal exponent, and a power of two so small that as many as memory holds come to nothing: it is the
    # product of two normal numbers.
    least_exponent: int
    vanished: int


# Exponentials are kept multiplied by 2**headroom: room for 2**-150 (2**-1075) below the maximum without
# subnormal numbers on the way, so that the results underflow gradually in the last product.
_LN2, _LOG2_E = math.log(2), math.log2(math.e)
_ROUND32, _ROUND64 = 1.5 * 2.0**23, 1.5 * 2.0**52
LN2_LOW = float.fromhex("0x1.ABC9E3B39803Fp-56")  # ln(2) - float64(ln(2))


def _float32(steps):
    """The :class:`Format` of float32 with so many steps to an octave."""
    return Format(
        steps_in_octave=np.float32(steps),
        log2_e=np.float32(steps * _LOG2_E),
        ln2_high=np.float32(_LN2 / steps),
        ln2_low=np.float32((_LN2 - float(np.float32(_LN2))) / steps),
        round_to_integer=np.float32(_ROUND32),
        round_to_octave=np.float32(steps * _ROUND32),
        exponent_field=np.float32(_ROUND32 + steps * (127 + 30)),
        reach=np.float32(2.0**20),
        least_exponent=-126,
        vanished=-252,
    )


_BY_OCTAVES = _float32(1)
_FLOAT32 = _float32(QUARTERS) if PERMUTES else _BY_OCTAVES
_FLOAT64 = Format(
    steps_in_octave=1.0,
    log2_e=_LOG2_E,
    ln2_high=_LN2,
    ln2_low=LN2_LOW,
    round_to_integer=_ROUND64,
    round_to_octave=_ROUND64,
    exponent_field=_ROUND64 + 1023 + 64,
    reach=2.0**40,
    least_exponent=-1022,
    vanished=-2044,
)


def hexadecimal(kind, digits):
    """Numbers of type ``kind`` from C's notation, which shows every bit."""
    return tuple(kind(float.fromhex(number)) for number in digits.split())


# (exp(r) - 1 - r) / r**2, the constant coefficient first
_Q32_QUARTERS = hexadecimal(np.float32, "0x1.000006p-1 0x1.5571E2p-3 0x1.552110p-5")
_Q32_OCTAVES = hexadecimal(np.float32, "0x1.FFFFFCp-2 0x1.555492p-3 0x1.5558F2p-5 0x1.1239E2p-7 0x1.6A2442p-10")
_Q32 = _Q32_QUARTERS if PERMUTES else _Q32_OCTAVES
_Q64 = hexadecimal(
    float,
    "0x1.0000000000001p-1 0x1.5555555555556p-3 0x1.5555555553D68p-5 0x1.11111111109B5p-7 0x1.6C16C17889F40p-10 "
    "0x1.A01A01A7C2F2Ep-13 0x1.A019B9148739Fp-16 0x1.71DE0DB2EAFC6p-19 0x1.28917CA046B86p-22 0x1.AF389EEB9E5E9p-26",
)


def format_of(x):
    """The :class:`Format` of a vector's (or scalar's) type; known to the compiler."""
    raise NotImplementedError("only inside compiled code")


@overload(format_of, jit_options=INLINED)
def _format_of(x):
    element = x.element if isinstance(x, Vector) else x
    if element == types.float32:
        return lambda x: _FLOAT32
    return lambda x: _FLOAT64


class Scale(NamedTuple):
    """The temperature in the forms that the reduction uses, and the polynomial's coefficients."""

    steps_per_one: float  # log2(e) / T, times the steps of an octave
    step_high: float  # its inverse, in two parts
    step_low: float
    inverse: float | None  # 1 / T; None is T == 1
    temperature: float
    terms: tuple


def scale_of(like, temperature):
    """The :class:`Scale` of a temperature (float64 or None) for values of the type of ``like``."""
    raise NotImplementedError("only inside compiled code")


@overload(scale_of, jit_options=INLINED)
def _scale_of(like, temperature):
    kind, terms = (np.float32, _Q32) if like == types.float32 else (np.float64, _Q64)
    if temperature == types.none:

        def natural(like, temperature):
            f = format_of(like)
            return Scale(f.log2_e, f.ln2_high, f.ln2_low, None, 1.0, terms)

        return natural

    def tempered(like, temperature):
        f = format_of(like)
        octave = temperature * _LN2
        below = fma(temperature, _LN2, -octave) + temperature * LN2_LOW
        high = kind(octave)
        low = kind((octave - np.float64(high)) + below)
        steps = kind(_LOG2_E / temperature) * f.steps_in_octave
        return Scale(
            steps, high / f.steps_in_octave, low / f.steps_in_octave, kind(1.0 / temperature), temperature, terms
        )

    return tempered


@inlined
def held(scale):
    """The same, for a loop over values of float32: where registers are few, the compiler makes constants anew for every
    four vectors, but leaves numbers that it does not know on the stack."""
    high, low = unknown(scale.step_high), unknown(scale.step_low)
    return Scale(unknown(scale.steps_per_one), high, low, scale.inverse, scale.temperature, unknown(scale.terms))


def exp_of_parts(biased, r, terms):
    """``2**(k / steps_in_octave - bias) * exp(r)`` for a sum whose lowest bits hold k, and at most half a step r."""
    raise NotImplementedError("only inside compiled code")


@overload(exp_of_parts, jit_options=INLINED)
def _exp_of_parts(biased, r, terms):
    element = r.element if isinstance(r, Vector) else r
    if element == types.float32 and PERMUTES:

        def exp_float32_by_quarters(biased, r, terms):
            c0, c1, c2 = terms
            power = power_of_quarters(biased)
            return fma(fma(fma(fma(r, c2, c1), r, c0), r * r, r), power, power)

        return exp_float32_by_quarters

    # By Horner's scheme to its end: beside r + r**2 q + 1, one operation less and an error of 0.87 ULP for 1.0.
    if element == types.float32:

        def exp_float32(biased, r, terms):
            c0, c1, c2, c3, c4 = terms
            q = fma(fma(fma(fma(r, c4, c3), r, c2), r, c1), r, c0)
            return fma(fma(q, r, np.float32(1)), r, np.float32(1)) * exponent_of(biased)

        return exp_float32

    def exp_float64(biased, r, terms):
        d0, d1, d2, d3, d4, d5, d6, d7, d8, d9 = terms
        q = fma(fma(fma(fma(r, d9, d8), r, d7), r, d6), r, d5)
        q = fma(fma(fma(fma(fma(q, r, d4), r, d3), r, d2), r, d1), r, d0)
        return fma(fma(q, r, 1.0), r, 1.0) * exponent_of(biased)

    return exp_float64


class Reference(NamedTuple):
    """What the exponentials of one block are relative to: exp(shift / T) * 2**exponent."""

    shift: float
    exponent: float
    magic: float
    floor: float  # what lies below counts as nothing


@inlined
def reference(top, scale):
    """The :class:`Reference` of values none of which exceeds ``top``; an infinite ``top`` makes the results NaN."""
    f = format_of(top)
    within = magnitude(top * scale.steps_per_one) < f.reach
    shift = select(within, 0.0, top)
    steps = fma(select(within, top, 0.0), scale.steps_per_one, f.round_to_octave) - f.round_to_octave
    magic = f.exponent_field - steps
    # The middle of the step with which the exponent field is 0, and a field of 0 is the number 0.
    return Reference(shift, steps / f.steps_in_octave, magic, (f.round_to_integer - magic) * scale.step_high)


@inlined
def _exp_relative(x, ref, scale):
    x = larger(x - ref.shift, ref.floor)
    biased = fma(x, scale.steps_per_one, ref.magic)
    n = biased - ref.magic
    r = fma(n, -scale.step_low, fma(n, -scale.step_high, x))
    return exp_of_parts(biased, times(r, scale.inverse), scale.terms)


def exp_relative(x, ref, scale):
    """exp(x / T) relative to ``ref``, times 2**headroom; exactly 0 where no result could tell it from 0."""
    raise NotImplementedError("only inside compiled code")


@overload(exp_relative, jit_options=INLINED)
def _exp_relative_of(x, ref, scale):
    if (
        FEW_REGISTERS
        and isinstance(x, Vector)
        and x.element == types.float32
        and x.count > 2 * vector_of(x.element).count
    ):
        # Both at once would go over the registers: measured, 1.03x to 1.1x. One vector after the other leaves a
        # processor too little to do while it waits.
        def in_turn(x, ref, scale):
            first = _exp_relative(half(x, 0), half(ref, 0), half(scale, 0))
            return joined_two(first, _exp_relative(after(half(x, 1), first), half(ref, 1), half(scale, 1)))

        return in_turn
    return lambda x, ref, scale: _exp_relative(x, ref, scale)
