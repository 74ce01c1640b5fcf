"""From the arguments of a loss to its kernels and back."""

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from softmax_numba import interop, pages
from softmax_numba.arguments import in_float32, native
from softmax_numba.cpu import loss_sweeps, loss_totals
from softmax_numba.dtypes import FLOATS, compute_name, dtype_of, for_kernel, name_of
from softmax_numba.lanes import as_lanes, reduced_axes, split, write_back

_REDUCTIONS = ("mean", "sum", "none")
_FLOAT64 = np.dtype(np.float64)


class Options(NamedTuple):
    """What a caller asks of a loss, looked at."""

    weight: np.ndarray | None  # one float64 a class
    ignored: int
    reduction: str
    smoothing: float
    z_loss: float
    gamma: float

    def storage(self, name: str) -> str:
        """The dtype that logits of the dtype of that name are computed in: a wider one for weights beyond float32."""
        if name == "float64" or self.weight is None:
            return name
        return name if in_float32(np.abs(self.weight[self.weight != 0.0])) else "float64"


class Targets(NamedTuple):
    """What the losses are taken at, and what their mean divides by."""

    array: np.ndarray  # indices, int64 and contiguous; or probabilities
    total: float

    @property
    def indices(self) -> bool:
        return self.array.dtype.kind == "i"


# --- what is asked for ------------------------------------------------------------------


def class_axis(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axis along which the classes stand; none of a single number."""
    try:
        return reduced_axes(operator.index(axis), ndim)
    except TypeError:
        raise TypeError(f"axis must be an int, not {axis!r}") from None


def examined_options(
    weight: Any,
    classes: int,
    ignore_index: Any,
    reduction: Any,
    smoothing: Any,
    z_loss: Any,
    gamma: Any,
    *,
    weight_name: str = "weight",
) -> Options:
    """The options, or an error that names the one that cannot be."""
    if not isinstance(reduction, str) or reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(map(repr, _REDUCTIONS))}, not {reduction!r}")
    share = number("label_smoothing", smoothing, "in [0, 1)")
    if not 0.0 <= share < 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1), not {smoothing!r}")
    weights = None if weight is None else _weights(weight, classes, weight_name)
    z, focal = _not_negative("z_loss", z_loss), _not_negative("focal_gamma", gamma)
    return Options(weights, checked_index(ignore_index), reduction, share, z, focal)


def number(name: str, value: Any, allowed: str) -> float:
    """An option as a float."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number {allowed}, not {value!r}") from None


def _not_negative(name: str, value: Any) -> float:
    given = number(name, value, "that is finite and not negative")
    if not 0.0 <= given < math.inf:
        raise ValueError(f"{name} must be finite and not negative, not {value!r}")
    return given


def checked_index(ignore_index: Any) -> int:
    """``ignore_index`` as an int64; its largest value stands for all that are larger still."""
    try:
        ignored = operator.index(ignore_index)
    except TypeError:
        raise TypeError(f"ignore_index must be an int, not {ignore_index!r}") from None
    if not -(2**63) <= ignored < 2**63 - 1:
        raise ValueError(f"ignore_index must be from -2**63 to 2**63 - 2, not {ignored}")
    return ignored


def _weights(weight: Any, classes: int, name: str) -> np.ndarray:
    given = interop.take(weight, name).array
    if given.dtype.kind not in "iufb" and name_of(given.dtype) not in FLOATS:
        raise TypeError(f"{name} has dtype {given.dtype}; it must hold numbers")
    if given.shape != (classes,):
        raise ValueError(f"{name} has shape {given.shape}; it must have one number for each of the {classes} classes")
    weights = given.astype(np.float64)
    wrong = ~np.isfinite(weights)
    if wrong.any():
        raise ValueError(f"{name} must be finite; that of class {wrong.argmax()} is {weights[wrong][0]}")
    return weights


def examined_targets(
    targets: Any, kept: tuple[int, ...], shape: tuple[int, ...], storage: str, options: Options
) -> Targets:
    """Class indices or probabilities for logits of a shape, which without the classes is ``kept``."""
    given = interop.take(targets, "targets").array
    if given.size == 0 and not interop.is_array(targets):
        given = given.astype(np.int64)  # an empty list has no dtype of its own
    kind = given.dtype.kind
    if kind in "iu":
        if given.shape != kept:
            raise ValueError(
                f"targets that are class indices must have the shape {kept} of the logits without their classes, "
                f"not {given.shape}"
            )
        classes = math.prod(shape) // math.prod(kept) if math.prod(kept) else 0
        flat, counted = examined_indices(given, classes, options.ignored)
        if options.weight is None:
            return Targets(flat, float(counted))
        return Targets(flat, loss_totals.weigh(flat, options.weight, options.ignored))
    if kind == "f" or name_of(given.dtype) in FLOATS:
        if given.shape != shape:
            raise ValueError(
                f"targets of dtype {given.dtype} are probabilities and must have the shape {shape} of the logits, "
                f"not {given.shape}; class indices are integers, of shape {kept}"
            )
        return Targets(_readable(given, storage), float(math.prod(kept)))
    raise TypeError(f"targets must be integers (class indices) or floats (probabilities), not {given.dtype}")


