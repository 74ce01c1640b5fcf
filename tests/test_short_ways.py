"""Losses and ways back that one compiled call serves: the same as by the long way, or left to it."""

import itertools
import pickle

import numpy as np
import pytest
from crews import nobody_awake as nobody_awake
from grids import every_dtype, layouts, no_warnings
from loss_oracle import assert_close
from loss_oracle import log_softmax_vjp as exact_log_softmax_vjp
from loss_oracle import softmax_vjp as exact_softmax_vjp
from oracle import BFLOAT16, same_bits
from ways import both_ways, plain
from ways import long_way as long_way

from softmax_numba import (
    cross_entropy,
    cross_entropy_and_grad,
    gradients,
    log_softmax,
    log_softmax_vjp,
    softmax,
    softmax_vjp,
)
from softmax_numba.cpu import threads

pytestmark = no_warnings

WAYS_BACK = {
    "softmax": (softmax, softmax_vjp, exact_softmax_vjp),
    "log_softmax": (log_softmax, log_softmax_vjp, exact_log_softmax_vjp),
}
every_way_back = pytest.mark.parametrize("name", WAYS_BACK)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])

# One class; fewer lanes than fill a tile of short rows, as many, and some more; rows of a vector and less, and of many;
# rows of more than a block; one axis, and more than two.
SHAPES = [(5, 1), (3, 7), (64, 7), (200, 10), (1000, 2), (9, 16), (9, 33), (70, 41), (101, 100), (2, 4097), (1, 60_000)]
SHAPES += [(40,), (3, 5, 11)]


@every_dtype
@every_reduction
def test_losses_are_those_of_the_long_way(dtype, reduction, long_way):
    """Of every sweep: right, and to the bit."""
    for shape in SHAPES:
        case = plain(shape, dtype, reduction=reduction)
        assert case.loss_and_gradient() is not None
        assert not long_way, shape
        short, long = both_ways(case)
        long_way.clear()
        for mine, theirs in zip(short, long, strict=True):
            assert type(mine) is type(theirs), shape
            assert np.shape(mine) == np.shape(theirs)
            assert mine.dtype == dtype
            assert same_bits(mine, theirs), shape
        for mine, exact in zip(short[:2], case.exact(), strict=True):
            assert_close(mine, exact)


@every_dtype
def test_losses_of_many_rows(dtype, long_way, monkeypatch):
    """Shared out among threads, in chunks that no number of rows is a multiple of; and one chunk after the other."""
    for threads_in_use in (2, 1):
        monkeypatch.setattr(threads, "in_use", lambda count=threads_in_use: count)
        for shape in ((901, 1000), (70_001, 7), (30_011, 16), (300, 5001)):
            for reduction in ("mean", "none"):
                case = plain(shape, dtype, reduction=reduction)
                case.loss_and_gradient()
                assert not long_way
                short, long = both_ways(case)
                long_way.clear()
                for mine, theirs in zip(short, long, strict=True):
                    assert same_bits(mine, theirs), (shape, threads_in_use)
    rows = case.logits[:20]
    assert same_bits(case._replace(logits=rows, targets=case.targets[:20]).loss(), case.loss()[:20])


def test_rows_that_threads_share_are_left_to_the_long_way(long_way, monkeypatch, nobody_awake):
    monkeypatch.setattr(threads, "in_use", lambda: 2)
    case = plain((2, 300_000), np.float32)
    loss, _ = case.loss_and_gradient()
    assert len(long_way) == 1
    assert_close(loss, case.exact()[0])


@every_dtype
@every_way_back
def test_ways_back_are_those_of_the_long_way(name, dtype, long_way):
    forward, way_back, exact = WAYS_BACK[name]
    backward = {"softmax": gradients.SOFTMAX_VJP, "log_softmax": gradients.LOG_SOFTMAX_VJP}[name]
    rng = np.random.default_rng(5)
    for shape in SHAPES:
        y, dy = forward(rng.normal(size=shape).astype(dtype)), rng.normal(size=shape).astype(dtype)
        dx = way_back(y, dy)
        assert not long_way, shape
        assert type(dx) is np.ndarray
        assert dx.shape == shape
        assert same_bits(dx, gradients._vjp(backward, y, dy, -1, 1.0, None)), shape
        assert_close(dx, exact(y, dy))
        room = np.empty_like(y)
        assert way_back(y, dy, out=room) is room
        assert same_bits(room, dx)
        for given in (y, dy):  # in place of either
            copies = {id(a): a.copy() for a in (y, dy)}
            out = copies[id(given)]
            assert way_back(copies[id(y)], copies[id(dy)], len(shape) - 1, out=out) is out
            assert same_bits(out, dx), shape
        long_way.clear()


