"""The panel of the sweep along rows: lanes in the caches, one after the other, each filled up to whole vectors.

Whatever the lanes' strides, dtype and mask, in the panel their values lie side by side in the compute dtype; what is
masked out, and what fills up the last vector, is -inf. Lanes that are like that where they stand are read there both
times, as far as they fill fours of vectors, and only their ends are copied: measured on a Zen 3, 1.05x to 1.15x the
speed within the caches.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.memory import (
    filled,
    load,
    load_every_other,
    load_first,
    load_reversed,
    mask_at,
    mask_first,
    number_at,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.simd import how_many, larger, select
from softmax_numba.cpu.wide import filled_wide, largest_of_quarters, load_wide

# How much a panel may take. Half of the smallest first cache in use (32 KB), as the rows themselves pass by, was best
# with registers of 512 bits. With others a share of the second is better, for what is settled of four lanes takes as
# long as of sixteen: measured on a Zen 3, rows of 1000 values 1.04x to 1.11x, of 256 1.02x to 1.05x, of 4000, where
# there is one number of each, 1.04x to 1.05x; with results 0.93x to 1.01x.
NEAR_BYTES = 2**14
PANEL_BYTES = NEAR_BYTES if REGISTER_BITS == 512 else 2**16
LONG_LANE_BYTES = 2**13  # from here on, lanes with results keep to the first cache
# And how many vectors the lanes' maxima may make.
MOST_VECTORS = 4


@inlined
def lanes_in_panel(vectors, width, one_number):
    """How many lanes of ``vectors`` vectors, for which there is one number each or not, are on their way at once."""
    room = PANEL_BYTES if one_number or 64 * vectors <= LONG_LANE_BYTES else NEAR_BYTES
    return max(1, min(MOST_VECTORS * width, room // (64 * vectors)))


@inlined
def vectors_in_lane(length, width):
    """How many vectors a lane has in the panel: 1 to 3, or fours of them and at most one more.

    Two or three vectors after the last four take as long as four: one after the other, 0.94 to 0.97 times as fast.
    """
    vectors = (length + width - 1) // width
    return vectors if vectors <= 3 or vectors & 3 <= 1 else (vectors + 3) & ~3


def read_in_place(x, mask, like):
    """Whether lanes of x (outer, length, inner) are read again where they stand, for numbers like ``like``."""
    raise NotImplementedError("only inside compiled code")


@overload(read_in_place, jit_options=INLINED)
def _read_in_place(x, mask, like):
    if mask != types.none or x.dtype != like:
        return lambda x, mask, like: False
    return lambda x, mask, like: x.strides[1] == x.itemsize and x.shape[2] == 1


class Rows(NamedTuple):
    """Where lanes are read as far as they are not in the panel: in fours of vectors."""

    values: object  # of the first lane
    apart: int  # from one lane to the next
    whole: int  # how many values of a lane


def rows_of(x, first, panel, in_place):
    """The :class:`Rows` of lanes from ``first`` on, which are read ``in_place`` or not."""
    raise NotImplementedError("only inside compiled code")


@overload(rows_of, jit_options=INLINED)
def _rows_of(x, first, panel, in_place):
    if x.dtype != panel.dtype:
        return lambda x, first, panel, in_place: Rows(panel, 0, 0)

    def rows(x, first, panel, in_place):
        many = 4 * width_of(panel)
        if in_place:
            return Rows(place(x, first, 0, 0), x.strides[0] // x.itemsize, (x.shape[1] - 1) // many * many)
        return Rows(panel, 0, 0)

    return rows


@inlined
def _fill_up(panel, begin, vectors):
    """Puts -inf behind a lane's last vector, which ends at ``begin``."""
    width = width_of(panel)
    for i in range(begin, vectors * width, width):
        store(panel, i, filled(panel, -np.inf))


@inlined
def _copy(x, o, j, tail, vectors, panel, in_place):
    """Copies a lane whose values lie side by side, or what is left of it; returns its largest values, a slot each."""
    length, width = x.shape[1], width_of(panel)
    p, last = place(x, o, 0, j), length - tail
    top = load_first(p, last, tail)
    store(panel, last, top)
    if vectors == 1:
        return top
    i = 0
    if last >= 4 * width:
        tops = filled_wide(panel, -np.inf, 4)
        while i + 4 * width <= last:
            wide = load_wide(p, i, 4)
            if not in_place:
                store(panel, i, wide)
            tops = larger(tops, wide)
            i += 4 * width
        top = larger(largest_of_quarters(tops), top)
    while i < last:
        single = load(p, i)
        store(panel, i, single)
        top = larger(top, single)
        i += width
    _fill_up(panel, last + width, vectors)
    return top


@inlined
def _copy_masked(x, mask, o, j, tail, vectors, panel):
    """Copies a lane with a mask; returns its largest values, and how many values take part."""
    length, width = x.shape[1], width_of(panel)
    p, m, last = place(x, o, 0, j), place(mask, o, 0, j), length - tail
    nothing = filled(panel, -np.inf)
    _fill_up(panel, last + width, vectors)
    part = mask_first(m, last, tail, nothing)
    top, left = select(part, load_first(p, last, tail), nothing), how_many(part)
    store(panel, last, top)
    for i in range(0, last, width):
        part = mask_at(m, i, top)
        single = select(part, load(p, i), nothing)
        store(panel, i, single)
        top = larger(top, single)
        left += how_many(part)
    return top, left


@inlined
def _gather(x, mask, o, j, tail, vectors, panel):
    """The same for any strides: one value at a time, but for every second and for reversed ones without a mask."""
    length, width = x.shape[1], width_of(panel)
    top = filled(panel, -np.inf)
    left, first = length, 0
    _fill_up(panel, length - tail, vectors)
    if mask is None:
        last = length - tail  # beyond it there may be no values in between
        if x.strides[1] == 2 * x.itemsize:
            while first < last:
                store(panel, first, load_every_other(place(x, o, first, j), 0))
                first += width
        elif x.strides[1] == -x.itemsize:
            while first < last:
                store(panel, first, load_reversed(place(x, o, first + width - 1, j), 0))
                first += width
    for i in range(first, length):
        put(panel, i, number_at(place(x, o, i, j), 0))
        if mask is not None and not mask[o, i, j]:
            put(panel, i, -np.inf)
            left -= 1
    for i in range(0, length, width):
        top = larger(top, load(panel, i))
    return top, left


@inlined
def read_lane(x, mask, o, j, tail, vectors, panel, in_place):
    """Reads a lane into the panel; returns its largest values, a slot each, and how many values take part.

    ``tail`` is how many values the last vector has. What is read ``in_place`` is not copied.
    """
    if x.strides[1] == x.itemsize:
        if mask is None:
            return _copy(x, o, j, tail, vectors, panel, in_place), x.shape[1]
        elif mask.strides[1] == 1:
            return _copy_masked(x, mask, o, j, tail, vectors, panel)
    return _gather(x, mask, o, j, tail, vectors, panel)
