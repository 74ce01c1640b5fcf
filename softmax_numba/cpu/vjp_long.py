"""The way back along a lane that threads share: the steps of ``blocks.long_lanes``."""

import functools
import math

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.arrays import place
from softmax_numba.cpu.blocks import HIDE, REDUCE, SETTLE
from softmax_numba.cpu.exponential import scale_of
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.memory import fence, moved
from softmax_numba.cpu.settling import HIGH, LOW, TIES, TOP
from softmax_numba.cpu.sums import sum_after
from softmax_numba.cpu.vjp import one_like
from softmax_numba.cpu.vjp_steps import (
    block_sum,
    lies_side_by_side,
    release_all,
    row_steps,
    staged,
    stages_for,
)


@functools.cache
def vjp_long(backward, compute):
    """Compiles the steps. REDUCE notes the blocks' sums, and in ``numbers[TIES]`` which of them had to look at every
    place; SETTLE the lane's in ``numbers[TOP, 0]``, and in ``results`` whether MAP has to look; that one writes."""
    width = 64 // np.dtype(compute).itemsize
    likely, looks = backward.finite or backward.steps, backward.finite is not None
    add_up, add_guarded = block_sum(likely, width), block_sum(backward.steps, width)
    _, due_of, finish, map_piece = row_steps(likely, width, 0)
    _, _, _, map_guarded = row_steps(backward.steps, width, 0)

    def part(y, dy, temperature, out, o, j, begin, end, numbers, sums, results, left, step, past_cache):
        length = y.shape[1]
        if step == HIDE:
            return 0
        if step == SETTLE:  # as HIDE, without a buffer that there might be no memory for
            total, guarded = (0.0, 0.0), False
            for b in range(begin, end):
                total = sum_after(total, (sums[HIGH, b], sums[LOW, b]))
                guarded = guarded or numbers[TIES, b] != 0.0
            numbers[TOP, 0] = compute(total[0] + total[1])
            results[0] = 1.0 if guarded or (looks and not math.isfinite(numbers[TOP, 0])) else 0.0
            return 1  # there is something to map
        direct, one = lies_side_by_side(y, dy, out), one_like(compute(0))
        p, q, to = place(y, o, 0, j), place(dy, o, 0, j), place(out, o, 0, j)
        inverse = scale_of(compute(0), temperature_of(temperature, o, j)).inverse
        stages = stages_for(y, dy, out)
        if step == REDUCE:
            for b in range(begin, end):
                start = b * BLOCK
                stop = min(length, start + BLOCK)
                if direct:
                    total = add_up(p, q, start, stop, (0.0, 0.0), past_cache, None)
                else:
                    given, other = staged(y, dy, o, start, j, stop - start, stages[0], stages[1])
                    total = add_up(given, other, 0, stop - start, (0.0, 0.0), False, None)
                numbers[TIES, b] = 0.0
                if looks and not math.isfinite(compute(total[0] + total[1])):
                    given, other = staged(y, dy, o, start, j, stop - start, stages[0], stages[1])
                    total = add_guarded(given, other, 0, stop - start, (0.0, 0.0), False, None)
                    numbers[TIES, b] = 1.0
                sums[HIGH, b], sums[LOW, b] = total
        else:
            of_lane, guarded = numbers[TOP, 0], results[0] != 0.0
            if direct and not guarded:
                first, count = begin * BLOCK, min(length, end * BLOCK) - begin * BLOCK
                y_at, dy_at, out_at = moved(p, first), moved(q, first), moved(to, first)
                due = due_of(y_at, dy_at, count, out_at, of_lane, inverse, one, False, past_cache)
                finish(due, 0, one, past_cache)
                if past_cache:
                    fence()
            else:
                for b in range(begin, end):
                    if guarded:
                        map_guarded(y, dy, out, o, b * BLOCK, j, of_lane, inverse, one, stages)
                    else:
                        map_piece(y, dy, out, o, b * BLOCK, j, of_lane, inverse, one, stages)
        release_all(stages)
        return 0

    return compiled(part, f"{backward.name}_long", body=True)
