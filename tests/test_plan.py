"""Plans: which sweep a shape gets, that every sweep is taken, and that none of them changes a bit."""

import ml_dtypes
import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracle import same_bits

import softmax_numba
from softmax_numba.cpu import sweeps, threads
from softmax_numba.cpu.blocks import KEEP_BYTES
from softmax_numba.cpu.lane import BLOCK, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.plan import LONG_FROM, PARALLEL_FROM, Plan, plan
from softmax_numba.dtypes import for_kernel

OPERATIONS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX, "logsumexp": LOGSUMEXP}
every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def planned(
    outer,
    length,
    inner=1,
    dtype=np.float32,
    *,
    one_number=False,
    turnable=True,
    columnar=True,
    count=8,
    side_by_side=None,
):
    if side_by_side is None:
        side_by_side = inner == 1
    return plan(
        outer,
        length,
        inner,
        itemsize=np.dtype(dtype).itemsize,
        side_by_side=side_by_side,
        one_number=one_number,
        turnable=turnable,
        columnar=columnar,
        threads=count,
    )


# --- what shapes get ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lanes", "dtype", "sweep", "shared", "past_cache"),
    [
        pytest.param((1, 10), np.float32, "rows", False, False, id="one short lane"),
        pytest.param((64, 100), np.float32, "rows", False, False, id="a small batch"),
        pytest.param((1024, 1000), np.float32, "rows", True, False, id="a classifier's head"),
        pytest.param((256, 50_257), np.float32, "blocks", True, True, id="GPT-2's vocabulary"),
        pytest.param((16, 50_257), np.float16, "blocks", True, False, id="a large vocabulary, within the cache"),
        pytest.param((256, 128_256), np.float16, "blocks", True, True, id="Llama 3's vocabulary"),
        pytest.param((1_000_000, 8), np.float32, "short", True, True, id="a router"),
        pytest.param((1_000_000, 16), np.float64, "short", True, True, id="a mixture model"),
        pytest.param((1_000_000, 32), np.float32, "short", True, True, id="the longest short rows"),
        pytest.param((1_000_000, 32), np.float64, "rows", True, True, id="too long to be short in float64"),
        pytest.param((63, 8), np.float32, "rows", False, False, id="too few short rows"),
        pytest.param((8, 21, 65_536), np.float32, "columns", True, True, id="a segmentation map along axis 1"),
        pytest.param((1, 100, 64), np.float32, "columns", False, False, id="a small batch along axis 0"),
        pytest.param((1, 4096, 1000), np.float32, "deep", True, True, id="deep columns"),
        pytest.param((64, 1000, 128), np.float16, "deep", True, True, id="deep columns in batches"),
        pytest.param((32, 3, 250_000), np.float64, "shallow", True, True, id="three channels of images"),
        pytest.param((4096, 1000, 4), np.float32, "rows", True, True, id="few neighbours"),
        pytest.param((1, 2**24), np.float32, "long", True, True, id="one lane of 2**24"),
        pytest.param((1, 2**18), np.float32, "long", True, False, id="one lane within the cache"),
        pytest.param((3, 2**20), np.float64, "long", True, True, id="three long lanes"),
        pytest.param((1, 2**17, 3), np.float32, "long", True, False, id="three long lanes side by side"),
        pytest.param((1, LONG_FROM - 1), np.float32, "blocks", False, False, id="one lane, too short to split"),
    ],
)
def test_typical_shapes(lanes, dtype, sweep, shared, past_cache):
    found = planned(*lanes, dtype=dtype)
    assert (found.sweep, found.shares > 1, found.past_cache) == (sweep, shared, past_cache)


