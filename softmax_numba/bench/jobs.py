"""What is compared, and by whom: one operation on one array, and a library that can do it."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import numpy as np

__all__ = ["Job", "Peer"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Job:
    """One operation on one array.

    Attributes
    ----------
    op : str
        One of ``workloads.OPS`` or ``workloads.TRAINING_OPS``.
    x : ndarray
    axis : int
    out : ndarray
        The result's buffer; the contenders of a cell share it. That of the gradient where a loss comes with one.
    threads : int
        How many threads a contender may use.
    where : ndarray of bool, optional
        Which values take part.
    temperature : float
    fresh : bool
        Whether the result is to be a new array; ``out`` then only says of which shape and dtype.
    others : tuple of ndarray
        What the operation is handed beside ``x``; see ``Workload.operands``.
    """

    op: str
    x: Array
    axis: int
    out: Array
    threads: int
    where: Array | None = None
    temperature: float = 1.0
    fresh: bool = False
    others: tuple[Array, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether there is neither a mask nor a temperature."""
        return self.where is None and self.temperature == 1.0


@dataclass(frozen=True)
class Peer:
    """A library that computes the three functions, and perhaps their losses and ways back.

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
        ``job.out`` and returns whatever the library gives. A loss, and what comes with it, is returned: as a tuple
        of results. Everything that the bound call need not repeat, such as wrapping the arrays, is done by
        ``bind``.
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
