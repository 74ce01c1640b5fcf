"""What every kernel is given: one tuple of integers for all of them, and the temperature."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu.exponential import Scale
from softmax_numba.gpu.seam import device, quotient
from softmax_numba.gpu.storage import STORAGES


class Arguments(NamedTuple):
    """Addresses, counts, strides (in bytes), all int64. Lane n is the inner place ``n % inner`` of ``n // inner``."""

    x: int
    y: int
    mask: int = 0
    heats: int = 0  # four numbers a lane: the fields of its Scale
    scratch: int = 0
    lanes: int = 1
    inner: int = 1
    length: int = 1
    segments: int = 1  # of a lane, each with a part in the list
    tiles: int = 1  # of a segment
    blocks: int = 1  # that share a lane
    x_outer: int = 0
    x_inner: int = 0
    x_step: int = 0
    y_outer: int = 0
    y_inner: int = 0
    y_step: int = 0
    mask_outer: int = 0
    mask_inner: int = 0
    mask_step: int = 0
    codes: int = 0  # of the losses' targets, in C order; the mask's address and strides are theirs
    notes: int = 0  # what the losses are made of, in the order of the codes
    gains: int = 0
    weights: int = 0  # one a class; 0 where all are 1
    other: int = 0  # probabilities
    other_outer: int = 0
    other_inner: int = 0
    other_step: int = 0


@device
def place(number, inner, begin, outer_step, inner_step):
    """The address of lane ``number``."""
    if inner == 1:
        return begin + number * outer_step
    o = quotient(number, inner)
    return begin + o * outer_step + (number - o * inner) * inner_step


# One by one, where they are needed: an address is two registers.


@device
def values_of(number, a):
    return place(number, a.inner, a.x, a.x_outer, a.x_inner)


@device
def results_of(number, a):
    return place(number, a.inner, a.y, a.y_outer, a.y_inner)


@device
def mask_of(number, a):
    return place(number, a.inner, a.mask, a.mask_outer, a.mask_inner)


@device
def other_of(number, a):
    return place(number, a.inner, a.other, a.other_outer, a.other_inner)


@functools.cache
def scales(kind: Any, heated: bool) -> Callable:
    """The device function that gives a lane's :class:`Scale`: its own, in memory at ``heats``, or everyone's."""
    load, size = STORAGES[np.dtype(kind).name].load, np.dtype(kind).itemsize
    if not heated:

        @device
        def common(number, heats, scale):
            return scale

        return common

    @device
    def of_lane(number, heats, scale):
        place = heats + number * (4 * size)
        return Scale(load(place), load(place + size), load(place + 2 * size), load(place + 3 * size))

    return of_lane
