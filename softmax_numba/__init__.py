"""Softmax, log-softmax and logsumexp for NumPy arrays, compiled by Numba."""

from softmax_numba import special
from softmax_numba.functions import log_softmax, logsumexp, softmax
from softmax_numba.pages import release_memory

__version__ = "0.1.0"
__all__ = ["__version__", "log_softmax", "logsumexp", "release_memory", "softmax", "special"]
