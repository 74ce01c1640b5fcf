"""From a caller's arguments to a kernel and back: checked, without a copy where strides allow."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softmax_numba import interop, pages
from softmax_numba.arguments import (
    checked_out,
    checked_temperature,
    in_float32,
    like,
    may_write,
    native,
    one_device,
    within_reach,
)
from softmax_numba.cpu import door, entering, sweeps, threads
from softmax_numba.cpu.lane import SOFTMAX, Operation
from softmax_numba.cpu.plan import PARALLEL_FROM, plan, plan_in_c_order
from softmax_numba.dtypes import FLOATS, compute_name, dtype_of, for_kernel, name_of, result_name, with_own_dtype
from softmax_numba.lanes import Split, as_lanes, lane_numbers, lane_shape, reduced_axes, split, write_back

# --- the short way ------------------------------------------------------------------

_LAST = -1  # an axis; CPython has one object for it


def plain(dtype: np.dtype) -> str:
    """The name of a float dtype in this machine's byte order; else none."""
    name = name_of(dtype)
    return name if name in FLOATS and dtype == dtype_of(name) else ""


# Of another dtype's door, then something is missing: the fold, a sweep, and one more where threads come and go.
MOST_TRIES = 5


def no_door(*arguments: Any) -> int:
    """What stands for the door of the last call before the first."""
    return entering.OTHER


def short_way(operation: Operation) -> Callable[[Any, Any, Any], np.ndarray | None]:
    """``call(x, axis, out)``: the result for plain arrays along one axis; None for everything else.

    A call on ten numbers is over in a microsecond, so nothing may stand here that such a call does not need: types,
    shapes and places are looked at in compiled code, by the door that the last call went through.
    """
    one_number, ndarray, empty, empty_like = operation.one_number, np.ndarray, np.empty, np.empty_like
    logarithms = not operation.maps_exponentials
    done, refused, other, many_values = sweeps.DONE, sweeps.REFUSED, entering.OTHER, entering.LARGE
    door_for = entering.doors_by_dtype(lambda name: door.door(operation, name), door.ENTRY)
    last: tuple[Callable[[Any, Any, Any, Any], int], np.ndarray | None] = no_door, None

    def call(x: Any, axis: Any, out: Any) -> np.ndarray | None:
        nonlocal last
        if type(x) is not ndarray:
            return None
        fresh = out is None
        if fresh:
            if x.nbytes >= pages.LEAST_BYTES:
                return large(x, axis, out)
            if not one_number:
                out = empty_like(x)
            elif axis is _LAST:
                out = empty(x.shape[:-1], x.dtype)
            elif type(axis) is int:
                out = empty(x.shape[:axis] + x.shape[axis:][1:], x.dtype)
            else:
                return None
        enter, numbers = way = last
        for _ in range(MOST_TRIES):
            said = enter(x, axis, out, numbers)
            if said == done:
                last = way
                return out[()] if fresh and one_number and not out.ndim else out
            if said == refused:
                return None
            if said == many_values:
                found = large(x, axis, out)
                return found[()] if fresh and one_number and found is not None and not found.ndim else found
            own = with_own_dtype(x)
            if own is not x:
                found = call(own, axis, None if fresh else with_own_dtype(out) if type(out) is ndarray else out)
                return found if fresh or found is None else out
            asked = door_for(plain(x.dtype))
            if asked is None:
                return None
            if said != other:
                asked.make(said - entering.MISSING)
            enter, numbers = way = asked.enter, asked.numbers
        return None

    def large(x: np.ndarray, axis: int, out: Any) -> np.ndarray | None:
        """The same by a plan."""
        dtype, shape = x.dtype, x.shape
        name = plain(dtype)
        if not name or type(axis) is not int or not -x.ndim <= axis < x.ndim:
            return None
        length = shape[axis]
        if not x.flags.c_contiguous or not x.size:
            return None
        before, after = shape[:axis], shape[axis:][1:]
        wanted = before + after if one_number else shape
        fresh = out is None
        if fresh:
            out = pages.empty(wanted, dtype_of(name))
            if length == 1:  # which the door takes, however many there are
                return call(x, axis, out)
        else:
            if type(out) is not ndarray or out.dtype != dtype or out.shape != wanted or not out.flags.carray:
                return None
            # Two arrays that own their memory share none; asking NumPy costs a microsecond.
            if not (out is x or (out.base is None and x.base is None) or not np.may_share_memory(x, out)):
                return None
        neighbours = math.prod(after)
        lanes = for_kernel(x, name).reshape(-1, length, neighbours)
        result = for_kernel(out, name).reshape(-1, 1 if one_number else length, neighbours)
        many = threads.in_use() if x.size >= PARALLEL_FROM else 1
        chosen = plan_in_c_order(*lanes.shape, lanes.itemsize, one_number, logarithms, many)
        sweeps.run(operation, chosen, name, lanes, None, None, result)
        return out[()] if fresh and not wanted else out

    return call


# --- the long way -------------------------------------------------------------------


_ONE = np.array(1.0)


