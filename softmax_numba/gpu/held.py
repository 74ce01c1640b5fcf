"""A tile between memory and registers: taken with its mask, mapped, given back."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.lane import LOSS_AND_GRADIENT, SOFTMAX, Operation, lane
from softmax_numba.gpu.loss import marking
from softmax_numba.gpu.parts import parts
from softmax_numba.gpu.seam import device
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import Access, tile


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    operation: Operation
    storage: str
    vectors: int  # 16-byte vectors a thread
    threads: int  # threads that share a tile
    access: Access
    masked: bool
    heated: bool  # each lane has its temperature

    @property
    def values(self) -> int:
        """Values a thread."""
        return self.vectors * STORAGES[self.storage].per_vector

    @property
    def span(self) -> int:
        """Values a tile."""
        return self.threads * self.values


class Held(NamedTuple):
    """The device functions: ``take`` is to read words and ``dress`` them as values, ``give`` writes the results.

    The first two return one bit a value, whether it takes part.
    """

    take: Callable
    dress: Callable
    give: Callable


@functools.cache
def held(shape: Shape) -> Held:
    """For tiles in arrays ``words`` and ``values`` of the lengths that ``tile`` says."""
    operation, how = shape.operation, STORAGES[shape.storage]
    kind, count_values, masked = how.kind, shape.values, shape.masked
    moves = tile(shape.storage, shape.vectors, shape.threads, shape.access)
    read, write, spread, gather, read_mask = moves.read, moves.write, moves.spread, moves.gather, moves.mask
    map_value = lane(operation, kind).map
    one, nothing, hidden = kind(1), kind(-np.inf), kind(operation.hidden)
    # exp(x) * (1 / exp(x)) need not be 1, and a lane of one value shall have 1.
    alone = operation is SOFTMAX and shape.threads == 1
    marks, mark = operation is LOSS_AND_GRADIENT, marking(shape.storage, count_values, shape.threads)

    @device
    def dress(words, values, mask, mask_step, count, slot):
        spread(words, values)
        kept = np.uint32(0)
        if masked:
            kept = read_mask(mask, mask_step, count, slot)
            for k in range(count_values):
                if not (kept >> np.uint32(k)) & np.uint32(1):
                    values[k] = nothing
        return kept

    @device
    def take(words, values, x, x_step, mask, mask_step, count, slot):
        read(words, x, x_step, count, slot)
        return dress(words, values, mask, mask_step, count, slot)

    @device
    def give(words, values, kept, settled, first, second, scale, y, y_step, count, slot):
        for k in range(count_values):
            value = map_value(values[k], settled, first, second, scale)
            if alone and count == 1:
                value = (value - value) + one
            if masked and not (kept >> np.uint32(k)) & np.uint32(1):
                value = hidden
            values[k] = value
        if marks:
            mark(values, settled, count, slot)
        gather(values, words)
        write(words, y, y_step, count, slot)

    return Held(take, dress, give)


def gathered(shape: Shape) -> tuple[Callable, Callable, Callable]:
    """``of_tile``, ``put`` and ``of_list`` of ``parts.py`` for these tiles."""
    how = parts(shape.operation, STORAGES[shape.storage].kind, shape.values, shape.threads)
    return how.of_tile, how.put, how.of_list
