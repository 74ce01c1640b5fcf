"""Losses carried out: which kernels run, with which numbers, and what they write in between.

    encode   codes of the class indices: classes, or what stands for none
    weigh    the weights of the targets that count, where a mean divides by them
    gauge    what gradients are multiplied by
    the lanes by any plan, at class indices with their gradient in the same pass, from one read
    where every class has a term: from one read too while a lane stays in registers (held), else looked at again (dense)
    lose     the losses of the lanes, or their sums
    conclude the sum over all, or the mean

Nothing of the logits' size is written but the gradient, and nothing waits.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from softmax_numba.gpu import launch, loss_dense, loss_held, loss_sums
from softmax_numba.gpu.arguments import Arguments
from softmax_numba.gpu.arrays import GpuArray, contiguous
from softmax_numba.gpu.copies import Copy
from softmax_numba.gpu.exponential import Scale
from softmax_numba.gpu.geometry import Lanes
from softmax_numba.gpu.kernels import carry_out, shape_of, value_by_value
from softmax_numba.gpu.lane import LOSS, LOSS_AND_GRADIENT, Operation
from softmax_numba.gpu.launch import Kernel, Launch, threads_for
from softmax_numba.gpu.loss import CODE, GAINS, NOTES
from softmax_numba.gpu.loss_sums import BLOCK, CHUNK, SUM, Call, Classes
from softmax_numba.gpu.loss_terms import Kind, Targets
from softmax_numba.gpu.plan import MOST_VALUES, Plan, a_thread_a_lane, plan
from softmax_numba.gpu.storage import STORAGES

if TYPE_CHECKING:
    from softmax_numba.gpu.calls import Room
    from softmax_numba.gpu.walk import Given


class Wanted(NamedTuple):
    """What a call asks for."""

    classes: int
    ignored: int
    reduction: str
    keep: float  # 1 - smoothing
    even: float  # smoothing / classes
    z_loss: float
    gamma: float
    gradient: bool
    probabilities: bool
    weights: int  # the address of one a class in the type that computes, or 0

    @property
    def dense(self) -> bool:
        """Whether the lanes are looked at once more."""
        return self.probabilities or self.even != 0.0 or self.gamma != 0.0


class Scratch(NamedTuple):
    """Addresses of what lies between the kernels."""

    codes: int
    notes: int
    terms: int
    sums: int
    total: int
    gains: int


def scratch(lanes: int, kind: np.dtype, wanted: Wanted, room: "Room") -> Scratch:
    """Room for so many lanes, in one piece."""
    sizes = (
        CODE * lanes,
        NOTES * kind.itemsize * lanes,
        2 * kind.itemsize * lanes if wanted.dense else 0,
        SUM * -(-lanes // CHUNK),
        8,
        GAINS * kind.itemsize,
    )
    steps = [-(-size // 16) * 16 for size in sizes]
    begin = room.new((sum(steps) // 8,), "float64").address
    return Scratch(*(begin + sum(steps[:i]) for i in range(len(steps))))


def codes_of(targets: GpuArray, at: Scratch) -> GpuArray:
    """The array of the targets' codes, C-ordered."""
    strides = contiguous(targets.shape, CODE)
    return targets._replace(address=at.codes, strides=strides, name="int32", itemsize=CODE)


