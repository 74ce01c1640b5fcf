"""From a caller's arguments on a GPU to kernels and back, as ``softmax_numba.calls``; nothing waits for the device."""

import functools
import math
from typing import Any

import numpy as np

from softmax_numba import interop
from softmax_numba.arguments import checked_temperature
from softmax_numba.dtypes import compute_name, result_name
from softmax_numba.gpu import arrays, kernels
from softmax_numba.gpu.arrays import GpuArray, Library, contiguous
from softmax_numba.gpu.lane import OPERATIONS, Operation
from softmax_numba.gpu.launch import Place
from softmax_numba.gpu.walk import Given, walk
from softmax_numba.lanes import lane_shape, reduced_axes

_BY_NAME = {operation.name: operation for operation in OPERATIONS}
_SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "bool": 1}


class Room:
    """Where a call's arrays lie and where more come from; what is made lives until the call's work is queued.

    An array of its library is safe to let go then: libraries that reuse memory do so in the order of the stream.
    """

    def __init__(self, array: GpuArray, maker: Library) -> None:
        self.place = Place(array.device, maker.stream)
        self.maker = maker
        self.made: list[Any] = []

    def new(self, shape: tuple[int, ...], name: str) -> GpuArray:
        """A fresh contiguous array."""
        whole = self.maker.empty(shape, "uint8" if name == "bool" else name)
        self.made.append(whole)
        return arrays.take(whole, "room")._replace(name=name, shape=shape, strides=contiguous(shape, _SIZES[name]))

    def copied(self, array: GpuArray, name: str) -> GpuArray:
        """``array`` in another dtype or another order: C-ordered."""
        target = self.new(array.shape, name)
        kernels.copy(array, target, self.place)
        return target


def general(
    name: str,
    x: Any,
    axis: Any,
    where: Any,
    temperature: Any,
    dtype: Any,
    out: Any,
    keepdims: bool = False,
) -> Any:
    """softmax, log_softmax or logsumexp for any arguments that the public functions take, x on a GPU."""
    operation = _BY_NAME[name]
    values = arrays.take(x, "x")
    result = result_of(values, dtype)
    axes = reduced_axes(axis, values.ndim)
    shape = values.shape
    if operation.one_number:
        shape = tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes)
    room = Room(values, arrays.library(x, values))
    target = None if out is None else checked_out(out, shape, result, values.device)
    mask = None if where is None else _mask(where, values, room)
    heat = None if temperature is None else checked_heat(temperature, lane_shape(values.shape, axes), values, room)
    answer, made = target, out
    if target is None or not may_write(values, target, operation.one_number):
        made = room.maker.empty(shape, result)
        answer = arrays.take(made, "out")
    elif mask is not None and mask.overlaps(target):
        mask = room.copied(mask, "bool")
    if answer is None:
        raise RuntimeError("no place for the result")
    if answer.size:
        _compute(operation, values, axes, mask, heat, result, answer, room)
    if target is not None and answer is not target:
        kernels.copy(answer, target, room.place)
    return made if target is None else out


def result_of(values: GpuArray, dtype: Any) -> str:
    """The name of the result's dtype."""
    if values.name == "bfloat16":
        return "bfloat16" if dtype is None else result_name(np.dtype(np.float32), dtype, "x")
    return result_name(np.dtype(values.name), dtype, "x")


def checked_out(out: Any, shape: tuple[int, ...], name: str, device: int) -> GpuArray:
    """The array behind ``out``, which must have the result's shape and dtype, be writable and on the same device."""
    target = arrays.take(out, "out")
    if target.shape != shape:
        raise ValueError(f"out has shape {target.shape}; the result has shape {shape}")
    if target.name != name:
        raise TypeError(f"out has dtype {target.name}; the result has dtype {name}")
    if not target.writable:
        raise ValueError(f"out is read-only (shape {target.shape}, dtype {target.name}); it must be writable")
    same_device(device, "out", target)
    return target


def same_device(device: int, name: str, array: GpuArray) -> None:
    if array.device != device:
        raise ValueError(
            f"all arrays of a call must be on one device; x is on GPU {device}, {name} on GPU {array.device}"
        )


