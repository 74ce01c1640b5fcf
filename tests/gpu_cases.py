"""Arrays that lie on a GPU, of a library of their own: the host's memory, which the simulator takes for a device's."""

import numpy as np
from oracle import BFLOAT16

import softmax_numba
from softmax_numba.gpu import launch, plan
from softmax_numba.gpu.plan import H100


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
    return Gpu(array)


def call(name, x, axis=-1, **how):
    """The result on the host of a function of an array on the GPU, given as NumPy's or as :class:`Gpu`."""
    result = getattr(softmax_numba, name)(x if isinstance(x, Gpu) else on_gpu(x), axis, **how)
    assert type(result) is Gpu
    return result.values


class Watched:
    """A simulated device on which the kernels that run are noted: ``with Watched() as kernels: ...``.

    With ``warps`` a block has no more than so many: what takes long lanes then takes short ones, as they are simulated.
    """

    def __init__(self, warps=None, **properties):
        self.warps = warps
        self.device = H100._replace(**{"clusters": False, **properties})
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
