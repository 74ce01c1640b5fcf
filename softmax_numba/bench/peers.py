"""Who is compared: one entry a library, ours among them.

Every library computes what its user would write for the same task, into the same preallocated result where it
can. A peer that is not installed, or cannot do a cell, says so in words; neither is an error.
"""

import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np

from softmax_numba.bench.jobs import Job, Peer
from softmax_numba.bench.others import OTHERS
from softmax_numba.bench.requests import choose
from softmax_numba.bench.workloads import TRAINING_OPS

__all__ = ["OURS", "PEERS", "USUAL", "Job", "Peer", "select"]

Array = np.ndarray[Any, Any]


def _anything(op: str, dtype: np.dtype[Any]) -> str | None:
    return None


def _no_bfloat16(library: str) -> Callable[[str, np.dtype[Any]], str | None]:
    def unsupported(op: str, dtype: np.dtype[Any]) -> str | None:
        if op in TRAINING_OPS:
            return f"{library} has no {op}"
        if dtype.name == "bfloat16":
            return f"{library} has no bfloat16: ml_dtypes' loops would round after every step of the expression"
        return None

    return unsupported


# --- ours ---------------------------------------------------------------------------


def _bind_ours(job: Job) -> Callable[[], Any]:
    import numba

    import softmax_numba

    function = getattr(softmax_numba, job.op)
    numba.set_num_threads(job.threads)
    x, axis, out = job.x, job.axis, job.out
    if job.op == "linear_cross_entropy_and_grad":
        weight, targets = job.others
        return lambda: function(x, weight, targets)[:3]
    if job.op == "cross_entropy":
        (targets,) = job.others
        return lambda: (function(x, targets, axis=axis),)
    if job.others:
        (other,) = job.others
        return lambda: function(x, other, axis=axis, out=out)
    if job.plain:
        return (lambda: function(x, axis=axis)) if job.fresh else lambda: function(x, axis=axis, out=out)
    options: dict[str, Any] = {"where": job.where} if job.temperature == 1.0 else {"temperature": job.temperature}
    return lambda: function(x, axis=axis, out=out, **options)


OURS = Peer(
    name="softmax-numba",
    title="softmax-numba",
    distribution="softmax-numba",
    module="softmax_numba",
    expression="softmax_numba.softmax(x, axis=axis, out=out)",
    threading="as many as it is given, fewer for small arrays",
    bind=_bind_ours,
    writes_out=True,
    unsupported=_anything,
)


# --- NumPy --------------------------------------------------------------------------


def _numpy_softmax(x: Array, axis: int, out: Array) -> None:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=axis, keepdims=True)


def _numpy_log_softmax(x: Array, axis: int, out: Array) -> None:
    np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    out -= np.log(np.exp(out).sum(axis=axis, keepdims=True))


def _numpy_logsumexp(x: Array, axis: int, out: Array) -> None:
    largest = x.max(axis=axis, keepdims=True)
    shifted = np.subtract(x, largest, dtype=out.dtype)
    np.exp(shifted, out=shifted)
    np.log(shifted.sum(axis=axis), out=out)
    out += largest.squeeze(axis)


_NUMPY = {"softmax": _numpy_softmax, "log_softmax": _numpy_log_softmax, "logsumexp": _numpy_logsumexp}


def _bind_numpy(job: Job) -> Callable[[], Any]:
    function = _NUMPY[job.op]
    x, axis, out = job.x, job.axis, job.out
    return lambda: function(x, axis, out)


# --- SciPy --------------------------------------------------------------------------


def _bind_scipy(job: Job) -> Callable[[], Any]:
    function = getattr(import_module("scipy.special"), job.op)
    x, axis = job.x, job.axis
    return lambda: function(x, axis=axis)


# --- PyTorch ------------------------------------------------------------------------


def _no_integers(op: str, dtype: np.dtype[Any]) -> str | None:
    return f"PyTorch's {op} takes no {dtype.name}" if dtype.kind in "biu" else None


def _tensor(array: Array) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
        return torch.from_numpy(array)


def _array(tensor: Any, dtype: np.dtype[Any]) -> Array:
    """The same memory without its history."""
    import torch

    tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy().view(dtype)


