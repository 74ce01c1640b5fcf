"""Cells that nobody chose: shapes, axes, operations and dtypes drawn by lot, the same ones for everybody."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from softmax_numba.bench.run import Task
from softmax_numba.bench.workloads import OPS, TRAINING_OPS, Workload, logits

__all__ = ["COUNT", "NAME", "SECONDS", "draw", "is_drawn"]

NAME = "drawn"
# What a run has that asks for no number.
COUNT = 120
# What a cell takes: of these 120 on two busy cores 1.2 with all kernels on disk, 2.8 with none.
SECONDS = 1.5
_DIMENSIONS = (1, 2, 2, 2, 3, 4)
_DTYPES = ("float32",) * 4 + ("float64", "float16", "bfloat16")
_OPS = (*OPS, *TRAINING_OPS[:-1])
# Powers of two between which the number of values is drawn.
_FEWEST, _MOST = 4, 22
# Below 1: lengths of one shape are apart, a short one beside a long one more often than two of a size.
_EVENNESS = 0.7
_VALUES = logits(3.0)


def draw(count: int = COUNT, seed: int = 0) -> tuple[Task, ...]:
    """So many cells: the first of them are the same for any ``count``.

    Parameters
    ----------
    count : int
    seed : int
        Of the cells; another one gives others.

    Returns
    -------
    tuple of Task
        No two of one shape, axis, op and dtype. Shapes have 1 to 4 axes and about 16 to 4 million values: the logarithm
        of their number is drawn evenly, and split among the axes.

    Examples
    --------
    >>> [(task.op, task.dtype, task.workload.shape, task.workload.axis) for task in draw(2)]
    [('cross_entropy', 'float64', (517, 1), 1), ('log_softmax_vjp', 'float32', (153, 1, 130), 1)]
    """
    return tuple(islice(_cells(seed), count))


def is_drawn(workload: str) -> bool:
    """Whether the workload of that name is one of these, of any seed.

    Examples
    --------
    >>> is_drawn(draw(1)[0].workload.name), is_drawn("4096x1000")
    (True, False)
    """
    return workload.startswith(f"{NAME}-")


def _cells(seed: int) -> Iterator[Task]:
    # Not of a Generator, whose streams change from one NumPy to the next: RandomState's are frozen.
    generator = np.random.RandomState(np.random.MT19937(seed))
    seen: set[Task] = set()
    while True:
        task = Task(_workload(generator), _one_of(generator, _OPS), _one_of(generator, _DTYPES))
        if task not in seen:
            seen.add(task)
            yield task


def _workload(generator: np.random.RandomState) -> Workload:
    dimensions = _one_of(generator, _DIMENSIONS)
    total = 2.0 ** generator.uniform(_FEWEST, _MOST)
    shares = generator.dirichlet([_EVENNESS] * dimensions)
    shape = tuple(int(length) for length in np.rint(total**shares))
    axis = _one_of(generator, range(dimensions))
    # The axis is named where it is the last, too: nobody's plain rows, such as those of the map.
    title = f"{' × '.join(map(str, shape))} axis {axis}"
    name = f"{NAME}-{title}".replace(" × ", "x").replace(" ", "-")
    return Workload(name, title, "drawn by lot", shape, axis, _VALUES)


def _one_of(generator: np.random.RandomState, choices: Sequence[Any]) -> Any:
    return choices[int(len(choices) * generator.random_sample())]
