"""Vectors in and out of memory: each load and store against NumPy, and 16-bit floats bit by bit."""

import os
import platform
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from numba import njit
from oracle import same_bits
from processes import run

from softmax_numba.cpu import simd
from softmax_numba.cpu.arrays import allocated, release, start_of
from softmax_numba.cpu.memory import (
    address_of,
    fence,
    filled,
    load,
    load_first,
    number_at,
    number_like,
    prefetch,
    put,
    store,
    store_first,
    stream,
    width_of,
)

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Each storage type as kernels see it: the array's dtype, and the dtype that its bits mean.
STORAGE = {
    "float16": (np.uint16, np.dtype(np.float16)),
    "bfloat16": (np.int16, BFLOAT16),
    "float32": (np.float32, np.dtype(np.float32)),
    "float64": (np.float64, np.dtype(np.float64)),
}
every_storage = pytest.mark.parametrize("storage", STORAGE)
narrow = pytest.mark.parametrize("storage", ["float16", "bfloat16"])
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def compute_dtype(storage):
    return np.float64 if storage == "float64" else np.float32


def numbers(storage, count, seed=0):
    """Random numbers as the kernel's array holds them."""
    seen, meant = STORAGE[storage]
    return np.random.default_rng(seed).normal(size=count).astype(meant).view(seen)


@njit
def copy_all(x, out):
    p, q = start_of(x), start_of(out)
    for i in range(0, x.size, width_of(p)):
        store(q, i, load(p, i))


@njit
def copy_from(x, i, out, j):
    store(start_of(out), j, load(start_of(x), i))


@njit
def copy_first(x, i, out, j, count):
    value = load_first(start_of(x), i, count)
    store_first(start_of(out), j, count, value)


@njit
def spread_first(x, i, out, count):
    store(start_of(out), 0, load_first(start_of(x), i, count))


@njit
def copy_streaming(x, out):
    p, q = start_of(x), start_of(out)
    for i in range(0, x.size, width_of(p)):
        stream(q, i, load(p, i))
        prefetch(p, i + 10**9)
    fence()


@njit
def put_one(out, i, number):
    put(start_of(out), i, number)


# --- memory -------------------------------------------------------------------------


@every_storage
def test_load_and_store_at_any_place(storage):
    seen, _ = STORAGE[storage]
    width = 64 // np.dtype(compute_dtype(storage)).itemsize
    x = numbers(storage, 3 * width)
    for i in range(width):
        for j in (0, 1, width - 1):
            out = np.full(3 * width, 7, seen)
            copy_from(x, i, out, j)
            assert out[j : j + width].tobytes() == x[i : i + width].tobytes()
            assert (out[:j] == 7).all() and (out[j + width :] == 7).all()


@every_storage
def test_first_values_and_nothing_else(storage):
    seen, _ = STORAGE[storage]
    compute = compute_dtype(storage)
    width = 64 // np.dtype(compute).itemsize
    x = numbers(storage, 2 * width)
    for count in range(width + 1):
        for i in (0, 1, 5):
            out = np.full(2 * width, 7, seen)
            copy_first(x, i, out, 3, count)
            assert out[3 : 3 + count].tobytes() == x[i : i + count].tobytes()
            assert (out[:3] == 7).all() and (out[3 + count :] == 7).all()
            whole = np.zeros(width, compute)
            spread_first(x, i, whole, count)
            assert (whole[count:] == -np.inf).all() and np.isfinite(whole[:count]).all()


@pytest.mark.skipif(platform.system() != "Linux", reason="forbids a page by mprotect")
def test_first_values_do_not_touch_the_next_page():
    """A lane may end where the process's memory ends."""
    program = """
    import ctypes, mmap, numpy as np
    from test_memory import STORAGE, copy_first
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    whole = np.frombuffer(memory, np.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(whole.ctypes.data + page), page, 0) == 0
    for seen, _ in STORAGE.values():
        room = whole[:page].view(seen)
        out = np.zeros(32, seen)
        for count in range(9):
            room[-8:] = np.arange(8)
            copy_first(room, room.size - count, out, 0, count)
            assert (out[:count] == np.arange(8)[8 - count:]).all()
            copy_first(out, 0, room, room.size - count, count)
    print("fine")
    """
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    assert run(program, PYTHONPATH=path) == ["fine"]


