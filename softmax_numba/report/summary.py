"""What the results say: standings, verdicts, and every cell as a row of words.

The page, the terminal and summary.md print nothing that is not computed here, from the rounds in the results.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

from softmax_numba.bench.results import Cell, Measurement, Results
from softmax_numba.bench.timing import Spread, spread
from softmax_numba.bench.workloads import OPS
from softmax_numba.report.words import digits_text, ratio_text, time_text, ulp_text

__all__ = [
    "FASTER",
    "LEVEL",
    "SLOWER",
    "Note",
    "Row",
    "Standing",
    "Summary",
    "promised_ulp",
    "summarise",
    "verdict",
]

FASTER, LEVEL, SLOWER = "faster", "level", "slower"
_SYMBOLS = {LEVEL: "≈", SLOWER: "▼"}


def verdict(ratio: Spread) -> str:
    """Faster or slower only where the 20 % to 80 % interval of the rounds' ratios lies on one side of 1."""
    if ratio.low > 1:
        return FASTER
    return SLOWER if ratio.high < 1 else LEVEL


@dataclass(frozen=True)
class Standing:
    """All cells against one peer.

    Attributes
    ----------
    peer, title : str
    mean : Spread or None
        Geometric means of the cells' medians, and of their 20 % and 80 % quantiles; None without a cell to
        compare.
    ratios : tuple of (Cell, Spread)
        From the slowest cell to the fastest, in comparison.
    max_ulp : float or None
    ulp : Spread or None
        Of the cells' largest errors.
    wrong : int
        Cells in which the peer's result is wrong; they take no part in the mean.
    """

    peer: str
    title: str
    mean: Spread | None
    ratios: tuple[tuple[Cell, Spread], ...]
    max_ulp: float | None
    ulp: Spread | None
    wrong: int

    def count(self, which: str) -> int:
        return sum(verdict(ratio) == which for _, ratio in self.ratios)


