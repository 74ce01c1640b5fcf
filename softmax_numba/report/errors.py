"""The largest errors: a row an operation and dtype, a column a library."""

import math
from collections.abc import Sequence

from softmax_numba.bench.results import Results
from softmax_numba.bench.workloads import DTYPES, OPS, TRAINING_OPS
from softmax_numba.report.summary import promised_ulp
from softmax_numba.report.words import ulp_text

__all__ = ["NOTE", "table"]

NOTE = (
    "In units in the last place (ULP) of the result: for log_softmax of 1 where that is more, for logsumexp of the "
    "largest value, for losses and gradients of their largest term, for a linear layer of the sum of its terms' sizes."
)


def table(runs: Sequence[Results]) -> list[list[str]]:
    """The largest error of every contender in all cells of an operation and dtype, headings first.

    Parameters
    ----------
    runs : sequence of Results
        Of one machine, such as a report and the grid of regimes.
    """
    titles = {c.name: c.title for run in runs for c in run.contenders if c.missing is None}
    largest: dict[tuple[str, str], dict[str, float]] = {}
    counts: dict[tuple[str, str], int] = {}
    for cell in (cell for run in runs for cell in run.cells):
        kind = cell.op, cell.dtype
        counts[kind] = counts.get(kind, 0) + 1
        found = largest.setdefault(kind, {})
        for m in (cell.ours, *cell.peers):
            if m.accuracy is not None and m.accuracy.max_ulp is not None:
                found[m.name] = max(found.get(m.name, 0.0), m.accuracy.max_ulp)
    shown = [name for name in titles if any(name in found for found in largest.values())]
    order = {name: place for place, name in enumerate([*OPS, *TRAINING_OPS, *DTYPES])}
    kinds = sorted(largest, key=lambda kind: [order.get(name, len(order)) for name in kind])
    rows = [["op", "dtype", "cells", "promised", *(titles[name] for name in shown)]]
    for kind in kinds:
        bound = promised_ulp(*kind)
        promise = "–" if math.isinf(bound) else f"{bound:g}"
        rows.append([*kind, str(counts[kind]), promise, *(ulp_text(largest[kind].get(name)) for name in shown)])
    return rows
