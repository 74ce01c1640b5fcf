"""The tiles of the sweep along columns: neighbouring lanes in the second cache, vector by vector of them.

A tile is filled line by line, one value of each lane to a line, so that memory is walked in whole cache lines; in the
tile the values of one vector of lanes stand one after the other, in the compute dtype, masked-out ones as -inf.
"""

from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    filled,
    load_first,
    mask_first,
    moved,
    number_at,
    prefetch,
    put,
    store,
    stored_size,
    width_of,
)
from softmax_numba.cpu.scales import Scales
from softmax_numba.cpu.simd import select
from softmax_numba.cpu.wide import load_wide, store_apart

# A tile is as wide as a page of memory, so that memory is walked in long steps, if it fits the second cache.
TILE_BYTES, MOST_VECTORS = 2**20, 64
AHEAD_BYTES = 2**14


@inlined
def vectors_in_tile(length, across, width):
    """How many of ``across`` vectors of neighbouring lanes a tile has, so that all tiles have about as many."""
    most = max(1, min(MOST_VECTORS, TILE_BYTES // (64 * min(length, BLOCK) + 1)))
    tiles = (across + most - 1) // most
    return (across + tiles - 1) // tiles


def vectors_across(inner: int, itemsize: int) -> int:
    """How many vectors of neighbouring lanes there are, for the caller of a sweep: what its shares are counted in."""
    return -(-inner // (8 if itemsize == 8 else 16))


class Tile(NamedTuple):
    """Where a tile is, and the buffers that it passes through, all pointers."""

    o: int
    j: int
    lanes: int
    values: object  # a block of every vector of lanes, one after the other
    pitch: int  # numbers from one vector's block to the next one's
    scales: Scales  # the lanes' temperatures
    line: object  # one value of each lane in the stored type, where they do not lie side by side
    terms: object  # room for the exponentials of a chunk, where the tile keeps the values
    slots: object  # room for a running sum a slot


@inlined
def _spread_line(p, tile, row):
    """Copies one value of each lane, which lie side by side at ``p``, to the lanes' vectors."""
    width = width_of(tile.values)
    at = moved(tile.values, row * width)
    k = 0
    while k + 4 * width <= tile.lanes:
        store_apart(at, 0, tile.pitch, load_wide(p, k, 4))
        at = moved(at, 4 * tile.pitch)
        k += 4 * width
    while k < tile.lanes:
        store(at, 0, load_first(p, k, tile.lanes - k))
        at = moved(at, tile.pitch)
        k += width


@inlined
def _spread_masked_line(p, m, tile, row):
    """The same with a mask at ``m``."""
    width = width_of(tile.values)
    at = moved(tile.values, row * width)
    nothing = filled(tile.values, -np.inf)
    for k in range(0, tile.lanes, width):
        left = tile.lanes - k
        store(at, 0, select(mask_first(m, k, left, nothing), load_first(p, k, left), nothing))
        at = moved(at, tile.pitch)


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
            _spread_masked_line(place(x, tile.o, i, tile.j), place(mask, tile.o, i, tile.j), tile, row)
            return
        direct = False
    p = tile.line
    if direct:
        p = place(x, tile.o, i, tile.j)
    else:
        _gather_line(x, mask, tile, i)
    _spread_line(p, tile, row)


@inlined
def read_block(x, mask, tile, start, count, ahead):
    """Copies a block of every lane into the tile, up to a whole number of quads.

    So many lines ahead memory is asked for more, unless that is 0.
    """
    width = width_of(tile.values)
    for i in range(count):
        _read_line(x, mask, tile, start + i, i)
        if ahead > 0:
            later = place(x, tile.o, start + i + ahead, tile.j)
            for k in range(0, tile.lanes, LINE_BYTES // stored_size(later)):
                prefetch(later, k)
    for i in range(count, (count + 3) & ~3):
        for k in range(0, tile.lanes, width):
            store(tile.values, k // width * tile.pitch + i * width, filled(tile.values, -np.inf))


@inlined
def lines_ahead(lanes, itemsize):
    """How many lines of so many lanes memory should be asked for in advance: no prefetcher follows such steps."""
    return AHEAD_BYTES // (lanes * itemsize) + 1
