"""What was measured, and the file that keeps it.

``results.json`` holds an object with these members; times are in seconds, sizes in bytes:

``schema``, ``schema_version``
    ``"softmax-numba-results"`` and 1. A reader refuses a version that it does not know.
``state``
    ``"running"``, ``"complete"`` or ``"interrupted"``; the file is rewritten whole after each cell.
``started``, ``finished``
    UTC, ISO 8601; ``finished`` is null while the state is ``"running"``.
``command``, ``mode``, ``seed``, ``threads``, ``threading_layer``, ``device``
    How it was measured; ``device`` is ``"cpu"``.
``input``
    null, or the user's own array: ``file``, ``key``, ``shape``, ``dtype``, ``axis``.
``machine``
    See :class:`softmax_numba.bench.machine.Machine`.
``contenders``
    One object each, ours first: ``name``, ``title``, ``version``, ``expression``, ``threading``, ``missing``
    (null, or why it took no part).
``workloads``
    One object each: ``name``, ``title``, ``reason``, ``shape``, ``axis``, ``kind``
    (``"throughput"``, ``"latency"``, or ``"growth"``: one lane of many sizes). Names of shapes drawn at random begin
    with ``drawn-``.
``planned``
    How many cells a complete run has.
``cells``
    One object a workload, op and dtype: ``workload``, ``op``, ``dtype``, ``shape``, ``axis``, ``kind``,
    ``read_bytes``, ``written_bytes``, ``load`` (processes that wanted to run over the last minute, when the cell was
    done; null if the system does not say), and ``measurements``, one object a contender and bound:

    ``name``, ``role``
        ``role`` is ``"ours"``, ``"peer"``, ``"bound"`` (a copy, a read or a merge of two arrays of the same bytes,
        the bare exponential of the same elements) or ``"variant"`` (a contender with fewer threads, as its name says).
    ``status``
        ``"ok"``, ``"wrong"`` (the accuracy check failed), ``"unsupported"`` or ``"failed"``; ``reason`` says
        why, or is null.
    ``calls``
        Calls in one timed sample.
    ``seconds``
        Time of one call in each round. All contenders of a cell have the same rounds: figures at the same
        place were taken in the same round.
    ``accuracy``
        null, or see :class:`softmax_numba.bench.accuracy.Accuracy`.

``discarded_rounds``
    How many rounds were timed and thrown away: none ever is, so 0.
``processes``
    What each contender costs a process, measured by ``report --full`` only; see
    :class:`softmax_numba.bench.processes.ProcessCost`.

Ratios, medians and quantiles are not stored: they are computed from the rounds, here, for every table and
picture.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from softmax_numba.bench.accuracy import Accuracy
from softmax_numba.bench.machine import Machine
from softmax_numba.bench.processes import ProcessCost
from softmax_numba.bench.timing import Spread, ratio, spread

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Cell",
    "ContenderInfo",
    "Measurement",
    "Results",
    "WorkloadInfo",
    "read",
    "thread_counts",
    "with_threads",
]

SCHEMA, SCHEMA_VERSION = "softmax-numba-results", 1


def thread_counts(threads: int) -> tuple[int, ...]:
    """The numbers of threads that a growing lane is measured with: powers of two, and all.

    Examples
    --------
    >>> thread_counts(6)
    (1, 2, 4, 6)
    """
    return tuple(sorted({2**k for k in range(threads.bit_length())} | {threads}))


def with_threads(name: str, count: int, threads: int) -> str:
    """What a contender's measurement with ``count`` threads is called in a run with ``threads``.

    Examples
    --------
    >>> with_threads("numpy", 1, 2), with_threads("numpy", 2, 2)
    ('numpy (1 thread)', 'numpy')
    """
    return name if count == threads else f"{name} ({count} thread{'s' if count > 1 else ''})"


@dataclass(frozen=True)
class ContenderInfo:
    """A library that took part, or would have."""

    name: str
    title: str
    version: str | None
    expression: str
    threading: str
    missing: str | None


@dataclass(frozen=True)
class WorkloadInfo:
    """What of a workload is recorded."""

    name: str
    title: str
    reason: str
    shape: tuple[int, ...]
    axis: int
    kind: str


@dataclass(frozen=True)
class Measurement:
    """One contender's, or one bound's, figures in one cell."""

    name: str
    role: str
    status: str
    reason: str | None = None
    calls: int = 0
    seconds: tuple[float, ...] = ()
    accuracy: Accuracy | None = None

    @property
    def time(self) -> Spread | None:
        """Seconds a call."""
        return spread(self.seconds) if self.seconds else None


@dataclass(frozen=True)
class Cell:
    """One workload, op and dtype: everybody's figures."""

    workload: str
    op: str
    dtype: str
    shape: tuple[int, ...]
    axis: int
    kind: str
    read_bytes: int
    written_bytes: int
    measurements: tuple[Measurement, ...]
    load: float | None = None

    @property
    def label(self) -> str:
        return f"{self.op} of {self.workload} {self.dtype}"

    @property
    def ours(self) -> Measurement:
        return next(m for m in self.measurements if m.role == "ours")

    @property
    def peers(self) -> tuple[Measurement, ...]:
        return tuple(m for m in self.measurements if m.role == "peer")

    def named(self, name: str) -> Measurement | None:
        return next((m for m in self.measurements if m.name == name), None)

    @property
    def bound(self) -> Measurement | None:
        """The fastest way to move the bytes."""
        bounds = [(m.time.median, m) for m in self.measurements if m.role == "bound" and m.time is not None]
        return min(bounds, key=lambda pair: pair[0])[1] if bounds else None

    def speed_ratio(self, peer: str) -> Spread | None:
        """How many times as fast as the peer we are, round by round; None where either has no right result."""
        theirs = self.named(peer)
        if theirs is None or theirs.status != "ok" or self.ours.status != "ok":
            return None
        return ratio(theirs.seconds, self.ours.seconds)

    def share_of_bound(self, name: str) -> Spread | None:
        """The bound's time over the contender's, round by round: 1 is the limit; None without a right result."""
        bound, contender = self.bound, self.named(name)
        if bound is None or contender is None or contender.status != "ok" or not contender.seconds:
            return None
        return ratio(bound.seconds, contender.seconds)

    def bytes_per_second(self, name: str) -> float | None:
        """Bytes that the operation must move, over the median time; None without a right result."""
        contender = self.named(name)
        if contender is None or contender.status != "ok" or contender.time is None:
            return None
        return (self.read_bytes + self.written_bytes) / contender.time.median

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Cell":
        return cls(**{**data, "shape": tuple(data["shape"]), "measurements": tuple(_measurements(data))})


