"""Arrays on a GPU: of a real one, or of a library of their own in the host's memory, a device's for the simulator.

``gpu_libraries.py`` says whose arrays a run hands in.
"""

import gpu_libraries
import numpy as np
import pytest
from oracle import BFLOAT16

import softmax_numba
from softmax_numba.gpu import launch, plan

REAL = gpu_libraries.chosen()
REVERSES = REAL is None or REAL.reverses
only_stand_ins = pytest.mark.skipif(REAL is not None, reason="arrays that only a stand-in is like")


class Namespace:
    """The array library of :class:`Gpu`."""

    float16, bfloat16, float32, float64, uint8 = (
        np.dtype("f2"),
        BFLOAT16,
        np.dtype("f4"),
        np.dtype("f8"),
        np.dtype("u1"),
    )

    @staticmethod
    def empty(shape, *, dtype, device):
        assert device == "gpu:0"
        # Values that would show, at an address that is a multiple of 16 as on any device.
        size = int(np.prod(shape)) * dtype.itemsize
        room = np.full(size + 16, 0x7B, np.uint8)
        begin = -room.ctypes.data % 16
        return Gpu(room[begin : begin + size].view(dtype).reshape(shape))


class Gpu:
    """An array on device 0 which the host must not read."""

    device = "gpu:0"

    def __init__(self, values, at=0):
        self.values, self.dtype, self.at = values, values.dtype, at
        self.shape = values.shape

    def __array_namespace__(self):
        return Namespace

    def __dlpack_device__(self):
        return 2, self.at

    def __dlpack__(self, **how):
        raise AssertionError("an array on a GPU must not be exported to the host")

    def __array__(self, *how, **more):
        raise AssertionError("an array on a GPU must not be read by the host")

    @property
    def __cuda_array_interface__(self):
        return {
            "shape": self.values.shape,
            "strides": self.values.strides,
            "typestr": self.values.dtype.str,
            "data": (self.values.ctypes.data, not self.values.flags.writeable),
            "version": 3,
        }


def on_gpu(values, offset=0):
    """A copy of `values`, C-ordered, that begins `offset` bytes after a multiple of 16."""
    values = np.asarray(values)
    room = np.zeros(values.nbytes + 48, np.uint8)
    begin = -room.ctypes.data % 16 + offset
    array = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    array[...] = values
    if REAL is None:
        return Gpu(array)
    # Memory on a device begins at a multiple of 16.
    memory = REAL.memory(room[begin - offset :])
    return REAL.view(memory, offset, values.shape, array.strides, values.dtype)


def seen(room, *views):
    """`views` of the contiguous host array `room` as arrays on the GPU, in one copy of it."""
    if REAL is None:
        return [Gpu(view) for view in views]
    memory = REAL.memory(room.reshape(-1).view(np.uint8))
    begin = room.ctypes.data
    return [REAL.view(memory, v.ctypes.data - begin, v.shape, v.strides, v.dtype) for v in views]


def host(array):
    """What stands in an array on the GPU."""
    return array.values if REAL is None else REAL.host(array)


def is_on_gpu(value):
    return isinstance(value, Gpu if REAL is None else REAL.type)


def call(name, x, axis=-1, **how):
    """The result on the host of a function of an array, on the GPU or NumPy's to be put there."""
    given = x if is_on_gpu(x) else on_gpu(x)
    result = getattr(softmax_numba, name)(given, axis, **how)
    assert type(result) is type(given)
    return host(result)


HAS_CLUSTERS = REAL is None or launch.device(0).clusters


class Watched:
    """A device on which the kernels that run are noted: ``with Watched() as kernels: ...``. It has no clusters.

    With ``warps`` a block has no more than so many: what takes long lanes then takes short ones, as they are simulated.
    """

    def __init__(self, warps=None, **properties):
        self.warps = warps
        self.device = launch.device(0)._replace(**{"clusters": False, **properties})
        self.kernels = []

    def __enter__(self):
        self.before = launch.device, launch.run
        self.most = plan.MOST_WARPS, plan.MOST_WARPS_IN_64
        if self.warps is not None:
            plan.MOST_WARPS = plan.MOST_WARPS_IN_64 = self.warps
            plan.plan.cache_clear()

        def run(kernel, how, place, *numbers):
            self.kernels.append(kernel.key[0])
            self.before[1](kernel, how, place, *numbers)

        launch.device, launch.run = lambda number: self.device, run
        return self.kernels

    def __exit__(self, *error):
        launch.device, launch.run = self.before
        plan.MOST_WARPS, plan.MOST_WARPS_IN_64 = self.most
        plan.plan.cache_clear()
