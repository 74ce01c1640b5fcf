"""Every plan is taken, gives the right values, and the bits that any other plan and any company give a lane."""

import numpy as np
import pytest
from gpu_cases import HAS_CLUSTERS, REVERSES, Watched, call, on_gpu, seen
from grids import every_function, every_map, normal
from oracle import BFLOAT16, assert_accurate, same_bits

FEW = {"multiprocessors": 1000, "warps": 2}  # any number of lanes is few
MANY = {"multiprocessors": 0, "warps": 2}


@every_function
@pytest.mark.parametrize("offset", [0, 1])
def test_long_lanes(name, offset):
    """Beyond a block's registers: split, in shared memory and online, aligned and not, all to the same bits."""
    x = normal((1, 5 * 512 + 5), np.float64, scale=4.0)
    bits = []
    for device, expected in (
        (FEW, ["survey", "finish"]),
        (MANY, ["online"] if name == "logsumexp" else ["shared"]),
        ({**MANY, "shared": 1000}, ["online"]),
        ({**MANY, "shared": 1000, "clusters": True}, ["online"] if name == "logsumexp" else ["cluster"]),
    ):
        if device.get("clusters") and not HAS_CLUSTERS:
            continue
        with Watched(**device) as kernels:
            bits.append(call(name, on_gpu(x, offset * 8)))
        assert kernels == expected
    assert_accurate(name, bits[0], x)
    assert all(same_bits(bits[0], other) for other in bits[1:])


@every_map
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
def test_shared_lanes_of_other_dtypes(name, dtype):
    x = normal((1, 3 * 1024 + 3), dtype, scale=4.0)
    with Watched(**MANY) as kernels:
        kept = call(name, on_gpu(x, 2 * np.dtype(dtype).itemsize))
    assert kernels == ["shared"]
    with Watched(**FEW) as kernels:
        assert same_bits(kept, call(name, x))
    assert_accurate(name, kept, x)


@every_map
@pytest.mark.parametrize(("dtype", "length"), [(np.float32, 300), (BFLOAT16, 300), (np.float64, 150), (np.float16, 20)])
def test_where_a_row_begins(name, dtype, length):
    """A lane's bits do not depend on the address of its first byte, nor on that of its result."""
    x = normal((1, length), dtype, scale=4.0)
    expected = call(name, x)
    size = np.dtype(dtype).itemsize
    for first in range(size, 16, size):
        out = on_gpu(np.zeros_like(x), (3 * first) % 16)
        assert same_bits(call(name, on_gpu(x, first), out=out), expected)


@every_function
@pytest.mark.parametrize("length", [5, 130, 1030])
def test_company(name, length):
    """Alone, in any place among others, and in rows that are padded, reversed or apart."""
    x = normal((3, length), np.float32, scale=4.0)
    together = call(name, x)
    assert same_bits(together[1:2], call(name, x[1:2]))
    wide = np.zeros((3, 2 * length + 7), np.float32)
    for view in (wide[:, 3 : length + 3], wide[:, 1 : 2 * length + 1 : 2], wide[::-1, :length]):
        if view.strides[0] > 0 or REVERSES:
            view[...] = x
            (given,) = seen(wide, view)
            assert same_bits(call(name, given), together)


@every_function
def test_columns_and_their_company(name):
    """The bits of a column do not depend on how many there are, nor on whether vectors fit."""
    x = normal((40, 24), np.float32, scale=4.0)
    with Watched() as kernels:
        expected = call(name, x, 0)
        for columns in (slice(0, 9), slice(3, 16), slice(5, 24)):
            got = call(name, x[:, columns], 0)
            assert same_bits(got, expected[..., columns])
    assert set(kernels) == {"columns"}


@every_map
@pytest.mark.parametrize(("shape", "axis"), [((2, 300), 1), ((3, 1100), 1), ((70, 12), 0)])
def test_in_place(name, shape, axis):
    x = normal(shape, np.float32, scale=4.0)
    expected = call(name, x, axis)
    here = on_gpu(x)
    assert same_bits(call(name, here, axis, out=here), expected)


def test_in_place_where_lanes_are_read_twice():
    x = normal((1, 3 * 512 + 5), np.float64)
    for device in ({**MANY, "shared": 1000}, FEW):
        with Watched(**device):
            expected = call("softmax", on_gpu(x, 8))
            here = on_gpu(x, 8)
            assert same_bits(call("softmax", here, out=here), expected)
