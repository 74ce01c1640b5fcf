"""softmax_vjp and log_softmax_vjp."""

import math
from typing import Any

import numpy as np

from softmax_numba import interop, pages
from softmax_numba.arguments import (
    checked_out,
    checked_temperature,
    cotangents_within_reach,
    filled,
    in_float32,
    like,
    may_write,
    native,
    one_device,
)
from softmax_numba.cpu import vjp_sweeps
from softmax_numba.cpu.door import LARGE
from softmax_numba.cpu.sweeps import REFUSED
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP, SOFTMAX_VJP, Backward
from softmax_numba.dtypes import compute_name, dtype_of, for_kernel, own_name, result_name, with_own_dtype
from softmax_numba.lanes import as_lanes, in_c_order, lane_numbers, lane_shape, reduced_axes, split, write_back

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)

__all__ = ["log_softmax_vjp", "softmax_vjp"]


def softmax_vjp(
    y: Any, dy: Any, axis: int | tuple[int, ...] | None = -1, *, temperature: Any = 1.0, out: Any = None
) -> Any:
    """The cotangent of x (its gradient) from that of y = softmax(x / T): y (dy - sum(y dy)) / T along an axis.

    Parameters
    ----------
    y : array_like
        What :func:`softmax` returned, by the same axis and temperature. Types as there.
    dy : array_like
        The cotangent of y, of y's shape.
    axis : int, tuple of ints or None, default -1
        As for :func:`softmax`.
    temperature : float or array_like, default 1.0
        As for :func:`softmax`.
    out : array, optional
        Where to put the result, of y's shape and dtype. May be y or dy, or overlap them in any way.

    Returns
    -------
    array of y's shape and dtype, from y's library (or ``out``)
        Exactly 0 where y is, whatever dy is there: masked-out entries and lanes have no gradient.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`; if the shapes of y and dy differ.

    Notes
    -----
    The computation is at least as wide as y and dy; the sum has twice the precision of its terms, so that the result
    is within 8 ULP of the largest term, for cotangents of up to half the type's largest number. (Of 16-bit values four
    products at a time are added in float32.) The same bits for any layout and number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import softmax, softmax_vjp
    >>> y = softmax(np.log([[1.0, 3.0]]))
    >>> softmax_vjp(y, np.array([[1.0, 0.0]]))
    array([[ 0.1875, -0.1875]])
    """
    result = _short_way(SOFTMAX_VJP, y, dy, axis, temperature, out)
    return _vjp(SOFTMAX_VJP, y, dy, axis, temperature, out) if result is None else result


def log_softmax_vjp(
    y: Any, dy: Any, axis: int | tuple[int, ...] | None = -1, *, temperature: Any = 1.0, out: Any = None
) -> Any:
    """The cotangent of x (its gradient) from that of y = log_softmax(x / T): (dy - exp(y) sum(dy)) / T along an axis.

    Parameters
    ----------
    y : array_like
        What :func:`log_softmax` returned, by the same axis and temperature. Types as there.
    dy, axis, temperature, out
        As for :func:`softmax_vjp`.

    Returns
    -------
    array of y's shape and dtype, from y's library (or ``out``)
        0 where y is -inf, and dy there counts for nothing: a masked-out entry stays -inf whatever x is.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax_vjp`.

    Notes
    -----
    As for :func:`softmax_vjp`, for cotangents whose sum is a number of the type.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import log_softmax, log_softmax_vjp
    >>> y = log_softmax(np.log([[1.0, 3.0]]))
    >>> log_softmax_vjp(y, np.array([[1.0, 0.0]]))
    array([[ 0.75, -0.75]])
    """
    result = _short_way(LOG_SOFTMAX_VJP, y, dy, axis, temperature, out)
    return _vjp(LOG_SOFTMAX_VJP, y, dy, axis, temperature, out) if result is None else result


