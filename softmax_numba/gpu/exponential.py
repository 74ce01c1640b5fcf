"""exp(x / T) as ``p * 2**n``, of which only integers are subtracted: the CPU's reduction by octaves, on one number.

``softmax_numba.cpu.exponential`` tells why and from which sources. The polynomial is kept here too, though the device
has ex2.approx: that is good to 2**-22.5, and two of its errors in one quotient exceed the 4 ULP of the contract. A
lane read once and written once leaves some sixty instructions a float32 value on an H100, of which this takes
fourteen; and made of nothing but fma and integers, it gives the simulator the device's bits.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.cpu.exponential import _BY_OCTAVES, _FLOAT64, _Q32_OCTAVES, _Q64, LN2_LOW
from softmax_numba.gpu.seam import device, exponent_of, fma, reciprocal32, reciprocal64


class Scale(NamedTuple):
    """The temperature in the forms that the reduction uses: log2(e) / T, T ln 2 in two parts, 1 / T."""

    per_octave: Any
    octave_high: Any
    octave_low: Any
    inverse: Any


class Reference(NamedTuple):
    """What exponentials are relative to: exp(shift / T) * 2**exponent."""

    shift: Any
    exponent: Any
    magic: Any
    floor: Any  # what lies below counts as nothing


class Exponential(NamedTuple):
    """The device functions for one compute dtype."""

    reference: Callable
    relative: Callable
    weight: Callable


def scale_of(temperature: float, kind: Any) -> Scale:
    """The :class:`Scale` of one temperature for all lanes, computed on the host in float64."""
    ln2, log2_e = _FLOAT64.ln2_high, _FLOAT64.log2_e
    octave = np.float64(temperature) * ln2
    # Veltkamp and Dekker: what the product's rounding lost.
    split = 134217729.0
    a = (c := split * temperature) - (c - temperature)
    b = (c := split * ln2) - (c - ln2)
    lost = ((a * b - octave) + a * (ln2 - b) + (temperature - a) * b) + (temperature - a) * (ln2 - b)
    below = lost + temperature * LN2_LOW
    high = kind(octave)
    return Scale(kind(log2_e / temperature), high, kind((octave - np.float64(high)) + below), kind(1.0 / temperature))


@functools.cache
def exponential(kind: Any) -> Exponential:
    """The device functions that compute in ``kind`` (np.float32 or np.float64)."""
    f = _BY_OCTAVES if kind is np.float32 else _FLOAT64
    round_to_integer, exponent_field, reach = kind(f.round_to_integer), kind(f.exponent_field), kind(f.reach)
    zero, one, bias = kind(0), kind(1), kind(127 if kind is np.float32 else 1023)
    vanished, least = kind(f.vanished), kind(f.least_exponent)
    reciprocal = reciprocal32 if kind is np.float32 else reciprocal64
    one_factor = kind(-60)
    infinity = kind(np.inf)

    if kind is np.float32:
        c0, c1, c2, c3, c4 = _Q32_OCTAVES

        @device
        def significand(r):
            q = fma(fma(fma(fma(r, c4, c3), r, c2), r, c1), r, c0)
            return fma(fma(q, r, one), r, one)

    else:
        d0, d1, d2, d3, d4, d5, d6, d7, d8, d9 = map(kind, _Q64)

        @device
        def significand(r):
            q = fma(fma(fma(fma(r, d9, d8), r, d7), r, d6), r, d5)
            q = fma(fma(fma(fma(fma(q, r, d4), r, d3), r, d2), r, d1), r, d0)
            return fma(fma(q, r, one), r, one)

    @device
    def reference(top, scale):
        """Of values none of which exceeds ``top``; an infinite ``top`` makes their exponentials NaN."""
        if top == -infinity:
            top = zero
        within = abs(top * scale.per_octave) < reach
        shift = zero if within else top
        exponent = fma(top if within else zero, scale.per_octave, round_to_integer) - round_to_integer
        magic = exponent_field - exponent
        return Reference(shift, exponent, magic, (round_to_integer - magic) * scale.octave_high)

    @device
    def relative(x, ref, scale):
        """exp(x / T) relative to ``ref``, times 2**headroom; exactly 0 where no result could tell it from 0."""
        x = x - ref.shift
        if x < ref.floor:  # a NaN stays
            x = ref.floor
        biased = fma(x, scale.per_octave, ref.magic)
        n = biased - ref.magic
        r = fma(n, -scale.octave_low, fma(n, -scale.octave_high, x))
        return significand(r * scale.inverse) * exponent_of(biased)

    @device
    def power_of_two(n):
        """2**n for an integer of a normal power."""
        return exponent_of(n + (round_to_integer + bias))

    @device
    def weight(top, peak, scale):
        """What exponentials relative to ``top`` count relative to ``peak``: the product of two factors.

        A power of two, hence exact, but for lanes that are shifted by their maximum. As two factors, no product of
        an exponential with the first is subnormal unless the result is 0.
        """
        first, second = one, one
        if top != peak:
            part, whole = reference(top, scale), reference(peak, scale)
            if part.shift == zero and whole.shift == zero:
                n = part.exponent - whole.exponent
                if n < vanished:
                    n = vanished
                if n >= one_factor:
                    second = power_of_two(n)
                else:
                    n_first = n if n > least else least
                    first = power_of_two(n_first)
                    second = power_of_two(n - n_first)
            else:
                first = relative(top, whole, scale) * reciprocal(relative(top, part, scale))
            if top == -infinity:
                first = zero
        return first, second

    return Exponential(reference, relative, weight)
