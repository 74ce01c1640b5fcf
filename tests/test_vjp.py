"""The ways back through softmax and log_softmax: accuracy, masked-out places, axes, layouts, out, errors, same bits."""

import inspect
import itertools

import mpmath
import numba
import numpy as np
import pytest
from grids import MAPS, arranged, every_dtype, every_map, layouts, no_warnings, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import PLACES, placed
from loss_oracle import Exact, assert_close, log_softmax_vjp, softmax_vjp, ulp_error
from oracle import BFLOAT16, DTYPES, EXACT, LONG, eps, same_bits, ulp, wide

import softmax_numba
from softmax_numba.cpu import threads, vjp_sweeps

pytestmark = no_warnings

WAYS_BACK = {"softmax": softmax_numba.softmax_vjp, "log_softmax": softmax_numba.log_softmax_vjp}
EXACT_WAYS_BACK = {"softmax": softmax_vjp, "log_softmax": log_softmax_vjp}
GONE = {"softmax": 0.0, "log_softmax": -np.inf}  # the result at a masked-out place
every_float = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])

# Cotangents of any size, some of one sign, so that a sum may be far larger than its terms.
CHARACTERS = ((1.0, 0.0), (1e-3, 1.0), (1e3, 5.0), (1.0, -100.0), (0.0, 1.0))


def forward(name, shape, dtype, axis=-1, seed=0, scale=4.0, **how):
    """A result of `name`, as right as its dtype can have it."""
    return np.asarray(EXACT[name](normal(shape, dtype, scale=scale, seed=seed), axis, **how)).astype(dtype, order="C")


def cotangent(shape, dtype, seed=0):
    rng = np.random.default_rng([seed, 1, *np.atleast_1d(shape)])
    scale, shift = CHARACTERS[seed % len(CHARACTERS)]
    return np.asarray(rng.normal(size=shape) * scale + shift).astype(dtype)


def assert_right(name, y, dy, axis=-1, **how):
    """The way back of `name`, within its bound and exactly 0 where nothing came through."""
    dx = WAYS_BACK[name](y, dy, axis, **how)
    given = np.asarray(y).dtype
    assert dx.dtype == (np.float64 if given.kind in "iub" else given.newbyteorder("="))
    assert (np.asarray(dx)[np.asarray(y) == GONE[name]] == 0).all()
    assert_close(dx, EXACT_WAYS_BACK[name](y, dy, axis, **how), f"{name}_vjp of {np.shape(y)} along {axis}")
    return dx


# --- accuracy ---------------------------------------------------------------------------


@every_map
@every_dtype
def test_every_length(name, dtype):
    """As rows, as columns, and as columns of a batch."""
    for n in (1, 2, 7, 8, 9, 16, 33, 100, 257, 1000, 4096, 4097, 9000):
        for shape, axis in (((3, n), 1), ((n, 3), 0), ((2, n, 9), 1), ((n, 40), 0)):
            if n * shape[-1] <= 50_000 or axis == 1:
                seed = n + axis
                assert_right(name, forward(name, shape, dtype, axis, seed), cotangent(shape, dtype, seed), axis)


@every_map
def test_a_long_lane(name):
    n = 2**18 + 3
    assert_right(name, forward(name, n, np.float32), cotangent(n, np.float32))
    assert_right(name, forward(name, (n, 2), np.float32, 0), cotangent((n, 2), np.float32), 0)


@every_map
@every_dtype
def test_any_two_types(name, dtype):
    """The computation is as wide as the wider one; the result is of y's type."""
    for other in (*DTYPES, np.dtype(">f4"), np.dtype(np.int32), np.dtype(bool)):
        for shape, axis in [((5, 40), 1), ((40, 9), 0)][: 1 + (dtype == np.float32)]:
            y, dy = forward(name, shape, dtype, axis, scale=2), cotangent(shape, other)
            dx = assert_right(name, y, dy, axis)
            if dtype == np.float32 and other == np.float64:
                wider = WAYS_BACK[name](y.astype(np.float64), dy, axis)
                assert same_bits(dx, wider.astype(np.float32))


