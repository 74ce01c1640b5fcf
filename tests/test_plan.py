"""Plans: which sweep a shape gets, that every sweep is taken, and that none of them changes a bit."""

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
from softmax_numba.cpu.plan import PARALLEL_FROM, Plan, plan

OPERATIONS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX, "logsumexp": LOGSUMEXP}
every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


def planned(outer, length, inner=1, dtype=np.float32, *, one_number=False, turnable=True, count=8, side_by_side=None):
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
        pytest.param((4096, 1000, 4), np.float32, "rows", True, True, id="few neighbours"),
        pytest.param((1, 2**24), np.float32, "long", True, True, id="one lane of 2**24"),
        pytest.param((1, 2**18), np.float32, "long", True, False, id="one lane within the cache"),
        pytest.param((3, 2**20), np.float64, "long", True, True, id="three long lanes"),
        pytest.param((1, 2**17, 3), np.float32, "long", True, False, id="three long lanes side by side"),
        pytest.param((1, PARALLEL_FROM - 1), np.float32, "blocks", False, False, id="one lane, too short to split"),
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
    count=st.integers(1, 256),
)
@settings(max_examples=300)
def test_what_holds_for_every_plan(outer, length, inner, itemsize, side_by_side, one_number, turnable, count):
    how = {"itemsize": itemsize, "side_by_side": side_by_side, "one_number": one_number, "turnable": turnable}
    found = plan(outer, length, inner, threads=count, **how)
    lanes = outer * inner
    units = {"columns": outer * -(-inner // 8), "long": -(-length // BLOCK)}.get(found.sweep, lanes)
    assert 1 <= found.shares <= units
    if count == 1 or lanes * length < PARALLEL_FROM:
        assert found.shares == 1
    if found.sweep in ("rows", "blocks"):
        assert (found.sweep == "rows") == (length <= BLOCK)
    if found.sweep == "long":
        assert found.shares > 1 and lanes < 2 * count
    if found.sweep == "short":
        assert length <= 32 and side_by_side and inner == 1 and turnable
    if found.sweep == "columns":
        assert inner > 1 and not side_by_side
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


CALLS = {
    "short, serial": ((300, 7), 1, ("short", False, False)),
    "short, shared": ((30_000, 9), 1, ("short", True, False)),
    "short, shared, past the cache": ((300_000, 5), 1, ("short", True, True)),
    "rows, serial": ((9, 40), 1, ("rows", False, False)),
    "rows, shared": ((700, 100), 1, ("rows", True, False)),
    "rows, shared, past the cache": ((2100, 2000), 1, ("rows", True, True)),
    "columns, serial": ((40, 50), 0, ("columns", False, False)),
    "columns, shared": ((100, 700), 0, ("columns", True, False)),
    "columns, shared, past the cache": ((1100, 1100), 0, ("columns", True, True)),
    "columns of three dimensions": ((4, 50, 400), 1, ("columns", True, False)),
    "few columns": ((20_000, 5), 0, ("blocks", True, False)),
    "few short columns": ((2000, 5, 9, 1), (1, 2), ("rows", True, False)),
    "blocks, serial": ((3, 5000), 1, ("blocks", False, False)),
    "blocks, shared": ((20, 10_000), 1, ("blocks", True, False)),
    "blocks, shared, past the cache": ((20, 60_000), 1, ("blocks", True, True)),
    "long": ((100_000,), 0, ("long", True, False)),
    "long, past the cache": ((2**22 + 9,), 0, ("long", True, True)),
    "long, side by side": ((100_000, 2), 0, ("long", True, False)),
    "all axes": ((300, 400), None, ("long", True, False)),
}


@every_operation
def test_every_plan_is_taken(name, plans):
    taken = set()
    for what, (shape, axis, expected) in CALLS.items():
        # Reversed, so that no shorter way than a plan is open.
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)[..., ::-1]
        x = x if axis == 0 and len(shape) > 1 else np.ascontiguousarray(x)
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
    kinds |= {("short", False, False), ("short", True, False)}
    assert kinds <= taken
    if name != "logsumexp":
        assert {(sweep, True, True) for sweep in ("rows", "short", "columns", "blocks", "long")} <= taken


@every_operation
def test_one_thread_takes_serial_plans_only(name, plans, monkeypatch):
    monkeypatch.setattr(threads, "in_use", lambda: 1)
    for shape, axis, _ in CALLS.values():
        getattr(softmax_numba, name)(np.zeros(shape, np.float32), axis)
    assert {found.shares for _, found in plans} == {1}
    assert {found.sweep for _, found in plans} == {"rows", "short", "blocks", "columns"}


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
    Plan("long", 2, False),
    Plan("long", 7, True),
)


def for_lanes(length, masked=False):
    """The plans for lanes of that length."""
    return [
        plan
        for plan in PLANS
        if not (plan.sweep in ("rows", "short") and length > BLOCK) and not (plan.sweep == "short" and masked)
    ]


def carried_out(name, plan, lanes, where=None, temperature=None, shift=1):
    """The results for `lanes` (a 2-D array, a lane a row) by `plan`, in the layout that the plan is for."""
    operation, across = OPERATIONS[name], plan.sweep == "columns"
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
    sweeps.run(operation, plan, lanes.dtype.name, x, mask, heat, out)
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
