"""Cross-entropy, its gradient, and the class weights it takes."""

import math
import operator
from typing import Any

import numpy as np

from softmax_numba import interop, pages
from softmax_numba.arguments import checked_out, filled, like, may_write, one_device
from softmax_numba.cpu import loss_plain
from softmax_numba.cpu.loss_plain import REDUCTIONS
from softmax_numba.dtypes import FLOATS, name_of, own_name, result_name, with_own_dtype
from softmax_numba.loss_calls import (
    checked_index,
    class_axis,
    examined_indices,
    examined_options,
    examined_targets,
    fill,
    number,
    reduced,
    room_for,
)

_FLOAT32, _FLOAT64, _INT64 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)
# Between these a number becomes one of 16 bits without a warning: to ask for none takes as long as ten rows.
_LEAST, _MOST = 2.0**-14, 6e4

__all__ = ["class_weights", "cross_entropy", "cross_entropy_and_grad"]


def cross_entropy(
    logits: Any,
    targets: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    z_loss: float = 0.0,
    focal_gamma: float = 0.0,
) -> Any:
    """The loss -log softmax(logits) at the targets, reading the logits once and writing nothing of their size.

    Parameters
    ----------
    logits : array_like
        Unnormalised log-probabilities of the classes, which stand along ``axis``. Types as for :func:`softmax`; the
        entries that a NumPy masked array masks out count as -inf.
    targets : array_like
        Class indices (any integer dtype) in the shape of ``logits`` without ``axis``; or probabilities (floats) in
        the shape of ``logits``, which need not sum to 1.
    axis : int, default -1
        Along which axis the classes stand (PyTorch's are along axis 1).
    weight : array_like, shape (classes,), optional
        What each class counts; see :func:`class_weights`.
    ignore_index : int, default -100
        Indices of this value count for nothing. Without a meaning where the targets are probabilities.
    label_smoothing : float in [0, 1), default 0.0
        This share of every target is spread evenly over all classes.
    reduction : {"mean", "sum", "none"}
        What becomes of the lanes' losses. The mean over indices is their sum over the sum of the weights of the
        targets that count, the mean over probabilities their sum over the number of lanes; 0 where nothing counts
        (PyTorch has NaN there).
    z_loss : float, default 0.0
        Adds ``z_loss * logsumexp(logits)**2`` to the loss of every lane that counts, whatever its weight.
    focal_gamma : float, default 0.0
        Multiplies every class's term by (1 - p)**focal_gamma, p its probability: what is learnt already counts less.

    Returns
    -------
    scalar or array of the shape of ``logits`` without ``axis``, from its library
        In the dtype of ``logits`` (float64 for integers). A class with target 0 contributes 0, even at a logit of
        -inf; a target at one contributes +inf.

    Raises
    ------
    IndexError
        If an index is neither in ``range(classes)`` nor ``ignore_index``; it names the first. Indices that lie on a
        GPU cannot be reported without waiting for it: the loss and the gradient of such a lane are NaN.
    TypeError, ValueError, numpy.exceptions.AxisError
        If a dtype, a shape, an option or an axis is none of the above; as for :func:`softmax`.

    See Also
    --------
    cross_entropy_and_grad : The gradient as well, in the same pass.
    linear_cross_entropy : The same of ``hidden @ weight.T``, which never stands in memory as a whole.

    Notes
    -----
    Every term is within a few ULP of the exact one, and they are added up in twice the precision: a loss of 1e-12 is
    as accurate as one of 10. Sources: Szegedy et al. (2016) for the smoothing, Chowdhery et al. (2022) for the
    z-loss, Lin et al. (2017) for the focal factor.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import cross_entropy
    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    >>> cross_entropy(logits, [0, 2], reduction="none")
    array([0.69314718, 2.30258509])
    >>> cross_entropy(logits, [[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    np.float64(0.9780057)
    """
    how = reduction, label_smoothing, z_loss, focal_gamma
    found = _short_way(logits, targets, axis, weight, ignore_index, how, False, None)
    return (found or _loss(logits, targets, axis, weight, ignore_index, how, False, None))[0]


