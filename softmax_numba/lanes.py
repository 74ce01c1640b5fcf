"""Any shape and any axes as lanes: arrays of shape (outer, length, inner) that share memory with the given ones."""

import functools
import math
import operator
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np


class Strided(Protocol):
    """Anything with a shape and strides, wherever it lies."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...


class Split(NamedTuple):
    """Which axes lie outside the lane, along it and inside it, in this order, and how long the three groups are."""

    order: tuple[int, ...]
    reduced: tuple[int, ...]
    shape: tuple[int, int, int]


def reduced_axes(axis: object, ndim: int) -> tuple[int, ...]:
    """The axes to reduce, sorted; a 0-d array takes -1, 0 and None as NumPy's reductions do.

    Raises
    ------
    numpy.exceptions.AxisError
        If an axis is out of range.
    ValueError
        If an axis is repeated.
    TypeError
        If ``axis`` is no int, tuple of ints or None.
    """
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        wanted = [operator.index(a) for a in given]
    except TypeError:
        raise TypeError(f"axis must be an int, a tuple of ints or None, not {axis!r}") from None
    places = max(ndim, 1)
    for a in wanted:
        if not -places <= a < places:
            raise np.exceptions.AxisError(f"axis {a} is out of bounds for a {ndim}-D array")
    axes = sorted(a % places for a in wanted)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis {axis} names an axis of a {ndim}-D array twice")
    return tuple(axes) if ndim else ()


def lane_numbers(numbers: np.ndarray, how: Split) -> np.ndarray:
    """One number for all lanes, or one for each (the reduced axes having length 1), as (outer, inner)."""
    outer, _, inner = how.shape
    return (
        as_lanes(numbers, how, one_number=True)[:, 0, :] if numbers.ndim else np.broadcast_to(numbers, (outer, inner))
    )


def write_back(lanes: np.ndarray, array: np.ndarray, how: Split) -> None:
    """Writes the lanes that :func:`as_lanes` made of an array to it, where they are a copy; of any stand-in dtype."""
    if not np.may_share_memory(lanes, array):
        ordered = array.transpose(how.order)
        ordered[...] = lanes.view(array.dtype).reshape(ordered.shape)


def in_c_order(read: Iterable[np.ndarray], written: Iterable[np.ndarray]) -> bool:
    """Whether all arrays are aligned and in C order, and those that are to be written can be."""
    return all(a.flags.c_contiguous and a.flags.aligned for a in read) and all(a.flags.carray for a in written)


def lane_shape(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with length 1 along the reduced axes."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def split(x: Strided, axes: tuple[int, ...]) -> Split:
    """How the axes of ``x`` fall into three groups, in the order of its memory.

    Kept axes with longer strides than the lane's are outside, the others inside, each group from long to short
    strides: a C-ordered array reduced along its last axis has everything outside, its transpose everything inside.
    """
    return _split(x.shape, x.strides, axes)


@functools.lru_cache(maxsize=1024)
def _split(shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...]) -> Split:
    steps = [abs(s) for s in strides]
    lane = [a for a in axes if shape[a] != 1]
    least = min((steps[a] for a in lane), default=0)
    kept = sorted((a for a in range(len(shape)) if a not in axes), key=lambda a: -steps[a])
    outer = [a for a in kept if steps[a] >= least]
    inner = [a for a in kept if steps[a] < least]
    sizes = [math.prod(shape[a] for a in group) for group in (outer, axes, inner)]
    return Split((*outer, *axes, *inner), axes, (sizes[0], sizes[1], sizes[2]))


def as_lanes(array: np.ndarray, how: Split, one_number: bool = False) -> np.ndarray:
    """``array`` in shape (outer, length, inner): a view, or a copy where its strides allow none.

    With ``one_number`` its reduced axes have length 1, and so has the result's.
    """
    outer, length, inner = how.shape
    return array.transpose(how.order).reshape(outer, 1 if one_number else length, inner)
