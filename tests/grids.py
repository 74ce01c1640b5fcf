"""The grids that the contract's tests share: functions, dtypes, memory orders, arrangements and layouts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from oracle import DTYPE_IDS, DTYPES, eps, wide

import softmax_numba

MAPS = {"softmax": softmax_numba.softmax, "log_softmax": softmax_numba.log_softmax}
FUNCTIONS = MAPS | {"logsumexp": softmax_numba.logsumexp}

every_function = pytest.mark.parametrize("name", FUNCTIONS)
every_map = pytest.mark.parametrize("name", MAPS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=DTYPE_IDS)
every_order = pytest.mark.parametrize("order", ["C", "F"])
no_warnings = pytest.mark.filterwarnings("error")


def normal(shape, dtype, scale=3.0, shift=0.0, seed=0, order="C") -> np.ndarray:
    """Normal deviates rounded to `dtype`."""
    rng = np.random.default_rng([seed, *np.atleast_1d(shape)])
    return np.asarray((rng.normal(size=shape) * scale + shift).astype(dtype), order=order)


def arranged(lanes, order="C") -> Iterator[tuple[np.ndarray, int]]:
    """The rows of a 2-D array as lanes along each axis of 2-D and 4-D arrays: ``(array, axis)``."""
    m, n = lanes.shape
    yield np.asarray(lanes, order=order), 1
    yield np.asarray(lanes.T, order=order), 0
    four = lanes.reshape(1, m, 1, n)
    for axis in range(-4, 0):
        yield np.asarray(np.moveaxis(np.concatenate([four, four]), 3, axis), order=order), axis


def lanes_of(y, axis) -> np.ndarray:
    """The lanes of `y` along `axis` as rows."""
    y = np.moveaxis(np.asarray(y), axis, -1)
    return y.reshape(-1, y.shape[-1])


def layouts(values) -> dict[str, np.ndarray]:
    """The same 2-D `values` in memory as a caller may hold them; compare each with the first."""
    m, n = values.shape
    every_other = np.zeros((2 * m, 2 * n), values.dtype)[::2, ::2]
    padded = np.zeros((m, n + 3), values.dtype)[:, 1 : n + 1]
    spread_lanes = np.zeros((m, 3 * n), values.dtype)[:, 1::3]
    for view in (every_other, padded, spread_lanes):
        view[...] = values
    unaligned = np.frombuffer(b"\0" + values.tobytes(), np.uint8)[1:].view(values.dtype).reshape(m, n)
    read_only = values.copy()
    read_only.flags.writeable = False
    found = {
        "C order": values.copy(),
        "Fortran order": np.asfortranarray(values),
        "both axes reversed": values[::-1, ::-1].copy()[::-1, ::-1],
        "lanes reversed": np.ascontiguousarray(values[:, ::-1])[:, ::-1],
        "every other": every_other,
        "rows with padding": padded,
        "every third along the lanes": spread_lanes,
        "read-only": read_only,
        "not aligned": unaligned,
        "transposed from three dimensions": np.stack([values, values]).transpose(2, 0, 1).copy()[:, 1].T,
    }
    if values.dtype.kind == "f" and values.dtype.name != "bfloat16":
        found["big-endian"] = values.astype(values.dtype.newbyteorder(">"))
    return found


def sums_to_one(y, axis=-1) -> bool:
    """Each lane of probabilities sums to 1 within ``4 eps sqrt(length)``."""
    y = np.asarray(y)
    total = wide(y).sum(axis=axis)  # longdouble: NumPy sums columns one by one, not pairwise
    length = y.size // max(total.size, 1)
    return bool(np.all(np.abs(total - 1) <= 4 * eps(y.dtype) * np.sqrt(length)))