def examined_indices(given: np.ndarray, classes: int, ignored: int) -> tuple[np.ndarray, int]:
    """Class indices as one axis of int64, and how many of them count."""
    flat = given.reshape(-1)
    if flat.dtype.kind == "u" and flat.dtype.itemsize == 8:
        flat = np.minimum(flat, flat.dtype.type(2**63 - 1))
    flat = np.ascontiguousarray(flat, np.int64)
    counted, wrong = loss_totals.examine(flat, classes, ignored)
    if wrong:
        first = int(((flat != ignored) & ((flat < 0) | (flat >= classes))).argmax())
        place = tuple(int(i) for i in np.unravel_index(first, given.shape))
        where = f"targets[{', '.join(map(str, place))}]" if place else "targets"
        allowed = f"0 to {classes - 1}" if classes else "none, for there are no classes"
        raise IndexError(f"{where} is {given[place]}; allowed are {allowed}, and ignore_index={ignored}")
    return flat, counted


def _readable(given: np.ndarray, storage: str) -> np.ndarray:
    """Probabilities in a dtype that the kernel for such logits reads."""
    compute, name = compute_name(storage, storage), name_of(given.dtype)
    if name not in FLOATS or compute_name(name, name) != compute:
        name = compute
    return native(given, name)


# --- the losses of all lanes ------------------------------------------------------------


def room_for(lanes: int) -> np.ndarray:
    """Room for the losses of so many lanes, followed by zeros up to a multiple of 8."""
    losses = pages.empty((-(-lanes // 8) * 8,), _FLOAT64)
    losses[lanes:] = 0.0
    return losses


def fill(
    values: np.ndarray,
    storage: str,
    axes: tuple[int, ...],
    targets: Targets,
    options: Options,
    losses: np.ndarray,
    out: np.ndarray | None,
) -> None:
    """The losses of all lanes, and the gradient unless ``out`` is None.

    ``out`` may be ``values``, or apart from it; of any float dtype.
    """
    shape = tuple(1 if i in axes else n for i, n in enumerate(values.shape))
    lanes = losses[: math.prod(shape)].reshape(shape)
    if not values.size:
        lanes[...] = 0.0
        return
    dtype = dtype_of(storage)
    values = native(values, storage)
    how = split(values, axes)
    compute = np.dtype(compute_name(storage, storage))
    x, found = for_kernel(as_lanes(values, how), storage), as_lanes(lanes, how, one_number=True)
    room = gradient = None
    if out is not None:
        room = out if out.dtype == dtype else np.empty(out.shape, dtype)
        gradient = for_kernel(as_lanes(room, how), storage)
    wanted = targets.array
    if room is not None and np.may_share_memory(wanted, room):
        wanted = wanted.copy()
    if targets.indices:
        given = as_lanes(wanted.reshape(shape), how, one_number=True)[:, 0, :]
    else:
        given = for_kernel(as_lanes(wanted, how), name_of(wanted.dtype))
    gain = 1.0
    if options.reduction == "mean":
        gain = 1.0 / targets.total if targets.total else 0.0
    dense = options.smoothing > 0.0 or not targets.indices
    loss_sweeps.run(
        storage,
        x,
        given,
        *_tables(options, targets.indices, how.shape[1], compute),
        found[:, 0, :],
        gradient,
        np.array([1.0 - options.smoothing, options.z_loss, options.gamma, gain]),
        options.ignored,
        dense=dense,
        focal=options.gamma > 0.0,
    )
    write_back(found, lanes, how)
    if out is None or gradient is None or room is None:
        return
    write_back(gradient, room, how)
    if room is not out:
        out[...] = room


def _tables(options: Options, indices: bool, classes: int, compute: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """What a class's target is multiplied by, and what every class has besides; empty where no lane looks."""
    dense = options.smoothing > 0.0 or not indices
    if options.weight is None and not dense:
        nothing = np.empty(0, compute)
        return nothing, nothing
    weights = np.ones(classes) if options.weight is None else options.weight
    share = np.empty(0, compute)
    if not indices or options.weight is not None:
        share = loss_totals.padded((1.0 - options.smoothing) * weights, compute)
    if not dense:
        return share, np.empty(0, compute)
    return share, loss_totals.padded(options.smoothing / classes * weights, compute)


def reduced(losses: np.ndarray, kept: tuple[int, ...], options: Options, total: float, name: str) -> np.ndarray:
    """What the caller gets of the losses, in the dtype of that name: an array, of no axes for a mean or a sum."""
    if options.reduction == "none":
        result = losses[: math.prod(kept)].reshape(kept)
    else:
        value = loss_totals.sum_of(losses)
        if options.reduction == "mean":
            value = value / total if total else 0.0
        result = np.asarray(value)
    with np.errstate(over="ignore"):
        return result.astype(dtype_of(name))
