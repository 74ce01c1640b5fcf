"""What a value costs, the longer its lane: one lane of every size, every number of threads; a table and a picture."""

from collections.abc import Iterator

import matplotlib
from matplotlib.figure import Figure

from softmax_numba.bench.results import Cell, ContenderInfo, Results, thread_counts, with_threads
from softmax_numba.report.drawing import (
    GRID,
    QUESTIONS,
    STYLE,
    Picture,
    name_of,
    plain_numbers,
    provenance,
    saved,
    styles_of,
)

__all__ = ["draw", "table"]


def _cells(results: Results) -> list[Cell]:
    """The growing lanes, the shortest first."""
    return sorted((cell for cell in results.cells if cell.kind == "growth"), key=lambda cell: cell.shape)


def _series(results: Results) -> Iterator[tuple[ContenderInfo, int, str]]:
    """Each contender with each number of threads, and what the cells call that."""
    for contender in (results.contenders[0], *results.peers):
        for count in thread_counts(results.threads):
            yield contender, count, with_threads(contender.name, count, results.threads)


def _threads_text(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _right(cell: Cell, contender: str) -> bool:
    """Whether the contender's result is: that of fewer threads is judged by that of all."""
    m = cell.named(contender)
    return m is not None and m.status == "ok"


def _cost(cell: Cell, contender: str, name: str) -> str:
    """Nanoseconds a value, or why there is no figure."""
    judged, m = cell.named(contender), cell.named(name)
    if judged is not None and judged.status != "ok":
        return judged.status
    return "–" if m is None or m.time is None else f"{1e9 * m.time.median / cell.shape[0]:.3g}"


def table(results: Results) -> list[list[str]]:
    """A row a length: nanoseconds a value, a column a contender and number of threads; empty without such cells."""
    cells, series = _cells(results), list(_series(results))
    if not cells:
        return []
    rows = [["values", *(f"{contender.title}, {_threads_text(count)}" for contender, count, _ in series)]]
    costs = ([_cost(cell, contender.name, name) for contender, _, name in series] for cell in cells)
    return rows + [[f"{cell.shape[0]:,}", *row] for cell, row in zip(cells, costs, strict=True)]


def draw(results: Results) -> Picture | None:
    """The same as a picture; None where there is no line to draw."""
    cells, counts, styles = _cells(results), thread_counts(results.threads), styles_of(results)
    drawn = [
        sum(_right(cell, contender.name) for cell in cells) for contender in (results.contenders[0], *results.peers)
    ]
    if max(drawn) < 2:
        return None
    caption = (
        "One lane of float32, softmax into a given result: nanoseconds a value over the lane's length, both axes "
        "logarithmic; lower is better. Bands reach from the 20 % to the 80 % quantile of the rounds. Fewer threads "
        "are drawn thinner."
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.2, 5.2), layout="constrained")
        axes = figure.add_subplot()
        for contender, count, name in _series(results):
            colour, shape = styles[contender.name]
            right = [cell for cell in cells if _right(cell, contender.name)]
            found = [(cell.shape[0], m.time) for cell in right if (m := cell.named(name)) and m.time]
            lengths = [length for length, _ in found]
            low, middle, high = (
                [1e9 * getattr(time, part) / length for length, time in found] for part in ("low", "median", "high")
            )
            share = (counts.index(count) + 1) / len(counts)
            axes.plot(
                lengths,
                middle,
                color=colour,
                marker=shape,
                markersize=3 + 3 * share,
                linewidth=0.6 + 1.6 * share,
                label=f"{name_of(contender)}, {_threads_text(count)}",
            )
            axes.fill_between(lengths, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plain_numbers())
        axes.set_xlabel("values in the lane")
        axes.set_ylabel("nanoseconds a value")
        axes.grid(color=GRID, linewidth=0.6)
        axes.legend(frameon=False)
        figure.suptitle(QUESTIONS["growth"], x=0.01, ha="left", fontsize=12, fontweight="bold")
        axes.set_title(provenance(results), loc="left", fontsize=8.5)
        return Picture("growth", caption, saved(figure, "svg"), saved(figure, "png"), results.command)
