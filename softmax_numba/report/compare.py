"""Two results files side by side: which cells changed by more than the noise of both runs.

Two runs have no rounds in common, so that their times say little about each other on a shared machine. What each run
does have is yardsticks that were timed in the same rounds: the peers and the plain copy. A cell has changed if, by
every yardstick that both runs have in the same version, the middle three fifths of the ratios do not overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from softmax_numba.bench.requests import RequestError
from softmax_numba.bench.results import Cell, Results, read
from softmax_numba.bench.timing import Spread, ratio
from softmax_numba.report.words import ratio_text, time_text, ulp_text

__all__ = [
    "FASTER",
    "LEVEL",
    "SLOWER",
    "UNKNOWN",
    "VERDICTS",
    "Change",
    "Yardstick",
    "changes",
    "load",
    "same_setting",
    "table",
]

VERDICTS = FASTER, SLOWER, LEVEL, UNKNOWN = "faster", "slower", "within the noise", "without a yardstick in common"


@dataclass(frozen=True)
class Yardstick:
    """How many times as fast as one contender or bound we were, before and after."""

    name: str
    before: Spread
    after: Spread

    @property
    def verdict(self) -> str:
        if self.after.low > self.before.high:
            return FASTER
        return SLOWER if self.after.high < self.before.low else LEVEL


@dataclass(frozen=True)
class Change:
    """One cell of both runs.

    Attributes
    ----------
    label : str
    before, after : Cell
    yardsticks : tuple of Yardstick
    """

    label: str
    before: Cell
    after: Cell
    yardsticks: tuple[Yardstick, ...]

    @property
    def verdict(self) -> str:
        """What all yardsticks say; what they do not agree on is noise."""
        if not self.yardsticks:
            return UNKNOWN
        found = {yardstick.verdict for yardstick in self.yardsticks}
        return found.pop() if len(found) == 1 else LEVEL

    @property
    def factor(self) -> float:
        """How many times as fast as before: by the steadiest yardstick, or by the clock if there is none."""
        if self.yardsticks:
            steadiest = min(self.yardsticks, key=lambda y: y.before.high / y.before.low * y.after.high / y.after.low)
            return steadiest.after.median / steadiest.before.median
        before, after = self.before.ours.time, self.after.ours.time
        return before.median / after.median if before is not None and after is not None else float("nan")


def load(path: Path) -> Results:
    """The results in a file, or in the folder of a report.

    Raises
    ------
    RequestError
        If there is no such file, or it holds no results.
    """
    file = path / "results.json" if path.is_dir() else path
    try:
        return read(file)
    except OSError as error:
        expected = "expected: a report's folder, or the results.json in it"
        raise RequestError(f"{file} cannot be read: {error.strerror or error}; {expected}") from None
    except ValueError as error:
        raise RequestError(f"{file}: {error}") from None


def changes(before: Results, after: Results) -> Iterator[Change]:
    """The cells that both runs have, in the order of the second."""
    versions = {c.name: c.version for c in before.contenders}
    same = {c.name for c in after.contenders if c.version is not None and versions.get(c.name) == c.version}
    known = {_key(cell): cell for cell in before.cells}
    for cell in after.cells:
        earlier = known.get(_key(cell))
        if earlier is not None:
            yield Change(cell.label, earlier, cell, tuple(_yardsticks(earlier, cell, same)))


def _key(cell: Cell) -> tuple[object, ...]:
    return cell.workload, cell.op, cell.dtype, cell.shape, cell.axis


def _yardsticks(before: Cell, after: Cell, same: set[str]) -> Iterator[Yardstick]:
    for measured in before.measurements:
        other = after.named(measured.name)
        timed = measured.role == "bound" or (measured.role == "peer" and measured.name in same)
        if not timed or other is None or not (measured.seconds and other.seconds):
            continue
        if before.ours.seconds and after.ours.seconds:
            first, second = (ratio(m.seconds, c.ours.seconds) for m, c in ((measured, before), (other, after)))
            yield Yardstick(measured.name, first, second)


def same_setting(before: Results, after: Results) -> list[str]:
    """What differs between the two runs beside the code, in words."""
    pairs = {
        "CPU": (before.machine.cpu, after.machine.cpu),
        "threads": (before.threads, after.threads),
        "seed": (before.seed, after.seed),
        "device": (before.device, after.device),
    }
    packages = sorted(set(before.machine.versions) | set(after.machine.versions))
    pairs |= {name: tuple(r.machine.versions.get(name, "–") for r in (before, after)) for name in packages}  # type: ignore[misc]
    return [f"{name}: {first}, then {second}" for name, (first, second) in pairs.items() if first != second]


def table(found: list[Change]) -> list[tuple[str, ...]]:
    """Heads and a row a cell, from what lost most to what gained most."""
    heads = ("cell", "before", "after", "times as fast", "verdict", "ULP before", "ULP after")
    rows = [
        (
            change.label,
            *(_time(cell) for cell in (change.before, change.after)),
            ratio_text(change.factor),
            change.verdict,
            *(_ulp(cell) for cell in (change.before, change.after)),
        )
        for change in sorted(found, key=lambda change: change.factor)
    ]
    return [heads, *rows]


def _time(cell: Cell) -> str:
    return cell.ours.status if cell.ours.time is None else time_text(cell.ours.time.median)


def _ulp(cell: Cell) -> str:
    return ulp_text(None if cell.ours.accuracy is None else cell.ours.accuracy.max_ulp)
