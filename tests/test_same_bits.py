"""A lane's bits do not depend on company: threads, batch, place, layout, being in place, or the run."""

import threading

import numba
import numpy as np
import pytest
from grids import FUNCTIONS, MAPS, every_dtype, every_function, every_map, no_warnings, normal
from oracle import same_bits

pytestmark = no_warnings

# Short lanes, lanes around vector and block sizes, long ones that may be split over threads.
LENGTHS = (
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    31,
    32,
    33,
    63,
    64,
    65,
    100,
    127,
    128,
    129,
    255,
    256,
    257,
    1000,
    1024,
    4097,
)


@pytest.fixture
def threads():
    """Sets the number of threads, and restores it."""
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


def lanes_for(n, dtype, count=5) -> np.ndarray:
    x = normal((count, n), dtype, scale=4, shift=2)
    if count > 3 and n > 2:
        x[1, n // 3] = -np.inf
        x[3, -1] = 40
    return x


def alone(function, x, **how) -> np.ndarray:
    """Each row of `x` in a call of its own."""
    return np.stack([np.asarray(function(row.copy(), **how)) for row in x])


@every_function
@every_dtype
def test_in_any_arrangement(name, dtype):
    """Rows, columns, transposed, strided, reversed twice, in the middle of four dimensions."""
    function = FUNCTIONS[name]
    for n in LENGTHS:
        x = lanes_for(n, dtype)
        expected = alone(function, x)
        wide = np.zeros((5, 3 * n), dtype)[:, ::3]
        wide[...] = x
        tall = np.zeros((n, 11), dtype)[:, 3:8]
        tall[...] = x.T
        middle = np.ascontiguousarray(np.broadcast_to(x[:, :, None], (5, n, 3)))

        def put(y, axis):
            return y.copy() if name == "logsumexp" else np.moveaxis(y, axis, -1).copy()

        for kind, y in {
            "rows": function(x, 1),
            "columns": put(function(np.ascontiguousarray(x.T), 0), 0),
            "transposed": put(function(x.T, 0), 0),
            "Fortran rows": put(function(np.asfortranarray(x), 1), 1),
            "strided": put(function(wide, 1), 1),
            "columns of a wider array": put(function(tall, 0), 0),
            "reversed twice": put(function(np.ascontiguousarray(x[:, ::-1])[:, ::-1], 1), 1),
            "inner axis": put(function(middle, 1), 1)[:, 2],
            "one of three": function(np.stack([x, x, x]), -1)[1],
        }.items():
            assert same_bits(y, expected), (kind, n)


@every_function
@every_dtype
def test_among_any_number_of_other_lanes(name, dtype):
    """From a call without threads to one that uses them all, as rows and as columns."""
    function = FUNCTIONS[name]
    for n in (1, 5, 16, 100, 257, 1000):
        x = lanes_for(n, dtype)
        expected = alone(function, x)
        for count in (1, 2, 3, 4, 5, 7, 17, 64, 1000, 10_000):
            if count * n > 300_000:
                continue
            crowd = normal((count, n), dtype, seed=1)
            places = sorted({0, count // 3, count - 1})
            crowd[places] = x[: len(places)]
            assert same_bits(function(crowd)[places], expected[: len(places)]), (n, count)
            y = function(np.ascontiguousarray(crowd.T), 0)
            assert same_bits(y[..., places].T.copy(), expected[: len(places)]), (n, count)


@every_function
@every_dtype
def test_strange_neighbours(name, dtype):
    """A NaN, an infinity or a huge entry in the next lane changes nothing here."""
    for n in (3, 16, 100):
        x = lanes_for(n, dtype, count=9)
        expected = alone(FUNCTIONS[name], x)
        for value in (np.nan, np.inf, -np.inf, 60000):
            y = x.copy()
            y[1::2, ::2] = value
            rows = FUNCTIONS[name](y)[::2]
            columns = FUNCTIONS[name](np.ascontiguousarray(y.T), 0).T[::2]
            assert same_bits(rows.copy(), expected[::2])
            assert same_bits(columns.copy(), expected[::2])


@every_function
@every_dtype
def test_any_number_of_threads(name, dtype, threads):
    for shape in ((4000, 64), (64, 4000), (3, 50_000), (1, 300_000), (300_000,), (20, 30, 400)):
        x = normal(shape, dtype, scale=3)
        for axis in (0, -1, None):
            threads(1)
            expected = FUNCTIONS[name](x, axis)
            for count in range(2, numba.config.NUMBA_NUM_THREADS + 1):
                threads(count)
                for _ in range(2):
                    assert same_bits(FUNCTIONS[name](x, axis), expected), (shape, axis, count)


@every_function
def test_a_very_long_lane(name, threads):
    """Split over threads at fixed places: alone, among others, as a column, and with one thread."""
    x = normal(2**21 + 5, np.float32)
    threads(1)
    expected = FUNCTIONS[name](x)
    threads(numba.config.NUMBA_NUM_THREADS)
    assert same_bits(FUNCTIONS[name](x), expected)
    assert same_bits(FUNCTIONS[name](np.stack([x, x[::-1]]))[0], expected)
    columns = np.stack([x, x[::-1], x], axis=1)
    assert same_bits(FUNCTIONS[name](columns, 0)[..., 2].copy(), expected)
    assert same_bits(np.ravel(FUNCTIONS[name](x.reshape(-1, 1), 0)), np.ravel(expected))


@every_map
@every_dtype
def test_in_place_and_into_any_out(name, dtype):
    for n in (5, 64, 1000):
        x = lanes_for(n, dtype)
        for axis in (0, 1, None):
            expected = MAPS[name](x, axis)
            for out in (
                np.empty_like(x),
                np.empty_like(x, order="F"),
                np.empty((10, 2 * n), dtype)[::2, ::2],
            ):
                assert same_bits(MAPS[name](x, axis, out=out).copy(), expected)
            mine = x.copy()
            assert same_bits(MAPS[name](mine, axis, out=mine), expected)


@every_map
@every_dtype
def test_with_where_and_temperature(name, dtype):
    for n in (5, 64, 300):
        x = lanes_for(n, dtype)
        where = normal((5, n), np.float32, seed=2) > -0.5
        t = np.array([0.1, 0.5, 1.0, 2.0, 3.3])
        expected = np.stack([MAPS[name](x[i], where=where[i], temperature=t[i]) for i in range(5)])
        assert same_bits(MAPS[name](x, where=where, temperature=t[:, None]), expected)
        y = MAPS[name](np.ascontiguousarray(x.T), 0, where=where.T, temperature=t)
        assert same_bits(y.T.copy(), expected)


@every_function
@every_dtype
def test_run_after_run(name, dtype):
    x = normal((200, 1000), dtype)
    for axis in (0, 1, None):
        expected = FUNCTIONS[name](x, axis)
        for _ in range(5):
            assert same_bits(FUNCTIONS[name](x, axis), expected)


@every_function
def test_from_another_python_thread(name):
    x = normal((300, 700), np.float32)
    expected = FUNCTIONS[name](x)
    found = []
    worker = threading.Thread(target=lambda: found.append(FUNCTIONS[name](x)))
    worker.start()
    worker.join()
    assert same_bits(found[0], expected)


@every_function
@every_dtype
def test_a_tuple_of_axes_is_one_lane_in_memory_order_of_axes(name, dtype):
    """The entries of a lane over several axes follow the axes' order, not their order in the tuple or memory."""
    x = normal((6, 5, 4, 3), dtype)
    for axes, flat in (((2, 3), x.reshape(6, 5, 12)), ((0, 2), x.transpose(1, 3, 0, 2).reshape(5, 3, 24))):
        expected = FUNCTIONS[name](np.ascontiguousarray(flat), -1)
        for a in (x, np.asfortranarray(x)):
            y = FUNCTIONS[name](a, axes)
            if name != "logsumexp":
                kept = [i for i in range(4) if i not in axes]
                y = y.transpose(*kept, *axes).reshape(expected.shape)
            assert same_bits(y.copy(), expected)
