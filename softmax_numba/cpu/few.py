"""Rows of a few values, four of a row at a time and four rows at once: their sums, and numbers spread over the rows.

Four is what every processor has a vector for, of either type, and what transposing takes the fewest instructions for.
Numbers are in the compute dtype; sums are those of sums.py, of vectors of four.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, overload

from softmax_numba.cpu.inlining import INLINED
from softmax_numba.cpu.memory import moved, place_of
from softmax_numba.cpu.partial import first_places
from softmax_numba.cpu.simd import I32, I64, Vector, repeat, split
from softmax_numba.cpu.stretch import copy_stretch
from softmax_numba.cpu.sums import exact_sum_of_pairs, known_error, parts_of, total_of

FOUR = 4
_SUMS = Vector(types.float64, FOUR)


def computed(p, start, end, room, copied):
    """A pointer to the numbers ``p[start:end]`` (start may be negative) in the compute dtype: ``p`` itself, or else
    ``room``, to the same places of which they are copied; that is also done where it is asked for."""
    raise NotImplementedError("only inside compiled code")


@overload(computed, jit_options=INLINED)
def _computed(p, start, end, room, copied):
    if p.dtype != room.dtype:

        def converted(p, start, end, room, copied):
            copy_stretch(moved(p, start), end - start, moved(room, start))
            return room

        return converted

    def as_asked(p, start, end, room, copied):
        if copied:
            copy_stretch(moved(p, start), end - start, moved(room, start))
            return room
        return p

    return as_asked


@intrinsic
def load_four(typing, pointer, index):
    """``pointer[index:index + 4]``."""
    vector = Vector(pointer.dtype, FOUR)

    def emit(context, builder, sig, args):
        return builder.load(place_of(builder, *args, vector.llvm), align=pointer.dtype.bitwidth // 8)

    return vector(pointer, types.intp), emit


@intrinsic
def first_of(typing, like, x, count):
    """The first ``count`` places of a vector or of a running sum of vectors ``like`` this one, and 0 in the others.

    A masked load would give the same of what is added up. Of rows that come from memory it takes a Zen 3 twice as long,
    for all of a sweep; and float32 is widened for half as much where it is loaded.
    """

    def emit(context, builder, sig, args):
        _, value, count = args
        parts = [value] if isinstance(x, Vector) else parts_of(builder, value)
        here = first_places(builder, count, like.count)
        masks = [here] * len(parts) if parts[0].type.count == like.count else split(builder, here)
        nothing = repeat(parts[0].type, 0.0)
        parts = [builder.select(mask, part, nothing) for mask, part in zip(masks, parts, strict=True)]
        return parts[0] if isinstance(x, Vector) else context.make_tuple(builder, sig.return_type, parts)

    return x(like, x, types.intp), emit


def _shuffled(builder, a, b, places):
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(places)), places))


@intrinsic
def as_four(typing, like, total):
    """The running sum of a whole vector as one of a vector of four: halves are added to halves."""
    four = Vector(like.element, FOUR)

    def emit(context, builder, sig, args):
        parts = parts_of(builder, args[1])
        if like.element == types.float32:
            value = builder.fadd(*parts)
            while value.type.count > FOUR:
                value = builder.fadd(*split(builder, value))
            parts = [value]
        while parts[0].type.count > FOUR:
            halves = (split(builder, part) for part in parts)
            parts = exact_sum_of_pairs(builder, *zip(*halves, strict=True))
        return context.make_tuple(builder, sig.return_type, parts)

    return total_of(four)(like, total), emit


@intrinsic
def sums_of_four(typing, like, a, b, c, d):
    """The running sums of four rows, each over its own places, as four float64 numbers.

    No sum is -0, as none is that :func:`softmax_numba.cpu.sums.collapsed` gives the high and the low of.
    """

    def added(builder, first, second):
        if like.element == types.float32:
            return [builder.fadd(x, y) for x, y in zip(first, second, strict=True)]
        return exact_sum_of_pairs(builder, first, second)

    def halved(builder, first, second, low, high):
        """The two totals with the places ``high`` added to the places ``low``, side by side."""
        return added(
            builder,
            *([_shuffled(builder, x, y, half) for x, y in zip(first, second, strict=True)] for half in (low, high)),
        )

    def emit(context, builder, sig, args):
        first, second, third, fourth = (parts_of(builder, arg) for arg in args[1:])
        odd = halved(builder, first, third, (0, 1, 4, 5), (2, 3, 6, 7))
        even = halved(builder, second, fourth, (0, 1, 4, 5), (2, 3, 6, 7))
        total = halved(builder, odd, even, (0, 4, 2, 6), (1, 5, 3, 7))
        rest = repeat(_SUMS.llvm, 0.0) if like.element == types.float32 else known_error(builder, total[1])
        return builder.fadd(total[0], rest)

    return _SUMS(like, a, a, a, a), emit


@intrinsic
def rounded_to(typing, pointer, sums):
    """Four float64 numbers in the type of what ``pointer`` points to."""
    vector = Vector(pointer.dtype, FOUR)

    def emit(context, builder, sig, args):
        return args[1] if vector == _SUMS else builder.fptrunc(args[1], vector.llvm)

    return vector(pointer, _SUMS), emit


def _spreading(once):
    """Compiles the copying of each of four numbers to the places of a row of its own, so many at a time; ``once`` if
    that is always enough for a row. It may reach beyond a row's end: the next row's number is put there afterwards."""

    @intrinsic(prefer_literal=True)
    def spread(typing, pointer, index, length, numbers, places):
        vector = Vector(pointer.dtype, places.literal_value)

        def emit(context, builder, sig, args):
            _, index, length, numbers, _ = args
            for row in range(FOUR):
                start = builder.add(index, builder.mul(length, I64(row)))
                value = _shuffled(builder, numbers, numbers, [row] * vector.count)
                end, step = (I64(1), I64(1)) if once else (length, I64(vector.count))
                with cgutils.for_range_slice(builder, I64(0), end, step, inc=True) as (i, _):
                    at = place_of(builder, args[0], builder.add(start, i), vector.llvm)
                    builder.store(value, at, align=pointer.dtype.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(pointer, types.intp, types.intp, numbers, places), emit

    return spread


# Puts four numbers down from ``pointer[index]``, ``pointer[index + length]`` and so on: each all over a row of
# ``length`` numbers, or of no more than so many ``places`` (a literal).
spread_over_rows, spread_over_few = _spreading(False), _spreading(True)
