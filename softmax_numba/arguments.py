"""What public functions ask of their arrays, and where their results go."""

import math
from typing import Any

import numpy as np

from softmax_numba import interop, pages
from softmax_numba.dtypes import FLOATS, dtype_of, name_of


def one_device(**arguments: Any) -> None:
    """Raises ValueError where some of a call's arrays are on a GPU and others are not."""
    if all(value is None or type(value) is np.ndarray for value in arguments.values()):
        return
    found = {name: interop.device(value) for name, value in arguments.items()}
    if "cpu" in found.values() and "gpu" in found.values():
        places = ", ".join(f"{name} on the {place.upper()}" for name, place in found.items() if place)
        raise ValueError(f"all arrays of a call must be on one device; got {places}")


def filled(masked: Any, value: float) -> np.ndarray:
    """A NumPy masked array with ``value`` where it is masked; integers as float64."""
    dtype = masked.dtype if name_of(masked.dtype) in FLOATS else np.float64
    return np.where(np.ma.getmaskarray(masked), value, np.ma.getdata(masked)).astype(dtype)


def native(values: np.ndarray, name: str) -> np.ndarray:
    """The values in the dtype of that name, in this machine's byte order and aligned; copied only if need be."""
    dtype = dtype_of(name)
    return values if values.dtype == dtype and values.flags.aligned else values.astype(dtype)


def checked_out(out: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The array behind ``out``, which must have the result's shape and dtype and be writable."""
    if not interop.is_array(out):
        raise TypeError(f"out must be an array, not {out!r}")
    # A masked array's mask stays as it is.
    target = interop.take(interop.unmasked(out), "out").array
    if target.shape != shape:
        raise ValueError(f"out has shape {target.shape}; the result has shape {shape}")
    if name_of(target.dtype) != name:
        raise TypeError(f"out has dtype {target.dtype}; the result has dtype {name}")
    if not target.flags.writeable:
        raise ValueError(f"out is read-only (shape {target.shape}, dtype {target.dtype}); it must be writable")
    return target


def may_write(values: np.ndarray, target: np.ndarray, one_number: bool = False) -> bool:
    """Whether kernels may write to ``target`` while they read ``values``: no overlap, or the same places."""
    if not target.dtype.isnative or not target.flags.aligned or 0 in target.strides:
        return False
    if not np.may_share_memory(values, target):
        return True
    same = (
        values.dtype == target.dtype
        and values.strides == target.strides
        and values.__array_interface__["data"][0] == target.__array_interface__["data"][0]
    )
    return same and not one_number


def like(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """A new array for the result, in the memory order of the input where both have one shape."""
    if shape == values.shape:
        return pages.empty_like(values, dtype_of(name))
    return pages.empty(shape, dtype_of(name))


def checked_temperature(temperature: Any, lanes: tuple[int, ...]) -> np.ndarray | None:
    """The temperature of each lane as float64, None where all are 1."""
    if type(temperature) is float and 0.0 < temperature < math.inf:
        return None if temperature == 1.0 else np.array(temperature)
    given = interop.take(temperature, "temperature").array
    if given.dtype.kind not in "iuf" and given.dtype.name != "bfloat16":
        raise TypeError(f"temperature must be a number or an array of numbers, not {temperature!r}")
    heat = given.astype(np.float64)
    wrong = ~(np.isfinite(heat) & (heat > 0))
    if wrong.any():
        raise ValueError(f"temperature must be positive and finite, not {given[wrong].flat[0]}")
    try:
        np.broadcast_shapes(heat.shape, lanes)
        heat = np.broadcast_to(heat, lanes) if heat.ndim else heat
    except ValueError:
        raise ValueError(
            f"temperature has shape {heat.shape}, which cannot be broadcast to the lanes' shape {lanes}"
        ) from None
    return None if heat.ndim == 0 and heat == 1.0 else heat


def in_float32(sizes: np.ndarray) -> bool:
    """Whether positive numbers, and their inverses, are well among the normal ones of float32."""
    return not sizes.size or bool(1e-30 < sizes.min() <= sizes.max() < 1e30)


def _powers_within_reach(heat: np.ndarray) -> np.ndarray | None:
    """By which powers of two temperatures are to be multiplied so that 1 / T and shares of T are normal numbers of
    float64; None where they are."""
    if 1e-300 < heat.min() <= heat.max() < 1e300:
        return None
    return np.where(heat >= 1e300, 2.0**-64, np.where(heat <= 1e-300, 2.0**64, 1.0))


def within_reach(
    values: np.ndarray, heat: np.ndarray, axes: tuple[int, ...], mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """float64 values and temperatures that lead to the same results, 1 / T and shares of T normal numbers."""
    power = _powers_within_reach(heat)
    if power is None:
        return values, heat
    # Beside a maximum as large as this, another value is further away than any such temperature reaches: what matters
    # is which are equal, and the product might not be finite.
    top = np.max(values, axis=axes, keepdims=True, where=True if mask is None else mask, initial=-np.inf)
    far = (power > 1.0) & (np.abs(top) >= 2.0**900)
    return values * np.where(far, 1.0, power), np.where(far, 1e-290, heat * power)


def cotangents_within_reach(
    dy: np.ndarray, heat: np.ndarray, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The same for what is divided by temperatures: the third is what the results are still to be multiplied by.

    The cotangents get the power of two beforehand, so that small ones keep their digits, unless the product might not
    be finite.
    """
    power = _powers_within_reach(heat)
    if power is None:
        return dy, heat, None
    before = np.max(np.abs(dy), axis=axes, keepdims=True, initial=0.0) < 2.0**900
    return dy * np.where(before, power, 1.0), heat * power, np.where(before, 1.0, power)
