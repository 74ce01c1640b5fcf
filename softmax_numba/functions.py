"""softmax, log_softmax and logsumexp."""

from typing import Any

from softmax_numba.calls import general, short_way
from softmax_numba.cpu.lane import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX

_small_softmax, _small_log_softmax, _small_logsumexp = map(short_way, (SOFTMAX, LOG_SOFTMAX, LOGSUMEXP))


def softmax(
    x: Any,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: Any = None,
    temperature: Any = 1.0,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """Probabilities exp(x / T) / sum(exp(x / T)) along an axis.

    Parameters
    ----------
    x : array_like
        float16, bfloat16 (ml_dtypes), float32 or float64; integers, bool, numbers and lists count as float64. NumPy
        arrays of any strides and byte order, PyTorch CPU tensors, anything with ``__dlpack__`` on the CPU. The mask
        of a NumPy masked array counts as ``where=~mask``. With the extra ``cuda``, arrays on an NVIDIA GPU: CuPy's,
        PyTorch's, Numba's, anything with ``__cuda_array_interface__`` or ``__dlpack__``; all of a call's are there.
    axis : int, tuple of ints or None, default -1
        Along which axis the values form one distribution; several axes are taken together, None takes all.
    where : array_like of bool, broadcastable to x, optional
        Entries that take part. The others get probability 0 and are never looked at, be they NaN or inf.
    temperature : float or array_like, default 1.0
        T, positive and finite; an array is broadcast against the lanes (length 1 along ``axis``). The values of an
        array on a GPU are not checked, since that would have to wait for them: lanes whose temperature is not
        positive and finite are NaN, as are those beyond 1e-30 to 1e30 where the computation is in float32.
    dtype : dtype, optional
        Type of the result: float16, bfloat16, float32 or float64. Default: as x, float64 for integers. The
        computation is at least as wide as both.
    out : array, optional
        Where to put the result, of its shape and dtype. May be x, or overlap it in any way.

    Returns
    -------
    array of x's shape, from x's library (or ``out``)
        Probabilities in [0, 1]. A lane with a NaN or +inf, or of nothing but -inf, is all NaN; a lane with nothing
        left by ``where`` is all 0.

    Raises
    ------
    TypeError
        If a dtype is not one of the above, or an array is on a GPU and no GPU can be used.
    ValueError
        If ``temperature`` is not positive and finite, a shape does not fit, or ``out`` is read-only.
    numpy.exceptions.AxisError
        If ``axis`` is out of range.

    See Also
    --------
    log_softmax : Its logarithm, accurate also where the probability is 0 or 1.

    Notes
    -----
    Within 4 ULP of the exact result (of x in float32 and float64, abs(x) < 1e4), for any length; the same bits for
    any layout, number of threads and number of other lanes. The maximum is never subtracted in floating point, see
    ``softmax_numba.cpu.exponential``.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import softmax
    >>> softmax(np.array([[0.0, np.log(3.0)], [5.0, 5.0]]))
    array([[0.25, 0.75],
           [0.5 , 0.5 ]])
    >>> softmax(np.array([1.0, np.nan, 1.0]), where=[True, False, True])
    array([0.5, 0. , 0.5])
    """
    if where is None and dtype is None and type(temperature) is float and temperature == 1.0:
        result = _small_softmax(x, axis, out)
        if result is not None:
            return result
    return general(SOFTMAX, x, axis, where, temperature, dtype, out)


def log_softmax(
    x: Any,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: Any = None,
    temperature: Any = 1.0,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """Log-probabilities x / T - log(sum(exp(x / T))) along an axis.

    Parameters
    ----------
    x, axis, where, temperature, dtype, out
        As for :func:`softmax`.

    Returns
    -------
    array of x's shape, from x's library (or ``out``)
        Log-probabilities, at most 0. A lane with a NaN or +inf, or of nothing but -inf, is all NaN; an entry that
        is -inf or masked out has -inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`.

    Notes
    -----
    Within 4 ULP of max(abs(result), 1), and near 0 within 8 ULP of the result itself: the lane's largest values are
    counted, not added, so that log1p sees the last digits of the rest.

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import log_softmax
    >>> log_softmax(np.array([0.0, -100.0]))
    array([-3.72007598e-44, -1.00000000e+02])
    """
    if where is None and dtype is None and type(temperature) is float and temperature == 1.0:
        result = _small_log_softmax(x, axis, out)
        if result is not None:
            return result
    return general(LOG_SOFTMAX, x, axis, where, temperature, dtype, out)


def logsumexp(
    x: Any,
    axis: int | tuple[int, ...] | None = -1,
    *,
    where: Any = None,
    keepdims: bool = False,
    dtype: Any = None,
    out: Any = None,
) -> Any:
    """log(sum(exp(x))) along an axis, without overflow.

    Parameters
    ----------
    x, axis, where, dtype
        As for :func:`softmax`.
    keepdims : bool, default False
        Whether the reduced axes stay, with length 1.
    out : array, optional
        Where to put the result, of its shape and dtype.

    Returns
    -------
    array or scalar, from x's library (or ``out``)
        -inf for a lane without a finite value or NaN, or with nothing left by ``where``; NaN for a lane with a NaN,
        else +inf for one with a +inf.

    Raises
    ------
    TypeError, ValueError, numpy.exceptions.AxisError
        As for :func:`softmax`.

    Notes
    -----
    Within 4 ULP of max(abs(result), max(abs(x))).

    Examples
    --------
    >>> import numpy as np
    >>> from softmax_numba import logsumexp
    >>> logsumexp(np.array([[1000.0, 1000.0], [-np.inf, 3.0]]))
    array([1000.69314718,    3.        ])
    """
    if where is None and dtype is None and not keepdims:
        result = _small_logsumexp(x, axis, out)
        if result is not None:
            return result
    return general(LOGSUMEXP, x, axis, where, 1.0, dtype, out, keepdims)