@every_map
def test_numbers_that_are_no_floats(name):
    y = np.array([[0, 1, 0], [1, 0, 0]]) if name == "softmax" else np.array([[-2, -1, -1], [0, -40, -50]])
    dy = [[1, 2, 3], [4, 5, 6]]
    for a in (y, y.tolist(), y.astype(np.int8)):
        dx = assert_right(name, a, dy)
        assert dx.dtype == np.float64
        assert same_bits(dx, WAYS_BACK[name](y.astype(float), np.array(dy, float)))


@every_map
@every_float
def test_temperatures(name, dtype):
    """A number, or one for each lane; 0.1 is no number of float32. At the ends of float32 too."""
    y, dy = forward(name, (6, 40), dtype), cotangent((6, 40), dtype)
    for t in (0.1, 1.0, 1, 3.3, 1e-20, 1e35, np.float32(0.7), np.array(2.0)):
        assert_right(name, y, dy, temperature=t)
        assert_right(name, y.T.copy(), dy.T.copy(), 0, temperature=t)
    t = np.linspace(0.1, 7.7, 6)
    rows = assert_right(name, y, dy, temperature=t[:, None])
    columns = assert_right(name, y.T.copy(), dy.T.copy(), 0, temperature=t)
    assert same_bits(rows, columns.T.copy())
    for i in range(6):
        assert same_bits(WAYS_BACK[name](y[i], dy[i], temperature=t[i]), rows[i])
    assert_right(name, y, dy, None, temperature=np.full((1, 1), 0.3))
    four, cotangents = y.reshape(3, 2, 5, 8), dy.reshape(3, 2, 5, 8)
    assert_right(name, four, cotangents, (1, 3), temperature=np.linspace(0.5, 2, 15).reshape(3, 1, 5, 1))
    assert_right(name, four, cotangents, 2, temperature=np.linspace(0.5, 2, 8))
    for same in (t.astype(">f8"), np.repeat(t, 2)[::2], list(t)):
        assert same_bits(WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0, temperature=same), columns)


@every_map
@every_dtype
def test_any_axes(name, dtype):
    shape = (3, 4, 5, 6)
    dy = cotangent(shape, dtype, 2)
    for axis in (0, 1, 2, -1, (0, 2), (1, 3), (3, 1), (0, 1, 2, 3), None, ()):
        y = forward(name, shape, dtype, axis, scale=2)
        expected = assert_right(name, y, dy, axis)
        assert same_bits(WAYS_BACK[name](np.asfortranarray(y), np.asfortranarray(dy), axis), expected)


