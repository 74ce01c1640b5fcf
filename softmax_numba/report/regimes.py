"""The grid of regimes as a table: what each cell gains over PyTorch, what it must, and how far it is from the limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from softmax_numba.bench import drawn
from softmax_numba.bench.regimes import REGIMES, Regime
from softmax_numba.bench.results import Cell, Measurement, Results
from softmax_numba.bench.roofline import EXPONENTIAL
from softmax_numba.bench.timing import Spread, ratio
from softmax_numba.bench.workloads import TRAINING_OPS
from softmax_numba.report import growth
from softmax_numba.report.summary import FASTER, LEVEL, SLOWER, verdict
from softmax_numba.report.text import facts, pipes
from softmax_numba.report.words import digits_text, ratio_text, time_text, ulp_text

__all__ = ["PEER", "Line", "brief_table", "headline", "lines", "markdown"]

PEER = "torch"
_DRAWN = "Shapes drawn at random"


@dataclass(frozen=True)
class Line:
    """One regime as it was measured."""

    regime: Regime
    cells: tuple[Cell, ...]

    @property
    def ratios(self) -> tuple[Spread, ...]:
        return tuple(r for cell in self.cells if (r := cell.speed_ratio(PEER)) is not None)

    @property
    def mean(self) -> float | None:
        medians = [r.median for r in self.ratios]
        return geometric_mean(medians) if medians else None

    @property
    def met(self) -> int:
        """In how many cells the median reaches the goal."""
        return sum(r.median >= self.regime.goal for r in self.ratios)


def lines(results: Results) -> tuple[Line, ...]:
    """The regimes that were measured, each with its cells: of drawn ones, however many by whatever seed."""
    by_key = {(cell.workload, cell.op, cell.dtype): cell for cell in results.cells}
    found = []
    for regime in REGIMES.values():
        if regime.name == drawn.NAME:
            cells = tuple(cell for cell in results.cells if drawn.is_drawn(cell.workload))
        else:
            keys = [(task.workload.name, task.op, task.dtype) for task in regime.tasks]
            cells = tuple(by_key[key] for key in keys if key in by_key)
        if cells:
            found.append(Line(regime, cells))
    return tuple(found)


def _against(cell: Cell, bound: str | None) -> Spread | None:
    """Our time over a bound's, round by round; None is the fastest way to move the bytes."""
    measured = cell.bound if bound is None else cell.named(bound)
    if measured is None or not measured.seconds or cell.ours.status != "ok":
        return None
    return ratio(cell.ours.seconds, measured.seconds)


def _times(spread: Spread | None) -> str:
    return "–" if spread is None else ratio_text(spread.median)


def _median(measured: Measurement | None) -> str:
    return "–" if measured is None or measured.time is None else time_text(measured.time.median)


def _ratio(spread: Spread) -> str:
    return f"{ratio_text(spread.median)} ({digits_text(spread.low)}–{digits_text(spread.high)})"


def _row(results: Results, regime: Regime, cell: Cell) -> list[str]:
    gained = cell.speed_ratio(PEER)
    ours = cell.ours
    return [
        regime.title,
        results.workload(cell.workload).title,
        cell.op,
        cell.dtype,
        _median(ours) if ours.status == "ok" else ours.status,
        "–" if gained is None else _ratio(gained),
        f"{regime.goal:g}×" + ("" if gained is None or gained.median >= regime.goal else " ▼"),
        _times(_against(cell, None)),
        _times(_against(cell, EXPONENTIAL)),
        ulp_text(None if ours.accuracy is None else ours.accuracy.max_ulp),
    ]


_HEADS = ("regime", "shape", "op", "dtype", "time", "vs PyTorch (20–80 %)", "goal", "copies", "exps", "max ULP")


def _compared(found: Sequence[Line], by_lot: bool) -> list[tuple[Line, Cell, Spread]]:
    """The cells with a ratio to PyTorch: those that were drawn by lot, or all others."""
    some = (line for line in found if (line.regime.name == drawn.NAME) == by_lot)
    return [(line, cell, r) for line in some for cell in line.cells if (r := cell.speed_ratio(PEER)) is not None]


