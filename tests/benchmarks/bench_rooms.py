"""Each room alone, beside the same step of the peers: the exponential, every sweep, a call on ten numbers, losses.

Not collected by ``make test``; ``make bench`` runs it and keeps what it measured in .benchmarks/, and
``make bench BENCH_ARGS=--benchmark-compare`` shows it beside the last run. Each group is one step; times of different
groups say nothing about each other.
"""

import numba
import numpy as np
import pytest

from softmax_numba.bench.peers import OURS, PEERS, Job
from softmax_numba.bench.roofline import exponential
from softmax_numba.bench.run import start_threads
from softmax_numba.bench.workloads import result_shapes

CONTENDERS = {"ours": OURS, **{name: peer for name, peer in PEERS.items() if peer.installed}}
every_contender = pytest.mark.parametrize("who", CONTENDERS)

# A shape and an axis for each sweep of cpu/plan.py, small enough for the caches but for the last.
SWEEPS = {
    "rows": ((3000, 40), 1),
    "woven": ((256, 1000), 1),
    "tiny": ((20_000, 5), 1),
    "short": ((20_000, 10), 1),
    "blocks": ((8, 20_000), 1),
    "columns": ((100, 2000), 0),
    "deep": ((1000, 300), 0),
    "shallow": ((3, 70_000), 0),
    "long": ((2**20,), 0),
    "woven past the cache": ((16_384, 1000), 1),
}


@pytest.fixture(scope="module", autouse=True)
def threads():
    start_threads(numba.config.NUMBA_NUM_THREADS)
    return numba.config.NUMBA_NUM_THREADS


def bound(who, op, arrays, axis, threads):
    """What is timed; its first call, which compiles, is over."""
    peer, x = CONTENDERS[who], arrays[0]
    if reason := peer.unsupported(op, x.dtype):
        pytest.skip(reason)
    shape = result_shapes(op, [array.shape for array in arrays], axis)[-1]
    call = peer.bind(Job(op, x, axis, np.empty(shape, x.dtype), threads, others=tuple(arrays[1:])))
    call()
    return call


def drawn(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32) * 3


@pytest.mark.parametrize("who", ["ours", "numpy", "torch"])
def test_exponential(benchmark, who, threads):
    benchmark.group = "exponential of 2**18 float32"
    x = drawn(2**18)
    out = np.empty_like(x)
    if who == "ours":
        (call,) = exponential(x, out, threads).values()
    elif who == "numpy":

        def call():
            np.exp(x, out=out)
    else:
        torch = pytest.importorskip("torch")
        torch.set_num_threads(threads)
        given, result = torch.from_numpy(x), torch.from_numpy(out)

        def call():
            torch.exp(given, out=result)

    call()
    benchmark(call)


@every_contender
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("sweep", SWEEPS)
def test_sweep(benchmark, sweep, op, who, threads):
    shape, axis = SWEEPS[sweep]
    benchmark.group = f"{op}: {sweep} {shape} along {axis}"
    benchmark(bound(who, op, [drawn(shape)], axis, threads))


@every_contender
@pytest.mark.parametrize("op", ["softmax", "log_softmax", "logsumexp"])
def test_dispatch(benchmark, op, who, threads):
    benchmark.group = f"{op}: a call on ten numbers"
    benchmark(bound(who, op, [drawn((1, 10))], 1, threads))


@every_contender
@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_and_grad", "softmax_vjp", "log_softmax_vjp"])
@pytest.mark.parametrize("shape", [(64, 10), (4096, 1000)], ids=str)
def test_training(benchmark, shape, op, who, threads):
    benchmark.group = f"{op}: {shape}"
    beside = drawn(shape) if op.endswith("_vjp") else np.arange(shape[0]) % shape[1]
    benchmark(bound(who, op, [drawn(shape), beside], 1, threads))
