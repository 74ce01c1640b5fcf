"""From a caller's arguments to a kernel and back: checked, without a copy where strides allow."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from softmax_numba import interop, pages
from softmax_numba.arguments import checked_out, checked_temperature, like, may_write, one_device, within_reach
from softmax_numba.cpu import sweeps, threads
from softmax_numba.cpu.lane import BLOCK, SOFTMAX, Operation
from softmax_numba.cpu.plan import PARALLEL_FROM, plan
from softmax_numba.cpu.sweeps import SHORT
from softmax_numba.dtypes import compute_name, dtype_of, for_kernel, name_of, result_name
from softmax_numba.lanes import Split, as_lanes, lane_shape, reduced_axes, split

# --- the short way ------------------------------------------------------------------

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def short_way(operation: Operation) -> Callable[[Any, Any, Any], np.ndarray | None]:
    """``call(x, axis, out)``: the result for plain arrays along one axis; None for everything else.

    A call on ten numbers is over in a microsecond, so nothing may stand here that such a call does not need: Numba
    looks at the arrays' types anyway, and their shapes and places are compared in compiled code.
    """
    one_number, ndarray, float32, float64 = operation.one_number, np.ndarray, _FLOAT32, _FLOAT64
    kernel32: Any = None
    kernel64: Any = None
    lanes: dict[str, Any] = {}  # kernels for arrays of one axis

    def call(x: Any, axis: Any, out: Any) -> np.ndarray | None:
        nonlocal kernel32, kernel64
        if type(x) is not ndarray or type(axis) is not int:
            return None
        if axis != -1 and axis != x.ndim - 1:
            return inner(x, axis, out)
        dtype = x.dtype
        if dtype is float32:
            kernel, name = kernel32, "float32"
        elif dtype is float64:
            kernel, name = kernel64, "float64"
        elif dtype.itemsize == 2:
            return half(x, dtype, out)
        else:
            return None
        if x.size > BLOCK and (x.size >= PARALLEL_FROM or x.shape[-1] > BLOCK):
            return large(x, name, out, -1)
        if kernel is None:
            kernel = sweeps.small(operation, name)
            if dtype is float32:
                kernel32 = kernel
            else:
                kernel64 = kernel
        fresh = out is None
        if fresh:
            if not x.ndim:
                return None
            out = np.empty(x.shape[:-1] if one_number else x.shape, dtype)
        elif type(out) is not ndarray or out.dtype is not dtype:
            return None
        try:
            if x.ndim == 2:
                done = kernel(x, out)
            elif x.ndim == 1 and not one_number:
                if name not in lanes:
                    lanes[name] = sweeps.small(operation, name, "lane")
                done = lanes[name](x, out)
            else:
                done = kernel(*_two_dimensional(x, out, one_number))
            if done == SHORT:
                kernel = sweeps.small(operation, name, "short")
                done = kernel(x, out) if x.ndim == 2 else kernel(*_two_dimensional(x, out, one_number))
        except TypeError:  # out is read-only or has another number of dimensions: the long way says so
            return None
        if not done:
            return None
        return out[()] if fresh and not out.ndim else out

    def half(x: np.ndarray, dtype: np.dtype, out: Any) -> np.ndarray | None:
        """The same for 16-bit floats, which kernels know as integers."""
        name = name_of(dtype)
        if name not in ("float16", "bfloat16") or not dtype.isnative or not x.ndim:
            return None
        fresh, shape = out is None, x.shape[:-1] if one_number else x.shape
        if fresh:
            out = pages.empty(shape, dtype)
        elif type(out) is not np.ndarray or out.dtype != dtype:
            return None
        given, result = for_kernel(x, name), for_kernel(out, name)
        if x.size > BLOCK and (x.size >= PARALLEL_FROM or x.shape[-1] > BLOCK):
            if large(given, name, result, -1) is None:
                return None
        else:
            try:
                views = (given, result) if x.ndim == 2 else _two_dimensional(given, result, one_number)
                done = sweeps.small(operation, name)(*views)
                if done == SHORT:
                    done = sweeps.small(operation, name, "short")(*views)
            except TypeError:
                return None
            if not done:
                return None
        return out[()] if fresh and not out.ndim else out

    def inner(x: np.ndarray, axis: int, out: Any) -> np.ndarray | None:
        """The same along an axis that is not the last."""
        name = name_of(x.dtype)
        if name not in ("float32", "float64") or not x.dtype.isnative or not -x.ndim <= axis < x.ndim:
            return None
        return large(x, name, out, axis)

    def large(x: np.ndarray, name: str, out: Any, axis: int) -> np.ndarray | None:
        """The same by a plan."""
        shape = x.shape
        length = shape[axis]
        if not x.flags.c_contiguous or length < 2 or not x.size:
            return None
        before, after = shape[:axis], shape[axis:][1:]
        wanted = before + after if one_number else shape
        fresh = out is None
        if fresh:
            out = pages.empty(wanted, x.dtype)
        else:
            if type(out) is not ndarray or out.dtype is not x.dtype or out.shape != wanted or not out.flags.carray:
                return None
            # Two arrays that own their memory share none; asking NumPy costs a microsecond.
            if not (out is x or (out.base is None and x.base is None) or not np.may_share_memory(x, out)):
                return None
        neighbours = math.prod(after)
        lanes = x.reshape(-1, length, neighbours)
        _run(operation, name, lanes, None, None, out.reshape(-1, 1 if one_number else length, neighbours))
        return out[()] if fresh and not wanted else out

    return call


def _two_dimensional(x: np.ndarray, out: np.ndarray, one_number: bool) -> tuple[np.ndarray, np.ndarray]:
    """Both with their outer axes as one: views, or no arrays at all (TypeError) where a copy would be needed."""
    if x.ndim == 1:
        return x[None], out[None]
    if x.ndim == 0 or not x.flags.c_contiguous or not out.flags.c_contiguous or x.size == 0:
        raise TypeError("no views")
    length = x.shape[-1]
    if out.shape != (x.shape[:-1] if one_number else x.shape):
        raise TypeError("another shape")
    return x.reshape(-1, length), out.reshape(-1) if one_number else out.reshape(-1, length)


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
    values, give_back = interop.take(x, "x")
    result = result_name(values.dtype, dtype)
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
    heat = None if temperature is None else checked_temperature(temperature, lanes)

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
    if give_back is interop.same and answer.ndim == 0:
        return answer[()]
    return give_back(answer)


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
    if heat is not None and compute == "float32" and not 1e-30 < heat.min() <= heat.max() < 1e30:
        compute = "float64"  # T ln 2 in two float32 parts would leave the normal numbers
    storage = result if given == result and compute_name(result, result) == compute else compute
    with np.errstate(all="ignore"):
        if given != storage or not values.dtype.isnative or not values.flags.aligned:
            values = values.astype(dtype_of(storage))
        if operation is SOFTMAX and all(values.shape[a] == 1 for a in axes):
            certain = np.where(np.isfinite(values), 1.0, np.nan)
            answer[...] = certain if mask is None else np.where(mask, certain, 0.0)
            return
        room = answer if answer.dtype == dtype_of(storage) else np.empty(answer.shape, dtype_of(storage))
        if heat is not None and compute == "float64":
            values, heat = within_reach(values, heat)
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
    outer, _, inner = how.shape
    if mask is not None:
        mask = as_lanes(mask, how)
        heat = _ONE if heat is None else heat
    if heat is not None:
        heat = as_lanes(heat, how, one_number=True)[:, 0, :] if heat.ndim else np.broadcast_to(heat, (outer, inner))
    x = for_kernel(as_lanes(values, how), storage)
    result = for_kernel(as_lanes(answer, how, operation.one_number), storage)
    _run(operation, storage, x, mask, heat, result)
    if not np.may_share_memory(result, answer):
        ordered = answer.transpose(how.order)
        ordered[...] = result.view(answer.dtype).reshape(ordered.shape)


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
        threads=threads.in_use() if x.size >= PARALLEL_FROM else 1,
    )
    sweeps.run(operation, chosen, storage, x, mask, heat, result)
