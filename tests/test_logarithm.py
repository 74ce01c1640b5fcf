"""log(ties + rest), also where it is next to nothing: within 2.5 ULP, and within 2**-34 where that is enough."""

import numpy as np
import pytest
from mpmath import mp, mpf
from numba import njit

from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.logarithm import inverses, log_of_sum, logs_of_sums
from softmax_numba.cpu.memory import load, store


@njit
def logarithms(ties, rest):
    result = np.empty_like(rest)
    for i in range(rest.size):
        result[i] = log_of_sum(ties[i], rest[i])
    return result


def ulps(ties, rest):
    got = logarithms(ties, rest)
    with mp.workprec(1200):
        exact = [mp.log(mpf(t) + mpf(r)) for t, r in zip(ties.tolist(), rest.tolist(), strict=True)]
        return max(
            float(abs(mpf(g) - e) / mpf(float(np.spacing(abs(float(e))))))
            for g, e in zip(got.tolist(), exact, strict=True)
        )


def test_next_to_zero():
    rng = np.random.default_rng(0)
    rest = 2.0 ** rng.uniform(-1000, 0, 3000)
    assert ulps(np.ones_like(rest), rest) <= 2.5


def test_any_sum():
    rng = np.random.default_rng(1)
    ties = np.floor(2.0 ** rng.uniform(0, 24, 3000))
    assert ulps(ties, 2.0 ** rng.uniform(-60, 31, 3000)) <= 2.5
    assert ulps(ties, np.zeros_like(ties) + (ties == 1)) <= 2.5


def test_around_powers_of_two():
    """Where the exponent changes, and at sqrt(2), where the reduction does."""
    centres = np.array([1.0, np.sqrt(2), 2.0, np.sqrt(8), 4.0, 2.0**20])
    sums = (centres[:, None] * (1 + np.arange(-50, 51) * 2.0**-52)).ravel()
    sums = sums[sums > 1]
    assert ulps(np.ones_like(sums), sums - 1) <= 2.5


def test_special_values():
    assert logarithms(np.array([1.0]), np.array([0.0]))[0] == 0.0
    assert np.isnan(logarithms(np.array([1.0, np.nan]), np.array([np.nan, 1.0]))).all()


# What lanes of float32 take: sixteen of them at once, as two vectors, whose rest comes in units of the largest term.


@njit(error_model="numpy")
def of_sixteen(ties, unit, rest, logs, quotients):
    t, u, r, to, over = start_of(ties), start_of(unit), start_of(rest), start_of(logs), start_of(quotients)
    for i in range(0, rest.size, 16):
        many, units, rests = (load(t, i), load(t, i + 8)), (load(u, i), load(u, i + 8)), (load(r, i), load(r, i + 8))
        low, high = logs_of_sums(many, units, rests)
        store(to, i, low)
        store(to, i + 8, high)
        low, high = inverses(load(r, i), load(r, i + 8))
        store(over, i, low)
        store(over, i + 8, high)


def sixteen(ties, unit, rest):
    logs, quotients = np.empty_like(rest), np.empty_like(rest)
    of_sixteen(ties, unit, rest, logs, quotients)
    return logs, quotients


@pytest.mark.parametrize("octaves", [(-120, 0), (-60, 31), (-0.001, 0.001), (-1, 1)])
def test_vectors_of_lanes(octaves):
    """Relative to the logarithm itself, be it 2**-120."""
    rng = np.random.default_rng(2)
    ties = np.ones(3200)
    ties[1600:] = np.floor(2.0 ** rng.uniform(0, 12, 1600))
    unit = np.float64(np.float32(2.0 ** rng.uniform(29.5, 30.5, ties.size)))
    rest = unit * 2.0 ** rng.uniform(*octaves, ties.size)
    logs, quotients = sixteen(ties, unit, rest)
    with mp.workprec(400):
        numbers = zip(ties.tolist(), unit.tolist(), rest.tolist(), strict=True)
        exact = [mp.log(mpf(t) + mpf(r) / mpf(u)) for t, u, r in numbers]
        error = max(float(abs(mpf(x) / e - 1)) for x, e in zip(logs.tolist(), exact, strict=True))
        of_quotients = max(
            float(abs(mpf(q) * mpf(r) - 1)) for q, r in zip(quotients.tolist(), rest.tolist(), strict=True)
        )
    assert error <= 2.0**-34
    assert of_quotients <= 2.0**-45


def test_vectors_around_powers_of_two():
    """Where the exponent changes, which is told from the bits of the sum less those of the unit."""
    unit = np.repeat(np.float64(np.float32(2.0**29 * np.array([1.42, 1.5, 1.75, 1.999, 2.0, 2.5, 2.8]))), 320)
    sums = np.tile(np.exp2(np.repeat([0.4, 0.5, 0.6, 1.5, 11.5], 64) + np.tile(np.linspace(-0.1, 0.1, 64), 5)), 7)
    rest = unit * (sums - 1)
    logs, _ = sixteen(np.ones_like(sums), unit, rest)
    with mp.workprec(400):
        exact = [mp.log1p(mpf(r) / mpf(u)) for r, u in zip(rest.tolist(), unit.tolist(), strict=True)]
        error = max(float(abs(mpf(x) / e - 1)) for x, e in zip(logs.tolist(), exact, strict=True))
    assert error <= 2.0**-34


def test_vectors_of_special_lanes():
    """No rest at all is a logarithm of 0; NaN stays."""
    ties, rest = np.repeat([1.0, np.nan], 8), np.repeat([0.0, 1.0, np.nan, 1.0], 4)
    logs, _ = sixteen(ties, np.full(16, 1.25), rest)
    assert (logs[:4] == 0).all()
    assert np.isnan(logs[8:]).all()
    assert not np.isnan(logs[4:8]).any()
