"""The ways back through softmax and log_softmax: results and cotangents to try them on, and what is right."""

import numpy as np
import pytest
from grids import normal
from loss_oracle import assert_close, log_softmax_vjp, softmax_vjp
from oracle import EXACT

import softmax_numba

WAYS_BACK = {"softmax": softmax_numba.softmax_vjp, "log_softmax": softmax_numba.log_softmax_vjp}
EXACT_WAYS_BACK = {"softmax": softmax_vjp, "log_softmax": log_softmax_vjp}
GONE = {"softmax": 0.0, "log_softmax": -np.inf}  # the result at a masked-out place
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

# Cotangents of any size, some of one sign, so that a sum may be far larger than its terms.
CHARACTERS = ((1.0, 0.0), (1e-3, 1.0), (1e3, 5.0), (1.0, -100.0), (0.0, 1.0))


def forward(name, shape, dtype, axis=-1, seed=0, scale=4.0, **how):
    """A result of `name`, as right as its dtype can have it."""
    return np.asarray(EXACT[name](normal(shape, dtype, scale=scale, seed=seed), axis, **how)).astype(dtype, order="C")


def cotangent(shape, dtype, seed=0):
    rng = np.random.default_rng([seed, 1, *np.atleast_1d(shape)])
    scale, shift = CHARACTERS[seed % len(CHARACTERS)]
    return np.asarray(rng.normal(size=shape) * scale + shift).astype(dtype)


def assert_right(name, y, dy, axis=-1, **how):
    """The way back of `name`, within its bound and exactly 0 where nothing came through."""
    dx = WAYS_BACK[name](y, dy, axis, **how)
    given = np.asarray(y).dtype
    assert dx.dtype == (np.float64 if given.kind in "iub" else given.newbyteorder("="))
    assert (np.asarray(dx)[np.asarray(y) == GONE[name]] == 0).all()
    assert_close(dx, EXACT_WAYS_BACK[name](y, dy, axis, **how), f"{name}_vjp of {np.shape(y)} along {axis}")
    return dx
