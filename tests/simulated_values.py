"""The kernels' values in the simulator: the contract's table and its accuracy, in every dtype and by every plan."""

import numpy as np
import pytest
from gpu_cases import Watched, call, on_gpu
from grids import every_dtype, every_function, normal, sums_to_one
from oracle import BFLOAT16, assert_accurate, log_softmax, ulp

INF, NAN = np.inf, np.nan

# Below and above what a vector, a warp's tile and one vector less hold of any dtype.
LENGTHS = (1, 2, 7, 8, 33, 130, 515)


@every_function
@every_dtype
@pytest.mark.parametrize("length", LENGTHS)
def test_rows(name, dtype, length):
    x = normal((3, length), dtype, scale=6.0, seed=length)
    assert_accurate(name, call(name, x), x)


@every_function
@pytest.mark.parametrize(("dtype", "length"), [(np.float32, 2100), (BFLOAT16, 1100), (np.float64, 1025)])
def test_rows_of_a_block(name, dtype, length):
    x = normal((1, length), dtype, scale=6.0)
    with Watched(multiprocessors=0) as kernels:
        assert_accurate(name, call(name, x), x)
    assert kernels == ["block"]


@every_function
@every_dtype
def test_columns(name, dtype):
    x = normal((70, 11), dtype, scale=6.0)
    with Watched() as kernels:
        assert_accurate(name, call(name, x, 0), x, 0)
    assert kernels == ["columns"]


TABLE = [
    [0.0, 1.0, NAN, 2.0],
    [0.0, INF, 1.0, -INF],
    [INF, INF, 0.0, 1.0],
    [INF, NAN, 0.0, 1.0],
    [-INF, -INF, -INF, -INF],
    [-INF, NAN, -INF, -INF],
    [0.0, -INF, 1.0, -INF],
    [3.0, 3.0, 3.0, 3.0],
    [NAN, NAN, NAN, NAN],
    [-100.0, 0.0, -INF, 80.0],
]


@every_function
@every_dtype
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nans(name, dtype, axis):
    x = np.array(TABLE).astype(dtype)
    x = np.ascontiguousarray(x.T) if axis == 0 else x
    assert_accurate(name, call(name, x, axis), x, axis)


@every_function
@every_dtype
def test_lanes_of_one(name, dtype):
    x = np.array([[1.5], [-3.0], [0.0], [NAN], [INF], [-INF]]).astype(dtype)
    found = call(name, x).astype(float)
    if name == "logsumexp":
        assert np.array_equal(found, x[:, 0].astype(float), equal_nan=True)
    else:
        assert (found[:3] == (name == "softmax")).all() and np.isnan(found[3:]).all()


@every_function
def test_empty_lanes_and_arrays(name):
    for shape, axis in (((2, 0), 1), ((0, 3), 1), ((0, 3), 0), ((2, 0, 3), (1, 2))):
        found = call(name, np.zeros(shape, np.float32), axis)
        if name == "logsumexp":
            assert (found == -INF).all() and found.size == (2 if axis in (1, (1, 2)) and shape[0] else found.size)
        else:
            assert found.shape == shape


@every_function
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [9000.0, -9000.0, 2.0**22, 3e38, -3e38])
def test_large_entries(name, dtype, shift):
    """Within the contract's 1e4, beyond the reach of the reduction, and at the end of float32."""
    x = (np.linspace(-60, 0, 150) * (1 if abs(shift) < 1e30 else 1e30) + shift).astype(dtype).reshape(1, -1)
    found = call(name, x)
    assert np.isfinite(found.astype(float)).sum() > 0 and not np.isnan(found).any()
    if abs(shift) < 1e4:
        assert_accurate(name, found, x)
    elif name == "softmax":
        assert sums_to_one(found)


def test_parts_on_both_sides_of_the_reach():
    """Tiles of a lane of which some are shifted by their maximum and some are not."""
    x = np.linspace(7.2e5, 7.3e5, 2100).astype(np.float32).reshape(1, -1)
    x[0, -1] = 7.268e5 + 5e-2
    x[0, 1000:1010] = np.float32(2.0**20 / 1.4426950408889634) + np.arange(-5, 5)
    with Watched(multiprocessors=0):
        assert_accurate("softmax", call("softmax", x), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradual_underflow(dtype):
    low = -103.0 if dtype is np.float32 else -744.0
    x = np.linspace(low, 0, 130).astype(dtype).reshape(1, -1)
    found = call("softmax", x)
    assert_accurate("softmax", found, x)
    assert (found[found > 0] < np.finfo(dtype).tiny).any()
    long = np.concatenate([x, np.full((1, 2500), low - 200, dtype)], axis=1)  # the last tiles vanish
    with Watched(multiprocessors=0):
        assert_accurate("softmax", call("softmax", long), long)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_softmax_near_zero(dtype):
    """log1p of the rest: relative accuracy where the largest entry has nearly all."""
    for gap in (5.0, 20.0, 60.0):
        x = np.zeros((1, 40), dtype)
        x[0, 3] = gap
        exact = log_softmax(x)[0, 3]
        assert abs(call("log_softmax", x)[0, 3].astype(np.longdouble) - exact) <= 8 * ulp(exact, dtype)


def test_equal_entries_are_exact():
    for n in (4, 64, 1024):
        assert (call("softmax", np.full((1, n), 0.7, np.float32)) == np.float32(1) / n).all()


@pytest.mark.parametrize("kind", ["int32", "uint8", "int64", "bool"])
def test_integers_count_as_float64(kind):
    x = (np.arange(12).reshape(2, 6) % 5).astype(kind)
    found = call("softmax", x)
    assert found.dtype == np.float64
    assert_accurate("softmax", found, x.astype(np.float64))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("float16", "float32"), ("float32", "float16"), ("float32", "float64"), ("float64", "bfloat16")],
)
def test_dtype_of_the_result(given, wanted):
    x = normal((2, 20), given, scale=2.0)
    found = call("softmax", on_gpu(x), dtype=wanted)
    assert found.dtype.name == wanted
    assert_accurate("softmax", found, x)
