"""How sweeps get at a lane's values, its mask and its temperature, whatever the strides.

Where values lie side by side, and nothing is masked, a sweep reads and writes them in place; otherwise they pass
through a small buffer in the cache, in their stored type, masked-out ones as -inf.
"""

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.memory import minus_infinity, pointer_to, put
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
            return pointer_to(_address(x, o, start, j), x), left
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


@inlined
def across(x, mask, o, i, j, lanes, stage):
    """A pointer to ``x[o, i, j:j+lanes]`` side by side."""
    if mask is None:
        if x.strides[2] == x.itemsize:
            return pointer_to(_address(x, o, i, j), x)
        for k in range(lanes):
            stage[k] = x[o, i, j + k]
    else:
        nothing = minus_infinity(x)
        for k in range(lanes):
            stage[k] = x[o, i, j + k] if mask[o, i, j + k] else nothing
    return pointer_to(stage.ctypes.data, stage)


@inlined
def place(out, o, i, j):
    """A pointer to ``out[o, i, j]``."""
    return pointer_to(_address(out, o, i, j), out)


@inlined
def _address(array, o, i, j):
    return array.ctypes.data + o * array.strides[0] + i * array.strides[1] + j * array.strides[2]


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
def _extent(array):
    """The address of an array's first byte, and that behind its last one."""
    low = high = array.ctypes.data
    for axis in range(array.ndim):
        span = (array.shape[axis] - 1) * array.strides[axis]
        low += min(span, 0)
        high += max(span, 0)
    return low, high + array.itemsize


@inlined
def apart(x, out):
    """Whether two arrays (not empty) share no memory."""
    low, high = _extent(x)
    first, last = _extent(out)
    return high <= first or last <= low


@inlined
def same_places(x, out):
    """Whether two arrays of one shape and dtype are the same values in memory."""
    same = x.ctypes.data == out.ctypes.data
    for axis in range(x.ndim):
        same = same and x.strides[axis] == out.strides[axis]
    return same
