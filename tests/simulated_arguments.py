"""Arguments of calls on a GPU, in the simulator: masks, temperatures, out, axes and strides, errors."""

import numpy as np
import pytest
from gpu_cases import REVERSES, Gpu, Watched, call, host, on_gpu, only_stand_ins, seen
from grids import every_function, every_map, normal
from oracle import BFLOAT16, assert_accurate, same_bits

import softmax_numba


@every_function
@pytest.mark.parametrize("axis", [0, 1, (0, 1)])
def test_where(name, axis):
    """What is masked out is never seen; a lane with nothing left has the contract's values."""
    x = normal((9, 40), np.float32, scale=4.0)
    where = np.random.default_rng(1).random(x.shape) < 0.7
    where[4], where[:, 5] = False, False
    x[~where] = np.nan
    x[2, 3], where[2, 3] = -np.inf, True
    assert_accurate(name, call(name, x, axis, where=on_gpu(where)), x, axis, where=where)


@every_function
@pytest.mark.parametrize("shape", [(40,), (3, 1), (1, 40), ()])
def test_where_is_broadcast(name, shape):
    x = normal((3, 40), np.float32)
    where = np.random.default_rng(2).random(shape) < 0.6
    assert_accurate(name, call(name, x, where=on_gpu(where)), x, where=where)


def test_where_of_a_list():
    x = normal((2, 3), np.float32)
    where = [True, False, True]
    assert_accurate("softmax", call("softmax", x, where=where), x, where=np.array(where))


@every_map
@pytest.mark.parametrize("temperature", [0.5, 1e-2, 37.0, 1e-35, np.float32(3.0)])
def test_one_temperature(name, temperature):
    x = normal((2, 50), np.float32) * min(float(temperature), 1.0)
    assert_accurate(name, call(name, x, temperature=temperature), x, temperature=float(temperature))


@every_map
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((3, 50), 1), ((20, 9), 0), ((2, 1100), 1)])
def test_a_temperature_for_each_lane(name, dtype, shape, axis):
    x = normal(shape, dtype)
    lanes = tuple(1 if i == axis else n for i, n in enumerate(shape))
    heat = np.random.default_rng(3).uniform(0.3, 3.0, lanes)
    found = call(name, x, axis, temperature=on_gpu(heat))
    assert_accurate(name, found, x, axis, temperature=heat)
    assert same_bits(found, call(name, x, axis, temperature=heat.tolist()))
    for one in range(1, 3):  # as if given alone
        lane = (slice(one, one + 1), slice(None)) if axis == 1 else (slice(None), slice(one, one + 8))
        assert_accurate(
            name, call(name, x[lane], axis, temperature=on_gpu(heat[lane])), x[lane], axis, temperature=heat[lane]
        )


def test_temperatures_that_are_none():
    """They cannot be reported without waiting for the device: their lanes are NaN."""
    heat = np.array([[1.0], [0.0], [-1.0], [np.nan], [np.inf]])
    found = call("softmax", np.zeros((5, 4), np.float32), temperature=on_gpu(heat))
    assert (found[0] == 0.25).all() and np.isnan(found[1:]).all()


@every_function
@pytest.mark.parametrize("axis", [0, 1, 2, 3, (0, 2), (1, 3), (0, 1, 2, 3), None, ()])
def test_axes(name, axis):
    x = normal((2, 3, 4, 5), np.float32)
    assert_accurate(name, call(name, x, axis), x, axis)
    if name == "logsumexp":
        assert_accurate(name, call(name, x, axis, keepdims=True), x, axis, keepdims=True)


@every_function
def test_strides(name):
    base = normal((8, 6, 10), np.float32)
    for view in (
        base[:: -1 if REVERSES else 3, ::2, 3:],
        base.transpose(2, 0, 1),
        base[:, :1],
        np.broadcast_to(base[0], (3, 6, 10)),
    ):
        for axis in (0, -1, (0, 2)):
            (given,) = seen(base, view)
            assert_accurate(name, call(name, given, axis), view, axis)


