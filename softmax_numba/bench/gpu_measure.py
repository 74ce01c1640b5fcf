"""One cell on a GPU: every contender is checked against exact values, then timed in interleaved rounds.

Inputs are taken in turn, so many that they do not fit the second-level cache together; what is timed is the device's
own time between two events. Small arrays are timed once more as a CUDA graph, where no launch from the host is waited
for; the smallest by the caller's clock, which is all that counts there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from softmax_numba.bench.accuracy import Accuracy, Judge
from softmax_numba.bench.gpu_cells import LOSSES, VJPS, Task
from softmax_numba.bench.gpu_device import TorchDevice
from softmax_numba.bench.gpu_peers import CONTENDERS, Contender, Job
from softmax_numba.bench.results import Cell, Measurement
from softmax_numba.bench.training import TrainingJudge, Whole
from softmax_numba.bench.workloads import OPS, dtype_named, result_shapes

__all__ = ["began", "measure"]

Call = Callable[[], Any]
ROUNDS = 9
SAMPLE_SECONDS = 2e-3
JUDGED = 2**17  # values of a result that are compared with exact ones
_GRAPH_BYTES = 2**26  # below, launches from the host may take longer than the work
_MOST_SETS = 64
_INDEX_BYTES = 8  # of a target
_NEVER_ENDED = "the measurement began and never ended"


def began(task: Task) -> Cell:
    """What stands for a cell while it is measured, and afterwards if that takes the process with it."""
    return _cell(task, (Measurement(CONTENDERS[0].name, "ours", "failed", _NEVER_ENDED),))


def _cell(task: Task, measurements: tuple[Measurement, ...]) -> Cell:
    read, written = _bytes(task)
    return Cell(task.workload, task.op, task.dtype, task.shape, task.axis, task.kind, read, written, measurements)


def _bytes(task: Task) -> tuple[int, int]:
    size = dtype_named(task.dtype).itemsize
    read = math.prod(task.shape) * size * (2 if task.op in VJPS else 1)
    if task.op in LOSSES:
        read += math.prod(task.lanes) * _INDEX_BYTES
    return read, size * sum(math.prod(shape) for shape in result_shapes(task.op, [task.shape], task.axis))


def measure(task: Task, device: TorchDevice, rounds: int = ROUNDS) -> Cell:
    """Measures one cell.

    Raises
    ------
    RuntimeError
        If the device itself is in error afterwards: nothing more can be measured in this process.
    """
    read, written = _bytes(task)
    # So many that what a call reads has left the cache before it comes again.
    sets = min(_MOST_SETS, max(1, -(-4 * device.cache_bytes // (read + written))))
    if task.kind == "latency":
        sets = 1
    jobs = [_job(task, device) for _ in range(sets)]
    judge = _Judge(task, device, jobs[0])
    measured: dict[str, Measurement] = {}
    timed: dict[str, list[Call]] = {}
    taken: dict[str, Any] = {}
    for contender in CONTENDERS:
        role = "ours" if contender is CONTENDERS[0] else "peer"
        reason = _cannot(contender, task, device)
        if reason is not None:
            measured[contender.name] = Measurement(contender.name, role, "unsupported", reason)
            continue
        measured[contender.name] = Measurement(contender.name, role, "ok")
        try:
            calls = [contender.bind(job) for job in jobs]
            jobs[0].out.fill_(float("nan"))
            taken[contender.name] = judge.take(calls[0]())
            timed[contender.name] = calls
        # Whatever a library raises is its answer in this cell; the others are measured all the same.
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
            measured[contender.name] = Measurement(contender.name, role, "failed", reason)
            device.wait()
    accuracies = judge.judge(taken)
    if task.kind == "throughput":
        timed["copy"] = _copies(device, (read + written) // 2, sets)
    seconds = _series(device, timed, rounds, device.wall_seconds if task.kind == "latency" else device.device_seconds)
    if read + written < _GRAPH_BYTES:
        others = ("copy",) if task.op in LOSSES else ("torch", "copy")  # a way back by autograd is not captured
        names = [name for name in (CONTENDERS[0].name, *others) if name in timed]
        graphs = {f"{name} (graph)": graph for name in names if (graph := device.graph(timed[name])) is not None}
        replays = _series(device, {name: [graph] for name, graph in graphs.items()}, rounds, device.device_seconds)
        seconds |= {name: tuple(s / sets for s in found) for name, found in replays.items()}
    for name, found in seconds.items():
        if name in taken:
            fault = accuracies[name].fault
            status = "ok" if fault is None else "wrong"
            known = replace(measured[name], status=status, reason=fault, accuracy=accuracies[name])
            measured[name] = replace(known, calls=sets, seconds=found)
        else:
            measured[name] = Measurement(name, "bound" if name == "copy" else "variant", "ok", None, sets, found)
    device.wait()
    return _cell(task, tuple(measured.values()))


def _cannot(contender: Contender, task: Task, device: TorchDevice) -> str | None:
    if not contender.installed:
        return f"{contender.module} is not installed"
    if not device.real and contender.name not in ("softmax-numba", "torch"):
        return "needs a GPU"
    return contender.unsupported(task)


def _job(task: Task, device: TorchDevice) -> Job:
    """Fresh arrays: what an op is handed, and where its last result goes."""
    x = device.normal(task.shape, task.dtype)
    out = device.empty(result_shapes(task.op, [task.shape], task.axis)[-1], task.dtype)
    if task.op in LOSSES:
        return Job(task, x, out, (device.classes(task.shape[task.axis], task.lanes),))
    if task.op in OPS:
        return Job(task, x, out)
    forward = getattr(device.torch, task.op.removesuffix("_vjp"))
    return Job(task, forward(x, task.axis), out, (device.normal(task.shape, task.dtype, 1.0),))


def _copies(device: TorchDevice, size: int, sets: int) -> list[Call]:
    """Copies that read and write as many bytes together as the op does."""
    pairs = [(device.room(size), device.room(size)) for _ in range(sets)]
    return [lambda pair=pair: pair[0].copy_(pair[1]) for pair in pairs]  # type: ignore[misc]


def _series(
    device: TorchDevice, timed: dict[str, list[Call]], rounds: int, clock: Callable[[Sequence[Call], int], float]
) -> dict[str, tuple[float, ...]]:
    """Seconds a call in each round; every round times everybody, in an order drawn anew."""
    repeats = {}
    for name, calls in timed.items():
        clock(calls, 1)
        repeats[name] = max(1, min(1000, math.ceil(SAMPLE_SECONDS / (len(calls) * max(clock(calls, 1), 1e-9)))))
    found: dict[str, list[float]] = {name: [] for name in timed}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(list(timed)):
            found[name].append(clock(timed[name], repeats[name]))
    return {name: tuple(series) for name, series in found.items()}


class _Judge:
    """Compares whole lanes of results, the first and the last ones, with exact values on the host."""

    def __init__(self, task: Task, device: TorchDevice, job: Job) -> None:
        self._task, self._device = task, device
        self._rows = task.axis == -1 and len(task.shape) == 2
        self._lanes = max(2, JUDGED // task.shape[-1])
        operands = tuple(device.host(self._part(operand)) for operand in (job.x, *job.others))
        axis = -1 if self._rows else task.axis
        if task.op in OPS:
            self._judge: Judge | TrainingJudge = Judge(operands[0], axis, values=2 * JUDGED)
        else:
            whole = None
            if task.op in LOSSES and self._rows:  # on the host a vocabulary's rows would take minutes
                whole = Whole(task.shape[0], device.mean_loss(job.x, *job.others))
            self._judge = TrainingJudge(operands, axis, values=2 * JUDGED, whole=whole)

    def _part(self, tensor: Any) -> Any:
        return self._device.ends(tensor, self._lanes) if self._rows else tensor

    def take(self, result: Any) -> Any:
        """The judged part of a result of any library that knows DLPack."""
        op, results = self._task.op, result if isinstance(result, tuple) else (result,)
        arrays = [r if isinstance(r, self._device.torch.Tensor) else self._device.torch.from_dlpack(r) for r in results]
        parts = [self._device.host(self._part(a) if a.ndim else a) for a in arrays]
        return self._judge.take(op, *parts)

    def judge(self, taken: dict[str, Any]) -> dict[str, Accuracy]:
        return self._judge.judge(self._task.op, taken)
