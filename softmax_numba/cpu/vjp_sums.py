"""What a row comes to on the ways back, in the order of lane.py: of one row, and of all rows of a tile.

The rows of a tile stand end to end, and their sums are spread over the rows' places, so that what follows takes whole
vectors, whatever rows they are of. Rows of up to four vectors are added up four at once: of up to sixteen values four
places of each row at a time, which is what there are instructions for on any processor.
"""

import functools

import numpy as np

from softmax_numba.cpu.few import (
    as_four,
    first_of,
    load_four,
    rounded_to,
    spread_over_few,
    spread_over_rows,
    sums_of_four,
)
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import filled, load, store
from softmax_numba.cpu.simd import how_many, magnitude
from softmax_numba.cpu.sums import as_total, collapsed, plus


@functools.cache
def row_sums(steps, width, first_term):
    """Compiles the sum over a row of at most four vectors, and the parts of that over any other.

    ``first_term(y, dy, i, count)`` is the term of a vector of which there are ``count`` places, if any.
    """
    term, more, _ = steps

    @inlined
    def term_at(y, dy, i):
        return term(load(y, i), load(dy, i))

    @inlined
    def more_at(before, y, dy, i):
        return more(before, load(y, i), load(dy, i))

    @inlined
    def sum_of_few(zero, y, dy, i, length):
        second, third, fourth, end = i + width, i + 2 * width, i + 3 * width, i + length
        if end <= second:
            return as_total(first_term(y, dy, i, length))
        total = term_at(y, dy, i)
        if end <= third:
            return as_total(plus(zero, total, first_term(y, dy, second, end - second)))
        total = plus(zero, total, term_at(y, dy, second))
        if end <= fourth:
            return as_total(plus(zero, total, first_term(y, dy, third, end - third)))
        rest = plus(zero, term_at(y, dy, third), first_term(y, dy, fourth, end - fourth))
        return as_total(plus(zero, total, rest))

    @inlined
    def with_quad(zero, total, y, dy, i):
        """The running sum and the next four vectors."""
        first = more_at(term_at(y, dy, i), y, dy, i + width)
        second = more_at(term_at(y, dy, i + 2 * width), y, dy, i + 3 * width)
        return plus(zero, total, as_total(plus(zero, first, second)))

    @inlined
    def with_rest(zero, total, y, dy, i, end):
        """The running sum and what is left, if anything: less than four vectors."""
        if i < end:
            return plus(zero, total, sum_of_few(zero, y, dy, i, end - i))
        return total

    return sum_of_few, with_quad, with_rest


# --- of the rows of a tile ------------------------------------------------------------
#
# Each of these compiles ``add_up(y, dy, rows, length, totals)``: it puts every row's sum down at the row's places of
# ``totals`` and a few more, and returns whether all sums are finite. Up to four vectors beyond the last row are read.


@functools.cache
def _first_term(term):
    @inlined
    def first_term(y, dy, i, count):
        given = load(y, i)
        return first_of(given, term(given, load(dy, i)), count)

    return first_term


@functools.cache
def _sum_by_fours(term, fours):
    """Compiles the sum over a row of up to so many ``fours`` of values (1 to 4), of which the last begins before the
    row's end."""
    last = 4 * (fours - 1)

    @inlined
    def total_at(y, dy, i):
        return as_total(term(load_four(y, i), load_four(dy, i)))

    @inlined
    def sum_by_fours(y, dy, i, length):
        count, at, zero = length - last, i + last, load_four(y, i)
        rest = as_total(term(first_of(zero, load_four(y, at), count), first_of(zero, load_four(dy, at), count)))
        if fours == 1:
            return rest
        if fours == 2:
            return plus(zero, total_at(y, dy, i), rest)
        if fours == 3:
            return plus(zero, plus(zero, total_at(y, dy, i), rest), total_at(y, dy, i + 4))
        first = plus(zero, total_at(y, dy, i), total_at(y, dy, i + 8))
        return plus(zero, first, plus(zero, total_at(y, dy, i + 4), rest))

    return sum_by_fours


@functools.cache
def _sum_by_vectors(steps, width):
    """Compiles the sum over a row of up to four vectors."""
    sum_of_few, _, _ = row_sums(steps, width, _first_term(steps.term))

    @inlined
    def sum_by_vectors(y, dy, i, length):
        zero = load(y, i)
        return as_four(zero, sum_of_few(zero, y, dy, i, length))

    return sum_by_vectors


@functools.cache
def _four_at_once(sum_of_row, spread, places):
    @inlined
    def add_up(y, dy, rows, length, totals):
        end, finite, zero = (rows - 1) * length, 0, load_four(totals, 0)
        for i in range(0, end + 1, 4 * length):  # where there are not four any more, the last one stands for others
            a = sum_of_row(y, dy, i, length)
            b = sum_of_row(y, dy, min(i + length, end), length)
            c = sum_of_row(y, dy, min(i + 2 * length, end), length)
            d = sum_of_row(y, dy, min(i + 3 * length, end), length)
            sums = rounded_to(totals, sums_of_four(zero, a, b, c, d))
            finite += how_many(magnitude(sums) < np.inf)
            spread(totals, i, length, sums, places)
        return finite == (rows + 3) // 4 * 4

    return add_up


@functools.cache
def one_by_one(steps, width):
    """For rows of any length."""
    _, with_quad, with_rest = row_sums(steps, width, _first_term(steps.term))
    wide = 4 * width

    @inlined
    def add_up(y, dy, rows, length, totals):
        finite, zero = 0, filled(totals, 0.0)
        for start in range(0, rows * length, length):
            total, i, end = as_total(zero), start, start + length
            while i + wide <= end:
                total = with_quad(zero, total, y, dy, i)
                i += wide
            high, low = collapsed(zero, with_rest(zero, total, y, dy, i, end))
            sums = filled(totals, high + low)
            finite += how_many(magnitude(sums) < np.inf) == width
            for k in range(start, end, width):
                store(totals, k, sums)
        return finite == rows

    return add_up


@functools.cache
def tile_sums(steps, width):
    """The same, faster where rows are short; it takes a second to compile."""
    of_four, of_eight, of_twelve, of_sixteen = (
        _four_at_once(_sum_by_fours(steps.term, fours), spread_over_few, 4 * fours) for fours in (1, 2, 3, 4)
    )
    of_few = _four_at_once(_sum_by_vectors(steps, width), spread_over_rows, width)
    of_many = one_by_one(steps, width)

    @inlined
    def add_up(y, dy, rows, length, totals):
        if length <= 4:
            return of_four(y, dy, rows, length, totals)
        if length <= 8:
            return of_eight(y, dy, rows, length, totals)
        if length <= 12:
            return of_twelve(y, dy, rows, length, totals)
        if length <= 16:
            return of_sixteen(y, dy, rows, length, totals)
        if length <= 4 * width:
            return of_few(y, dy, rows, length, totals)
        return of_many(y, dy, rows, length, totals)

    return add_up
