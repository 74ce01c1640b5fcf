"""Rows to columns and back, in registers: as many rows as a vector has places become vectors of one value of each row.

A vector's places are cut into segments of W values (4, 8 or 16), one row each; W vectors then hold W rows a segment,
and transposing the W x W values of every segment at once leaves in vector i the value i of each row, the rows in their
order. That takes log2(W) steps: in the step h, places whose index has the bit h change sides between the vectors q
and q + h (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972). Done twice it is undone.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.memory import decode, encode, place_of, stored
from softmax_numba.cpu.partial import load_some, store_some
from softmax_numba.cpu.simd import BFLOAT, COMPUTES_IN, I8, I32, I64, Vector, joined, repeat, vector_of


def _transposed(builder, vectors):
    """The W vectors with each of their W x W segments transposed."""
    vectors, count = list(vectors), vectors[0].type.count
    kind = ir.VectorType(I32, count)
    step = len(vectors) // 2
    while step:
        low = ir.Constant(kind, [count + (i ^ step) if i & step else i for i in range(count)])
        high = ir.Constant(kind, [count + i if i & step else i ^ step for i in range(count)])
        for q in range(len(vectors)):
            if not q & step:
                a, b = vectors[q], vectors[q + step]
                vectors[q], vectors[q + step] = builder.shuffle_vector(a, b, low), builder.shuffle_vector(a, b, high)
        step //= 2
    return vectors


def _rows(builder, base, stride, first_row, count, first, kind):
    """Where so many rows have the value ``first``, as pointers to a piece of each."""
    base = builder.bitcast(builder.gep(base, [I64(first)]), I8.as_pointer())
    offsets = (builder.mul(I64(row), stride) for row in range(first_row, first_row + count))
    return [builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()) for offset in offsets]


def _blocks(single, wide):
    """The blocks of rows and columns that fit registers, as many rows each as a register has places: the first row and
    the first column of each, and how many columns."""
    rows = min(single.count, REGISTER_BITS // single.element.bitwidth)
    columns = min(wide, rows)
    return rows, [(r, c, columns) for r in range(0, single.count, rows) for c in range(0, wide, columns)]


@intrinsic(prefer_literal=True)
def columns_from(typing, pointer, stride, count, target, places):
    """Reads the first ``count`` values of as many rows as a vector has places, ``stride`` bytes apart, and puts at
    ``target`` so many ``places`` (a literal: 4, 8 or 16) vectors of one value of each row, -inf beyond ``count``."""
    storage, wide = pointer.dtype, places.literal_value
    single = vector_of(COMPUTES_IN[storage])
    height, blocks = _blocks(single, wide)

    def emit(context, builder, sig, args):
        base, stride, count, target, _ = args
        part = Vector(single.element, height)
        for first_row, first, width in blocks:
            piece = stored(storage, width)
            fill = repeat(piece, 0xFF80 if storage == BFLOAT else float("-inf"))
            left = builder.sub(count, I64(first))
            rows = [
                load_some(builder, at, left, fill)
                for at in _rows(builder, base, stride, first_row, height, first, piece)
            ]
            packed = [decode(builder, joined(builder, rows[q::width]), storage, part) for q in range(width)]
            for i, value in enumerate(_transposed(builder, packed)):
                at = place_of(builder, target, I64((first + i) * single.count + first_row), value.type)
                builder.store(value, at, align=REGISTER_BITS // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, target, places), emit


@intrinsic(prefer_literal=True)
def columns_to(typing, pointer, stride, count, source, places):
    """The way back: writes ``count`` results of each of as many rows as a vector has places."""
    storage, wide = pointer.dtype, places.literal_value
    single = vector_of(COMPUTES_IN[storage])
    height, blocks = _blocks(single, wide)

    def emit(context, builder, sig, args):
        base, stride, count, source, _ = args
        part = Vector(single.element, height)
        for first_row, first, width in blocks:
            at = [
                place_of(builder, source, I64((first + i) * single.count + first_row), part.llvm) for i in range(width)
            ]
            turned = _transposed(builder, [builder.load(p, align=REGISTER_BITS // 8) for p in at])
            packed = [encode(builder, value, storage, part) for value in turned]
            rows = []
            for row in range(height):
                value, place = packed[row % width], row // width * width
                if width < height:
                    chosen = ir.Constant(ir.VectorType(I32, width), list(range(place, place + width)))
                    value = builder.shuffle_vector(value, value, chosen)
                rows.append(value)
            to = _rows(builder, base, stride, first_row, height, first, stored(storage, width))
            store_some(builder, to, builder.sub(count, I64(first)), rows)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, source, places), emit