@st.composite
def calls(draw):
    """Arrays of 1 to 4 dimensions, their axes, types and places drawn too."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axes = draw(st.none() | st.lists(st.integers(0, len(shape) - 1), unique=True).map(tuple))
    name, dtype = draw(st.sampled_from(list(MAPS))), draw(st.sampled_from([np.float32, np.float64]))
    seed = draw(st.integers(0, 99))
    y, dy = (
        forward(name, shape, dtype, axes, seed, draw(st.sampled_from([0.1, 3.0, 50.0]))),
        cotangent(shape, dtype, seed),
    )
    y[draw(st.just(np.zeros(shape, bool)) | st.just(dy > dy.mean()))] = GONE[name]
    how = {"temperature": draw(st.just(1.0) | st.floats(0.01, 100))}
    return name, placed(y, draw(st.sampled_from(PLACES))), placed(dy, draw(st.sampled_from(PLACES))), axes, how


@given(calls())
@settings(max_examples=150)
def test_any_call(call):
    name, y, dy, axes, how = call
    expected = assert_right(name, y, dy, axes, **how)
    ours = WAYS_BACK[name](y.copy(), dy.copy(), axes, **how)
    assert same_bits(ours, expected)


@every_map
@every_float
def test_the_sum_has_twice_the_precision_of_its_terms(name, dtype):
    """Terms that cancel exactly leave a small one, which is all that a place without a cotangent of its own has."""
    unit = eps(dtype)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        half, large = rng.uniform(0.1, 1, 150), rng.normal(size=150) * 2**20
        y = np.concatenate([half, half, [0.7, 0.3]]).astype(dtype)
        dy = np.concatenate([large, -large, [2**20 * unit**1.5, 0]]).astype(dtype)
        p, small = (y[-1], y[-2]) if name == "softmax" else (np.exp(wide(y[-1])), 1)
        exact = -wide(p) * wide(small) * wide(dy[-2])
        order = rng.permutation(302)
        dx = WAYS_BACK[name](y[order], dy[order])[np.argmax(order == 301)]
        assert abs(wide(dx) - exact) <= 4 * ulp(exact, dtype) + p * unit**2 * np.abs(wide(dy)).sum()


@every_map
@pytest.mark.parametrize("axis", [1, 0, (0, 2), None], ids=str)
def test_the_same_as_pytorchs_autograd(name, axis):
    torch = pytest.importorskip("torch")
    shape = (4, 9, 12)
    x, dy = normal(shape, np.float64), cotangent(shape, np.float64)
    for t in (1.0, 0.3):
        given = torch.tensor(x, requires_grad=True)
        axes = tuple(range(3)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        y = given / t - torch.logsumexp(given / t, axes, keepdim=True)
        y = y.exp() if name == "softmax" else y
        y.backward(torch.tensor(dy))
        ours = WAYS_BACK[name](EXACT[name](x, axis, temperature=t).astype(np.float64), dy, axis, temperature=t)
        # PyTorch's y is off by an ULP of the largest logit, and so is what it makes of dy.
        allowed = 64 * np.finfo(np.float64).eps * np.abs(x / t).max() * np.abs(dy).sum() / t
        np.testing.assert_allclose(ours, given.grad.numpy(), rtol=0, atol=allowed)


# --- what did not come through ----------------------------------------------------------


@every_map
@every_float
@pytest.mark.parametrize("strange", [np.nan, np.inf, -np.inf, 1e30])
def test_masked_out_places_have_no_gradient(name, dtype, strange):
    """Exactly 0, whatever dy is there, and it changes nothing elsewhere: in rows, columns and batches."""
    x, dy = normal((12, 40), dtype), cotangent((12, 40), dtype)
    where = normal((12, 40), np.float32, seed=3) > -0.3
    where[5] = False
    y, dy_where = EXACT[name](x, where=where).astype(dtype), np.where(where, dy, dtype(strange))
    for (a, axis), (b, _), (keep, _) in zip(arranged(y), arranged(dy_where), arranged(where), strict=True):
        dx = assert_right(name, a, b, axis)
        assert (dx[~keep] == 0).all()
        assert np.isfinite(dx).all()
        without = np.where(keep, b, dtype(0))
        assert same_bits(dx, WAYS_BACK[name](a, without, axis))


@every_map
@every_dtype
def test_lanes_with_nothing_left_have_no_gradient(name, dtype):
    y = np.full((9, 30), GONE[name], dtype)
    for strange in (np.nan, np.inf, 1.0):
        dy = np.full((9, 30), strange, dtype)
        for axis in (0, 1, None):
            dx = WAYS_BACK[name](y, dy, axis)
            assert (dx == 0).all()
            assert dx.dtype == dtype


@every_map
def test_logits_of_minus_infinity(name):
    """They are masked-out places too: softmax is 0 there, log_softmax -inf."""
    x = normal((6, 20), np.float64)
    x[:, 3] = -np.inf
    dy = cotangent((6, 20), np.float64)
    dx = assert_right(name, MAPS[name](x), dy)
    assert (dx[:, 3] == 0).all()
    few = np.delete(np.arange(20), 3)
    removed = EXACT_WAYS_BACK[name](EXACT[name](x[:, few]), dy[:, few])
    assert_close(dx[:, few], removed)


@every_map
@every_float
def test_what_is_undefined_stays_in_its_lane(name, dtype):
    """NaN in y, or in one place of dy: the lane has no number but at masked-out places, and no other lane sees it."""
    y, dy = forward(name, (12, 40), dtype), cotangent((12, 40), dtype)
    expected = WAYS_BACK[name](y, dy)
    y[[2, 7]], dy[9, 3] = np.nan, np.nan
    y[[2, 7, 9], 6] = GONE[name]
    undefined, gone = np.isin(np.arange(12), [2, 7, 9]), y == GONE[name]
    rows, columns = WAYS_BACK[name](y, dy), WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0).T
    for dx in (rows, columns):
        assert same_bits(dx[~undefined].copy(), expected[~undefined])
        assert (dx[gone] == 0).all()
        assert np.isnan(dx[undefined[:, None] & ~gone]).all()


@every_map
def test_masked_arrays(name):
    """A mask of y is one of its places; a mask of dy is a cotangent of 0."""
    for dtype in DTYPES:
        y, dy = forward(name, (6, 20), dtype), cotangent((6, 20), dtype)
        mask = normal((6, 20), np.float64, seed=5) > 0.5
        dx = WAYS_BACK[name](np.ma.array(y, mask=mask), dy)
        assert type(dx) is np.ndarray
        assert same_bits(dx, WAYS_BACK[name](np.where(mask, dtype.type(GONE[name]), y), dy))
        dx = WAYS_BACK[name](y, np.ma.array(np.where(mask, dtype.type(np.nan), dy), mask=mask))
        assert same_bits(dx, WAYS_BACK[name](y, np.where(mask, dtype.type(0), dy)))
    whole = np.array([[0, 1, 0]]) if name == "softmax" else np.array([[0, -40, -50]])
    dx = WAYS_BACK[name](np.ma.array(whole, mask=[[0, 0, 1]]), np.ma.array([[1, 2, 3]], mask=[[0, 1, 0]]))
    assert same_bits(dx, WAYS_BACK[name](np.array([[*map(float, whole[0, :2]), GONE[name]]]), [[1.0, 0.0, 3.0]]))


@every_map
@every_dtype
def test_empty_arrays_and_numbers(name, dtype):
    for shape, axis in (((0, 3), 1), ((0, 3), 0), ((3, 0), 1), ((3, 0), None), ((0,), 0), ((2, 0, 3), 2)):
        dx = WAYS_BACK[name](np.empty(shape, dtype), np.empty(shape, dtype), axis)
        assert dx.shape == shape
        assert dx.dtype == dtype
    whole = dtype.type(1 if name == "softmax" else 0)
    for axis in (-1, 0, None):
        dx = WAYS_BACK[name](whole, dtype.type(3), axis)
        assert type(dx) is dtype.type
        assert dx == 0


# --- layouts, out, bits -----------------------------------------------------------------


@every_map
@every_float
def test_every_layout_has_the_same_bits(name, dtype):
    for shape in ((5, 33), (33, 5), (17, 17), (300, 9), (9, 300)):
        dy = cotangent(shape, dtype)
        for axis in (0, 1, None):
            y = forward(name, shape, dtype, axis)
            expected = WAYS_BACK[name](y, dy, axis)
            for (layout, a), b in itertools.product(layouts(y).items(), (dy, np.asfortranarray(dy))):
                assert same_bits(WAYS_BACK[name](a, b, axis), expected), (layout, shape, axis)
                assert same_bits(WAYS_BACK[name](a, layouts(dy)[layout], axis), expected), (layout, shape, axis)
            for one in (
                np.broadcast_to(dy[:1], shape),
                np.broadcast_to(dy[:, :1], shape),
                np.broadcast_to(dy[0, 0], shape),
            ):
                assert same_bits(WAYS_BACK[name](y, one, axis), WAYS_BACK[name](y, one.copy(), axis))


@every_map
def test_every_transposition_of_four_dimensions(name):
    y, dy = forward(name, (3, 5, 9, 4), np.float32, 2), cotangent((3, 5, 9, 4), np.float32)
    expected = {axis: WAYS_BACK[name](y, dy, axis) for axis in (0, 2, 3, (0, 3), None)}
    for order in itertools.permutations(range(4)):
        a, b = (np.ascontiguousarray(v.transpose(order)).transpose(np.argsort(order)) for v in (y, dy))
        for axis in expected:
            assert same_bits(WAYS_BACK[name](a, b, axis), expected[axis]), (order, axis)
            assert same_bits(WAYS_BACK[name](a, dy, axis), expected[axis]), (order, axis)


@every_map
@every_float
def test_a_lane_alone_and_among_others(name, dtype):
    for n in (1, 5, 16, 33, 100, 1000, 4100):
        y, dy = forward(name, (3, n), dtype), cotangent((3, n), dtype)
        expected = np.stack([WAYS_BACK[name](a, b) for a, b in zip(y, dy, strict=True)])
        for count in (3, 8, 17, 70, 1000):
            if count * n > 150_000:
                continue
            crowd, cotangents = forward(name, (count, n), dtype, seed=1), cotangent((count, n), dtype, 1)
            places = [0, count // 2, count - 1]
            crowd[places], cotangents[places] = y, dy
            assert same_bits(WAYS_BACK[name](crowd, cotangents)[places], expected), (n, count)
            dx = WAYS_BACK[name](crowd.T.copy(), cotangents.T.copy(), 0)
            assert same_bits(dx[:, places].T.copy(), expected), (n, count)


@pytest.fixture
def set_threads():
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@every_map
@pytest.mark.parametrize("tempered", [False, True])
def test_any_number_of_threads_and_run_after_run(name, tempered, set_threads):
    for shape, axis in (
        ((2000, 64), 1),
        ((64, 2000), 0),
        ((3, 40_000), 1),
        ((300_000,), 0),
        ((2, 20, 30, 300), (1, 3)),
    ):
        y, dy = forward(name, shape, np.float32, axis), cotangent(shape, np.float32)
        how = {
            "temperature": np.linspace(0.5, 2, y.max(axis, keepdims=True).size).reshape(
                y.max(axis, keepdims=True).shape
            )
        }
        how = how if tempered else {}
        set_threads(1)
        expected = WAYS_BACK[name](y, dy, axis, **how)
        for count in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            set_threads(count)
            for _ in range(2):
                assert same_bits(WAYS_BACK[name](y, dy, axis, **how), expected), (shape, axis, count)


@every_map
@every_float
def test_in_place_and_into_any_out(name, dtype):
    """out may be y or dy in any layout: the same bits, and the caller gets it back."""
    for shape, axis in (((12, 40), 1), ((40, 12), 0), ((12, 40), None), ((3, 5000), 1)):
        y, dy = forward(name, shape, dtype, axis), cotangent(shape, dtype)
        expected = WAYS_BACK[name](y, dy, axis)
        for how in PLACES:
            out = placed(np.full(shape, 77, dtype), how)
            assert WAYS_BACK[name](y, dy, axis, out=out) is out
            assert same_bits(out.astype(dtype), expected), how
            for other in ("C", "F"):
                a, b = placed(y, how), placed(dy, other)
                assert WAYS_BACK[name](a, b, axis, out=a) is a
                assert same_bits(a.astype(dtype), expected), (how, other)
                a, b = placed(y, other), placed(dy, how)
                assert WAYS_BACK[name](a, b, axis, out=b) is b
                assert same_bits(b.astype(dtype), expected), (how, other)
    both = forward(name, (12, 40), dtype)
    expected = WAYS_BACK[name](both.copy(), both.copy())
    assert WAYS_BACK[name](both, both, out=both) is both
    assert same_bits(both, expected)


@every_map
def test_overlapping_out(name):
    """A shift, a transposition or a reversal of y's or dy's own memory; memory of another type; the temperatures'."""
    m = n = 24
    y, dy = forward(name, (m, n), np.float32), cotangent((m, n), np.float32)
    for axis in (0, 1):
        expected = WAYS_BACK[name](y, dy, axis)
        for mine, view in itertools.product((0, 1), (lambda a: a.T, lambda a: a[::-1], lambda a: a[:, ::-1])):
            arrays = [y.copy(), dy.copy()]
            out = view(arrays[mine])
            assert WAYS_BACK[name](*arrays, axis, out=out) is out
            assert same_bits(out.copy(), expected)
        for mine, shift, forth in itertools.product((0, 1), (1, n, n + 5), (False, True)):
            room = np.zeros(m * n + shift, np.float32)
            source, out = room[: m * n].reshape(m, n), room[shift:].reshape(m, n)
            if forth:
                source, out = out, source
            arrays = [y, dy]
            source[...] = arrays[mine]
            arrays[mine] = source
            WAYS_BACK[name](*arrays, axis, out=out)
            assert same_bits(out, expected), (axis, mine, shift, forth)
        room = np.zeros((m, n))
        narrow = room.view(np.float32)[:, :n]
        narrow[...] = dy
        expected = WAYS_BACK[name](y.astype(float), dy, axis)
        assert same_bits(WAYS_BACK[name](y.astype(float), narrow, axis, out=room), expected)
    room = np.full((m, n), 2.0)
    room[:, 0] = np.linspace(0.5, 2, m)
    expected = WAYS_BACK[name](y.astype(float), dy, temperature=room[:, :1].copy())
    assert same_bits(WAYS_BACK[name](y.astype(float), dy, temperature=room[:, :1], out=room), expected)


