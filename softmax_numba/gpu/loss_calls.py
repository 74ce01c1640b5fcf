"""cross_entropy and cross_entropy_and_grad of logits on a GPU, as ``softmax_numba.losses``; nothing waits."""

import functools
import math
from typing import Any

import numpy as np

from softmax_numba import interop
from softmax_numba.dtypes import FLOATS, compute_name
from softmax_numba.gpu import arrays, kernels, losses
from softmax_numba.gpu.arrays import GpuArray, contiguous
from softmax_numba.gpu.calls import Room, checked_out, may_write, result_of, same_device
from softmax_numba.gpu.geometry import lanes as lanes_of
from softmax_numba.gpu.losses import Wanted
from softmax_numba.gpu.walk import Given, walk
from softmax_numba.lanes import lane_shape, split
from softmax_numba.loss_calls import Options, class_axis, examined_options, examined_targets

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))


def loss(
    logits: Any,
    targets: Any,
    axis: Any,
    weight: Any,
    ignore_index: Any,
    how: tuple[Any, Any, Any, Any],
    gradient: bool,
    out: Any,
) -> tuple[Any, Any]:
    """The loss and the gradient (None if it is not asked for) for any arguments that the public functions take."""
    values = arrays.take(logits, "logits")
    result, axes = result_of(values, None), class_axis(axis, values.ndim)
    kept = tuple(n for i, n in enumerate(values.shape) if i not in axes)
    classes, lanes = math.prod(values.shape[a] for a in axes), math.prod(kept)
    on_device = interop.device(weight) == "gpu"
    options = examined_options(None if on_device else weight, classes, ignore_index, *how)
    room = Room(values, arrays.library(logits, values))
    storage = values.name if values.name in FLOATS else "float64"
    kind = np.dtype(compute_name(storage, storage))
    indices, shares = _targets(targets, kept, values, storage, options, room)
    weights = _weights(weight if on_device else options.weight, classes, kind, values, room)
    target = None if out is None else checked_out(out, values.shape, result, values.device)
    found = room.maker.empty(kept if options.reduction == "none" else (), result)
    answer, made = target, out
    if gradient and (target is None or not may_write(values, target, False)):
        made = room.maker.empty(values.shape, result)
        answer = arrays.take(made, "out")
    if not values.size:
        kernels.fill(arrays.take(found, "loss"), 0.0, room.place)
        return found, made
    wanted = Wanted(
        classes,
        options.ignored,
        options.reduction,
        1.0 - options.smoothing,
        options.smoothing / classes,
        options.z_loss,
        options.gamma,
        gradient,
        shares is not None,
        0 if weights is None else weights.address,
    )
    at = losses.scratch(lanes, kind, wanted, room)
    losses.prepare(indices, lanes, kind, wanted, at, room)
    given = values if values.name == storage else room.copied(values, storage)
    if shares is not None and answer is not None and shares.overlaps(answer):
        shares = room.copied(shares, shares.name)
    codes = losses.codes_of(indices, at)
    codes = codes._replace(
        shape=lane_shape(values.shape, axes),
        strides=tuple(0 if i in axes else codes.strides[i - sum(a < i for a in axes)] for i in range(values.ndim)),
    ).broadcast(values.shape)
    filled = given if answer is None else answer
    _walk(wanted, at, Given(given, filled, codes, shares), axes, room)
    losses.conclude(arrays.take(found, "loss"), lanes, kind, wanted, at, room)
    if answer is not None and target is not None and answer is not target:
        kernels.copy(answer, target, room.place)
    return found, made if target is None else out


