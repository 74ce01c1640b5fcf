"""The report command: check the request, measure, keep what is measured, write the report."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softmax_numba.bench import machine, peers, workloads
from softmax_numba.bench.requests import (
    RequestError,
    check_seed,
    check_threads,
    choose,
    load_array,
    writable_folder,
)

if TYPE_CHECKING:
    from rich.console import Console

    from softmax_numba.bench.results import ContenderInfo, Results
    from softmax_numba.bench.run import Effort, Plan

__all__ = [
    "INTERRUPTED",
    "OURS_IS_WRONG",
    "Prepared",
    "Request",
    "check_installed",
    "execute",
    "prepare",
    "prepare_grid",
    "rewrite",
]

OURS_IS_WRONG, INTERRUPTED = 1, 130
_NEEDED = ("jinja2", "matplotlib", "rich")


@dataclass(frozen=True)
class Request:
    """The command's options, unchecked; None or empty: not given."""

    out: Path
    command: str
    full: bool = False
    ops: Sequence[str] = ()
    dtypes: Sequence[str] = ()
    peers: Sequence[str] = ()
    workloads: Sequence[str] = ()
    threads: int | None = None
    input: Path | None = None
    key: str | None = None
    axis: int | None = None
    seed: int = 0
    drawn: int | None = None
    drawn_seed: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A checked request: nothing in it is left to refuse."""

    out: Path
    plan: "Plan"
    missing: tuple[peers.Peer, ...]
    input: dict[str, Any] | None
    command: str


def prepare(request: Request, *, effort: "Effort | None" = None) -> Prepared:
    """Check the whole request; the folder is made last, so that a refused request leaves no trace.

    Raises
    ------
    RequestError
        For the first thing that is not allowed.
    """
    check_installed()
    ops = choose("op", request.ops or workloads.OPS, workloads.OPS)
    dtypes = choose("dtype", request.dtypes, workloads.DTYPES) if request.dtypes else None
    chosen = peers.select(request.peers or peers.USUAL)
    seed = check_seed(request.seed)
    threads = check_threads(request.threads, machine.available_threads())
    measured, described = _workloads(request)
    if dtypes is None and request.full and request.input is None:
        dtypes = workloads.DTYPES
    for dtype in dtypes or {dtype for workload in measured for dtype in workload.dtypes}:
        workloads.dtype_named(dtype)

    from softmax_numba.bench.run import FULL, QUICK, Plan

    plan = Plan(
        workloads=measured,
        ops=ops,
        dtypes=dtypes,
        peers=tuple(peer for peer in chosen if peer.installed),
        threads=threads,
        seed=seed,
        effort=effort or (FULL if request.full else QUICK),
    )
    missing = tuple(peer for peer in chosen if not peer.installed)
    out = writable_folder(request.out)
    return Prepared(out, plan, missing, described, request.command)


def prepare_grid(request: Request, regimes: Sequence[str], *, effort: "Effort | None" = None) -> Prepared:
    """The same for the grid of regimes, or the named ones, against PyTorch.

    Raises
    ------
    RequestError
        For the first thing that is not allowed.
    """
    check_installed()
    from softmax_numba.bench import drawn
    from softmax_numba.bench.regimes import tasks_of
    from softmax_numba.bench.run import GRID, Plan

    tasks = tasks_of(regimes, request.drawn, request.drawn_seed)
    names = [(task.workload.name, task.dtype) for task in tasks]
    # What is done to one array stands together: it is made once.
    ordered = sorted(
        {(*name, task.op): task for name, task in zip(names, tasks, strict=True)}.values(),
        key=lambda task: names.index((task.workload.name, task.dtype)),
    )
    for dtype in {task.dtype for task in tasks}:
        workloads.dtype_named(dtype)
    peer = peers.PEERS["torch"]
    # However many drawn cells are asked for, the others have their time: each brings what it takes.
    by_lot = sum(drawn.is_drawn(task.workload.name) for task in tasks)
    seconds = GRID.total_seconds + by_lot * drawn.SECONDS
    plan = Plan(
        workloads=tuple({task.workload.name: task.workload for task in tasks}.values()),
        ops=workloads.OPS,
        dtypes=None,
        peers=(peer,) if peer.installed else (),
        threads=check_threads(request.threads, machine.available_threads()),
        seed=check_seed(request.seed),
        effort=effort or replace(GRID, total_seconds=seconds),
        cells=tuple(ordered),
    )
    out = writable_folder(request.out)
    return Prepared(out, plan, () if peer.installed else (peer,), None, request.command)


def check_installed() -> None:
    """RequestError if what draws and prints is not there."""
    absent = [name for name in _NEEDED if find_spec(name) is None]
    if absent:
        raise RequestError(f'the report needs {", ".join(absent)}, not installed: pip install "softmax-numba[report]"')


def _workloads(request: Request) -> tuple[tuple[workloads.Workload, ...], dict[str, Any] | None]:
    """What to measure, and the description of the user's own array if there is one."""
    if request.input is None:
        for option, value in (("--axis", request.axis), ("--key", request.key)):
            if value is not None:
                raise RequestError(f"{option} {value} has no meaning without --input FILE")
        return workloads.select(request.workloads or workloads.WORKLOADS), None
    others = workloads.select(request.workloads) if request.workloads else ()
    array = load_array(request.input, request.key)
    axis = -1 if request.axis is None else request.axis
    own = workloads.from_array(array, axis, f"the array in {request.input.name}")
    described = {
        "file": str(request.input),
        "key": request.key,
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "axis": axis,
    }
    return (own, *others), described