@every_map
def test_strided_out(name):
    """Only the view's own entries are written."""
    for axis in (0, 1):
        y, dy = forward(name, (12, 40), np.float32, axis), cotangent((12, 40), np.float32)
        expected = WAYS_BACK[name](y, dy, axis)
        room = np.full((36, 120), 77, np.float32)
        for view in (room[::3, ::3], room[::-3, ::-3], room[12:24, 40:80], room[12:24, ::3], room[::3, 7:47]):
            assert WAYS_BACK[name](y, dy, axis, out=view) is view
            assert same_bits(view.copy(), expected)
            view[...] = 77
            assert (room == 77).all()


@every_map
@every_float
def test_the_arguments_stay_as_they_were(name, dtype):
    y, dy = forward(name, (6, 40), dtype), cotangent((6, 40), dtype)
    for layout in layouts(y):
        arrays = layouts(y)[layout], layouts(dy)[layout]
        bases = [a.base if isinstance(a.base, np.ndarray) else a for a in arrays]
        before = [base.tobytes() for base in bases]
        for a in arrays:
            a.flags.writeable = False
        for axis in (0, 1):
            dx = WAYS_BACK[name](*arrays, axis, temperature=0.5)
            assert not any(np.shares_memory(dx, a) for a in arrays)
            assert type(dx) is np.ndarray and dx.flags.writeable and dx.flags.aligned
        assert [base.tobytes() for base in bases] == before, layout


