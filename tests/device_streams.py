"""On a real device only, with PyTorch's arrays: streams, graphs, DLPack, arrays of more than 4 GB, two devices.

Not collected by name; ``python -m softmax_numba.bench.gpu`` runs it.
"""

import time

import pytest
import torch

import softmax_numba

FUNCTIONS = ("softmax", "log_softmax", "logsumexp")
CLOCKS = 200_000_000  # of a kernel that waits: a tenth of a second
# Lanes of one warp, of a block, of few blocks each (two kernels and scratch memory), and columns.
SHAPES = [((64, 100), -1), ((600, 9000), -1), ((2, 151936), -1), ((8, 50, 64), 1)]


def values(*shape, dtype=torch.float32):
    return torch.randn(shape, device="cuda", generator=torch.Generator("cuda").manual_seed(1)).to(dtype)


def exact(name, x, axis=-1):
    return getattr(torch, name)(x.double(), axis)


def assert_right(name, found, x, axis=-1):
    tolerance = 4 * torch.finfo(found.dtype).eps  # in units of the result, of its logarithm at least of 1
    absolute = 0 if name == "softmax" else tolerance
    torch.testing.assert_close(found.double(), exact(name, x, axis), rtol=tolerance, atol=absolute)


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_work_waits_for_the_callers_stream_and_the_caller_for_nothing(name, shape, axis):
    function, x = getattr(softmax_numba, name), values(*shape)
    given = torch.full_like(x, torch.nan)
    function(x, axis)  # compiles, loads
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(CLOCKS)
        given.copy_(x)
        before = time.perf_counter()
        found = function(given, axis)
        spent = time.perf_counter() - before
        assert not stream.query(), f"the call came back after the stream's work, {spent:.3f} s later"
    stream.synchronize()
    assert_right(name, found, x, axis)


def test_two_streams_at_once():
    streams = [torch.cuda.Stream() for _ in range(2)]
    given = [values(300, 3000) + i for i in range(2)]
    found = [[], []]
    torch.cuda.synchronize()
    for _ in range(20):
        for i, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[i].append(softmax_numba.softmax(given[i]))
    torch.cuda.synchronize()
    for x, results in zip(given, found, strict=True):
        assert_right("softmax", results[0], x)
        assert all(torch.equal(result, results[0]) for result in results)


def test_cupys_stream():
    cupy = pytest.importorskip("cupy")
    x = cupy.random.default_rng(1).normal(size=(64, 1000)).astype(cupy.float32)
    softmax_numba.softmax(x)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        found = softmax_numba.softmax(2 * x)
        assert isinstance(found, cupy.ndarray)
    stream.synchronize()
    assert_right("softmax", torch.from_dlpack(found), torch.from_dlpack(2 * x))


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_graphs(shape, axis):
    """Captured, and replayed with other values; scratch memory comes from the graph's own pool."""
    x = values(*shape)
    out = torch.empty_like(x)
    softmax_numba.softmax(x, axis, out=out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        softmax_numba.softmax(x, axis, out=out)
    x.copy_(3 * values(*shape).flip(0))
    graph.replay()
    torch.cuda.synchronize()
    assert_right("softmax", out, x, axis)


class Foreign:
    """An array that knows nothing but DLPack."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **how):
        return self.tensor.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dlpack(dtype):
    x = values(10, 300, dtype=dtype)
    out = torch.empty_like(x)
    torch.cuda.synchronize()
    given = Foreign(out)
    assert softmax_numba.softmax(Foreign(x), out=given) is given
    torch.cuda.synchronize()
    assert torch.equal(out, softmax_numba.softmax(x))


def test_tensors_that_need_a_gradient():
    with pytest.raises(TypeError, match=r"x\.detach\(\)"):
        softmax_numba.softmax(values(2, 3).requires_grad_())


@pytest.mark.parametrize(
    ("shape", "axis", "dtype"),
    [
        ((2**20 + 3, 1280), 1, torch.float32),  # 5.4 GB
        ((2**21 + 5, 1027), 1, torch.float16),  # more than 2**31 values, no row at a multiple of 16 bytes
        ((1030, 2**21 + 8), 0, torch.bfloat16),
        ((3, 2**30), 1, torch.bfloat16),  # rows of 2 GB
    ],
)
def test_more_than_four_gigabytes(shape, axis, dtype):
    if torch.cuda.mem_get_info()[0] < 30e9:
        pytest.skip("needs 30 GB of free memory")
    x = torch.empty(shape, dtype=dtype, device="cuda").normal_(std=2.0)
    found = softmax_numba.softmax(x, axis)
    logs = softmax_numba.logsumexp(x, axis)
    lanes = x.shape[1 - axis]
    for number in (0, lanes // 2, lanes - 1):
        lane = x.select(1 - axis, number).double()
        right = torch.softmax(lane, 0)
        off = (found.select(1 - axis, number).double() - right).abs().max() / right.max()
        assert off <= torch.finfo(dtype).eps
        torch.testing.assert_close(logs[number].double(), torch.logsumexp(lane, 0), rtol=torch.finfo(dtype).eps, atol=0)
    sums = found[-2:].float().sum(1) if axis else found[:, -4096:].float().sum(0)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=2e-2)


def test_devices_that_differ():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = values(4, 100)
    with pytest.raises(ValueError, match="x is on GPU 0, out on GPU 1"):
        softmax_numba.softmax(x, out=torch.empty_like(x, device="cuda:1"))
    second = x.to("cuda:1")
    found = softmax_numba.softmax(second)  # while the first is current
    assert found.device == second.device and torch.equal(found.cpu(), softmax_numba.softmax(x).cpu())
    assert torch.cuda.current_device() == 0


def test_same_bits():
    """Run after run, alone and beside others."""
    x = values(500, 3001)
    first = softmax_numba.softmax(x)
    assert all(torch.equal(softmax_numba.softmax(x), first) for _ in range(20))
    assert torch.equal(softmax_numba.softmax(x[7:8]), first[7:8])
