"""Whose arrays the GPU's tests hand in: the simulator's stand-ins, or those of a library on a real device.

SOFTMAX_NUMBA_TEST_ARRAYS chooses ``torch``, ``cupy`` or ``numba``; without it, it is the stand-ins. A library is known
by three functions: ``memory(bytes)`` puts an array of bytes on the device, ``view(memory, offset, shape, strides,
dtype)`` sees an array in it, ``host(array)`` copies one back.
"""

import os
from typing import NamedTuple

import pytest
from oracle import BFLOAT16

NAME = os.environ.get("SOFTMAX_NUMBA_TEST_ARRAYS", "")


class Library(NamedTuple):
    memory: object
    view: object
    host: object
    type: type
    reverses: bool  # whether strides may be negative


def _torch():
    import torch

    def memory(values):
        return torch.from_numpy(values).cuda()

    def view(memory, offset, shape, strides, dtype):
        typed = memory[offset % dtype.itemsize :]
        typed = typed[: typed.numel() // dtype.itemsize * dtype.itemsize].view(getattr(torch, dtype.name))
        return typed.as_strided(shape, [s // dtype.itemsize for s in strides], offset // dtype.itemsize)

    def host(array):
        array = array.cpu()
        if array.dtype == torch.bfloat16:
            return array.contiguous().view(torch.int16).numpy().view(BFLOAT16)
        return array.numpy()

    return Library(memory, view, host, torch.Tensor, False)


def _cupy():
    import cupy

    def view(memory, offset, shape, strides, dtype):
        if dtype == BFLOAT16:
            try:
                cupy.empty(1, dtype)
            except (TypeError, ValueError, AttributeError):
                pytest.skip("this CuPy has no bfloat16")
        return cupy.ndarray(shape, dtype, memptr=memory.data + offset, strides=strides)

    return Library(cupy.asarray, view, cupy.asnumpy, cupy.ndarray, True)


def _numba():
    from numba import cuda

    class Seen:
        def __init__(self, memory, **interface):
            self.memory, self.__cuda_array_interface__ = memory, interface

    def view(memory, offset, shape, strides, dtype):
        if dtype == BFLOAT16:
            pytest.skip("__cuda_array_interface__ has no bfloat16")
        place = memory.__cuda_array_interface__["data"][0] + offset
        return cuda.as_cuda_array(
            Seen(memory, shape=shape, strides=strides, typestr=dtype.str, data=(place, False), version=3)
        )

    def host(array):
        if array.dtype.itemsize and not array.is_c_contiguous():
            pytest.skip("Numba copies no array with gaps to the host")
        return array.copy_to_host()

    return Library(cuda.to_device, view, host, type(cuda.device_array(1)), False)


def chosen():
    """The library that the environment names; None: the stand-ins."""
    return {"torch": _torch, "cupy": _cupy, "numba": _numba}[NAME]() if NAME else None
