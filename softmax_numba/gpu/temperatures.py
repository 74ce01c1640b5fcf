"""A temperature for each lane: the four numbers of its Scale, computed once a lane before the lanes are read."""

import functools
import math
from collections.abc import Callable

import numpy as np

from softmax_numba.cpu.exponential import LN2_LOW
from softmax_numba.gpu.arguments import results_of, values_of
from softmax_numba.gpu.copies import reader
from softmax_numba.gpu.seam import cuda, fma
from softmax_numba.gpu.storage import STORAGES

BLOCK = 128


@functools.cache
def temper(source: str, computes: str) -> Callable:
    """The kernel that reads temperatures of dtype ``source``, for lanes computed in dtype ``computes``.

    In float64, whatever the lanes compute in: 1 / T and T ln 2 are rounded once. What is not positive and finite
    cannot be reported without waiting for the device; its lane becomes NaN, as does one whose T ln 2 has no two parts
    in float32.
    """
    kind = np.float32 if computes == "float32" else np.float64
    load, store, size = reader(source), STORAGES[np.dtype(kind).name].store, np.dtype(kind).itemsize
    ln2, ln2_low, log2_e, nan = math.log(2), LN2_LOW, math.log2(math.e), np.float64(np.nan)
    least, most = (1e-30, 1e30) if kind is np.float32 else (0.0, float(np.finfo(np.float64).max))

    def kernel(a, scale):
        number = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        if number < a.lanes:
            t = np.float64(load(values_of(number, a)))
            if not (t > least and t <= most):
                t = nan
            octave = t * ln2
            high = kind(octave)
            low = (octave - np.float64(high)) + (fma(t, ln2, -octave) + t * ln2_low)
            place = results_of(number, a)
            store(place, kind(log2_e / t))
            store(place + size, high)
            store(place + 2 * size, kind(low))
            store(place + 3 * size, kind(1.0 / t))

    return kernel
