"""The door of small calls: what it takes, what it leaves to others, and that both come to the same bits."""

import dataclasses
import itertools
import pickle
import sys
import threading
import time

import numpy as np
import pytest
from crews import nobody_awake as nobody_awake
from doors import OPERATIONS, entered, long_way
from doors import taken as taken
from grids import layouts, no_warnings, normal
from numba import types
from oracle import BFLOAT16, same_bits

import softmax_numba
from softmax_numba import calls
from softmax_numba.cpu import crew, door, handed, sweeps
from softmax_numba.cpu.crew import MOST_VALUES
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.joining import ASK
from softmax_numba.cpu.lane import BLOCK, LOG_SOFTMAX, SOFTMAX
from softmax_numba.cpu.plan import (
    BLOCKS,
    COLUMNS,
    DEEP,
    DEEP_FROM,
    FEWEST_SHORT,
    LONGEST_NARROW,
    MIDDLE,
    MIDDLE_TO,
    NARROW,
    ROWS,
    SHALLOW,
    SHORT,
    TINY,
    WOVEN,
    longest_tiny,
)
from softmax_numba.cpu.shallow import LONGEST as LONGEST_SHALLOW

pytestmark = [no_warnings, pytest.mark.usefixtures("nobody_awake")]

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": BFLOAT16, "float32": np.dtype("f4"), "float64": np.dtype("f8")}
every_operation = pytest.mark.parametrize("name", OPERATIONS)
every_dtype = pytest.mark.parametrize("kind", DTYPES)

TINY_ROWS = TINY if longest_tiny(4) else SHORT
SHORT_COLUMNS = MIDDLE if MIDDLE_TO else COLUMNS  # by the number of registers

# Shapes and axes for every sweep, with one axis, two and more.
SHAPES = {
    ((10,), -1): ROWS,
    ((1, 16), -1): ROWS,
    ((3, 7), -1): ROWS,
    ((3, 7), 0): NARROW,
    ((FEWEST_SHORT, 1), -1): door.SINGLE,
    ((1, 5, 6), 0): door.SINGLE,
    ((FEWEST_SHORT - 1, 9), -1): ROWS,
    ((7, 2), -1): ROWS,
    ((FEWEST_SHORT, 4), -1): TINY_ROWS,
    ((FEWEST_SHORT, 9), -1): SHORT,
    ((2, 5, 3, 11), -1): ROWS,
    ((2, 5, 3, 11), 2): SHALLOW,
    ((9, 8, 9), -1): SHORT,
    ((9, 8, 7), 1): NARROW,
    ((2, LONGEST_NARROW + 1, 7), 1): ROWS,
    ((FEWEST_SHORT - 1, 64), -1): ROWS,
    ((50, 200), -1): WOVEN,  # but for 16-bit floats and single numbers
    ((3, 2, 1000), -1): WOVEN,
    ((LONGEST_SHALLOW, 20), 0): SHALLOW,
    ((LONGEST_SHALLOW + 1, 20), 0): SHORT_COLUMNS,
    ((3, DEEP_FROM - 1, 9), 1): SHORT_COLUMNS,
    ((2, DEEP_FROM, 3, 10), 1): DEEP,
    ((BLOCK,), -1): ROWS,
    ((BLOCK + 1,), 0): BLOCKS,
    ((2, 3, 5000), -1): BLOCKS,
    ((5000, 3), 0): BLOCKS,
}


