"""What was measured on a GPU, as a table in Markdown."""

from collections.abc import Iterator

from softmax_numba.bench.results import Cell, Measurement, Results
from softmax_numba.report.words import ratio_text, time_text, ulp_text

__all__ = ["markdown"]

_GRAPH = " (graph)"


def markdown(results: Results) -> str:
    """A row a cell, in the order of measurement."""
    peers = [c.name for c in results.contenders[1:] if c.missing is None]
    titles = [c.title for c in results.contenders[1:] if c.missing is None]
    gpu = "; ".join(results.machine.gpus) or "no GPU: a rehearsal"
    heads = ["cell", "time", "GB/s", "of a copy", "in a graph", "ULP", *(f"× {title}" for title in titles)]
    lines = [
        f"# {gpu}",
        "",
        f"{len(results.cells)} of {results.planned} cells, {results.started}. Times are the device's, medians of",
        "rounds. Of a copy: the time of a copy of as many bytes, over ours. × a library: how many times as fast we",
        "are.",
        "",
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
        *("| " + " | ".join(_row(cell, peers)) + " |" for cell in results.cells),
    ]
    return "\n".join([*lines, "", *_faults(results), ""])


def _row(cell: Cell, peers: list[str]) -> Iterator[str]:
    ours = cell.ours
    shape = " × ".join(map(str, cell.shape)) + (f", axis {cell.axis}" if cell.axis != -1 else "")
    yield f"{cell.op} {shape} {cell.dtype}"
    if ours.time is None:
        yield ours.status
        yield from [""] * (4 + len(peers))
        return
    yield time_text(ours.time.median)
    yield f"{(cell.bytes_per_second(ours.name) or 0) / 1e9:.0f}"
    yield _share(cell, "copy", ours.name)
    yield _share(cell, "copy" + _GRAPH, ours.name + _GRAPH)
    yield ulp_text(None if ours.accuracy is None else ours.accuracy.max_ulp)
    for peer in peers:
        ratio = cell.speed_ratio(peer)
        yield "" if ratio is None else ratio_text(ratio.median)


def _share(cell: Cell, bound: str, name: str) -> str:
    limit, measured = cell.named(bound), cell.named(name)
    if limit is None or measured is None or limit.time is None or measured.time is None:
        return ""
    return f"{100 * limit.time.median / measured.time.median:.0f} %"


def _faults(results: Results) -> Iterator[str]:
    """What failed or was wrong, a line each."""
    wrong: list[tuple[Cell, Measurement]] = [
        (cell, m) for cell in results.cells for m in cell.measurements if m.status in ("failed", "wrong")
    ]
    for cell, m in wrong:
        yield f"- {cell.label}, {m.name}: {m.status}: {m.reason}"
