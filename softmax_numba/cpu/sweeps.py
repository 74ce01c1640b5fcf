"""The compiled sweeps: an operation, a geometry and a dtype become one body of machine code, and threads share it out.

A body takes ``(x, mask, temperature, out)`` as arrays of shape (outer, length, inner), whatever their strides; ``mask``
and ``temperature`` (outer, inner; float64) may be None, which is another body without a trace of them. What calls it,
in one thread or many, gets its address: so a body is compiled once however it is called, and the callers, which are
the same for all operations and sweeps, once for all of them. Numba would compile a body anew into each of its callers.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange, types

from softmax_numba.cpu import crew, long, threads
from softmax_numba.cpu.blocks import HIDE, MAP, REDUCE, SETTLE, blocks, long_lanes
from softmax_numba.cpu.columns import columns
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.deep import deep_columns
from softmax_numba.cpu.jit import call_body, call_long_body, compiled
from softmax_numba.cpu.lane import BLOCK, NUMBERS, SUMS, Operation
from softmax_numba.cpu.plan import (
    BLOCKS,
    LONG,
    SWEEPS,
    Plan,
    can_be_shared,
    is_shared_by_crew,
    most_shares,
    units_of,
)
from softmax_numba.cpu.rows import rows
from softmax_numba.cpu.shallow import shallow_columns
from softmax_numba.cpu.short import short_rows
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.threads import set_share_size, share_size
from softmax_numba.cpu.woven import woven
from softmax_numba.dtypes import dtype_of, storage_of


class Arrays(NamedTuple):
    """Of which types the arrays of a call are."""

    storage: types.Type
    masked: bool
    tempered: bool
    parts: bool = False  # the result is what Operation.parts says

    @property
    def types(self) -> tuple[types.Type, ...]:
        result = COMPUTES_IN[self.storage] if self.parts else self.storage
        mask = types.Array(types.boolean, 3, "A", readonly=True) if self.masked else types.none
        temperature = types.Array(types.float64, 2, "A", readonly=True) if self.tempered else types.none
        values = types.Array(self.storage, 3, "A", readonly=True)
        return values, mask, temperature, types.Array(result, 3, "A")

    @property
    def compute(self) -> np.dtype:
        return np.dtype(str(COMPUTES_IN[self.storage]))


_BUILDERS = {
    "rows": rows,
    "woven": woven,
    "short": short_rows,
    "blocks": blocks,
    "columns": columns,
    "deep": deep_columns,
    "shallow": shallow_columns,
    "long": long_lanes,
}


@once
def body_of(operation: Operation, sweep: str, arrays: Arrays) -> int:
    """The address of a sweep's machine code."""
    build = _BUILDERS[sweep]
    bounds = (types.intp, types.intp)
    if sweep == "long":
        notes = [types.Array(types.float64, n, "C") for n in (2, 1)]
        numbers = types.Array(COMPUTES_IN[arrays.storage], 2, "C")
        bounds = (types.intp,) * 4 + (numbers, *notes, types.intp, types.intp)
    signature = (*arrays.types, *bounds, types.boolean)
    return address_of_body(build(operation, arrays.compute.type), f"{operation.name}-{sweep}", signature)


@once
def _serial(arrays: Arrays) -> Callable:
    """``call(body, x, mask, temperature, out, first, last, past_cache)``."""

    def serial(body, x, mask, temperature, out, first, last, past_cache):
        call_body(body, x, mask, temperature, out, first, last, past_cache)

    signature = (types.intp, *arrays.types, types.intp, types.intp, types.boolean)
    return compiled_for(compiled(serial, "serial"), "serial", signature)