@every_operation
@every_dtype
def test_every_sweep_is_taken_and_is_the_long_way_to_the_bit(name, kind, taken):
    function = getattr(softmax_numba, name)
    for (shape, axis), sweep in SHAPES.items():
        x = normal(shape, DTYPES[kind], scale=3.0)
        taken.clear()
        result = function(x, axis)
        if sweep == WOVEN and (x.itemsize == 2 or name == "logsumexp"):
            sweep = ROWS
        assert taken.sweeps == [sweep], shape
        assert (taken.done, taken.others) == (1, 0), shape
        expected = long_way(name, x, axis)
        taken.others = 0
        assert type(result) is type(expected)
        assert same_bits(result, expected), shape
        assert result.dtype == x.dtype
        for same in {axis % x.ndim, axis % x.ndim - x.ndim}:
            out = np.empty_like(expected)
            assert function(x, same, out=out) is out
            assert same_bits(out, expected)
        if name != "logsumexp":
            x_too = x.copy()
            assert function(x_too, axis, out=x_too) is x_too
            assert same_bits(x_too, expected)
        assert (taken.done, taken.others) == (3 + (name != "logsumexp"), 0)


@every_operation
def test_dtypes_and_forms_in_turn(name, taken):
    """A call goes first through the door that the last one took, whatever that was."""
    function = getattr(softmax_numba, name)
    cases = [normal(shape, dtype) for shape in ((3, 7), (100, 7), (2, 5000)) for dtype in DTYPES.values()]
    for first, second in itertools.product(cases, repeat=2):
        expected = [long_way(name, x) for x in (first, second)]
        taken.others = 0
        assert same_bits(function(first), expected[0])
        assert same_bits(function(second), expected[1])
        assert not taken.others


@every_operation
@every_dtype
@pytest.mark.parametrize("axis", [0, 1])
def test_any_layout_of_rows(name, kind, axis, taken):
    x = normal((9, 40), DTYPES[kind])
    function = getattr(softmax_numba, name)
    expected = function(x, axis)
    for layout, values in layouts(x).items():
        assert same_bits(function(values, axis), expected), layout
        if name == "logsumexp":
            continue
        out = np.empty((18, 80), x.dtype)[::2, ::-2]
        before = taken.done
        assert function(values, axis, out=out) is out
        assert same_bits(np.ascontiguousarray(out), expected), layout
        if isinstance(values, np.ndarray) and values.flags.aligned and values.dtype.isnative:
            assert taken.done == before + 1, layout


def views(x):
    """Views of one array that three axes can tell of together with results in their own order, and some that cannot."""
    for order in itertools.permutations(range(x.ndim)):
        for steps in itertools.product((1, -1, 2), repeat=x.ndim):
            yield x[tuple(slice(None, None, step) for step in steps)].transpose(order)


@every_operation
def test_any_axis_of_any_view(name, taken):
    """Whichever way a view takes, the bits are those of a copy; results in its memory order come through the door."""
    function, x = getattr(softmax_numba, name), normal((4, 6, 10), np.float32)
    for view in views(x):
        for axis in range(3):
            taken.others = 0
            found, others = function(view, axis), taken.others
            assert same_bits(np.ascontiguousarray(found), function(np.ascontiguousarray(view), axis)), view.strides
            if name != "logsumexp" and found.strides == view.strides:
                assert not others, (view.strides, axis)
    assert taken.done > 500


@every_operation
def test_axes_of_one_value_and_broadcast_ones(name, taken):
    function, x = getattr(softmax_numba, name), normal((1, 6, 1, 10), np.float32)
    wide = np.broadcast_to(normal((6, 1), np.float32), (3, 6, 20))
    for values in (x, x[::-1], x[:, ::2], x.transpose(3, 2, 1, 0), wide, wide.T):
        for axis in range(values.ndim):
            found = function(values, axis)
            assert same_bits(found, long_way(name, np.ascontiguousarray(values), axis)), (values.strides, axis)
    assert taken.done > 10


