"""Rows to columns and back, in registers: as many rows as a vector has places become vectors of one value of each row.

A vector's places are cut into segments of W values (4, 8 or 16), one row each; W vectors then hold W rows a segment,
and transposing the W x W values of every segment at once leaves in vector i the value i of each row, the rows in their
order. That takes log2(W) steps: in the step h, places whose index has the bit h change sides between the vectors q
and q + h (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972). Done twice it is undone.
The last two steps of 32-bit values stay within 128 bits, where x86 has instructions that interleave two vectors, but
none that change every other place for a neighbour's: so 4 x 4 of those are transposed by interleaving twice.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.hidden import hidden
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.memory import decode, encode, place_of, stored
from softmax_numba.cpu.partial import load_some_of_each, store_some
from softmax_numba.cpu.simd import BFLOAT, COMPUTES_IN, I8, I32, I64, Vector, joined, larger_of, repeat, vector_of
from softmax_numba.cpu.wide import mapped, mapped_type


def _chosen(builder, a, b, places):
    """For every segment of four: the ``places`` of it, the values of ``b`` counted from 4 on."""
    count = a.type.count
    whole = [start + (place if place < 4 else count + place - 4) for start in range(0, count, 4) for place in places]
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), whole))


def _transposed_fours(builder, a, b, c, d):
    """Four vectors with each of their 4 x 4 segments transposed."""
    low, high = (0, 4, 1, 5), (2, 6, 3, 7)  # interleaved
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)  # pairs
    lows, highs = ([_chosen(builder, x, y, half) for x, y in ((a, b), (c, d))] for half in (low, high))
    return [_chosen(builder, *two, pair) for two in (lows, highs) for pair in (first, second)]


def _transposed(builder, vectors):
    """The W vectors with each of their W x W segments transposed."""
    vectors, count = list(vectors), vectors[0].type.count
    kind = ir.VectorType(I32, count)
    step = len(vectors) // 2
    while step:
        if step == 2 and isinstance(vectors[0].type.element, ir.FloatType):
            return [v for q in range(0, len(vectors), 4) for v in _transposed_fours(builder, *vectors[q : q + 4])]
        low = ir.Constant(kind, [count + (i ^ step) if i & step else i for i in range(count)])
        high = ir.Constant(kind, [count + i if i & step else i ^ step for i in range(count)])
        for q in range(len(vectors)):
            if not q & step:
                a, b = vectors[q], vectors[q + step]
                vectors[q], vectors[q + step] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        step //= 2
    return vectors


def _rows(builder, base, stride, first_row, count, kind):
    """Where so many rows begin, as pointers to a piece of each.

    Every fourth is hidden: from one group of rows to the next, LLVM would carry all of them along on the stack. The
    three after it are within reach of an address of its own.
    """
    base, rows = builder.bitcast(base, I8.as_pointer()), []
    for row in range(first_row, first_row + count, 4):
        fourth = hidden(builder, builder.gep(base, [builder.mul(I64(row), stride)]))
        rows += [builder.gep(fourth, [builder.mul(I64(k), stride)]) for k in range(4)]
    return [builder.bitcast(row, kind.as_pointer()) for row in rows[:count]]


def _places(builder, vector, first, count):
    """So many neighbouring places of a vector."""
    return builder.shuffle_vector(
        vector, vector, ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
    )


def height_of(width):
    """Of how many rows a register holds a value, where a vector has so many places."""
    return width * REGISTER_BITS // 512


@intrinsic(prefer_literal=True)
def columns_from(typing, pointer, stride, count, target, tops, places):
    """Reads the first ``count`` values of as many rows as a vector has places, ``stride`` bytes apart, and puts at
    ``target`` so many ``places`` (a literal: 4, 8 or 16, and no more than the rows of a register) vectors of one value
    of each row, -inf beyond ``count``; returns the rows' largest values, ``tops`` among them, that are not NaN."""
    storage, width = pointer.dtype, places.literal_value
    single = vector_of(COMPUTES_IN[storage])
    height = height_of(single.count)

    def emit(context, builder, sig, args):
        base, stride, count, target, tops, _ = args
        part, piece = Vector(single.element, height), stored(storage, width)
        fill = repeat(piece, 0xFF80 if storage == BFLOAT else float("-inf"))
        found = []
        for first_row in range(0, single.count, height):
            largest = _places(builder, tops, first_row, height)
            at = _rows(builder, base, stride, first_row, height, piece)
            rows = load_some_of_each(builder, at, count, fill)
            packed = [decode(builder, joined(builder, rows[q::width]), storage, part) for q in range(width)]
            for i, value in enumerate(_transposed(builder, packed)):
                at = place_of(builder, target, I64(i * single.count + first_row), value.type)
                builder.store(value, at, align=REGISTER_BITS // 8)
                largest = larger_of(builder, largest, value)
            found.append(largest)
        return joined(builder, found)

    return single(pointer, types.intp, types.intp, target, tops, places), emit


@intrinsic(prefer_literal=True)
def block_from(typing, source, places):
    """Of vectors of one value of each row, so many ``places`` (a literal) of the first rows, as many as a register
    holds, in one wide vector: all rows' first values, all second ones, and so on."""
    single = vector_of(source.dtype)
    part = Vector(single.element, height_of(single.count))
    block = Vector(single.element, part.count * places.literal_value)

    def emit(context, builder, sig, args):
        at = (place_of(builder, args[0], I64(i * single.count), part.llvm) for i in range(places.literal_value))
        return joined(builder, [builder.load(p, align=REGISTER_BITS // 8) for p in at])

    return block(source, places), emit


@intrinsic(prefer_literal=True)
def store_block(typing, target, block, places):
    """Puts such a block where :func:`block_from` finds it."""
    single = vector_of(target.dtype)
    height = height_of(single.count)

    def emit(context, builder, sig, args):
        for i in range(places.literal_value):
            value = _places(builder, args[1], i * height, height)
            at = place_of(builder, args[0], I64(i * single.count), value.type)
            builder.store(value, at, align=REGISTER_BITS // 8)
        return context.get_dummy_value()

    return types.void(target, block, places), emit


@intrinsic(prefer_literal=True)
def for_block(typing, x, block, places):
    """Of a vector of numbers, one a row, those of a block's rows, all of them so many times; ``block`` and ``places``
    are literals. Of a named tuple each field; what is no vector as it is."""

    first, times = block.literal_value, places.literal_value

    def block_type(kind):
        return Vector(kind.element, height_of(kind.count) * times)

    def emit(context, builder, sig, args):
        def of_block(value, kind):
            height = height_of(kind.count)
            return joined(builder, [_places(builder, value, first * height, height)] * times)

        return mapped(context, builder, args[0], x, block_type, of_block)

    return mapped_type(x, block_type)(x, block, places), emit


@intrinsic(prefer_literal=True)
def rows_from(typing, pointer, stride, count, block, places):
    """Writes the first ``count`` values of each row of such a block, of so many ``places`` (a literal: 4, 8 or 16,
    and no more than it has rows); the rows begin ``stride`` bytes apart."""
    storage, width = pointer.dtype, places.literal_value
    height = block.count // width
    part = Vector(block.element, height)

    def emit(context, builder, sig, args):
        base, stride, count, values, _ = args
        columns = [_places(builder, values, i * height, height) for i in range(width)]
        packed = [encode(builder, value, storage, part) for value in _transposed(builder, columns)]
        rows = []
        for row in range(height):
            value, place = packed[row % width], row // width * width
            rows.append(value if width == height else _places(builder, value, place, width))
        to = _rows(builder, base, stride, 0, height, stored(storage, width))
        store_some(builder, to, count, rows)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, block, places), emit
