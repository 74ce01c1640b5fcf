"""Is speed bought with accuracy? A dot a library and op: its time beside its largest error."""

from math import log10
from statistics import geometric_mean

import matplotlib
from matplotlib.figure import Figure

from softmax_numba.bench.results import Cell, Results
from softmax_numba.bench.workloads import OPS
from softmax_numba.report.drawing import GRID, INK, LIMIT, STYLE, Picture, finished, handle_of, log_axis, styles_of
from softmax_numba.report.summary import promised_ulp
from softmax_numba.report.words import ulp_text

__all__ = ["draw"]


def _dot(cells: list[Cell], name: str) -> tuple[float, float, float, float] | None:
    """Time over ours with its quantiles, geometric means over the cells, and the largest error in them."""
    ratios, errors = [], []
    for cell in cells:
        ratio, m = cell.speed_ratio(name), cell.named(name)
        if ratio is not None and m is not None and m.accuracy is not None and m.accuracy.max_ulp is not None:
            ratios.append(ratio)
            errors.append(m.accuracy.max_ulp)
    if not ratios:
        return None
    low, middle, high = (
        geometric_mean([getattr(ratio, part) for ratio in ratios]) for part in ("low", "median", "high")
    )
    return low, middle, high, max(errors)


def draw(results: Results, grid: Results | None) -> Picture | None:
    """A panel an op; left and low is better."""
    contenders = (results.contenders[0], *results.peers)
    ops = [op for op in OPS if any(cell.op == op and cell.peers for cell in results.cells)]
    if not ops:
        return None
    caption = (
        "A marker a library: its time over softmax-numba's, geometric mean over the cells that both have, beside its "
        "largest error in them, in units in the last place; both axes logarithmic, left and low is better. Whiskers: "
        "the geometric means of the 20 % and 80 % quantiles. The grey line is the bound that softmax-numba promises. "
        "Wrong results take no part."
    )
    width, height = 1.1 + 3.9 * len(ops), 4.9
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        panels = figure.subplots(1, len(ops), sharex=True, sharey=True, squeeze=False)[0]
        figure.subplots_adjust(0.85 / width, 0.85 / height, 1 - 0.25 / width, 1 - 1.15 / height, wspace=0.1)
        styles = styles_of(results)
        for axes, op in zip(panels, ops, strict=True):
            cells = [cell for cell in results.cells if cell.op == op]
            dots = [(contender, dot) for contender in contenders if (dot := _dot(cells, contender.name)) is not None]
            for contender, (low, middle, high, error) in dots:
                colour, marker = styles[contender.name]
                axes.plot([low, high], [error, error], color=colour, linewidth=1.6)
                axes.plot([middle], [error], color=colour, marker=marker, markersize=8, markeredgecolor=INK)
                # Of two dots that touch, the lower one's number stands below.
                under = any(abs(log10(middle / d[1])) < 0.15 and error < d[3] < 10 * error for _, d in dots)
                away, side = (-8, "top") if under else (8, "bottom")
                axes.annotate(
                    ulp_text(error),
                    (middle, error),
                    (0, away),
                    textcoords="offset points",
                    ha="center",
                    va=side,
                    fontsize=8,
                )
            axes.axhline(promised_ulp(op, "float32"), color=LIMIT, linewidth=2, zorder=1)
            axes.grid(color=GRID, linewidth=0.6)
            axes.set_title(op, loc="left", fontsize=10.5)
            axes.set_xlabel("time / softmax-numba's (log scale)")
        panels[0].set_yscale("log")
        panels[0].margins(0.15, 0.12)
        log_axis(panels[0], "×", least=(0.7, 10.0))
        panels[0].set_ylabel("largest error in ULP (log scale)")
        figure.legend(
            handles=[handle_of(contender, *styles[contender.name]) for contender in contenders],
            loc="center left",
            bbox_to_anchor=(0.05 / width, 1 - 0.6 / height),
            ncols=len(contenders),
            frameon=False,
        )
        return finished(figure, "tradeoff", caption, results)
