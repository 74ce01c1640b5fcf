"""The pictures: one question each, drawn from the rounds in the results.

All share one layout: a row a workload and dtype, a panel an operation, a marker a library.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext

from softmax_numba.bench.results import Cell, ContenderInfo, Results
from softmax_numba.bench.timing import Spread
from softmax_numba.report.drawing import (
    GRID,
    INK,
    LIMIT,
    QUESTIONS,
    STYLE,
    Picture,
    handle_of,
    log_axis,
    provenance,
    saved,
    styles_of,
)
from softmax_numba.report.summary import promised_ulp
from softmax_numba.report.words import ratio_text, ulp_text

__all__ = ["accuracy", "bandwidth", "latency", "speed"]

_BAND, _LOSS = "#f4f4f4", "#fbe9e1"

# An error below this is drawn here: exact results have no place on a logarithmic axis.
_LEAST_ULP = 0.1


@dataclass(frozen=True)
class _Point:
    """A marker; ``note`` is written next to it."""

    value: Spread
    note: str | None = None


_Read = Callable[[Cell, str], _Point | None]


# --- the four questions -------------------------------------------------------------


def speed(results: Results) -> Picture | None:
    def point(cell: Cell, name: str) -> _Point | None:
        ratio = cell.speed_ratio(name)
        if ratio is None:
            return None
        return _Point(ratio, ratio_text(ratio.median) if ratio.median < 1 else None)

    def finish(axes: Axes, op: str) -> None:
        # Losing ratios are written out to the left of their markers, which takes room there.
        log_axis(axes, "×", least=(0.7, 2.0), room=0.2)
        axes.axvline(1, color=INK, linewidth=1.4, zorder=2)
        axes.axvspan(axes.get_xlim()[0], 1, color=_LOSS, zorder=0.5)
        axes.set_xlabel("peer's time / ours (log scale)")

    return _panels(
        results,
        name="speed",
        caption="Markers are medians of ratios taken round by round, whiskers reach from the 20 % to the 80 % "
        "quantile. Right of the line softmax-numba is faster; left of it, in the tinted part, slower, and the ratio is "
        "written out.",
        contenders=results.peers,
        read=point,
        finish=finish,
        kinds=("throughput", "latency"),
    )


def bandwidth(results: Results) -> Picture | None:
    def point(cell: Cell, name: str) -> _Point | None:
        m, share = cell.named(name), cell.share_of_bound(name)
        if share is None or m is None or m.status != "ok":
            return None
        return _Point(Spread(100 * share.median, 100 * share.low, 100 * share.high))

    def finish(axes: Axes, op: str) -> None:
        axes.set_xlim(0, max(105.0, min(axes.get_xlim()[1], 200.0)))
        axes.axvline(100, color=INK, linewidth=1.4, zorder=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %" if value else "0"))
        axes.set_xlabel(f"share of the speed of a plain {'read' if op == 'logsumexp' else 'copy'}")

    return _panels(
        results,
        name="bandwidth",
        caption="The line is the fastest plain copy (for logsumexp: read) of the same bytes with as many threads, "
        "measured in the same rounds: no softmax can beat it by more than noise.",
        contenders=(results.contenders[0], *results.peers),
        read=point,
        finish=finish,
        kinds=("throughput",),
    )


def accuracy(results: Results) -> Picture | None:
    def point(cell: Cell, name: str) -> _Point | None:
        m = cell.named(name)
        if m is None or m.accuracy is None or m.accuracy.max_ulp is None:
            return None
        value = max(m.accuracy.max_ulp, _LEAST_ULP)
        note = "wrong" if m.status == "wrong" else ulp_text(m.accuracy.max_ulp) if value >= 1000 else None
        return _Point(Spread(value, value, value), note)

    def finish(axes: Axes, op: str) -> None:
        log_axis(axes, "", least=(_LEAST_ULP, 10.0))
        axes.xaxis.set_major_formatter(LogFormatterMathtext())  # "100,000" reaches into the next panel
        axes.set_xlabel("largest error in ULP (log scale)")

    return _panels(
        results,
        name="accuracy",
        caption="The largest error over the results that were compared with extended precision, in units in the last "
        "place of the result's type; left is better. The grey line marks the bound that softmax-numba promises. Errors "
        "of less than 0.1 ULP are drawn at 0.1.",
        contenders=(results.contenders[0], *results.peers),
        read=point,
        finish=finish,
        kinds=("throughput", "latency"),
        tick=lambda cell: promised_ulp(cell.op, cell.dtype),
    )


def latency(results: Results) -> Picture | None:
    def point(cell: Cell, name: str) -> _Point | None:
        m = cell.named(name)
        if m is None or m.time is None or m.status != "ok":
            return None
        return _Point(Spread(1e6 * m.time.median, 1e6 * m.time.low, 1e6 * m.time.high))

    def finish(axes: Axes, op: str) -> None:
        log_axis(axes, "", least=(1.0, 10.0))
        axes.set_xlabel("microseconds a call (log scale)")

    return _panels(
        results,
        name="latency",
        caption="The time of a call on an array so small that the arithmetic is nothing; left is better. "
        "Whiskers reach from the 20 % to the 80 % quantile of the rounds.",
        contenders=(results.contenders[0], *results.peers),
        read=point,
        finish=finish,
        kinds=("latency",),
    )


# --- the layout they share ----------------------------------------------------------


@matplotlib.rc_context(STYLE)
def _panels(
    results: Results,
    *,
    name: str,
    caption: str,
    contenders: Sequence[ContenderInfo],
    read: _Read,
    finish: Callable[[Axes, str], None],
    kinds: tuple[str, ...],
    tick: Callable[[Cell], float] | None = None,
) -> Picture | None:
    cells = [cell for cell in results.cells if cell.kind in kinds]
    points = {(id(cell), c.name): read(cell, c.name) for cell in cells for c in contenders}
    if not any(points.values()):
        return None
    rows = list(dict.fromkeys((cell.workload, cell.dtype) for cell in cells))
    ops = list(dict.fromkeys(cell.op for cell in cells))
    styles = styles_of(results)

    # Inches: the room for names and legend is fixed, a row is as high as its markers need.
    row_height = max(0.34, 0.11 * len(contenders) + 0.06)
    left, right, top, bottom = 2.5, 0.25, 1.15, 0.85
    panel = 2.9 if len(ops) > 1 else 5.5
    width = left + right + panel * len(ops) + 0.2 * (len(ops) - 1)
    height = top + bottom + row_height * len(rows)
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(1, len(ops), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height, wspace=0.2 / panel)

    for axes, op in zip(grid[0], ops, strict=True):
        _rows(axes, len(rows), op)
        for cell in (cell for cell in cells if cell.op == op):
            y = rows.index((cell.workload, cell.dtype))
            if tick is not None:
                axes.plot(2 * [tick(cell)], [y - 0.5, y + 0.5], color=LIMIT, linewidth=2, zorder=1.5)
            for i, contender in enumerate(contenders):
                point = points[id(cell), contender.name]
                if point is not None:
                    offset = (i - (len(contenders) - 1) / 2) * 0.72 / len(contenders)
                    _mark(axes, y + offset, point, *styles[contender.name])
        axes.margins(x=0.12)
    # Only now do the panels know the range that they share.
    for axes, op in zip(grid[0], ops, strict=True):
        finish(axes, op)
    grid[0][0].set_yticks(range(len(rows)), [_row_label(results, *row) for row in rows])

    # The title stands over the names too: there it has room in pictures of a single panel.
    figure.text(0.15 / width, 1 - 0.32 / height, QUESTIONS[name], fontsize=13, fontweight="bold", va="center")
    handles = [handle_of(c, *styles[c.name]) for c in contenders]
    if tick is not None:
        handles.append(Line2D([], [], color=LIMIT, linewidth=2, label="softmax-numba's promise"))
    figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=(0.05 / width, 1 - 0.64 / height),
        ncols=len(handles),
        frameon=False,
        columnspacing=1.4,
        handletextpad=0.4,
    )
    figure.text(0.15 / width, 0.16 / height, provenance(results), fontsize=7.5, color="#595959", va="center")
    return Picture(name, caption, saved(figure, "svg"), saved(figure, "png"), results.command)


def _rows(axes: Axes, count: int, op: str) -> None:
    for y in range(0, count, 2):
        axes.axhspan(y - 0.5, y + 0.5, color=_BAND, zorder=0)
    axes.set_ylim(count - 0.5, -0.5)
    axes.set_title(op, fontsize=10.5, loc="left")
    axes.grid(axis="x", color=GRID, linewidth=0.7, zorder=1)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _mark(axes: Axes, y: float, point: _Point, colour: str, shape: str) -> None:
    value = point.value
    axes.plot([value.low, value.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt", zorder=3)
    axes.plot(
        [value.median],
        [y],
        marker=shape,
        color=colour,
        markersize=5.5,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        zorder=4,
    )
    if point.note is not None:
        axes.annotate(
            point.note,
            (value.median, y),
            (-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7.5,
            zorder=5,
        )


def _row_label(results: Results, workload: str, dtype: str) -> str:
    return f"{results.workload(workload).title}, {dtype}"