def general(
    operation: Operation,
    x: Any,
    axis: Any,
    where: Any,
    temperature: Any,
    dtype: Any,
    out: Any,
    keepdims: bool = False,
) -> Any:
    """The result for any arguments that the public functions take."""
    one_device(x=x, where=where, temperature=temperature, out=out)
    on_gpu = interop.gpu(x, "calls")
    if on_gpu is not None:
        return on_gpu.general(operation.name, x, axis, where, temperature, dtype, out, keepdims)
    masked = isinstance(x, np.ma.MaskedArray)
    values, give_back = interop.take(interop.unmasked(x), "x")
    result = result_name(values.dtype, dtype, "x")
    axes = reduced_axes(axis, values.ndim)
    lanes = lane_shape(values.shape, axes)
    shape = values.shape
    if operation.one_number:
        shape = lanes if keepdims else tuple(n for i, n in enumerate(values.shape) if i not in axes)
    target = None if out is None else checked_out(out, shape, result)
    part = None if where is None else _mask(where, values.shape)
    if masked:
        shown = ~np.ma.getmaskarray(x)
        part = np.asarray(shown if part is None else part & shown)
    heat = checked_temperature(temperature, lanes)

    if target is not None:
        part = _apart(part, target)
        answer = target if may_write(values, target, operation.one_number) else np.empty(shape, target.dtype)
    else:
        answer = like(values, shape, result)
    in_place = answer.reshape(lanes) if operation.one_number and not keepdims else answer
    _compute(operation, values, axes, part, heat, result, in_place)
    if not np.may_share_memory(in_place, answer):
        answer[...] = in_place.reshape(shape)

    if target is not None:
        if answer is not target:
            target[...] = answer
        return out
    if masked and part is not None:
        hidden = ~part
        return np.ma.MaskedArray(answer, mask=hidden.all(axes, keepdims=keepdims) if operation.one_number else hidden)
    return interop.returned(answer, give_back)


def _mask(where: Any, shape: tuple[int, ...]) -> np.ndarray:
    mask = interop.take(where, "where").array
    if mask.dtype != np.bool_:
        raise TypeError(f"where has dtype {mask.dtype}; it must be bool")
    try:
        return np.broadcast_to(mask, shape)
    except ValueError:
        raise ValueError(f"where has shape {mask.shape}, which cannot be broadcast to x's {shape}") from None


def _apart(mask: np.ndarray | None, target: np.ndarray) -> np.ndarray | None:
    return mask.copy() if mask is not None and np.may_share_memory(mask, target) else mask


def _compute(
    operation: Operation,
    values: np.ndarray,
    axes: tuple[int, ...],
    mask: np.ndarray | None,
    heat: np.ndarray | None,
    result: str,
    answer: np.ndarray,
) -> None:
    """Fills ``answer`` (reduced axes kept) from native or foreign bytes, any strides."""
    given = name_of(values.dtype)
    if answer.size == 0:
        return
    if values.size == 0:
        answer[...] = -np.inf
        return
    compute = compute_name(given, result)
    if heat is not None and compute == "float32" and not in_float32(heat):
        compute = "float64"  # T ln 2 in two float32 parts would leave the normal numbers
    storage = result if given == result and compute_name(result, result) == compute else compute
    with np.errstate(all="ignore"):
        values = native(values, storage)
        if operation is SOFTMAX and all(values.shape[a] == 1 for a in axes):
            certain = np.where(np.isfinite(values), 1.0, np.nan)
            answer[...] = certain if mask is None else np.where(mask, certain, 0.0)
            return
        room = answer if answer.dtype == dtype_of(storage) else np.empty(answer.shape, dtype_of(storage))
        if heat is not None and compute == "float64":
            values, heat = within_reach(values, heat, axes, mask)
        _sweep(operation, split(values, axes), storage, values, mask, heat, room)
        if room is not answer:
            answer[...] = room


def _sweep(
    operation: Operation,
    how: Split,
    storage: str,
    values: np.ndarray,
    mask: np.ndarray | None,
    heat: np.ndarray | None,
    answer: np.ndarray,
) -> None:
    """Runs the kernel; what three axes cannot tell of any array's strides is copied."""
    if mask is not None:
        mask = as_lanes(mask, how)
        heat = _ONE if heat is None else heat
    if heat is not None:
        heat = lane_numbers(heat, how)
    x = for_kernel(as_lanes(values, how), storage)
    result = for_kernel(as_lanes(answer, how, operation.one_number), storage)
    _run(operation, storage, x, mask, heat, result)
    write_back(result, answer, how)


def _run(
    operation: Operation,
    storage: str,
    x: np.ndarray,
    mask: np.ndarray | None,
    heat: np.ndarray | None,
    result: np.ndarray,
) -> None:
    """Plans and runs the sweep over arrays of shape (outer, length, inner)."""
    outer, length, inner = x.shape
    chosen = plan(
        outer,
        length,
        inner,
        itemsize=x.itemsize,
        side_by_side=x.strides[1] == x.itemsize,
        one_number=operation.one_number,
        turnable=mask is None and (operation.one_number or result.strides[1] == result.itemsize),
        columnar=mask is None and x.strides[2] == x.itemsize and result.strides[2] == result.itemsize,
        logarithms=not operation.maps_exponentials,
        threads=threads.in_use() if x.size >= PARALLEL_FROM else 1,
    )
    sweeps.run(operation, chosen, storage, x, mask, heat, result)