@every_dtype
@every_way_back
def test_ways_back_along_other_axes(name, dtype, long_way):
    """Of arrays in C order; the long way is left those that are not, do not stand at whole numbers, or overlap."""
    forward, way_back, exact = WAYS_BACK[name]
    backward = {"softmax": gradients.SOFTMAX_VJP, "log_softmax": gradients.LOG_SOFTMAX_VJP}[name]
    rng = np.random.default_rng(6)
    for shape in ((3, 7), (40, 1), (1, 40), (5, 17, 3), (2, 3, 4, 5), (90, 70), (4, 1, 6)):
        for axis in range(-len(shape), len(shape)):
            y, dy = forward(rng.normal(size=shape).astype(dtype), axis), rng.normal(size=shape).astype(dtype)
            dx = way_back(y, dy, axis)
            for given in (y, dy):
                room = given.copy()
                mine = (room, dy) if given is y else (y, room)
                assert way_back(*mine, axis, out=room) is room
                assert same_bits(room, dx)
            assert not long_way, (shape, axis)
            assert same_bits(dx, gradients._vjp(backward, y, dy, axis, 1.0, None)), (shape, axis)
            assert_close(dx, exact(y, dy, axis))
            long_way.clear()
    y, dy = forward(rng.normal(size=(6, 8)).astype(dtype), 0), rng.normal(size=(6, 8)).astype(dtype)
    expected = way_back(y, dy, 0)
    bytes_ = np.zeros(y.nbytes + 1, np.uint8)
    odd = bytes_[1:].view(dtype).reshape(6, 8)
    odd[...] = y
    room = np.zeros(y.size + 3, dtype)
    room[:-3].reshape(6, 8)[...] = y
    for a, b, out in (
        (odd, dy, None),
        (np.asfortranarray(y), dy, None),
        (y, dy, odd),
        (room[:-3].reshape(6, 8), dy, room[3:].reshape(6, 8)),
    ):
        long_way.clear()
        assert same_bits(way_back(a, b, 0, out=out).copy(), expected)
        assert long_way


@every_dtype
def test_unpickled_arrays(dtype, long_way):
    """Their dtype equals NumPy's own and is another object (not so that of ml_dtypes)."""
    case = plain((30, 9), dtype)
    loss, gradient = case.loss_and_gradient()
    y, dy = case.logits, gradient
    expected = softmax_vjp(y, dy)
    again = [pickle.loads(pickle.dumps(a)) for a in (y, dy, case.targets)]
    assert (again[0].dtype is y.dtype) == (dtype == BFLOAT16)
    for a, b, targets in (again, (y, dy, again[2]), (again[0], dy, case.targets), (y, again[1], case.targets)):
        other = case._replace(logits=a, targets=targets)
        assert same_bits(other.loss(), loss)
        assert same_bits(other.loss_and_gradient()[1], gradient)
        assert same_bits(softmax_vjp(a, b), expected)
    room = pickle.loads(pickle.dumps(y))
    assert case.loss_and_gradient(out=room)[1] is room
    assert same_bits(room, gradient)
    room[...] = y
    assert case._replace(logits=room).loss_and_gradient(out=room)[1] is room
    assert same_bits(room, gradient)
    assert softmax_vjp(y, dy, out=room) is room
    assert same_bits(room, expected)
    assert not long_way


def test_gradients_in_place():
    for shape in SHAPES:
        case = plain(shape, np.float32)
        loss, gradient = case.loss_and_gradient()
        x = case.logits.copy()
        mine, out = case._replace(logits=x).loss_and_gradient(out=x)
        assert out is x
        assert same_bits(mine, loss)
        assert same_bits(x, gradient)


def test_every_integer_type(long_way):
    case = plain((30, 9), np.float32)
    expected = case.loss_and_gradient()
    for kind in "bhilqBHILQ":
        targets = np.where(case.targets < 0, 3, case.targets)
        without = case._replace(targets=targets, options={"reduction": "mean"})
        expected = without.loss_and_gradient()
        loss, gradient = without._replace(targets=targets.astype(kind)).loss_and_gradient()
        assert same_bits(loss, expected[0])
        assert same_bits(gradient, expected[1])