@every_map
def test_both_ways_through_lanes_are_taken(name, monkeypatch):
    """Rows and columns, by one thread and by two, within the caches and past them; a few rows in one compiled call."""
    found, body, run, small = [], vjp_sweeps._body, vjp_sweeps.threads.run, vjp_sweeps.small

    def recorded(backward, columns, *kinds):
        found.append(columns)
        return body(backward, columns, *kinds)

    def shared(*call):
        found.append("shared")
        return run(*call)

    def recorded_small(*kinds):
        found.append("small")
        return small(*kinds)

    few = forward(name, (2, 3), np.float32)
    WAYS_BACK[name](few, few)  # compiled, it needs no body
    monkeypatch.setattr(vjp_sweeps, "_body", recorded)
    monkeypatch.setattr(vjp_sweeps, "small", recorded_small)
    monkeypatch.setattr(vjp_sweeps.threads, "run", shared)
    monkeypatch.setattr(threads, "in_use", lambda: 2)
    for shape, axis, columns, parallel in (
        ((12, 40), 1, "small", False),
        ((40, 12), 0, True, False),
        ((40, 3), 0, False, False),
        ((2, 40, 12), 1, True, False),
        ((1100, 1003), 1, False, True),
        ((1100, 1003), 0, True, True),
    ):
        y, dy = forward(name, shape, np.float32, axis), cotangent(shape, np.float32)
        found.clear()
        # A place that no line of memory begins at.
        room = np.full(y.size + 10, 77, np.float32)
        dx = WAYS_BACK[name](y, dy, axis, out=room[3:-7].reshape(shape))
        assert (room[:3] == 77).all() and (room[-7:] == 77).all()
        assert found == [columns] + ["shared"] * parallel
        for lanes in (slice(0, 9), slice(-9, None)):
            few = (lanes,) if axis else (..., lanes)
            assert_close(dx[few], EXACT_WAYS_BACK[name](y[few], dy[few], axis))
        assert same_bits(dx, WAYS_BACK[name](y, dy, axis))


