"""Plans carried out: which kernels run, with which numbers."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from softmax_numba.gpu import (
    columns,
    copies,
    launch,
    long,
    loss_columns,
    rows,
    temperatures,
    vjp,
    vjp_columns,
    vjp_long,
)
from softmax_numba.gpu.arguments import Arguments
from softmax_numba.gpu.arrays import GpuArray, contiguous
from softmax_numba.gpu.column_parts import ColumnShape
from softmax_numba.gpu.copies import Copy
from softmax_numba.gpu.exponential import Scale
from softmax_numba.gpu.geometry import Lanes, joined
from softmax_numba.gpu.held import Shape
from softmax_numba.gpu.lane import LOSSES, Operation
from softmax_numba.gpu.launch import Kernel, Launch, Place
from softmax_numba.gpu.parts import NUMBERS
from softmax_numba.gpu.plan import Device, Plan, plan
from softmax_numba.gpu.storage import STORAGES

if TYPE_CHECKING:
    from softmax_numba.gpu.calls import Room
    from softmax_numba.gpu.walk import Given


def _columns(shape: ColumnShape) -> Callable:
    return loss_columns.columns(shape) if shape.operation in LOSSES else columns.columns(shape)


_MAKERS: dict[str, Callable[[Any], Callable]] = {
    "columns": _columns,
    "several": rows.several,
    "warp": rows.several,
    "block": rows.block,
    "cluster": rows.cluster,
    "shared": long.shared,
    "online": long.online,
    "survey": long.survey,
    "finish": long.finish,
}


def shape_of(operation: Operation, storage: str, how: Plan, masked: bool, heated: bool) -> Shape | ColumnShape:
    """What the kernels of a plan are specialised for."""
    if how.sweep == "columns":
        return ColumnShape(operation, storage, how.threads, masked, heated)
    return Shape(operation, storage, how.vectors, how.threads, how.access, masked, heated)


def kernel(name: str, shape: Shape | ColumnShape) -> Kernel:
    """One of the kernels of lanes."""
    kind = np.dtype(STORAGES[shape.storage].kind).name
    return Kernel(_MAKERS[name](shape), (name, *shape), kind, Arguments)


def planned(lanes: Lanes, arrays: list[GpuArray], one_number: bool, device: Device, inputs: int = 1) -> Plan:
    """The plan for ``arrays``: the values, the results, the other ones; of two ``inputs`` the first other is one."""
    values, answer, *others = arrays
    counted = 1 if one_number else inputs + 1  # that kernels read or write as vectors
    rows_of = lanes.steps[:counted]
    places = tuple(array.address for array in (values, answer, *others)[:counted])
    side_by_side = lanes.length == 1 or all(step == values.itemsize for _, _, step in rows_of)
    near = all(inner == values.itemsize for _, inner, _ in lanes.steps[: inputs + 1])
    neighbours = lanes.inner if near else 1
    if neighbours > 1 and not side_by_side:
        places += tuple(step for outer, _, along in rows_of for step in (outer, along))
    else:
        places += tuple(step for outer, inner, _ in rows_of for step in (outer, inner))
    return plan(
        lanes.outer * lanes.inner,
        lanes.length,
        itemsize=values.itemsize,
        side_by_side=side_by_side,
        aligned=all(place % 16 == 0 for place in places),
        lean=inputs == 1 and not others,
        one_number=one_number,
        neighbours=neighbours,
        device=device,
        inputs=inputs,
    )


def sweep(operation: Operation, lanes: Lanes, given: "Given", scale: Scale, room: "Room") -> None:
    """Queues what fills the answer."""
    values, answer, mask, heat = given
    how = planned(lanes, given.present, operation.one_number, launch.device(room.place.device))
    shape = shape_of(operation, values.name, how, mask is not None, heat is not None)
    count = lanes.outer * lanes.inner
    kind: np.dtype = np.dtype(STORAGES[values.name].kind)
    nothing = (0, 0, 0)
    steps = iter(lanes.steps)
    x_steps, y_steps = next(steps), next(steps)
    mask_steps = nothing if mask is None else next(steps)
    a = Arguments(
        values.address,
        answer.address,
        0 if mask is None else mask.address,
        0,
        0,
        count,
        lanes.inner,
        lanes.length,
        how.segments,
        how.tiles,
        how.blocks,
        *x_steps,
        *y_steps,
        *mask_steps,
    )
    if heat is not None:
        a = a._replace(heats=_scales(heat, next(steps), lanes, kind, room))
    carry_out(how, shape, a, scale, room)


def carry_out(how: Plan, shape: Shape | ColumnShape, a: Arguments, scale: Scale, room: "Room") -> None:
    """Queues the kernels of a plan."""
    if how.sweep != "split":
        blocks = Launch(how.grid(a.lanes, a.inner), how.block, how.shared, how.cluster)
        launch.run(kernel(how.sweep, shape), blocks, room.place, a, scale)
        return
    listed = room.new((a.lanes * how.segments * NUMBERS,), np.dtype(STORAGES[shape.storage].kind).name)
    a, blocks = a._replace(scratch=listed.address), Launch(how.grid(a.lanes), how.block)
    launch.run(kernel("survey", shape), blocks, room.place, a, scale)
    if shape.operation.one_number:
        a, blocks = a._replace(blocks=1), Launch(a.lanes, how.block)
    launch.run(kernel("finish", shape), blocks, room.place, a, scale)


_BACKWARD_MAKERS: dict[str, Callable[[Any], Callable]] = {
    "columns": vjp_columns.columns,
    "several": vjp.several,
    "warp": vjp.several,
    "block": vjp.block,
    "cluster": vjp.cluster,
    "online": vjp_long.online,
    "survey": vjp_long.survey,
    "finish": vjp_long.finish,
}


def backward_shape(name: str, storage: str, how: Plan, heated: bool) -> vjp.Shape | vjp_columns.ColumnShape:
    """What the kernels of a way back are specialised for."""
    if how.sweep == "columns":
        return vjp_columns.ColumnShape(vjp.BACKWARD[name], storage, how.threads, heated)
    return vjp.Shape(vjp.BACKWARD[name], storage, how.vectors, how.threads, how.access, heated)


def backward_kernel(name: str, shape: vjp.Shape | vjp_columns.ColumnShape) -> Kernel:
    """One of the kernels of the ways back."""
    kind = np.dtype(STORAGES[shape.storage].kind).name
    return Kernel(_BACKWARD_MAKERS[name](shape), (f"vjp {name}", *shape), kind, Arguments)


def backward(name: str, lanes: Lanes, given: "Given", scale: Scale, room: "Room") -> None:
    """Queues what fills the answer, from y and dy."""
    y, answer, dy, heat = given
    if dy is None:
        raise TypeError("a way back needs cotangents")
    steps = lanes.steps
    how = planned(lanes, given.present, False, launch.device(room.place.device), inputs=2)
    shape = backward_shape(name, y.name, how, heat is not None)
    count = lanes.outer * lanes.inner
    kind: np.dtype = np.dtype(STORAGES[y.name].kind)
    a = Arguments(
        *(y.address, answer.address, dy.address, 0, 0),
        *(count, lanes.inner, lanes.length, how.segments, how.tiles, how.blocks),
        *(step for array in steps[:3] for step in array),
    )
    if heat is not None:
        a = a._replace(heats=_scales(heat, steps[3], lanes, kind, room))
    blocks = Launch(how.grid(count, lanes.inner), how.block, how.shared, how.cluster)
    if how.sweep == "split":
        scratch = room.new((count * how.segments * vjp.NUMBERS,), kind.name)
        a = a._replace(scratch=scratch.address)
    for part in ("survey", "finish") if how.sweep == "split" else (how.sweep,):
        launch.run(backward_kernel(part, shape), blocks, room.place, a, scale)


def _scales(heat: GpuArray, steps: tuple[int, int, int], lanes: Lanes, kind: np.dtype, room: "Room") -> int:
    """Where the temperatures' four numbers a lane will lie."""
    count = lanes.outer * lanes.inner
    found = room.new((count, len(Scale._fields)), kind.name)
    row = len(Scale._fields) * kind.itemsize
    a = Arguments(heat.address, found.address, lanes=count, inner=lanes.inner)
    a = a._replace(x_outer=steps[0], x_inner=steps[1], y_outer=lanes.inner * row, y_inner=row)
    blocks = -(-count // temperatures.BLOCK)
    nothing = Scale(*(kind.type(0) for _ in Scale._fields))
    launch.run(temper_kernel(heat.name, kind.name), Launch(blocks, temperatures.BLOCK), room.place, a, nothing)
    return found.address


def temper_kernel(source: str, computes: str) -> Kernel:
    """The kernel that makes scales of temperatures."""
    return Kernel(temperatures.temper(source, computes), ("temper", source, computes), computes, Arguments)


# --- copies -----------------------------------------------------------------------------


def copy_kernel(source: str, target: str) -> Kernel:
    """The kernel that copies values of one dtype to another."""
    return Kernel(copies.copy(source, target), ("copy", source, target), "float32", Copy, None)


def copy(source: GpuArray, target: GpuArray, place: Place) -> None:
    """Queues a copy between arrays of one shape; dtypes and strides as they come."""
    value_by_value(copy_kernel(source.name, target.name), source, target, place)


def value_by_value(made: Kernel, source: GpuArray, target: GpuArray, place: Place, *numbers: tuple[Any, ...]) -> None:
    """Queues a kernel of :class:`Copy` between arrays of one shape."""
    sizes, steps = joined(source.shape, list(zip(source.strides, target.strides, strict=True)))
    outside = max(len(sizes) - copies.DIMENSIONS, 0)
    if outside:
        size, (from_step, to_step) = sizes[0], steps[0]
        rest_sizes = tuple(sizes[1:])
        rest = [tuple(step[i] for step in steps[1:]) for i in (0, 1)]
        for n in range(size):
            part = source._replace(address=source.address + n * from_step, shape=rest_sizes, strides=rest[0])
            other = target._replace(address=target.address + n * to_step, shape=rest_sizes, strides=rest[1])
            value_by_value(made, part, other, place, *numbers)
        return
    missing = copies.DIMENSIONS - len(sizes)
    sizes, steps = [1] * missing + sizes, [(0, 0)] * missing + steps
    count = source.size
    if not count:
        return
    given = Copy(source.address, target.address, count, *sizes[1:], *(s for s, _ in steps), *(t for _, t in steps))
    launch.run(made, Launch(-(-count // copies.BLOCK), launch.threads_for(count, copies.BLOCK)), place, given, *numbers)


def upload(given: np.ndarray, target: GpuArray, place: Place) -> None:
    """Queues a copy of a small contiguous array of the host."""
    launch.upload(given, target.address, place)


def fill(target: GpuArray, value: float, place: Place) -> None:
    """Fills with the results of lanes of no values: a few numbers."""
    from softmax_numba.dtypes import dtype_of

    given = np.full(target.shape, value, dtype_of(target.name))
    if target.strides == contiguous(target.shape, target.itemsize):
        upload(given, target, place)
        return
    for index in np.ndindex(*target.shape):
        offset = sum(i * s for i, s in zip(index, target.strides, strict=True))
        upload(np.asarray(given[index]), target._replace(address=target.address + offset), place)
