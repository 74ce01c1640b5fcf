"""Plans: which sweep a shape gets, and that every sweep is taken."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softmax_numba
from softmax_numba.cpu import plan as planning
from softmax_numba.cpu import sweeps, threads
from softmax_numba.cpu.lane import BLOCK, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.plan import CREW_FROM, LOG_VALUES, LONG_FROM, PARALLEL_FROM, plan, work_of

MANY_REGISTERS = planning.REGISTER_BITS == 512
# What rows of two or three vectors get, and what float64 ones do that wait, by the number of registers.
TURNED, TURNED_OR_WOVEN = ("rows", "woven") if MANY_REGISTERS else ("short", "short")
LONGEST_SHORT = 32 if MANY_REGISTERS else 128
TINY = "short" if MANY_REGISTERS else "tiny"
# Of float32, neither short nor long enough to be woven.
MIDDLING = 40 if MANY_REGISTERS else 120
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
    logarithms=False,
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
        logarithms=logarithms,
        threads=count,
    )


# What short columns get, by the number of registers, and all sweeps whose vectors hold neighbouring lanes' values.
MIDDLE = "middle" if planning.MIDDLE_TO else "columns"
ACROSS = {"columns", "middle", "deep", "shallow"}


# --- what shapes get ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "one_number", "shares"),
    [
        pytest.param((1, 1000, 400), False, 1, id="too narrow for two cores"),
        pytest.param((1, 300, 1000), False, 2, id="wide enough"),
        pytest.param((2, 300, 400), False, 2, id="slabs of their own"),
        pytest.param((1, 1000, 400), True, 2, id="nothing is written side by side"),
        pytest.param((1, 10_000, 400), False, 2, id="past the caches"),
    ],
)
def test_the_width_of_columns_for_two_cores(columns, one_number, shares):
    found = planned(*columns, one_number=one_number, count=2)
    assert found.across
    assert found.shares == shares


@pytest.mark.parametrize("registers", [32, 16])
def test_rows_that_wait_are_woven_in_many_registers(registers, monkeypatch):
    monkeypatch.setattr(planning, "WEAVES_WAITING", registers == 32)
    assert planning.is_woven(16_384, 1000, 4) == planning.is_woven(65_536, 256, 4) == (registers == 32)
    assert planning.is_woven(1000, 1000, 4)  # stays in the caches
    assert planning.is_woven(4096, 1025, 4)  # streamed row by row
    assert planning.is_woven(16_384, 600, 8)
    assert not planning.is_woven(1000, 1000, 2)
    assert not planning.is_woven(1000, 63, 4)
    assert not planning.is_woven(10, BLOCK + 1, 4)
    assert not planning.is_woven(1, BLOCK, 4)


@pytest.mark.parametrize(
    ("registers", "itemsize", "one_number", "in_cache", "past_cache"),
    [
        (16, 2, False, 40, 48),
        (16, 4, False, 48, 112),
        (16, 8, False, 64, 112),
        *((16, itemsize, True, 112, 112) for itemsize in (2, 4)),
        (16, 8, True, 128, 128),
        *((32, itemsize, one, 32, 32) for itemsize in (2, 4) for one in (False, True)),
        *((32, 8, one, 24, 24) for one in (False, True)),
    ],
)
def test_how_long_short_rows_are(registers, itemsize, one_number, in_cache, past_cache, monkeypatch):
    monkeypatch.setattr(planning, "REGISTER_BITS", 512 if registers == 32 else 256)

    def sweep_of(lanes, length):
        return planning.SWEEPS[planning.sweep_over(lanes, length, 1, itemsize, True, one_number, True, True, False)]

    few, tiny = planning.FEWEST_SHORT, 0 if registers == 32 else 32 // max(itemsize, 4)
    if tiny:
        fewest = 64 // max(itemsize, 4)
        assert sweep_of(fewest, 2) == sweep_of(fewest, tiny) == "tiny"
        assert sweep_of(fewest - 1, 2) == sweep_of(fewest - 1, tiny) == "rows"
    assert sweep_of(few, tiny + 2) == "short"
    assert sweep_of(few - 1, tiny + 2) == "rows"
    assert sweep_of(few, in_cache) == "short" != sweep_of(few, in_cache + 1)
    many = planning.PAST_CACHE_BYTES // (past_cache * itemsize) + 1
    assert sweep_of(many, past_cache) == "short" != sweep_of(many, past_cache + 1)


@pytest.mark.parametrize(
    ("lanes", "dtype", "sweep", "shared", "past_cache"),
    [
        pytest.param((1, 10), np.float32, "rows", False, False, id="one short lane"),
        pytest.param((40, 100), np.float32, "rows", False, False, id="a small batch"),
        pytest.param((64, 200), np.float32, "woven", False, False, id="a batch"),
        pytest.param((1024, 1000), np.float32, "woven", True, False, id="a classifier's head"),
        pytest.param((1024, 1000), np.float16, "rows", True, False, id="a classifier's head in float16"),
        pytest.param((400_000, 41), np.float32, TURNED, True, True, id="rows of three vectors"),
        pytest.param((65_536, MIDDLING), np.float32, "rows", True, True, id="neither short nor to be woven"),
        pytest.param((256, 50_257), np.float32, "blocks", True, True, id="GPT-2's vocabulary"),
        pytest.param((16, 50_257), np.float16, "blocks", True, False, id="a large vocabulary, within the cache"),
        pytest.param((256, 128_256), np.float16, "blocks", True, True, id="Llama 3's vocabulary"),
        pytest.param((1_000_000, 8), np.float32, TINY, True, True, id="a router"),
        pytest.param((1_000_000, 16), np.float64, "short", True, True, id="a mixture model"),
        pytest.param((1_000_000, 32), np.float32, "short", True, True, id="two vectors"),
        pytest.param((1_000_000, 32), np.float64, TURNED_OR_WOVEN, True, True, id="four vectors of float64"),
        pytest.param((63, 9), np.float32, "rows", False, False, id="too few short rows"),
        pytest.param((8, 21, 65_536), np.float32, MIDDLE, True, True, id="a segmentation map along axis 1"),
        pytest.param(
            (8, 22, 65_536), np.float32, "columns", True, True, id="one whose lines fill a place of the cache"
        ),
        pytest.param((8, 21, 65_536), np.float64, "columns", True, True, id="a segmentation map in float64"),
        pytest.param((8, 64, 50_000), np.float32, MIDDLE, True, True, id="a map whose lines stand anywhere in a page"),
        pytest.param((8, 65, 50_000), np.float32, "columns", True, True, id="a map of more lines"),
        pytest.param((8, 21, 65_536), np.float16, MIDDLE, True, True, id="a segmentation map in float16"),
        pytest.param((1, 16, 100_000), np.float32, MIDDLE, True, True, id="sixteen components along axis 0"),
        pytest.param((1, 100, 64), np.float32, MIDDLE, False, False, id="a small batch along axis 0"),
        pytest.param((1, 4096, 1000), np.float32, "deep", True, True, id="deep columns"),
        pytest.param((70, 1000, 128), np.float16, "deep", True, True, id="deep columns in batches"),
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


@pytest.mark.parametrize(
    ("registers", "itemsize", "inner", "exponentials", "logarithms", "one_number"),
    [
        (16, 4, 1000, 513, 65, 65),
        (16, 4, 128, 513, 65, 65),
        (16, 4, 127, 513, 513, 256),
        (16, 8, 1000, 256, 65, 65),
        (16, 8, 63, 256, 256, 256),
        (32, 4, 1000, 513, 513, 256),
        (32, 8, 1000, 513, 513, 256),
    ],
)
def test_from_where_large_columns_are_deep(
    registers, itemsize, inner, exponentials, logarithms, one_number, monkeypatch
):
    monkeypatch.setattr(planning, "REGISTER_BITS", 512 if registers == 32 else 256)
    monkeypatch.setattr(planning, "MIDDLE_TO", 0)

    def is_deep(length, one, logs):
        outer = planning.PAST_CACHE_BYTES // (length * inner * itemsize) + 1
        return planning.sweep_over(outer, length, inner, itemsize, False, one, True, True, logs) == planning.DEEP

    for first, one, logs in ((exponentials, False, False), (logarithms, False, True), (one_number, True, True)):
        assert is_deep(first, one, logs) and not is_deep(first - 1, one, logs)


@pytest.mark.parametrize(("itemsize", "with_results"), [(4, 21), (8, 16)])
def test_how_deep_a_map_may_be_whose_lines_stand_at_the_same_place_of_every_page(itemsize, with_results, monkeypatch):
    """With one number a pixel, and with results."""
    monkeypatch.setattr(planning, "MIDDLE_TO", 255)
    for one_number, deepest in ((True, 48), (False, with_results)):
        for length, middle in ((deepest, True), (deepest + 1, False)):
            found = planning.sweep_over(8, length, 65_536, itemsize, False, one_number, True, True, False)
            assert (found == planning.MIDDLE) == middle, (one_number, length)


@given(
    outer=st.integers(1, 10**6),
    length=st.integers(1, 10**8),
    inner=st.integers(1, 10**5),
    itemsize=st.sampled_from([2, 4, 8]),
    side_by_side=st.booleans(),
    one_number=st.booleans(),
    turnable=st.booleans(),
    columnar=st.booleans(),
    logarithms=st.booleans(),
    count=st.integers(1, 256),
)
@settings(max_examples=300)
def test_what_holds_for_every_plan(
    outer, length, inner, itemsize, side_by_side, one_number, turnable, columnar, logarithms, count
):
    how = {"itemsize": itemsize, "side_by_side": side_by_side, "one_number": one_number}
    how |= {"turnable": turnable, "columnar": columnar, "logarithms": logarithms}
    found = plan(outer, length, inner, threads=count, **how)
    lanes = outer * inner
    across = outer * -(-inner // (8 if itemsize == 8 else 16))
    others = {"long": -(-length // BLOCK), "narrow": -(-lanes // (8 if itemsize == 8 else 16))}
    units = (dict.fromkeys(ACROSS, across) | others).get(found.sweep, lanes)
    assert 1 <= found.shares <= units
    if count == 1 or lanes * length < PARALLEL_FROM:
        assert found.shares == 1
    if found.sweep in ("rows", "woven", "blocks"):
        assert (found.sweep != "blocks") == (length <= BLOCK)
    if found.sweep == "woven":
        assert length * itemsize >= 256 and side_by_side and inner == 1 and turnable and not one_number
    if found.sweep == "long":
        assert found.shares > 1 and lanes < 2 * count
    if found.turned:
        assert found.sweep == (TINY if length <= (4 if itemsize == 8 else 8) else "short")
        assert length <= LONGEST_SHORT and side_by_side and inner == 1 and turnable
    if found.sweep == "narrow":
        assert 1 < inner < 8 and length <= 200 and columnar and not side_by_side
    if found.sweep in ACROSS:
        assert inner > 1 and not side_by_side
        # A share that is narrower than a page of memory is one of as many as there are threads.
        assert found.shares <= count or across // found.shares * 64 >= 4096
    large = lanes * length * itemsize >= planning.PAST_CACHE_BYTES
    if found.sweep in ACROSS - {"columns"}:
        assert (
            columnar
            and (length <= 8) == (found.sweep == "shallow")
            and (found.sweep == "deep")
            == (length >= planning.deep_from(inner * itemsize, itemsize, large, one_number, logarithms))
        )
    if one_number or lanes * length * itemsize < 2**20:
        assert not found.past_cache
    serial = plan(outer, length, inner, threads=1, **how)
    assert serial.shares == 1 and serial.sweep != "long"


def test_work_counts_float64_twice_and_logarithms_until_there_is_enough_of_it():
    assert work_of(1000, 10, 4, False) == work_of(1000, 10, 2, False) == 1000
    assert work_of(1000, 10, 8, False) == 2000
    assert work_of(1000, 100, 4, True) == 1000 + 100 * LOG_VALUES
    assert work_of(1000, 100, 8, True) == 2000 + 100 * LOG_VALUES
    assert work_of(CREW_FROM - 1, 5000, 8, True) == CREW_FROM
    assert work_of(CREW_FROM, 5000, 8, True) == CREW_FROM
    assert work_of(10 * CREW_FROM, 5000, 8, True) == 10 * CREW_FROM


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


# What large columns of some hundred values get where no exponentials are needed for the results.
DEEP_FOR_LOGARITHMS = "columns" if MANY_REGISTERS else "deep"

SWEEPS = {"rows", TINY, "short", "woven", "columns", MIDDLE, "narrow", "deep", "shallow", "blocks", "long"}

CALLS = {
    "tiny, serial": ((300, 7), 1, (TINY, False, False)),
    "tiny, shared": ((30_000, 8), 1, (TINY, True, False)),
    "tiny, shared, past the cache": ((300_000, 5), 1, (TINY, True, True)),
    "short, serial": ((300, 9), 1, ("short", False, False)),
    "short, shared": ((30_000, 9), 1, ("short", True, False)),
    "short, shared, past the cache": ((300_000, 9), 1, ("short", True, True)),
    "rows, serial": ((9, MIDDLING), 1, ("rows", False, False)),
    "rows, shared": ((3000, MIDDLING), 1, ("rows", True, False)),
    "rows, shared, past the cache": ((30_000, MIDDLING), 1, ("rows", True, True)),
    "woven, serial": ((9, 600), 1, ("woven", False, False)),
    "woven, shared": ((400, 200), 1, ("woven", True, False)),
    "woven, shared, past the cache": ((2100, 2000), 1, ("woven", True, True)),
    "columns, shared, past the cache": ((60, 65_536), 0, ("columns", True, True)),
    "columns or deep, shared, past the cache": ((110, 11_000), 0, (DEEP_FOR_LOGARITHMS, True, True)),
    "middle, serial": ((40, 50), 0, (MIDDLE, False, False)),
    "middle, shared": ((100, 800), 0, (MIDDLE, True, False)),
    "middle, shared, past the cache": ((12, 100_000), 0, (MIDDLE, True, True)),
    "middle of three dimensions": ((4, 50, 400), 1, (MIDDLE, True, False)),
    "deep, serial": ((300, 40), 0, ("deep", False, False)),
    "deep, shared": ((1000, 800), 0, ("deep", True, False)),
    "deep, shared, past the cache": ((2, 1100, 1100), 1, ("deep", True, True)),
    "shallow, serial": ((5, 2, 40), 1, ("shallow", False, False)),
    "shallow, shared": ((8, 9000), 0, ("shallow", True, False)),
    "shallow, shared, past the cache": ((2, 3, 400, 500), 1, ("shallow", True, True)),
    "narrow, serial": ((9, 5, 4), 1, ("narrow", False, False)),
    "narrow, shared": ((3000, 10, 3), 1, ("narrow", True, False)),
    "narrow, shared, past the cache": ((30_000, 20, 2), 1, ("narrow", True, True)),
    "few columns": ((20_000, 5), 0, ("blocks", True, False)),
    "few short columns": ((2000, 5, MIDDLING // 5, 1), (1, 2), ("rows", True, False)),
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
        getattr(softmax_numba, name)(x.astype(x.dtype.newbyteorder()), axis)
        ((operation, found),) = plans
        plans.clear()
        sweep, shared, past_cache = expected
        if name == "logsumexp" and sweep == "woven":
            sweep = "rows"
        if name == "softmax" and what.startswith("columns"):
            sweep = "columns"
        assert operation == name
        expected = (sweep, shared, past_cache and name != "logsumexp")
        assert (found.sweep, found.shares > 1, found.past_cache) == expected, what
        taken.add(expected)
    kinds = {("rows", False, False), ("rows", True, False), (MIDDLE, False, False), (MIDDLE, True, False)}
    kinds |= {("blocks", False, False), ("blocks", True, False), ("long", True, False)}
    kinds |= {
        (sweep, shared, False) for sweep in (TINY, "short", "narrow", "deep", "shallow") for shared in (False, True)
    }
    assert kinds <= taken
    if name != "logsumexp":
        assert {("woven", shared, False) for shared in (False, True)} <= taken
        assert {(sweep, True, True) for sweep in SWEEPS} <= taken


@every_operation
def test_one_thread_takes_serial_plans_only(name, plans, monkeypatch):
    monkeypatch.setattr(threads, "in_use", lambda: 1)
    for shape, axis, _ in CALLS.values():
        getattr(softmax_numba, name)(np.zeros(shape, np.float32), axis)
    assert {found.shares for _, found in plans} == {1}
    assert {found.sweep for _, found in plans} == SWEEPS - {"long"} - ({"woven"} if name == "logsumexp" else set())
