"""Every plan gives the same bits, wherever arrays stand and whatever stands beside them."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import same_bits

from softmax_numba.cpu import sweeps
from softmax_numba.cpu.blocks import KEEP_ALL_BYTES, KEEP_BYTES
from softmax_numba.cpu.lane import BLOCK, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.plan import Plan
from softmax_numba.cpu.turning import height_of
from softmax_numba.dtypes import for_kernel

OPERATIONS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX, "logsumexp": LOGSUMEXP}
every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

PLANS = (
    Plan("rows", 1, False),
    Plan("rows", 1, True),
    Plan("rows", 2, False),
    Plan("rows", 5, True),
    Plan("short", 1, False),
    Plan("short", 1, True),
    Plan("short", 3, False),
    Plan("short", 2, True),
    Plan("tiny", 1, False),
    Plan("tiny", 1, True),
    Plan("tiny", 3, False),
    Plan("tiny", 2, True),
    Plan("woven", 1, False),
    Plan("woven", 1, True),
    Plan("woven", 2, False),
    Plan("woven", 5, True),
    Plan("blocks", 1, False),
    Plan("blocks", 3, True),
    Plan("columns", 1, False),
    Plan("columns", 3, False),
    Plan("columns", 1, True),
    Plan("columns", 2, True),
    Plan("deep", 1, False),
    Plan("deep", 3, False),
    Plan("deep", 1, True),
    Plan("deep", 2, True),
    Plan("shallow", 1, False),
    Plan("shallow", 2, False),
    Plan("shallow", 1, True),
    Plan("shallow", 3, True),
    Plan("middle", 1, False),
    Plan("middle", 2, False),
    Plan("middle", 1, True),
    Plan("middle", 3, True),
    Plan("narrow", 1, False),
    Plan("narrow", 3, True),
    Plan("long", 2, False),
    Plan("long", 7, True),
)


def for_lanes(name, length, masked=False):
    """The plans for lanes of that length."""
    longest = {"rows": BLOCK, "short": BLOCK, "tiny": 4, "woven": BLOCK, "shallow": 8, "middle": BLOCK, "narrow": BLOCK}
    # Lanes of a block never come there, and their logarithm is a shorter one (settling.py).
    shortest = {} if name == "softmax" else {"blocks": BLOCK + 1, "long": BLOCK + 1}
    without_mask = ("short", "tiny", "woven", "deep", "shallow", "middle", "narrow")
    return [
        plan
        for plan in PLANS
        if shortest.get(plan.sweep, length) <= length <= longest.get(plan.sweep, length)
        and not (masked and plan.sweep in without_mask)
        and not (OPERATIONS[name].one_number and plan.sweep == "woven")
    ]


def carried_out(name, plan, lanes, where=None, temperature=None, shift=1):
    """The results for `lanes` (a 2-D array, a lane a row) by `plan`, in the layout that the plan is for."""
    operation, across = OPERATIONS[name], plan.sweep in ("columns", "deep", "shallow", "middle")
    count = len(lanes)

    def laid_out(array):
        return array.T[None] if across else array[:, :, None]

    x = np.ascontiguousarray(laid_out(lanes))
    mask = None if where is None else np.ascontiguousarray(laid_out(where))
    heat = None
    if temperature is not None:
        heat = temperature.reshape((1, count) if across else (count, 1))
    shape = tuple(1 if operation.one_number and axis == 1 else n for axis, n in enumerate(x.shape))
    # Off any cache line, which streaming stores have to see to; with a guard on either side.
    room = np.full(int(np.prod(shape)) + 2 * shift, 7, lanes.dtype)
    out = room[shift:-shift].reshape(shape)
    name = lanes.dtype.name
    sweeps.run(operation, plan, name, for_kernel(x, name), mask, heat, for_kernel(out, name))
    assert (room[:shift] == 7).all() and (room[-shift:] == 7).all()
    return (out[0].T if across else out[:, :, 0]).copy()


def lanes_of(count, length, dtype, seed=0):
    rng = np.random.default_rng([seed, count, length])
    x = (rng.normal(size=(count, length)) * 5).astype(dtype)
    x[-1, length // 2] = 60
    if count > 2:
        x[1, : length // 2] = -np.inf
    return x


near_a_multiple = st.builds(
    lambda step, times, off: max(1, step * times + off),
    st.sampled_from([16, 64, BLOCK]),
    st.integers(0, 3),
    st.integers(-2, 2),
)


@every_operation
@every_float
@given(length=near_a_multiple, count=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=25)
@example(length=1, count=1, seed=0)
@example(length=2, count=32, seed=0)
@example(length=2, count=203, seed=3)
@example(length=5, count=300, seed=0)
@example(length=33, count=1000, seed=0)
@example(length=BLOCK, count=17, seed=0)
@example(length=BLOCK + 1, count=9, seed=0)
@example(length=3 * BLOCK - 1, count=3, seed=0)
def test_every_plan_gives_the_same_bits(name, dtype, length, count, seed):
    x = lanes_of(count, length, dtype, seed)
    first, *others = for_lanes(name, length)
    expected = carried_out(name, first, x)
    for other in others:
        assert same_bits(carried_out(name, other, x, shift=1 + seed % 7), expected), other


# What callers can ask for: logsumexp knows no temperature.
@pytest.mark.parametrize(
    ("name", "masked"),
    [("softmax", False), ("softmax", True), ("log_softmax", False), ("log_softmax", True), ("logsumexp", True)],
)
@given(length=near_a_multiple, count=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=15)
@example(length=2 * BLOCK + 3, count=9, seed=1)
def test_every_plan_gives_the_same_bits_with_mask_and_temperature(name, masked, length, count, seed):
    x = lanes_of(count, length, np.float32, seed)
    rng = np.random.default_rng(seed)
    where = None
    if masked:
        where = rng.random(x.shape) < 0.7
        where[0] = False
    temperature = None if name == "logsumexp" else rng.uniform(0.3, 3, count)
    first, *others = for_lanes(name, length, masked=masked)
    expected = carried_out(name, first, x, where, temperature)
    for other in others:
        assert same_bits(carried_out(name, other, x, where, temperature), expected), other


def across_the_middle(lanes, outer, spare):
    """The lanes of a 2-D array as an (outer, length, inner) array, with so much room between its lines."""
    count, length = lanes.shape
    whole = np.full((outer, length, count // outer + spare), 7, lanes.dtype)
    given = whole[:, :, : count // outer]
    given[...] = lanes.reshape(outer, -1, length).transpose(0, 2, 1)
    return given


@pytest.mark.parametrize(
    ("name", "dtype"),  # temperatures in the first, whose kernels with them other tests have, too
    [
        ("softmax", "float32"),
        ("softmax", "bfloat16"),
        ("log_softmax", "float64"),
        ("logsumexp", "float16"),
        ("logsumexp", "float32"),
        ("logsumexp", "float64"),
    ],
)
@given(
    length=st.integers(2, 8) | st.integers(9, 150) | st.sampled_from([255, 1000, 4096, 4097, 9000]),
    inner=st.integers(1, 150) | st.sampled_from([256, 1023, 1024, 1025, 1100]),
    outer=st.integers(1, 3),
    spare=st.sampled_from([0, 0, 1, 16, 32]),
    shares=st.integers(1, 5),
    shift=st.sampled_from([0, 1, 4, 15, 16]),
    past_cache=st.booleans(),
    tempered=st.booleans(),
)
@settings(max_examples=40, deadline=None)
@example(length=2, inner=160, outer=3, spare=0, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=2, inner=177, outer=2, spare=3, shares=3, shift=1, past_cache=False, tempered=False)
@example(length=3, inner=65, outer=2, spare=0, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=8, inner=16 * 9 + 2, outer=1, spare=14, shares=9, shift=4, past_cache=True, tempered=True)
@example(length=300, inner=128, outer=3, spare=0, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=21, inner=1100, outer=2, spare=4, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=21, inner=1024, outer=2, spare=0, shares=1, shift=0, past_cache=True, tempered=False)
@example(length=21, inner=1040, outer=2, spare=0, shares=2, shift=0, past_cache=True, tempered=False)
@example(length=21, inner=2048, outer=1, spare=0, shares=3, shift=1, past_cache=False, tempered=False)
@example(length=20, inner=100, outer=2, spare=1948, shares=1, shift=0, past_cache=False, tempered=False)
@example(length=49, inner=2048, outer=1, spare=0, shares=1, shift=0, past_cache=False, tempered=False)
@example(length=300, inner=700, outer=2, spare=0, shares=1, shift=4, past_cache=True, tempered=True)
@example(length=300, inner=1100, outer=2, spare=0, shares=3, shift=4, past_cache=True, tempered=False)
@example(length=401, inner=333, outer=3, spare=0, shares=2, shift=15, past_cache=True, tempered=False)
@example(length=401, inner=333, outer=2, spare=3, shares=1, shift=1, past_cache=True, tempered=True)
@example(length=4100, inner=70, outer=2, spare=0, shares=2, shift=4, past_cache=True, tempered=True)
def test_columns_in_any_place(name, dtype, length, inner, outer, spare, shares, shift, past_cache, tempered):
    """Slabs of columns, with and without room between their lines, from any place of a cache line on."""
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    operation, count = OPERATIONS[name], outer * inner
    lanes = lanes_of(count, length, np.float32, length).astype(dtype)
    tempered = tempered and (name, dtype.name) == ("softmax", "float32")
    heat = np.random.default_rng(inner).uniform(0.3, 3, count) if tempered else None
    expected = carried_out(name, Plan("rows" if length <= BLOCK else "blocks", 1, False), lanes, temperature=heat)
    x = across_the_middle(lanes, outer, spare)
    lines = 1 if operation.one_number else length
    room = np.full(outer * lines * (inner + spare) + 2 * shift + 64, 7, dtype)
    start = (-room.ctypes.data % 64) // room.itemsize + shift
    out = room[start : start + outer * lines * (inner + spare)].reshape(outer, lines, inner + spare)
    heats = None if heat is None else heat.reshape(outer, inner)
    taken = ["columns", "deep"] + ["middle"] * (length <= BLOCK) + ["shallow"] * (length <= 8)
    for sweep in taken:
        room[...] = 7
        plan = Plan(sweep, min(shares, outer * -(-inner // (8 if dtype.itemsize == 8 else 16))), past_cache)
        given, result = for_kernel(x, dtype.name), for_kernel(out[:, :, :inner], dtype.name)
        sweeps.run(operation, plan, dtype.name, given, None, heats, result)
        found = out[:, :, :inner].transpose(0, 2, 1).reshape(count, lines)
        assert same_bits(found, expected.reshape(count, lines)), plan
        out[:, :, :inner] = 7
        assert (room == 7).all(), plan  # nothing else was written


@every_operation
@every_float
@pytest.mark.parametrize("past_cache", [False, True])
def test_short_rows_of_every_length(name, dtype, past_cache):
    """Every remainder of a vector, whole and broken groups of rows, with and without temperatures."""
    for length in (*range(2, 34), 41, 48, 49, 63, 64, 65, 100, 111, 112, 113, 127, 128):
        for count in (15, 16, 17, 130):
            x = lanes_of(count, length, dtype)
            heated = length % 3 == 0 and name != "logsumexp"
            heat = np.random.default_rng(length).uniform(0.3, 3, count) if heated else None
            expected = carried_out(name, Plan("rows", 1, False), x, temperature=heat)
            assert same_bits(carried_out(name, Plan("short", 1, past_cache), x, temperature=heat), expected)
            if length <= height_of(64 // x.itemsize):
                assert same_bits(carried_out(name, Plan("tiny", 1, past_cache), x, temperature=heat), expected)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@every_float
@given(
    length=st.integers(1, 400) | st.sampled_from([1000, 1023, 1024, 1025, 2047, 2048, 2049, 4095, 4096]),
    count=st.integers(1, 70),
    spare=st.sampled_from([0, 0, 1, 16, 31]),
    shares=st.integers(1, 5),
    shift=st.sampled_from([0, 1, 4, 15, 16]),
    past_cache=st.booleans(),
    tempered=st.booleans(),
    in_place=st.booleans(),
)
@settings(max_examples=40, deadline=None)
@example(length=100, count=41, spare=0, shares=1, shift=4, past_cache=True, tempered=True, in_place=False)
@example(length=100, count=41, spare=3, shares=1, shift=4, past_cache=True, tempered=False, in_place=True)
@example(length=1000, count=9, spare=0, shares=2, shift=4, past_cache=True, tempered=False, in_place=True)
@example(length=4096, count=5, spare=0, shares=1, shift=1, past_cache=True, tempered=True, in_place=True)
@example(length=4093, count=5, spare=0, shares=1, shift=1, past_cache=False, tempered=False, in_place=False)
def test_woven_rows_in_any_place(name, dtype, length, count, spare, shares, shift, past_cache, tempered, in_place):
    """Groups whole and broken, with and without room between rows, from any place of a cache line on."""
    operation = OPERATIONS[name]
    lanes = lanes_of(count, length, dtype, length)
    heat = np.random.default_rng(count).uniform(0.3, 3, count) if tempered else None
    expected = carried_out(name, Plan("rows", 1, False), lanes, temperature=heat)
    room = np.full(count * (length + spare) + 2 * shift + 64, 7, dtype)
    start = (-room.ctypes.data % 64) // room.itemsize + shift
    out = room[start : start + count * (length + spare)].reshape(count, length + spare)[:, :length, None]
    x = lanes[:, :, None]
    if in_place:
        out[...] = x
        x = out
    heats = None if heat is None else heat[:, None]
    sweeps.run(operation, Plan("woven", min(shares, count), past_cache), lanes.dtype.name, x, None, heats, out)
    assert same_bits(out[:, :, 0], expected)
    out[...] = 7
    assert (room == 7).all()  # nothing else was written


@every_operation
@every_float
def test_lanes_kept_and_not_kept_between_the_passes(name, dtype):
    """Around the length from which exponentials are computed twice: with the bits that shorter plans have."""
    longest = KEEP_BYTES // np.dtype(dtype).itemsize
    for length in (longest - 1, longest, longest + 1):
        x = lanes_of(2, length, dtype)
        expected = carried_out(name, Plan("long", 5, False), x)
        for other in (Plan("blocks", 1, False), Plan("blocks", 2, True), Plan("columns", 1, False)):
            assert same_bits(carried_out(name, other, x), expected), (length, other)


@every_operation
@every_float
def test_exponentials_kept_where_the_results_will_be_and_computed_again(name, dtype):
    """Around the size from which caches do not hold them; and what they overwrite may be the values themselves."""
    longest = KEEP_ALL_BYTES // np.dtype(dtype).itemsize
    for length in (longest - 5, longest + 5):
        x = lanes_of(1, length, dtype)
        expected = carried_out(name, Plan("blocks", 1, False), x)
        for other in (Plan("long", 5, False), Plan("blocks", 1, True), Plan("long", 3, True)):
            assert same_bits(carried_out(name, other, x), expected), (length, other)
        if name != "logsumexp":
            in_place = x.copy()[:, :, None]
            sweeps.run(OPERATIONS[name], Plan("long", 4, True), x.dtype.name, in_place, None, None, in_place)
            assert same_bits(in_place[:, :, 0], expected), length


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@every_float
@pytest.mark.parametrize("shift", [0, 1])
def test_tiny_rows_tile_after_tile(name, dtype, shift):
    """Results of some tiles that are streamed while the next ones are computed, from a cache line on or not, in place
    too."""
    for length in range(2, height_of(64 // np.dtype(dtype).itemsize) + 1):
        x = lanes_of(1000, length, dtype)
        expected = carried_out(name, Plan("rows", 1, False), x)
        for in_place in (False, True):
            room = np.full(x.size + 100, 7, dtype)
            start = (-room.ctypes.data % 64) // room.itemsize + shift
            out = room[start : start + x.size].reshape(x.shape)
            given = x
            if in_place:
                out[...] = x
                given = out
            given, result = (for_kernel(a, out.dtype.name)[:, :, None] for a in (given, out))
            sweeps.run(OPERATIONS[name], Plan("tiny", 1, True), out.dtype.name, given, None, None, result)
            assert same_bits(out, expected), (length, in_place)
            out[...] = 7
            assert (room == 7).all()


@every_float
@pytest.mark.parametrize("length", [300, 600])
def test_exponentials_of_deep_columns_are_kept_or_computed_again(dtype, length):
    """As many as there is room for are kept, of float32 where results stay in the caches: the same bits."""
    lanes = 500
    x = lanes_of(lanes, length, dtype)
    assert (length // 64 * 64 * lanes > 2**18) == (length == 600)
    expected = carried_out("softmax", Plan("columns", 1, False), x)
    for past_cache in (False, True):
        assert same_bits(carried_out("softmax", Plan("deep", 1, past_cache), x), expected)
