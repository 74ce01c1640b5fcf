"""Rows to columns and back, in registers: as many rows as a vector has places become vectors of one value of each row.

A vector's places are cut into segments of W values (4, 8 or 16), one row each; W vectors then hold W rows a segment,
and transposing the W x W values of every segment at once leaves in vector i the value i of each row, the rows in their
order. That takes log2(W) steps: in the step h, places whose index has the bit h change sides between the vectors q
and q + h (Eklundh, "A Fast Computer Method for Matrix Transposing", 1972). Done twice it is undone.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.memory import decode, encode, first_places, masked, place_of, stored
from softmax_numba.cpu.simd import BFLOAT, COMPUTES_IN, I8, I32, I64, joined, repeat, vector_of


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


def _rows(builder, base, stride, count, kind):
    """Where so many rows begin, as pointers to a piece of each."""
    base = builder.bitcast(base, I8.as_pointer())
    offsets = (builder.mul(ir.Constant(I64, row), stride) for row in range(count))
    return [builder.bitcast(builder.gep(base, [offset]), kind.as_pointer()) for offset in offsets]


@intrinsic(prefer_literal=True)
def columns_from(typing, pointer, stride, count, target, places):
    """Reads the first ``count`` values of as many rows as a vector has places, ``stride`` bytes apart, and puts at
    ``target`` so many ``places`` (a literal: 4, 8 or 16) vectors of one value of each row, -inf beyond ``count``."""
    storage, wide = pointer.dtype, places.literal_value
    single = vector_of(COMPUTES_IN[storage])

    def emit(context, builder, sig, args):
        base, stride, count, target, _ = args
        piece = stored(storage, wide)
        fill = repeat(piece, 0xFF80 if storage == BFLOAT else float("-inf"))
        mask = first_places(builder, count, wide)
        rows = [
            masked(builder, "llvm.masked.load", piece, at, mask, [fill])
            for at in _rows(builder, base, stride, single.count, piece)
        ]
        packed = [decode(builder, joined(builder, rows[q::wide]), storage, single) for q in range(wide)]
        for i, value in enumerate(_transposed(builder, packed)):
            builder.store(value, place_of(builder, target, ir.Constant(I64, i * single.count), value.type), align=64)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, target, places), emit


@intrinsic(prefer_literal=True)
def columns_to(typing, pointer, stride, count, source, places):
    """The way back: writes ``count`` results of each of as many rows as a vector has places."""
    storage, wide = pointer.dtype, places.literal_value
    single = vector_of(COMPUTES_IN[storage])

    def emit(context, builder, sig, args):
        base, stride, count, source, _ = args
        at = [place_of(builder, source, ir.Constant(I64, i * single.count), single.llvm) for i in range(wide)]
        turned = _transposed(builder, [builder.load(p, align=64) for p in at])
        packed = [encode(builder, value, storage, single) for value in turned]
        mask, piece = first_places(builder, count, wide), stored(storage, wide)
        for row, to in enumerate(_rows(builder, base, stride, single.count, piece)):
            value, first = packed[row % wide], row // wide * wide
            if wide < single.count:
                chosen = ir.Constant(ir.VectorType(I32, wide), list(range(first, first + wide)))
                value = builder.shuffle_vector(value, value, chosen)
            masked(builder, "llvm.masked.store", ir.VoidType(), to, mask, [value])
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, source, places), emit
