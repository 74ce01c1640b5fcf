"""SciPy's three signatures: a drop-in replacement for ``scipy.special``'s softmax, log_softmax and logsumexp.

Real arrays go through the compiled kernels. What is rare (complex numbers, longdouble, weights) is plain
NumPy below. Types, shapes and special values are SciPy's, with these exceptions: results keep this package's
accuracy, no floating-point warning is raised, integers never wrap around, and softmax of booleans works.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from softmax_numba import functions, interop
from softmax_numba.dtypes import dtype_of
from softmax_numba.lanes import reduced_axes

__all__ = ["log_softmax", "logsumexp", "softmax"]

Axis = int | tuple[int, ...] | None

# Sums of weighted terms are held in the wider type: the narrow one would overflow and cancel early.
_WORKING = {"e": "d", "E": "d", "f": "d", "F": "D"}
_RARE = "gFDG"  # longdouble and complex numbers, which no kernel takes


def softmax(x: ArrayLike, axis: Axis = None) -> Any:
    """Softmax, with the signature of ``scipy.special.softmax``.

    Parameters
    ----------
    x : array_like
        Logits of any shape: float16, bfloat16, float32, float64, longdouble, integers, booleans or complex.
    axis : int, tuple of ints or None, optional
        The axis or axes along which the result sums to 1. The default, None, is the whole array; ``()`` makes
        each entry a lane of its own.

    Returns
    -------
    ndarray or scalar
        Probabilities of the shape of `x`. Floats and complex numbers keep their dtype; integers give what
        ``numpy.exp`` gives (8 bits: float16, 16 bits: float32, wider: float64), booleans float64. A tensor of
        another library comes back as that library's tensor.

    Raises
    ------
    ValueError
        If a lane is empty, or an axis is repeated.
    numpy.exceptions.AxisError
        If an axis is out of range.
    TypeError
        If `x` holds objects, strings or dates.

    See Also
    --------
    softmax_numba.softmax : with a mask, a temperature, a result dtype and an output array.

    Notes
    -----
    The softmax of a lane :math:`x` is

    .. math:: \\sigma(x)_j = \\frac{e^{x_j}}{\\sum_k e^{x_k}},

    the gradient of logsumexp. Shifting by the maximum avoids overflow and costs no accuracy [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41(4), 2021, :doi:`10.1093/imanum/draa038`.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba.special import softmax
    >>> x = np.array([[1.0, 0.5, 0.2, 3.0], [1.0, -1.0, 7.0, 3.0]])
    >>> softmax(x).sum().round(12)
    np.float64(1.0)
    >>> softmax(x, axis=1).round(3)
    array([[0.106, 0.064, 0.048, 0.782],
           [0.002, 0.   , 0.979, 0.018]])
    """
    a, back = _array(x, "x")
    _refuse_empty_lanes(a, axis)
    if a.dtype.char not in _RARE:
        return back(functions.softmax(a, axis, dtype=_map_dtype(a.dtype, x)))
    with np.errstate(all="ignore"):
        e = np.exp(a - np.max(a, axis=axis, keepdims=True))
        return back(e / np.sum(e, axis=axis, keepdims=True))


def log_softmax(x: ArrayLike, axis: Axis = None) -> Any:
    """Logarithm of the softmax, with the signature of ``scipy.special.log_softmax``.

    Parameters
    ----------
    x : array_like
        Logits of any shape: float16, bfloat16, float32, float64, longdouble, integers, booleans or complex.
    axis : int, tuple of ints or None, optional
        The axis or axes along which the exponentials of the result sum to 1. The default, None, is the whole
        array; ``()`` makes each entry a lane of its own.

    Returns
    -------
    ndarray or scalar
        Log-probabilities of the shape of `x`, with the dtypes of `softmax`. A lane that holds +inf (and no
        NaN) is NaN there and -inf elsewhere.

    Raises
    ------
    ValueError
        If a lane is empty, or an axis is repeated.
    numpy.exceptions.AxisError
        If an axis is out of range.
    TypeError
        If `x` holds objects, strings or dates.

    See Also
    --------
    softmax_numba.log_softmax : with a mask, a temperature, a result dtype and an output array.

    Notes
    -----
    The largest entry's log-probability is ``-log1p`` of the other terms of the sum, so it keeps its relative
    accuracy where the probability is nearly 1 [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41(4), 2021, :doi:`10.1093/imanum/draa038`.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba.special import log_softmax
    >>> log_softmax(np.array([1000.0, 1.0]))
    array([   0., -999.])
    >>> float(log_softmax(np.array([40.0, 0.0]))[0])
    -4.248354255291589e-18
    """
    a, back = _array(x, "x")
    _refuse_empty_lanes(a, axis)
    if a.dtype.char not in _RARE:
        y = functions.log_softmax(a, axis, dtype=_map_dtype(a.dtype, x))
        return back(_tell_infinite_entries_apart(a, y, axis))
    with np.errstate(all="ignore"):
        top = np.max(a, axis=axis, keepdims=True)
        shifted = a - np.where(np.isfinite(top), top, 0)
        at_top = (shifted == 0) & np.isfinite(top)
        count = np.sum(at_top, axis=axis, keepdims=True)
        rest = np.sum(np.exp(np.where(at_top, -np.inf, shifted)), axis=axis, keepdims=True)
        log_total = np.where(count > 0, np.log(count) + np.log1p(rest / count), np.log(rest))
        # [()]: a 0-d result is a scalar, as NumPy's own operators give it.
        return back((shifted - log_total).astype(a.dtype)[()])


def logsumexp(
    a: ArrayLike,
    axis: Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
) -> Any:
    """Logarithm of a sum of exponentials, with the signature of ``scipy.special.logsumexp``.

    Parameters
    ----------
    a : array_like
        Exponents of any shape: float16, bfloat16, float32, float64, longdouble, integers, bool or complex.
    axis : int, tuple of ints or None, optional
        The axis or axes over which the sum is taken. The default, None, sums over all.
    b : array_like, optional
        Weights of ``exp(a)``, real (of either sign) or complex; `a` and `b` are broadcast against each other.
        Where a weight is 0 the entry of `a` counts for nothing, even NaN or infinity.
    keepdims : bool, optional
        If True, the reduced axes stay with length 1.
    return_sign : bool, optional
        If True, the sum's sign is returned too. If False, a negative sum gives NaN.

    Returns
    -------
    res : ndarray or scalar
        ``log(sum(b * exp(a)))``, or the logarithm of the sum's absolute value where `return_sign` is True.
        The imaginary part of a complex result lies in (-pi, pi]. Integers and bfloat16 give float64.
    sgn : ndarray or scalar
        Only with `return_sign`: -1, 0 or 1 in the dtype of `res`, or a complex number of modulus 1.

    Raises
    ------
    ValueError
        If `a` and `b` do not broadcast, or an axis is repeated.
    numpy.exceptions.AxisError
        If an axis is out of range.
    TypeError
        If `a` or `b` holds objects, strings or dates.

    See Also
    --------
    softmax_numba.logsumexp : with a mask, a result dtype and an output array.

    Notes
    -----
    The largest term is split from the sum and the others enter by ``log1p`` [1]_. A sum of weighted terms
    that cancel is as badly conditioned as the subtraction is. A sum over nothing is -inf; its sign is -1, as
    SciPy's.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41(4), 2021, :doi:`10.1093/imanum/draa038`.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba.special import logsumexp
    >>> a = np.arange(10)
    >>> float(logsumexp(a))
    9.45862974442671
    >>> float(logsumexp(a, b=np.arange(10, 0, -1)).round(12))
    9.917017853303
    >>> log_of_size, sign = logsumexp([1.0, 2.0], b=[1, -1], return_sign=True)
    >>> float(log_of_size.round(12)), float(sign)
    (1.541324854613, -1.0)
    """
    values, back = _array(a, "a")
    weights: np.ndarray | None = None
    if b is None:
        dtype = _sum_dtype(a, _promoted(a, values))
    else:
        weights, back_from_b = _array(b, "b")
        owner, back = (b, back_from_b) if interop.device(a) is None else (a, back)
        dtype = _sum_dtype(owner, _promoted(a, values), _promoted(b, weights))
    values = np.atleast_1d(values)  # so that a number with keepdims gives shape (1,), as SciPy does
    if b is None and dtype.char not in _RARE:
        y = functions.logsumexp(values, axis, keepdims=keepdims, dtype=dtype)
        return (back(y), back(_sign(y, values.size == 0))) if return_sign else back(y)

    working = np.dtype(_WORKING.get(dtype.char, dtype.char))
    values = values.astype(working)
    if weights is not None:
        values, weights = np.broadcast_arrays(values, np.atleast_1d(weights).astype(working))
    axes = reduced_axes(axis, values.ndim)
    with np.errstate(all="ignore"):
        log_size, total = _weighted_sum(values, weights, axes)
        if not keepdims:
            log_size, total = np.squeeze(log_size, axes), np.squeeze(total, axes)
        if return_sign:
            sign = np.where(np.isnan(total), total * np.nan, np.sign(total)) if values.size else np.full_like(total, -1)
            real = np.empty(0, dtype).real.dtype
            return back(log_size.astype(real)[()]), back(sign.astype(dtype)[()])
        if working.kind == "c":
            y = np.empty(log_size.shape, dtype)
            y.real, y.imag = log_size, np.angle(total)
            y.imag[y.imag == -y.imag.dtype.type(np.pi)] *= -1  # the interval is open at -pi
        else:
            y = np.where(total < 0, np.nan, log_size).astype(dtype)
        return back(y[()])


def _weighted_sum(a: np.ndarray, b: np.ndarray | None, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """``log|sum(b exp(a))|``, and the sum itself up to a positive factor; reduced axes kept."""
    if a.size == 0:
        total = np.sum(a, axis=axes, keepdims=True)
        return np.full(total.shape, -np.inf), total
    if b is not None:
        a = np.where(b == 0, -np.inf, a)
        # A weight that might under- or overflow its product with an exponential goes into the exponent, unless that is
        # so large that nothing would be left of it there.
        size = np.abs(b)
        far = (b != 0) & ~((size > 1e-100) & (size < 1e100)) & ((np.abs(a.real) < 1e12) | ~np.isfinite(size))
        a, b = np.where(far, a + np.log(size), a), np.where(far, np.sign(b), b)
    top = np.max(a.real, axis=axes, keepdims=True)
    a = np.where(np.isnan(top), np.nan, a)  # with nothing subtracted, the others might overflow and hide it
    # Beside an infinite entry the finite ones count for nothing, but their exponentials might overflow.
    a = np.where((top == np.inf) & np.isfinite(a), 0, a)
    shift = np.where(np.isfinite(top), top, 0)
    terms = np.exp(a - shift)
    if b is not None:  # a complex product by 1 would make NaN of infinite terms
        terms = b * terms
    largest = a.real == top
    lead = np.sum(np.where(largest, terms, 0), axis=axes, keepdims=True)
    rest = np.sum(np.where(largest, 0, terms), axis=axes, keepdims=True)
    ratio, total = rest / lead, lead + rest
    # |1 + z|**2 = 1 + (2x + x**2 + y**2); NumPy's complex log1p forms 1 + z and loses a small z.
    square = ratio.real * (2 + ratio.real) + ratio.imag**2
    log1p = np.log1p(ratio) if a.dtype.kind == "f" else np.log1p(square) / 2
    # Where the terms cancel the quotient says less than the sum itself.
    log_size = np.where(np.abs(ratio) < 0.5, log1p + np.log(np.abs(lead)), np.log(np.abs(total)))
    return log_size + shift, total


def _array(value: Any, name: str) -> tuple[np.ndarray, Callable[[Any], Any]]:
    """`value` as a NumPy array, masks and subclasses dropped, and the way back to the caller's library."""
    array, give_back = interop.take(interop.unmasked(value), name)
    if array.dtype.kind not in "biufc" and array.dtype.name != "bfloat16":
        allowed = "real and complex floats, bfloat16, integers and bool"
        raise TypeError(f"{name} has dtype {array.dtype}; allowed are {allowed}")
    if give_back is interop.same:
        return array, interop.same
    return array, lambda result: give_back(np.asarray(result))


def _default_float(value: Any) -> np.dtype | None:
    """The floating type that PyTorch's user chose as default, None for values of other libraries."""
    library = sys.modules.get(type(value).__module__.partition(".")[0])
    default = getattr(library, "get_default_dtype", None)
    return None if default is None else dtype_of(str(default()).removeprefix("torch."))


def _map_dtype(dtype: np.dtype, value: Any) -> np.dtype | None:
    """The type of a map's result, None where it follows from the input's own."""
    if dtype.kind not in "iu":
        return None
    return _default_float(value) or np.exp(np.empty(0, dtype)).dtype


def _promoted(value: Any, array: np.ndarray) -> Any:
    """What promotion sees: Python's own numbers adapt to the other operand's type."""
    return value if type(value) in (bool, int, float, complex) else array.dtype


def _sum_dtype(owner: Any, *operands: Any) -> np.dtype:
    """The type of a logarithm of a sum: the operands' common one if it is a float, float64 for integers."""
    default = _default_float(owner)
    if default is not None:  # PyTorch's rules: integers never widen a float, and bfloat16 is a float
        floats = [operand for operand in operands if np.result_type(operand).kind not in "biu"]
        return np.result_type(*floats) if floats else default
    dtype = np.result_type(*operands)
    return dtype if dtype.char in "efdgFDG" else np.dtype(np.float64)


def _sign(log_of_sum: Any, empty: bool) -> Any:
    """The sign of a sum of exponentials: 1, 0 where its logarithm is -inf, NaN where that is NaN."""
    y = np.asarray(log_of_sum)
    one = np.where(np.isnan(y), np.nan, 1)
    return np.where(np.isneginf(y), -1 if empty else 0, one).astype(y.dtype)[()]


def _refuse_empty_lanes(a: np.ndarray, axis: Axis) -> None:
    if any(a.shape[i] == 0 for i in reduced_axes(axis, a.ndim)):
        raise ValueError(f"a lane of length 0 has no softmax: shape {a.shape}, axis {axis}; allowed are lengths >= 1")


def _tell_infinite_entries_apart(a: np.ndarray, y: Any, axis: Axis) -> Any:
    """In lanes with +inf and no NaN: NaN at the infinite entries, -inf at the others, as SciPy has it."""
    axes = reduced_axes(axis, a.ndim)
    # Such lanes are NaN throughout, so one entry of each lane tells whether there is any.
    first = np.asarray(y)[tuple(0 if i in axes else slice(None) for i in range(a.ndim))]
    if a.ndim == 0 or a.dtype.kind in "iub" or not np.isnan(first).any():
        return y
    return np.where((np.max(a, axis=axes, keepdims=True) == np.inf) & (a != np.inf), y.dtype.type(-np.inf), y)
