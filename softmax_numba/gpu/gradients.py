"""softmax_vjp and log_softmax_vjp of arrays on a GPU, as ``softmax_numba.gradients``."""

from typing import Any

from softmax_numba.dtypes import compute_name
from softmax_numba.gpu import arrays, kernels
from softmax_numba.gpu.arrays import GpuArray
from softmax_numba.gpu.calls import (
    KINDS,
    Room,
    checked_heat,
    checked_out,
    may_write,
    result_of,
    same_device,
    transposed,
)
from softmax_numba.gpu.exponential import scale_of
from softmax_numba.gpu.geometry import lanes as lanes_of
from softmax_numba.lanes import lane_shape, reduced_axes, split


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
        _sweep(name, given, axes, cotangent, heat, filled, room)
        if filled is not answer:
            kernels.copy(filled, answer, room.place)
    if target is not None and answer is not target:
        kernels.copy(answer, target, room.place)
    return made if target is None else out


def _sweep(
    name: str,
    y: GpuArray,
    axes: tuple[int, ...],
    dy: GpuArray,
    heat: GpuArray | float | None,
    answer: GpuArray,
    room: Room,
) -> None:
    """Runs the kernels; what three strides an array cannot tell is copied."""
    given = [y, answer, dy] + ([heat.broadcast(y.shape)] if isinstance(heat, GpuArray) else [])
    lanes = lanes_of(y.shape, axes, split(y, axes).order, [array.strides for array in given])
    if lanes is None:
        first = [a for a in range(y.ndim) if a not in axes]
        places = (*first, *axes)
        y, dy = (room.copied(transposed(array, places), array.name) for array in (y, dy))
        fresh = room.new(y.shape, answer.name)
        heat = room.copied(transposed(heat, places), heat.name) if isinstance(heat, GpuArray) else heat
        _sweep(name, y, tuple(range(len(first), y.ndim)), dy, heat, fresh, room)
        kernels.copy(fresh, transposed(answer, places), room.place)
        return
    kind = KINDS[compute_name(y.name, y.name)]
    scale = scale_of(heat if isinstance(heat, float) else 1.0, kind)
    kernels.backward(name, lanes, y, answer, dy, heat if isinstance(heat, GpuArray) else None, scale, room)
