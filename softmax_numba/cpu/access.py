"""How sweeps get at a lane's values, its mask and its temperature, whatever the strides.

Where values lie side by side, and nothing is masked, a sweep reads and writes them in place; otherwise they pass
through a small buffer in the cache, in their stored type, masked-out ones as -inf. A mask or temperature that a call
does not have is None: the compiler then drops every branch that asks for it.
"""

from numba import types
from numba.extending import overload

from softmax_numba.cpu.arrays import minus_infinity, place, start_of
from softmax_numba.cpu.jit import INLINED, inlined
from softmax_numba.cpu.memory import put


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
    return start_of(stage), left


@inlined
def hide(mask, out, o, j, hidden):
    """Writes what stands at masked-out places of a lane that is all NaN; elsewhere it stands there already."""
    for i in range(mask.shape[1]):
        if not mask[o, i, j]:
            put(place(out, o, i, j), 0, hidden)