def _short_way(backward: Backward, y: Any, dy: Any, axis: Any, temperature: Any, out: Any) -> np.ndarray | None:
    """The result for plain arrays of one dtype: rows, and other axes of arrays in C order; None, and nothing done, for
    everything else."""
    if type(y) is not np.ndarray or type(dy) is not np.ndarray or type(axis) is not int:
        return None
    dtype, axes = y.dtype, y.ndim
    if axis < 0:
        axis += axes
    if not 0 <= axis < axes or not y.size:
        return None
    if type(temperature) is not float or temperature != 1.0:
        return None
    storage = "float32" if dtype is _FLOAT32 else "float64" if dtype is _FLOAT64 else own_name(dtype)
    if storage is None or dy.dtype is not dtype:
        own, other = with_own_dtype(y), with_own_dtype(dy)
        if (own is y and other is dy) or own.dtype is not other.dtype:
            return None
        return _short_way(backward, own, other, axis, temperature, out)
    fresh = out is None
    if fresh:
        out = pages.empty(y.shape, dtype)
    elif type(out) is not np.ndarray:
        return None
    elif out.dtype is not dtype:
        own = with_own_dtype(out)
        found = None if own.dtype is not dtype else _short_way(backward, y, dy, axis, temperature, own)
        return None if found is None else out
    given = y, dy, out
    if axes != 2 or axis != 1:
        shape = y.shape
        if not (shape == dy.shape == out.shape and y.flags.c_contiguous and dy.flags.c_contiguous and out.flags.carray):
            return None
        inner = 1 if axis == axes - 1 else math.prod(shape[axis + 1 :])
        lanes = (-1, shape[axis]) if inner == 1 else (-1, shape[axis], inner)
        given = y.reshape(lanes), dy.reshape(lanes), out.reshape(lanes)
    if dtype.itemsize == 2:
        given = for_kernel(given[0], storage), for_kernel(given[1], storage), for_kernel(given[2], storage)
    if given[0].ndim == 3:
        if not (y.flags.aligned and dy.flags.aligned):
            return None
        if not (fresh or ((y is out or may_write(y, out)) and (dy is out or may_write(dy, out)))):
            return None
        vjp_sweeps.run_lanes(backward, storage, *given)
        return out
    enter, sweep = vjp_sweeps.door_for(backward, *given[0].shape, storage)
    try:
        said = enter(*given)
    except TypeError:  # other memory orders, a read-only out: the long way takes them or says so
        if in_c_order(given[:2], given[2:]):
            raise
        return None
    if said == LARGE:
        vjp_sweeps.run_rows(backward, sweep, storage, *given)
    return None if said == REFUSED else out


def _vjp(backward: Backward, y: Any, dy: Any, axis: Any, temperature: Any, out: Any) -> Any:
    one_device(y=y, dy=dy, temperature=temperature, out=out)
    on_gpu = interop.gpu(y, "gradients")
    if on_gpu is not None:
        return on_gpu.vjp(backward.name, y, dy, axis, temperature, out)
    if isinstance(y, np.ma.MaskedArray):  # masked-out entries have no gradient
        y = filled(y, 0.0 if backward is SOFTMAX_VJP else -np.inf)
    if isinstance(dy, np.ma.MaskedArray):
        dy = filled(dy, 0.0)
    values, give_back = interop.take(y, "y")
    others, _ = interop.take(dy, "dy")
    name = result_name(values.dtype, None, "y")
    other_name = result_name(others.dtype, None, "dy")
    if values.shape != others.shape:
        raise ValueError(f"y and dy must have one shape; got {values.shape} and {others.shape}")
    axes = reduced_axes(axis, values.ndim)
    heat = checked_temperature(temperature, lane_shape(values.shape, axes))
    target = None if out is None else checked_out(out, values.shape, name)
    compute = compute_name(name, other_name)
    if values.size and heat is not None and compute == "float32" and not in_float32(heat):
        compute = "float64"  # 1 / T would leave the normal numbers
    # Kernels read y and write the result in one type; narrow ones only if they compute in float32.
    storage = name if compute_name(name, name) == compute else compute
    other_storage = other_name if compute_name(other_name, other_name) == compute else compute
    if target is not None and may_write(values, target) and may_write(others, target):
        answer = target
    else:
        answer = like(values, values.shape, name)
    if values.size:
        with np.errstate(all="ignore"):
            given, other = native(values, storage), native(others, other_storage)
            room = answer if name == storage else np.empty(answer.shape, dtype_of(storage))
            how, missing = split(given, axes), None
            if heat is not None:
                if compute == "float64":
                    other, heat, missing = cotangents_within_reach(other, heat, axes)
                heat = lane_numbers(heat, how)
            result = for_kernel(as_lanes(room, how), storage)
            lanes = for_kernel(as_lanes(given, how), storage), for_kernel(as_lanes(other, how), other_storage)
            vjp_sweeps.run(backward, (storage, other_storage), *lanes, heat, result)
            write_back(result, room, how)
            if missing is not None:
                room *= missing
            if room is not answer:
                answer[...] = room
    if target is not None:
        if answer is not target:
            target[...] = answer
        return out
    return interop.returned(answer, give_back)
