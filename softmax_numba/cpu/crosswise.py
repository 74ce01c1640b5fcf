"""Horizontal reductions of as many vectors as a vector has places, all at once.

Halving one vector over and over keeps few places busy and every step waits for the one before. Here two vectors are
halved together: their lower halves side by side meet their upper halves, and four steps turn sixteen vectors into one
that holds sixteen results. Each result is computed in the order in which its vector alone would be halved. The vectors
stand one after the other in memory, the first at the start of a cache line.

Where there are fewer lanes than places, whatever stands behind them is reduced too, and its result replaced by 1: left
as it is, half of a pointer looks like a subnormal number, and each operation on one costs some processors 150 cycles.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.partial import first_places
from softmax_numba.cpu.simd import I32, I64, larger_of, repeat, vector_of
from softmax_numba.cpu.sums import exact_sum_of_pairs


def _zipped(builder, a, b, segment):
    """The lower halves of all segments of ``a`` and ``b``, and the upper halves."""
    count, half = a.type.count, segment // 2
    parts = []
    for offset in (0, half):
        places = [start + offset + i for start in range(0, 2 * count, segment) for i in range(half)]
        parts.append(builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), places)))
    return parts


def _folded(builder, rows, combine):
    """One vector (or tuple of them) with the reduction of each row, a row being a tuple of vectors."""
    segment = rows[0][0].type.count
    while len(rows) > 1:
        rows = [
            combine(builder, *[_zipped(builder, x, y, segment) for x, y in zip(a, b, strict=True)])
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
        segment //= 2
    return rows[0]


def _larger(builder, values):
    return (larger_of(builder, *values),)


def _sum(builder, values):
    return (builder.fadd(*values),)


def _exact_sum(builder, values, errors):
    return exact_sum_of_pairs(builder, *zip(values, errors, strict=True))


def _rows_at(builder, pointer, kind, first, parts=1):
    """As many rows as ``kind`` has places, from the vectors that stand one after the other in memory."""
    base = builder.bitcast(pointer, kind.as_pointer())

    def vector(i):
        return builder.load(builder.gep(base, [ir.Constant(I32, i)]), align=64)

    rows = range(first, first + kind.count)
    return [tuple(vector(parts * row + part) for part in range(parts)) for row in rows]


def _of_lanes(builder, value, count, otherwise=1.0):
    """A vector's first ``count`` places, and a number in all others."""
    others = repeat(value.type, otherwise)
    return builder.select(first_places(builder, count, value.type.count), value, others)


def _each(combine):
    @intrinsic
    def reduction(typing, pointer, count):
        vector = vector_of(pointer.dtype)

        def emit(context, builder, sig, args):
            reduced = _folded(builder, _rows_at(builder, args[0], vector.llvm, 0), combine)[0]
            return _of_lanes(builder, reduced, args[1])

        return vector(pointer, types.intp), emit

    return reduction


largest_of_each = _each(_larger)
sum_of_each = _each(_sum)


@intrinsic
def note_total(typing, pointer, row, like, total):
    """Puts down the running sum of a row of vectors like ``like``, for :func:`totals_of_each`."""

    def emit(context, builder, sig, args):
        values = [builder.extract_value(args[3], part) for part in (0, 1)]
        if like.element == types.float32:
            values = [builder.fadd(*values)]
        place = builder.mul(args[1], ir.Constant(args[1].type, len(values)))
        base = builder.bitcast(args[0], values[0].type.as_pointer())
        for part, value in enumerate(values):
            builder.store(value, builder.gep(base, [builder.add(place, ir.Constant(place.type, part))]), align=64)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, like, total), emit


@intrinsic
def totals_of_each(typing, pointer, like, count):
    """The ``count`` sums that stand at ``pointer``, a lane each, as a running sum of vectors like ``like``."""
    vector = vector_of(types.float64)

    def emit(context, builder, sig, args):
        if like.element == types.float32:
            parts = []
            for first in (0, 8):
                sums = _folded(builder, _rows_at(builder, args[0], vector.llvm, first), _sum)[0]
                parts.append(_of_lanes(builder, sums, builder.sub(args[2], ir.Constant(I64, first))))
        else:
            high, low = _folded(builder, _rows_at(builder, args[0], vector.llvm, 0, parts=2), _exact_sum)
            parts = [_of_lanes(builder, high, args[2]), _of_lanes(builder, low, args[2], 0.0)]
        return context.make_tuple(builder, sig.return_type, parts)

    return types.UniTuple(vector, 2)(pointer, like, types.intp), emit
