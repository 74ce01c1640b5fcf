"""The door of small calls: what it takes, what it leaves to others, and that both come to the same bits."""

import dataclasses
import itertools
import sys
import threading
import time

import numpy as np
import pytest
from grids import layouts, no_warnings, normal
from numba import types
from oracle import BFLOAT16, same_bits

import softmax_numba
from softmax_numba import calls
from softmax_numba.cpu import crew, door, sweeps
from softmax_numba.cpu.crew import MOST_VALUES
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.joining import SPIN
from softmax_numba.cpu.lane import BLOCK, LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.plan import FEWEST_SHORT

pytestmark = no_warnings

OPERATIONS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX, "logsumexp": LOGSUMEXP}
DTYPES = {"float16": np.dtype(np.float16), "bfloat16": BFLOAT16, "float32": np.dtype("f4"), "float64": np.dtype("f8")}
every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_dtype = pytest.mark.parametrize("kind", DTYPES)

# A shape of every form, with one axis, two and more.
SHAPES = {
    (10,): door.ROWS,
    (1, 16): door.ROWS,
    (3, 7): door.ROWS,
    (FEWEST_SHORT, 1): None,  # softmax is certain then, the others turn it
    (FEWEST_SHORT - 1, 7): door.ROWS,
    (FEWEST_SHORT, 7): door.SHORT,
    (2, 5, 3, 11): door.ROWS,
    (9, 8, 7): door.SHORT,
    (BLOCK // 64, 64): door.ROWS,
    (50, 100): door.WOVEN,  # but for 16-bit floats and single numbers
    (3, 2, 1000): door.WOVEN,
    (BLOCK,): door.ROWS,
    (BLOCK + 1,): door.BLOCKS,
    (2, 3, 5000): door.BLOCKS,
}


@pytest.fixture
def taken(monkeypatch):
    """The forms of the doors that calls went through, and how many took another way."""
    found = {"forms": [], "others": 0}
    make, general, run = door.door, calls.general, sweeps.run

    def recorded(operation, storage, form):
        enter = make(operation, storage, form)

        def watched(x, out):
            said = enter(x, out)
            if said == sweeps.DONE:
                found["forms"].append(form)
            return said

        return watched

    def counted(way):
        def other(*arguments, **named):
            found["others"] += 1
            return way(*arguments, **named)

        return other

    monkeypatch.setattr(door, "door", recorded)
    monkeypatch.setattr(sweeps, "run", counted(run))
    monkeypatch.setattr(softmax_numba.functions, "general", counted(general))
    for name, operation in OPERATIONS.items():
        monkeypatch.setattr(softmax_numba.functions, f"_small_{name}", calls.short_way(operation))
    return found


def long_way(name, x):
    """The result along the last axis by a plan."""
    return calls.general(OPERATIONS[name], x, -1, None, None if name == "logsumexp" else 1.0, None, None)


@every_operation
@every_dtype
def test_every_form_is_taken_and_is_the_long_way_to_the_bit(name, kind, taken):
    function = getattr(softmax_numba, name)
    for shape, form in SHAPES.items():
        x = normal(shape, DTYPES[kind], scale=3.0)
        result = function(x)
        if form == door.WOVEN and (x.itemsize == 2 or name == "logsumexp"):
            form = door.ROWS
        if form is not None:
            assert taken["forms"] == [form], shape
        assert len(taken["forms"]) == 1
        assert not taken["others"], shape
        expected = long_way(name, x)
        assert type(result) is type(expected)
        assert same_bits(result, expected), shape
        assert result.dtype == x.dtype
        for axis in (-1, x.ndim - 1):
            out = np.empty_like(expected)
            assert function(x, axis, out=out) is out
            assert same_bits(out, expected)
        if name != "logsumexp":
            x_too = x.copy()
            assert function(x_too, out=x_too) is x_too
            assert same_bits(x_too, expected)
        taken.update(forms=[], others=0)


@every_operation
def test_dtypes_and_forms_in_turn(name, taken):
    """A call goes first through the door that the last one took, whatever that was."""
    function = getattr(softmax_numba, name)
    cases = [normal(shape, dtype) for shape in ((3, 7), (100, 7), (2, 5000)) for dtype in DTYPES.values()]
    for first, second in itertools.product(cases, repeat=2):
        expected = [long_way(name, x) for x in (first, second)]
        taken["others"] = 0
        assert same_bits(function(first), expected[0])
        assert same_bits(function(second), expected[1])
        assert not taken["others"]


@every_operation
@every_dtype
def test_any_layout_of_rows(name, kind, taken):
    x = normal((9, 40), DTYPES[kind])
    function = getattr(softmax_numba, name)
    expected = function(x)
    for layout, values in layouts(x).items():
        assert same_bits(function(values), expected), layout
        if name == "logsumexp":
            continue
        out = np.empty((18, 80), x.dtype)[::2, ::-2]
        before = len(taken["forms"])
        assert function(values, out=out) is out
        assert same_bits(np.ascontiguousarray(out), expected), layout
        if isinstance(values, np.ndarray) and values.flags.aligned and values.dtype.isnative:
            assert len(taken["forms"]) == before + 1, layout


def test_what_is_refused():
    """Everything that a door does not know is left untouched, and said so."""
    x, out = normal((4, 6), np.float32), np.full((4, 6), 7, np.float32)
    enter = door.door(SOFTMAX, "float32", door.ROWS)
    assert enter(x, out) == sweeps.DONE
    out[...] = 7
    read_only = out.copy()
    read_only.flags.writeable = False
    tagged = np.dtype(np.float32, metadata={"unit": "nat"})
    of_others = x.astype(np.float64), x.astype(">f4"), x.astype(tagged), np.ma.array(x)
    for other in (None, 3, [1.0], "x", object(), *of_others):
        assert enter(other, out) == door.OTHER
        assert enter(x, other) == sweeps.REFUSED
    whole = np.zeros(100, np.uint8)
    unaligned = whole[1:97].view(np.float32).reshape(4, 6)
    wrong = {
        "another shape": out.T,
        "an axis less": out[0],
        "an axis more": out[None],
        "a shorter lane": out[:, :5],
        "read-only": read_only,
        "unaligned": unaligned,
        "one row for all": np.lib.stride_tricks.as_strided(out, (4, 6), (0, 4)),
        "one place for a row": np.lib.stride_tricks.as_strided(out, (4, 6), (24, 0)),
    }
    for what, target in wrong.items():
        assert enter(x, target) == sweeps.REFUSED, what
    assert (out == 7).all()
    assert not whole.any()
    assert enter(unaligned, out) == sweeps.REFUSED
    assert enter(np.zeros((0, 6), np.float32), np.zeros((0, 6), np.float32)) == sweeps.REFUSED
    assert enter(np.zeros((4, 0), np.float32), np.zeros((4, 0), np.float32)) == sweeps.REFUSED
    assert enter(np.zeros((), np.float32), np.zeros((), np.float32)) == sweeps.REFUSED
    three = np.zeros((2, 3, 4), np.float32)
    assert enter(three, three.copy()) == sweeps.DONE
    assert enter(three.transpose(1, 0, 2), np.zeros((3, 2, 4), np.float32)) == sweeps.REFUSED
    assert enter(np.zeros((3, 2, 4), np.float32), three.transpose(1, 0, 2)) == sweeps.REFUSED
    room = np.zeros(25, np.float32)
    a = room[:24].reshape(4, 6)
    for target in (room[1:].reshape(4, 6), a[::-1], a[:, ::-1]):
        assert enter(a, target) == sweeps.REFUSED
    for arguments in ((), (x,), (x, out, out)):
        with pytest.raises(TypeError):
            enter(*arguments)


def test_who_is_to_be_asked_instead():
    rows, turned = (door.door(SOFTMAX, "float32", form) for form in (door.ROWS, door.SHORT))
    for shape, said in (((100, 7), door.SHORT), ((1, 5000), door.BLOCKS), ((MOST_VALUES // 8 + 1, 8), door.LARGE)):
        x = normal(shape, np.float32)
        out = np.full_like(x, 7)
        assert rows(x, out) == said
        assert (out == 7).all()
    x = normal((100, 7), np.float32)
    assert turned(x[:9], np.empty((9, 7), np.float32)) == door.ROWS
    assert turned(x[:, ::2], np.empty((100, 4), np.float32)) == door.ROWS  # lanes whose values lie apart
    assert turned(x, np.empty((100, 14), np.float32)[:, ::2]) == door.ROWS
    assert turned(x.astype(np.float64), x) == door.OTHER
    x = normal((50, 100), np.float32)
    assert rows(x, np.empty_like(x)) == door.WOVEN
    woven = door.door(SOFTMAX, "float32", door.WOVEN)
    assert woven(x, np.empty_like(x)) == sweeps.DONE
    assert woven(x[:, ::-1], np.empty_like(x)) == door.ROWS
    assert woven(x, np.empty_like(x)[:, ::-1]) == door.ROWS


def test_numbers_of_lanes_in_any_stride(taken):
    x = normal((9, 40), np.float32)
    expected = softmax_numba.logsumexp(x)
    room = np.zeros(30, np.float32)
    for out in (room[:9], room[:27:3], room[8::-1]):
        assert softmax_numba.logsumexp(x, out=out) is out
        assert same_bits(np.ascontiguousarray(out), expected)
    assert softmax_numba.logsumexp(x[0], out=room[:1].reshape(())) == expected[0]
    assert not taken["others"]
    inside = x.copy()
    assert same_bits(softmax_numba.logsumexp(inside, out=inside[0, :9]).copy(), expected)
    assert taken["others"]


@pytest.mark.parametrize("lies", ["base", "head"])
def test_without_a_door_the_long_way_is_taken(lies, taken, monkeypatch):
    """As where objects or arrays look different from what is read here."""
    if lies == "base":
        monkeypatch.setattr(door, "readable", lambda: False)
    else:
        monkeypatch.setattr(door, "_DATA", door._DATA + 8)
        assert not door.readable.__wrapped__()
        monkeypatch.setattr(door, "readable", door.readable.__wrapped__)
    small = calls.short_way(SOFTMAX)
    monkeypatch.setattr(softmax_numba.functions, "_small_softmax", small)
    x = normal((3, 7), np.float32)
    result = softmax_numba.softmax(x)
    assert not taken["forms"]
    assert taken["others"]
    assert same_bits(result, long_way("softmax", x))


def test_arrays_are_readable_here():
    assert door.readable()


@pytest.fixture
def nobody_awake():
    """Without a crew, whom a door leaves calls of 16,000 values and more that follow closely."""
    seen = crew._crew.seen
    before, seen[SPIN] = seen[SPIN], 0
    yield
    seen[SPIN] = before


@pytest.mark.parametrize(("length", "released"), [(100, False), (60_000, True)])
def test_python_runs_on_beside_long_sweeps(length, released, nobody_awake):
    """Its lock is given away where a sweep takes longer than that, and kept where it does not."""
    x = np.zeros((1, length), np.float32)
    out = np.empty_like(x)
    enter = door.door(SOFTMAX, "float32", door.BLOCKS if length > BLOCK else door.ROWS)
    assert enter(x, out) == sweeps.DONE
    before, go, ran = sys.getswitchinterval(), threading.Event(), []

    def beside():
        go.wait()
        ran.append(True)

    thread = threading.Thread(target=beside)
    thread.start()
    sys.setswitchinterval(60.0)  # nobody else takes the lock from who holds it
    try:
        go.set()
        calls, end = 0, time.monotonic() + 60  # who waits for the lock may also have to wait for a core
        while not ran and (time.monotonic() < end if released else calls < 20_000):
            assert enter(x, out) == sweeps.DONE
            calls += 1
        assert bool(ran) == released
    finally:
        sys.setswitchinterval(before)
        thread.join()


@pytest.mark.parametrize("length", [10, BLOCK + 1])
def test_a_sweep_that_fails(length, monkeypatch):
    """Is the caller's error, and Python's lock is the caller's again."""

    def failing_sweep(x, mask, temperature, out, first, last, past_cache):
        if x.shape[0] > 1:
            raise MemoryError

    arrays = sweeps.Arrays(types.float32, False, False)
    body = compiled(failing_sweep, "failing_sweep", body=True)
    signature = (*arrays.types, types.intp, types.intp, types.boolean)
    address = sweeps.address_of_body(body, "failing-sweep", signature)
    monkeypatch.setattr(door, "body_of", lambda *asked: address)
    form = door.BLOCKS if length > BLOCK else door.ROWS
    enter = door.door(dataclasses.replace(LOG_SOFTMAX, name="failing"), "float32", form)
    x = np.zeros((2, length), np.float32)
    for _ in range(3):
        with pytest.raises(MemoryError, match="no memory for a buffer"):
            enter(x, x)
    assert enter(x[:1], x[:1]) == sweeps.DONE
