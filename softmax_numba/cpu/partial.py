"""Vectors of which only the first places are in memory: what lies behind them is neither read nor written.

Where the processor can mask single places, that is one instruction. Elsewhere a store goes by halves: if half of the
places are there, the lower half is written and the upper one is left, and so on, each step a branch that goes the same
way for every row of an array. A load does the same by way of the stack, but for types that AVX2 can mask.
"""

from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba.core import cgutils

from softmax_numba.cpu.host import MASKED_LOADS, MASKS
from softmax_numba.cpu.simd import I8, I32, I64, call_llvm, split, spread


def first_places(builder, count, width):
    """Mask of the first ``count`` places."""
    places = ir.Constant(ir.VectorType(I32, width), list(range(width)))
    return builder.icmp_signed("<", places, spread(builder, builder.trunc(count, I32), width))


def _masked(builder, name, result, pointer, mask, others):
    """A masked load or store of single elements; LLVM 22 moved the alignment from an operand to an attribute."""
    vector = others[0].type
    alignment = [] if llvm_version_info >= (22,) else [ir.Constant(I32, 1)]
    if name == "llvm.masked.load":
        operands = [pointer, *alignment, mask, *others]
    else:
        operands = [*others, pointer, *alignment, mask]
    return call_llvm(builder, name, result, operands, [vector, pointer.type])


def _size_of(kind):
    """Bytes of an LLVM number."""
    return {ir.HalfType: 2, ir.FloatType: 4, ir.DoubleType: 8}.get(type(kind)) or kind.width // 8


def _as(builder, pointer, kind):
    return builder.bitcast(pointer, kind.as_pointer())


# --- loads --------------------------------------------------------------------------


def load_some(builder, pointer, count, fill):
    """The first ``count`` places of the vector at ``pointer``, and those of the constant ``fill`` beyond."""
    kind, size = fill.type, _size_of(fill.type.element)
    if MASKS or (MASKED_LOADS and size >= 4):
        mask = first_places(builder, count, kind.count)
        return _masked(builder, "llvm.masked.load", kind, pointer, mask, [fill])
    if MASKED_LOADS and size == 2:
        return _load_pairs(builder, pointer, count, fill)
    return _load_by_halves(builder, pointer, count, fill)


def load_some_of_each(builder, pointers, count, fill):
    """:func:`load_some` at each of several pointers: a mask costs something where all places are there."""
    if MASKS:
        return [load_some(builder, pointer, count, fill) for pointer in pointers]
    with builder.if_else(builder.icmp_signed(">=", count, I64(fill.type.count))) as (whole, part):
        with whole:
            full, after_full = [builder.load(pointer, align=1) for pointer in pointers], builder.block
        with part:
            some = [load_some(builder, pointer, count, fill) for pointer in pointers]
            after_some = builder.block
    found = [builder.phi(fill.type) for _ in pointers]
    for either, one, other in zip(found, full, some, strict=True):
        either.add_incoming(one, after_full)
        either.add_incoming(other, after_some)
    return found


def _load_pairs(builder, pointer, count, fill):
    """16-bit places by loads of 32, and the last one of an odd number apart."""
    kind = fill.type
    pairs, integers = ir.VectorType(I32, kind.count // 2), ir.VectorType(ir.IntType(16), kind.count)
    mask = first_places(builder, builder.ashr(count, I64(1)), pairs.count)
    filled = builder.bitcast(fill, pairs)
    loaded = _masked(builder, "llvm.masked.load", pairs, _as(builder, pointer, pairs), mask, [filled])
    # Where there is none, some number of the stack's.
    nowhere = cgutils.alloca_once_value(builder, ir.IntType(16)(0))
    last = builder.sub(count, I64(1))
    there = builder.and_(builder.icmp_signed(">", count, I64(0)), builder.icmp_signed("<=", count, I64(kind.count)))
    at = builder.select(there, builder.gep(_as(builder, pointer, ir.IntType(16)), [last]), nowhere)
    single = spread(builder, builder.load(at, align=2), kind.count)
    places = ir.Constant(integers, list(range(kind.count)))
    where = builder.icmp_signed("==", places, spread(builder, builder.trunc(last, ir.IntType(16)), kind.count))
    return builder.bitcast(builder.select(where, single, builder.bitcast(loaded, integers)), kind)


def _load_by_halves(builder, pointer, count, fill):
    kind = fill.type
    room = cgutils.alloca_once(builder, kind)
    with builder.if_else(builder.icmp_signed(">=", count, I64(kind.count)), likely=True) as (whole, part):
        with whole:
            builder.store(builder.load(pointer, align=1), room, align=1)
        with part:
            builder.store(fill, room, align=1)
            for piece, offset in _pieces(builder, count, kind):
                source, target = (
                    builder.bitcast(builder.gep(_as(builder, p, kind.element), [offset]), piece.as_pointer())
                    for p in (pointer, room)
                )
                builder.store(builder.load(source, align=1), target, align=1)
    return builder.load(room, align=1)


def _pieces(builder, count, kind):
    """For each piece of half as many places as the one before, in a block of its own that is entered if ``count`` has
    it: its type and the places before it."""
    count = builder.select(builder.icmp_signed("<", count, I64(0)), I64(0), count)
    offset, half = I64(0), kind.count // 2
    while half:
        has = builder.and_(count, I64(half))
        with builder.if_then(builder.icmp_unsigned("!=", has, I64(0))):
            yield ir.VectorType(kind.element, half), offset
        offset, half = builder.add(offset, has), half // 2


# --- stores -------------------------------------------------------------------------


def store_some(builder, pointers, count, values):
    """The first ``count`` places of each vector to where its pointer points."""
    kind = values[0].type
    align = _size_of(kind.element)
    if MASKS:
        mask = first_places(builder, count, kind.count)
        for value, pointer in zip(values, pointers, strict=True):
            _masked(builder, "llvm.masked.store", ir.VoidType(), pointer, mask, [value])
        return
    with builder.if_else(builder.icmp_signed(">=", count, I64(kind.count))) as (whole, part):
        with whole:
            for value, pointer in zip(values, pointers, strict=True):
                builder.store(value, pointer, align=align)
        with part:
            bases, count = (
                [_as(builder, p, I8) for p in pointers],
                builder.select(builder.icmp_signed("<", count, I64(0)), I64(0), count),
            )
            while kind.count > 1:
                kind = ir.VectorType(kind.element, kind.count // 2)
                has = builder.and_(count, I64(kind.count))
                full = builder.icmp_unsigned("!=", has, I64(0))
                halves = [split(builder, value) for value in values]
                with builder.if_then(full):
                    for (lower, _), base in zip(halves, bases, strict=True):
                        builder.store(lower, _as(builder, base, kind), align=align)
                values = [builder.select(full, upper, lower) for lower, upper in halves]
                bases = [builder.gep(base, [builder.mul(has, I64(align))]) for base in bases]