def execute(prepared: Prepared, console: "Console", *, now: Callable[[], datetime] | None = None) -> int:
    """Measure and write the report.

    Parameters
    ----------
    prepared : Prepared
    console : rich.console.Console
        Where progress, the table and the page's path are printed.
    now : callable, optional
        The time of day, in UTC.

    Returns
    -------
    int
        The exit code. 0: done. 1: our own result was wrong, or failed, in some cell. 130: interrupted; what
        was measured is kept.
    """
    from softmax_numba.bench.processes import in_processes
    from softmax_numba.bench.run import measure, start_threads
    from softmax_numba.report.folder import PAGE, REGIMES, write_all, write_grid, write_results
    from softmax_numba.report.terminal import print_grid, print_line, print_summary, progress

    now = now or (lambda: datetime.now(UTC))
    plan = prepared.plan
    results = _begin(prepared, now())
    print_line(console, _greeting(prepared, results))
    try:
        with progress(console, plan) as display:
            start_threads(plan.threads)
            for task, cell in zip(plan.tasks, measure(plan, begins=display.begins), strict=True):
                results.cells.append(cell)
                results.threading_layer = machine.threading_layer()
                write_results(prepared.out, results)
                display.ends(task, cell)
        if plan.effort.processes:
            print_line(console, "start-up and memory, each in processes of their own")
            modules = ((peer.name, peer.module) for peer in (peers.OURS, *plan.peers))
            results.processes = in_processes(tuple(modules), plan.threads, plan.effort.processes)
        results.state = "complete"
    except KeyboardInterrupt:
        results.state = "interrupted"
    results.finished = _stamp(now())
    if not results.cells:
        print_line(console, "interrupted before the first cell was measured: nothing was written")
        return INTERRUPTED
    with _deaf_to_interrupts():
        if plan.effort.name == "grid":
            summary, made = write_grid(prepared.out, results), REGIMES
            print_grid(console, results)
        else:
            print_line(console, "drawing the pictures and writing the report")
            summary, made = write_all(prepared.out, results), PAGE
            print_summary(console, summary)
        print_line(console, f"report: {(prepared.out / made).resolve()}")
    if results.state == "interrupted":
        done = f"{len(results.cells)} of {results.planned} cells were measured"
        print_line(console, f"interrupted: {done}; the report holds these and says so")
        return INTERRUPTED
    return 0 if summary.right else OURS_IS_WRONG


def rewrite(source: Path, out: Path | None) -> Path:
    """Write the report of a results file anew, without measuring.

    Parameters
    ----------
    source : Path
        A ``results.json``, or the folder of a report.
    out : Path or None
        The folder to write into; None: the same.

    Returns
    -------
    Path
        The page, or the table of a grid.

    Raises
    ------
    RequestError
        If the file cannot be read or the folder not be written.
    """
    check_installed()
    from softmax_numba.report.compare import load
    from softmax_numba.report.folder import PAGE, REGIMES, write_all, write_grid

    results = load(source)
    folder = writable_folder(out or (source if source.is_dir() else source.parent))
    if results.mode == "grid":
        write_grid(folder, results)
        return folder / REGIMES
    write_all(folder, results)
    return folder / PAGE


def _begin(prepared: Prepared, started: datetime) -> "Results":
    from softmax_numba.bench.results import Results, WorkloadInfo

    plan = prepared.plan
    ours = _contender(peers.OURS, None)
    taking_part = {peer.name: None for peer in plan.peers}
    absent = {peer.name: f"{peer.distribution} is not installed" for peer in prepared.missing}
    reasons = taking_part | absent
    return Results(
        command=prepared.command,
        mode=plan.effort.name,
        seed=plan.seed,
        threads=plan.threads,
        machine=machine.describe(),
        contenders=(ours, *(_contender(p, reasons[n]) for n, p in peers.PEERS.items() if n in reasons)),
        workloads=tuple(WorkloadInfo(w.name, w.title, w.reason, w.shape, w.axis, w.kind) for w in plan.workloads),
        planned=len(plan.tasks),
        started=_stamp(started),
        input=prepared.input,
    )


def _contender(peer: peers.Peer, missing: str | None) -> "ContenderInfo":
    from softmax_numba.bench.results import ContenderInfo

    return ContenderInfo(peer.name, peer.title, peer.version, peer.expression, peer.threading, missing)


def _greeting(prepared: Prepared, results: "Results") -> str:
    ours, *others = results.contenders
    titles = [f"{c.title} {c.version}" if c.missing is None else f"{c.title} ({c.missing})" for c in others]
    return (
        f"{ours.title} {ours.version} on {results.machine.cpu}, {results.threads} threads, {results.mode}: "
        f"{results.planned} cells against {', '.join(titles)}"
    )


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Writing takes seconds, and an impatient second Ctrl-C would throw away what the first one left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