# --- other libraries' arrays ------------------------------------------------------------


@every_map
@every_dtype
def test_tensors(name, dtype):
    torch = pytest.importorskip("torch")

    def to_tensor(values):
        if values.dtype == BFLOAT16:
            return torch.from_numpy(values.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(values.copy())

    def to_numpy(tensor):
        return tensor.view(torch.int16).numpy().view(BFLOAT16) if tensor.dtype == torch.bfloat16 else tensor.numpy()

    values, cotangents = forward(name, (6, 40), dtype), cotangent((6, 40), dtype)
    expected = WAYS_BACK[name](values, cotangents)
    y, dy = to_tensor(values), to_tensor(cotangents)
    for other in (dy, cotangents):
        dx = WAYS_BACK[name](y, other)
        assert type(dx) is torch.Tensor
        assert dx.dtype == y.dtype
        assert same_bits(to_numpy(dx), expected)
    assert type(WAYS_BACK[name](values, dy)) is np.ndarray
    out = torch.empty_like(y)
    assert WAYS_BACK[name](y, dy, out=out) is out
    assert same_bits(to_numpy(out), expected)
    assert same_bits(to_numpy(WAYS_BACK[name](y, dy, temperature=torch.tensor(1.0))), expected)
    assert WAYS_BACK[name](y, dy, out=dy) is dy
    assert same_bits(to_numpy(dy), expected)
    for arrays in ((y.requires_grad_(), values), (values, y)):
        with pytest.raises(TypeError, match="detach"):
            WAYS_BACK[name](*arrays)


# --- errors -----------------------------------------------------------------------------

Y = np.full((2, 3), 0.25, np.float32)
FROZEN = Y.copy()
FROZEN.flags.writeable = False


class OnCuda:
    """Looks like a CUDA library's array."""

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **how):
        raise AssertionError("a CUDA array must not be exported to the host")


