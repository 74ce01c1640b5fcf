"""softmax_vjp and log_softmax_vjp."""

import math
from collections.abc import Callable
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
from softmax_numba.calls import MOST_TRIES, no_door, plain
from softmax_numba.cpu import entering, vjp_door, vjp_sweeps
from softmax_numba.cpu.sweeps import DONE
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP, SOFTMAX_VJP, Backward
from softmax_numba.dtypes import compute_name, dtype_of, for_kernel, result_name, with_own_dtype
from softmax_numba.lanes import as_lanes, in_c_order, lane_numbers, lane_shape, reduced_axes, split, write_back

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
        Exactly 0 where y is, whatever dy is there (inf, NaN, and up to half the type's largest number): masked-out
        entries and lanes have no gradient.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`; if the shapes of y and dy differ.

    Notes
    -----
    The computation is at least as wide as y and dy; the sum has twice the precision of its terms, so that the result
    is within 8 ULP of the largest term, for cotangents of up to half the type's largest number. (Of 16-bit values four
    products at a time are added in float32.) For such cotangents, the same bits for any layout and number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import softmax, softmax_vjp
    >>> y = softmax(np.log([[1.0, 3.0]]))
    >>> softmax_vjp(y, np.array([[1.0, 0.0]]))
    array([[ 0.1875, -0.1875]])
    """
    if type(temperature) is float and temperature == 1.0:
        result = _small_softmax_vjp(y, dy, axis, out)
        if result is not None:
            return result
    return _vjp(SOFTMAX_VJP, y, dy, axis, temperature, out)


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
    if type(temperature) is float and temperature == 1.0:
        result = _small_log_softmax_vjp(y, dy, axis, out)
        if result is not None:
            return result
    return _vjp(LOG_SOFTMAX_VJP, y, dy, axis, temperature, out)


def _short_way(backward: Backward) -> Callable[[Any, Any, Any, Any], np.ndarray | None]:
    """``call(y, dy, axis, out)``: the result for plain arrays along one axis; None, and nothing done, for everything
    else. As :func:`softmax_numba.calls.short_way` is for the operations."""
    ndarray, empty_like = np.ndarray, np.empty_like
    done, many_values = DONE, entering.LARGE
    door_for = entering.doors_by_dtype(lambda name: vjp_door.vjp_door(backward, name), vjp_door.ENTRY)
    last: tuple[Callable[..., int], np.ndarray | None] = no_door, None

    def call(y: Any, dy: Any, axis: Any, out: Any) -> np.ndarray | None:
        nonlocal last
        if type(y) is not ndarray or type(dy) is not ndarray:
            return None
        fresh = out is None
        if fresh:
            if y.nbytes >= pages.LEAST_BYTES:
                return large(y, dy, axis, out)
            out = empty_like(y)
        enter, numbers = way = last
        for _ in range(MOST_TRIES):
            said = enter(y, dy, axis, out, numbers)
            if said == done:
                last = way
                return out
            if said == many_values:
                return large(y, dy, axis, out)
            if said < entering.MISSING:
                own = with_own_dtype(y), with_own_dtype(dy), with_own_dtype(out) if type(out) is ndarray else out
                if not (own[0] is y and own[1] is dy and own[2] is out):
                    found = call(*own[:2], axis, None if fresh else own[2])
                    return found if fresh or found is None else out
                if said != entering.OTHER:
                    return None
            asked = door_for(plain(y.dtype))
            if asked is None:
                return None
            if said >= entering.MISSING:
                asked.make(said - entering.MISSING)
            enter, numbers = way = asked.enter, asked.numbers
        return None

    def large(y: np.ndarray, dy: np.ndarray, axis: Any, out: Any) -> np.ndarray | None:
        """The same by a plan."""
        name, axes = plain(y.dtype), y.ndim
        if not name or dy.dtype != y.dtype or dy.shape != y.shape or type(axis) is not int or not -axes <= axis < axes:
            return None
        if not in_c_order((y, dy), ()) or not y.size:
            return None
        if out is None:
            out = pages.empty(y.shape, dtype_of(name))
        else:
            if type(out) is not ndarray or out.dtype != y.dtype or out.shape != y.shape or not out.flags.carray:
                return None
            if not ((out is y or may_write(y, out)) and (out is dy or may_write(dy, out))):
                return None
        length = y.shape[axis]
        shape = -1, length, math.prod(y.shape[axis:][1:]) if length > 1 else 1  # a lane of one value is a row anywhere
        lanes, cotangents, result = (for_kernel(a, name).reshape(shape) for a in (y, dy, out))
        vjp_sweeps.run(backward, (name, name), lanes, cotangents, None, result)
        return out

    return call


_small_softmax_vjp, _small_log_softmax_vjp = _short_way(SOFTMAX_VJP), _short_way(LOG_SOFTMAX_VJP)


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
