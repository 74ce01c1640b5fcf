"""What a lane's part comes to, once: its maximum and sum settled, its one number written; loss.py for the losses."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from softmax_numba.gpu import loss
from softmax_numba.gpu.arguments import results_of
from softmax_numba.gpu.held import Shape
from softmax_numba.gpu.lane import LOSSES, lane
from softmax_numba.gpu.seam import device
from softmax_numba.gpu.storage import STORAGES


class Ending(NamedTuple):
    """The device functions.

    ``settled(part, number, a, scale, tells)`` is what ``give`` takes; one of a lane's threads tells its number.
    ``seen_from(settled, first)`` is the same for the tile that begins with value ``first``.
    """

    settled: Callable
    seen_from: Callable


@functools.cache
def ending(shape: Shape) -> Ending:
    """For the lanes of a kernel."""
    if shape.operation in LOSSES:
        return Ending(*loss.ending(shape.operation, shape.storage))
    how = STORAGES[shape.storage]
    settle, store, one_number = lane(shape.operation, how.kind).settle, how.store, shape.operation.one_number

    @device
    def settled(part, number, a, scale, tells):
        found = settle(part, scale)
        if one_number and tells:
            store(results_of(number, a), found.result)
        return found

    @device
    def seen_from(found, first):
        return found

    return Ending(settled, seen_from)
