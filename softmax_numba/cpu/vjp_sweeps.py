"""The compiled ways back, shared out among threads."""

import functools
from collections.abc import Callable
from typing import Literal

import numpy as np
from numba import prange, types

from softmax_numba.cpu import crew, threads
from softmax_numba.cpu.arrays import apart, as_lanes, start_of
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.door import LARGE
from softmax_numba.cpu.jit import address_named, body_named, call_body, compiled, named
from softmax_numba.cpu.joining import ENDED, lead_unless_led, now, tell
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.plan import (
    CREW_FROM,
    FEWEST_COLUMNS,
    FEWEST_SHORT,
    PARALLEL_FROM,
    SHARES,
    column_shares,
    is_past_cache,
)
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.sweeps import DONE, REFUSED
from softmax_numba.cpu.threads import set_share_size, share_size
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.cpu.vjp import Backward
from softmax_numba.cpu.vjp_columns import vjp_columns
from softmax_numba.cpu.vjp_rows import vjp_rows
from softmax_numba.cpu.vjp_short import vjp_short
from softmax_numba.dtypes import dtype_of, storage_of


def _types(y: str, dy: str, tempered: bool) -> tuple[types.Type, ...]:
    given, other = (types.Array(storage_of(name), 3, "A", readonly=True) for name in (y, dy))
    temperature = types.Array(types.float64, 2, "A", readonly=True) if tempered else types.none
    return given, other, temperature, types.Array(storage_of(y), 3, "A")


# Rows of up to so many bytes in the compute dtype are written end to end. If results are streamed so are longer ones,
# up to those that stream their own: measured on a Zen 3 these gain 1.05x to 1.6x, and in the cache they would lose,
# 0.8x to 1x.
LONGEST_SHORT_BYTES = 256

Sweep = Literal["rows", "short", "columns"]
_BUILD = {"rows": vjp_rows, "short": vjp_short, "columns": vjp_columns}


def sweep_over_rows(rows: int, length: int, itemsize: int) -> Sweep:
    """Which sweep is taken over so many lanes that stand end to end."""
    row_bytes = length * max(itemsize, 4)
    if is_past_cache(rows * length * itemsize):
        return "short" if row_bytes < STREAMED_ROW_BYTES else "rows"
    return "short" if row_bytes <= LONGEST_SHORT_BYTES and rows >= FEWEST_SHORT else "rows"


@once
def _body(backward: Backward, sweep: Sweep, y: str, dy: str, tempered: bool) -> int:
    if dtype_of(y).itemsize == dtype_of(dy).itemsize == 2:
        backward = backward.narrow or backward
    body = _BUILD[sweep](backward, np.dtype(str(COMPUTES_IN[storage_of(y)])).type)
    signature = (*_types(y, dy, tempered), types.intp, types.intp, types.boolean)
    return address_of_body(body, body.__name__, signature)


@once
def _leader(y: str, dy: str, tempered: bool) -> Callable[..., bool]:
    return crew.leader(_types(y, dy, tempered))


@once
def _caller(y: str, dy: str, tempered: bool, parallel: bool) -> Callable:
    def vjp_serial(body, y, dy, temperature, out, units, shares, past_cache):
        call_body(body, y, dy, temperature, out, 0, units, past_cache)

    def vjp_parallel(body, y, dy, temperature, out, units, shares, past_cache):
        before = share_size()
        set_share_size(1)
        for k in prange(shares):
            call_body(body, y, dy, temperature, out, units * k // shares, units * (k + 1) // shares, past_cache)
        set_share_size(before)

    call = vjp_parallel if parallel else vjp_serial
    signature = (types.intp, *_types(y, dy, tempered), types.intp, types.intp, types.boolean)
    return compiled_for(compiled(call, call.__name__, parallel=parallel), call.__name__, signature)


@once
def door(backward: Backward, sweep: Sweep, storage: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray], int]:
    """A sweep over rows as ``enter(y, dy, out)`` for 2-D arrays of one dtype, in C order and not empty: in one thread
    or with the crew, if it is awake.

    REFUSED, and nothing done, where their shapes differ, or out overlaps another otherwise than in the same places;
    LARGE, and nothing done, where :func:`run_rows` may have more threads.
    """
    symbol = f"softmax_numba.{backward.name}.{sweep}.{storage}"
    named(symbol, _body(backward, sweep, storage, storage, False))
    named("softmax_numba.crew", crew.address())
    body, address, crew_numbers = body_named(symbol), address_named(symbol), address_named("softmax_numba.crew")
    itemsize, short = dtype_of(storage).itemsize, sweep == "short"

    def vjp_door(y, dy, out):
        if y.shape != dy.shape or y.shape != out.shape:
            return REFUSED
        to = address_of(start_of(out), 0)
        if not (to == address_of(start_of(y), 0) or apart(y, out)):
            return REFUSED
        if not (to == address_of(start_of(dy), 0) or apart(dy, out)):
            return REFUSED
        values, units, numbers = y.size, y.shape[0], crew_numbers()
        if short:
            units = vectors_across(units, itemsize)
        many, past_cache = crew.threads_for(numbers, values), is_past_cache(values * itemsize)
        if many == 0:
            return LARGE
        if many == 1 or units == 1:
            body(as_lanes(y), as_lanes(dy), None, as_lanes(out), 0, units, past_cache)
            if values >= CREW_FROM:
                tell(numbers, ENDED, now())
            return DONE
        given, shares = (as_lanes(y), as_lanes(dy), None, as_lanes(out)), crew.shares_of(units, values, many)
        done, failed = lead_unless_led(numbers, address(), given, units, shares, many - 1, past_cache)
        if failed:
            raise MemoryError("no memory for a buffer")
        return DONE if done else LARGE

    array = types.Array(storage_of(storage), 2, "C", readonly=True)
    name = f"{backward.name}_{sweep}_door"
    return compiled_for(compiled(vjp_door, name), name, (array, array, types.Array(array.dtype, 2, "C")))


