"""What ``softmax-numba info`` tells: the machine and the package's own state, for a bug report."""

import os
from typing import Any

from softmax_numba.bench.machine import available_threads, cache_folder, describe, probe_threading_layer

__all__ = ["collect", "lines"]

_VARIABLES = ("NUMBA_", "SOFTMAX_NUMBA_", "OMP_", "MKL_", "TBB_", "KMP_")


def collect() -> dict[str, Any]:
    """The machine, threads, threading layer, cache folder, and the environment variables that bear on them."""
    folder = cache_folder()
    return {
        **describe().to_dict(),
        "numba_threads": available_threads(),
        "threading_layer": probe_threading_layer(),
        "cache_folder": None if folder is None else str(folder),
        "environment": {n: v for n, v in sorted(os.environ.items()) if n.startswith(_VARIABLES)},
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts of :func:`collect`, one a line, for people."""
    sizes = [f"L{c['level']} {c['kind']} {c['bytes'] // 1024} KiB × {c['instances']}" for c in facts["caches"]]
    memory = facts["memory_bytes"]
    pairs = [
        ("python", facts["python"]),
        *facts["versions"].items(),
        ("system", facts["system"]),
        ("cpu", f"{facts['cpu']} ({facts['microarchitecture']})"),
        ("cores", f"{facts['cores'] or 'unknown'}; hardware threads usable: {facts['threads']}"),
        ("caches", ", ".join(sizes) or "unknown"),
        ("vectors", facts["vectors"]),
        ("memory", "unknown" if memory is None else f"{memory / 2**30:.1f} GiB"),
        ("numba threads", facts["numba_threads"]),
        ("threading layer", facts["threading_layer"]),
        ("cache folder", facts["cache_folder"] or "none: compiled code is not kept"),
        ("gpu", "; ".join(facts["gpus"]) or "none found"),
        *facts["environment"].items(),
    ]
    width = max(len(name) for name, _ in pairs)
    return [f"{name:<{width}}  {value}" for name, value in pairs]