def may_write(values: GpuArray, target: GpuArray, one_number: bool) -> bool:
    """Whether kernels may write to ``target`` while they read ``values``: no overlap, or the same places."""
    if any(n > 1 and s == 0 for n, s in zip(target.shape, target.strides, strict=True)):
        return False
    if not values.overlaps(target):
        return True
    same = (values.name, values.strides, values.address) == (target.name, target.strides, target.address)
    return same and not one_number


def _mask(where: Any, values: GpuArray, room: Room) -> GpuArray:
    mask = _on_device(where, "where", np.bool_, values, room)
    if mask.name != "bool":
        raise TypeError(f"where has dtype {mask.name}; it must be bool")
    try:
        return mask.broadcast(values.shape)
    except ValueError:
        raise ValueError(f"where has shape {mask.shape}, which cannot be broadcast to x's {values.shape}") from None


def checked_heat(temperature: Any, lanes: tuple[int, ...], values: GpuArray, room: Room) -> GpuArray | float | None:
    """A number, one for each lane on the device, or None where all are 1."""
    if interop.device(temperature) is None:
        checked = checked_temperature(temperature, lanes)  # numbers and lists
        if checked is None or checked.ndim == 0:
            return None if checked is None else float(checked)
    elif isinstance(temperature, np.generic):
        checked = checked_temperature(temperature, lanes)
        return None if checked is None else float(checked)
    heat = _on_device(temperature, "temperature", np.float64, values, room)
    try:
        return heat.broadcast(lanes)
    except ValueError:
        raise ValueError(
            f"temperature has shape {heat.shape}, which cannot be broadcast to the lanes' shape {lanes}"
        ) from None


def apart(heat: GpuArray | float | None) -> tuple[float, GpuArray | None]:
    """The number for all lanes and the array of one for each."""
    if isinstance(heat, GpuArray):
        return 1.0, heat
    return (1.0 if heat is None else heat), None


def _on_device(value: Any, name: str, dtype: Any, values: GpuArray, room: Room) -> GpuArray:
    """An array on x's device; what lies on none (a list) is put there."""
    if interop.device(value) is not None:
        array = arrays.take(value, name)
        same_device(values.device, name, array)
        return array
    given = np.ascontiguousarray(value)
    if dtype is np.float64:
        given = given.astype(dtype)
    if given.dtype != dtype:
        raise TypeError(f"{name} has dtype {given.dtype}; it must be {np.dtype(dtype).name}")
    target = room.new(given.shape, given.dtype.name)
    kernels.upload(given, target, room.place)
    return target


def _compute(
    operation: Operation,
    values: GpuArray,
    axes: tuple[int, ...],
    mask: GpuArray | None,
    heat: GpuArray | float | None,
    result: str,
    answer: GpuArray,
    room: Room,
) -> None:
    """Fills ``answer`` from arrays of any strides."""
    if not values.size:
        kernels.fill(answer, -math.inf, room.place)
        return
    given = values.name
    compute = compute_name(given, result)
    if isinstance(heat, float) and compute == "float32" and not 1e-30 < heat < 1e30:
        compute = "float64"  # T ln 2 in two float32 parts would leave the normal numbers
    storage = result if given == result and compute_name(result, result) == compute else compute
    if given != storage:
        values = room.copied(values, storage)
    kept = answer
    if operation.one_number and answer.ndim != values.ndim:  # the reduced axes kept, with length 1
        places = iter(zip(answer.shape, answer.strides, strict=True))
        both = [(1, 0) if i in axes else next(places) for i in range(values.ndim)]
        kept = answer._replace(shape=tuple(n for n, _ in both), strides=tuple(s for _, s in both))
    room_for_it = kept if result == storage else room.new(kept.shape, storage)
    temperature, heats = apart(heat)
    run = functools.partial(kernels.sweep, operation)
    walk(run, Given(values, room_for_it, mask, heats), axes, temperature, room)
    if room_for_it is not kept:
        kernels.copy(room_for_it, kept, room.place)
