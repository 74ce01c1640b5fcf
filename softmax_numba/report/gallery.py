"""All pictures of a report, and what to run for those whose figures are not there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from softmax_numba.bench.results import Results
from softmax_numba.report import costs, curves, figures, growth, heatmap, tradeoff
from softmax_numba.report.drawing import QUESTIONS, Picture
from softmax_numba.report.findings import finding

__all__ = ["Absent", "absent", "draw"]

_REPORT, _FULL, _GRID = (
    "softmax-numba report --out DIR",
    "softmax-numba report --full --out DIR",
    "softmax-numba speed --out DIR/speed",
)


@dataclass(frozen=True)
class Absent:
    """A picture that is not there: its question, and what measures what it would show."""

    title: str
    command: str


@dataclass(frozen=True)
class _Entry:
    """A picture's name, what measures it, and what draws it of a report and the grid beside it."""

    name: str
    command: str
    make: Callable[[Results, Results | None], Picture | None]


def _of_report(make: Callable[[Results], Picture | None]) -> Callable[[Results, Results | None], Picture | None]:
    return lambda results, grid: make(results)


def _of_grid(make: Callable[[Results], Picture | None]) -> Callable[[Results, Results | None], Picture | None]:
    return lambda results, grid: None if grid is None else make(grid)


_ENTRIES = (
    _Entry("speed", _REPORT, _of_report(figures.speed)),
    _Entry("map", _GRID, heatmap.draw),
    _Entry("throughput", _GRID, curves.throughput),
    _Entry("bandwidth", _REPORT, _of_report(figures.bandwidth)),
    _Entry("accuracy", _REPORT, _of_report(figures.accuracy)),
    _Entry("tradeoff", _REPORT, tradeoff.draw),
    _Entry("latency", _REPORT, _of_report(figures.latency)),
    _Entry("threads", _GRID, curves.threads),
    _Entry("growth", _GRID, _of_grid(growth.draw)),
    _Entry("precision", _GRID, curves.precision),
    _Entry("memory", _FULL, _of_report(costs.memory)),
    _Entry("start", _FULL, _of_report(costs.start)),
)


def draw(results: Results, grid: Results | None = None) -> tuple[Picture, ...]:
    """The pictures for which the results, or the grid beside them, hold anything; the most important first."""
    made = (entry.make(results, grid) for entry in _ENTRIES)
    return tuple(replace(picture, finding=finding(picture.name, results)) for picture in made if picture is not None)


def absent(pictures: Sequence[Picture]) -> tuple[Absent, ...]:
    """The pictures that are not among these."""
    names = {picture.name for picture in pictures}
    return tuple(Absent(QUESTIONS[entry.name], entry.command) for entry in _ENTRIES if entry.name not in names)
