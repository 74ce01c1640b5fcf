"""What a library costs a process: the time until its first result, and the memory that a call takes at its peak.

Each figure comes from a process of its own, in which nothing else has been imported but NumPy.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softmax_numba.bench.timing import Spread, spread
from softmax_numba.bench.workloads import OPS, result_shape

__all__ = ["PEAK_SHAPE", "ProcessCost", "in_processes", "peak_bytes"]

# 64 MB of float32: temporaries of this size are always mapped anew, so that none hides in what malloc kept.
PEAK_SHAPE = (4096, 4096)
_SMALL = (4, 10)
_SECONDS = 300


@dataclass(frozen=True)
class ProcessCost:
    """What one contender costs a process.

    Attributes
    ----------
    name : str
        The contender's.
    compiled : bool
        Whether its code had been compiled and kept by an earlier process; false only for ours, once.
    import_seconds, first_seconds : tuple of float
        Importing the library after NumPy, and its first softmax, of 4 × 10 float32 values; one figure a process.
    peak_bytes : dict of str to int
        By op, what a call on ``PEAK_SHAPE`` float32 values takes at its peak besides input and given result.
    reason : str or None
        Why there are no figures.
    """

    name: str
    compiled: bool
    import_seconds: tuple[float, ...] = ()
    first_seconds: tuple[float, ...] = ()
    peak_bytes: dict[str, int] | None = None
    reason: str | None = None

    @property
    def until_first(self) -> Spread | None:
        """Seconds from the import to the first result."""
        pairs = zip(self.import_seconds, self.first_seconds, strict=True)
        return spread([a + b for a, b in pairs]) if self.first_seconds else None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ProcessCost":
        times = {name: tuple(data[name]) for name in ("import_seconds", "first_seconds")}
        return cls(**{**data, **times})


# Before the package's own modules: importing them is what is timed.
_CHILD = """
import json, sys, time
import numpy
name, module, op, threads = sys.argv[1:]
begin = time.perf_counter()
__import__(module)
imported = time.perf_counter()
from softmax_numba.bench import processes
print(json.dumps(processes.child(name, op, int(threads)) | {"import": imported - begin}))
"""


def child(name: str, op: str, threads: int) -> dict[str, Any]:
    """What the process itself finds out: the first call's seconds and, of the op, the bytes at the peak."""
    import time

    from softmax_numba.bench.peers import OURS, PEERS, Job

    peer = OURS if name == OURS.name else PEERS[name]

    def job(shape: tuple[int, ...], what: str) -> Job:
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return Job(what, x, -1, np.zeros(result_shape(what, shape, -1), np.float32), threads)

    small = job(_SMALL, "softmax")
    begin = time.perf_counter()
    peer.bind(small)()
    first = time.perf_counter() - begin
    if peer.unsupported(op, np.dtype(np.float32)) is not None:
        return {"first": first, "peak": None}
    call = peer.bind(job(PEAK_SHAPE, op))
    call()
    return {"first": first, "peak": peak_bytes(call)}


def peak_bytes(call: Any) -> int | None:
    """How much more memory is resident at the peak of a call than before it; None where the system does not say."""
    status = Path("/proc/self/status")

    def kilobytes(field: str) -> int:
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = kilobytes("VmRSS")
        call()
        return max(0, kilobytes("VmHWM") - before) * 1024
    except (OSError, StopIteration):
        return None


def in_processes(contenders: Sequence[tuple[str, str]], threads: int, repeats: int) -> tuple[ProcessCost, ...]:
    """The costs of contenders, given as (name, module); ours is first, and is measured without kept code too.

    Parameters
    ----------
    contenders : sequence of (str, str)
    threads : int
    repeats : int
        Processes a contender and op.
    """
    ours = contenders[0]
    costs = [_cost(*contender, threads, OPS * repeats) for contender in contenders]
    with tempfile.TemporaryDirectory() as folder:
        fresh = _cost(*ours, threads, OPS[:1], {"SOFTMAX_NUMBA_CACHE_DIR": folder}, compiled=False)
    return (costs[0], fresh, *costs[1:])


def _cost(
    name: str,
    module: str,
    threads: int,
    ops: Sequence[str],
    environment: dict[str, str] | None = None,
    *,
    compiled: bool = True,
) -> ProcessCost:
    found, peaks = [], dict[str, int]()
    for op in ops:
        command = [sys.executable, "-c", _CHILD, name, module, op, str(threads)]
        try:
            run = subprocess.run(
                command, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=_SECONDS
            )
            found.append(json.loads(run.stdout.splitlines()[-1]))
        except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
            return ProcessCost(name, compiled, reason=f"its process failed: {type(error).__name__}")
        if (peak := found[-1]["peak"]) is not None:
            peaks[op] = max(peak, peaks.get(op, 0))
    imports, firsts = (tuple(one[what] for one in found) for what in ("import", "first"))
    return ProcessCost(name, compiled, imports, firsts, peaks)