@every_function
def test_no_dimensions(name):
    x = np.array(2.0, np.float32)
    found = call(name, x, None)
    assert found.shape == () and found == {"softmax": 1.0, "log_softmax": 0.0, "logsumexp": 2.0}[name]


@every_function
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
def test_out(name, dtype):
    x = normal((3, 40), dtype)
    expected = call(name, x)
    out = on_gpu(np.zeros_like(expected))
    assert getattr(softmax_numba, name)(on_gpu(x), out=out) is out
    assert same_bits(host(out), expected)
    room = np.zeros((*expected.shape[:-1], 2 * expected.shape[-1]), dtype)
    (strided,) = seen(room, room[..., :: -2 if REVERSES else 2])
    call(name, x, out=strided)
    assert same_bits(host(strided), expected)


def test_out_overlaps_x():
    room = np.zeros(170, np.float32)
    x = normal((4, 40), np.float32)
    expected = call("softmax", x)
    for begin, step in ((7, 1), (0, 1), (3, 1)):
        given, out = room[3:163].reshape(4, 40), room[begin : begin + 160 : step].reshape(4, 40)
        given[...] = x
        given, out = seen(room, given, out)
        call("softmax", given, out=out)
        assert same_bits(host(out), expected)


X = np.zeros((2, 3), np.float32)
FROZEN = X.copy()
FROZEN.flags.writeable = False

WRONG = {
    "axis": ({"axis": 2}, np.exceptions.AxisError, ["2"]),
    "a mask on the CPU": ({"where": np.ones(3, bool)}, ValueError, ["one device", "x on the GPU", "where on the CPU"]),
    "out on the CPU": ({"out": X.copy()}, ValueError, ["one device", "out on the CPU"]),
    "out on another GPU": ({"out": Gpu(X.copy(), at=1)}, ValueError, ["one device", "GPU 0", "GPU 1"]),
    "a mask of integers": ({"where": on_gpu(np.ones(3, np.int32))}, TypeError, ["where", "int32", "bool"]),
    "a mask too long": ({"where": on_gpu(np.ones(4, bool))}, ValueError, ["where", "(4,)", "(2, 3)"]),
    "out of another shape": ({"out": on_gpu(X[:1])}, ValueError, ["out", "(1, 3)", "(2, 3)"]),
    "out of another dtype": ({"out": on_gpu(X.astype("f8"))}, TypeError, ["out", "float64", "float32"]),
    "out read-only": ({"out": Gpu(FROZEN)}, ValueError, ["out", "read-only"]),
    "temperature zero": ({"temperature": 0.0}, ValueError, ["temperature", "0", "positive"]),
    "temperatures along the lane": ({"temperature": on_gpu(np.ones(3))}, ValueError, ["temperature", "(3,)", "(2, 1)"]),
    "dtype": ({"dtype": "int8"}, TypeError, ["int8", "float64"]),
}


@only_stand_ins
@pytest.mark.parametrize("case", WRONG)
def test_errors(case):
    how, kind, words = WRONG[case]
    with pytest.raises(kind) as error:
        call("softmax", X, **how)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_complex_arrays():
    with pytest.raises(TypeError, match="complex64"):
        call("softmax", X.astype(np.complex64))


def test_x_on_the_cpu_and_a_mask_on_the_gpu():
    with pytest.raises(ValueError, match="one device"):
        softmax_numba.softmax(X, where=on_gpu(np.ones(3, bool)))


def test_a_call_of_many_lanes_is_cut(monkeypatch):
    """Kernels divide 32-bit numbers: beyond, a call becomes several launches."""
    from softmax_numba.gpu import walk

    monkeypatch.setattr(walk, "MOST_LANES", 8)
    x = normal((5, 4, 6), np.float32)
    heat = np.random.default_rng(3).uniform(0.5, 2, (5, 1, 6))
    where = np.random.default_rng(4).random((5, 4, 6)) < 0.8
    with Watched() as kernels_run:
        found = call("softmax", x, 1, where=on_gpu(where), temperature=on_gpu(heat))
    assert kernels_run.count("several") > 1
    assert_accurate("softmax", found, x, 1, where=where, temperature=heat)