def _standing(cells: Sequence[tuple[Line, Cell, Spread]]) -> str:
    medians = [r.median for _, _, r in cells]
    _, worst, least = min(cells, key=lambda item: item[2].median)
    met = sum(r.median >= line.regime.goal for line, _, r in cells)
    counts = {word: sum(verdict(r) == word for _, _, r in cells) for word in (FASTER, LEVEL, SLOWER)}
    standing = ", ".join(f"{word} in {count}" for word, count in counts.items())
    return (
        f"{ratio_text(geometric_mean(medians))} PyTorch's speed in the geometric mean of {len(cells)} cells; "
        f"{standing}, by the 20 % and 80 % quantiles of the rounds; at their goal in {met}; least: "
        f"{_ratio(least)} in {worst.label}."
    )


def headline(found: Sequence[Line]) -> list[str]:
    """The grid in a few sentences: the cells that were chosen, and those that were drawn by lot."""
    chosen, by_lot = _compared(found, by_lot=False), _compared(found, by_lot=True)
    said = [_standing(chosen)] if chosen else []
    said += [f"{_DRAWN}: {_standing(by_lot)}"] if by_lot else []
    return said or ["No cell was compared with PyTorch."]


def brief_table(results: Results) -> list[list[str]]:
    """A row a regime: its cells, the geometric mean, the least and the most, and how many are at their goal."""
    rows = [["regime", "cells", "mean", "least", "most", "goal", "at goal"]]
    for line in lines(results):
        medians = [r.median for r in line.ratios]
        if line.mean is None:
            continue
        rows.append(
            [
                line.regime.title,
                str(len(medians)),
                ratio_text(line.mean),
                ratio_text(min(medians)),
                ratio_text(max(medians)),
                f"{line.regime.goal:g}×",
                f"{line.met} of {len(medians)}",
            ]
        )
    return rows


def _slower(found: Sequence[Line]) -> list[str]:
    """The drawn cells in which PyTorch is faster, the worst first; nothing where none was compared."""
    cells = _compared(found, by_lot=True)
    if not cells:
        return []
    slower = sorted(((cell, r) for _, cell, r in cells if verdict(r) == SLOWER), key=lambda item: item[1].median)
    text = ["", f"## {_DRAWN}: where it is slower", ""]
    if not slower:
        return [*text, f"In none of {len(cells)} cells, by the 20 % and 80 % quantiles of the rounds."]
    rows = [["shape", "axis", "op", "dtype", "time", "PyTorch's", "vs PyTorch (20–80 %)"]]
    for cell, gained in slower:
        times = [_median(cell.ours), _median(cell.named(PEER))]
        rows.append([" × ".join(map(str, cell.shape)), str(cell.axis), cell.op, cell.dtype, *times, _ratio(gained)])
    return [*text, f"In {len(slower)} of {len(cells)} cells, the worst first:", "", *pipes(rows)]


_TRAINING = (
    "Losses and ways back: PyTorch's are cross_entropy; cross_entropy and backward(), the gradients of the call before "
    "dropped; what its autograd calls for softmax and log_softmax; cross_entropy(hidden @ weight.T) and backward(). "
    "Copies: a loss is bound by a read, a way back by reading two arrays and writing one. The products of our linear "
    "layer are NumPy's, which takes all threads of the machine. ULP: of a loss, or of the largest term of a gradient's "
    "entry; of a linear layer, of the sum of its terms' sizes."
)


def markdown(results: Results) -> str:
    """``regimes.md``."""
    found = lines(results)
    text = ["# softmax-numba and PyTorch over the grid of regimes", ""]
    text += [f"- {line}" for line in headline(found)]
    text += ["", "How to repeat it:", "", f"    {results.command}", ""]
    text += [f"- {what}: {value}" for what, value in facts(results)]
    text += ["", *pipes(brief_table(results)), ""]
    text += pipes([_HEADS, *(_row(results, line.regime, cell) for line in found for cell in line.cells)])
    text += _slower(found)
    rows = growth.table(results)
    if rows:
        text += ["", "## One lane of every size: nanoseconds a value", "", "![the same as a picture](growth.svg)", ""]
        text += pipes(rows)
    text += [
        "",
        "vs PyTorch: its time over ours, round by round, both into a given result unless the regime says otherwise; "
        "median and 20 % and 80 % quantiles; ▼ below the goal. Copies: how many times as long it takes as the fastest "
        "plain copy (logsumexp: read) of the same bytes. Exps: as the bare exponential of the same elements.",
    ]
    if any(cell.op in TRAINING_OPS for line in found for cell in line.cells):
        text += ["", _TRAINING]
    return "\n".join(text) + "\n"
