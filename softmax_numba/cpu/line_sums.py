"""Sums over lanes that lie side by side, line by line of memory, in the order of rows.

So a lane has the bits that it would have as a row: of every 64 bytes times 4 of a row, the four values that share a
place of a vector are added pairwise, then to their place's running sum, and places are added as a tree. Everything is
added in twice the precision of the values.
"""

import functools

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import filled
from softmax_numba.cpu.sums import as_total, load_total, plus, store_total

FEW_LINES = 8


@functools.cache
def sum_of_few_lines(term_of):
    """Compiles the sum of ``term_of(context, i, k)`` over up to ``FEW_LINES`` lines ``i``, without a slot in memory."""

    @inlined
    def term(context, i, k):
        return as_total(term_of(context, i, k))

    @inlined
    def half(context, length, i, k, like):
        """The sum of every other line from ``i`` on."""
        total = term(context, i, k)
        if length > i + 4:
            total = plus(like, total, term(context, i + 4, k))
        if length > i + 2:
            other = term(context, i + 2, k)
            if length > i + 6:
                other = plus(like, other, term(context, i + 6, k))
            total = plus(like, total, other)
        return total

    @inlined
    def sum_of_few(context, length, k, like):
        """The running sums of the vector of lanes from ``k`` on, in the order of :func:`line_sums`; ``like`` is a
        vector of the compute dtype."""
        total = half(context, length, 0, k, like)
        if length > 1:
            total = plus(like, total, half(context, length, 1, k, like))
        return total

    return sum_of_few


@functools.cache
def line_sums(width, term_of, more_of=None):
    """Compiles the sums of ``term_of(context, i, k)``, a running sum of its own or a vector: what line ``i`` has for
    the vector of lanes from ``k`` on. ``more_of(context, term, i, k)`` is a term and another line's, if there is a
    shorter way to it."""

    @inlined
    def more(like, context, term, i, k):
        if more_of is None:
            return plus(like, term, term_of(context, i, k))
        return more_of(context, term, i, k)

    @inlined
    def add_up(context, length, lanes, like, slots, vectors):
        """Puts down the lanes' running sums, vector by vector, in the first of so many ``vectors`` of ``slots``.

        ``slots`` has room for ``width`` times as many; ``like`` points to numbers of the compute dtype.
        """
        zero = filled(like, 0.0)
        used, across = min(length, width), (lanes + width - 1) // width
        for start in range(0, length, 4 * width):
            for s in range(min(width, length - start)):
                i = start + s
                lines = (length - i + width - 1) // width
                for v in range(across):
                    at, k = s * vectors + v, v * width
                    total = term_of(context, i, k)
                    if lines > 1:
                        total = more(zero, context, total, i + width, k)
                    if lines == 3:
                        total = more(zero, context, total, i + 2 * width, k)
                    elif lines > 3:
                        other = term_of(context, i + 2 * width, k)
                        total = plus(zero, total, more(zero, context, other, i + 3 * width, k))
                    if start > 0:
                        store_total(slots, at, plus(zero, load_total(slots, at), as_total(total)))
                    else:
                        store_total(slots, at, as_total(total))
        step = width // 2
        while step > 0:
            for s in range(min(step, used - step)):
                for at in range(s * vectors, s * vectors + across):
                    store_total(slots, at, plus(zero, load_total(slots, at), load_total(slots, at + step * vectors)))
            used, step = min(used, step), step // 2

    return add_up
