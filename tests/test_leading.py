"""Compiled code leads threads that are awake: through calls by a door, and through the blocks of long lanes."""

import math
import time

import numba
import numpy as np
import pytest
from crews import asleep, joined, needs_a_crew, one_thread
from crews import two_threads as two_threads
from doors import entered
from grids import normal
from numba import types
from oracle import BFLOAT16, same_bits

import softmax_numba
from softmax_numba.cpu import crew, door, long, sweeps, vjp_door, vjp_plan
from softmax_numba.cpu.blocks import MAP, REDUCE
from softmax_numba.cpu.compiled import address_of_body
from softmax_numba.cpu.joining import AWAKE, CALL, ENDED, LAST, LEAD, LED
from softmax_numba.cpu.lane import BLOCK, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.plan import BLOCKS, COLUMNS, CREW_FROM, CREW_LONG_FROM, PARALLEL_FROM, ROWS
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP, SOFTMAX_VJP

pytestmark = [needs_a_crew, pytest.mark.usefixtures("two_threads")]


def lanes_apart(x, axis):
    """Three of its lanes as arrays of their own, and where the lanes' results stand if they are first in line."""
    lanes = np.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])
    rows = [0, len(lanes) // 2, len(lanes) - 1]
    return rows, [np.ascontiguousarray(lanes[row]) for row in rows]


# Of each sweep: few values, and more than without a crew.
@pytest.mark.parametrize(
    ("operation", "dtype", "shape", "axis"),
    [
        (SOFTMAX, "float32", (0, 100), 1),
        (SOFTMAX, "float64", (0, 10), 1),
        (LOGSUMEXP, "float32", (0, 100), 1),
        (SOFTMAX, "bfloat16", (0, 1000), -1),
        (SOFTMAX, "float32", (0, BLOCK + 5), 1),
        (LOG_SOFTMAX, "float32", (20, 0), 0),
        (LOGSUMEXP, "float32", (3, 20, 0), 1),
        (SOFTMAX, "float32", (2, 300, 0), 1),
        (LOG_SOFTMAX, "float32", (0, 3, 40), 1),
    ],
)
@pytest.mark.parametrize("least", [CREW_FROM, PARALLEL_FROM, PARALLEL_FROM * 20])
@pytest.mark.parametrize("step", [1, 2])
def test_doors_lead_who_is_awake(operation, dtype, shape, axis, least, step):
    """Without a word of Python, and to the same bits as each lane alone."""
    missing = shape.index(0)
    others = math.prod(n for n in shape if n)
    shape = (*shape[:missing], -(-least // others), *shape[missing + 1 :])
    x = normal((*shape[:-1], step * shape[-1]), BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype), scale=3.0)
    x = x[..., ::step]
    out = np.empty(np.delete(shape, axis) if operation.one_number else shape, x.dtype)
    function, enter = getattr(softmax_numba, operation.name), entered(door.door(operation, dtype))

    def call():
        said = enter(x, axis, out)
        if said != sweeps.DONE or not crew._crew.numbers[AWAKE]:
            function(x, axis, out=out)  # makes what is missing, and wakes somebody
            crew._crew.numbers[LAST] = 0
        return said

    assert joined(call) == sweeps.DONE
    rows, lanes = lanes_apart(x, axis)
    found = out.reshape(-1) if operation.one_number else np.moveaxis(out, axis, -1).reshape(-1, x.shape[axis])
    assert same_bits(found[rows], np.stack([function(lane) for lane in lanes]))


@pytest.mark.parametrize("operation", [SOFTMAX, LOG_SOFTMAX, LOGSUMEXP])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((CREW_LONG_FROM + 5,), 0),
        ((3, CREW_LONG_FROM // 2), 1),  # one lane for each of two, and another
        ((CREW_LONG_FROM, 3), 0),
        ((2**20 - 3,), 0),
    ],
)
def test_doors_lead_through_long_lanes(operation, dtype, shape, axis):
    """Whose blocks are shared out twice, to the same bits as by one thread."""
    x = normal(shape, np.dtype(dtype), scale=3.0)
    out = np.empty(np.delete(shape, axis) if operation.one_number else shape, x.dtype)
    function, made = getattr(softmax_numba, operation.name), door.door(operation, dtype)

    def call():
        made.numbers[[ROWS, BLOCKS, COLUMNS]] = 0  # in one thread
        said = made.enter(x, axis, out, made.numbers)
        if said != sweeps.DONE or not crew._crew.numbers[AWAKE]:
            function(x, axis, out=out)
            crew._crew.numbers[LAST] = 0
        return said

    assert joined(call) == sweeps.DONE
    with one_thread():
        assert same_bits(out, np.asarray(function(x, axis)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_long_lanes_of_no_finite_sum(value):
    x = normal((CREW_LONG_FROM,), np.float32)
    x[:] = value if value < 0 else x
    x[CREW_LONG_FROM // 2] = value
    for name in ("softmax", "log_softmax", "logsumexp"):
        function = getattr(softmax_numba, name)
        found = joined(lambda call=function: call(x))
        with one_thread():
            assert same_bits(np.asarray(found), np.asarray(function(x)))


@pytest.mark.parametrize("step", [REDUCE, MAP])
def test_a_failure_in_a_share_of_a_long_lane(step):
    def body(x, mask, temperature, out, o, j, begin, end, numbers, sums, results, left, at, past_cache):
        if at == step and end > 10:
            raise MemoryError
        return 1

    arrays = sweeps.Arrays(types.float32, False, False).types
    notebook = (
        types.Array(types.float32, 2, "C"),
        types.Array(types.float64, 2, "C"),
        types.Array(types.float64, 1, "C"),
    )
    signature = (*arrays, *(types.intp,) * 4, *notebook, types.intp, types.intp, types.boolean)
    address = address_of_body(crew.compiled(body, f"failing_part_{step}", body=True), f"failing-part-{step}", signature)
    leader, numbers = long.leader(arrays, types.float32), crew._Crew(crew._room())
    numbers.seen[LEAD] = crew._lead()
    short, lane = (np.ones((2, blocks * BLOCK, 1), np.float32) for blocks in (10, 11))
    for _ in range(2):
        with pytest.raises(MemoryError):
            leader(address, (lane, None, None, lane), 11, 4, 1, False, numbers.address)
        assert leader(address, (short, None, None, short), 10, 4, 1, False, numbers.address)
    numbers.seen[LED] = 1
    assert not leader(address, (lane, None, None, lane), 11, 4, 1, False, numbers.address)


@pytest.mark.parametrize("backward", [SOFTMAX_VJP, LOG_SOFTMAX_VJP])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("least", [CREW_FROM, PARALLEL_FROM, PARALLEL_FROM * 20])
def test_doors_of_ways_back_lead_who_is_awake(backward, dtype, least):
    """And leave a call to others while nobody is, or somebody else leads."""
    y, dy = (normal((least // 100 + 1, 100), np.dtype(dtype), seed=seed) for seed in (1, 2))
    out, seen = np.empty_like(y), crew._crew.seen
    function, made = getattr(softmax_numba, backward.name), vjp_door.vjp_door(backward, dtype)
    made.make(vjp_plan.ROWS)

    def enter():
        return made.enter(y, dy, -1, out, made.numbers)

    def call():
        said = enter()
        if said != sweeps.DONE or not seen[AWAKE]:
            function(y, dy, out=out)  # wakes somebody
            seen[LAST] = 0
        return said

    assert joined(call) == sweeps.DONE
    rows = [0, len(y) // 2, len(y) - 1]
    assert same_bits(out[rows], np.stack([function(y[i], dy[i]) for i in rows]))

    out[:] = 77
    assert asleep()
    seen[ENDED] = time.perf_counter_ns() + 10**9  # a call has just ended
    assert enter() == door.LARGE
    before, seen[AWAKE], seen[LED] = seen[AWAKE], 1, 1  # as far as a door knows
    try:
        assert enter() == door.LARGE
    finally:
        seen[AWAKE], seen[LED], seen[ENDED] = before, 0, 0
    assert (out == 77).all()


def test_doors_do_not_lead_without_need():
    """Nobody joins where Numba was told to use one thread, or where there is nothing to share."""
    x, lane, narrow = normal((700, 100), np.float32), normal((CREW_FROM,), np.float32), normal((4000, 20), np.float32)
    enter, out = entered(door.door(SOFTMAX, "float32")), np.empty_like(x)
    for values, axis in ((x, 1), (lane, 0), (narrow, 0)):
        joined(lambda: softmax_numba.softmax(x))
        softmax_numba.softmax(values, axis)
    assert asleep()
    assert enter(x, 1, out) == door.LARGE

    many, seen = numba.get_num_threads(), crew._crew.seen
    calls = seen[CALL]
    seen[AWAKE] = 1  # as far as a door knows
    try:
        assert enter(lane, 0, lane) == enter(narrow, 0, narrow) == sweeps.DONE
        numba.set_num_threads(1)
        assert enter(x, 1, out) == sweeps.DONE
        assert seen[CALL] == calls
        numba.set_num_threads(many)
        assert enter(x, 1, out) == sweeps.DONE
        assert seen[CALL] != calls
    finally:
        numba.set_num_threads(many)
        seen[AWAKE] = 0