def prepare(targets: GpuArray, lanes: int, kind: np.dtype, wanted: Wanted, at: Scratch, room: "Room") -> None:
    """Queues what comes before the lanes."""
    made = Kernel(loss_sums.encode(targets.name), ("encode", targets.name), "int64", Copy, Classes)
    value_by_value(made, targets, codes_of(targets, at), room.place, Classes(wanted.classes, wanted.ignored))
    mean = wanted.reduction == "mean"
    a = Arguments(at.sums, at.sums, lanes=lanes, codes=at.codes, gains=at.gains, weights=wanted.weights, segments=0)
    if mean and not wanted.probabilities:
        a = a._replace(segments=-(-lanes // CHUNK))
        made = Kernel(loss_sums.weigh(kind.name), ("weigh", kind.name), kind.name, Arguments, None)
        launch.run(made, Launch(a.segments, threads_for(lanes, BLOCK)), room.place, a)
    made = Kernel(loss_sums.gauge(kind.name), ("gauge", kind.name), "float64", Arguments, Call)
    call = Call(float(lanes) if mean else 1.0, wanted.z_loss)
    launch.run(made, Launch(1, threads_for(max(a.segments, 1), BLOCK)), room.place, a._replace(y=at.total), call)


def conclude(losses: GpuArray, lanes: int, kind: np.dtype, wanted: Wanted, at: Scratch, room: "Room") -> None:
    """Queues what comes after the lanes; ``losses`` is C-ordered, or one number."""
    each = wanted.reduction == "none"
    key = (kind.name, losses.name if each else None, wanted.dense)
    made = Kernel(loss_sums.lose(*key), ("lose", *key), "float64", Arguments, Call)
    blocks = -(-lanes // CHUNK)
    a = Arguments(at.sums, losses.address if each else at.sums, lanes=lanes, codes=at.codes, notes=at.notes)
    a = a._replace(scratch=at.terms, weights=wanted.weights, segments=blocks)
    launch.run(made, Launch(blocks, threads_for(lanes, BLOCK)), room.place, a, Call(1.0, wanted.z_loss))
    if not each:
        made = Kernel(loss_sums.conclude(losses.name), ("conclude", losses.name), "float64", Arguments, None)
        a = a._replace(y=losses.address, scratch=at.total)
        launch.run(made, Launch(1, threads_for(blocks, BLOCK)), room.place, a)


def planned(lanes: Lanes, given: "Given", wanted: Wanted, number: int) -> Plan:
    """The plan for the lanes' sums, with their gradient in the same pass where that is no second look.

    The order of sums, and so the loss, is decided by the logits and not by where the gradient goes.
    """
    arrays = (given.values, given.answer) if wanted.gradient else (given.values,)
    steps = lanes.steps[: len(arrays)]
    size = given.values.itemsize
    _, inner, step = lanes.steps[0]
    if 1 < lanes.length <= MOST_VALUES[size] and step != size:
        return a_thread_a_lane(lanes.length, size)
    neighbours = lanes.inner if inner == size != step and lanes.length > 1 else 1
    places = [array.address for array in arrays] + [outer for outer, _, _ in steps]
    places += [step if neighbours > 1 else inner for _, inner, step in steps]
    together = neighbours == 1 or all(inner == size for _, inner, _ in steps)
    return plan(
        lanes.outer * lanes.inner,
        lanes.length,
        itemsize=size,
        side_by_side=lanes.length == 1 or all(step == size for _, _, step in steps),
        aligned=together and all(place % 16 == 0 for place in places),
        lean=not (wanted.gradient or wanted.dense),
        one_number=not wanted.gradient or wanted.dense,
        neighbours=neighbours,
        device=launch.device(number),
        losses=True,
    )


def sweep(wanted: Wanted, at: Scratch, lanes: Lanes, given: "Given", scale: Scale, room: "Room") -> None:
    """Queues the lanes: ``given.other`` has the targets' codes, ``given.heat`` their probabilities."""
    values, answer, codes, shares = given
    if codes is None:
        raise TypeError("losses need the codes of their targets")
    how = planned(lanes, given, wanted, room.place.device)
    a = Arguments(
        *(values.address, answer.address, codes.address, 0, 0),
        *(lanes.outer * lanes.inner, lanes.inner, lanes.length, how.segments, how.tiles, how.blocks),
        *(step for array in lanes.steps[:3] for step in array),
        *(at.codes, at.notes, at.gains, wanted.weights),
    )
    if not wanted.dense:
        _normalised(LOSS_AND_GRADIENT if wanted.gradient else LOSS, values.name, how, a, scale, room)
        return
    of_terms = a._replace(scratch=at.terms)
    if shares is not None:
        outer, inner, step = lanes.steps[3]
        of_terms = of_terms._replace(other=shares.address, other_outer=outer, other_inner=inner, other_step=step)
    number, focal = STORAGES[values.name].kind, wanted.gamma != 0.0
    kind = Kind(values.name, None if shares is None else shares.name, focal, wanted.weights != 0)
    targets = Targets(number(wanted.keep), number(wanted.even), number(wanted.gamma))
    if not focal and loss_held.holds(how, values.itemsize, launch.device(room.place.device)):
        shape = loss_held.Shape(kind, wanted.gradient, how.vectors, how.threads, how.access)
        blocks = Launch(how.grid(a.lanes), how.block)
        launch.run(held_kernel(how.sweep, shape), blocks, room.place, of_terms, targets)
        return
    _normalised(LOSS, values.name, how, a, scale, room)
    again = loss_dense.Shape(kind, wanted.gradient, loss_dense.threads_of(a.length, how), how.sweep == "columns")
    blocks = Launch(again.grid(a.lanes, a.inner), again.block)
    launch.run(dense_kernel(again), blocks, room.place, of_terms, targets)


def _normalised(operation: Operation, storage: str, how: Plan, a: Arguments, scale: Scale, room: "Room") -> None:
    """Queues what ends in ``loss.ending``."""
    carry_out(how, shape_of(operation, storage, how, False, False), a, scale, room)


def held_kernel(name: str, shape: loss_held.Shape) -> Kernel:
    """One of the kernels for terms of all classes, of lanes in registers."""
    kind = np.dtype(STORAGES[shape.kind.storage].kind).name
    return Kernel(loss_held.MAKERS[name](shape), (f"held {name}", *shape), kind, Arguments, Targets)


def dense_kernel(shape: loss_dense.Shape) -> Kernel:
    """The kernel for terms of all classes, of lanes that are looked at again."""
    kind = np.dtype(STORAGES[shape.kind.storage].kind).name
    return Kernel(loss_dense.dense(shape), ("dense", *shape), kind, Arguments, Targets)
