"""The door of small ways back: what it takes, what it leaves to others, and that both come to the same bits."""

import itertools

import numpy as np
import pytest
from crews import nobody_awake as nobody_awake
from doors import Taken
from grids import every_map, layouts, no_warnings, normal
from oracle import BFLOAT16, same_bits
from test_door import DTYPES, views
from vjp_cases import WAYS_BACK, cotangent, forward

from softmax_numba import gradients
from softmax_numba.cpu import crew, entering, handed, sweeps, vjp_door
from softmax_numba.cpu.crew import MOST_VALUES
from softmax_numba.cpu.joining import ASK
from softmax_numba.cpu.plan import FEWEST_COLUMNS, FEWEST_SHORT, LONGEST_NARROW
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP, SOFTMAX_VJP
from softmax_numba.cpu.vjp_plan import COLUMNS, NARROW, ROWS, SHORT, SINGLE

pytestmark = [no_warnings, pytest.mark.usefixtures("nobody_awake")]

BACKWARDS = {"softmax": SOFTMAX_VJP, "log_softmax": LOG_SOFTMAX_VJP}
every_dtype = pytest.mark.parametrize("kind", DTYPES)


@pytest.fixture
def taken(monkeypatch):
    """What doors did, and how many calls took the long way."""
    found, make = Taken(), vjp_door.vjp_door.__wrapped__

    def recorded(backward, storage):
        return found.watched(make(backward, storage), vjp_door.FOLD)

    monkeypatch.setattr(vjp_door, "vjp_door", recorded)
    monkeypatch.setattr(gradients, "_vjp", found.counted(gradients._vjp))
    for name, backward in BACKWARDS.items():
        monkeypatch.setattr(gradients, f"_small_{name}_vjp", gradients._short_way(backward))
    return found


def long_way(name, y, dy, axis=-1):
    return gradients._vjp(BACKWARDS[name], y, dy, axis, 1.0, None)


@every_map
@every_dtype
def test_every_sweep_is_taken_and_is_the_long_way_to_the_bit(name, kind, taken):
    for shape, axis, sweep in (
        ((10,), -1, ROWS),
        ((1,), 0, SINGLE),
        ((3, 7), 1, ROWS),
        ((3, FEWEST_COLUMNS - 1), 0, NARROW),
        ((LONGEST_NARROW + 1, 3), 0, ROWS),
        ((3, FEWEST_COLUMNS), 0, COLUMNS),
        ((2, 5, 3, 11), 2, COLUMNS),
        ((2, 3, 5000), -1, ROWS),
        ((FEWEST_SHORT - 1, 7), -1, ROWS),
        ((FEWEST_SHORT, 7), -1, SHORT),
        ((9, 1, 8), 1, SINGLE),  # lanes of one value stand end to end along any axis
    ):
        dtype = DTYPES[kind]
        y, dy = forward(name, shape, dtype, axis), cotangent(shape, dtype)
        expected = long_way(name, y, dy, axis)
        taken.others = taken.done = 0
        found = WAYS_BACK[name](y, dy, axis)
        assert type(found) is np.ndarray
        assert same_bits(found, expected), shape
        assert sweep in taken.sweeps, shape
        for given, same in itertools.product((y, dy), (axis, axis % y.ndim - y.ndim)):
            arrays = [a.copy() for a in (y, dy)]
            out = arrays[given is dy]
            assert WAYS_BACK[name](*arrays, same, out=out) is out
            assert same_bits(out, expected)
        assert (taken.done, taken.others) == (5, 0)


@every_map
@every_dtype
@pytest.mark.parametrize("axis", [0, 1])
def test_any_layout(name, kind, axis, taken):
    y, dy = forward(name, (9, 40), DTYPES[kind], axis), cotangent((9, 40), DTYPES[kind])
    expected = WAYS_BACK[name](y, dy, axis)
    others = layouts(dy)
    for layout, a in layouts(y).items():
        out, before = np.empty((18, 80), y.dtype)[::2, ::-2], taken.done
        assert WAYS_BACK[name](a, others[layout], axis, out=out) is out
        assert same_bits(np.ascontiguousarray(out), expected), layout
        if isinstance(a, np.ndarray) and a.flags.aligned and a.dtype.isnative:
            assert taken.done == before + 1, layout


@every_map
def test_any_axis_of_any_view(name, taken):
    """Whichever way a view takes, the bits are those of copies; arrays of one memory order come through the door."""
    y, dy = forward(name, (4, 6, 10), np.float32), cotangent((4, 6, 10), np.float32)
    for a, b in zip(views(y), views(dy), strict=True):
        for axis in range(3):
            expected = WAYS_BACK[name](np.ascontiguousarray(a), np.ascontiguousarray(b), axis)
            taken.others = 0
            found, others = WAYS_BACK[name](a, b, axis), taken.others
            assert same_bits(np.ascontiguousarray(found), expected), (a.strides, axis)
            if found.strides == a.strides:
                assert not others, (a.strides, axis)
            for other in (b.copy(order="C"), b.copy(order="F")):
                assert same_bits(np.ascontiguousarray(WAYS_BACK[name](a, other, axis)), expected)
    assert taken.done > 500


