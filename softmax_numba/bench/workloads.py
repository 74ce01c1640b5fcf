"""What is measured: the operations, the dtypes, and workloads named after what they are in life.

The report, the asv suite and the tests read this one catalogue. A new workload is one more entry in
:data:`WORKLOADS`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np

from softmax_numba.bench.requests import RequestError, check_axis, choose

__all__ = [
    "DTYPES",
    "OPS",
    "TRAINING_OPS",
    "WORKLOADS",
    "YOUR_ARRAY",
    "Workload",
    "dtype_named",
    "family",
    "from_array",
    "logits",
    "result_dtype",
    "result_shape",
    "result_shapes",
    "select",
]

Array = np.ndarray[Any, Any]
Draw = Callable[[np.random.Generator, tuple[int, ...], Any], Array]

OPS = ("softmax", "log_softmax", "logsumexp")
# What the grid of regimes measures besides: losses and ways back, which are handed more than one array.
TRAINING_OPS = (
    "cross_entropy",
    "cross_entropy_and_grad",
    "softmax_vjp",
    "log_softmax_vjp",
    "linear_cross_entropy_and_grad",
)
DTYPES = ("float32", "float64", "float16", "bfloat16")
YOUR_ARRAY = "your-array"
# Below this a call is all dispatch: its latency is of interest, its bytes a second are not.
_LATENCY_ELEMENTS = 4096


@dataclass(frozen=True)
class Workload:
    """One array and axis that somebody takes a softmax over.

    Attributes
    ----------
    name : str
        What the command line and the results call it.
    title : str
        What the pictures call it.
    reason : str
        Why it is measured.
    shape : tuple of int
    axis : int
    dtypes : tuple of str
        The dtypes that are measured when none is asked for.
    draw : callable
        ``draw(generator, shape, dtype)``: values that look like the thing in life.
    masked : bool
        Whether ``where=`` leaves half of the values, drawn by lot.
    temperature : float
    fresh : bool
        Whether the result is a new array at every call, instead of one that is given as ``out=``.
    growth : bool
        Whether it is one size of many, and is measured with every number of threads.
    features : int
        If not 0: what is drawn is rows of so many features, of which a linear layer, :meth:`weight`, would make
        logits of this shape.
    """

    name: str
    title: str
    reason: str
    shape: tuple[int, ...]
    axis: int
    draw: Draw
    dtypes: tuple[str, ...] = ("float32",)
    masked: bool = False
    temperature: float = 1.0
    fresh: bool = False
    growth: bool = False
    features: int = 0

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape))

    @property
    def length(self) -> int:
        """Elements of one lane."""
        return self.shape[self.axis]

    @property
    def lanes(self) -> int:
        return self.elements // self.length

    @property
    def kind(self) -> Literal["throughput", "latency", "growth"]:
        if self.growth:
            return "growth"
        return "latency" if self.elements < _LATENCY_ELEMENTS else "throughput"

    def make(self, seed: int = 0, dtype: str | None = None) -> Array:
        """The array of this workload: the same seed gives the same values, whatever else is measured.

        Parameters
        ----------
        seed : int
        dtype : str, optional
            One of :data:`DTYPES`, or the name of a dtype of the user's own array; default: the first of
            ``dtypes``.

        Examples
        --------
        >>> x = WORKLOADS["router"].make(seed=0)
        >>> x.shape, x.dtype.name
        ((65536, 8), 'float32')
        """
        wanted = dtype_named(dtype or self.dtypes[0])
        drawn = np.float64 if wanted == np.float64 else np.float32
        shape = (*self.shape[:-1], self.features) if self.features else self.shape
        values = self.draw(self._generator(seed), shape, drawn)
        return values.astype(wanted, order="K", copy=False)

    def mask(self, seed: int = 0) -> Array | None:
        """What ``where=`` is, if anything."""
        if not self.masked:
            return None
        return self._generator(seed, 1).random(self.shape) < 0.5

    def targets(self, seed: int = 0) -> Array:
        """A class for every lane, as a loss is handed them."""
        axis = self.axis % len(self.shape)
        return self._generator(seed, 2).integers(0, self.length, self.shape[:axis] + self.shape[axis + 1 :])

    def cotangent(self, seed: int = 0, dtype: str | None = None) -> Array:
        """What comes back to a result of this shape: normal values."""
        values = self._generator(seed, 3).standard_normal(self.shape, dtype=np.float32)
        return values.astype(dtype_named(dtype or self.dtypes[0]))

    def weight(self, seed: int = 0, dtype: str | None = None) -> Array:
        """The matrix of the linear layer, (classes, features): logits spread as far as the features do."""
        values = self._generator(seed, 4).standard_normal((self.length, self.features), dtype=np.float32)
        values /= np.float32(np.sqrt(self.features))
        return values.astype(dtype_named(dtype or self.dtypes[0]))

    def operands(self, op: str, seed: int = 0, dtype: str | None = None) -> tuple[Array, ...]:
        """The arrays that an op is handed.

        The array alone for :data:`OPS`; the array and its targets for a loss; y and its cotangent for a way back, y
        being our own result for the array; the rows, the weight and the targets for a linear layer.

        Examples
        --------
        >>> x, targets = WORKLOADS["router"].operands("cross_entropy")
        >>> x.shape, targets.shape, targets.dtype.name
        ((65536, 8), (65536,), 'int64')
        """
        x = self.make(seed, dtype)
        if op in OPS:
            return (x,)
        if op.endswith("_vjp"):
            import softmax_numba

            forward = getattr(softmax_numba, op.removesuffix("_vjp"))
            return forward(x, axis=self.axis), self.cotangent(seed, dtype)
        if op.startswith("linear_"):
            return x, self.weight(seed, dtype), self.targets(seed)
        return x, self.targets(seed)

    def _generator(self, seed: int, *part: int) -> np.random.Generator:
        return np.random.default_rng([seed, crc32(self.name.encode()), *part])


def logits(spread: float, mean: float = 0.0) -> Draw:
    """Draws normal logits: what a linear layer of a trained network puts out, to first order.

    Examples
    --------
    >>> logits(3.0)(np.random.default_rng(0), (2, 5), np.float32).shape
    (2, 5)
    """

    def draw(generator: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
        values = generator.standard_normal(shape, dtype=dtype)
        values *= spread
        values += mean
        return values

    return draw


def _log_densities(dimensions: int) -> Draw:
    """Log weight + log density of Gaussian components at points: -|z|²/2, far below 0 for far components."""

    def draw(generator: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
        values = generator.standard_gamma(dimensions / 2, size=shape, dtype=dtype)
        values *= -8
        values -= dimensions * np.log(2 * np.pi) / 2
        return values

    return draw


_CATALOGUE = (
    Workload(
        "classifier-head",
        "classifier head",
        "a batch of ImageNet logits: rows that fit L1, 16 MB in all",
        (4096, 1000),
        -1,
        logits(2.5),
    ),
    Workload(
        "gpt2-vocabulary",
        "GPT-2 vocabulary",
        "next-token probabilities of 256 positions; the odd length leaves every row at another alignment",
        (256, 50257),
        -1,
        logits(3.0, -30.0),
    ),
    Workload(
        "llama3-vocabulary",
        "Llama-3 vocabulary",
        "rows of half a megabyte, beyond L1; bfloat16 is what the model puts out",
        (64, 128256),
        -1,
        logits(2.5),
        ("float32", "bfloat16"),
    ),
    Workload(
        "router",
        "expert router",
        "mixture-of-experts gating: very many lanes, each shorter than one vector",
        (65536, 8),
        -1,
        logits(1.0),
    ),
    Workload(
        "attention",
        "attention scores",
        "8 sequences, 16 heads, 512 × 512 scores: 134 MB, far beyond the caches",
        (8, 16, 512, 512),
        -1,
        logits(1.5),
    ),
    Workload(
        "segmentation",
        "segmentation map",
        "21 classes along axis 1: neighbours of a lane lie 256 KB apart",
        (8, 21, 256, 256),
        1,
        logits(4.0),
    ),
    Workload(
        "mixture",
        "mixture model",
        "responsibilities of 16 components for a million points, in double precision as statistics does it",
        (1_000_000, 16),
        -1,
        _log_densities(8),
        ("float64",),
    ),
    Workload(
        "one-lane",
        "one lane of 2²⁴",
        "a Boltzmann distribution over 16 million states: one sum, where accumulated rounding shows",
        (2**24,),
        0,
        logits(3.0),
    ),
    Workload(
        "single-1x10",
        "one digit, 10 classes",
        "one image of digits: nothing but the cost of the call",
        (1, 10),
        -1,
        logits(3.0),
    ),
    Workload(
        "single-3x7",
        "3 agents, 7 actions",
        "a few agents' action probabilities: lanes that fill no vector",
        (3, 7),
        -1,
        logits(1.0),
    ),
    Workload(
        "single-16x100",
        "16 images, 100 classes",
        "a small batch of CIFAR-100 logits: too small for threads to pay",
        (16, 100),
        -1,
        logits(2.5),
    ),
)
WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _CATALOGUE}


def select(names: Iterable[str]) -> tuple[Workload, ...]:
    """The named workloads in the catalogue's order.

    Raises
    ------
    RequestError
        For an unknown name; lists the known ones.
    """
    return tuple(WORKLOADS[name] for name in choose("workload", names, list(WORKLOADS)))


def from_array(array: Array, axis: int, reason: str) -> Workload:
    """The user's own array as a workload; its values are taken as they are, the seed has no part in them."""
    check_axis(axis, array.ndim)

    def draw(generator: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
        return array

    return Workload(YOUR_ARRAY, "your array", reason, array.shape, axis, draw, (array.dtype.name,))


def dtype_named(name: str) -> np.dtype[Any]:
    """The NumPy dtype of that name; bfloat16 comes from ``ml_dtypes``."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise RequestError(
            'dtype bfloat16 needs ml_dtypes, not installed: pip install "softmax-numba[report]"'
        ) from None
    return np.dtype(bfloat16)


def result_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype of a result: the input's own for the four floats, float64 for integers and booleans."""
    return np.dtype(np.float64) if dtype.kind in "biu" else dtype


def family(op: str) -> str:
    """The same word for ops that are handed the same arrays.

    Examples
    --------
    >>> family("softmax") == family("logsumexp"), family("softmax_vjp") == family("log_softmax_vjp")
    (True, False)
    """
    if op in OPS:
        return "lanes"
    return "losses" if op.startswith("cross_entropy") else op


def result_shape(op: str, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """The shape of a result: logsumexp drops the reduced axis."""
    if op != "logsumexp":
        return shape
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


def result_shapes(op: str, shapes: Sequence[tuple[int, ...]], axis: int) -> tuple[tuple[int, ...], ...]:
    """The shapes of all results, by those of the operands: losses are means, and a gradient has its operand's shape.

    Examples
    --------
    >>> result_shapes("cross_entropy_and_grad", [(4, 10), (4,)], -1)
    ((), (4, 10))
    """
    if op == "cross_entropy":
        return ((),)
    if op == "cross_entropy_and_grad":
        return (), shapes[0]
    if op == "linear_cross_entropy_and_grad":
        return (), *shapes[:2]
    return (result_shape(op, shapes[0], axis),)
