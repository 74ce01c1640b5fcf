"""What is measured on a GPU, the most telling first: a budget of time cuts the tail."""

from typing import NamedTuple

from softmax_numba.bench.results import WorkloadInfo
from softmax_numba.bench.workloads import DTYPES, OPS, dtype_named

__all__ = ["GPU_OPS", "LOSSES", "VJPS", "Task", "tasks"]

VJPS = ("softmax_vjp", "log_softmax_vjp")
LOSSES = ("cross_entropy_and_grad", "cross_entropy")
GPU_OPS = (*OPS, *VJPS)  # of every workload in every dtype; losses have workloads of their own
_LENGTHS = (1024, 4096, 32768, 256, 131072, 16384, 64, 65536, 8192, 262144, 2048, 16)
_DECODE = ((1, 151936), (8, 151936), (64, 151936))
_INNER = (((64, 1000, 128), 1), ((8, 21, 256, 256), 1))
_ONE_CALL = (1, 1000)
# Vocabularies; of the longest, as many rows as Liger's published 7.96 ms for loss and gradient in bfloat16 are of.
_CLASSES = (131072, 32000, 50257, 1000)
_LIGER_ROWS = 8192
_PIXELS = ((8, 21, 256, 256), 1)
_COLUMNS = ((64, 1000, 128), 1)


class Task(NamedTuple):
    """One cell to be measured: an op of one array."""

    workload: str
    title: str
    reason: str
    shape: tuple[int, ...]
    axis: int
    kind: str
    op: str
    dtype: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.workload, self.op, self.dtype

    @property
    def lanes(self) -> tuple[int, ...]:
        """The shape without the axis."""
        axis = self.axis % len(self.shape)
        return self.shape[:axis] + self.shape[axis + 1 :]

    @property
    def info(self) -> WorkloadInfo:
        return WorkloadInfo(self.workload, self.title, self.reason, self.shape, self.axis, self.kind)


def _of(op: str, dtype: str, moved: int, small: bool) -> list[Task]:
    """Every workload in one op and dtype; rows of each length move ``moved`` bytes in softmax."""
    size = dtype_named(dtype).itemsize
    rows = []
    for length in _LENGTHS[:4] if small else _LENGTHS:
        shape = (max(2, moved // (2 * size * length)), length)
        rows.append(
            Task(f"rows-{length}", f"rows of {length}", "beyond the caches", shape, -1, "throughput", op, dtype)
        )
    decode = [
        Task(
            f"decode-{n}", f"{n} × {v}", "next-token probabilities: few long rows", (n, v), -1, "throughput", op, dtype
        )
        for n, v in (_DECODE[:1] if small else _DECODE)
    ]
    inner = [
        Task("inner-" + "x".join(map(str, s)), " × ".join(map(str, s)), "an inner axis", s, a, "throughput", op, dtype)
        for s, a in _INNER
    ]
    one = Task("one-call", "1 × 1000", "nothing but the call", _ONE_CALL, -1, "latency", op, dtype)
    return [*rows[:3], *decode[:2], one, *inner[: 0 if small else 2], *rows[3:], *decode[2:]]


def _of_training(op: str, dtype: str, moved: int, small: bool) -> list[Task]:
    """Rows of a vocabulary's length, and for losses an inner axis: ways back have it among all workloads."""
    size, found = dtype_named(dtype).itemsize, []
    for length in _CLASSES:
        rows = max(2, moved // (2 * size * length))
        if length == _CLASSES[0] and not small:
            rows = _LIGER_ROWS
        reason = "a vocabulary, or the classes of images"
        found.append(
            Task(f"classes-{length}", f"{length} classes", reason, (rows, length), -1, "throughput", op, dtype)
        )
    if op in LOSSES:
        for shape, axis in (_PIXELS, _COLUMNS):
            shape = (1, shape[1], 8, 8) if small and len(shape) == 4 else (1, *shape[1:]) if small else shape
            name, title = "classes-" + "x".join(map(str, shape)), " × ".join(map(str, shape))
            found.append(Task(name, title, "classes along an inner axis", shape, axis, "throughput", op, dtype))
    return found


def tasks(moved: int = 10**9, small: bool = False) -> tuple[Task, ...]:
    """All of it; ``small``: a few shapes, for a rehearsal."""
    first, rest = ("float32", "bfloat16"), ("float16", "float64")
    order = [("softmax", dtype) for dtype in first]
    order += [(op, dtype) for op in ("logsumexp", "log_softmax", *VJPS) for dtype in first]
    order += [(op, dtype) for dtype in rest for op in GPU_OPS]
    if sorted(order) != sorted((op, dtype) for op in GPU_OPS for dtype in DTYPES):
        raise RuntimeError(f"ops and dtypes are not each measured once: {order}")
    cells = [task for op, dtype in order for task in _of(op, dtype, moved, small)]
    training = [
        task for op in (*LOSSES, *VJPS) for dtype in reversed(first) for task in _of_training(op, dtype, moved, small)
    ]
    after = sum(task.op == "softmax" and task.dtype in first for task in cells)  # softmax first, then losses
    return (*cells[:after], *training, *cells[after:])
