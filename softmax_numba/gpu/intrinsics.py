"""Device operations that Numba does not offer: 16-byte accesses, fma, exponents, 16-bit floats, clusters.

Plain indexing never becomes a 16-byte load, so memory is reached by addresses (integers) and LLVM's own loads. The
functions bear the names that ``simulated.py`` gives its stand-ins.
"""

import numpy as np
from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

_I8, _I16, _I32, _I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()
_LLVM = {types.float32: _F32, types.float64: _F64, types.uint32: _I32}


def _address(builder, address, pointee):
    """An address in global memory as a pointer."""
    return builder.inttoptr(address, ir.PointerType(pointee, 1))


def _vector_load(element, count):
    @intrinsic
    def load(typing, address):
        def emit(context, builder, signature, args):
            kind = ir.VectorType(_LLVM[element], count)
            found = builder.load(_address(builder, args[0], kind), align=16)
            parts = [builder.extract_element(found, _I32(i)) for i in range(count)]
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(element, count)(types.int64), emit

    return load


def _vector_store(element, count):
    @intrinsic
    def store(typing, address, values):
        def emit(context, builder, signature, args):
            kind = ir.VectorType(_LLVM[element], count)
            whole = ir.Constant(kind, ir.Undefined)
            for i in range(count):
                whole = builder.insert_element(whole, builder.extract_value(args[1], i), _I32(i))
            builder.store(whole, _address(builder, args[0], kind), align=16)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(element, count)), emit

    return store


load_float32x4, load_float64x2, load_wordx4 = (
    _vector_load(types.float32, 4),
    _vector_load(types.float64, 2),
    _vector_load(types.uint32, 4),
)
store_float32x4, store_float64x2, store_wordx4 = (
    _vector_store(types.float32, 4),
    _vector_store(types.float64, 2),
    _vector_store(types.uint32, 4),
)


def _load(kind, stored):
    """Loads one number; a narrow integer is widened."""

    @intrinsic
    def load(typing, address):
        def emit(context, builder, signature, args):
            found = builder.load(_address(builder, args[0], stored))
            wide = _LLVM[kind]
            return found if stored == wide else builder.zext(found, wide)

        return kind(types.int64), emit

    return load


def _store(kind, stored):
    @intrinsic
    def store(typing, address, value):
        def emit(context, builder, signature, args):
            value = args[1] if stored == _LLVM[kind] else builder.trunc(args[1], stored)
            builder.store(value, _address(builder, args[0], stored))
            return context.get_dummy_value()

        return types.void(types.int64, kind), emit

    return store


load_float32, load_float64 = _load(types.float32, _F32), _load(types.float64, _F64)
load_half, load_byte = _load(types.uint32, _I16), _load(types.uint32, _I8)
store_float32, store_float64 = _store(types.float32, _F32), _store(types.float64, _F64)
store_half, store_byte = _store(types.uint32, _I16), _store(types.uint32, _I8)


def _load_integer(bits, signed):
    """Loads an integer as the float64 nearest to it."""

    @intrinsic
    def load(typing, address):
        def emit(context, builder, signature, args):
            found = builder.load(_address(builder, args[0], ir.IntType(bits)))
            return (builder.sitofp if signed else builder.uitofp)(found, _F64)

        return types.float64(types.int64), emit

    return load


load_integer = {
    f"{'' if signed else 'u'}int{bits}": _load_integer(bits, signed)
    for bits in (8, 16, 32, 64)
    for signed in (True, False)
}


def _load_index(bits, signed):
    """Loads an integer as an int64; what is larger, as the largest."""

    @intrinsic
    def load(typing, address):
        def emit(context, builder, signature, args):
            found = builder.load(_address(builder, args[0], ir.IntType(bits)))
            if bits < 64:
                return (builder.sext if signed else builder.zext)(found, _I64)
            if signed:
                return found
            return builder.select(builder.icmp_signed("<", found, _I64(0)), _I64(2**63 - 1), found)

        return types.int64(types.int64), emit

    return load


load_index = {
    f"{'' if signed else 'u'}int{bits}": _load_index(bits, signed)
    for bits in (8, 16, 32, 64)
    for signed in (True, False)
}


@intrinsic
def store_int32(typing, address, value):
    """Stores the lower half of an int64."""

    def emit(context, builder, signature, args):
        builder.store(builder.trunc(args[1], _I32), _address(builder, args[0], _I32))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def fma(typing, a, b, c):
    """a * b + c, rounded once."""

    def emit(context, builder, signature, args):
        return builder.fma(*args)

    return a(a, a, a), emit


@intrinsic
def exponent_of(typing, biased):
    """2**n from a number whose lowest bits hold n as an exponent field."""

    def emit(context, builder, signature, args):
        integer, shift = (_I32, 23) if biased == types.float32 else (_I64, 52)
        field = builder.shl(builder.bitcast(args[0], integer), integer(shift))
        return builder.bitcast(field, args[0].type)

    return biased(biased), emit


def _approximate(typing, x):
    def emit(context, builder, signature, args):
        wide = x == types.float64
        text, letter = ("f64", "d") if wide else ("f32", "f")
        function = ir.FunctionType(args[0].type, [args[0].type])
        return builder.call(ir.InlineAsm(function, f"rcp.approx.ftz.{text} $0, $1;", f"={letter},{letter}"), args)

    return x(x), emit


