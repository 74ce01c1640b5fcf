"""Large results that reuse the memory of earlier ones.

A new array of megabytes comes from the operating system page by page, each filled with zeros at the first touch: for
a result of 50 MB that takes several times as long as computing it. So the memory of a large result, once nobody looks
at it any more, waits here for the next one of about its size.

``SOFTMAX_NUMBA_KEEP_MB`` says how many megabytes may wait (default: 256); 0 switches this off.
:func:`release_memory` gives everything back at once. Small results, and those into ``out``, have no part in it.
"""

import os
from collections import deque
from typing import Any

import numpy as np

__all__ = ["empty", "empty_like", "release_memory"]

Array = np.ndarray[Any, Any]

# Below this, the C library's own free lists serve again what was given back.
LEAST_BYTES = 2**22
# A result may take a block that is larger than it needs by so much.
_SLACK = 1.25
_DEFAULT_MB = 256


def _limit() -> int:
    given = os.environ.get("SOFTMAX_NUMBA_KEEP_MB", "")
    try:
        return max(0, int(float(given) * 2**20)) if given else _DEFAULT_MB * 2**20
    except (ValueError, OverflowError):
        return _DEFAULT_MB * 2**20


_LIMIT = _limit()
# Taken and given back by single operations of a deque, which are atomic: results die in any thread, at any moment.
_waiting: deque[Array] = deque()


class _Lease:
    """Holds a block for as long as an array looks at it."""

    __slots__ = ("__array_interface__", "_block")

    def __init__(self, block: Array, nbytes: int) -> None:
        self._block = block
        self.__array_interface__ = {**block.__array_interface__, "shape": (nbytes,)}

    def __del__(self) -> None:
        _give_back(self._block)


def _give_back(block: Array) -> None:
    _waiting.append(block)
    while sum(b.nbytes for b in tuple(_waiting)) > _LIMIT:
        try:
            _waiting.popleft()
        except IndexError:  # another thread took it
            return


def _take(nbytes: int) -> Array | None:
    for _ in range(len(_waiting)):
        try:
            block = _waiting.popleft()
        except IndexError:
            return None
        if nbytes <= block.nbytes <= _SLACK * nbytes:
            return block
        _waiting.append(block)
    return None


def _memory(nbytes: int) -> Array:
    block = _take(nbytes)
    return np.asarray(_Lease(np.empty(nbytes, np.uint8) if block is None else block, nbytes))


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """As ``numpy.empty``, in C order."""
    dtype = np.dtype(dtype)
    nbytes = dtype.itemsize
    for n in shape:
        nbytes *= n
    if not LEAST_BYTES <= nbytes <= _LIMIT:
        return np.empty(shape, dtype)
    return _memory(nbytes).view(dtype).reshape(shape)


def empty_like(array: Array, dtype: Any) -> Array:
    """As ``numpy.empty_like``: a plain array in the memory order of ``array``, or in C order if that is broadcast."""
    shape, strides = array.shape, array.strides
    if array.flags.c_contiguous or 0 in strides:
        return empty(shape, dtype)
    if array.flags.f_contiguous:
        return empty(shape[::-1], dtype).T
    order = sorted(range(array.ndim), key=lambda axis: -abs(strides[axis]))
    return empty(tuple(shape[axis] for axis in order), dtype).transpose(np.argsort(order))


def release_memory() -> None:
    """Give the memory that waits for the next large result back to the operating system.

    Examples
    --------
    >>> import softmax_numba
    >>> softmax_numba.release_memory()
    """
    _waiting.clear()
