"""Small runs and made-up results for the tests of the benchmark and its report."""

from dataclasses import replace

import numpy as np

from softmax_numba.bench import peers
from softmax_numba.bench.accuracy import Accuracy
from softmax_numba.bench.machine import Cache, Machine
from softmax_numba.bench.results import Cell, ContenderInfo, Measurement, Results, WorkloadInfo
from softmax_numba.bench.run import Effort
from softmax_numba.bench.timing import Budget

# Two rounds of single calls: what is tested is where the figures go, not what they are.
TINY = Effort("quick", Budget(0.0, 2, 2, 1e-6, 0.0), fewest_rounds=2, total_seconds=60.0, judged_values=1000)

MACHINE = Machine(
    system="Some Linux, x86_64",
    cpu="Some CPU <X>",
    microarchitecture="znver4",
    cores=2,
    threads=2,
    caches=(Cache(1, "data", 32768, 2), Cache(3, "unified", 33554432, 1)),
    vectors="AVX-512, 512 bits",
    memory_bytes=2**34,
    governor=None,
    load=0.1,
    python="3.11.7 (CPython)",
    versions={"numpy": "2.4.6"},
    gpus=(),
)


def accuracy(max_ulp, fault=None):
    return Accuracy("longdouble, 64-bit significand", 10, 1000, max_ulp, max_ulp and max_ulp / 2, fault)


def made_up_results(*cells, **changes):
    """Complete results of the given cells; NumPy and PyTorch took part, SciPy is missing."""
    results = Results(
        command="softmax-numba report --quick",
        mode="quick",
        seed=0,
        threads=2,
        machine=MACHINE,
        contenders=(
            ContenderInfo("softmax-numba", "softmax-numba", "0.1.0", "softmax_numba.softmax(x)", "all", None),
            ContenderInfo("numpy", "NumPy", "2.4.6", "np.exp(x - x.max())", "one", None),
            ContenderInfo("scipy", "SciPy", None, "scipy.special.softmax(x)", "one", "scipy is not installed"),
            ContenderInfo("torch", "PyTorch", "2.13.0", "torch.softmax(x)", "the same", None),
        ),
        workloads=(
            WorkloadInfo("classifier-head", "classifier head", "a batch", (4096, 1000), -1, "throughput"),
            WorkloadInfo("single-1x10", "one digit", "one call", (1, 10), -1, "latency"),
        ),
        planned=len(cells),
        started="2026-01-02T03:04:05+00:00",
        finished="2026-01-02T03:05:05+00:00",
        state="complete",
        threading_layer="tbb",
        cells=list(cells),
    )
    return replace(results, **changes)


def made_up_cell(ours, numpy, torch, *, op="softmax", workload="classifier-head", bound=(0.5e-3, 0.6e-3, 0.7e-3)):
    """A cell with these seconds in three rounds."""
    latency = workload.startswith("single")
    shape = (1, 10) if latency else (4096, 1000)
    size = 4 * int(np.prod(shape))
    bounds = () if latency else (Measurement("copy", "bound", "ok", None, 1, tuple(bound)),)
    return Cell(
        workload=workload,
        op=op,
        dtype="float32",
        shape=shape,
        axis=-1,
        kind="latency" if latency else "throughput",
        read_bytes=size,
        written_bytes=size,
        measurements=(
            Measurement("softmax-numba", "ours", "ok", None, 1, tuple(ours), accuracy(1.5)),
            Measurement("numpy", "peer", "ok", None, 1, tuple(numpy), accuracy(60.0)),
            Measurement("torch", "peer", "ok", None, 1, tuple(torch), accuracy(32863.0)),
            *bounds,
        ),
    )


FASTER = made_up_cell((1e-3, 1.1e-3, 0.9e-3), (6e-3, 6.6e-3, 5.5e-3), (2e-3, 2.3e-3, 1.7e-3))
LOSING = made_up_cell((2e-6, 2.1e-6, 2.2e-6), (9e-6, 9e-6, 9e-6), (1e-6, 1.1e-6, 1e-6), workload="single-1x10")


def fake_peer(name, run, **changes):
    """A peer that calls ``run(job)``."""
    peer = peers.Peer(
        name=name,
        title=name.title(),
        distribution=name,
        module="numpy",
        expression=f"{name}(x)",
        threading="one",
        bind=lambda job: lambda: run(job),
        writes_out=True,
        unsupported=lambda op, dtype: None,
    )
    return replace(peer, **changes)
