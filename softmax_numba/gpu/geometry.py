"""Any shapes and strides as lanes: an outer and an inner place and one step along the lane, where that can be."""

from collections.abc import Sequence
from typing import NamedTuple

Steps = tuple[int, ...]


class Lanes(NamedTuple):
    """What kernels walk: ``outer * inner`` lanes, and for each array the strides (outer, inner, along the lane)."""

    outer: int
    inner: int
    length: int
    steps: tuple[tuple[int, int, int], ...]


def joined(sizes: Sequence[int], steps: Sequence[Steps]) -> tuple[list[int], list[Steps]]:
    """Axes from outside to inside with neighbours made one where every array allows; ``steps`` holds a tuple an axis.

    An axis of length 1 is dropped.
    """
    kept_sizes: list[int] = []
    kept_steps: list[Steps] = []
    for size, step in zip(sizes, steps, strict=True):
        if size == 1:
            continue
        if kept_steps and all(before == s * size for before, s in zip(kept_steps[-1], step, strict=True)):
            kept_sizes[-1] *= size
            kept_steps[-1] = step
        else:
            kept_sizes.append(size)
            kept_steps.append(step)
    return kept_sizes, kept_steps


def lanes(shape: Sequence[int], axes: Sequence[int], order: Sequence[int], strides: Sequence[Steps]) -> Lanes | None:
    """The lanes along ``axes`` of arrays of one shape; None where three strides an array cannot tell them.

    ``order`` lists the axes from outside to inside; ``strides`` holds a tuple for each array.
    """
    of_axis = [tuple(array[axis] for array in strides) for axis in range(len(shape))]
    count = len(strides)
    kept = [axis for axis in order if axis not in axes]
    around, around_steps = joined([shape[a] for a in kept], [of_axis[a] for a in kept])
    along, along_steps = joined([shape[a] for a in axes], [of_axis[a] for a in axes])
    if len(around) > 2 or len(along) > 1:
        return None
    zero = (0,) * count
    if len(around) < 2:  # lanes that are neighbours of each other lie inside
        outer_first = not along_steps or not around_steps or abs(around_steps[0][0]) >= abs(along_steps[0][0])
        at = 0 if outer_first else 1
        around.insert(1 - at, 1) if around else around.extend((1, 1))
        around_steps.insert(1 - at, zero) if around_steps else around_steps.extend((zero, zero))
    step = along_steps[0] if along_steps else zero
    length = along[0] if along else 1
    together = zip(around_steps[0], around_steps[1], step, strict=True)
    return Lanes(around[0], around[1], length, tuple(together))
