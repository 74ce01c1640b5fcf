"""Who is compared on a GPU: one entry a library, ours first. What is not installed says so."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, NamedTuple

from softmax_numba.bench.gpu_cells import LOSSES, VJPS, Task
from softmax_numba.bench.results import ContenderInfo

__all__ = ["CONTENDERS", "Contender", "Job", "info"]

Call = Callable[[], Any]


class Job(NamedTuple):
    """One operation on tensors."""

    task: Task
    x: Any
    out: Any
    others: tuple[Any, ...] = ()  # a cotangent, or targets


class Contender(NamedTuple):
    """``bind(job)`` is the call to be timed: it returns its result, or leaves it in ``out`` and returns that.

    ``unsupported(task)`` says why there is none, or None.
    """

    name: str
    title: str
    distributions: tuple[str, ...]  # under one of which the version is known
    module: str
    expression: str
    bind: Callable[[Job], Call]
    unsupported: Callable[[Task], str | None]

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None


def info(contender: Contender, real: bool = True) -> ContenderInfo:
    """What is recorded of one."""
    found = None
    for distribution in contender.distributions:
        try:
            found = version(distribution)
        except PackageNotFoundError:
            continue
    missing = None if contender.installed else f"{contender.module} is not installed"
    if missing is None and not real and contender.module not in ("softmax_numba", "torch"):
        missing = "needs a GPU"
    name, title, expression = contender.name, contender.title, contender.expression
    return ContenderInfo(name, title, found, expression, "the device's", missing)


def _everything(task: Task) -> str | None:
    return None


def _ours(job: Job) -> Call:
    import softmax_numba

    function, axis, out, x = getattr(softmax_numba, job.task.op), job.task.axis, job.out, job.x
    if job.others:
        (other,) = job.others
        if job.task.op == "cross_entropy":
            return lambda: function(x, other, axis)
        return lambda: function(x, other, axis, out=out)
    return lambda: function(x, axis, out=out)


def _torch(job: Job) -> Call:
    import torch

    axis, out, x = job.task.axis, job.out, job.x
    if job.task.op in LOSSES:
        return _torch_loss(job, torch.nn.functional.cross_entropy)
    if job.task.op == "softmax_vjp":
        back = torch.ops.aten._softmax_backward_data.out
        return lambda: back(job.others[0], x, axis, x.dtype, grad_input=out)
    if job.task.op == "log_softmax_vjp":
        back = torch.ops.aten._log_softmax_backward_data.out
        return lambda: back(job.others[0], x, axis, x.dtype, out=out)
    if job.task.op == "logsumexp":
        return lambda: torch.logsumexp(x, axis, out=out)
    function = getattr(torch, job.task.op)
    return lambda: function(x, axis, out=out)


def _torch_loss(job: Job, loss: Callable[[Any, Any], Any]) -> Call:
    """The loss of logits whose axis is 1 or the last of two, or with its gradient by autograd."""
    import torch

    (targets,) = job.others
    if job.task.op == "cross_entropy":
        return lambda: loss(job.x, targets)
    logits = job.x.detach().requires_grad_()

    def call() -> Any:
        found = loss(logits, targets)
        return (found.detach(), *torch.autograd.grad(found, logits))

    return call


# Each shape is compiled for seconds: not all of them.
_COMPILED = ("rows-1024", "rows-4096", "rows-32768", "rows-131072", "decode-1", "decode-8")


def _too_long_to_compile(task: Task) -> str | None:
    if task.op == "cross_entropy_and_grad" or (task.workload == "classes-131072" and task.op != "log_softmax_vjp"):
        return None
    if task.workload in _COMPILED and task.op in ("softmax", "logsumexp") and task.dtype in ("float32", "bfloat16"):
        return None
    return "left out: seconds of compilation for each shape"


def _torch_compile(job: Job) -> Call:
    import torch

    axis = job.task.axis
    if job.task.op in LOSSES:
        return _torch_loss(job, torch.compile(torch.nn.functional.cross_entropy, dynamic=False))
    if job.task.op in VJPS:
        back = torch.ops.aten._softmax_backward_data
        of_two = torch.compile(lambda y, dy: back(dy, y, axis, y.dtype), dynamic=False)
        return lambda: of_two(job.x, *job.others)
    function = getattr(torch, job.task.op)
    compiled = torch.compile(lambda x: function(x, axis), dynamic=False)
    return lambda: compiled(job.x)


def _cupy_lacks(task: Task) -> str | None:
    if task.op in (*LOSSES, *VJPS):
        return f"CuPy has no {task.op}"
    return "CuPy's ufuncs know no bfloat16" if task.dtype == "bfloat16" else None


def _cupy(job: Job) -> Call:
    cupy, special = import_module("cupy"), import_module("cupyx.scipy.special")
    x, axis, function = cupy.from_dlpack(job.x), job.task.axis, getattr(special, job.task.op)
    import torch

    handle = torch.cuda.current_stream().cuda_stream

    def call() -> Any:
        with cupy.cuda.ExternalStream(handle):
            return function(x, axis=axis)

    return call


def _triton_lacks(task: Task) -> str | None:
    if task.op != "softmax" or task.axis != -1 or task.dtype == "float64":
        return "the fused kernel is a softmax of rows in float32"
    return "the row does not fit a program's registers" if task.shape[-1] > 65536 else None


def _triton(job: Job) -> Call:
    from softmax_numba.bench.gpu_triton import softmax

    def call() -> Any:
        softmax(job.x, job.out)
        return job.out

    return call


CONTENDERS = (
    Contender(
        "softmax-numba",
        "softmax-numba",
        ("softmax-numba",),
        "softmax_numba",
        "softmax_numba.softmax(x, axis, out=out)",
        _ours,
        _everything,
    ),
    Contender("torch", "PyTorch", ("torch",), "torch", "torch.softmax(x, axis, out=out)", _torch, _everything),
    Contender(
        "torch-compile",
        "torch.compile",
        ("torch",),
        "torch",
        "torch.compile(lambda x: torch.softmax(x, axis), dynamic=False)",
        _torch_compile,
        _too_long_to_compile,
    ),
    Contender(
        "triton",
        "Triton, fused",
        ("triton",),
        "triton",
        "softmax_numba.bench.gpu_triton.softmax(x, out)",
        _triton,
        _triton_lacks,
    ),
    Contender(
        "cupy",
        "CuPy",
        ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
        "cupy",
        "cupyx.scipy.special.softmax(x, axis)",
        _cupy,
        _cupy_lacks,
    ),
)
