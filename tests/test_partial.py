"""The first places of a vector, by each way that processors have for them: what lies behind is not touched."""

import platform
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from processes import run

from softmax_numba.cpu import partial
from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.host import MASKED_LOADS, MASKS

# Single places of any type can be masked; those of 32 and 64 bits can when loaded; none can.
WAYS = {"masks": (True, True), "masked loads": (False, True), "halves": (False, False)}
# LLVM can do what the processor cannot, but not always the other way round.
# A type as LLVM knows it and as arrays do, the places of a vector, and what stands in those that are not there.
KINDS = {
    "int8": (ir.IntType(8), np.int8, 16, 5),
    "int16": (ir.IntType(16), np.int16, 16, 5),
    "float16": (ir.HalfType(), np.uint16, 8, float("-inf")),
    "float32": (ir.FloatType(), np.float32, 16, float("-inf")),
    "float32, wide": (ir.FloatType(), np.float32, 64, float("-inf")),
    "float64": (ir.DoubleType(), np.float64, 2, float("-inf")),
}


def copier(kind, vectors):
    """``copy(x, out, whole, count)``: the first places of vectors at x to out, and all of the first to ``whole``."""
    element, _, width, missing = KINDS[kind]
    vector = ir.VectorType(element, width)

    @intrinsic
    def copy_first(typing, x, out, whole, count):
        def emit(context, builder, sig, args):
            source, target, all_of_it = (builder.bitcast(p, vector.as_pointer()) for p in args[:3])
            places = [ir.Constant(ir.IntType(32), k) for k in range(vectors)]
            fill = ir.Constant(vector, [missing] * width)
            given = [partial.load_some(builder, builder.gep(source, [k]), args[3], fill) for k in places]
            partial.store_some(builder, [builder.gep(target, [k]) for k in places], args[3], given)
            builder.store(given[0], all_of_it, align=1)
            return context.get_dummy_value()

        return types.void(x, out, whole, types.intp), emit

    @njit
    def copy(x, out, whole, count):
        copy_first(start_of(x), start_of(out), start_of(whole), count)

    return copy


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("vectors", [1, 3])
def test_first_places_and_nothing_else(way, kind, vectors, monkeypatch):
    """Of one vector and of several, any number of places: none, or more than there are."""
    monkeypatch.setattr(partial, "MASKS", WAYS[way][0])
    monkeypatch.setattr(partial, "MASKED_LOADS", WAYS[way][1])
    _, seen, width, missing = KINDS[kind]
    dtype = np.dtype(seen)
    missing = np.float16(missing).view(dtype) if kind == "float16" else dtype.type(missing)
    copy = copier(kind, vectors)
    x = np.arange(1, 1 + vectors * width).astype(dtype)
    for count in (-3, *range(width + 1), width + 5):
        out, whole = np.full(x.size + 2, 99, dtype), np.zeros(width, dtype)
        copy(x, out[1:], whole, count)
        part = np.arange(width) < count
        expected = np.where(np.tile(part, vectors), x, dtype.type(99))
        assert out[0] == out[-1] == 99
        assert (out[1:-1] == expected).all()
        assert (whole == np.where(part, x[:width], missing)).all()


def test_this_processors_way_is_one_of_them():
    assert (MASKS, MASKED_LOADS) in WAYS.values()
    assert (partial.MASKS, partial.MASKED_LOADS) == (MASKS, MASKED_LOADS)


@pytest.mark.skipif(platform.system() != "Linux", reason="forbids a page by mprotect")
@pytest.mark.parametrize("way", WAYS)
def test_the_next_page_is_not_touched(way):
    program = f"""
    import ctypes, mmap, numpy as np
    from softmax_numba.cpu import partial
    from test_partial import KINDS, copier
    partial.MASKS, partial.MASKED_LOADS = {WAYS[way]}
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    room = np.frombuffer(memory, np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(room.ctypes.data + page), page, 0) == 0
    for kind, (_, seen, width, _) in KINDS.items():
        values = room[:page].view(seen)
        copy, whole = copier(kind, 1), np.zeros(width, values.dtype)
        for count in range(width):
            copy(values[values.size - count :], values[values.size - count :], whole, count)
    print("untouched")
    """
    assert run(program, cwd=Path(__file__).parent) == ["untouched"]
