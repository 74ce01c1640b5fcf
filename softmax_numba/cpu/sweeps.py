"""The compiled sweeps: an operation, a geometry and a dtype become one body of machine code, and threads share it out.

A body takes ``(x, mask, temperature, out)`` as arrays of shape (outer, length, inner), whatever their strides; ``mask``
and ``temperature`` (outer, inner; float64) may be None, which is another body without a trace of them. What calls it,
in one thread or many (``sharing.py``), gets its address: so a body is compiled once however it is called, and the
callers, which are the same for all operations and sweeps, once for all of them. Numba would compile a body anew into
each of its callers.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import types

from softmax_numba.cpu.blocks import blocks, long_lanes
from softmax_numba.cpu.columns import columns
from softmax_numba.cpu.compiled import address_of_body, once
from softmax_numba.cpu.deep import deep_columns
from softmax_numba.cpu.lane import Operation
from softmax_numba.cpu.middle import middle_columns
from softmax_numba.cpu.narrow import narrow_lanes
from softmax_numba.cpu.plan import (
    BLOCKS,
    LONG,
    SWEEPS,
    Plan,
    is_shared_by_crew,
    most_shares,
    units_of,
    work_of,
)
from softmax_numba.cpu.rows import rows
from softmax_numba.cpu.shallow import shallow_columns
from softmax_numba.cpu.sharing import Work, carrier
from softmax_numba.cpu.short import short_rows
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.single import single_values
from softmax_numba.cpu.tiny import tiny_rows
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
    "tiny": tiny_rows,
    "blocks": blocks,
    "columns": columns,
    "deep": deep_columns,
    "shallow": shallow_columns,
    "middle": middle_columns,
    "narrow": narrow_lanes,
    "long": long_lanes,
    "single": single_values,
}


@once
def body_of(operation: Operation, sweep: str, arrays: Arrays) -> int:
    """The address of a sweep's machine code."""
    body = _BUILDERS[sweep](operation, arrays.compute.type)
    signature = (*arrays.types, *bounds_of(sweep, COMPUTES_IN[arrays.storage]))
    return address_of_body(body, f"{operation.name}-{sweep}", signature)


def bounds_of(sweep: str, compute: types.Type) -> tuple[types.Type, ...]:
    """Of which types is what a sweep's body takes beside arrays."""
    if sweep != "long":
        return types.intp, types.intp, types.boolean
    notes = [types.Array(types.float64, n, "C") for n in (2, 1)]
    return (types.intp,) * 4 + (types.Array(compute, 2, "C"), *notes, types.intp, types.intp, types.boolean)


def run(operation: Operation, plan: Plan, storage: str, x, mask, temperature, out) -> None:
    """Carries out a plan on arrays of shape (outer, length, inner); ``storage`` names the dtype that they hold."""
    _carrier(operation, plan, storage, x.shape, mask is not None, temperature is not None)(x, mask, temperature, out)


@functools.lru_cache(maxsize=1024)  # what follows from these arguments costs as much as a small call
def _carrier(
    operation: Operation, plan: Plan, storage: str, shape: tuple[int, int, int], masked: bool, tempered: bool
) -> Callable[..., None]:
    arrays = Arrays(storage_of(storage), masked, tempered, operation.parts)
    sweep, (outer, length, inner), itemsize = SWEEPS.index(plan.sweep), shape, dtype_of(storage).itemsize
    past_cache = plan.past_cache
    logarithms = length > 1 and not operation.maps_exponentials
    work = work_of(outer * length * inner, outer * inner, itemsize, logarithms)
    most = most_shares(sweep, outer, length, inner, itemsize, operation.one_number, 2)
    if plan.across and plan.shares > 1:
        most = plan.shares

    def work_for(sweep: int, shares: int) -> Work:
        units = units_of(sweep, outer, length, inner, itemsize)
        return Work(lambda: body_of(operation, SWEEPS[sweep], arrays), units, shares, sweep == LONG)

    # In one thread a long lane is a row like any other.
    alone, by_layer, by_crew = work_for(BLOCKS if sweep == LONG else sweep, 1), None, None
    if plan.shares > 1:
        by_layer = work_for(sweep, plan.shares)
    # The crew are two at least.
    if is_shared_by_crew(outer * inner, length, itemsize, 2):
        by_crew = work_for(LONG, units_of(LONG, outer, length, inner, itemsize))
    elif most > 1:
        by_crew = work_for(sweep, most)
    carry = carrier(arrays.types, COMPUTES_IN[arrays.storage], work, past_cache, alone, by_layer, by_crew)
    return _turned(carry) if plan.turned else carry


def _turned(call: Callable[..., None]) -> Callable[..., None]:
    """For the sweeps along short rows: x (outer, length, 1) as (1, length, outer)."""

    def turned(x, mask, temperature, out):
        heat = None if temperature is None else temperature.T
        call(x.transpose(2, 1, 0), mask, heat, out.transpose(2, 1, 0))

    return turned


# What a door says: nothing was done, or done.
REFUSED, DONE = range(2)
