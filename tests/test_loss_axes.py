"""Losses along any axis of arrays in C order: one compiled call, and the bits of the long way."""

import numpy as np
import pytest
from crews import nobody_awake as nobody_awake
from grids import every_dtype, no_warnings
from hypothesis import given
from hypothesis import strategies as st
from loss_cases import every_reduction
from loss_oracle import assert_close
from oracle import DTYPES, same_bits
from ways import both_ways, plain
from ways import long_way as long_way

from softmax_numba import cross_entropy, cross_entropy_and_grad
from softmax_numba.cpu import threads

pytestmark = no_warnings

# One class, and one lane; lanes of a quad, of two, of a vector, of a block and more; as few side by side as make no
# vector, as one, and as many; images.
SHAPES = [
    ((40, 1), 0),
    ((1, 40), 0),
    ((6, 1, 5), 1),
    ((3, 70), 0),
    ((7, 2, 33), 1),
    ((2, 8, 3, 7), 1),
    ((2, 19, 6, 5), 1),
    ((9, 30, 3), 1),
    ((300, 17), 0),
    ((4, 600, 9), -2),
    ((4100, 3), 0),
    ((4100, 12), 0),
    ((3, 5, 7, 2), 0),
    ((3, 5, 7, 2), 2),
    ((3, 5, 7, 2), -1),
    ((70, 9, 1, 1), 1),
]
MANY = [((3, 2, 70, 90), 1), ((2, 21, 90, 91), 1), ((40, 900, 5), 1), ((5, 300, 60), 1), ((2000, 45), 0)]


def assert_same(case, what=""):
    short, long = both_ways(case)
    for mine, theirs in zip(short, long, strict=True):
        assert type(mine) is type(theirs), (str(case), what)
        assert np.shape(mine) == np.shape(theirs), (str(case), what)
        assert mine.dtype == case.logits.dtype
        assert same_bits(mine, theirs), (str(case), what)


@every_dtype
@every_reduction
def test_losses_are_those_of_the_long_way(dtype, reduction, long_way):
    for shape, axis in SHAPES:
        case = plain(shape, dtype, axis, reduction)
        short = case.loss_and_gradient()
        assert not long_way, (shape, axis)
        assert_same(case)
        assert long_way.pop()
        long_way.clear()
        for mine, exact in zip(short, case.exact(), strict=True):
            assert_close(mine, exact)


@every_dtype
def test_losses_of_many_lanes(dtype, long_way, monkeypatch):
    """Shared out among threads, in chunks that no number of lanes is a multiple of; and one chunk after the other."""
    for threads_in_use in (2, 1):
        monkeypatch.setattr(threads, "in_use", lambda count=threads_in_use: count)
        for shape, axis in MANY:
            case = plain(shape, dtype, axis, "none")
            case.loss_and_gradient()
            assert not long_way, (shape, axis)
            assert_same(case, threads_in_use)
            long_way.clear()


@st.composite
def cases(draw):
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    reduction = draw(st.sampled_from(["mean", "sum", "none"]))
    return plain(shape, draw(st.sampled_from(DTYPES)), axis, reduction, draw(st.integers(0, 2**32)))


@given(cases())
def test_any_shape(case):
    assert_same(case)
    room = case.logits.copy()
    loss, gradient = case._replace(logits=room).loss_and_gradient(out=room)
    expected = case.loss_and_gradient()
    assert gradient is room
    assert same_bits(loss, expected[0])
    assert same_bits(room, expected[1])


def test_out_and_its_places(long_way):
    """In another array, in place of the logits, and from a read-only one; otherwise the long way is left to say."""
    for shape, axis in (((6, 8), 0), ((3, 5, 9), 1), ((2, 3, 4, 5), 1)):
        case = plain(shape, np.float32, axis)
        loss, gradient = case.loss_and_gradient()
        room, x = np.empty(shape, np.float32), case.logits.copy()
        assert case.loss_and_gradient(out=room)[1] is room
        assert case._replace(logits=x).loss_and_gradient(out=x)[1] is x
        x, kept = case.logits.copy(), case.targets.copy()
        x.flags.writeable = kept.flags.writeable = False
        again = case._replace(logits=x, targets=kept).loss_and_gradient()
        for mine in (room, again[1]):
            assert same_bits(mine, gradient)
        assert same_bits(again[0], loss)
        assert not long_way
        size = case.logits.size
        for step in (1, 8, 40):
            both = np.zeros(size + step, np.float32)
            both[:size] = case.logits.ravel()
            mine = case._replace(logits=both[:size].reshape(shape))
            loss_again, out = mine.loss_and_gradient(out=both[step:].reshape(shape))
            assert same_bits(out.copy(), gradient)
            assert same_bits(loss_again, loss)
            assert long_way.pop()
        for order in ("F", "every other"):
            given = case.placed(order)
            assert same_bits(given.loss_and_gradient()[1], gradient)
            out = np.empty(shape, np.float32, "F")
            assert same_bits(case.loss_and_gradient(out=out)[1], gradient)
            assert len(long_way) == 2
            long_way.clear()


