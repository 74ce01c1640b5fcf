"""The registry of peers: each computes the function it is timed for, into the buffer it is given."""

from dataclasses import replace

import numpy as np
import pytest

from softmax_numba.bench import catalogue
from softmax_numba.bench.accuracy import Judge
from softmax_numba.bench.peers import OURS, PEERS, Job, select
from softmax_numba.bench.requests import RequestError
from softmax_numba.bench.training import TrainingJudge
from softmax_numba.bench.workloads import (
    DTYPES,
    OPS,
    TRAINING_OPS,
    WORKLOADS,
    Workload,
    dtype_named,
    result_dtype,
    result_shape,
    result_shapes,
)

EVERYBODY = [OURS, *PEERS.values()]


def job(op, dtype, shape=(6, 50), axis=-1):
    x = np.random.default_rng(0).normal(0, 2, shape).astype(dtype_named(dtype))
    out = np.zeros(result_shape(op, shape, axis), result_dtype(x.dtype))
    return Job(op, x, axis, out, threads=1)


@pytest.mark.parametrize("peer", PEERS.values(), ids=lambda peer: peer.name)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [*DTYPES, "int32"])
@pytest.mark.parametrize("axis", [-1, 0])
def test_peer_computes_the_function(peer, op, dtype, axis):
    pytest.importorskip(peer.module)
    work = job(op, dtype, axis=axis)
    if (reason := peer.unsupported(op, work.x.dtype)) is not None:
        assert dtype in reason or op in reason
        return
    returned = peer.bind(work)()
    result = work.out if peer.writes_out else np.asarray(returned)
    judge = Judge(work.x, axis)
    found = judge.judge(op, {"y": judge.take(op, result)})["y"]
    assert found.fault is None
    assert found.max_ulp < 60


@pytest.mark.parametrize("peer", EVERYBODY, ids=lambda peer: peer.name)
@pytest.mark.parametrize("op", OPS)
def test_bound_call_sees_the_array_as_it_is_then(peer, op):
    """Binding copies nothing: what the call costs is what the library costs."""
    pytest.importorskip(peer.module)
    if peer.name == "jax":
        pytest.skip("its arrays cannot be changed")
    if (reason := peer.unsupported(op, np.dtype(np.float32))) is not None:
        assert op in reason
        return
    work = job(op, "float32")
    call = peer.bind(work)
    call()
    work.x[...] = 0
    returned = call()
    result = work.out if peer.writes_out else np.asarray(returned)
    expected = {"softmax": 1 / 50, "log_softmax": -np.log(50), "logsumexp": np.log(50)}[op]
    assert np.allclose(result, expected)


def training_job(op, dtype, axis=-1):
    def draw(generator, shape, dtype):
        return generator.standard_normal(shape, dtype=dtype)

    features = 5 if op.startswith("linear") else 0
    workload = Workload("small", "small", "for a test", (6, 50), axis, draw, features=features)
    x, *others = workload.operands(op, 0, dtype)
    return Job(op, x, axis, np.zeros_like(x), threads=1, others=tuple(others))


def results_of(job, call):
    returned = call()
    return tuple(map(np.asarray, returned)) if isinstance(returned, tuple) else (job.out,)


@pytest.mark.parametrize("peer", EVERYBODY, ids=lambda peer: peer.name)
@pytest.mark.parametrize("op", TRAINING_OPS)
@pytest.mark.parametrize(("dtype", "axis"), [*((dtype, -1) for dtype in DTYPES), ("float32", 0)])
def test_losses_and_ways_back(peer, op, dtype, axis):
    pytest.importorskip(peer.module)
    if op.startswith("linear") and axis == 0:
        return
    work = training_job(op, dtype, axis)
    if (reason := peer.unsupported(op, work.x.dtype)) is not None:
        assert peer.name != "torch" and op in reason
        return
    results = results_of(work, peer.bind(work))
    operands = work.x, *work.others
    assert tuple(r.shape for r in results) == result_shapes(op, [a.shape for a in operands], axis)
    judge = TrainingJudge(operands, axis)
    found = judge.judge(op, {"y": judge.take(op, *results)})["y"]
    assert found.fault is None
    assert found.max_ulp < 60


@pytest.mark.parametrize("name", ["ours", "torch"])
@pytest.mark.parametrize("op", TRAINING_OPS)
def test_bound_step_sees_the_arrays_as_they_are_then(name, op):
    """Neither is anything kept of the step before."""
    peer = OURS if name == "ours" else PEERS[name]
    pytest.importorskip(peer.module)
    work, other = training_job(op, "float32"), training_job(op, "float32")
    call = peer.bind(work)
    call()
    for array, fresh in zip((work.x, *work.others), (other.x, *other.others), strict=True):
        fresh[...] = fresh[::-1]
        array[...] = fresh
    found = results_of(work, call)
    for result, expected in zip(found, results_of(other, peer.bind(other)), strict=True):
        assert np.array_equal(result, expected)


def test_torch_gets_the_number_of_threads():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        PEERS["torch"].bind(job("softmax", "float32"))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_who_cannot_do_bfloat16_says_so():
    bfloat16 = dtype_named("bfloat16")
    reasons = {name: peer.unsupported("softmax", bfloat16) for name, peer in PEERS.items()}
    assert "bfloat16" in reasons["numpy"]
    assert "bfloat16" in reasons["scipy"]
    assert reasons["torch"] is None
    assert reasons["onnxruntime"] == "ONNX Runtime's softmax takes no bfloat16"


def test_the_catalogue_says_who_is_missing_and_why(monkeypatch):
    gone = replace(PEERS["numexpr"], module="no_such_module")
    monkeypatch.setitem(PEERS, "numexpr", gone)
    text = list(catalogue.lines())
    assert "  numexpr: numexpr, numexpr is not installed: pip install numexpr" in text
    assert f"  numpy: NumPy, {np.__version__}" in text
    for name in (*WORKLOADS, *PEERS):
        assert sum(line.startswith(f"  {name}: ") for line in text) == 1


def test_unknown_peer_is_named_with_the_known_ones():
    with pytest.raises(
        RequestError, match=r"unknown peer 'jaxx'; known: numpy, scipy, torch, jax, onnxruntime, scikit-learn, numexpr"
    ):
        select(["numpy", "jaxx"])


def test_versions_are_those_of_the_installed_packages():
    assert PEERS["numpy"].version == np.__version__
    assert OURS.installed
