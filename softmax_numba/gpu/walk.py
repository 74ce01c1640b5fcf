"""Arrays of any strides as launches: what three strides an array cannot tell is copied, what is too much is cut."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from softmax_numba.dtypes import compute_name
from softmax_numba.gpu import kernels
from softmax_numba.gpu.arrays import GpuArray
from softmax_numba.gpu.exponential import Scale, scale_of
from softmax_numba.gpu.geometry import Lanes
from softmax_numba.gpu.geometry import lanes as lanes_of
from softmax_numba.lanes import split

if TYPE_CHECKING:
    from softmax_numba.gpu.calls import Room

KINDS = {"float32": np.float32, "float64": np.float64}
# Lanes of one launch: kernels divide 32-bit numbers.
MOST_LANES = 2**30


class Given(NamedTuple):
    """The arrays of a sweep, each of the values' shape or to be broadcast to it."""

    values: GpuArray
    answer: GpuArray
    other: GpuArray | None = None  # a mask, the cotangents, or the codes of a loss's targets
    heat: GpuArray | None = None  # a temperature for each lane, or a loss's probabilities

    @property
    def present(self) -> list[GpuArray]:
        return [array for array in self if array is not None]

    def each(self, change: Callable[[GpuArray], GpuArray]) -> "Given":
        """What ``change`` makes of those that are there, called in their order."""
        return self._make(None if array is None else change(array) for array in self)


# Queues what fills the answer; the lanes' steps are those of the arrays that are present.
Run = Callable[[Lanes, Given, Scale, "Room"], None]


def walk(run: Run, given: Given, axes: tuple[int, ...], temperature: float, room: "Room") -> None:
    """Runs over the lanes along ``axes``; ``temperature`` counts where there is none for each lane."""
    values = given.values
    steps = [array.broadcast(values.shape).strides for array in given.present]
    lanes = lanes_of(values.shape, axes, split(values, axes).order, steps)
    if lanes is not None:
        scale = scale_of(temperature, KINDS[compute_name(values.name, values.name)])
        _launched(run, lanes, given, scale, room)
        return
    # C-ordered with the lanes inside: two strides tell any of them.
    first = [a for a in range(values.ndim) if a not in axes]
    places = (*first, *axes)
    turned = given.each(lambda array: _transposed(array, places))
    fresh = room.new(turned.answer.shape, turned.answer.name)
    copied = turned.each(lambda array: fresh if array is turned.answer else room.copied(array, array.name))
    walk(run, copied, tuple(range(len(first), len(places))), temperature, room)
    kernels.copy(fresh, turned.answer, room.place)


def _launched(run: Run, lanes: Lanes, given: Given, scale: Scale, room: "Room") -> None:
    """Runs, half the lanes at a time where they are too many for a launch."""
    if lanes.outer * lanes.inner <= MOST_LANES or lanes.outer == 1:
        run(lanes, given, scale, room)
        return
    half = lanes.outer // 2
    steps = iter(lanes.steps)
    rest = given.each(lambda array: array._replace(address=array.address + half * next(steps)[0]))
    _launched(run, lanes._replace(outer=half), given, scale, room)
    _launched(run, lanes._replace(outer=lanes.outer - half), rest, scale, room)


def _transposed(array: GpuArray, order: tuple[int, ...]) -> GpuArray:
    return array._replace(shape=tuple(array.shape[a] for a in order), strides=tuple(array.strides[a] for a in order))
