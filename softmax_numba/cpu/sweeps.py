"""The compiled sweeps: an operation, a geometry and a dtype become one kernel, serial and split over threads.

Kernels take ``(x, mask, temperature, out)`` as arrays of shape (outer, length, inner), whatever their strides; ``mask``
and ``temperature`` (outer, inner; float64) may be None, which is another kernel without a trace of them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange, types

from softmax_numba.cpu import threads
from softmax_numba.cpu.access import apart
from softmax_numba.cpu.blocks import blocks, long_lanes
from softmax_numba.cpu.columns import columns, tiles_of
from softmax_numba.cpu.compiled import kept, once
from softmax_numba.cpu.lane import BLOCK, Operation
from softmax_numba.cpu.memory import as_lanes
from softmax_numba.cpu.plan import Plan
from softmax_numba.cpu.rows import rows
from softmax_numba.cpu.simd import COMPUTES_IN, compiled
from softmax_numba.cpu.threads import set_share_size, share_size
from softmax_numba.dtypes import dtype_of, storage_of


class _Kind(NamedTuple):
    """What a kernel is compiled for."""

    operation: Operation
    sweep: str
    storage: types.Type
    masked: bool
    tempered: bool


def _kept(function: Callable, kind: _Kind, parallel: bool) -> Callable:
    """The function compiled (or read from disk) for the one signature that its kind has."""
    values = types.Array(kind.storage, 3, "A", readonly=True)
    mask = types.Array(types.boolean, 3, "A", readonly=True) if kind.masked else types.none
    temperature = types.Array(types.float64, 2, "A", readonly=True) if kind.tempered else types.none
    bounds = (types.intp,) if parallel and kind.sweep == "long" else (types.intp, types.intp)
    signature = (values, mask, temperature, types.Array(kind.storage, 3, "A"), *bounds, types.boolean)
    name = f"{kind.operation.name}-{kind.sweep}" + ("-parallel" if parallel else "")
    dispatcher = kept(function, name)
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


@functools.cache
def _sweep(kind: _Kind) -> Callable:
    compute = np.dtype(str(COMPUTES_IN[kind.storage])).type
    build = {"rows": rows, "blocks": blocks, "columns": columns, "long": long_lanes}[kind.sweep]
    return build(kind.operation, compute)


@once
def _serial(kind: _Kind) -> Callable:
    if kind.sweep == "long":  # in one thread a row like any other
        return _serial(kind._replace(sweep="blocks"))
    return _kept(_sweep(kind), kind, False)


@once
def _parallel(kind: _Kind) -> Callable:
    sweep = _sweep(kind)
    if kind.sweep == "long":
        return _kept(sweep, kind, True)

    def shared(x, mask, temperature, out, units, shares, past_cache):
        before = share_size()
        set_share_size(1)
        for k in prange(shares):
            sweep(x, mask, temperature, out, units * k // shares, units * (k + 1) // shares, past_cache)
        set_share_size(before)

    return _kept(compiled(shared, f"{kind.operation.name}_{kind.sweep}_shared", parallel=True), kind, True)


def run(operation: Operation, plan: Plan, storage: str, x, mask, temperature, out) -> None:
    """Carries out a plan on arrays of shape (outer, length, inner); ``storage`` names the dtype that they hold."""
    _carrier(operation, plan, storage, x.shape, mask is not None, temperature is not None)(x, mask, temperature, out)


@functools.lru_cache(maxsize=1024)  # what follows from these arguments costs as much as a small call
def _carrier(
    operation: Operation, plan: Plan, storage: str, shape: tuple[int, int, int], masked: bool, tempered: bool
) -> Callable[..., None]:
    kind = _Kind(operation, plan.sweep, storage_of(storage), masked, tempered)
    outer, length, inner = shape
    columns_ = plan.sweep == "columns"
    units = outer * (tiles_of(outer, length, inner, dtype_of(storage).itemsize) if columns_ else inner)

    if plan.shares == 1:
        kernel = _serial(kind)
        return lambda x, mask, temperature, out: kernel(x, mask, temperature, out, 0, units, plan.past_cache)

    parallel = _parallel(kind)
    bounds = (plan.shares,) if plan.sweep == "long" else (units, plan.shares)

    def shared(x, mask, temperature, out):
        if not threads.run(parallel, x, mask, temperature, out, *bounds, plan.past_cache):
            _serial(kind)(x, mask, temperature, out, 0, units, plan.past_cache)

    return shared


@once
def small(operation: Operation, storage: str) -> Callable[[np.ndarray, np.ndarray], bool]:
    """The serial sweep over rows as ``kernel(x, out)`` for a 2-D x and lanes of 2 to ``BLOCK`` values.

    ``out`` has x's shape, or shape (lanes,) where the operation gives one number a lane. False, and nothing done, where
    that does not hold, or where the two overlap otherwise than in the same places.
    """
    kind = _Kind(operation, "rows", storage_of(storage), False, False)
    body, one_number = _sweep(kind), operation.one_number

    def rows_of(x, out):
        lanes, length = x.shape
        if not 2 <= length <= BLOCK or lanes == 0 or out.shape[0] != lanes:
            return False
        if one_number:
            if not apart(x, out):
                return False
        else:
            same = x.ctypes.data == out.ctypes.data and x.strides == out.strides
            if out.shape[1] != length or out.strides[1] == 0 or not (same or apart(x, out)):
                return False
        if out.strides[0] == 0 and lanes > 1:
            return False
        body(as_lanes(x), None, None, as_lanes(out), 0, lanes, False)
        return True

    kernel = kept(compiled(rows_of, f"{operation.name}_small"), f"{operation.name}-small")
    x = types.Array(kind.storage, 2, "A", readonly=True)
    kernel.compile((x, types.Array(kind.storage, 1 if one_number else 2, "A")))
    kernel.disable_compile()
    return kernel