WRONG = {
    "dy of another shape": ({"dy": np.ones((3, 2))}, ValueError, ["y and dy", "(2, 3)", "(3, 2)"]),
    "dy that would broadcast": ({"dy": np.ones(3)}, ValueError, ["y and dy", "(2, 3)", "(3,)"]),
    "y of strings": ({"y": [["a"]]}, TypeError, ["<U1", "float64"]),
    "dy complex": ({"dy": np.ones((2, 3), complex)}, TypeError, ["complex128", "float64"]),
    "dy longdouble": ({"dy": np.ones((2, 3), "g")}, TypeError, ["float64"]),
    "axis too large": ({"axis": 2}, np.exceptions.AxisError, ["axis 2", "2-D"]),
    "axis repeated": ({"axis": (1, -1)}, ValueError, ["axis", "twice"]),
    "axis a float": ({"axis": 1.5}, TypeError, ["axis", "1.5"]),
    "axis a list": ({"axis": [0, 1]}, TypeError, ["axis", "[0, 1]"]),
    "temperature zero": ({"temperature": 0}, ValueError, ["temperature", "positive", "0"]),
    "temperature NaN": ({"temperature": np.nan}, ValueError, ["temperature", "nan"]),
    "one temperature wrong": ({"temperature": np.array([[1.0], [-3.5]])}, ValueError, ["temperature", "-3.5"]),
    "temperatures along the lane": ({"temperature": np.ones(3)}, ValueError, ["temperature", "(3,)", "(2, 1)"]),
    "temperature a string": ({"temperature": "hot"}, TypeError, ["temperature"]),
    "out of another shape": ({"out": np.zeros((3, 2), np.float32)}, ValueError, ["out", "(3, 2)", "(2, 3)"]),
    "out of another dtype": ({"out": np.zeros((2, 3))}, TypeError, ["out", "float64", "float32"]),
    "out read-only": ({"out": FROZEN}, ValueError, ["out", "read-only"]),
    "out a list": ({"out": [[0.0] * 3] * 2}, TypeError, ["out", "array"]),
    "dy on a GPU": ({"dy": OnCuda()}, ValueError, ["one device", "y on the CPU", "dy on the GPU"]),
    "out on a GPU": ({"out": OnCuda()}, ValueError, ["one device", "out on the GPU"]),
}