def _torch_loss(job: Job) -> Callable[[], Any]:
    """Forward, and backward from a loss to the leaves, whose gradients of the step before are dropped first."""
    import torch

    loss_of, dtype, targets = torch.nn.functional.cross_entropy, job.x.dtype, torch.from_numpy(job.others[-1])
    if job.op == "linear_cross_entropy_and_grad":
        hidden, weight = (_tensor(array).requires_grad_() for array in (job.x, job.others[0]))

        def linear_step() -> Any:
            hidden.grad = weight.grad = None
            loss = loss_of(hidden @ weight.T, targets)
            loss.backward()
            return tuple(_array(a, dtype) for a in (loss, hidden.grad, weight.grad))

        return linear_step
    # Its classes are along axis 1.
    place = min(1, job.x.ndim - 1)
    x = _tensor(job.x).movedim(job.axis, place)
    if job.op == "cross_entropy":
        return lambda: (_array(loss_of(x, targets), dtype),)
    x.requires_grad_()

    def step() -> Any:
        x.grad = None
        loss = loss_of(x, targets)
        loss.backward()
        return _array(loss, dtype), _array(x.grad.movedim(place, job.axis), dtype)

    return step


def _torch_way_back(job: Job) -> Callable[[], Any]:
    """What its autograd calls, without autograd."""
    import torch

    y, dy, out = _tensor(job.x), _tensor(job.others[0]), _tensor(job.out)
    axis, dtype = job.axis, y.dtype
    if job.op == "softmax_vjp":
        back = torch.ops.aten._softmax_backward_data.out
        return lambda: back(dy, y, axis, dtype, grad_input=out)
    back = torch.ops.aten._log_softmax_backward_data.out
    return lambda: back(dy, y, axis, dtype, out=out)


def _bind_torch(job: Job) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(job.threads)
    if job.op in TRAINING_OPS:
        return _torch_way_back(job) if job.op.endswith("_vjp") else _torch_loss(job)
    function = getattr(torch, job.op)
    axis, out = job.axis, _tensor(job.out)
    if min(job.x.strides, default=0) < 0:  # which no tensor has: its user would copy
        given = job.x
        return lambda: function(_tensor(given.copy()), axis, out=out)
    x = _tensor(job.x)
    if job.where is not None:
        hidden = torch.from_numpy(~job.where)
        return lambda: function(x.masked_fill(hidden, -torch.inf), axis, out=out)
    if job.temperature != 1.0:
        heat = job.temperature
        return lambda: function(x / heat, axis, out=out)
    return (lambda: function(x, axis)) if job.fresh else lambda: function(x, axis, out=out)


_PEERS = (
    Peer(
        name="numpy",
        title="NumPy",
        distribution="numpy",
        module="numpy",
        expression="np.subtract(x, x.max(axis, keepdims=True), out=out); np.exp(out, out=out); out /= out.sum(...)",
        threading="one: NumPy has no more for this",
        bind=_bind_numpy,
        writes_out=True,
        unsupported=_no_bfloat16("NumPy"),
    ),
    Peer(
        name="scipy",
        title="SciPy",
        distribution="scipy",
        module="scipy",
        expression="scipy.special.softmax(x, axis=axis)",
        threading="one: SciPy has no more for this; no out=, so every result is a new array",
        bind=_bind_scipy,
        writes_out=False,
        unsupported=_no_bfloat16("SciPy"),
    ),
    Peer(
        name="torch",
        title="PyTorch",
        distribution="torch",
        module="torch",
        expression="torch.softmax(x, axis, out=out)",
        threading="the same number as softmax-numba is given",
        bind=_bind_torch,
        writes_out=True,
        unsupported=_no_integers,
    ),
)
PEERS: dict[str, Peer] = {peer.name: peer for peer in (*_PEERS, *OTHERS)}
# Whom a run compares with that names nobody: what else is installed must not change what a report says.
USUAL = tuple(peer.name for peer in _PEERS)


def select(names: Iterable[str]) -> tuple[Peer, ...]:
    """The named peers in the registry's order, installed or not.

    Raises
    ------
    RequestError
        For an unknown name; lists the known ones.

    Examples
    --------
    >>> [peer.title for peer in select(["torch", "numpy"])]
    ['NumPy', 'PyTorch']
    """
    return tuple(PEERS[name] for name in choose("peer", names, list(PEERS)))
