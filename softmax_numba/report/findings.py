"""The answer to a picture's question, in a sentence: computed from the same rounds, never typed."""

from collections.abc import Callable
from math import prod

from softmax_numba.bench.results import Cell, Results
from softmax_numba.report.summary import summarise
from softmax_numba.report.words import bytes_text, ratio_text, time_text, ulp_text

__all__ = ["finding"]


def finding(name: str, results: Results) -> str:
    """What the picture of that name shows; empty where its figures have no such short answer.

    Parameters
    ----------
    name : str
        The picture's.
    results : Results
        The run that it is drawn of.
    """
    answer = _ANSWERS.get(name)
    return answer(results) if answer is not None else ""


def _ours(results: Results) -> str:
    return results.contenders[0].name


def _speed(results: Results) -> str:
    parts = [
        f"{ratio_text(s.mean.median)} as fast as {s.title} (faster in {s.count('faster')} of "
        f"{len(s.ratios)} cells, slower in {s.count('slower')})"
        for s in summarise(results).standings
        if s.mean is not None
    ]
    return f"In the geometric mean {', '.join(parts)}." if parts else ""


def _bandwidth(results: Results) -> str:
    shares = [(share.median, cell) for cell in results.cells if (share := cell.share_of_bound(_ours(results)))]
    if not shares:
        return ""
    shares.sort(key=lambda pair: pair[0])
    (low, worst), (high, best) = shares[0], shares[-1]
    return f"From {100 * low:.0f} % of the limit, {worst.label}, to {100 * high:.0f} %, {best.label}."


def _accuracy(results: Results) -> str:
    summary = summarise(results)
    if summary.max_ulp is None:
        return ""
    others = [f"{s.title} {ulp_text(s.max_ulp)}" for s in summary.standings if s.max_ulp is not None]
    return f"At most {ulp_text(summary.max_ulp)} ULP{'; ' * bool(others)}{', '.join(others)}."


def _tradeoff(results: Results) -> str:
    pairs = better = 0
    for cell in results.cells:
        for peer in results.peers:
            ratio, errors = cell.speed_ratio(peer.name), [_error(cell, name) for name in (_ours(results), peer.name)]
            if ratio is None or None in errors:
                continue
            pairs += 1
            better += ratio.high < 1 or errors[1] < errors[0]  # type: ignore[operator]
    if not pairs:
        return ""
    return f"Cell by cell, a library is faster or more exact than softmax-numba in {better} of {pairs} comparisons."


def _error(cell: Cell, name: str) -> float | None:
    measured = cell.named(name)
    return None if measured is None or measured.accuracy is None else measured.accuracy.max_ulp


def _latency(results: Results) -> str:
    small = [cell for cell in results.cells if cell.kind == "latency" and cell.ours.time is not None]
    if not small:
        return ""
    cell = min(small, key=lambda cell: prod(cell.shape))
    times = [
        f"{contender.title} {time_text(measured.time.median)}"
        for contender in (results.contenders[0], *results.peers)
        if (measured := cell.named(contender.name)) is not None and measured.time is not None
    ]
    return f"{cell.label}: {', '.join(times)}."


def _memory(results: Results) -> str:
    titles = {contender.name: contender.title for contender in results.contenders}
    parts = [
        f"{titles[c.name]} {bytes_text(c.peak_bytes['softmax'])}"
        for c in results.processes
        if c.compiled and c.peak_bytes and "softmax" in c.peak_bytes
    ]
    return f"softmax takes {', '.join(parts)}." if parts else ""


def _start(results: Results) -> str:
    titles = {contender.name: contender.title for contender in results.contenders}
    parts = [
        f"{titles[c.name]} {time_text(whole.median)}{'' if c.compiled else ' when it has yet to compile'}"
        for c in results.processes
        if (whole := c.until_first) is not None
    ]
    return f"To the first result: {', '.join(parts)}." if parts else ""


_ANSWERS: dict[str, Callable[[Results], str]] = {
    "speed": _speed,
    "bandwidth": _bandwidth,
    "accuracy": _accuracy,
    "tradeoff": _tradeoff,
    "latency": _latency,
    "memory": _memory,
    "start": _start,
}