_approximate_reciprocal = intrinsic(_approximate)


@cuda.jit(device=True, forceinline=True)
def nearer32(x, y):
    return fma(y, fma(-x, y, np.float32(1)), y)


@cuda.jit(device=True, forceinline=True)
def nearer64(x, y):
    return fma(y, fma(-x, y, 1.0), y)


@cuda.jit(device=True, forceinline=True)
def reciprocal32(x):
    """1 / x of a normal number to an ULP; a quotient has a way for the others, which is a call and costs registers."""
    return nearer32(x, _approximate_reciprocal(x))


@cuda.jit(device=True, forceinline=True)
def reciprocal64(x):
    """The same: 20 bits, 40, 80."""
    return nearer64(x, nearer64(x, _approximate_reciprocal(x)))


@intrinsic
def quotient(typing, a, b):
    """a // b for integers in range(2**32), in 32 bits: the 64-bit division is a call."""

    def emit(context, builder, signature, args):
        a, b = (builder.trunc(number, _I32) for number in args)
        return builder.zext(builder.udiv(a, b), _I64)

    return types.int64(types.int64, types.int64), emit


_WHOLE_WARP = 0xFFFFFFFF


@cuda.jit(device=True, forceinline=True)
def from_thread(value, thread):
    """The value that another thread of the warp holds."""
    return cuda.shfl_sync(_WHOLE_WARP, value, thread)


@cuda.jit(device=True, forceinline=True)
def word_from_thread(word, thread):
    """The same of a word; Numba shuffles signed integers."""
    return np.uint32(cuda.shfl_sync(_WHOLE_WARP, np.int32(word), thread))


@cuda.jit(device=True, forceinline=True)
def across(value, distance):
    """The value of the thread whose number in the warp differs in the bits of ``distance``."""
    return cuda.shfl_xor_sync(_WHOLE_WARP, value, distance)


# --- 16-bit floats, two a word ----------------------------------------------------------


@intrinsic
def halves(typing, word):
    """The two float16 of a word as float32."""

    def emit(context, builder, signature, args):
        pair = builder.bitcast(args[0], ir.VectorType(_F16, 2))
        both = [builder.fpext(builder.extract_element(pair, _I32(i)), _F32) for i in (0, 1)]
        return context.make_tuple(builder, signature.return_type, both)

    return types.UniTuple(types.float32, 2)(types.uint32), emit


@intrinsic
def bfloats(typing, word):
    """The two bfloat16 of a word as float32, which they are the upper half of."""

    def emit(context, builder, signature, args):
        low = builder.bitcast(builder.shl(args[0], _I32(16)), _F32)
        high = builder.bitcast(builder.and_(args[0], _I32(0xFFFF0000)), _F32)
        return context.make_tuple(builder, signature.return_type, [low, high])

    return types.UniTuple(types.float32, 2)(types.uint32), emit


def _pack(instruction):
    @intrinsic
    def pack(typing, low, high):
        def emit(context, builder, signature, args):
            assembly = ir.InlineAsm(ir.FunctionType(_I32, [_F32, _F32]), f"{instruction} $0, $2, $1;", "=r,f,f")
            return builder.call(assembly, args)

        return types.uint32(types.float32, types.float32), emit

    return pack


# Rounded to nearest even; both need compute capability 8.0.
of_halves, of_bfloats = _pack("cvt.rn.f16x2.f32"), _pack("cvt.rn.bf16x2.f32")


# --- clusters ---------------------------------------------------------------------------


@intrinsic
def cluster_rank(typing):
    """Which of its cluster's blocks this is."""

    def emit(context, builder, signature, args):
        assembly = ir.InlineAsm(ir.FunctionType(_I32, []), "mov.u32 $0, %cluster_ctarank;", "=r")
        return builder.sext(builder.call(assembly, []), _I64)

    return types.int64(), emit


@intrinsic
def cluster_sync(typing):
    """Waits for all threads of the cluster; what they wrote to shared memory is then seen by all."""

    def emit(context, builder, signature, args):
        text = "barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;"
        assembly = ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", side_effect=True)
        builder.call(assembly, [], attrs=("convergent",))
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def store_in_cluster(typing, shared, index, rank, value):
    """``shared[index] = value`` in the block ``rank`` of the cluster."""

    def emit(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.gep(array.data, [args[1]])
        own = builder.ptrtoint(builder.addrspacecast(place, ir.PointerType(place.type.pointee, 3)), _I32)
        mapa = ir.InlineAsm(ir.FunctionType(_I32, [_I32, _I32]), "mapa.shared::cluster.u32 $0, $1, $2;", "=r,r,r")
        remote = builder.call(mapa, [own, builder.trunc(args[2], _I32)])
        wide = value == types.float64
        kind, text = ("d", "f64") if wide else ("f", "f32")
        put = ir.InlineAsm(
            ir.FunctionType(ir.VoidType(), [_I32, _F64 if wide else _F32]),
            f"st.shared::cluster.{text} [$0], $1;",
            f"r,{kind},~{{memory}}",
            side_effect=True,
        )
        builder.call(put, [remote, args[3]])
        return context.get_dummy_value()

    return types.void(shared, types.int64, types.int64, value), emit
