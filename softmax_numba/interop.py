"""Arrays of other libraries, in and out without a copy, none of those libraries imported.

What an array is says its own type: ``torch.Tensor`` comes from a module that is loaded already. Anything else with
``__dlpack__`` on the CPU goes through DLPack; the rest goes to ``np.asarray``.
"""

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.dtypes import ALLOWED, dtype_of

_CPU = 1  # kDLCPU in dlpack.h
_NEEDS_CUDA = 'arrays on a GPU need the CUDA extra: pip install "softmax-numba[cuda]"'
_NEEDS_DRIVER = f"{_NEEDS_CUDA}, which is installed; what is missing is a CUDA driver with a device"


class Taken(NamedTuple):
    """A caller's array as NumPy sees it."""

    array: np.ndarray
    give_back: Callable[[np.ndarray], Any]


def same(array: np.ndarray) -> np.ndarray:
    return array


def returned(result: np.ndarray, give_back: Callable[[np.ndarray], Any]) -> Any:
    """A result as its caller gets it: from the library of the argument, NumPy's of no axes as a scalar."""
    return result[()] if give_back is same and not result.ndim else give_back(result)


def unmasked(value: Any) -> Any:
    """What a masked array has behind its mask; anything else as it is."""
    return np.ma.getdata(value) if isinstance(value, np.ma.MaskedArray) else value


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _is_tensor(value: object) -> bool:
    """Whether ``value`` is PyTorch's; the class may be another library's, made from it."""
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def is_array(value: object) -> bool:
    """Whether ``value`` is an array of some library (and not a number, a list or a scalar)."""
    return isinstance(value, np.ndarray) or hasattr(value, "__dlpack__")


def take(value: Any, name: str) -> Taken:
    """The array behind ``value``, an argument called ``name``, and how to give a result back in its library.

    Raises
    ------
    TypeError
        If the array lies on a GPU, is a PyTorch tensor that requires a gradient, or has entries masked out: who has a
        use for a mask takes it off before.
    """
    if isinstance(value, np.ma.MaskedArray) and (hidden := np.ma.count_masked(value)):
        raise TypeError(
            f"{name} is a masked array with {hidden} of {value.size} entries masked out, which means nothing here; "
            f"pass {name}.filled(...), or {name}.data to use what the mask hides"
        )
    if isinstance(value, np.ndarray):
        array = np.asarray(value)
        return Taken(array, same)
    if _is_tensor(value):
        return _take_tensor(value, name)
    if hasattr(value, "__dlpack_device__") and not isinstance(value, np.generic):
        if value.__dlpack_device__()[0] != _CPU:
            raise TypeError(f"{name} is a {_full_name(value)} that is not in the CPU's memory; {_needs()}")
        try:
            array = np.from_dlpack(value)
        except (BufferError, RuntimeError):  # a dtype that DLPack or NumPy does not know, as bfloat16
            array = np.asarray(value)
        return Taken(array, _importer(value))
    if hasattr(value, "__cuda_array_interface__"):
        raise TypeError(f"{name} is a {_full_name(value)} on a GPU; {_needs()}")
    array = np.asarray(value)
    if array.dtype.kind == "O" and all(isinstance(one, int | float) for one in array.flat):
        array = array.astype(np.float64)  # integers of more than 64 bits
    return Taken(array, same)


def _full_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _importer(value: Any) -> Callable[[np.ndarray], Any]:
    library = value.__array_namespace__() if hasattr(value, "__array_namespace__") else sys.modules[_library(value)]
    if not hasattr(library, "from_dlpack"):
        return same

    def give_back(array: np.ndarray) -> Any:
        # DLPack carries none of the dtypes that are not NumPy's own.
        return library.asarray(array) if array.dtype.name == "bfloat16" else library.from_dlpack(array)

    return give_back


def _take_tensor(tensor: Any, name: str) -> Taken:
    torch = sys.modules["torch"]
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} is a torch tensor on device {str(tensor.device)!r}; {_needs()}")
    if tensor.requires_grad:
        raise TypeError(
            f"{name} is a torch tensor that requires a gradient, which this function does not compute; "
            f"pass {name}.detach()"
        )
    if tensor.is_neg():  # what stands in memory has the other sign
        if name == "out":
            raise ValueError("out is a torch tensor with its negative bit set, which cannot be written to in place")
        tensor = tensor.resolve_neg()
    if tensor.dtype == torch.bfloat16:
        array = tensor.view(torch.int16).numpy().view(dtype_of("bfloat16"))
    else:
        try:
            array = tensor.numpy()
        except TypeError:  # 8-bit floats
            raise TypeError(f"dtype {tensor.dtype} of {name} is not supported; allowed are {ALLOWED}") from None
    return Taken(array, _to_tensor)


def _to_tensor(array: np.ndarray) -> Any:
    torch = sys.modules["torch"]
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def device(value: object) -> str | None:
    """``"cpu"``, ``"gpu"``, or None for what lies on no device: numbers, lists."""
    if isinstance(value, np.ndarray):
        return "cpu"
    if hasattr(value, "__dlpack_device__"):
        return "cpu" if value.__dlpack_device__()[0] == _CPU else "gpu"
    return "gpu" if hasattr(value, "__cuda_array_interface__") else None


@functools.cache
def _gpu_installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("numba_cuda", "cuda"))


def _needs() -> str:
    if not _gpu_installed():
        return _NEEDS_CUDA
    return "this function takes arrays of the CPU only" if _gpu_usable() else _NEEDS_DRIVER


@functools.cache
def _gpu_usable() -> bool:
    return _gpu_installed() and importlib.import_module("softmax_numba.gpu").usable()


def gpu(value: object, module: str) -> Any:
    """The module of ``softmax_numba.gpu`` that takes calls like this one; None where ``value`` is on no GPU.

    None too where nothing can be done there: :func:`take` then says what is missing.
    """
    if isinstance(value, np.ndarray) or device(value) != "gpu" or not _gpu_usable():
        return None
    return importlib.import_module(f"softmax_numba.gpu.{module}")
