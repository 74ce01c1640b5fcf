"""Sums over lanes that lie side by side, line by line of memory, in the order of rows.

So a lane has the bits that it would have as a row: of every 64 bytes times 4 of a row, the four values that share a
place of a vector are added pairwise, then to their place's running sum, and places are added as a tree. Everything is
added in twice the precision of the values.
"""

import functools

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import filled
from softmax_numba.cpu.sums import as_total, load_total, plus, store_total


@functools.cache
def line_sums(width, term_of):
    """Compiles the sums of ``term_of(context, i, k)``, a running sum of its own or a vector: what line ``i`` has for
    the vector of lanes from ``k`` on."""

    @inlined
    def add_up(context, length, lanes, like, slots, vectors):
        """Puts down the lanes' running sums, vector by vector, in the first of so many ``vectors`` of ``slots``.

        ``slots`` has room for ``width`` times as many; ``like`` points to numbers of the compute dtype.
        """
        zero = filled(like, 0.0)
        used = min(length, width)
        for start in range(0, length, 4 * width):
            for s in range(min(width, length - start)):
                i = start + s
                lines = (length - i + width - 1) // width
                for k in range(0, lanes, width):
                    at, total = s * vectors + k // width, term_of(context, i, k)
                    if lines > 1:
                        total = plus(zero, total, term_of(context, i + width, k))
                    if lines == 3:
                        total = plus(zero, total, term_of(context, i + 2 * width, k))
                    elif lines > 3:
                        c, d = term_of(context, i + 2 * width, k), term_of(context, i + 3 * width, k)
                        total = plus(zero, total, plus(zero, c, d))
                    if start > 0:
                        store_total(slots, at, plus(zero, load_total(slots, at), as_total(total)))
                    else:
                        store_total(slots, at, as_total(total))
        step = width // 2
        while step > 0:
            for s in range(min(step, used - step)):
                for at in range(s * vectors, s * vectors + (lanes + width - 1) // width):
                    store_total(slots, at, plus(zero, load_total(slots, at), load_total(slots, at + step * vectors)))
            used, step = min(used, step), step // 2

    return add_up