def cross_entropy_and_grad(
    logits: Any,
    targets: Any,
    axis: int = -1,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    z_loss: float = 0.0,
    focal_gamma: float = 0.0,
    out: Any = None,
) -> tuple[Any, Any]:
    """The cross-entropy and its gradient by the logits, which are read from memory once while a lane fits the cache.

    Parameters
    ----------
    logits, targets, axis, weight, ignore_index, label_smoothing, reduction, z_loss, focal_gamma
        As for :func:`cross_entropy`.
    out : array, optional
        Where to put the gradient, of the shape and dtype of ``logits``; ``logits`` itself becomes its gradient.

    Returns
    -------
    loss : scalar or array
        As from :func:`cross_entropy`.
    dlogits : array of the shape and dtype of ``logits``, from its library (or ``out``)
        The derivative of ``loss``, or of the sum of the losses where ``reduction`` is ``"none"``. 0 in lanes that
        count for nothing, whatever stands there.

    Raises
    ------
    IndexError, TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`cross_entropy`. Nothing has been written to ``out`` then.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import cross_entropy_and_grad
    >>> loss, gradient = cross_entropy_and_grad(np.log([[0.25, 0.75]]), [0])
    >>> gradient
    array([[-0.75,  0.75]])
    """
    how = reduction, label_smoothing, z_loss, focal_gamma
    found = _short_way(logits, targets, axis, weight, ignore_index, how, True, out)
    return found or _loss(logits, targets, axis, weight, ignore_index, how, True, out)


def _short_way(
    logits: Any,
    targets: Any,
    axis: Any,
    weight: Any,
    ignored: Any,
    how: tuple[Any, Any, Any, Any],
    gradient: bool,
    out: Any,
) -> tuple[Any, Any] | None:
    """The same for plain arrays in C order, indices and no options; None, and nothing done, for everything else."""
    if type(logits) is not np.ndarray or type(targets) is not np.ndarray or type(axis) is not int or weight is not None:
        return None
    reduction, smoothing, z_loss, gamma = how
    if not (type(smoothing) is type(z_loss) is type(gamma) is float) or smoothing or z_loss or gamma:
        return None
    if type(reduction) is not str or reduction not in REDUCTIONS or type(ignored) is not int:
        return None
    if ignored >= 2**63 - 1:  # which is no index to ignore: the long way says so
        return None
    dtype = logits.dtype
    name = "float32" if dtype is _FLOAT32 else "float64" if dtype is _FLOAT64 else own_name(dtype)
    if name is None:
        own = with_own_dtype(logits)
        return None if own is logits else _short_way(own, targets, axis, weight, ignored, how, gradient, out)
    call = loss_plain.prepared(name, logits.shape, axis, gradient)
    if call is None:
        return None
    if targets.dtype is not _INT64:
        if targets.dtype.kind != "i":
            return None
        targets = targets.astype(_INT64)
    if gradient and out is None:
        out = np.empty(logits.shape, dtype) if call.few else pages.empty(logits.shape, dtype)
    elif gradient and type(out) is not np.ndarray:
        return None
    elif gradient and out.dtype is not dtype:
        own = with_own_dtype(out)
        if own.dtype is not dtype:
            return None
        given = _short_way(logits, targets, axis, weight, ignored, how, gradient, own)
        return None if given is None else (given[0], out)
    found = np.empty(call.kept, call.result) if reduction == "none" else None
    try:
        done, loss = loss_plain.run(call, logits, targets, found, out, ignored, REDUCTIONS[reduction])
    except OverflowError:  # an index to be ignored that 64 bits cannot hold
        return None
    if not done:
        return None
    if found is None and (dtype.itemsize > 2 or loss == 0.0 or _LEAST <= loss <= _MOST):
        return dtype.type(loss), out
    result = np.float64(loss) if found is None else found[()]
    if result.dtype is dtype:
        return result, out
    with np.errstate(all="ignore"):
        return result.astype(dtype), out


