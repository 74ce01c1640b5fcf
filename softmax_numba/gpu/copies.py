"""Value by value from any array to any other: other dtypes, other strides, what the kernels of lanes do not take."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu import seam
from softmax_numba.gpu.seam import cuda, device
from softmax_numba.gpu.storage import STORAGES

BLOCK = 128
DIMENSIONS = 4  # of one launch; what has more takes several


class Copy(NamedTuple):
    """Addresses, the number of values, sizes of the inner dimensions and strides of all (in bytes), all int64."""

    source: int
    target: int
    count: int
    size_1: int
    size_2: int
    size_3: int
    source_0: int
    source_1: int
    source_2: int
    source_3: int
    target_0: int
    target_1: int
    target_2: int
    target_3: int


@device
def places(a, index):
    """Where value ``index`` is, and where it goes."""
    rest = index // a.size_3
    third = index - rest * a.size_3
    first = rest // a.size_2
    second = rest - first * a.size_2
    zeroth = first // a.size_1
    first -= zeroth * a.size_1
    begin = a.source + zeroth * a.source_0 + first * a.source_1
    end = a.target + zeroth * a.target_0 + first * a.target_1
    return begin + second * a.source_2 + third * a.source_3, end + second * a.target_2 + third * a.target_3


def reader(name: str) -> Callable:
    """The device function that loads a value of a dtype as a float."""
    if name in STORAGES:
        return STORAGES[name].load
    return seam.load_integer["uint8" if name == "bool" else name]


@functools.cache
def copy(source: str, target: str) -> Callable:
    """The kernel from one dtype to another: floats, integers or bool to floats, bool to bool."""
    load = seam.load_byte if target == "bool" else reader(source)
    if target == "bool":
        kind, store = np.uint32, seam.store_byte
    else:
        kind, store = STORAGES[target].kind, STORAGES[target].store

    @device
    def put(address, value):
        store(address, kind(value))

    def kernel(a):
        index = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        if index < a.count:
            begin, end = places(a, index)
            put(end, load(begin))

    return kernel