@given(
    outer=st.integers(1, 10**6),
    length=st.integers(1, 10**8),
    inner=st.integers(1, 10**5),
    itemsize=st.sampled_from([2, 4, 8]),
    side_by_side=st.booleans(),
    one_number=st.booleans(),
    turnable=st.booleans(),
    columnar=st.booleans(),
    count=st.integers(1, 256),
)
@settings(max_examples=300)
def test_what_holds_for_every_plan(outer, length, inner, itemsize, side_by_side, one_number, turnable, columnar, count):
    how = {"itemsize": itemsize, "side_by_side": side_by_side, "one_number": one_number}
    how |= {"turnable": turnable, "columnar": columnar}
    found = plan(outer, length, inner, threads=count, **how)
    lanes = outer * inner
    across = outer * -(-inner // (8 if itemsize == 8 else 16))
    units = {"columns": across, "deep": across, "shallow": across, "long": -(-length // BLOCK)}.get(found.sweep, lanes)
    assert 1 <= found.shares <= units
    if count == 1 or lanes * length < PARALLEL_FROM:
        assert found.shares == 1
    if found.sweep in ("rows", "blocks"):
        assert (found.sweep == "rows") == (length <= BLOCK)
    if found.sweep == "long":
        assert found.shares > 1 and lanes < 2 * count
    if found.sweep == "short":
        assert length <= 32 and side_by_side and inner == 1 and turnable
    if found.sweep in ("columns", "deep", "shallow"):
        assert inner > 1 and not side_by_side
        # A share that is narrower than a page of memory is one of as many as there are threads.
        assert found.shares <= count or across // found.shares * 64 >= 4096
    if found.sweep in ("deep", "shallow"):
        assert columnar and (length <= 8) == (found.sweep == "shallow")
    if one_number or lanes * length * itemsize < 2**20:
        assert not found.past_cache
    serial = plan(outer, length, inner, threads=1, **how)
    assert serial.shares == 1 and serial.sweep != "long"


def test_plan_is_a_pure_function():
    """Neither Numba's threads nor the number of earlier calls are seen; the result cannot be changed."""
    before, first = numba.get_num_threads(), planned(600, 100)
    numba.set_num_threads(1)
    try:
        assert planned(600, 100) == first
    finally:
        numba.set_num_threads(before)
    assert isinstance(hash(first), int)
    with pytest.raises(AttributeError):
        first.shares = 1


# --- what calls get -----------------------------------------------------------------


@pytest.fixture
def plans(monkeypatch):
    """The plans that are carried out, as if the machine had two threads."""
    found, run = [], sweeps.run

    def recorded(operation, plan, *arrays):
        found.append((operation.name, plan))
        return run(operation, plan, *arrays)

    monkeypatch.setattr(sweeps, "run", recorded)
    monkeypatch.setattr(threads, "in_use", lambda: 2)
    return found


SWEEPS = {"rows", "short", "columns", "deep", "shallow", "blocks", "long"}

CALLS = {
    "short, serial": ((300, 7), 1, ("short", False, False)),
    "short, shared": ((30_000, 9), 1, ("short", True, False)),
    "short, shared, past the cache": ((300_000, 5), 1, ("short", True, True)),
    "rows, serial": ((9, 40), 1, ("rows", False, False)),
    "rows, shared": ((700, 100), 1, ("rows", True, False)),
    "rows, shared, past the cache": ((2100, 2000), 1, ("rows", True, True)),
    "columns, serial": ((40, 50), 0, ("columns", False, False)),
    "columns, shared": ((100, 700), 0, ("columns", True, False)),
    "columns, shared, past the cache": ((110, 11_000), 0, ("columns", True, True)),
    "columns of three dimensions": ((4, 50, 400), 1, ("columns", True, False)),
    "deep, serial": ((300, 40), 0, ("deep", False, False)),
    "deep, shared": ((1000, 700), 0, ("deep", True, False)),
    "deep, shared, past the cache": ((2, 1100, 1100), 1, ("deep", True, True)),
    "shallow, serial": ((5, 2, 40), 1, ("shallow", False, False)),
    "shallow, shared": ((8, 9000), 0, ("shallow", True, False)),
    "shallow, shared, past the cache": ((2, 3, 400, 500), 1, ("shallow", True, True)),
    "few columns": ((20_000, 5), 0, ("blocks", True, False)),
    "few short columns": ((2000, 5, 9, 1), (1, 2), ("rows", True, False)),
    "blocks, serial": ((3, 5000), 1, ("blocks", False, False)),
    "blocks, shared": ((20, 10_000), 1, ("blocks", True, False)),
    "blocks, shared, past the cache": ((20, 60_000), 1, ("blocks", True, True)),
    "long": ((300_000,), 0, ("long", True, False)),
    "long, past the cache": ((2**22 + 9,), 0, ("long", True, True)),
    "long, side by side": ((150_000, 2), 0, ("long", True, False)),
    "all axes": ((600, 500), None, ("long", True, False)),
}


@every_operation
def test_every_plan_is_taken(name, plans):
    taken = set()
    for what, (shape, axis, expected) in CALLS.items():
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        # Foreign bytes, so that no shorter way than a plan is open.
        given = x.astype(x.dtype.newbyteorder()) if what.endswith("serial") else x
        getattr(softmax_numba, name)(given, axis)
        ((operation, found),) = plans
        plans.clear()
        sweep, shared, past_cache = expected
        assert operation == name
        expected = (sweep, shared, past_cache and name != "logsumexp")
        assert (found.sweep, found.shares > 1, found.past_cache) == expected, what
        taken.add(expected)
    kinds = {("rows", False, False), ("rows", True, False), ("columns", False, False), ("columns", True, False)}
    kinds |= {("blocks", False, False), ("blocks", True, False), ("long", True, False)}
    kinds |= {(sweep, shared, False) for sweep in ("short", "deep", "shallow") for shared in (False, True)}
    assert kinds <= taken
    if name != "logsumexp":
        assert {(sweep, True, True) for sweep in SWEEPS} <= taken


@every_operation
def test_one_thread_takes_serial_plans_only(name, plans, monkeypatch):
    monkeypatch.setattr(threads, "in_use", lambda: 1)
    for shape, axis, _ in CALLS.values():
        getattr(softmax_numba, name)(np.zeros(shape, np.float32), axis)
    assert {found.shares for _, found in plans} == {1}
    assert {found.sweep for _, found in plans} == SWEEPS - {"long"}


# --- and that it makes no difference ------------------------------------------------

PLANS = (
    Plan("rows", 1, False),
    Plan("rows", 1, True),
    Plan("rows", 2, False),
    Plan("rows", 5, True),
    Plan("short", 1, False),
    Plan("short", 1, True),
    Plan("short", 3, False),
    Plan("short", 2, True),
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
    Plan("long", 2, False),
    Plan("long", 7, True),
)


def for_lanes(length, masked=False):
    """The plans for lanes of that length."""
    longest = {"rows": BLOCK, "short": BLOCK, "shallow": 8}
    without_mask = ("short", "deep", "shallow")
    return [
        plan
        for plan in PLANS
        if length <= longest.get(plan.sweep, length) and not (masked and plan.sweep in without_mask)
    ]


def carried_out(name, plan, lanes, where=None, temperature=None, shift=1):
    """The results for `lanes` (a 2-D array, a lane a row) by `plan`, in the layout that the plan is for."""
    operation, across = OPERATIONS[name], plan.sweep in ("columns", "deep", "shallow")
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
@example(length=5, count=300, seed=0)
@example(length=33, count=1000, seed=0)
@example(length=BLOCK, count=17, seed=0)
@example(length=BLOCK + 1, count=9, seed=0)
@example(length=3 * BLOCK - 1, count=3, seed=0)
def test_every_plan_gives_the_same_bits(name, dtype, length, count, seed):
    x = lanes_of(count, length, dtype, seed)
    first, *others = for_lanes(length)
    expected = carried_out(name, first, x)
    for other in others:
        assert same_bits(carried_out(name, other, x, shift=1 + seed % 7), expected), other


@every_operation
@given(length=near_a_multiple, count=st.integers(1, 20), seed=st.integers(0, 99))
@settings(max_examples=15)
@example(length=2 * BLOCK + 3, count=9, seed=1)
def test_every_plan_gives_the_same_bits_with_mask_and_temperature(name, length, count, seed):
    x = lanes_of(count, length, np.float32, seed)
    rng = np.random.default_rng(seed)
    where = rng.random(x.shape) < 0.7
    where[0] = False
    temperature = rng.uniform(0.3, 3, count)
    first, *others = for_lanes(length, masked=True)
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


@every_operation
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, "bfloat16"], ids=str)
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
@example(length=3, inner=65, outer=2, spare=0, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=8, inner=16 * 9 + 2, outer=1, spare=14, shares=9, shift=4, past_cache=True, tempered=True)
@example(length=300, inner=128, outer=3, spare=0, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=21, inner=1100, outer=2, spare=4, shares=1, shift=4, past_cache=True, tempered=False)
@example(length=4100, inner=70, outer=2, spare=0, shares=2, shift=4, past_cache=True, tempered=True)
def test_columns_in_any_place(name, dtype, length, inner, outer, spare, shares, shift, past_cache, tempered):
    """Slabs of columns, with and without room between their lines, from any place of a cache line on."""
    dtype = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    operation, count = OPERATIONS[name], outer * inner
    lanes = lanes_of(count, length, np.float32, length).astype(dtype)
    heat = np.random.default_rng(inner).uniform(0.3, 3, count) if tempered else None
    expected = carried_out(name, Plan("rows" if length <= BLOCK else "blocks", 1, False), lanes, temperature=heat)
    x = across_the_middle(lanes, outer, spare)
    lines = 1 if operation.one_number else length
    room = np.full(outer * lines * (inner + spare) + 2 * shift + 64, 7, dtype)
    start = (-room.ctypes.data % 64) // room.itemsize + shift
    out = room[start : start + outer * lines * (inner + spare)].reshape(outer, lines, inner + spare)
    heats = None if heat is None else heat.reshape(outer, inner)
    for sweep in ("columns", "deep", "shallow")[: 3 if length <= 8 else 2]:
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
    for length in range(2, 34):
        for count in (15, 16, 17, 130):
            x = lanes_of(count, length, dtype)
            heat = np.random.default_rng(length).uniform(0.3, 3, count) if length % 3 == 0 else None
            expected = carried_out(name, Plan("rows", 1, False), x, temperature=heat)
            assert same_bits(carried_out(name, Plan("short", 1, past_cache), x, temperature=heat), expected)


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
