"""A GPU to measure on: arrays of PyTorch there, the time that work takes there, graphs.

``TorchDevice("cpu")`` rehearses all of it without one: the processor's clock stands in for the device's events.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from softmax_numba.bench.workloads import dtype_named

__all__ = ["TorchDevice"]

Call = Callable[[], Any]
_CPU_CACHE = 2**20  # what a rehearsal takes for the second-level cache
_ROWS_BYTES = 2**27  # of logits in float64
_LARGE_CACHE = 2**26  # where PyTorch does not say


class TorchDevice:
    """A CUDA device through PyTorch.

    Attributes
    ----------
    place : str
        ``"cuda"``, or ``"cpu"`` for a rehearsal.
    cache_bytes : int
        Of the second-level cache: what is smaller stays there from one call to the next.
    """

    def __init__(self, place: str = "cuda") -> None:
        import torch

        self.torch, self.place = torch, place
        self.real = place == "cuda"
        properties = torch.cuda.get_device_properties(0) if self.real else None
        self.cache_bytes = _CPU_CACHE if properties is None else getattr(properties, "L2_cache_size", _LARGE_CACHE)
        self._generator = torch.Generator(place).manual_seed(0)

    def dtype(self, name: str) -> Any:
        return getattr(self.torch, name)

    def normal(self, shape: Sequence[int], dtype: str, spread: float = 2.5) -> Any:
        """Normal values: logits."""
        empty = self.torch.empty(tuple(shape), dtype=self.dtype(dtype), device=self.place)
        return empty.normal_(std=spread, generator=self._generator)

    def classes(self, count: int, shape: Sequence[int]) -> Any:
        """Targets of a loss: indices below ``count``."""
        return self.torch.randint(count, tuple(shape), device=self.place, generator=self._generator)

    def mean_loss(self, logits: Any, targets: Any) -> float:
        """Of the rows of 2-D logits, in float64, some rows at a time."""
        rows, total = max(1, _ROWS_BYTES // (8 * logits.shape[1])), 0.0
        for some, theirs in zip(logits.split(rows), targets.split(rows), strict=True):
            total += float(self.torch.nn.functional.cross_entropy(some.double(), theirs, reduction="sum"))
        return total / len(targets)

    def empty(self, shape: Sequence[int], dtype: str) -> Any:
        """NaN everywhere, so that what nobody wrote shows."""
        return self.torch.full(tuple(shape), float("nan"), dtype=self.dtype(dtype), device=self.place)

    def room(self, size: int) -> Any:
        """``size`` bytes."""
        return self.torch.zeros(size, dtype=self.torch.uint8, device=self.place)

    def host(self, tensor: Any) -> np.ndarray:
        """A copy for NumPy."""
        tensor = tensor.detach().to("cpu", copy=True).contiguous()
        if tensor.dtype == self.torch.bfloat16:
            return tensor.view(self.torch.int16).numpy().view(dtype_named("bfloat16"))
        return tensor.numpy()

    def ends(self, tensor: Any, lanes: int) -> Any:
        """The first lanes of a 2-D tensor and its last."""
        if tensor.shape[0] <= lanes:
            return tensor
        return self.torch.cat([tensor[: lanes - lanes // 2], tensor[tensor.shape[0] - lanes // 2 :]])

    def wait(self) -> None:
        """Until all work is done; raises what a kernel left as an error."""
        if self.real:
            self.torch.cuda.synchronize()

    def free(self) -> None:
        """Gives back what no array uses, and what PyTorch compiled: of one function it keeps eight shapes, no more."""
        if self.real:
            self.torch.compiler.reset()
            self.torch.cuda.empty_cache()

    def device_seconds(self, calls: Sequence[Call], repeats: int) -> float:
        """Time that one of ``calls`` takes on the device, all of them in turn ``repeats`` times."""
        if not self.real:
            return self.wall_seconds(calls, repeats)
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            for call in calls:
                call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / (repeats * len(calls))

    def wall_seconds(self, calls: Sequence[Call], repeats: int) -> float:
        """Time that passes at the caller's, for calls one after the other and the wait at the end."""
        self.wait()
        begin = time.perf_counter()
        for _ in range(repeats):
            for call in calls:
                call()
        self.wait()
        return (time.perf_counter() - begin) / (repeats * len(calls))

    def graph(self, calls: Sequence[Call]) -> Call | None:
        """All the calls as one CUDA graph; None where there are none."""
        if not self.real:
            return None
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph):
            for call in calls:
                call()
        return graph.replay