def test_nothing_counts(long_way):
    x, index = np.full((4, 3), np.nan, np.float32), np.full(4, -100)
    for reduction in ("mean", "sum", "none"):
        loss, gradient = cross_entropy_and_grad(x, index, reduction=reduction)
        assert not np.any(loss)
        assert not gradient.any()
    assert not long_way


def test_what_the_long_way_must_see(long_way):
    """Options, types, layouts and places that the compiled call does not know, one at a time."""
    x, index = np.random.default_rng(1).normal(size=(12, 8)).astype(np.float32), np.arange(12) % 8
    expected = cross_entropy_and_grad(x, index)
    assert not long_way
    others = {
        "weight": np.ones(8),
        "label_smoothing": np.zeros(1, np.float32)[0],
        "z_loss": 0,
        "focal_gamma": np.float64(0),
        "axis": np.int64(1),
        "ignore_index": np.int64(-100),
    }
    for name, value in others.items():
        loss, gradient = cross_entropy_and_grad(x, index, **{name: value})
        assert same_bits(loss, expected[0]), name
        assert same_bits(gradient, expected[1]), name
    assert len(long_way) == len(others)
    for layout, values in layouts(x).items():
        loss, gradient = cross_entropy_and_grad(values, index)
        assert same_bits(loss, expected[0]), layout
        assert same_bits(gradient, expected[1]), layout
    for places in (index.astype(">i8"), np.repeat(index, 2)[::2], index.tolist()):
        loss, gradient = cross_entropy_and_grad(x, places)
        assert same_bits(loss, expected[0])
        assert same_bits(gradient, expected[1])


def test_results_that_overlap():
    """A result that begins inside the logits, the cotangent or the targets."""
    rng = np.random.default_rng(2)
    x, index = rng.normal(size=(12, 8)).astype(np.float32), np.arange(12) % 8
    loss, gradient = cross_entropy_and_grad(x, index)
    y, dy = softmax(x), rng.normal(size=(12, 8)).astype(np.float32)
    dx = softmax_vjp(y, dy)
    for step in (1, 8, 40):
        room = np.zeros(96 + step, np.float32)
        room[:96] = x.ravel()
        mine, out = cross_entropy_and_grad(room[:96].reshape(12, 8), index, out=room[step:].reshape(12, 8))
        assert same_bits(mine, loss)
        assert same_bits(out.copy(), gradient)
        for which in (0, 1):
            room[:96] = (y, dy)[which].ravel()
            given = [y, dy]
            given[which] = room[:96].reshape(12, 8)
            assert same_bits(softmax_vjp(*given, out=room[step:].reshape(12, 8)).copy(), dx)
    room = np.zeros(96, np.float32)
    places = room[:24].view(np.int64)
    places[:] = index
    _, out = cross_entropy_and_grad(x, places, out=room.reshape(12, 8))
    assert same_bits(out, gradient)


def test_errors_are_those_of_the_long_way():
    x, index = np.zeros((4, 3), np.float32), np.array([0, 1, 7, -2])
    with pytest.raises(IndexError, match=r"targets\[2\] is 7"):
        cross_entropy(x, index)
    out = np.full((4, 3), 5, np.float32)
    with pytest.raises(IndexError, match=r"targets\[2\] is 7"):
        cross_entropy_and_grad(x, index, out=out)
    assert (out == 5).all()
    for ignored in (2**63, 2**63 - 1, -(2**63) - 1):
        with pytest.raises(ValueError, match="ignore_index"):
            cross_entropy(x, index, ignore_index=ignored)
    with pytest.raises(ValueError, match="reduction"):
        cross_entropy(x, index, reduction="total")
    for name in ("label_smoothing", "z_loss", "focal_gamma"):
        for wrong in (float("nan"), -1.0):
            with pytest.raises(ValueError, match=name):
                cross_entropy(x, np.zeros(4, int), **{name: wrong})
    with pytest.raises(ValueError, match="shape"):
        cross_entropy(x, np.zeros(3, int))
    out.flags.writeable = False
    for call in (lambda: cross_entropy_and_grad(x, np.zeros(4, int), out=out), lambda: softmax_vjp(x, x, out=out)):
        with pytest.raises(ValueError, match="read-only"):
            call()
    for axis, given in itertools.product((2, -3), (cross_entropy, cross_entropy_and_grad)):
        with pytest.raises(np.exceptions.AxisError):
            given(x, np.zeros(4, int), axis)
    with pytest.raises(ValueError, match="one shape"):
        softmax_vjp(x, x[:3])
    with pytest.raises(TypeError, match="dtype"):
        softmax_vjp(x, x, out=np.zeros((4, 3)))
