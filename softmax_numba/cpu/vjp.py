"""The cotangents of x from those of softmax(x) and log_softmax(x), and from the functions' own results.

    softmax      y (dy - sum(y dy)) / T
    log_softmax  (dy - exp(y) sum(dy)) / T, where y is finite; a place that is -inf stays there, and counts for nothing

The sums have twice the precision of their terms and the order of lane.py, in rows and columns alike. The products of
16-bit values are exact in float32, or below its normal numbers; four of them are added in it, as lane.py adds
exponentials.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.exponential import Reference, Scale, exp_relative, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.simd import fma, select, times
from softmax_numba.cpu.sums import as_total, plus, plus_product, product_total


class One(NamedTuple):
    """What exp(y) is computed relative to: exp(0), and what that comes to."""

    ref: Reference
    scale: Scale
    inverse: float


@inlined
def softmax_term(y, dy):
    return product_total(y, select(y == 0.0, 0.0, dy))


@inlined
def softmax_more(total, y, dy):
    return plus_product(total, y, select(y == 0.0, 0.0, dy))


@inlined
def narrow_softmax_term(y, dy):
    return y * select(y == 0.0, 0.0, dy)


@inlined
def narrow_softmax_more(term, y, dy):
    return term + narrow_softmax_term(y, dy)


@inlined
def softmax_cotangent(y, dy, total, inverse, one):
    return select(y == 0.0, 0.0, times(fma(y, dy - total, 0.0), inverse))  # 0, not -0


@inlined
def finite_term(y, dy):
    return product_total(y, dy)


@inlined
def finite_more(total, y, dy):
    return plus_product(total, y, dy)


@inlined
def narrow_term(y, dy):
    return y * dy


@inlined
def narrow_more(term, y, dy):
    return term + y * dy


@inlined
def finite_cotangent(y, dy, total, inverse, one):
    return times(fma(y, dy - total, 0.0), inverse)


@inlined
def log_softmax_term(y, dy):
    return as_total(select(y == -np.inf, 0.0, dy))


@inlined
def log_softmax_more(total, y, dy):
    return plus(y, total, log_softmax_term(y, dy))


@inlined
def log_softmax_cotangent(y, dy, total, inverse, one):
    p = exp_relative(y, one.ref, one.scale) * one.inverse
    return select(y == -np.inf, 0.0, times(dy - p * total, inverse))


class Steps(NamedTuple):
    """What is done to two vectors, or four."""

    term: Callable  # what they have of a lane's sum: a running sum, or a vector
    more: Callable  # the term of others with theirs
    cotangent: Callable  # of each place, from the sum


@dataclass(frozen=True, eq=False)
class Backward:
    """The way back through one function."""

    name: str
    steps: Steps
    # The same without a look at each place, for lanes whose sum this makes finite: then dy is, wherever y is 0, and so
    # is dy - total unless one of them is beyond half the type's largest number.
    finite: Steps | None
    narrow: "Backward | None" = None  # the way back of 16-bit values, if it is another


SOFTMAX_VJP = Backward(
    "softmax_vjp",
    Steps(softmax_term, softmax_more, softmax_cotangent),
    Steps(finite_term, finite_more, finite_cotangent),
    Backward(
        "softmax_vjp",
        Steps(narrow_softmax_term, narrow_softmax_more, softmax_cotangent),
        Steps(narrow_term, narrow_more, finite_cotangent),
    ),
)
LOG_SOFTMAX_VJP = Backward("log_softmax_vjp", Steps(log_softmax_term, log_softmax_more, log_softmax_cotangent), None)


@inlined
def one_like(like):
    scale = scale_of(like, None)
    ref = reference(like, scale)
    return One(ref, scale, 1.0 / exp_relative(like, ref, scale))
