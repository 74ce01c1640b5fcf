"""The steps of a way back along a row: the sum of a block, added to those before, and a stretch of cotangents.

The sum of a lane of more than one block (lane.py) is that of its blocks' sums, so that threads can share it.
"""

import functools
from typing import NamedTuple

from softmax_numba.cpu.access import row_at
from softmax_numba.cpu.arrays import allocated, place, release
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.memory import (
    filled,
    load,
    load_first,
    moved,
    number_at,
    prefetch,
    put,
    store,
    store_first,
    stored_size,
    stream,
    to_full_vectors,
)
from softmax_numba.cpu.sums import as_total, collapsed, sum_after
from softmax_numba.cpu.vjp_sums import row_sums
from softmax_numba.cpu.wide import load_first_zero, load_wide

# How many numbers ahead a row asks memory for while it is added up. Measured: 1.3x to 1.7x of 4096; of none, level in
# one thread and 1.1x to 1.25x in two.
AHEAD = 256
_SPARE = 64  # bytes, to begin a buffer on a cache line


class Due(NamedTuple):
    """The cotangents of a row that are to be written while the next row is added up."""

    y: object
    dy: object
    out: object
    count: int
    whole: int  # how many of them make up quads
    total: object
    inverse: object
    later: int  # how far on the same place of the next row is, which is asked for meanwhile; 0 if it is not


@functools.cache
def first_term_of(term):
    @inlined
    def first_term(y, dy, i, count):
        return term(load_first_zero(y, i, count, 1), load_first_zero(dy, i, count, 1))

    return first_term


@inlined
def lies_side_by_side(y, dy, out):
    """Whether the values of lanes are read and written in place."""
    return y.strides[1] == y.itemsize and dy.strides[1] == dy.itemsize and out.strides[1] == out.itemsize


@inlined
def stages_for(y, dy, out):
    """Room for a block of each."""
    return allocated(y, BLOCK + _SPARE), allocated(dy, BLOCK + _SPARE), allocated(out, BLOCK + _SPARE)


@inlined
def release_all(stages):
    release(stages[0])  # pointers to several types: no loop
    release(stages[1])
    release(stages[2])


@inlined
def staged(y, dy, o, start, j, count, stage, other):
    """Pointers to a stretch of y and one of dy, side by side."""
    return row_at(y, None, o, start, j, count, stage)[0], row_at(dy, None, o, start, j, count, other)[0]


@inlined
def _no_work(meanwhile, i):
    pass


@functools.cache
def block_sum(steps, width, work=_no_work):
    """Compiles the sum over a stretch of a row; ``work(meanwhile, i)`` is done for each of its quads."""
    wide = 4 * width
    _, with_quad, with_rest = row_sums(steps, width, first_term_of(steps.term))

    @inlined
    def add_up(y, dy, start, end, before, asks, meanwhile):
        """The sum, high and low, of what was ``before`` and a block; it ``asks`` memory for what comes next."""
        zero = filled(y, 0.0)
        total = as_total(zero)
        i = start
        while i + wide <= end:
            total = with_quad(zero, total, y, dy, i)
            if asks:
                for k in range(4):
                    prefetch(y, i + AHEAD + k * width)
                    prefetch(dy, i + AHEAD + k * width)
            work(meanwhile, i)
            i += wide
        return sum_after(before, collapsed(zero, with_rest(zero, total, y, dy, i, end)))

    return add_up


@functools.cache
def row_steps(steps, width, asking_to):
    """Compiles the cotangents of a stretch of a row; rows of up to so many bytes ask for the next."""
    cotangent, wide = steps.cotangent, 4 * width

    @inlined
    def write_quad(due, i, one, past_cache):
        """A quad of what is due, if there is one."""
        if i < due.whole:
            result = cotangent(load_wide(due.y, i, 4), load_wide(due.dy, i, 4), due.total, due.inverse, one)
            if due.later > 0:
                for k in range(i, i + wide, width):
                    prefetch(due.y, k + due.later)
                    prefetch(due.dy, k + due.later)
            if past_cache:
                stream(due.out, i, result)
            else:
                store(due.out, i, result)

    @inlined
    def write_meanwhile(meanwhile, i):
        """The same for :func:`block_sum`."""
        due, one, past_cache = meanwhile
        write_quad(due, i, one, past_cache)

    @inlined
    def due_of(y, dy, count, out, total, inverse, one, asks, past_cache):
        """The cotangents of a row as due: from where :func:`stream` may put them, if it shall; the others are written
        at once."""
        i = 0
        if past_cache:
            i = min(count, to_full_vectors(out))
            if i > 0:
                store_first(out, 0, i, cotangent(load_first(y, 0, i), load_first(dy, 0, i), total, inverse, one))
        count -= i
        later = count + i if asks and (count + i) * stored_size(y) <= asking_to else 0
        return Due(moved(y, i), moved(dy, i), moved(out, i), count, count // wide * wide, total, inverse, later)

    @inlined
    def finish(due, done, one, past_cache):
        """What is due but for the quads before ``done``."""
        i = min(done, due.whole)
        while i < due.whole:
            write_quad(due, i, one, past_cache)
            i += wide
        while i + width <= due.count:
            store(due.out, i, cotangent(load(due.y, i), load(due.dy, i), due.total, due.inverse, one))
            i += width
        if i < due.count:
            given, other = load_first(due.y, i, due.count - i), load_first(due.dy, i, due.count - i)
            store_first(due.out, i, due.count - i, cotangent(given, other, due.total, due.inverse, one))

    @inlined
    def map_piece(y, dy, out, o, start, j, total, inverse, one, stages):
        """The cotangents of a block of a lane, whatever its strides."""
        stage, other, result = stages
        count = min(BLOCK, y.shape[1] - start)
        p, q = staged(y, dy, o, start, j, count, stage, other)
        finish(due_of(p, q, count, result, total, inverse, one, False, False), 0, one, False)
        for i in range(count):
            put(place(out, o, start + i, j), 0, number_at(result, i))

    return write_meanwhile, due_of, finish, map_piece