@every_storage
def test_streaming_stores(storage):
    seen, _ = STORAGE[storage]
    x = numbers(storage, 320)
    room = np.zeros(320 + 64, seen)
    out = room[-room.ctypes.data % 64 // room.itemsize :][:320]
    copy_streaming(x, out)
    assert out.tobytes() == x.tobytes()


@every_storage
def test_allocated_room(storage):
    """Begins on a cache line, holds what is put there, and goes back to the allocator."""
    resource = pytest.importorskip("resource")

    @njit
    def through(x, out):
        p, first = start_of(x), allocated(x, x.size)
        for i in range(x.size):
            put(first, i, number_at(p, i))
        second = allocated(x, x.size)
        lines = address_of(first, 0) % 64 + address_of(second, 0) % 64
        release(second)
        for i in range(x.size):
            put(start_of(out), i, number_at(first, i))
        release(first)
        for _ in range(10_000):
            room = allocated(x, 10_000)
            for k in range(0, 10_000, 1000):
                put(room, k, 1.0)
            release(room)
        return lines

    x = numbers(storage, 1000)
    out = np.zeros_like(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert through(x, out) == 0
    assert out.tobytes() == x.tobytes()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 10_000 * 10_000 * x.itemsize / 4


def test_more_than_there_is_is_a_memory_error():
    @njit
    def too_much(x):
        release(allocated(x, 2**60))

    with pytest.raises(MemoryError):
        too_much(np.ones(1, np.float32))


@every_storage
def test_constants_of_a_storage_type(storage):
    @njit
    def constants(x, out):
        p, q = start_of(x), start_of(out)
        store(q, 0, filled(p, 2.5))
        return width_of(p), number_like(p)

    seen, _ = STORAGE[storage]
    compute = compute_dtype(storage)
    x, out = np.zeros(1, seen), np.zeros(16, compute)
    width, zero = constants(x, out)
    assert width * np.dtype(compute).itemsize * 8 == simd.BITS
    assert zero == 0
    assert (out[:width] == 2.5).all() and (out[width:] == 0).all()


# --- 16-bit floats ------------------------------------------------------------------


def every_pattern(storage):
    seen, meant = STORAGE[storage]
    bits = np.arange(2**16, dtype=np.uint16)
    return bits.view(seen), bits.view(meant)


@narrow
def test_every_16_bit_number_is_read(storage):
    given, meant = every_pattern(storage)
    out = np.empty(given.size, np.float32)
    copy_all(given, out)
    assert same_bits(out, meant.astype(np.float32))


@narrow
def test_every_16_bit_number_survives(storage):
    """Read and written again; a NaN stays one."""
    given, meant = every_pattern(storage)
    out = np.empty_like(given)
    copy_all(given, out)
    with np.errstate(invalid="ignore"):  # signalling NaN
        assert same_bits(out.view(meant.dtype), meant)


def around_every_tie(storage):
    """float32 numbers at, beside and half-way between all neighbours of a 16-bit type."""
    _, meant = every_pattern(storage)
    wide = np.sort(meant.astype(np.float32)[np.isfinite(meant.astype(np.float32))]).astype(np.float64)
    ties = np.concatenate([wide, (wide[1:] + wide[:-1]) / 2]).astype(np.float32)
    with np.errstate(over="ignore"):
        x = np.concatenate([ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(-np.inf))])
    largest = np.float32(wide[-1])
    edge = largest + (largest - np.float32(wide[-2])) / 2  # from here on, infinity
    beyond = [edge, np.nextafter(edge, np.float32(0)), np.inf, np.nan, np.finfo(np.float32).max]
    x = np.concatenate([x, beyond, np.negative(beyond)]).astype(np.float32)
    return np.concatenate([x, np.zeros(-x.size % 16, np.float32)])


@narrow
def test_rounding_to_16_bits_is_to_nearest_even(storage):
    seen, meant = STORAGE[storage]
    x = around_every_tie(storage)
    out = np.empty(x.size, seen)
    copy_all(x, out)
    with np.errstate(over="ignore"):
        expected = x.astype(meant)
    assert same_bits(out.view(meant), expected)


@narrow
def test_one_number_is_rounded_like_a_vector(storage):
    seen, meant = STORAGE[storage]
    x = around_every_tie(storage)[::97]
    for wide in (x, x.astype(np.float64)):
        out = np.empty(x.size, seen)
        for i, number in enumerate(wide):
            put_one(out, i, number)
        with np.errstate(over="ignore"):
            assert same_bits(out.view(meant), x.astype(meant))


@every_float
def test_put_rounds_once(dtype):
    out = np.zeros(3, dtype)
    put_one(out, 1, 0.1)
    assert out.tolist() == [0, dtype(0.1), 0]
