"""What the terminal shows: progress with the time left, then the table. Without a terminal, plain lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from softmax_numba.bench.results import Cell, Results
from softmax_numba.bench.run import Plan, Task
from softmax_numba.report import compare, regimes
from softmax_numba.report.summary import SLOWER, Summary, verdict
from softmax_numba.report.text import cells, columns, headline
from softmax_numba.report.words import ratio_text, time_text, ulp_text

__all__ = ["Display", "cell_line", "print_changes", "print_grid", "print_line", "print_summary", "progress"]


class Display(Protocol):
    """Told what is going on."""

    def begins(self, task: Task) -> None: ...

    def ends(self, task: Task, cell: Cell) -> None: ...


def cell_line(cell: Cell) -> str:
    """One measured cell in a line."""
    ours = cell.ours
    if ours.time is None or ours.accuracy is None:
        return f"{cell.label}: {ours.status}: {ours.reason}"
    parts = [f"{cell.label}: {time_text(ours.time.median)}"]
    for peer in cell.peers:
        ratio = cell.speed_ratio(peer.name)
        if ratio is not None:
            mark = " ▼ slower" if verdict(ratio) == SLOWER else ""
            parts.append(f"{peer.name} {ratio_text(ratio.median)}{mark}")
        else:
            parts.append(f"{peer.name} {peer.status}")
    share = cell.share_of_bound(ours.name)
    if share is not None:
        parts.append(f"{100 * share.median:.0f} % of copy")
    parts.append(f"{ulp_text(ours.accuracy.max_ulp)} ULP")
    if ours.status != "ok":
        parts.append(f"{ours.status}: {ours.reason}")
    return ", ".join(parts)


class _Lines:
    """A line a cell: for files and pipes."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0

    def begins(self, task: Task) -> None:
        pass

    def ends(self, task: Task, cell: Cell) -> None:
        self._done += 1
        place = f"[{self._done:>{len(str(self._total))}}/{self._total}]"
        print_line(self._console, f"{place} {cell_line(cell)}")


class _Bar:
    """A bar with the time left, and a line a cell above it."""

    def __init__(self, bar: Progress, total: float) -> None:
        self._bar, self._id = bar, bar.add_task("starting", total=total)

    def begins(self, task: Task) -> None:
        self._bar.update(self._id, description=f"{task.op} of {task.workload.name} {task.dtype}")

    def ends(self, task: Task, cell: Cell) -> None:
        self._bar.console.print(Text(cell_line(cell)))
        self._bar.advance(self._id, task.weight)


@contextmanager
def progress(console: Console, plan: Plan) -> Iterator[Display]:
    """A display of the plan's progress that suits the console."""
    if not console.is_terminal:
        yield _Lines(console, len(plan.tasks))
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        # Drawing costs time on the cores that are being measured.
        refresh_per_second=1,
        transient=True,
    )
    with bar:
        yield _Bar(bar, sum(task.weight for task in plan.tasks))


def print_line(console: Console, text: str) -> None:
    """A line as it is: no markup, and no breaks where there is no terminal to fit."""
    console.print(Text(text), soft_wrap=True)


def _table(summary: Summary, *, brief: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(columns(summary, brief=brief)):
        table.add_column(name, justify="left" if i < 3 else "right")
    for row in summary.rows:
        table.add_row(*map(Text, cells(summary, row, brief=brief)), style="bold" if row.loses else "")
    return table


def print_summary(console: Console, summary: Summary) -> None:
    """The table of all cells, without intervals and shapes where the terminal is narrow, and the headline."""
    if not console.is_terminal:
        # A file has no width: nothing is to be cut or broken there.
        console = Console(file=console.file, width=1000, highlight=False)
    table = _table(summary, brief=False)
    if Measurement.get(console, console.options.update(width=1000), table).maximum > console.width:
        table = _table(summary, brief=True)
        print_line(console, "\n(≈ level, ▼ slower; shapes, quantiles and each peer's ULP stand on the page)")
    print_line(console, "")
    console.print(table)
    print_line(console, "")
    for line in headline(summary):
        print_line(console, line)


def print_grid(console: Console, results: Results) -> None:
    """A row a regime, and the grid in a sentence."""
    heads, *rows = regimes.brief_table(results)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(heads):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    print_line(console, "")
    console.print(table)
    print_line(console, "")
    for line in regimes.headline(regimes.lines(results)):
        print_line(console, line)


def print_changes(console: Console, found: list[compare.Change], differences: list[str]) -> None:
    """A row a cell of two runs, what differs between the runs, and how many cells changed."""
    if not console.is_terminal:
        console = Console(file=console.file, width=1000, highlight=False)
    heads, *rows = compare.table(found)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, name in enumerate(heads):
        table.add_column(name, justify="left" if i in (0, 4) else "right")
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if row[4] in (compare.FASTER, compare.SLOWER) else "")
    console.print(table)
    print_line(console, "")
    for line in differences:
        print_line(console, f"The runs differ in {line}.")
    counts = {verdict: sum(change.verdict == verdict for change in found) for verdict in compare.VERDICTS}
    print_line(console, ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) + ".")