def test_what_is_refused():
    """Everything that a door does not know is left untouched, and said so."""
    x, out = normal((4, 6), np.float32), np.full((4, 6), 7, np.float32)
    made = door.door(SOFTMAX, "float32")
    enter = entered(made)
    made.make(ROWS)
    made.make(NARROW)
    made.make(door.FOLD)
    assert enter(x, -1, out) == sweeps.DONE
    out[...] = 7
    read_only = out.copy()
    read_only.flags.writeable = False
    tagged = np.dtype(np.float32, metadata={"unit": "nat"})
    of_others = x.astype(np.float64), x.astype(">f4"), x.astype(tagged), np.ma.array(x)
    for other in (None, 3, [1.0], "x", object(), *of_others):
        assert enter(other, -1, out) == door.OTHER
        assert enter(x, -1, other) == sweeps.REFUSED
    for axis in (None, 1.0, "0", (0,), True, np.int64(0), 2, -3, 2**40, -(2**40), 2**70, -(2**70), object()):
        assert enter(x, axis, out) == sweeps.REFUSED, axis
    whole = np.zeros(100, np.uint8)
    unaligned = whole[1:97].view(np.float32).reshape(4, 6)
    wrong = {
        "another shape": out.T,
        "an axis less": out[0],
        "an axis more": out[None],
        "a shorter lane": out[:, :5],
        "fewer lanes": out[:3],
        "read-only": read_only,
        "unaligned": unaligned,
        "one row for all": np.lib.stride_tricks.as_strided(out, (4, 6), (0, 4)),
        "one place for a row": np.lib.stride_tricks.as_strided(out, (4, 6), (24, 0)),
    }
    for what, target in wrong.items():
        for axis in (0, 1):
            assert enter(x, axis, target) == sweeps.REFUSED, what
    assert (out == 7).all()
    assert not whole.any()
    assert enter(unaligned, -1, out) == sweeps.REFUSED
    for shape in ((0, 6), (4, 0), ()):
        assert enter(np.zeros(shape, np.float32), -1, np.zeros(shape, np.float32)) == sweeps.REFUSED
    many_axes = np.zeros((1,) * 33, np.float32)
    assert enter(many_axes, -1, many_axes.copy()) == sweeps.REFUSED
    three = np.zeros((2, 3, 4), np.float32)
    assert enter(three, -1, three.copy()) == sweeps.DONE
    for axis in (-1, 2):  # the lanes of the two do not follow each other in one order
        assert enter(three.transpose(1, 0, 2), axis, np.zeros((3, 2, 4), np.float32)) == sweeps.REFUSED
        assert enter(np.zeros((3, 2, 4), np.float32), axis, three.transpose(1, 0, 2)) == sweeps.REFUSED
    room = np.zeros(25, np.float32)
    a = room[:24].reshape(4, 6)
    for target in (room[1:].reshape(4, 6), a[::-1], a[:, ::-1]):
        assert enter(a, -1, target) == enter(a, 0, target) == sweeps.REFUSED
    for arguments in ((), (x, out), (x, -1, out), (x, -1, out, made.numbers, out)):
        with pytest.raises(TypeError):
            made.enter(*arguments)


