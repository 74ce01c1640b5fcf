"""Pictures of curves: throughput over length, what threads gain, what precision costs."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from softmax_numba.bench.results import Cell, ContenderInfo, Measurement, Results, thread_counts, with_threads
from softmax_numba.bench.timing import Spread, ratio, spread
from softmax_numba.bench.workloads import OPS
from softmax_numba.report.drawing import (
    GRID,
    INK,
    LIMIT,
    STYLE,
    Picture,
    finished,
    handle_of,
    name_of,
    plain_numbers,
    styles_of,
)

__all__ = ["precision", "threads", "throughput"]

# Less than this lies in caches that differ from length to length.
_LEAST_BYTES = 32_000_000
_DTYPES = ("float16", "bfloat16", "float32", "float64")
Points = Sequence[tuple[float, Spread]]


def _line(axes: Axes, points: Points, colour: str, marker: str, **options: Any) -> None:
    """Medians with a band from the 20 % to the 80 % quantile."""
    x = [place for place, _ in points]
    axes.plot(x, [s.median for _, s in points], color=colour, marker=marker, markersize=4.5, **options)
    axes.fill_between(x, [s.low for _, s in points], [s.high for _, s in points], color=colour, alpha=0.18, linewidth=0)


def _panels(count: int, *, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """One row of panels with room for the title and the legend above."""
    panel = 3.9 if count > 1 else 6.5
    width, height = 1.1 + panel * count, 5.0
    figure = Figure(figsize=(width, height))
    axes = figure.subplots(1, count, sharey=share_y, squeeze=False)[0]
    figure.subplots_adjust(0.85 / width, 0.9 / height, 1 - 0.25 / width, 1 - 1.15 / height, wspace=0.12)
    for a in axes:
        a.grid(color=GRID, linewidth=0.6)
    return figure, list(axes)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    width, height = figure.get_size_inches()
    figure.legend(
        handles=list(handles),
        loc="center left",
        bbox_to_anchor=(0.05 / width, 1 - 0.6 / height),
        ncols=len(handles),
        frameon=False,
        columnspacing=1.4,
    )


def _contenders(results: Results) -> tuple[ContenderInfo, ...]:
    return (results.contenders[0], *results.peers)


def _rate(cell: Cell, m: Measurement | None) -> Spread | None:
    """Gigabytes a second, round by round."""
    if m is None or not m.seconds or m.status != "ok":
        return None
    return spread([1e-9 * (cell.read_bytes + cell.written_bytes) / second for second in m.seconds])


def throughput(results: Results, grid: Results | None) -> Picture | None:
    """GB/s over the length of a lane, with the copy of the same bytes as the limit."""
    if grid is None:
        return None
    cells = [
        cell
        for cell in grid.cells
        if cell.op in OPS
        and (cell.dtype, cell.kind) == ("float32", "throughput")
        and cell.axis % len(cell.shape) == len(cell.shape) - 1
        and cell.workload == "x".join(map(str, cell.shape))
        and cell.read_bytes >= _LEAST_BYTES
        and cell.bound is not None
    ]
    cells.sort(key=lambda cell: (cell.shape[-1], cell.read_bytes))
    ops = [op for op in OPS if len({cell.shape[-1] for cell in cells if cell.op == op}) > 1]
    if not ops:
        return None
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(ops))
        styles = styles_of(grid)
        for axes, op in zip(panels, ops, strict=True):
            # The largest array of each length: the one that is in memory.
            chosen = list({cell.shape[-1]: cell for cell in cells if cell.op == op}.values())
            limit = [(cell.shape[-1], rate) for cell in chosen if (rate := _rate(cell, cell.bound)) is not None]
            _line(axes, limit, LIMIT, "", linewidth=2, zorder=1)
            for contender in _contenders(grid):
                rates = ((cell.shape[-1], _rate(cell, cell.named(contender.name))) for cell in chosen)
                _line(axes, [(x, rate) for x, rate in rates if rate is not None], *styles[contender.name])
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(plain_numbers())
            axes.set_title(op, loc="left", fontsize=10.5)
            axes.set_xlabel("values in a lane")
        panels[0].set_ylabel("GB/s of input and output (log scale)")
        handles = [handle_of(contender, *styles[contender.name]) for contender in _contenders(grid)]
        _legend(figure, [*handles, Line2D([], [], color=LIMIT, linewidth=2, label="plain copy (logsumexp: read)")])
        caption = (
            "Bytes of input and output a second over the length of a lane, float32, arrays of 32 MB and more; higher "
            "is "
            "better. The grey line is what memory allows: the fastest plain copy (logsumexp: read) of the same bytes "
            "in "
            "the same rounds. Arrays differ in size from length to length, which bends the grey line too. Bands reach "
            "from the 20 % to the 80 % quantile."
        )
        return finished(figure, "throughput", caption, grid)


def threads(results: Results, grid: Results | None) -> Picture | None:
    """How many times as fast with more threads as with one, over the length of one lane."""
    if grid is None or grid.threads < 2:
        return None
    cells = sorted((cell for cell in grid.cells if cell.kind == "growth"), key=lambda cell: cell.shape)
    counts = thread_counts(grid.threads)[1:]

    def gain(cell: Cell, name: str, count: int) -> Spread | None:
        judged = cell.named(name)
        if judged is None or judged.status != "ok":
            return None
        one, more = (cell.named(with_threads(name, n, grid.threads)) for n in (1, count))
        if one is None or more is None or not (one.seconds and more.seconds):
            return None
        return ratio(one.seconds, more.seconds)

    lines = [
        (contender, count, points)
        for contender in _contenders(grid)
        for count in counts
        if len(points := [(c.shape[0], g) for c in cells if (g := gain(c, contender.name, count)) is not None]) > 1
    ]
    if not lines:
        return None
    with matplotlib.rc_context(STYLE):
        figure, (axes,) = _panels(1)
        styles, handles = styles_of(grid), []
        for contender, count, points in lines:
            colour, marker = styles[contender.name]
            width = 0.8 + 1.4 * (counts.index(count) + 1) / len(counts)
            _line(axes, points, colour, marker, linewidth=width)
            label = f"{name_of(contender)}, {count} threads"
            handles.append(Line2D([], [], color=colour, marker=marker, linewidth=width, label=label))
        for count in (1, *counts):
            axes.axhline(count, color=INK if count == 1 else LIMIT, linewidth=1.2, zorder=1)
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("values in the lane")
        axes.set_ylabel("times as fast as with one thread")
        _legend(figure, handles)
        caption = (
            "The time with one thread over the time with more, round by round, for softmax of one float32 lane; higher "
            "is better. The black line is one thread, grey lines are as many times as there are threads. Bands reach "
            "from "
            "the 20 % to the 80 % quantile."
        )
        return finished(figure, "threads", caption, grid)


def _by_dtype(results: Results) -> dict[str, dict[str, Cell]]:
    """The cells of softmax in at least three of the four dtypes, by workload and dtype."""
    found: dict[str, dict[str, Cell]] = {}
    for cell in results.cells:
        if (cell.op, cell.kind) == ("softmax", "throughput") and cell.dtype in _DTYPES:
            found.setdefault(cell.workload, {})[cell.dtype] = cell
    return {workload: cells for workload, cells in found.items() if len(cells) > 2}


def precision(results: Results, grid: Results | None) -> Picture | None:
    """Values a second in each of the four floats."""
    source = next((run for run in (grid, results) if run is not None and _by_dtype(run)), None)
    if source is None:
        return None
    found = dict(list(_by_dtype(source).items())[:6])

    def speed(cell: Cell, m: Measurement | None) -> Spread | None:
        if m is None or not m.seconds or m.status != "ok":
            return None
        values = 1e-9 * math.prod(cell.shape)
        return spread([values / second for second in m.seconds])

    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(len(found))
        width, height = max(2.3 * len(found) + 1.1, 7.5), 4.8
        figure.set_size_inches(width, height)
        figure.subplots_adjust(0.85 / width, 0.7 / height, 1 - 0.2 / width, 1 - 1.25 / height, wspace=0.08)
        styles = styles_of(source)
        for axes, (workload, cells) in zip(panels, found.items(), strict=True):
            for contender in _contenders(source):
                colour, marker = styles[contender.name]
                for dtype, cell in cells.items():
                    rate = speed(cell, cell.named(contender.name))
                    if rate is not None:
                        x = _DTYPES.index(dtype)
                        axes.plot([x, x], [rate.low, rate.high], color=colour, linewidth=1.6)
                        axes.plot([x], [rate.median], color=colour, marker=marker, markeredgecolor=INK, linestyle="")
            axes.set_xticks(range(4), ["f16", "bf16", "f32", "f64"])
            axes.set_xlim(-0.5, 3.5)
            axes.set_title(source.workload(workload).title, loc="left", fontsize=9.5)
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_formatter(plain_numbers())
        panels[0].set_ylabel("10⁹ values a second (log scale)")
        _legend(figure, [handle_of(contender, *styles[contender.name]) for contender in _contenders(source)])
        caption = (
            "Values of softmax a second in float16, bfloat16, float32 and float64, a panel a shape; higher is better. "
            "Half types compute in float32 and move half its bytes. Whiskers reach from the 20 % to the 80 % quantile."
        )
        return finished(figure, "precision", caption, source)
