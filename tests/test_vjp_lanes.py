"""The ways back of lanes that are no plain rows: of one value, with few neighbours, of many blocks; bits as of rows."""

import numpy as np
import pytest
from crews import nobody_awake as nobody_awake
from grids import every_dtype, every_map, no_warnings
from loss_oracle import assert_close
from oracle import same_bits
from vjp_cases import EXACT_WAYS_BACK, GONE, WAYS_BACK, assert_right, cotangent, every_float, forward

from softmax_numba.cpu import sharing, threads, vjp_sweeps
from softmax_numba.cpu.lane import BLOCK

pytestmark = no_warnings


def in_strides(lanes):
    """The same numbers, of which no two are neighbours."""
    room = np.full((2 * lanes.shape[0], 2 * lanes.shape[1]), 7, lanes.dtype)[::2, ::2]
    room[...] = lanes
    return room


def edges(name, dtype, count, n):
    """Lanes with what has no gradient, infinities, NaNs and zeros of both signs among them."""
    y, dy = forward(name, (count, n), dtype, 1, n), cotangent((count, n), dtype, n)
    y[0, 0] = GONE[name]
    dy[0, 0], dy[1, n // 2], dy[2, n - 1], dy[3], dy[4, 0] = np.inf, np.inf, np.nan, -0.0, 0.0
    return y, dy


@every_map
@every_dtype
def test_lanes_of_one_value(name, dtype):
    """In vectors of them, past the caches too and from any place on, with temperatures or without."""
    for count in (9, 1003, 1_100_003 if dtype == np.float32 else 70_001):
        y, dy = edges(name, dtype, count, 1)
        assert_right(name, y[5:200], dy[5:200])
        heat = np.linspace(0.5, 2, count)[:, None]
        for how, others in (({}, {}), ({"temperature": heat}, {"temperature": heat.T})):
            rows = WAYS_BACK[name](in_strides(y), in_strides(dy), **how)
            assert same_bits(WAYS_BACK[name](y, dy, **how), np.ascontiguousarray(rows))
            assert same_bits(WAYS_BACK[name](y.T, dy.T, 0, **others).T.copy(), np.ascontiguousarray(rows))
            room = np.full(count + 5, 77, dtype)
            WAYS_BACK[name](y, dy, out=room[3:-2, None], **how)
            assert same_bits(room[3:-2, None].copy(), np.ascontiguousarray(rows))
            assert (room[:3] == 77).all() and (room[-2:] == 77).all()


@every_map
@every_dtype
def test_lanes_with_few_neighbours(name, dtype):
    """Whole vectors of them and the last of all, with temperatures or without."""
    for outer, n, inner in ((5, 1, 3), (7, 2, 2), (1, 7, 5), (40, 8, 7), (3, 9, 4), (11, 65, 3), (2, 200, 6)):
        y, dy = edges(name, dtype, outer * inner, n)
        lanes = [np.ascontiguousarray(a.reshape(outer, inner, n).transpose(0, 2, 1)) for a in (y, dy)]
        heat = np.linspace(0.5, 2, outer * inner)
        for how, others in (
            ({}, {}),
            ({"temperature": heat[:, None]}, {"temperature": heat.reshape(outer, 1, inner)}),
        ):
            rows = WAYS_BACK[name](in_strides(y), in_strides(dy), **how)
            found = WAYS_BACK[name](*lanes, 1, **others)
            assert same_bits(np.ascontiguousarray(found.transpose(0, 2, 1).reshape(outer * inner, n)), rows.copy())


@every_map
@every_float
@pytest.mark.parametrize("inner", [1, 2])
def test_long_lanes_that_threads_share(name, dtype, inner, monkeypatch, nobody_awake):
    """Of values side by side and not; where a sum is no number, or y says that a cotangent is nothing, too."""
    n, found, run = 300_001, [], sharing._long

    def recorded(*kinds):
        found.append(kinds)
        return run(*kinds)

    monkeypatch.setattr(sharing, "_long", recorded)
    y, dy = edges(name, dtype, 6, n)
    for i in range(0, 6, inner):
        given, other = (np.ascontiguousarray(a[i : i + inner].T) for a in (y, dy))
        results = []
        for many in (1, 2):
            monkeypatch.setattr(threads, "in_use", lambda many=many: many)
            vjp_sweeps._carrier.cache_clear()
            results.append(WAYS_BACK[name](given, other, 0))
            assert bool(found) == (many == 2)
        found.clear()
        assert same_bits(*results), i
    vjp_sweeps._carrier.cache_clear()
    assert (results[0][y[4:].T[:, -inner:] == GONE[name]] == 0).all()


@every_map
@every_float
def test_lanes_of_many_blocks(name, dtype):
    """Shared or not, as rows, columns and in strides, with a sum that is no number or that is: the same bits."""
    for n in (BLOCK, BLOCK + 1, 3 * BLOCK - 1, 80_000):
        y, dy = forward(name, (9, n), dtype, 1, n), cotangent((9, n), dtype)
        dy[2, n // 2], dy[3, 5] = np.inf, np.nan
        rows = WAYS_BACK[name](y, dy)
        assert_close(rows[4:7], EXACT_WAYS_BACK[name](y[4:7], dy[4:7]))
        assert same_bits(WAYS_BACK[name](y.T.copy(), dy.T.copy(), 0).T.copy(), rows)
        for i, row in enumerate(rows):
            assert same_bits(WAYS_BACK[name](y[i], dy[i]), row)
            for few in (y.T[:, i : i + 1], np.repeat(y[i], 2)[::2, None]):
                assert same_bits(WAYS_BACK[name](few, dy[i][:, None], 0).ravel(), row)
