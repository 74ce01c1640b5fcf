"""Cross-entropy of a linear classifier, whose logits never stand in memory as a whole."""

import math
from typing import Any, NamedTuple

import numpy as np

from softmax_numba import interop
from softmax_numba.arguments import one_device
from softmax_numba.dtypes import dtype_of, result_name
from softmax_numba.loss_calls import Targets, examined_options, examined_targets, fill, reduced, room_for

__all__ = ["linear_cross_entropy", "linear_cross_entropy_and_grad"]

# At most so many bytes of logits are there at once, in chunks of equal size. The fewer rows, the more often the matrix
# is read and its gradient added to: measured on two cores with 50,257 classes of 768 features, chunks of 293 rows 1.16x
# PyTorch's speed, of 410 (these) 1.27x, of 512 as much. Beside the gradients, that takes a tenth of its memory.
CHUNK_BYTES = 96 * 2**20
_FEWEST_ROWS = 64
# Products are taken for so many classes at a time: what is added to a gradient stays in a cache, and NumPy's BLAS packs
# no more than that; of all classes it packs 40 MB.
_CLASSES = 4096


def linear_cross_entropy(
    hidden: Any,
    weight: Any,
    targets: Any,
    bias: Any = None,
    *,
    class_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    z_loss: float = 0.0,
    focal_gamma: float = 0.0,
) -> Any:
    """The cross-entropy of ``hidden @ weight.T + bias``, computed some rows at a time.

    Parameters
    ----------
    hidden : array_like, shape (..., features)
        One row a lane. Types as for :func:`softmax`.
    weight : array_like, shape (classes, features)
        The classifier's matrix, one row a class.
    targets : array_like
        Class indices of shape ``hidden.shape[:-1]``, or probabilities of that shape and ``(classes,)``.
    bias : array_like, shape (classes,), optional
        What is added to every row of logits.
    class_weight : array_like, shape (classes,), optional
        ``weight`` of :func:`cross_entropy`.
    ignore_index, label_smoothing, reduction, z_loss, focal_gamma
        As for :func:`cross_entropy`.

    Returns
    -------
    scalar or array of shape ``hidden.shape[:-1]``, from the library of ``hidden``
        As from :func:`cross_entropy` of the logits, in the dtype of ``hidden``.

    Raises
    ------
    IndexError, TypeError, ValueError
        As for :func:`cross_entropy`; if the shapes do not fit.

    See Also
    --------
    linear_cross_entropy_and_grad : The gradients as well.

    Notes
    -----
    The matrix product is NumPy's, in float32 or, if an argument is wider, float64; the logits are never rounded to 16
    bits. At most 101 MB of them are in memory at a time, or 64 rows if those are more. Losses and gradients are as
    accurate as the products: a row's error grows with its number of features, and its bits may depend on other rows.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import linear_cross_entropy
    >>> hidden, weight = np.array([[1.0, 0.0]]), np.log([[0.25, 1.0], [0.75, 1.0]])
    >>> linear_cross_entropy(hidden, weight, [1])
    np.float64(0.2876821)
    """
    call = _examined(hidden, weight, targets, bias, class_weight)
    options = (ignore_index, reduction, label_smoothing, z_loss, focal_gamma)
    return call.run(*options, gradient=False)[0]


def linear_cross_entropy_and_grad(
    hidden: Any,
    weight: Any,
    targets: Any,
    bias: Any = None,
    *,
    class_weight: Any = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    z_loss: float = 0.0,
    focal_gamma: float = 0.0,
) -> tuple[Any, Any, Any, Any]:
    """The same loss and its gradients by hidden, weight and bias, in one pass over the rows.

    Parameters
    ----------
    hidden, weight, targets, bias, class_weight, ignore_index, label_smoothing, reduction, z_loss, focal_gamma
        As for :func:`linear_cross_entropy`.

    Returns
    -------
    loss : scalar or array
        As from :func:`linear_cross_entropy`.
    dhidden, dweight : arrays of the shapes and dtypes of ``hidden`` and ``weight``, from their libraries
        The derivatives of ``loss``, or of the sum of the losses where ``reduction`` is ``"none"``.
    dbias : array of the shape and dtype of ``bias``, or None without one

    Raises
    ------
    IndexError, TypeError, ValueError
        As for :func:`linear_cross_entropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import linear_cross_entropy_and_grad
    >>> hidden, weight = np.array([[1.0, 0.0]]), np.log([[0.25, 1.0], [0.75, 1.0]])
    >>> loss, dhidden, dweight, _ = linear_cross_entropy_and_grad(hidden, weight, [1])
    >>> dweight
    array([[ 0.25,  0.  ],
           [-0.25, -0.  ]])
    """
    call = _examined(hidden, weight, targets, bias, class_weight)
    options = (ignore_index, reduction, label_smoothing, z_loss, focal_gamma)
    return call.run(*options, gradient=True)


class _Argument(NamedTuple):
    values: np.ndarray
    name: str  # of the dtype of its gradient
    give_back: Any

    def returned(self, gradient: np.ndarray) -> Any:
        return self.give_back(gradient.reshape(self.values.shape).astype(dtype_of(self.name), copy=False))


