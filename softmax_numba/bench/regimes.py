"""The grid of regimes: every size, dtype, layout and option, each with what it must gain over PyTorch.

A regime is a set of shapes that a softmax meets the same difficulty in. Its ``goal`` is the least ratio of PyTorch's
time to ours that its cells are built for; cells that miss it stay in the table. The last one has shapes that nobody
chose.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softmax_numba.bench import drawn
from softmax_numba.bench.requests import RequestError, check_positive, check_seed, choose
from softmax_numba.bench.run import Task
from softmax_numba.bench.workloads import OPS, TRAINING_OPS, Draw, Workload, logits

__all__ = ["GROWTH", "MAP", "REGIMES", "Regime", "tasks_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Regime:
    """Cells with one difficulty and one goal.

    Attributes
    ----------
    name, title : str
    weakness : str
        What costs the peers time here.
    goal : float
        The least ratio of PyTorch's time to ours.
    tasks : tuple of Task
    """

    name: str
    title: str
    weakness: str
    goal: float
    tasks: tuple[Task, ...]


_normal = logits(3.0)


def _laid_out(shape_of: Callable[[tuple[int, ...]], tuple[int, ...]], view: Callable[[Array], Array]) -> Draw:
    """Draws an array of another shape and looks at it through ``view``."""
    return lambda generator, shape, dtype: view(_normal(generator, shape_of(shape), dtype))


_LAYOUTS: dict[str, Draw] = {
    "x[:, ::2]": _laid_out(lambda s: (s[0], 2 * s[1]), lambda a: a[:, ::2]),
    "x.T": _laid_out(lambda s: (s[1], s[0]), lambda a: a.T),
    "x[::-1]": _laid_out(lambda s: s, lambda a: a[::-1]),
    "x[:, ::-1]": _laid_out(lambda s: s, lambda a: a[:, ::-1]),
    "broadcast": lambda g, shape, dtype: np.broadcast_to(_normal(g, shape[1:], dtype), shape),
}


def _workload(shape: tuple[int, ...], axis: int = -1, layout: str = "", **options: Any) -> Workload:
    title = " × ".join(map(str, shape)) + (f" axis {axis}" if axis != -1 else "") + (f" {layout}" if layout else "")
    title += "".join(f" {name}" for name, value in options.items() if value)
    name = title.replace(" × ", "x").replace(" ", "-")
    return Workload(name, title, "a regime of the grid", shape, axis, _LAYOUTS.get(layout, _normal), **options)


def _linear(shape: tuple[int, ...], features: int) -> Workload:
    """Logits that a linear layer makes of so many features."""
    logits = _workload(shape)
    return replace(
        logits, name=f"{logits.name}-from-{features}", title=f"{logits.title} from {features}", features=features
    )


_CALLS = tuple(_workload(shape) for shape in ((1, 10), (3, 7), (16, 100)))
_SHORT = tuple(_workload((10**6, length)) for length in (4, 8, 10))
_TINY = (_workload((10**6, 16)), _workload((500_000, 32)))
_MEMORY = tuple(_workload(shape) for shape in ((400_000, 41), (65536, 256), (16384, 1000), (4096, 4096)))
_CACHE = tuple(_workload(shape) for shape in ((128, 1000), (1000, 100), (32, 32000)))
_VOCABULARIES = (_workload((256, 50257)), _workload((64, 128256)))
_LANES = tuple(_workload((2**n,)) for n in (20, 22, 24, 26))
_INNER = (_workload((64, 1000, 128), 1), _workload((8, 21, 256, 256), 1), _workload((4096, 1000), 0))
_STRIDED = tuple(_workload((4096, 1000), -1, layout) for layout in _LAYOUTS)
_OPTIONS = tuple(_workload((4096, 1000), -1, "", **option) for option in ({"masked": True}, {"temperature": 2.0}))
_FRESH = tuple(_workload(w.shape, -1, "", fresh=True) for w in _VOCABULARIES)
_LOSSES = (
    *(_workload(shape) for shape in ((4096, 1000), (2048, 50257), (512, 128256))),
    _workload((8, 21, 256, 256), 1),
    _workload((65536, 100)),
)
_WAYS_BACK = (
    *(_workload(shape) for shape in ((4096, 1000), (512, 50257), (16384, 1000))),
    _workload((64, 1000, 128), 1),
    _workload((10**6, 10)),
)
# Losses and gradients of the sizes that softmax is measured at, from a single call to lanes of 16 and rows in memory.
_OTHERS = (_CALLS[2], _CACHE[0], _TINY[0], *_MEMORY[:2])
_MIXED = (_SHORT[1], _TINY[0], _MEMORY[2], _CACHE[0], _VOCABULARIES[0], _INNER[1])


def _tasks(
    workloads: Iterable[Workload], ops: Iterable[str] = ("softmax",), dtypes: Iterable[str] = ("float32",)
) -> Any:
    return tuple(Task(workload, op, dtype) for dtype in dtypes for workload in workloads for op in ops)


_ROWS = (*_SHORT, *_TINY, *_MEMORY, *_CACHE, *_VOCABULARIES, *_LANES[2:3], *_INNER)
# One lane of every size, with every number of threads: how the cost of a value changes.
GROWTH = tuple(Task(_workload((2**n,), growth=True), "softmax", "float32") for n in range(0, 27, 2))
# Lengths and numbers of lanes, one of each box of the report's map; up to 64 MB of float32.
_SHAPES = tuple((16**lanes, 2**length) for length in range(4, 20, 3) for lanes in range(6) if 4 * lanes + length <= 24)
_MAPPED = tuple(map(_workload, _SHAPES))
MAP = _tasks(_MAPPED, OPS) + _tasks(_MAPPED, dtypes=("float64", "float16", "bfloat16"))
_TABLE = (
    Regime("calls", "single calls", "dispatch; starts threads for two rows", 1.5, _tasks(_CALLS, OPS)),
    Regime("short", "lanes below 16", "160 ns a row below its vector width", 5.0, _tasks(_SHORT)),
    Regime("tiny", "lanes of 16 to 32", "half empty vectors", 2.5, _tasks(_TINY)),
    Regime("memory", "rows in memory", "four sweeps; reads what it is about to overwrite", 1.7, _tasks(_MEMORY)),
    Regime("cache", "rows in cache", "exponential and sum are not fused", 1.6, _tasks(_CACHE)),
    Regime("vocabulary", "vocabularies", "leaves the caches four times", 1.8, _tasks(_VOCABULARIES)),
    Regime("lane", "one lane", "one thread; wrong by 0.19 %", 3.0, _tasks(_LANES)),
    Regime("inner", "inner axis", "walks columns", 3.0, _tasks(_INNER)),
    Regime("strided", "strided", "copies first", 3.0, _tasks(_STRIDED)),
    Regime("float64", "float64", "", 1.7, _tasks(_MIXED, dtypes=("float64",))),
    Regime(
        "half", "float16 and bfloat16", "converts through a buffer", 1.7, _tasks(_MIXED, dtypes=("float16", "bfloat16"))
    ),
    Regime("log_softmax", "log_softmax", "three reads", 1.8, _tasks(_ROWS, ("log_softmax",))),
    Regime("logsumexp", "logsumexp", "five passes that are not fused", 6.0, _tasks(_ROWS, ("logsumexp",))),
    Regime("options", "where, temperature", "needs another array first", 2.0, _tasks(_OPTIONS)),
    Regime("fresh", "no out=", "page faults", 3.0, _tasks(_FRESH)),
    Regime("cross_entropy", "cross_entropy", "writes the log-probabilities", 3.0, _tasks(_LOSSES, ("cross_entropy",))),
    Regime(
        "training",
        "loss and gradient",
        "three arrays of the logits' size",
        2.5,
        _tasks(_LOSSES, ("cross_entropy_and_grad",)),
    ),
    Regime(
        "vjp",
        "gradients (vjp)",
        "sums in a sweep of their own",
        1.7,
        _tasks(_WAYS_BACK, ("softmax_vjp", "log_softmax_vjp")),
    ),
    Regime(
        "sizes",
        "losses and gradients at other sizes",
        "",
        1.0,
        _tasks(_OTHERS, TRAINING_OPS[:-1]),
    ),
    Regime(
        "kinds",
        "operations in other dtypes",
        "",
        1.0,
        _tasks((_LOSSES[0],), (*OPS[1:], *TRAINING_OPS[:-1]), ("float64", "float16", "bfloat16")),
    ),
    Regime(
        "linear",
        "linear layer and loss",
        "the logits and their gradient stand in memory",
        1.0,
        _tasks((_linear((2048, 50257), 768),), ("linear_cross_entropy_and_grad",)),
    ),
    Regime(drawn.NAME, "shapes drawn at random", "", 1.0, drawn.draw()),
)
REGIMES: dict[str, Regime] = {regime.name: regime for regime in _TABLE}


def tasks_of(names: Iterable[str], count: int | None = None, drawn_seed: int | None = None) -> tuple[Task, ...]:
    """The cells of the named regimes, of the ``map`` and of ``growth``; without a name: of all of them.

    Parameters
    ----------
    names : iterable of str
    count, drawn_seed : int, optional
        How many cells of the regime ``drawn``, and by which seed; default: those of :data:`REGIMES`.

    Raises
    ------
    RequestError
        For an unknown name, of which it lists the known ones; for a count or seed that is not allowed, or that is
        given without the regime ``drawn``.

    Examples
    --------
    >>> [task.workload.shape for task in tasks_of(["growth"])][:3]
    [(1,), (4,), (16,)]
    >>> len(tasks_of(["drawn", "growth"], count=5)) - len(GROWTH)
    5
    """
    tasks = {name: regime.tasks for name, regime in REGIMES.items()} | {"map": MAP, "growth": GROWTH}
    chosen = choose("regime", names or tasks, list(tasks))
    for option, value in (("--drawn", count), ("--drawn-seed", drawn_seed)):
        if value is not None and drawn.NAME not in chosen:
            raise RequestError(f"{option} {value} has no meaning without the regime {drawn.NAME}")
    if count is not None or drawn_seed is not None:
        count = drawn.COUNT if count is None else check_positive(count, "--drawn")
        tasks[drawn.NAME] = drawn.draw(count, check_seed(drawn_seed or 0, "--drawn-seed"))
    return tuple(task for name in chosen for task in tasks[name])
