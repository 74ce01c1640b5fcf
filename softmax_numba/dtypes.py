"""Which types come in, which type computes, which type comes out.

| in                               | computes in | out     |
|----------------------------------|-------------|---------|
| float16, bfloat16                | float32     | as in   |
| float32                          | float32     | float32 |
| float64, ints, bool, lists, ...  | float64     | float64 |

``dtype=`` gives the type of the result; the computation is at least as wide as both.
"""

import functools

import numpy as np
from numba import types

from softmax_numba.cpu.simd import BFLOAT, HALF

FLOATS = ("float16", "bfloat16", "float32", "float64")
ALLOWED = "float16, bfloat16 (ml_dtypes), float32, float64, integers and bool"

# Numba has no 16-bit floats on the CPU: they travel as integers of the same size, one signed and one not.
_TRAVELS_AS = {"float16": np.dtype(np.uint16), "bfloat16": np.dtype(np.int16)}
STORED = _TRAVELS_AS | {name: np.dtype(name) for name in ("float32", "float64")}  # as kernels get them
_STORAGE = {"float16": HALF, "bfloat16": BFLOAT, "float32": types.float32, "float64": types.float64}


@functools.cache
def name_of(dtype: np.dtype) -> str:
    """The dtype's name, whatever its byte order; NumPy takes a microsecond to put one together."""
    return dtype.name


def result_name(given: np.dtype, dtype: object, what: str) -> str:
    """The name of the result's type for an input of type ``given``, called ``what``, and the argument ``dtype``.

    Raises
    ------
    TypeError
        If either is not a type that works.
    """
    name = name_of(given)
    if name not in FLOATS and given.kind not in "iub":
        raise TypeError(f"dtype {given} of {what} is not supported; allowed are {ALLOWED}")
    if dtype is None:
        return name if name in FLOATS else "float64"
    try:
        name = np.dtype(dtype).name  # type: ignore[call-overload]
    except TypeError:
        name = str(dtype).removeprefix("torch.")
    if name not in FLOATS:
        raise TypeError(f"dtype={dtype!r} is not supported for the result; allowed are {', '.join(FLOATS)}")
    return name


def compute_name(given: str, result: str) -> str:
    """The name of the type that computes: float32 only where neither side is wider."""
    narrow = ("float16", "bfloat16", "float32")
    return "float32" if given in narrow and result in narrow else "float64"


@functools.cache
def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype of one of the four floats by its name."""
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes  # on demand: only who has bfloat16 arrays needs it
    except ImportError:
        raise TypeError("bfloat16 needs the package ml_dtypes: pip install ml_dtypes") from None
    return np.dtype(ml_dtypes.bfloat16)


def with_own_dtype(array: np.ndarray) -> np.ndarray:
    """The array, with NumPy's own object for its dtype if that is one of the four floats.

    An array that has been pickled or copied deeply has an equal one, which compiled code does not know again.
    """
    dtype = array.dtype
    name = name_of(dtype)
    if name in FLOATS and dtype is not dtype_of(name) and dtype == dtype_of(name):
        return array.view(dtype_of(name))
    return array


def own_name(dtype: np.dtype) -> str | None:
    """The name of one of the four floats if this is NumPy's own object for it."""
    name = name_of(dtype)
    return name if name in FLOATS and dtype is dtype_of(name) else None


def storage_of(name: str) -> types.Type:
    """The type by which kernels know the storage of one of the four floats."""
    return _STORAGE[name]


def for_kernel(array: np.ndarray, name: str) -> np.ndarray:
    """The array as kernels take it: 16-bit floats as integers, without a copy."""
    stand_in = _TRAVELS_AS.get(name)
    return array if stand_in is None or array.dtype == stand_in else array.view(stand_in)
