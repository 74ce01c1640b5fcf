"""log_of_sum: log(ties + rest) within 2.5 ULP, also where it is next to nothing."""

import numpy as np
from mpmath import mp, mpf
from numba import njit

from softmax_numba.cpu.logarithm import log_of_sum


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
