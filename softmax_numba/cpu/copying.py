"""The tile of columns that comes next: copied, and looked at for its maxima, while another one is computed.

What is done at once is a quad: four lines of a vector of lanes. The quads go along the lines, so that memory is walked
in long steps, and each takes along what memory is asked for next.
"""

from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import filled, load, load_first, mask_first, moved, prefetch, raise_to, store, width_of
from softmax_numba.cpu.simd import select
from softmax_numba.cpu.tiles import Tile
from softmax_numba.cpu.wide import joined_four, largest_of_quarters, store_apart

AHEAD_BYTES = 2**14


class Share(NamedTuple):
    """A divisor of small numbers."""

    count: int
    inverse: int


@inlined
def shared(count):
    return Share(count, ((1 << 40) + count - 1) // max(count, 1))


@inlined
def quotient(number, share):
    """``number // share.count`` without a division: exact for numbers below 2**33 and divisors up to 128."""
    return (number * share.inverse) >> 40


class Coming(NamedTuple):
    """A tile that is copied quad by quad."""

    tile: Tile
    tops: object  # the lanes' largest values so far
    x: object  # the first value
    step: int  # numbers from a line to the next
    mask: object
    mask_step: int
    count: int  # lines
    quads: int  # that a vector of lanes has
    vectors: Share  # of lanes
    after: object  # the first value of the tile after this one
    ahead: int  # for how many quads of lines memory is asked in advance
    nothing: object  # a vector of -inf, for lines that there are not


@inlined
def coming_tile(tile, tops, x, step, mask, mask_step, count, after, nothing):
    """A tile of which nothing has been copied yet."""
    width = width_of(tile.values)
    for k in range(0, tile.lanes, width):
        store(tops, k, filled(tops, -np.inf))
    vectors, quads = (tile.lanes + width - 1) // width, (count + 3) // 4
    ahead = min(AHEAD_BYTES // (256 * max(vectors, 1)) + 1, quads)
    quads = quads if vectors > 0 else 0
    return Coming(tile, tops, x, step, mask, mask_step, count, quads, shared(vectors), after, ahead, nothing)


@inlined
def _unmasked(mask, step, i, k, left, x, nothing):
    """The values of a vector of lanes, -inf where they are masked out."""
    if mask is None:
        return x
    return select(mask_first(mask, i * step + k, left, nothing), x, nothing)


@inlined
def _line(coming, i, k):
    """A vector of a line, -inf if there is no such line."""
    nothing = load(coming.nothing, 0)
    p = moved(coming.x, i * coming.step + k) if i < coming.count else coming.nothing
    left = width_of(coming.nothing) if i < coming.count else 0
    return _unmasked(coming.mask, coming.mask_step, i, k, left, load(p, 0), nothing)


@inlined
def _first_of_line(coming, i, k, left):
    left = left if i < coming.count else 0
    x = load_first(coming.x, i * coming.step + k, left)
    return _unmasked(coming.mask, coming.mask_step, i, k, left, x, load(coming.nothing, 0))


@inlined
def copy_quad(coming, part):
    """Copies part ``part``, if there is one."""
    q = quotient(part, coming.vectors)
    if q < coming.quads:
        tile, width = coming.tile, width_of(coming.tops)
        i, k = 4 * q, (part - q * coming.vectors.count) * width
        left = tile.lanes - k
        if left >= width:
            x = joined_four(
                _line(coming, i, k), _line(coming, i + 1, k), _line(coming, i + 2, k), _line(coming, i + 3, k)
            )
        else:
            x = joined_four(
                _first_of_line(coming, i, k, left),
                _first_of_line(coming, i + 1, k, left),
                _first_of_line(coming, i + 2, k, left),
                _first_of_line(coming, i + 3, k, left),
            )
        store_apart(tile.values, i * tile.down + k, tile.down, x)
        raise_to(coming.tops, k, largest_of_quarters(x))
        p, q = coming.x, q + coming.ahead
        if q >= coming.quads:
            p, q = coming.after, q - coming.quads
        later = moved(p, 4 * q * coming.step + k)
        for n in range(4):
            prefetch(later, n * coming.step)


@inlined
def finish_copy(coming, done):
    """Copies what is left after so many parts."""
    for part in range(done, coming.quads * coming.vectors.count):
        copy_quad(coming, part)
