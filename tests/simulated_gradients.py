"""The ways back through softmax and log_softmax on a GPU, in the simulator."""

import numpy as np
import pytest
from gpu_cases import HAS_CLUSTERS, Watched, host, is_on_gpu, on_gpu, seen
from grids import every_dtype, every_map, normal
from loss_oracle import assert_close, log_softmax_vjp, softmax_vjp
from oracle import EXACT, same_bits

import softmax_numba

EXACT_WAYS_BACK = {"softmax": softmax_vjp, "log_softmax": log_softmax_vjp}


def forward(name, shape, dtype, axis=-1, **how):
    return np.asarray(EXACT[name](normal(shape, dtype, scale=4.0), axis, **how)).astype(dtype, order="C")


def back(name, y, dy, axis=-1, **how):
    given = [value if is_on_gpu(value) else on_gpu(value) for value in (y, dy)]
    return host(getattr(softmax_numba, f"{name}_vjp")(*given, axis, **how))


def assert_right(name, y, dy, axis=-1, **how):
    found = back(name, y, dy, axis, **{k: on_gpu(v) if isinstance(v, np.ndarray) else v for k, v in how.items()})
    assert (found[y == {"softmax": 0.0, "log_softmax": -np.inf}[name]] == 0).all()
    assert_close(found, EXACT_WAYS_BACK[name](y, dy, axis, **how), f"{name}_vjp of {y.shape}")
    return found


@every_map
@every_dtype
@pytest.mark.parametrize("length", [1, 7, 40, 515])
def test_rows(name, dtype, length):
    assert_right(name, forward(name, (2, length), dtype), normal((2, length), dtype, seed=1))


MANY, FEW = {"multiprocessors": 0, "warps": 2}, {"multiprocessors": 1000, "warps": 2}
CLUSTERS = {**MANY, "clusters": True}


@every_map
@pytest.mark.parametrize(("dtype", "tile"), [(np.float32, 512), (np.float64, 256)])
def test_longer_rows(name, dtype, tile):
    """By a block in registers, several blocks, two reads and a cluster: the same bits, wherever a row begins."""
    for length, ways in (
        (2 * tile - 3, ((MANY, ["vjp block"]),)),
        (5 * tile + 5, ((MANY, ["vjp online"]), (FEW, ["vjp survey", "vjp finish"]), (CLUSTERS, ["vjp cluster"]))),
    ):
        y, dy = forward(name, (1, length), dtype), normal((1, length), dtype, seed=1)
        found = []
        for device, expected in ways:
            if device is CLUSTERS and not HAS_CLUSTERS:
                continue
            with Watched(**device) as kernels:
                found.append(assert_right(name, y, dy))
            assert kernels == expected
            with Watched(**device):
                assert same_bits(back(name, on_gpu(y, 8), on_gpu(dy, 8)), found[0])
                here = on_gpu(y)
                assert same_bits(back(name, here, dy, out=here), found[0])
                assert_right(name, y, dy, temperature=np.array([[0.5]]))
        assert all(same_bits(other, found[0]) for other in found)


@every_map
@every_dtype
@pytest.mark.parametrize("length", [11, 70])
def test_columns(name, dtype, length):
    """In registers and read twice; the same bits among any number of others, aligned or not."""
    y, dy = forward(name, (length, 19), dtype, 0), normal((length, 19), dtype, seed=1)
    with Watched() as kernels:
        expected = assert_right(name, y, dy, 0)
        wide = [np.zeros((length, 32), dtype) for _ in range(2)]
        for room, values in zip(wide, (y, dy), strict=True):
            room[:, :19] = values
        for columns in (slice(0, 16), slice(3, 19)):
            given = [seen(room, room[:, columns])[0] for room in wide]
            assert same_bits(back(name, *given, 0), expected[:, columns])
    assert set(kernels) == {"vjp columns"}


@every_map
@pytest.mark.parametrize("axis", [0, 1, (0, 2), None])
@pytest.mark.parametrize("temperature", [0.25, 1e-31, "lanes"])
def test_axes_and_temperatures(name, axis, temperature):
    shape = (4, 5, 6)
    if temperature == "lanes":
        lanes = [1 if axis is None or i in np.atleast_1d(axis) else n for i, n in enumerate(shape)]
        temperature = np.random.default_rng(1).uniform(0.5, 2.0, lanes)
    y = forward(name, shape, np.float64 if np.size(temperature) == 1 and temperature < 1e-30 else np.float32, axis)
    assert_right(name, y, normal(shape, y.dtype, seed=1), axis, temperature=temperature)


@every_map
def test_masked_out_places(name):
    """Whatever dy is there."""
    where = np.random.default_rng(2).random((3, 50)) < 0.5
    y = forward(name, (3, 50), np.float32, where=where)
    dy = normal((3, 50), np.float32, seed=1)
    expected = back(name, y, np.where(where, dy, 0).astype(np.float32))
    dy[~where] = np.nan
    assert same_bits(back(name, y, dy), expected)


@every_map
def test_two_dtypes(name):
    y, dy = forward(name, (2, 30), np.float16), normal((2, 30), np.float32, seed=1)
    found = back(name, y, dy)
    assert found.dtype == np.float16
    assert_close(found, EXACT_WAYS_BACK[name](y, dy), name)


def test_errors():
    y = np.full((2, 3), 1 / 3, np.float32)
    with pytest.raises(ValueError, match=r"one shape; got \(2, 3\) and \(3,\)"):
        back("softmax", y, y[0])
    with pytest.raises(ValueError, match="one device"):
        softmax_numba.softmax_vjp(on_gpu(y), y)
