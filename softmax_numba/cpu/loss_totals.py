"""What is added up over the lanes of a loss, and what is counted of its targets."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from softmax_numba.cpu.arrays import start_of
from softmax_numba.cpu.compiled import compiled_for, once
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.loss import as_one
from softmax_numba.cpu.memory import filled, load
from softmax_numba.cpu.sums import as_total, collapsed, plus, two_sum

# Numbers beyond the last class, and losses beyond the last lane, that vectors may read: zeros.
SPARE = 64


@inlined
def added_up(losses):
    """The sum of float64 values, whose number is a multiple of 8."""
    p = start_of(losses)
    zero = filled(p, 0.0)
    total = as_total(zero)
    for i in range(0, losses.shape[0], 8):
        total = plus(zero, total, as_total(load(p, i)))
    high, low = collapsed(zero, total)
    return as_one(high, low)


@inlined
def counts_of(targets, classes, ignore):
    """How many class indices count, and how many of those are out of range."""
    counted = wrong = 0
    for i in range(targets.shape[0]):
        counts = np.int64(targets[i] != ignore)
        counted += counts
        wrong += counts & np.int64((targets[i] < 0) | (targets[i] >= classes))
    return counted, wrong


@once
def _adder() -> Callable:
    def sum_of_losses(values):
        return added_up(values)

    return compiled_for(
        compiled(sum_of_losses, "sum_of_losses"), "sum_of_losses", (types.Array(types.float64, 1, "C"),)
    )


def sum_of(values: np.ndarray) -> float:
    """The sum of float64 values, whose number is a multiple of 8, in twice the precision and always in one order."""
    return float(_adder()(values))


@once
def _examiner() -> Callable:
    def examine_targets(targets, classes, ignore):
        return counts_of(targets, classes, ignore)

    indices = types.Array(types.int64, 1, "C", readonly=True)
    signature = (indices, types.int64, types.int64)
    return compiled_for(compiled(examine_targets, "examine_targets"), "examine_targets", signature)


def examine(targets: np.ndarray, classes: int, ignore: int) -> tuple[int, int]:
    """How many class indices count, and how many of those are out of range."""
    return _examiner()(targets, classes, ignore)


@once
def _weigher() -> Callable:
    def weigh_targets(targets, weights, ignore):
        high = low = 0.0
        for i in range(targets.shape[0]):
            if targets[i] != ignore:
                high, error = two_sum(high, weights[targets[i]])
                low += error
        return high + low

    indices = types.Array(types.int64, 1, "C", readonly=True)
    weights = types.Array(types.float64, 1, "C", readonly=True)
    return compiled_for(compiled(weigh_targets, "weigh_targets"), "weigh_targets", (indices, weights, types.int64))


def weigh(targets: np.ndarray, weights: np.ndarray, ignore: int) -> float:
    """The sum of the weights of the class indices that count."""
    return float(_weigher()(targets, weights, ignore))


def padded(values: Any, dtype: np.dtype) -> np.ndarray:
    """Numbers a class, followed by zeros."""
    given = np.asarray(values)
    result = np.zeros(given.size + SPARE, dtype)
    result[: given.size] = given
    return result