def _walk(wanted: Wanted, at: losses.Scratch, given: Given, axes: tuple[int, ...], room: Room) -> None:
    """Sweeps the lanes; where three strides an array cannot tell them, those of copies with the classes inside."""
    run = functools.partial(losses.sweep, wanted, at)
    values, filled, codes, shares = given
    steps = [array.strides for array in given.present]
    if lanes_of(values.shape, axes, split(values, axes).order, steps) is not None:
        walk(run, given, axes, 1.0, room)
        return
    order = (*(a for a in range(values.ndim) if a not in axes), *axes)

    def turned(array: GpuArray) -> GpuArray:
        moved = tuple(array.shape[a] for a in order), tuple(array.strides[a] for a in order)
        return array._replace(shape=moved[0], strides=moved[1])

    fresh = room.copied(turned(values), values.name)
    wide = None if shares is None else room.copied(turned(shares), shares.name)
    last = tuple(range(values.ndim - len(axes), values.ndim))
    if codes is None:
        raise TypeError("losses need the codes of their targets")
    walk(run, Given(fresh, fresh, turned(codes), wide), last, 1.0, room)
    if wanted.gradient:
        kernels.copy(fresh, turned(filled), room.place)


# --- targets and weights ------------------------------------------------------------------


def _targets(
    targets: Any, kept: tuple[int, ...], values: GpuArray, storage: str, options: Options, room: Room
) -> tuple[GpuArray, GpuArray | None]:
    """Class indices, and probabilities if those are given: all indices then are 0.

    What lies on no device is looked at on the host, and put on the logits' device.
    """
    if interop.device(targets) != "gpu":
        checked = examined_targets(targets, kept, values.shape, storage, options).array
        if checked.dtype.kind == "i":
            return _uploaded(checked.reshape(kept), room), None
        shares = room.new(checked.shape, checked.dtype.name)
        kernels.upload(np.ascontiguousarray(checked), shares, room.place)
        return _all_zero(kept, room), shares
    given = arrays.take(targets, "targets")
    same_device(values.device, "targets", given)
    if given.name in _INTEGERS:
        if given.shape != kept:
            raise ValueError(
                f"targets that are class indices must have the shape {kept} of the logits without their classes, "
                f"not {given.shape}"
            )
        return given, None
    if given.name in FLOATS:
        if given.shape != values.shape:
            raise ValueError(
                f"targets of dtype {given.name} are probabilities and must have the shape {values.shape} of the "
                f"logits, not {given.shape}; class indices are integers, of shape {kept}"
            )
        compute = compute_name(storage, storage)
        readable = given.name in (storage, compute)
        return _all_zero(kept, room), given if readable else room.copied(given, compute)
    raise TypeError(f"targets must be integers (class indices) or floats (probabilities), not {given.name}")


def _uploaded(indices: np.ndarray, room: Room) -> GpuArray:
    indices = np.ascontiguousarray(indices, np.int64)
    # As float64: not every library makes arrays of every integer.
    target = room.new(indices.shape, "float64")._replace(name="int64")
    kernels.upload(indices, target, room.place)
    return target


def _all_zero(kept: tuple[int, ...], room: Room) -> GpuArray:
    return _uploaded(np.zeros((1,) * len(kept), np.int64), room).broadcast(kept)


def _weights(weight: Any, classes: int, kind: np.dtype, values: GpuArray, room: Room) -> GpuArray | None:
    """One number a class in the type that computes, on the logits' device."""
    if weight is None:
        return None
    if isinstance(weight, np.ndarray):
        target = room.new((classes,), kind.name)
        kernels.upload(weight.astype(kind), target, room.place)
        return target
    given = arrays.take(weight, "weight")
    same_device(values.device, "weight", given)
    if given.name not in FLOATS and given.name not in _INTEGERS and given.name != "bool":
        raise TypeError(f"weight has dtype {given.name}; it must hold numbers")
    if given.shape != (classes,):
        raise ValueError(f"weight has shape {given.shape}; it must have one number for each of the {classes} classes")
    contiguous_already = given.name == kind.name and given.strides == contiguous(given.shape, given.itemsize)
    return given if contiguous_already else room.copied(given, kind.name)
