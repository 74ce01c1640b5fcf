"""Reports of several machines side by side: a row a machine, a table a workload."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from softmax_numba.bench.requests import RequestError
from softmax_numba.bench.results import Results
from softmax_numba.bench.timing import Spread
from softmax_numba.report.compare import load
from softmax_numba.report.folder import PAGE, RESULTS, write_whole
from softmax_numba.report.page import environment
from softmax_numba.report.summary import Row, Summary, summarise

__all__ = ["Entry", "entries", "render", "write"]


@dataclass(frozen=True)
class Entry:
    """One machine's report, named after its folder."""

    name: str
    summary: Summary

    @property
    def results(self) -> Results:
        return self.summary.results

    def mean(self, peer: str) -> Spread | None:
        """The geometric mean of the ratios to a peer; None where it took no part."""
        return next((s.mean for s in self.summary.standings if s.peer == peer), None)


def entries(folder: Path) -> tuple[Entry, ...]:
    """The reports in the folders of a folder, by name.

    Raises
    ------
    RequestError
        If there is none, or one cannot be read.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{RESULTS}"))
    if not found:
        raise RequestError(f"{folder} has no folder with a {RESULTS}: a folder a machine is expected there")
    return tuple(Entry(path.name, summarise(load(path))) for path in found)


def _workloads(machines: Sequence[Entry]) -> Iterator[tuple[str, str, list[tuple[str, Row]]]]:
    """Each workload's name, title and rows: the same cell of all machines stands together."""
    rows = [(entry.name, row) for entry in machines for row in entry.summary.rows]
    for workload in dict.fromkeys(row.workload for _, row in rows):
        mine = [(name, row) for name, row in rows if row.workload == workload]
        cells = list(dict.fromkeys((row.dtype, row.op) for _, row in mine))
        mine.sort(key=lambda pair: cells.index((pair[1].dtype, pair[1].op)))
        shapes = dict.fromkeys(row.shape for _, row in mine)
        yield workload, f"{mine[0][1].title} {' or '.join(shapes)}", mine


def render(machines: Sequence[Entry]) -> str:
    """The page's text."""
    peers = {peer.name: peer for entry in machines for peer in entry.results.peers}
    template = environment().get_template("machines.html.j2")
    return template.render(
        entries=machines, peers=tuple(peers.values()), workloads=list(_workloads(machines)), page=PAGE
    )


def write(folder: Path) -> Path:
    """Write the page into the folder that has the machines' folders."""
    path = folder / PAGE
    write_whole(path, render(entries(folder)))
    return path