def _loss(
    logits: Any,
    targets: Any,
    axis: Any,
    weight: Any,
    ignore_index: Any,
    how: tuple[Any, Any, Any, Any],
    gradient: bool,
    out: Any,
) -> tuple[Any, Any]:
    one_device(logits=logits, targets=targets, weight=weight, out=out)
    on_gpu = interop.gpu(logits, "loss_calls")
    if on_gpu is not None:
        return on_gpu.loss(logits, targets, axis, weight, ignore_index, how, gradient, out)
    if isinstance(logits, np.ma.MaskedArray):
        logits = filled(logits, -np.inf)
    values, give_back = interop.take(logits, "logits")
    name, axes = result_name(values.dtype, None, "logits"), class_axis(axis, values.ndim)
    given_name = name_of(values.dtype)
    shape = values.shape
    kept = tuple(n for i, n in enumerate(shape) if i not in axes)
    options = examined_options(weight, math.prod(shape[a] for a in axes), ignore_index, *how)
    storage = options.storage(given_name if given_name in FLOATS else "float64")
    wanted = examined_targets(targets, kept, shape, storage, options)
    target = None if out is None else checked_out(out, shape, name)
    answer = None
    if gradient:
        answer = target
        if target is None or not may_write(values, target):
            answer = like(values, shape, name)
    losses = room_for(math.prod(kept))
    fill(values, storage, axes, wanted, options, losses, answer)
    loss = reduced(losses, kept, options, wanted.total, name)
    result = interop.returned(loss, give_back)
    if answer is None:
        return result, None
    if target is None:
        return result, interop.returned(answer, give_back)
    if answer is not target:
        target[...] = answer
    return result, out


# --- class weights ----------------------------------------------------------------------


def class_weights(
    targets: Any, num_classes: int, method: str = "balanced", *, ignore_index: int = -100, beta: float = 0.999
) -> np.ndarray:
    """Weights for :func:`cross_entropy` that make up for classes with few examples.

    Parameters
    ----------
    targets : array_like of int
        Class indices of the examples, in any shape.
    num_classes : int
        How many classes there are.
    method : {"balanced", "inverse", "effective"}
        With n_k examples of class k out of n, and K classes: ``"balanced"`` is n / (K n_k), as scikit-learn's, so
        that every class that occurs counts the same in all; ``"inverse"`` is 1 / n_k; ``"effective"`` is
        (1 - beta) / (1 - beta**n_k), the inverse of the effective number of examples, scaled to a mean of 1.
    ignore_index : int, default -100
        Targets of this value are no examples.
    beta : float in [0, 1), default 0.999
        Of ``"effective"``: 0 gives every class the same, towards 1 it becomes ``"inverse"``.

    Returns
    -------
    numpy.ndarray, shape (num_classes,), float64
        0 for a class without examples.

    Raises
    ------
    IndexError
        If a target is out of range; it names the first.
    ValueError, TypeError
        If an option is none of the above.

    Notes
    -----
    Source of ``"effective"``: Cui et al., "Class-Balanced Loss Based on Effective Number of Samples" (2019).

    Examples
    --------
    >>> from softmax_numba import class_weights
    >>> class_weights([0, 0, 0, 1], 2)
    array([0.66666667, 2.        ])
    """
    methods = ("balanced", "inverse", "effective")
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(map(repr, methods))}, not {method!r}")
    try:
        classes = operator.index(num_classes)
    except TypeError:
        raise TypeError(f"num_classes must be an int, not {num_classes!r}") from None
    if classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {classes}")
    base = number("beta", beta, "in [0, 1)")
    if not 0.0 <= base < 1.0:
        raise ValueError(f"beta must be in [0, 1), not {beta!r}")
    given = interop.take(targets, "targets").array
    if given.size == 0 and not interop.is_array(targets):
        given = given.astype(np.int64)
    if given.dtype.kind not in "iu":
        raise TypeError(f"targets must be integers, not {given.dtype}")
    ignored = checked_index(ignore_index)
    found, _ = examined_indices(given, classes, ignored)
    counts = np.bincount(found[found != ignored], minlength=classes).astype(np.float64)
    there = counts > 0
    if method == "effective" and base > 0.0:
        weights = np.divide(1.0 - base, -np.expm1(counts * math.log(base)), where=there, out=np.zeros(classes))
    elif method == "effective":
        weights = there.astype(np.float64)
    else:
        weights = np.divide(1.0, counts, where=there, out=np.zeros(classes))
    if method == "balanced":
        weights *= counts.sum() / classes
    elif method == "effective" and there.any():
        weights /= weights[there].mean()
    return weights