@every_map
@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_value_and_what_is_allowed(name, case):
    changed, exception, words = WRONG[case]
    with pytest.raises(exception) as error:
        WAYS_BACK[name](**{"y": Y, "dy": Y, **changed})
    message = str(error.value)
    assert all(word in message for word in words), message
    assert not isinstance(error.value, numba.core.errors.NumbaError)


@every_map
def test_nothing_is_written_when_an_argument_is_wrong(name):
    out = np.full((2, 3), 77, np.float32)
    for changed in ({"dy": np.ones((3, 2))}, {"axis": 5}, {"temperature": -1.0}):
        with pytest.raises(ValueError):  # noqa: PT011  (the test before this one has the messages)
            WAYS_BACK[name](**{"y": Y, "dy": Y, "out": out, **changed})
    assert (out == 77).all()


@every_map
def test_signatures(name):
    bare = [
        p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(WAYS_BACK[name]).parameters.values()
    ]
    assert str(inspect.Signature(bare)) == "(y, dy, axis=-1, *, temperature=1.0, out=None)"
    assert f"{name}_vjp" in softmax_numba.__all__


# --- the oracle itself ------------------------------------------------------------------


@every_map
@pytest.mark.parametrize("axis", [1, 0, (0, 1)], ids=str)
def test_the_oracle_is_the_slope_of_the_functions(name, axis):
    """Against central differences of the oracle's own softmax in longdouble, for one temperature and one a lane."""
    x, dy = wide(normal((4, 5), np.float64)), wide(cotangent((4, 5), np.float64))
    h = LONG(2.0**-21)
    lanes = np.sum(np.ones((4, 5)), axis=axis, keepdims=True).shape
    for t in (1.0, 0.5, np.linspace(0.5, 2, np.prod(lanes)).reshape(lanes)):
        exact = EXACT_WAYS_BACK[name](EXACT[name](x, axis, temperature=t), dy, axis, temperature=t)
        for place in np.ndindex(x.shape):
            step = np.zeros_like(x)
            step[place] = h
            after, before = (np.sum(EXACT[name](a, axis, temperature=t) * dy) for a in (x + step, x - step))
            slope = (after - before) / (2 * h)
            assert abs(slope - exact.value[place]) <= 2.0**-32 * float(np.abs(dy).max())


@every_map
def test_the_oracles_sums_are_exact(name):
    """Against mpmath, where the terms cancel to a ten-thousand-millionth of the largest."""
    y, dy = forward(name, 501, np.float64, scale=1), cotangent(501, np.float64, 2)
    dy[1:] -= dy[1:].mean()
    with mpmath.workdps(60):
        products = [mpmath.mpf(float(a)) * mpmath.mpf(float(b)) for a, b in zip(y, dy, strict=True)]
        total = mpmath.fsum(products) if name == "softmax" else mpmath.fsum(mpmath.mpf(float(b)) for b in dy)
        exact = EXACT_WAYS_BACK[name](y, dy)
        for i in range(0, 501, 50):
            v, d = mpmath.mpf(float(y[i])), mpmath.mpf(float(dy[i]))
            theirs = v * (d - total) if name == "softmax" else d - mpmath.exp(v) * total
            mine = mpmath.mpf(float(exact.value[i])) + mpmath.mpf(float(exact.value[i] - LONG(float(exact.value[i]))))
            assert abs(mine - theirs) <= 2.0**-60 * float(exact.size[i])


def test_the_oracle_notices_errors():
    """An entry that is 10 ULP off, and a NaN in the wrong place."""
    for name, dtype in itertools.product(MAPS, (np.float32, np.float64)):
        exact = EXACT_WAYS_BACK[name](forward(name, (3, 40), dtype), cotangent((3, 40), dtype))
        got = exact.value.astype(dtype)
        assert ulp_error(got, exact) <= 1
        place = np.unravel_index(np.argmax(exact.size), (3, 40))
        got[place] += dtype(10 * ulp(exact.size[place], dtype))
        assert 9 < ulp_error(got, exact) < 11
        got[place] = np.nan
        assert ulp_error(got, Exact(*exact)) == np.inf
