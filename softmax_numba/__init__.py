"""Softmax, its relatives, their gradients and losses for NumPy arrays, compiled by Numba."""

from softmax_numba import special
from softmax_numba.functions import log_softmax, logsumexp, softmax
from softmax_numba.gradients import log_softmax_vjp, softmax_vjp
from softmax_numba.linear import linear_cross_entropy, linear_cross_entropy_and_grad
from softmax_numba.losses import class_weights, cross_entropy, cross_entropy_and_grad
from softmax_numba.online import OnlineLogSumExp
from softmax_numba.pages import release_memory

__version__ = "0.1.0"
__all__ = [
    "OnlineLogSumExp",
    "__version__",
    "class_weights",
    "cross_entropy",
    "cross_entropy_and_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_and_grad",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "release_memory",
    "softmax",
    "softmax_vjp",
    "special",
]