def test_what_is_refused():
    """Everything that a door does not know is left untouched, and said so."""
    y, dy, out = normal((4, 6), np.float32), normal((4, 6), np.float32), np.full((4, 6), 7, np.float32)
    made = vjp_door.vjp_door(SOFTMAX_VJP, "float32")
    for part in (ROWS, NARROW, vjp_door.FOLD):
        made.make(part)

    def enter(*arguments):
        return made.enter(*arguments, made.numbers)

    assert enter(y, dy, -1, out) == sweeps.DONE
    out[...] = 7
    read_only = out.copy()
    read_only.flags.writeable = False
    for other in (None, 3, [1.0], object(), y.astype(float), y.astype(">f4"), np.ma.array(y)):
        assert enter(other, dy, -1, out) == entering.OTHER
        assert enter(y, other, -1, out) == enter(y, dy, -1, other) == sweeps.REFUSED
    for axis in (None, 1.0, (0,), True, np.int64(0), 2, -3, 2**70, object()):
        assert enter(y, dy, axis, out) == sweeps.REFUSED, axis
    unaligned = np.zeros(97, np.uint8)[1:].view(np.float32).reshape(4, 6)
    for other in (y.T, y[0], y[None], y[:, :5], y[:3], unaligned):
        assert enter(other, dy, 0, out) == enter(y, other, 0, out) == enter(y, dy, 0, other) == sweeps.REFUSED
    one_place = np.lib.stride_tricks.as_strided(out, (4, 6), (24, 0))
    for axis, target in itertools.product((0, 1), (read_only, one_place)):
        assert enter(y, dy, axis, target) == sweeps.REFUSED
    for axis in (0, 1):
        assert enter(y, np.asfortranarray(dy), axis, out) in (sweeps.REFUSED, sweeps.DONE)
    out[...] = 7
    for shape in ((0, 6), (4, 0), (), (1,) * 33):
        nothing = np.zeros(shape, np.float32)
        assert enter(nothing, nothing.copy(), -1, nothing.copy()) == sweeps.REFUSED
    three = np.zeros((2, 3, 4), np.float32)
    turned = np.zeros((3, 2, 4), np.float32).transpose(1, 0, 2)
    for arrays in itertools.product((three, turned), repeat=3):
        alike = all(a is arrays[0] for a in arrays)
        targets = (a.copy(order="K") for a in arrays)
        assert (enter(*(next(targets), next(targets)), -1, next(targets)) == sweeps.DONE) == alike
    room = np.zeros(25, np.float32)
    a = room[:24].reshape(4, 6)
    for target in (room[1:].reshape(4, 6), a[::-1], a[:, ::-1]):
        assert enter(a, dy, -1, target) == enter(y, a, 0, target) == sweeps.REFUSED
    assert not room.any()
    for arguments in ((), (y, dy, out), (y, dy, -1, out), (y, dy, -1, out, made.numbers, out)):
        with pytest.raises(TypeError):
            made.enter(*arguments)


def test_what_is_missing_is_made_and_what_is_large_is_said():
    made = vjp_door.vjp_door.__wrapped__(SOFTMAX_VJP, "float32")

    def enter(*arguments):
        return made.enter(*arguments, made.numbers)

    for shape, axis, sweep in (((100, 7), 1, SHORT), ((9, 7), 1, ROWS), ((50, 100), 0, COLUMNS)):
        y, dy, out = normal(shape, np.float32), normal(shape, np.float32), np.full(shape, 7, np.float32)
        assert enter(y, dy, axis, out) == entering.MISSING + sweep
        assert (out == 7).all()
        made.make(sweep)
        assert enter(y, dy, axis, out) == sweeps.DONE
        assert same_bits(out, long_way("softmax", y, dy, axis))
    apart = [np.zeros((9, 14), np.float32)[:, ::2] for _ in range(3)]
    assert enter(*apart[:2], 1, apart[2]) == entering.MISSING + vjp_door.FOLD
    made.make(vjp_door.FOLD)
    assert enter(*apart[:2], 1, apart[2]) == sweeps.DONE
    many = np.zeros((MOST_VALUES // 8 + 1, 8), np.float32)
    crew._crew.seen[ASK] = 0  # until it is asked again how many threads there are
    assert enter(many, many, -1, many) == entering.LARGE


def test_without_a_door_the_long_way_is_taken(taken, monkeypatch):
    monkeypatch.setattr(handed, "readable", lambda: False)
    y, dy = forward("softmax", (3, 7), np.float32), cotangent((3, 7), np.float32)
    assert same_bits(WAYS_BACK["softmax"](y, dy), long_way("softmax", y, dy))
    assert not taken.done
    assert taken.others


@every_map
def test_dtypes_in_turn(name, taken):
    """A call goes first through the door that the last one took, whatever that was."""
    kinds = (np.float32, np.float64, np.float16, BFLOAT16)
    cases = [(forward(name, (3, 7), dtype), cotangent((3, 7), dtype)) for dtype in kinds]
    expected = [long_way(name, *case) for case in cases]
    taken.others = 0
    for i, k in itertools.product(range(len(cases)), repeat=2):
        assert same_bits(WAYS_BACK[name](*cases[i]), expected[i])
        assert same_bits(WAYS_BACK[name](*cases[k]), expected[k])
    assert not taken.others