def _measurements(data: dict[str, Any]) -> Iterator[Measurement]:
    for m in data["measurements"]:
        accuracy = None if m["accuracy"] is None else Accuracy(**m["accuracy"])
        yield Measurement(**{**m, "seconds": tuple(m["seconds"]), "accuracy": accuracy})


@dataclass
class Results:
    """A whole run; ``cells`` grows while it goes on."""

    command: str
    mode: str
    seed: int
    threads: int
    machine: Machine
    contenders: tuple[ContenderInfo, ...]
    workloads: tuple[WorkloadInfo, ...]
    planned: int
    started: str
    input: dict[str, Any] | None = None
    device: str = "cpu"
    threading_layer: str | None = None
    finished: str | None = None
    state: str = "running"
    cells: list[Cell] = field(default_factory=list)
    processes: tuple[ProcessCost, ...] = ()
    discarded_rounds: int = 0

    @property
    def peers(self) -> tuple[ContenderInfo, ...]:
        """The peers that took part."""
        return tuple(c for c in self.contenders[1:] if c.missing is None)

    def workload(self, name: str) -> WorkloadInfo:
        return next(w for w in self.workloads if w.name == name)

    def to_json(self) -> str:
        """The file's text; see the module's documentation."""
        data = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Results":
        """The results in a file's text.

        Raises
        ------
        ValueError
            If the text is no results file, or one of another schema version.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not a results file, which is JSON: {error}") from None
        if not isinstance(data, dict) or data.pop("schema", None) != SCHEMA:
            raise ValueError(f"not a results file: its schema is not {SCHEMA!r}")
        if (found := data.pop("schema_version", None)) != SCHEMA_VERSION:
            raise ValueError(f"schema version {found!r} is not known; allowed: {SCHEMA_VERSION}")
        try:
            return cls(
                **{
                    **data,
                    "machine": Machine.from_dict(data["machine"]),
                    "contenders": tuple(ContenderInfo(**c) for c in data["contenders"]),
                    "workloads": tuple(WorkloadInfo(**{**w, "shape": tuple(w["shape"])}) for w in data["workloads"]),
                    "cells": [Cell.from_dict(c) for c in data["cells"]],
                    "processes": tuple(ProcessCost.from_dict(p) for p in data.get("processes", ())),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"a results file of version {SCHEMA_VERSION} with missing or unknown members: {error}"
            ) from None

    def to_csv(self) -> str:
        """One row a cell and contender, medians and quantiles computed."""
        text = io.StringIO()
        rows = [row for cell in self.cells for row in _csv_rows(cell, self.threads)]
        writer = csv.DictWriter(text, fieldnames=list(_CSV_COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def read(path: Path) -> Results:
    """The results in a file; ValueError as :meth:`Results.from_json`."""
    return Results.from_json(path.read_text(encoding="utf-8"))


_CSV_COLUMNS = (
    "workload",
    "op",
    "dtype",
    "shape",
    "axis",
    "threads",
    "contender",
    "role",
    "status",
    "reason",
    "rounds",
    "calls_per_sample",
    "seconds_median",
    "seconds_20",
    "seconds_80",
    "gigabytes_per_second",
    "time_over_ours_median",
    "time_over_ours_20",
    "time_over_ours_80",
    "share_of_bound_median",
    "max_ulp",
    "mean_ulp",
    "values_checked",
    "reference",
)


def _csv_rows(cell: Cell, threads: int) -> Iterator[dict[str, Any]]:
    for m in cell.measurements:
        row: dict[str, Any] = {
            "workload": cell.workload,
            "op": cell.op,
            "dtype": cell.dtype,
            "shape": "x".join(map(str, cell.shape)),
            "axis": cell.axis,
            "threads": threads,
            "contender": m.name,
            "role": m.role,
            "status": m.status,
            "reason": m.reason,
            "rounds": len(m.seconds),
            "calls_per_sample": m.calls,
        }
        if (time := m.time) is not None:
            row |= {"seconds_median": time.median, "seconds_20": time.low, "seconds_80": time.high}
            if (speed := cell.bytes_per_second(m.name)) is not None:
                row["gigabytes_per_second"] = speed / 1e9
            if cell.ours.seconds and m.status == cell.ours.status == "ok":
                over = ratio(m.seconds, cell.ours.seconds)
                row |= {"time_over_ours_median": over.median, "time_over_ours_20": over.low}
                row["time_over_ours_80"] = over.high
            if (share := cell.share_of_bound(m.name)) is not None:
                row["share_of_bound_median"] = share.median
        if m.accuracy is not None:
            row |= {"max_ulp": m.accuracy.max_ulp, "mean_ulp": m.accuracy.mean_ulp}
            row |= {"values_checked": m.accuracy.values, "reference": m.accuracy.reference}
        yield row