def test_targets_where_the_gradient_goes(long_way):
    x, index = np.random.default_rng(1).normal(size=(3, 8, 10)).astype(np.float32), np.arange(30).reshape(3, 10) % 8
    _, gradient = cross_entropy_and_grad(x, index, 1)
    room = np.zeros(240, np.float32)
    places = room[:60].view(np.int64).reshape(3, 10)
    places[:] = index
    _, out = cross_entropy_and_grad(x, places, 1, out=room.reshape(3, 8, 10))
    assert same_bits(out, gradient)
    assert long_way


def test_every_integer_type(long_way):
    case = plain((3, 9, 11), np.float32, 1)
    targets = np.where(case.targets < 0, 3, case.targets)
    expected = case._replace(targets=targets, options={}).loss_and_gradient()
    for kind in "bhilqBHILQ":
        loss, gradient = case._replace(targets=targets.astype(kind), options={}).loss_and_gradient()
        assert same_bits(loss, expected[0])
        assert same_bits(gradient, expected[1])
    for how in ("F", "reversed", "every other"):
        moved = case.placed(how)._replace(logits=case.logits)
        assert same_bits(moved.loss_and_gradient()[1], case.loss_and_gradient()[1])


def test_nothing_counts(long_way):
    """Whatever stands there: no lane counts, or one that others' values must not reach."""
    x, index = np.full((2, 3, 9), np.nan, np.float32), np.full((2, 9), -100)
    for reduction in ("mean", "sum", "none"):
        loss, gradient = cross_entropy_and_grad(x, index, 1, reduction=reduction)
        assert not np.any(loss)
        assert not gradient.any()
    index[1, 4], x[1, :, 4] = 2, 0.0
    loss, gradient = cross_entropy_and_grad(x, index, 1)
    assert loss == np.float32(np.log(3))
    assert np.count_nonzero(gradient) == 3
    assert not long_way


@every_dtype
def test_a_single_class_is_certain(dtype, long_way):
    """Its loss and its gradient are 0, not nearly so; NaN where the logit is not finite, unless it does not count."""
    values = np.random.default_rng(1).normal(size=240) * 30
    values[[7, 8, 9]] = np.nan, np.inf, -np.inf
    for shape, axis in (((240, 1), 1), ((1, 240), 0), ((3, 1, 80), 1), ((240, 1, 1), 1)):
        x, index = values.reshape(shape).astype(dtype), np.zeros(np.delete(shape, axis), int)
        index.reshape(-1)[[8, 30]] = -100
        expected = np.zeros(240)
        expected[[7, 9]] = np.nan
        for order in ("C", "F"):
            given = x.copy(order)
            loss, gradient = cross_entropy_and_grad(given, index, axis, reduction="none")
            assert same_bits(cross_entropy(given, index, axis, reduction="none"), loss)
            for found in (loss, gradient):
                np.testing.assert_array_equal(found.reshape(-1).astype(float), expected)
                assert not np.signbit(found.reshape(-1).astype(float)[np.isfinite(expected)]).any()
    assert len(long_way) == 2  # one shape has two memory orders


def test_errors_are_those_of_the_long_way():
    x, index = np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.int64)
    index[1, 2] = 3
    out = np.full(x.shape, 5, np.float32)
    with pytest.raises(IndexError, match=r"targets\[1, 2\] is 3"):
        cross_entropy(x, index, 1)
    with pytest.raises(IndexError, match=r"targets\[1, 2\] is 3"):
        cross_entropy_and_grad(x, index, 1, out=out)
    assert (out == 5).all()
    index[1, 2] = 0
    for shape in ((4, 2), (2, 3), (8,), (2, 4, 1)):
        with pytest.raises(ValueError, match="shape"):
            cross_entropy(x, np.zeros(shape, int), 1)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        cross_entropy_and_grad(x, index, 1, out=out)
    for axis in (3, -4):
        with pytest.raises(np.exceptions.AxisError):
            cross_entropy(x, index, axis)


def test_lanes_that_threads_share_are_left_to_the_long_way(long_way, monkeypatch, nobody_awake):
    monkeypatch.setattr(threads, "in_use", lambda: 2)
    case = plain((100_000, 3), np.float32, 0)
    loss, _ = case.loss_and_gradient()
    assert len(long_way) == 1
    assert_close(loss, case.exact()[0])