@dataclass(frozen=True)
class Note:
    """A measurement that is not a plain success."""

    contender: str
    status: str
    reason: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One cell in words; the keys of the mappings are peers' names.

    ``keys`` has the numbers that a table is sorted by: "time", "speed", "share", "ulp" and, a peer, "vs NAME" and
    "ulp NAME"; what is unknown is left out.
    """

    workload: str
    title: str
    shape: str
    op: str
    dtype: str
    time: str
    gigabytes: str
    ratios: dict[str, str]
    intervals: dict[str, str]
    verdicts: dict[str, str]
    share: str
    ulp: str
    ulp_exceeds: bool
    peer_ulps: dict[str, str]
    worst_peer_ulp: str
    status: str
    keys: dict[str, float]

    @property
    def loses(self) -> bool:
        return SLOWER in self.verdicts.values() or self.status != "ok"

    @property
    def verdict(self) -> str:
        """The worst against any peer; what is not right has its status."""
        if self.status != "ok":
            return self.status
        return next((word for word in (SLOWER, LEVEL, FASTER) if word in self.verdicts.values()), "not compared")

    @property
    def marks(self) -> dict[str, str]:
        """A symbol for each peer that we are not faster than."""
        return {peer: _SYMBOLS[word] for peer, word in self.verdicts.items() if word != FASTER}

    def ratio_cell(self, peer: str) -> str:
        """Ratio, its interval and, unless we are faster, the verdict in a word."""
        text, interval, word = self.ratios[peer], self.intervals.get(peer), self.verdicts.get(peer)
        if interval is None or word is None:
            return text
        mark = f" {self.marks[peer]} {word}" if peer in self.marks else ""
        return f"{text} ({interval}){mark}"


@dataclass(frozen=True)
class Summary:
    """The results as a page tells them."""

    results: Results
    standings: tuple[Standing, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]
    share: Spread | None
    max_ulp: float | None
    ulp: Spread | None
    exceeding: tuple[Cell, ...]

    @property
    def losing(self) -> tuple[tuple[str, Cell, Spread], ...]:
        """(peer's title, cell, ratio) wherever the median says that we are slower, the worst first."""
        found = [(s.title, cell, ratio) for s in self.standings for cell, ratio in s.ratios if ratio.median < 1]
        return tuple(sorted(found, key=lambda item: item[2].median))

    @property
    def right(self) -> bool:
        """Whether our own result is there and right in every cell."""
        return all(cell.ours.status == "ok" for cell in self.results.cells)

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        return tuple((c.title, c.missing) for c in self.results.contenders if c.missing is not None)


def promised_ulp(op: str, dtype: str) -> float:
    """The documented bound on our error, in ULP; half types are correctly rounded but for ties within 1e-3 ULP.

    Infinite for a linear layer, whose products are those of NumPy's BLAS.
    """
    if op.startswith("linear"):
        return math.inf
    if op not in OPS:  # losses and ways back
        return 8.0
    return 0.501 if op == "softmax" and dtype in ("float16", "bfloat16") else 4.0


def _geometric_mean(spreads: Sequence[Spread]) -> Spread | None:
    """Of the medians, and of either quantile."""
    if not spreads:
        return None
    low, median, high = (geometric_mean([getattr(s, part) for s in spreads]) for part in ("low", "median", "high"))
    return Spread(median, low, high)


def _ulps(measurements: Iterable[Measurement | None]) -> list[float]:
    known = (m.accuracy.max_ulp for m in measurements if m is not None and m.accuracy is not None)
    return [ulp for ulp in known if ulp is not None]


def _max_ulp(measurements: Iterable[Measurement | None]) -> float | None:
    return max(_ulps(measurements), default=None)


def _ulp_spread(measurements: Iterable[Measurement | None]) -> Spread | None:
    known = _ulps(measurements)
    return spread(known) if known else None


def _standing(results: Results, peer: str, title: str) -> Standing:
    pairs = [(cell, ratio) for cell in results.cells if (ratio := cell.speed_ratio(peer)) is not None]
    pairs.sort(key=lambda pair: pair[1].median)
    theirs = [cell.named(peer) for cell in results.cells]
    wrong = sum(m is not None and m.status == "wrong" for m in theirs)
    mean = _geometric_mean([ratio for _, ratio in pairs])
    return Standing(peer, title, mean, tuple(pairs), _max_ulp(theirs), _ulp_spread(theirs), wrong)


def _exceeds(cell: Cell) -> bool:
    ulp = _max_ulp([cell.ours])
    return ulp is not None and ulp > promised_ulp(cell.op, cell.dtype)


def _row(results: Results, cell: Cell) -> Row:
    ratios, intervals, verdicts, ulps = {}, {}, {}, {}
    keys: dict[str, float | None] = {}
    for peer in results.peers:
        m = cell.named(peer.name)
        ratio = cell.speed_ratio(peer.name)
        if ratio is not None:
            ratios[peer.name] = ratio_text(ratio.median)
            intervals[peer.name] = f"{digits_text(ratio.low)}–{digits_text(ratio.high)}"
            verdicts[peer.name] = verdict(ratio)
        else:
            ratios[peer.name] = "–" if m is None or m.status in ("ok", "unsupported") else m.status
        ulps[peer.name] = ulp_text(_max_ulp([m]))
        keys |= {f"vs {peer.name}": None if ratio is None else ratio.median, f"ulp {peer.name}": _max_ulp([m])}
    ours, time, share = cell.ours, cell.ours.time, cell.share_of_bound(cell.ours.name)
    speed = cell.bytes_per_second(ours.name)
    latency = cell.kind == "latency"
    keys |= {"time": None if time is None else time.median, "speed": None if latency else speed}
    keys |= {"share": None if share is None else share.median, "ulp": _max_ulp([ours])}
    return Row(
        workload=cell.workload,
        title=results.workload(cell.workload).title,
        shape=f"({', '.join(map(str, cell.shape))}{',' if len(cell.shape) == 1 else ''}) axis {cell.axis}",
        op=cell.op,
        dtype=cell.dtype,
        time="–" if time is None else time_text(time.median),
        gigabytes="–" if speed is None or latency else digits_text(speed / 1e9),
        ratios=ratios,
        intervals=intervals,
        verdicts=verdicts,
        share="–" if share is None else f"{100 * share.median:.0f} %",
        ulp=ulp_text(_max_ulp([ours])),
        ulp_exceeds=_exceeds(cell),
        peer_ulps=ulps,
        worst_peer_ulp=ulp_text(_max_ulp(cell.peers)),
        status=ours.status,
        keys={what: value for what, value in keys.items() if value is not None},
    )


def _notes(results: Results) -> tuple[Note, ...]:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    titles = {c.name: c.title for c in results.contenders}
    for cell in results.cells:
        for m in cell.measurements:
            if m.status != "ok":
                key = (titles.get(m.name, m.name), m.status, m.reason or "no reason given")
                grouped.setdefault(key, []).append(cell.label)
    return tuple(Note(*key, cells=tuple(cells)) for key, cells in grouped.items())


def summarise(results: Results) -> Summary:
    """Everything that the page, the terminal and summary.md say about the results."""
    shares = [
        share
        for cell in results.cells
        if cell.ours.status == "ok" and (share := cell.share_of_bound(cell.ours.name)) is not None
    ]
    return Summary(
        results=results,
        standings=tuple(_standing(results, peer.name, peer.title) for peer in results.peers),
        rows=tuple(_row(results, cell) for cell in results.cells),
        notes=_notes(results),
        share=_geometric_mean(shares),
        max_ulp=_max_ulp(cell.ours for cell in results.cells),
        ulp=_ulp_spread(cell.ours for cell in results.cells),
        exceeding=tuple(cell for cell in results.cells if _exceeds(cell)),
    )
