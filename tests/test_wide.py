"""Wide vectors: several full ones that take each step together."""

import numpy as np
import pytest
from numba import njit
from oracle import same_bits

from softmax_numba.cpu import memory, simd, wide
from softmax_numba.cpu.arrays import on_stack, start_of
from softmax_numba.cpu.memory import load, store
from softmax_numba.dtypes import for_kernel

every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def numbers(dtype, vectors):
    return np.arange(vectors * 64 // np.dtype(dtype).itemsize).astype(dtype) + 1


@every_float
def test_four_vectors_and_their_quarters(dtype):
    @njit
    def turned(x, out):
        a, b, c, d = wide.quarters(wide.load_wide(start_of(x), 1, 4))
        q = start_of(out)
        width = memory.width_of(q)
        store(q, 0, d)
        store(q, width, c)
        store(q, 2 * width, b)
        store(q, 3 * width, a)

    x = numbers(dtype, 5)
    out = np.empty(4 * x.size // 5, dtype)
    turned(x, out)
    assert same_bits(out.reshape(4, -1)[::-1].ravel(), x[1 : 1 + out.size])


def test_half_precision_is_widened():
    @njit
    def read(x, out):
        store(start_of(out), 0, wide.load_wide(start_of(x), 3, 4))

    x = np.linspace(-7, 7, 80).astype(np.float16)
    out = np.empty(64, np.float32)
    read(for_kernel(x, "float16"), out)
    assert same_bits(out, x[3:67].astype(np.float32))


@every_float
def test_apart(dtype):
    @njit
    def there(x, out, back):
        p, q = start_of(x), start_of(out)
        wide.store_apart(q, 2, 50, wide.load_wide(p, 0, 4))
        store(start_of(back), 0, wide.load_apart(q, 2, 50, 4))

    x = numbers(dtype, 4)
    width = x.size // 4
    out, back = np.zeros(200, dtype), np.empty_like(x)
    there(x, out, back)
    assert same_bits(back, x)
    for k in range(4):
        assert same_bits(out[2 + 50 * k : 2 + 50 * k + width], x[k * width : (k + 1) * width])
    assert np.count_nonzero(out) == x.size


@every_float
@pytest.mark.parametrize("lanes", ["two", "four", "a vector", "four vectors"])
def test_numbers_for_lanes(dtype, lanes):
    width = 64 // np.dtype(dtype).itemsize
    count = {"two": 2, "four": 4, "a vector": width, "four vectors": 4 * width}[lanes]

    @njit
    def spread(x, out):
        p = start_of(x)
        store(start_of(out), 0, wide.numbers_for(p, 1, count))
        return wide.numbers_for(p, 1, 1)

    x = numbers(dtype, 5)
    out = np.empty(width if count == width else 4 * width, dtype)
    assert spread(x, out) == x[1]
    assert same_bits(out, np.repeat(x[1 : 1 + count], out.size // count))


@every_float
def test_quarters_together(dtype):
    @njit(error_model="numpy")
    def both(x, total, top):
        given = wide.load_wide(start_of(x), 0, 4)
        store(start_of(total), 0, wide.sum_of_quarters(given))
        store(start_of(top), 0, wide.largest_of_quarters(given))

    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=(4, 64 // np.dtype(dtype).itemsize)).astype(dtype)
        total, top = np.empty_like(x[0]), np.empty_like(x[0])
        both(x.ravel(), total, top)
        assert same_bits(total, (x[0] + x[1]) + (x[2] + x[3]))
        assert same_bits(top, x.max(0))


@every_float
def test_fourfold(dtype):
    @njit
    def fourfold(x, out):
        store(start_of(out), 0, wide.fourfold(load(start_of(x), 0)))
        return wide.fourfold(2.5), wide.fourfold(None)

    x = numbers(dtype, 1)
    out = np.empty(4 * x.size, dtype)
    assert fourfold(x, out) == (2.5, None)
    assert same_bits(out, np.tile(x, 4))


@every_float
def test_masks(dtype):
    @njit
    def masked(x, mask, count, out):
        v = load(start_of(x), 0)
        q, m = start_of(out), start_of(mask)
        part = memory.mask_first(m, 1, count, v)
        store(q, 0, simd.select(part, v, -v))
        return simd.how_many(part), simd.how_many(memory.mask_at(m, 1, v))

    x = numbers(dtype, 1)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        mask, count, out = rng.random(x.size + 1) < 0.5, int(rng.integers(-2, x.size + 3)), np.empty_like(x)
        part = mask[1:] & (np.arange(x.size) < count)
        assert masked(x, mask, count, out) == (part.sum(), mask[1:].sum())
        assert same_bits(out, np.where(part, x, -x))


def test_stack_begins_on_a_cache_line():
    @njit
    def room(x):
        a, b = on_stack(x, 24), on_stack(1.0, 5)
        for i in range(24):
            memory.put(a, i, i)
        for i in range(5):
            memory.put(b, i, -i)
        total = 0.0
        for i in range(24):
            total += memory.number_at(a, i)
        return total, memory.address_of(a, 0) % 64, memory.address_of(b, 0) % 64

    assert room(np.float32(0)) == (276, 0, 0)
