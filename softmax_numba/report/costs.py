"""What a library costs besides its speed: memory at the peak of a call, and the time until the first result."""

from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from softmax_numba.bench.processes import PEAK_SHAPE, ProcessCost
from softmax_numba.bench.results import Results
from softmax_numba.bench.timing import spread
from softmax_numba.bench.workloads import OPS
from softmax_numba.report.drawing import GRID, INK, STYLE, Picture, finished, log_axis, name_of, styles_of
from softmax_numba.report.words import time_text

__all__ = ["memory", "start"]

_LEAST_SECONDS = 1e-4


def _known(results: Results) -> list[tuple[ProcessCost, str]]:
    titles = {contender.name: name_of(contender) for contender in results.contenders}
    later = {True: "", False: ", nothing compiled yet"}
    return [(cost, titles[cost.name] + later[cost.compiled]) for cost in results.processes if cost.first_seconds]


def _bars(panels: int, rows: int, draw: Callable[[list[Axes]], None], panel: float = 3.3) -> Figure:
    width, height = 3.7 + panel * panels, 1.7 + 0.42 * rows
    figure = Figure(figsize=(width, height))
    axes = list(figure.subplots(1, panels, sharex=True, sharey=True, squeeze=False)[0])
    figure.subplots_adjust(3.4 / width, 0.8 / height, 1 - 0.3 / width, 1 - 0.85 / height, wspace=0.12)
    for a in axes:
        a.margins(0.15, 0.1)
    draw(axes)
    axes[0].invert_yaxis()
    for a in axes:
        a.grid(axis="x", color=GRID, linewidth=0.6)
        a.set_axisbelow(True)
        for side in ("top", "right"):
            a.spines[side].set_visible(False)
    return figure


def memory(results: Results) -> Picture | None:
    """A panel an op: bytes at the peak over the bytes of the input."""
    known = [(cost, title) for cost, title in _known(results) if cost.peak_bytes and cost.compiled]
    if not known:
        return None
    size = 4 * PEAK_SHAPE[0] * PEAK_SHAPE[1]
    styles = styles_of(results)

    def draw(panels: list[Axes]) -> None:
        for axes, op in zip(panels, OPS, strict=True):
            for row, (cost, _) in enumerate(known):
                peak = (cost.peak_bytes or {}).get(op)
                if peak is None:
                    continue
                axes.barh(row, peak / size, color=styles[cost.name][0], edgecolor=INK, linewidth=0.6)
                axes.annotate(
                    f"{peak / size:.2f}×",
                    (peak / size, row),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                )
            axes.set_title(op, loc="left", fontsize=10.5)
            axes.set_xlabel("peak memory / size of the input")
        panels[0].set_yticks(range(len(known)), [title for _, title in known])

    with matplotlib.rc_context(STYLE):
        caption = (
            f"What is resident at the peak of one call on {PEAK_SHAPE[0]:,} × {PEAK_SHAPE[1]:,} float32 values, "
            "besides "
            "the input and the given result, in sizes of the input; less is better. A library without out= pays for "
            "its result here. Each in a process of its own, after a first call."
        )
        return finished(_bars(len(OPS), len(known), draw), "memory", caption, results)


def start(results: Results) -> Picture | None:
    """Until the library is imported, and until its first result."""
    known = _known(results)
    if not known:
        return None
    styles = styles_of(results)

    def draw(panels: list[Axes]) -> None:
        (axes,) = panels
        for row, (cost, _) in enumerate(known):
            imported, whole = spread(cost.import_seconds), cost.until_first
            if whole is None:
                continue
            colour, marker = styles[cost.name]
            # NumPy's, which is there already, would take the axis to a microsecond.
            begin = max(imported.median, _LEAST_SECONDS)
            axes.plot([begin, whole.median], [row, row], color=colour, linewidth=1)
            axes.plot([whole.low, whole.high], [row, row], color=colour, linewidth=4, alpha=0.5)
            axes.plot([begin], [row], color="white", marker=marker, markeredgecolor=colour, zorder=3)
            axes.plot([whole.median], [row], color=colour, marker=marker, markeredgecolor=INK, zorder=3)
            place: Any = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}
            axes.annotate(time_text(whole.median), (whole.high, row), (8, 0), **place)
        axes.set_yticks(range(len(known)), [title for _, title in known])
        log_axis(axes, " s", least=(_LEAST_SECONDS, 10.0))
        axes.set_xlabel("seconds (log scale): imported (hollow), first result (full)")

    with matplotlib.rc_context(STYLE):
        caption = (
            "From the import, NumPy being there, to the first softmax of 4 × 10 float32 values, in a new process; left "
            "is better. softmax-numba imports Numba, and its very first call on a machine compiles; what is compiled "
            "is kept for later processes. Wide strokes reach from the 20 % to the 80 % quantile of the processes; less "
            "than a tenth of a millisecond is drawn as that."
        )
        return finished(_bars(1, len(known), draw, panel=6.5), "start", caption, results)
