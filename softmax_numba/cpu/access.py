"""How sweeps get at a lane's values, its mask and its temperature, whatever the strides.

Where values lie side by side, and nothing is masked, a sweep reads and writes them in place; otherwise they pass
through a small buffer in the cache, in their stored type, masked-out ones as -inf. A mask or temperature that a call
does not have is None: the compiler then drops every branch that asks for it.
"""

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.memory import filled, load_first, mask_first, number_at, put, store, width_of
from softmax_numba.cpu.simd import how_many, select


def temperature_of(temperature, o, j):
    """The lane's temperature, or None where the call has none."""
    raise NotImplementedError("only inside compiled code")


@overload(temperature_of, jit_options=INLINED)
def _temperature_of(temperature, o, j):
    if temperature == types.none:
        return lambda temperature, o, j: None
    return lambda temperature, o, j: temperature[o, j]


@inlined
def _put_masked(p, m, count, stage):
    """Copies values that lie side by side, as does their mask at ``m``; returns how many take part."""
    width, nothing = width_of(stage), filled(stage, -np.inf)
    left = 0
    for i in range(0, count, width):
        part = mask_first(m, i, count - i, nothing)
        store(stage, i, select(part, load_first(p, i, count - i), nothing))
        left += how_many(part)
    return left


@inlined
def row_at(x, mask, o, start, j, count, stage):
    """A pointer to ``x[o, start:start+count, j]`` side by side, and how many of the values take part."""
    left = count
    if x.strides[1] == x.itemsize:
        if mask is None:
            return place(x, o, start, j), left
        elif mask.strides[1] == 1:
            return stage, _put_masked(place(x, o, start, j), place(mask, o, start, j), count, stage)
    for i in range(count):
        put(stage, i, number_at(place(x, o, start + i, j), 0))
        if mask is not None and not mask[o, start + i, j]:
            put(stage, i, -np.inf)
            left -= 1
    return stage, left


@inlined
def hide(mask, out, o, j, hidden):
    """Writes what stands at masked-out places of a lane that is all NaN; elsewhere it stands there already."""
    for i in range(mask.shape[1]):
        if not mask[o, i, j]:
            put(place(out, o, i, j), 0, hidden)