@once
def _parallel(arrays: Arrays) -> Callable:
    """``call(body, x, mask, temperature, out, units, shares, past_cache)``."""

    def parallel(body, x, mask, temperature, out, units, shares, past_cache):
        before = share_size()
        set_share_size(1)
        for k in prange(shares):
            call_body(body, x, mask, temperature, out, units * k // shares, units * (k + 1) // shares, past_cache)
        set_share_size(before)

    signature = (types.intp, *arrays.types, types.intp, types.intp, types.boolean)
    return compiled_for(compiled(parallel, "parallel", parallel=True), "parallel", signature)


@once
def _long(arrays: Arrays) -> Callable:
    """``call(body, x, mask, temperature, out, shares, past_cache)`` for lanes that are each split over threads."""
    compute = arrays.compute.type

    def long(body, x, mask, heat, out, shares, past_cache):
        outer, length, inner = x.shape
        count = (length + BLOCK - 1) // BLOCK
        numbers, sums, results = np.empty((NUMBERS, count), compute), np.empty((SUMS, count)), np.empty(1)
        before = share_size()
        set_share_size(1)
        for o in range(outer):
            for j in range(inner):
                left = 0
                for k in prange(shares):
                    a, b = count * k // shares, count * (k + 1) // shares
                    left += call_long_body(
                        body, x, mask, heat, out, o, j, a, b, numbers, sums, results, 0, REDUCE, past_cache
                    )
                maps = call_long_body(
                    body, x, mask, heat, out, o, j, 0, count, numbers, sums, results, left, SETTLE, past_cache
                )
                if maps:
                    for k in prange(shares):
                        a, b = count * k // shares, count * (k + 1) // shares
                        call_long_body(body, x, mask, heat, out, o, j, a, b, numbers, sums, results, 0, MAP, past_cache)
                    call_long_body(
                        body, x, mask, heat, out, o, j, 0, count, numbers, sums, results, 0, HIDE, past_cache
                    )
        set_share_size(before)

    signature = (types.intp, *arrays.types, types.intp, types.boolean)
    return compiled_for(compiled(long, "long", parallel=True), "long", signature)


def run(operation: Operation, plan: Plan, storage: str, x, mask, temperature, out) -> None:
    """Carries out a plan on arrays of shape (outer, length, inner); ``storage`` names the dtype that they hold."""
    _carrier(operation, plan, storage, x.shape, mask is not None, temperature is not None)(x, mask, temperature, out)


@functools.lru_cache(maxsize=1024)  # what follows from these arguments costs as much as a small call
def _carrier(
    operation: Operation, plan: Plan, storage: str, shape: tuple[int, int, int], masked: bool, tempered: bool
) -> Callable[..., None]:
    arrays = Arrays(storage_of(storage), masked, tempered, operation.parts)
    sweep, (outer, length, inner), itemsize = SWEEPS.index(plan.sweep), shape, dtype_of(storage).itemsize
    values, past_cache = outer * length * inner, plan.past_cache
    # In one thread a long lane is a row like any other.
    alone = BLOCKS if sweep == LONG else sweep
    units = units_of(alone, outer, length, inner, itemsize)

    def serial(x, mask, temperature, out):
        body = body_of(operation, SWEEPS[alone], arrays)
        _serial(arrays)(body, x, mask, temperature, out, 0, units, past_cache)

    for_crew = crew.CREW_FROM <= values <= crew.MOST_VALUES
    crew_may = for_crew and can_be_shared(sweep, outer, length, inner, itemsize, operation.one_number)
    if plan.shares == 1 and not crew_may:
        return _turned(serial) if plan.sweep == "short" else serial

    body = body_of(operation, plan.sweep, arrays)
    parallel = serial
    if plan.shares > 1:
        parallel = _long(arrays) if sweep == LONG else _parallel(arrays)
    bounds = (plan.shares,) if sweep == LONG else (units, plan.shares)

    # What the crew does, of whom there are two at least.
    by_crew = LONG if is_shared_by_crew(outer * inner, length, itemsize, 2) else sweep
    theirs = units_of(by_crew, outer, length, inner, itemsize)
    most = most_shares(by_crew, outer, length, inner, itemsize, operation.one_number, 2)
    if plan.across and plan.shares > 1:
        most = plan.shares

    @functools.cache  # types are slow to make, and to look for
    def leader() -> Callable[..., bool]:
        if by_crew == LONG:
            return long.leader(arrays.types, COMPUTES_IN[arrays.storage])
        return crew.leader(arrays.types)

    def crews_body() -> int:
        return body_of(operation, SWEEPS[by_crew], arrays)

    def shared(x, mask, temperature, out):
        given = x, mask, temperature, out
        if not for_crew:
            crew.dismiss()
        elif crew_may and crew.together(crews_body, leader, given, values, theirs, most, past_cache):
            return
        if plan.shares == 1 or not threads.run(parallel, body, *given, *bounds, past_cache):
            serial(*given)
        if for_crew:
            crew.ended(values)

    return _turned(shared) if plan.sweep == "short" else shared


def _turned(call: Callable[..., None]) -> Callable[..., None]:
    """For the sweep along short rows: x (outer, length, 1) as (1, length, outer)."""

    def turned(x, mask, temperature, out):
        heat = None if temperature is None else temperature.T
        call(x.transpose(2, 1, 0), mask, heat, out.transpose(2, 1, 0))

    return turned


# What a small kernel says: nothing was done, or done.
REFUSED, DONE = range(2)
