"""How sweeps get at a lane's values, its mask and its temperature, whatever the strides.

Where values lie side by side, and nothing is masked, a sweep reads and writes them in place; otherwise they pass
through a small buffer in the cache, in their stored type, masked-out ones as -inf.
"""

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.memory import minus_infinity, place, pointer_to, put
from softmax_numba.cpu.simd import INLINED, inlined


def temperature_of(temperature, o, j):
    """The lane's temperature, or None where the call has none."""
    raise NotImplementedError("only inside compiled code")


@overload(temperature_of, jit_options=INLINED)
def _temperature_of(temperature, o, j):
    if temperature == types.none:
        return lambda temperature, o, j: None
    return lambda temperature, o, j: temperature[o, j]


@inlined
def row_at(x, mask, o, start, j, count, stage):
    """A pointer to ``x[o, start:start+count, j]`` side by side, and how many of the values take part."""
    left = count
    if mask is None:
        if x.strides[1] == x.itemsize:
            return place(x, o, start, j), left
        for i in range(count):
            stage[i] = x[o, start + i, j]
    else:
        left = 0
        nothing = minus_infinity(x)
        for i in range(count):
            takes_part = mask[o, start + i, j]
            stage[i] = x[o, start + i, j] if takes_part else nothing
            left += takes_part
    return pointer_to(stage.ctypes.data, stage), left


def takes_part(mask, o, j):
    """How many values of a lane a mask leaves, 1 standing for all of them where there is no mask."""
    raise NotImplementedError("only inside compiled code")


@overload(takes_part, jit_options=INLINED)
def _takes_part(mask, o, j):
    if mask == types.none:
        return lambda mask, o, j: 1

    def count(mask, o, j):
        left = 0
        for i in range(mask.shape[1]):
            left += mask[o, i, j]
        return left

    return count


def hide(mask, out, o, j, result, hidden):
    """Writes what stands at masked-out places of a lane that is all NaN; elsewhere it stands there already."""
    raise NotImplementedError("only inside compiled code")


@overload(hide, jit_options=INLINED)
def _hide(mask, out, o, j, result, hidden):
    if mask == types.none:
        return lambda mask, out, o, j, result, hidden: None

    def hide_masked(mask, out, o, j, result, hidden):
        if not np.isfinite(result):
            for i in range(mask.shape[1]):
                if not mask[o, i, j]:
                    put(place(out, o, i, j), 0, hidden)

    return hide_masked


@inlined
def apart(x, out):
    """Whether two arrays (not empty) share no memory."""
    low = high = x.ctypes.data
    for axis in range(x.ndim):
        span = (x.shape[axis] - 1) * x.strides[axis]
        low, high = low + min(span, 0), high + max(span, 0)
    first = last = out.ctypes.data
    for axis in range(out.ndim):
        span = (out.shape[axis] - 1) * out.strides[axis]
        first, last = first + min(span, 0), last + max(span, 0)
    return high + x.itemsize <= first or last + out.itemsize <= low