class _Call(NamedTuple):
    """A call whose arrays have been looked at."""

    hidden: _Argument
    weight: _Argument
    bias: _Argument | None
    targets: Any
    class_weight: Any
    compute: np.dtype

    @np.errstate(all="ignore")
    def run(
        self, ignore_index: Any, reduction: Any, smoothing: Any, z_loss: Any, gamma: Any, *, gradient: bool
    ) -> tuple[Any, Any, Any, Any]:
        kept, (classes, features) = self.hidden.values.shape[:-1], self.weight.values.shape
        asked = ignore_index, reduction, smoothing, z_loss, gamma
        options = examined_options(self.class_weight, classes, *asked, weight_name="class_weight")
        storage = options.storage(self.compute.name)
        targets = examined_targets(self.targets, kept, (*kept, classes), storage, options)
        lanes = math.prod(kept)
        rows = self.hidden.values.reshape(lanes, features)
        weight = self.weight.values.astype(self.compute, copy=False)
        bias = None if self.bias is None else self.bias.values.astype(self.compute)
        losses = room_for(lanes)
        dhidden = np.zeros((lanes, features), self.compute) if gradient else None
        dweight = np.zeros((classes, features), self.compute) if gradient else None
        dbias = np.zeros(classes) if gradient and bias is not None else None
        given = targets.array if targets.indices else targets.array.reshape(lanes, classes)
        size = _rows_of_chunk(lanes, classes * self.compute.itemsize)
        room = np.empty((size, classes), self.compute)
        piece = np.empty((min(_CLASSES, classes), features), self.compute)
        row_piece = np.empty((size, features), self.compute)
        for start in range(0, lanes, max(1, size)):
            stop = min(lanes, start + size)
            some = rows[start:stop].astype(self.compute, copy=False)
            logits = room[: stop - start]
            for k in range(0, classes, _CLASSES):
                np.matmul(some, weight[k : k + _CLASSES].T, out=logits[:, k : k + _CLASSES])
            if bias is not None:
                logits += bias
            found = room_for(stop - start)
            of_chunk = Targets(given[start:stop], targets.total)
            fill(logits, storage, (1,), of_chunk, options, found, logits if gradient else None)
            losses[start:stop] = found[: stop - start]
            if dhidden is not None and dweight is not None:
                strange = ~np.isfinite(some).all(1)
                if strange.any():  # what counts for nothing has a gradient of 0, and 0 times infinity is none
                    some = np.where((strange & ~logits.any(1))[:, None], self.compute.type(0), some)
                of_rows = dhidden[start:stop]
                for k in range(0, classes, _CLASSES):
                    block, of_classes = logits[:, k : k + _CLASSES], dweight[k : k + _CLASSES]
                    of_rows += np.matmul(block, weight[k : k + _CLASSES], out=row_piece[: len(of_rows)])
                    of_classes += np.matmul(block.T, some, out=piece[: len(of_classes)])
                if dbias is not None:
                    dbias += logits.sum(0, dtype=np.float64)
        loss = reduced(losses, kept, options, targets.total, self.hidden.name)
        result = interop.returned(loss, self.hidden.give_back)
        if dhidden is None or dweight is None:
            return result, None, None, None
        of_bias = None if self.bias is None or dbias is None else self.bias.returned(dbias)
        return result, self.hidden.returned(dhidden), self.weight.returned(dweight), of_bias


def _rows_of_chunk(rows: int, nbytes: int) -> int:
    """Of how many rows, whose logits take so many bytes each, a chunk is: all but the last of as many."""
    most = max(_FEWEST_ROWS, CHUNK_BYTES // max(1, nbytes))
    return -(-rows // max(1, -(-rows // most)))


def _examined(hidden: Any, weight: Any, targets: Any, bias: Any, class_weight: Any) -> _Call:
    one_device(hidden=hidden, weight=weight, targets=targets, bias=bias, class_weight=class_weight)
    rows, matrix = _argument(hidden, "hidden"), _argument(weight, "weight")
    offset = None if bias is None else _argument(bias, "bias")
    if matrix.values.ndim != 2:
        raise ValueError(f"weight must have the shape (classes, features), not {matrix.values.shape}")
    classes, features = matrix.values.shape
    if rows.values.ndim == 0 or rows.values.shape[-1] != features:
        raise ValueError(
            f"hidden has shape {rows.values.shape}; its last axis must have the length {features} of weight's rows"
        )
    if offset is not None and offset.values.shape != (classes,):
        raise ValueError(f"bias has shape {offset.values.shape}; it must be ({classes},), one number a class")
    given = [a.name for a in (rows, matrix, offset) if a is not None]
    compute = np.dtype(np.float64 if "float64" in given else np.float32)
    return _Call(rows, matrix, offset, targets, class_weight, compute)


def _argument(value: Any, name: str) -> _Argument:
    array, give_back = interop.take(value, name)
    return _Argument(array, result_name(array.dtype, None, name), give_back)
