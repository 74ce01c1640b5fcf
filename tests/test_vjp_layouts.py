"""The ways back into any layout: the same bits whatever the order of memory, company, threads, out and library."""

import itertools

import numba
import numpy as np
import pytest
from crews import nobody_awake as nobody_awake
from grids import every_dtype, every_map, layouts, no_warnings
from loss_cases import PLACES, placed
from loss_oracle import assert_close
from oracle import BFLOAT16, same_bits
from vjp_cases import EXACT_WAYS_BACK, WAYS_BACK, assert_right, cotangent, every_float, forward

from softmax_numba import gradients
from softmax_numba.cpu import sharing, threads, vjp_door, vjp_sweeps

pytestmark = no_warnings


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
@pytest.mark.parametrize(
    ("count", "n"), [(1200, 1000), (17_000, 65), (17_000, 64), (300, 4097), (90, 12_345), (300_000, 4), (120_007, 11)]
)
def test_rows_past_the_cache_have_the_bits_of_rows_alone(name, count, n):
    """While the cotangents of a row are written the next row is added up: from any place on, in place, and a NaN or an
    infinity in one row is nothing to its neighbours."""
    y, dy = forward(name, (count, n), np.float32), cotangent((count, n), np.float32)
    dy[3, n // 2], dy[7, n - 1] = np.nan, np.inf
    some = [0, 1, 2, 3, 4, 6, 7, 8, count // 2, count - 2, count - 1]
    expected = [WAYS_BACK[name](y[i], dy[i]) for i in some]
    room = np.full(count * n + 40, 7, np.float32)
    for shift in (0, 1, 16):
        start = -room.ctypes.data % 64 // 4 + shift
        out = room[start : start + count * n].reshape(count, n)
        given, other = y.copy(), dy.copy()
        for found in (
            WAYS_BACK[name](y, dy, out=out),
            WAYS_BACK[name](given, dy, out=given),
            WAYS_BACK[name](y, other, out=other),
        ):
            for i, row in zip(some, expected, strict=True):
                assert same_bits(found[i], row), (i, shift)
        out[...] = 7
        assert (room == 7).all()  # nothing else was written


@every_map
@every_float
def test_a_lane_alone_and_among_others(name, dtype):
    for n in (1, 5, 8, 12, 16, 33, 100, 1000, 4100):
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
        ((20_000, 7), 1),
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
def test_every_way_through_lanes_is_taken(name, monkeypatch, nobody_awake):
    """Rows, short ones, columns and lanes that are shared themselves, by one thread and by two, in the caches and past
    them; what is little in one compiled call."""
    found, body, run = [], vjp_sweeps.body_of, threads.run

    def recorded(prefix):
        def body_for(backward, sweep, arrays):
            found.append(prefix + sweep)
            return body(backward, sweep, arrays)

        return body_for

    def shared(*call):
        found.append("shared")
        return run(*call)

    def new_door(backward, storage):
        made.append(new(backward, storage))
        return made[-1]

    def forget():
        found.clear()
        vjp_sweeps._carrier.cache_clear()
        for door in made:
            door.numbers[: vjp_door.FOLD] = 0

    made, new = [], vjp_door.vjp_door.__wrapped__
    monkeypatch.setattr(vjp_sweeps, "body_of", recorded(""))
    monkeypatch.setattr(vjp_door, "body_of", recorded("door of "))
    monkeypatch.setattr(vjp_door, "vjp_door", new_door)
    backward = {"softmax": gradients.SOFTMAX_VJP, "log_softmax": gradients.LOG_SOFTMAX_VJP}[name]
    monkeypatch.setattr(gradients, f"_small_{name}_vjp", gradients._short_way(backward))
    monkeypatch.setattr(sharing.crew, "begin", lambda values: 0)
    monkeypatch.setattr(threads, "run", shared)
    monkeypatch.setattr(threads, "in_use", lambda: 2)
    for shape, axis, taken in (
        ((12, 40), 1, ["door of rows"]),
        ((12, 3, 40), 2, ["door of rows"]),
        ((63, 12), 1, ["door of rows"]),
        ((64, 257), 1, ["door of rows"]),
        ((64, 256), 1, ["door of short"]),
        ((9, 9, 1), 2, ["door of single"]),
        ((40, 12), 0, ["door of columns"]),
        ((40, 3), 0, ["door of narrow"]),
        ((201, 3), 0, ["door of rows"]),
        ((2, 40, 12), 1, ["door of columns"]),
        ((1100, 1003), 1, ["rows", "shared"]),
        ((123_456, 9), 1, ["short", "shared"]),
        ((3000, 257), 1, ["rows", "shared"]),
        ((60_000, 65), 1, ["short", "shared"]),
        ((8000, 511), 1, ["short", "shared"]),
        ((8000, 512), 1, ["rows", "shared"]),
        ((1100, 1003), 0, ["columns", "shared"]),
        ((400_000,), 0, ["long", "shared"]),
        ((300_001, 2), 0, ["long", "shared"]),
    ):
        y, dy = forward(name, shape, np.float32, axis), cotangent(shape, np.float32)
        forget()
        # A place that no line of memory begins at.
        room = np.full(y.size + 10, 77, np.float32)
        dx = WAYS_BACK[name](y, dy, axis, out=room[3:-7].reshape(shape))
        assert (room[:3] == 77).all() and (room[-7:] == 77).all()
        assert found == taken, shape
        for lanes in (slice(0, 9), slice(-9, None)):
            few = ... if len(shape) == 1 else (lanes,) if axis else (..., lanes)
            assert_close(dx[few], EXACT_WAYS_BACK[name](y[few], dy[few], axis))
        assert same_bits(dx, WAYS_BACK[name](y, dy, axis))
    for dtype, taken in ((np.float16, "short"), (BFLOAT16, "short"), (np.float64, "rows")):
        y, dy = forward(name, (64, 64), dtype), cotangent((64, 64), dtype)
        forget()
        WAYS_BACK[name](y, dy)
        assert found == [f"door of {taken}"]
    for count, taken in ((63, "rows"), (64, "short")):
        y, dy = forward(name, (count, 5), np.float32), cotangent((count, 5), np.float32)
        forget()
        heat = np.linspace(0.5, 2, count)[:, None]
        assert_close(WAYS_BACK[name](y, dy, temperature=heat), EXACT_WAYS_BACK[name](y, dy, temperature=heat))
        assert found == [taken]


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


@every_map
@every_float
def test_short_rows_of_every_length(name, dtype):
    """Of one vector to five, the last of them full or not, some with a sum that is no number: the bits of columns."""
    for count, n in [(70, n) for n in range(1, 66)] + [(9, n) for n in range(1, 5 * 16 + 2)]:
        y, dy = forward(name, (count, n), dtype, 1, n), cotangent((count, n), dtype, n)
        dy[2, n // 2] = np.inf
        rows = WAYS_BACK[name](y, dy)
        assert same_bits(rows, WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0).T.copy())
        assert_right(name, y[3:], dy[3:])
        assert same_bits(rows[3:], WAYS_BACK[name](y[3:], dy[3:]))


@every_map
@every_float
def test_cotangents_that_are_all_negative_zeros(name, dtype):
    """Rows and columns add no zeros of another sign."""
    for count, n in ((9, 1), (9, 8), (9, 10), (9, 16), (9, 20), (9, 64), (9, 100), (70, 1), (70, 8), (70, 10)):
        y = forward(name, (count, n), dtype, 1, n)
        rows = WAYS_BACK[name](y, np.full_like(y, -0.0))
        columns = WAYS_BACK[name](y.T.copy(), np.full_like(y.T, -0.0, order="C"), 0)
        apart = np.full((count, 2 * n), -0.0, dtype)[:, ::2]
        assert same_bits(rows, columns.T.copy())
        assert same_bits(rows, WAYS_BACK[name](y, apart))
