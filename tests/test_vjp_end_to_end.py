"""Sweeps by their bodies: rows that stand end to end, in any place, cut up anyhow, and columns past the caches."""

import ml_dtypes
import numpy as np
import pytest
from grids import every_map, no_warnings
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit
from oracle import same_bits
from vjp_cases import GONE, WAYS_BACK, assert_right, cotangent, forward

from softmax_numba.cpu import vjp_sweeps
from softmax_numba.cpu.jit import call_body
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP, SOFTMAX_VJP
from softmax_numba.cpu.vjp_columns import of_whole_lines
from softmax_numba.dtypes import for_kernel

pytestmark = no_warnings

BACKWARDS = {"softmax": SOFTMAX_VJP, "log_softmax": LOG_SOFTMAX_VJP}
DTYPES = {name: np.dtype(getattr(ml_dtypes if name == "bfloat16" else np, name)) for name in ("float16", "bfloat16")}
DTYPES |= {name: np.dtype(name) for name in ("float32", "float64")}


@njit
def _carry_out(body, y, dy, temperature, out, first, last, past_cache):
    call_body(body, y, dy, temperature, out, first, last, past_cache)


def end_to_end(name, dtype, y, dy, heat, out, shares, past_cache):
    """The sweep over rows that stand end to end, in so many shares, the last one first."""
    body = vjp_sweeps.body_of(BACKWARDS[name], "short", vjp_sweeps.Arrays(dtype.name, dtype.name, heat is not None))
    lanes = [for_kernel(a, dtype.name)[:, :, None] for a in (y, dy, out)]
    units = -(-len(y) // (8 if dtype.itemsize == 8 else 16))
    for k in reversed(range(shares)):
        first, last = units * k // shares, units * (k + 1) // shares
        _carry_out(body, *lanes[:2], heat, lanes[2], first, last, past_cache)


def on_a_line(shape, dtype, shift):
    """An array that begins ``shift`` numbers after a cache line, and the room around it."""
    size = int(np.prod(shape))
    room = np.full(size + 200, 7, dtype)
    start = (-room.ctypes.data % 64) // room.itemsize + shift
    return room[start : start + size].reshape(shape), room


def apart(name, y, dy, heat):
    """The same of rows with room in between, which no tile takes."""
    y, dy = (np.pad(a, ((0, 0), (0, 1)))[:, :-1] for a in (y, dy))
    return WAYS_BACK[name](y, dy, **({} if heat is None else {"temperature": heat}))


@every_map
@pytest.mark.parametrize("dtype", DTYPES)
@given(
    length=st.integers(1, 70) | st.integers(71, 511),
    count=st.integers(1, 250),
    shares=st.integers(1, 4),
    shift=st.sampled_from([0, 1, 4, 15, 16, 31]),
    past_cache=st.booleans(),
    tempered=st.booleans(),
    in_place=st.sampled_from(["", "y", "dy"]),
    odd=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
@example(length=1, count=250, shares=1, shift=1, past_cache=True, tempered=False, in_place="", odd=2)
@example(length=12, count=250, shares=2, shift=4, past_cache=True, tempered=True, in_place="y", odd=1)
@example(length=64, count=250, shares=1, shift=31, past_cache=True, tempered=False, in_place="dy", odd=3)
@example(length=256, count=33, shares=1, shift=4, past_cache=True, tempered=True, in_place="", odd=0)
@example(length=511, count=33, shares=1, shift=15, past_cache=True, tempered=False, in_place="y", odd=1)
def test_any_rows_in_any_place(name, dtype, length, count, shares, shift, past_cache, tempered, in_place, odd):
    """Tiles whole and broken, and some in which a sum is no number, from any place of a cache line on."""
    dtype = DTYPES[dtype]
    y, dy = forward(name, (count, length), dtype, 1, length), cotangent((count, length), dtype, length)
    for row in range(0, count, 1 + 97 // (odd + 1))[:odd]:
        y[row, length // 2] = GONE[name] if odd == 2 else y[row, length // 2]
        dy[row, length // 2] = (np.inf, np.nan, -np.inf)[row % 3]
    heat = np.random.default_rng(count).uniform(0.3, 3, (count, 1)) if tempered else None
    expected = apart(name, y, dy, heat)
    out, room = on_a_line((count, length), dtype, shift)
    if in_place:
        out[...] = y if in_place == "y" else dy
        y, dy = (out, dy) if in_place == "y" else (y, out)
    end_to_end(name, dtype, y, dy, heat, out, min(shares, -(-count // 16)), past_cache)
    assert same_bits(out, expected)
    out[...] = 7
    assert (room == 7).all()  # nothing else was written


@every_map
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_python_would_take_for_rows_alone(name, dtype):
    """The bits of a row by itself, and right, from every way in that there is for many rows."""
    dtype = DTYPES[dtype]
    longest = (STREAMED_ROW_BYTES - 1) // max(dtype.itemsize, 4)
    for count, length in ((63, 3), (64, 3), (700, 16), (700, 17), (2**22 // (longest * dtype.itemsize) + 1, longest)):
        y, dy = forward(name, (count, length), dtype), cotangent((count, length), dtype)
        found = WAYS_BACK[name](y, dy)
        for row in (0, 1, count // 2, count - 1):
            assert same_bits(found[row], WAYS_BACK[name](y[row], dy[row])), (count, length)
        assert_right(name, y[:50], dy[:50])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_of_16_bits_are_added_up_in_one_order(dtype):
    """Rows, columns and rows end to end add four products in float32, whose rounding depends on which four."""
    rng = np.random.default_rng(0)
    for length in (17, 64, 65, 300, 1000):
        size = (70, length)
        y, dy = rng.normal(size=size).astype(DTYPES[dtype]), rng.normal(size=size)
        dy[:, ::2] *= 2.0 ** rng.integers(0, 6, (70, 1))
        y[:, -1], dy[:, -1] = 1, -(y[:, :-1].astype(float) * dy[:, :-1]).sum(1)  # which cancels the others
        dy = dy.astype(DTYPES[dtype])
        found = WAYS_BACK["softmax"](y, dy)
        assert same_bits(found, WAYS_BACK["softmax"](y.T.copy(), dy.T.copy(), 0).T.copy())
        assert same_bits(found, apart("softmax", y, dy, None))


@every_map
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shift", [0, 1])
def test_columns_past_the_cache(name, dtype, shift):
    """Lines of whole cache lines are streamed from 256 bytes on, others if they are long: the same bits, and nothing
    around them is touched."""
    body = vjp_sweeps.body_of(BACKWARDS[name], "columns", vjp_sweeps.Arrays(dtype, dtype, False))
    for inner in (32, 64, 65, 96, 128, 1024, 1100):
        for length in (3, 20):
            shape = (2, length, inner)
            y, dy = forward(name, shape, DTYPES[dtype], 1), cotangent(shape, DTYPES[dtype])
            out, room = on_a_line(shape, DTYPES[dtype], shift)
            lanes = [for_kernel(a, dtype) for a in (y, dy, out)]
            _carry_out(body, *lanes[:2], None, lanes[2], 0, 2 * vectors_across(inner, out.itemsize), True)
            assert same_bits(out, WAYS_BACK[name](y, dy, 1)), shape
            out[:] = 7
            assert (room == 7).all(), shape


@njit
def _of_whole_lines(out):
    return of_whole_lines(out)


@pytest.mark.parametrize(
    ("dtype", "inner", "shift", "whole"),
    [
        ("float32", 64, 0, True),
        ("float32", 64, 16, True),
        ("float32", 64, 1, False),
        ("float32", 32, 0, False),
        ("float32", 65, 0, False),
        ("float32", 96, 0, False),
        ("float64", 32, 0, True),
        ("float64", 16, 0, False),
    ],
)
def test_which_lines_are_stored_as_whole_cache_lines(dtype, inner, shift, whole):
    out, _ = on_a_line((2, 3, inner), DTYPES[dtype], shift)
    assert _of_whole_lines(out) == whole