def test_what_is_missing_is_made_and_what_is_large_is_said():
    made = door.door.__wrapped__(SOFTMAX, "float32")
    enter, make, parts = entered(made), made.make, made.numbers[: door.PARTS]
    x = normal((100, 7), np.float32)
    out = np.full_like(x, 7)
    for values, axis, sweep in (
        (x, 1, TINY_ROWS),
        (x[:9], 1, ROWS),
        (x, 0, NARROW),
        (normal((300, 7), np.float32), 0, ROWS),
        (x[:1], 0, door.SINGLE),
        (normal((1, 5000), np.float32), 1, BLOCKS),
        (normal((50, 200), np.float32), 1, WOVEN),
        (normal((50, 100), np.float32), 0, SHORT_COLUMNS),
    ):
        result = np.full_like(values, 7)
        parts[:] = 0
        assert enter(values, axis, result) == door.MISSING + sweep
        assert (result == 7).all()
        make(sweep)
        assert enter(values, axis, result) == sweeps.DONE
        assert same_bits(result, long_way("softmax", values, axis))
    parts[:] = 0
    assert enter(x[:, ::2], 1, out[:, ::2]) == door.MISSING + door.FOLD
    make(door.FOLD)
    assert enter(x[:, ::2], 1, out[:, ::2]) == door.MISSING + ROWS
    assert enter(x, 1, np.empty((100, 14), np.float32)[:, ::2]) == door.MISSING + ROWS
    long = normal((MOST_VALUES // 8 + 1, 8), np.float32)
    crew._crew.seen[ASK] = 0  # until it is asked again how many threads there are
    assert enter(long, -1, long) == door.LARGE
    assert enter(x.astype(np.float64), -1, x) == door.OTHER
    assert (out == 7).all()


def test_numbers_of_lanes_in_any_stride(taken):
    x = normal((9, 40), np.float32)
    expected = softmax_numba.logsumexp(x)
    room = np.zeros(30, np.float32)
    for out in (room[:9], room[:27:3], room[8::-1]):
        assert softmax_numba.logsumexp(x, out=out) is out
        assert same_bits(np.ascontiguousarray(out), expected)
    assert softmax_numba.logsumexp(x[0], out=room[:1].reshape(())) == expected[0]
    assert not taken.others
    inside = x.copy()
    assert same_bits(softmax_numba.logsumexp(inside, out=inside[0, :9]).copy(), expected)
    assert taken.others


@pytest.mark.parametrize("lies", ["base", "head"])
def test_without_a_door_the_long_way_is_taken(lies, taken, monkeypatch):
    """As where objects or arrays look different from what is read here."""
    if lies == "base":
        monkeypatch.setattr(handed, "readable", lambda: False)
    else:
        monkeypatch.setattr(handed, "DATA", handed.DATA + 8)
        assert not handed.readable.__wrapped__()
        monkeypatch.setattr(handed, "readable", handed.readable.__wrapped__)
    small = calls.short_way(SOFTMAX)
    monkeypatch.setattr(softmax_numba.functions, "_small_softmax", small)
    x = normal((3, 7), np.float32)
    result = softmax_numba.softmax(x)
    assert not taken.done
    assert taken.others
    assert same_bits(result, long_way("softmax", x))


@every_operation
@pytest.mark.parametrize("first", [0, 1])
@every_dtype
def test_unpickled_arrays(name, kind, first, taken):
    """Their dtype equals NumPy's own and is another object: they go through the door, whoever is the first."""
    function, x = getattr(softmax_numba, name), normal((3, 7), DTYPES[kind])
    copy = pickle.loads(pickle.dumps(x))
    expected = long_way(name, x)
    taken.others = 0
    for given in ((x, copy), (copy, x))[first]:
        assert same_bits(function(given), expected)
        out = pickle.loads(pickle.dumps(np.zeros_like(expected)))
        if given is copy or out.dtype is DTYPES[kind]:
            assert function(given, out=out) is out
            assert same_bits(out, expected)
    if name != "logsumexp":
        assert function(copy, 0, out=copy) is copy
        assert same_bits(copy, long_way(name, x, 0))
        taken.others -= 1
    assert not taken.others


def test_arrays_are_readable_here():
    assert handed.readable()


@pytest.mark.parametrize(("length", "released"), [(100, False), (60_000, True)])
def test_python_runs_on_beside_long_sweeps(length, released):
    """Its lock is given away where a sweep takes longer than that, and kept where it does not."""
    x = np.zeros((1, length), np.float32)
    out = np.empty_like(x)
    made = door.door(SOFTMAX, "float32")
    enter = entered(made)
    made.make(BLOCKS if length > BLOCK else ROWS)
    assert enter(x, -1, out) == sweeps.DONE
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
            assert enter(x, -1, out) == sweeps.DONE
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
    made = door.door(dataclasses.replace(LOG_SOFTMAX, name="failing"), "float32")
    enter = entered(made)
    made.make(BLOCKS if length > BLOCK else ROWS)
    x = np.zeros((2, length), np.float32)
    for _ in range(3):
        with pytest.raises(MemoryError, match="no memory for a buffer"):
            enter(x, -1, x)
    assert enter(x[:1], -1, x[:1]) == sweeps.DONE
