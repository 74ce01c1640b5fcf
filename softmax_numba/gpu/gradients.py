"""softmax_vjp and log_softmax_vjp of arrays on a GPU, as ``softmax_numba.gradients``."""

import functools
from typing import Any

from softmax_numba.dtypes import compute_name
from softmax_numba.gpu import arrays, kernels
from softmax_numba.gpu.calls import (
    Room,
    apart,
    checked_heat,
    checked_out,
    may_write,
    result_of,
    same_device,
)
from softmax_numba.gpu.walk import Given, walk
from softmax_numba.lanes import lane_shape, reduced_axes


def vjp(name: str, y: Any, dy: Any, axis: Any, temperature: Any, out: Any) -> Any:
    """The cotangent of x for any arguments that the public functions take, y on a GPU."""
    values, others = arrays.take(y, "y"), arrays.take(dy, "dy")
    result, other = result_of(values, None), result_of(others, None)
    if values.shape != others.shape:
        raise ValueError(f"y and dy must have one shape; got {values.shape} and {others.shape}")
    same_device(values.device, "dy", others)
    axes = reduced_axes(axis, values.ndim)
    room = Room(values, arrays.library(y, values))
    heat = checked_heat(temperature, lane_shape(values.shape, axes), values, room)
    target = None if out is None else checked_out(out, values.shape, result, values.device)
    answer, made = target, out
    if target is None or not (may_write(values, target, False) and may_write(others, target, False)):
        made = room.maker.empty(values.shape, result)
        answer = arrays.take(made, "out")
    if answer is None:
        raise RuntimeError("no place for the result")
    if values.size:
        compute = compute_name(result, other)
        if isinstance(heat, float) and compute == "float32" and not 1e-30 < heat < 1e30:
            compute = "float64"  # 1 / T would leave the normal numbers
        # Kernels take one storage for both; a narrow one only if that is what both have.
        same = values.name == others.name == result and compute_name(result, result) == compute
        storage = result if same else compute
        given, cotangent = (
            array if array.name == storage else room.copied(array, storage) for array in (values, others)
        )
        filled = answer if result == storage else room.new(answer.shape, storage)
        number, heats = apart(heat)
        walk(functools.partial(kernels.backward, name), Given(given, filled, cotangent, heats), axes, number, room)
        if filled is not answer:
            kernels.copy(filled, answer, room.place)
    if target is not None and answer is not target:
        kernels.copy(answer, target, room.place)
    return made if target is None else out
