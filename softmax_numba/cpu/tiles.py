"""The tiles of the sweep along columns: neighbouring lanes in the second cache, vector by vector of them.

A tile is filled line by line, one value of each lane to a line, so that memory is walked in whole cache lines; in the
tile they stand in lines, too, in the compute dtype, masked-out ones as -inf.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.inlining import INLINED, for_both, inlined
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.memory import (
    filled,
    load_first,
    mask_first,
    moved,
    number_at,
    put,
    store,
    width_of,
)
from softmax_numba.cpu.scales import Scales
from softmax_numba.cpu.simd import select
from softmax_numba.cpu.wide import load_wide

# A tile is as wide as a page of memory, so that memory is walked in long steps, if it fits the second cache.
TILE_BYTES, MOST_VECTORS = 2**18, 64


@inlined
def vectors_in_tile(length, across, width):
    """How many of ``across`` vectors of neighbouring lanes a tile has, so that all tiles have about as many."""
    most = max(1, min(MOST_VECTORS, TILE_BYTES // (64 * min(length, BLOCK) + 1)))
    tiles = (across + most - 1) // most
    return (across + tiles - 1) // tiles


@for_both
def vectors_across(inner: int, itemsize: int) -> int:
    """How many vectors of neighbouring lanes there are, for the caller of a sweep: what its shares are counted in."""
    return -(-inner // (8 if itemsize == 8 else 16))


class Tile(NamedTuple):
    """Where a tile is, and the buffers that it passes through, all pointers."""

    o: int
    j: int
    lanes: int
    values: object
    across: int  # numbers from one vector of lanes to the next
    down: int  # from one value of a lane to the next
    scales: Scales  # the lanes' temperatures
    line: object  # one value of each lane in the stored type, where they do not lie side by side
    terms: object  # room for the exponentials of a chunk, where the tile keeps the values
    slots: object  # room for a running sum a slot


@inlined
def _copy_line(p, tile, row):
    """Copies one value of each lane, which lie side by side at ``p``."""
    width = width_of(tile.values)
    at, k = moved(tile.values, row * tile.down), 0
    while k + 4 * width <= tile.lanes:
        store(at, k, load_wide(p, k, 4))
        k += 4 * width
    while k < tile.lanes:
        store(at, k, load_first(p, k, tile.lanes - k))
        k += width


@inlined
def _copy_masked_line(p, m, tile, row):
    """The same with a mask at ``m``."""
    width = width_of(tile.values)
    at, nothing = moved(tile.values, row * tile.down), filled(tile.values, -np.inf)
    for k in range(0, tile.lanes, width):
        left = tile.lanes - k
        store(at, k, select(mask_first(m, k, left, nothing), load_first(p, k, left), nothing))


@inlined
def _gather_line(x, mask, tile, i):
    """Copies one value of each lane, any strides apart, to the tile's ``line``."""
    for k in range(tile.lanes):
        put(tile.line, k, number_at(place(x, tile.o, i, tile.j + k), 0))
        if mask is not None and not mask[tile.o, i, tile.j + k]:
            put(tile.line, k, -np.inf)


@inlined
def _read_line(x, mask, tile, i, row):
    """Copies value ``i`` of each lane into row ``row`` of the tile, masked-out ones as -inf."""
    direct = x.strides[2] == x.itemsize
    if mask is not None:
        if direct and mask.strides[2] == 1:
            _copy_masked_line(place(x, tile.o, i, tile.j), place(mask, tile.o, i, tile.j), tile, row)
            return
        direct = False
    p = tile.line
    if direct:
        p = place(x, tile.o, i, tile.j)
    else:
        _gather_line(x, mask, tile, i)
    _copy_line(p, tile, row)


@inlined
def read_block(x, mask, tile, start, count):
    """Copies a block of every lane into the tile, up to a whole number of quads."""
    width = width_of(tile.values)
    for i in range(count):
        _read_line(x, mask, tile, start + i, i)
    for i in range(count, (count + 3) & ~3):
        for k in range(0, tile.lanes, width):
            store(tile.values, i * tile.down + k, filled(tile.values, -np.inf))


@inlined
def lies_in_lines(x, mask):
    """Whether the values of neighbouring lanes are neighbours, and what the mask says of them, too."""
    if mask is None:
        return x.strides[2] == x.itemsize
    return x.strides[2] == x.itemsize and mask.strides[2] == 1


def line_at(mask, o, j):
    """Where the first line of a mask stands, if there is one."""
    raise NotImplementedError("only inside compiled code")


@overload(line_at, jit_options=INLINED)
def _line_at(mask, o, j):
    if mask == types.none:
        return lambda mask, o, j: None
    return lambda mask, o, j: place(mask, o, 0, j)


@inlined
def line_step_of(mask):
    """How far it is from one line of a mask to the next."""
    if mask is None:
        return 0
    return mask.strides[1]
