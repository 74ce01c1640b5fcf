"""Who is compared: one entry a library, ours among them.

Every library computes what its user would write for the same task, into the same preallocated result where it
can. A peer that is not installed, or cannot do a cell, says so in words; neither is an error.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from softmax_numba.bench.requests import choose

__all__ = ["OURS", "PEERS", "Job", "Peer", "select"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Job:
    """One operation on one array.

    Attributes
    ----------
    op : str
        One of ``workloads.OPS``.
    x : ndarray
    axis : int
    out : ndarray
        The result's buffer; the contenders of a cell share it.
    threads : int
        How many threads a contender may use.
    where : ndarray of bool, optional
        Which values take part.
    temperature : float
    fresh : bool
        Whether the result is to be a new array; ``out`` then only says of which shape and dtype.
    """

    op: str
    x: Array
    axis: int
    out: Array
    threads: int
    where: Array | None = None
    temperature: float = 1.0
    fresh: bool = False

    @property
    def plain(self) -> bool:
        """Whether there is neither a mask nor a temperature."""
        return self.where is None and self.temperature == 1.0


@dataclass(frozen=True)
class Peer:
    """A library that computes the three functions.

    Attributes
    ----------
    name : str
        What the command line and the results call it.
    title : str
        What the pictures call it.
    distribution : str
        The package whose version is recorded.
    module : str
        The module that must be importable.
    expression : str
        What is timed, as one would write it.
    threading : str
        What the number of threads means to it.
    bind : callable
        ``bind(job)``: a callable without arguments that computes the result and returns it, or leaves it in
        ``job.out`` and returns whatever the library gives. Everything that the bound call need not repeat,
        such as wrapping the arrays, is done by ``bind``.
    writes_out : bool
        Whether the result lies in ``job.out`` afterwards.
    unsupported : callable
        ``unsupported(op, dtype)``: why this library cannot do it, or None.
    """

    name: str
    title: str
    distribution: str
    module: str
    expression: str
    threading: str
    bind: Callable[[Job], Callable[[], Any]]
    writes_out: bool
    unsupported: Callable[[str, np.dtype[Any]], str | None]

    @property
    def installed(self) -> bool:
        return find_spec(self.module) is not None

    @property
    def version(self) -> str | None:
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return None


def _anything(op: str, dtype: np.dtype[Any]) -> str | None:
    return None


def _no_bfloat16(library: str) -> Callable[[str, np.dtype[Any]], str | None]:
    def unsupported(op: str, dtype: np.dtype[Any]) -> str | None:
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


def _bind_torch(job: Job) -> Callable[[], Any]:
    import torch

    def tensor(array: Array) -> Any:
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor is it written to
            return torch.from_numpy(array)

    torch.set_num_threads(job.threads)
    function = getattr(torch, job.op)
    axis, out = job.axis, tensor(job.out)
    if min(job.x.strides, default=0) < 0:  # which no tensor has: its user would copy
        given = job.x
        return lambda: function(tensor(given.copy()), axis, out=out)
    x = tensor(job.x)
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
PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}


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