@functools.lru_cache(maxsize=1024)  # a fifth of a small call
def door_for(backward: Backward, rows: int, length: int, storage: str) -> tuple[Callable[..., int], Sweep]:
    """The :func:`door` that is taken for so many rows, and its sweep."""
    sweep = sweep_over_rows(rows, length, dtype_of(storage).itemsize)
    return door(backward, sweep, storage), sweep


def run(
    backward: Backward,
    names: tuple[str, str],
    y: np.ndarray,
    dy: np.ndarray,
    temperature: np.ndarray | None,
    out: np.ndarray,
) -> None:
    """Fills ``out``; all arrays as kernels take them, (outer, length, inner), the temperature (outer, inner).

    ``names`` are the dtypes of y and dy, which are computed with in the same type.
    """
    outer, length, inner = y.shape
    in_columns = inner >= FEWEST_COLUMNS and all(a.strides[2] == a.itemsize for a in (y, dy, out))
    side_by_side = all(a.strides[1] == a.itemsize for a in (y, dy, out))
    if in_columns and not side_by_side:
        sweep = "columns"
    elif inner == 1 and side_by_side and all(a.strides[0] == length * a.itemsize for a in (y, dy, out)):
        sweep = sweep_over_rows(outer, length, y.itemsize)
    else:
        sweep = "rows"
    many = threads.in_use() if y.size >= PARALLEL_FROM else 1
    _carrier(backward, names, (outer, length, inner), sweep, temperature is not None, many)(y, dy, temperature, out)


def run_lanes(backward: Backward, storage: str, y: np.ndarray, dy: np.ndarray, out: np.ndarray) -> None:
    """The same for arrays (outer, length, inner) of one dtype in C order, without a temperature."""
    sweep = "columns" if y.shape[2] >= FEWEST_COLUMNS else "rows"
    many = threads.in_use() if y.size >= PARALLEL_FROM else 1
    _carrier(backward, (storage, storage), y.shape, sweep, False, many)(y, dy, None, out)


def run_rows(backward: Backward, sweep: Sweep, storage: str, y: np.ndarray, dy: np.ndarray, out: np.ndarray) -> None:
    """The same for what :func:`door` takes."""
    many = threads.in_use() if y.size >= PARALLEL_FROM else 1
    carry = _carrier(backward, (storage, storage), (*y.shape, 1), sweep, False, many)
    carry(y[:, :, None], dy[:, :, None], None, out[:, :, None])


@functools.lru_cache(maxsize=1024)  # what follows from these arguments costs as much as a small call
def _carrier(
    backward: Backward, names: tuple[str, str], shape: tuple[int, int, int], sweep: Sweep, tempered: bool, many: int
) -> Callable[..., None]:
    outer, length, inner = shape
    itemsize = dtype_of(names[0]).itemsize
    units, shares, values = outer * inner, SHARES * many, outer * length * inner
    past_cache = is_past_cache(values * itemsize)
    if sweep == "columns":
        units = outer * vectors_across(inner, itemsize)
        shares = column_shares(outer, units, many, not past_cache)
    elif sweep == "short":
        units = vectors_across(outer, itemsize)
    shares = min(units, shares) if many > 1 else 1
    most = shares if sweep == "columns" else units
    body = _body(backward, sweep, *names, tempered)

    def leader() -> Callable[..., bool]:
        return _leader(*names, tempered)

    def carry(*given: np.ndarray | None) -> None:
        if most > 1 and crew.together(lambda: body, leader, given, values, units, most, past_cache):
            return
        call = (body, *given, units, shares, past_cache)
        if shares == 1 or not threads.run(_caller(*names, tempered, True), *call):
            _caller(*names, tempered, False)(*call)
        crew.ended(values)

    return carry
