"""A whole run: every cell is checked against exact values, then timed in interleaved rounds."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softmax_numba.bench.accuracy import Accuracy, Judge
from softmax_numba.bench.machine import load_average
from softmax_numba.bench.peers import OURS, Job, Peer
from softmax_numba.bench.results import Cell, Measurement, thread_counts, with_threads
from softmax_numba.bench.roofline import bounds, exponential, merges, one_block
from softmax_numba.bench.timing import Budget, Series, interleaved
from softmax_numba.bench.training import TrainingJudge
from softmax_numba.bench.workloads import OPS, Workload, dtype_named, family, result_dtype, result_shapes

__all__ = ["FULL", "GRID", "QUICK", "Effort", "Plan", "Task", "measure", "start_threads"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Effort:
    """How much time a run may spend.

    Attributes
    ----------
    name : str
    budget : Budget
        The most that a cell gets.
    fewest_rounds : int
        What a cell gets once the run is behind its total.
    total_seconds : float
        Shared out over the cells by their :attr:`Task.weight`.
    judged_values : int or None
        How many results of a cell are compared with exact ones; None: all of them.
    exponentials : bool
        Whether the bare exponential of every element is timed beside the copy.
    processes : int
        How many processes find out what a contender costs one.
    """

    name: str
    budget: Budget
    fewest_rounds: int
    total_seconds: float
    judged_values: int | None
    exponentials: bool = False
    processes: int = 0


# Quick: 36 cells in less than 3 minutes on two slow cores, imports, compilation and pictures included.
QUICK = Effort("quick", Budget(6.0, 5, 25), fewest_rounds=3, total_seconds=60.0, judged_values=2**17)
GRID = Effort("grid", Budget(3.0, 5, 15), fewest_rounds=3, total_seconds=600.0, judged_values=2**15, exponentials=True)
FULL = Effort("full", Budget(20.0, 7, 51), fewest_rounds=5, total_seconds=1400.0, judged_values=None, processes=3)


@dataclass(frozen=True)
class Task:
    """One cell to be measured."""

    workload: Workload
    op: str
    dtype: str

    @property
    def weight(self) -> float:
        """What it costs in comparison with other tasks: a fixed part, and the bytes to be moved."""
        return 0.2 + self.workload.elements * dtype_named(self.dtype).itemsize / 2**24


@dataclass(frozen=True)
class Plan:
    """What to measure, checked; everything that remains is time."""

    workloads: tuple[Workload, ...]
    ops: tuple[str, ...]
    dtypes: tuple[str, ...] | None
    peers: tuple[Peer, ...]
    threads: int
    seed: int
    effort: Effort
    cells: tuple[Task, ...] | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """``cells``, or every workload in every op and dtype."""
        if self.cells is not None:
            return self.cells
        return tuple(
            Task(workload, op, dtype)
            for workload in self.workloads
            for dtype in self.dtypes or workload.dtypes
            for op in self.ops
        )


def start_threads(threads: int) -> None:
    """One parallel call of ours before anybody else's.

    It settles the threading layer, which the first parallel region of a process chooses for good, by the
    package's own rules.
    """
    import numba

    import softmax_numba

    x = np.zeros((4096, 256), np.float32)
    softmax_numba.softmax(x, out=x)
    # Not before: Numba's own function starts its threads, with whatever layer it finds by itself.
    numba.set_num_threads(threads)


def measure(
    plan: Plan,
    *,
    begins: Callable[[Task], None] = lambda task: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Cell]:
    """Measure the plan's cells in order, one at a time.

    Parameters
    ----------
    plan : Plan
    begins : callable, optional
        Told each task before its measurement begins.
    clock : callable, optional
        Seconds; decides how much of the total is left.

    Yields
    ------
    Cell
        As soon as it is measured: what a caller has received is safe when the run is interrupted.
    """
    start, effort = clock(), plan.effort
    waiting = sum(task.weight for task in plan.tasks)
    held: tuple[Workload, str, str] | None = None
    operands: tuple[Array, ...] = ()
    judge: Judge | TrainingJudge | None = None
    for task in plan.tasks:
        begins(task)
        if held != (task.workload, task.dtype, family(task.op)) or judge is None:
            held = (task.workload, task.dtype, family(task.op))
            operands = task.workload.operands(task.op, plan.seed, task.dtype)
            judge = _judge(task, operands, plan)
        left = effort.total_seconds - (clock() - start)
        share = left * task.weight / waiting
        waiting -= task.weight
        yield _measure_cell(task, operands, judge, plan, _budget(effort, share, on_time=left > 0))


def _judge(task: Task, operands: tuple[Array, ...], plan: Plan) -> Judge | TrainingJudge:
    values, axis = plan.effort.judged_values, task.workload.axis
    if task.op in OPS:
        return Judge(_seen(task, operands[0], plan.seed), axis, values=values, seed=plan.seed)
    return TrainingJudge(operands, axis, values=values, seed=plan.seed)


def _budget(effort: Effort, share: float, on_time: bool) -> Budget:
    if on_time:
        return replace(effort.budget, seconds=min(effort.budget.seconds, share))
    return replace(effort.budget, seconds=0.0, min_rounds=effort.fewest_rounds)


def _measure_cell(
    task: Task, operands: tuple[Array, ...], judge: Judge | TrainingJudge, plan: Plan, budget: Budget
) -> Cell:
    x, *others = operands
    shapes = result_shapes(task.op, [operand.shape for operand in operands], task.workload.axis)
    # Where a loss comes first, its gradient is what is written; those of a linear layer are new arrays.
    shape, dtype = shapes[-1] if len(shapes) < 3 else (), result_dtype(x.dtype)
    # In the order of the input, where it has one: of what is broadcast, NumPy would make columns.
    ordered = shape == x.shape and 0 not in x.strides
    out = np.empty_like(x, dtype) if ordered else np.empty(shape, dtype)
    workload = task.workload
    where, heat = workload.mask(plan.seed), workload.temperature
    job = Job(task.op, x, workload.axis, out, plan.threads, where, heat, workload.fresh, tuple(others))

    measured: dict[str, Measurement] = {}
    calls: dict[str, Callable[[], Any]] = {}
    taken: dict[str, Any] = {}
    for peer in (OURS, *plan.peers):
        role = "ours" if peer is OURS else "peer"
        if (reason := peer.unsupported(task.op, x.dtype)) is not None:
            measured[peer.name] = Measurement(peer.name, role, "unsupported", reason)
            continue
        measured[peer.name] = Measurement(peer.name, role, "ok")
        try:
            calls[peer.name], taken[peer.name] = _first_result(peer, job, shapes, judge)
        # Whatever a library raises is its answer in this cell; the others are measured all the same.
        except Exception as error:
            calls.pop(peer.name, None)
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            measured[peer.name] = Measurement(peer.name, role, "failed", reason)

    accuracies = judge.judge(task.op, taken)
    taken.clear()
    limits = _limits(job, plan.effort) if workload.kind == "throughput" and one_block(x) else {}
    variants = _variants(calls, plan.threads) if workload.kind == "growth" else {}

    def set_threads(name: str) -> None:
        if variants:
            _set_threads(variants[name][1] if name in variants else plan.threads)

    timed = {**calls, **limits, **{name: call for name, (call, _) in variants.items()}}
    figures = interleaved(timed, budget, seed=plan.seed, prepare=set_threads)
    for name in variants:
        measured[name] = Measurement(name, "variant", "ok", None, figures[name].calls, figures[name].seconds)
    for name in calls:
        measured[name] = _with_figures(measured[name], figures[name], accuracies[name])
    for name in limits:
        measured[name] = Measurement(name, "bound", "ok", None, figures[name].calls, figures[name].seconds)
    return Cell(
        workload=task.workload.name,
        op=task.op,
        dtype=x.dtype.name,
        shape=workload.shape,
        axis=workload.axis,
        kind=workload.kind,
        read_bytes=sum(operand.nbytes for operand in operands),
        written_bytes=sum(math.prod(s) for s in shapes) * dtype.itemsize,
        measurements=tuple(measured.values()),
        load=load_average(),
    )


def _limits(job: Job, effort: Effort) -> dict[str, Callable[[], Any]]:
    """What bounds an operation: moving its bytes, and the bare exponential where that moves the same bytes."""
    if job.op.startswith("linear_"):  # bound by its products
        return {}
    if job.op.endswith("_vjp"):
        (cotangent,) = job.others
        return merges(job.x, cotangent, job.out, job.threads) if one_block(cotangent) else {}
    limits = bounds(job.x, job.out, job.threads)
    if limits and effort.exponentials:
        limits |= exponential(job.x, job.out, job.threads)
    return limits


def _variants(calls: dict[str, Callable[[], Any]], threads: int) -> dict[str, tuple[Callable[[], Any], int]]:
    """Every call with each smaller number of threads."""
    return {
        with_threads(name, count, threads): (call, count)
        for name, call in calls.items()
        for count in thread_counts(threads)[:-1]
    }


def _set_threads(count: int) -> None:
    import numba

    numba.set_num_threads(count)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(count)


def _seen(task: Task, x: Array, seed: int) -> Array:
    """What the operation makes of ``x``, mask and temperature carried out."""
    where, heat = task.workload.mask(seed), task.workload.temperature
    if where is not None:
        return np.where(where, x, x.dtype.type(-np.inf))
    return x if heat == 1.0 else (x / x.dtype.type(heat)).astype(x.dtype)


def _first_result(
    peer: Peer, job: Job, shapes: tuple[tuple[int, ...], ...], judge: Judge | TrainingJudge
) -> tuple[Callable[[], Any], Any]:
    # The buffer is shared: what the contender before left there must not pass for a result.
    job.out[...] = np.nan
    call = peer.bind(job)
    returned = call()
    if not isinstance(returned, tuple):
        returned = (job.out if peer.writes_out and not job.fresh else returned,)
    results = [np.asarray(result) for result in returned]
    for result, shape in zip(results, shapes, strict=True):
        if result.shape != shape:
            raise ValueError(f"a result of shape {result.shape} where {shape} is right")
    return call, judge.take(job.op, *results)


def _with_figures(known: Measurement, series: Series, accuracy: Accuracy) -> Measurement:
    status = known.status if accuracy.fault is None else "wrong"
    return replace(
        known,
        status=status,
        reason=accuracy.fault,
        calls=series.calls,
        seconds=series.seconds,
        accuracy=accuracy,
    )
