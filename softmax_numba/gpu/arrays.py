"""Arrays on a GPU, of any library: where they lie, and how that library makes another.

None of them is imported to find out: the type's own module says what a thing is, as in ``softmax_numba.interop``.
Nothing is copied to the host and nothing waits: work is queued on the stream that the array's library uses at the
moment.
"""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.dtypes import dtype_of
from softmax_numba.gpu import seam

_CUDA = (2, 13)  # kDLCUDA and kDLCUDAManaged in dlpack.h


class GpuArray(NamedTuple):
    """Memory on a device, seen as an array; strides in bytes."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    name: str  # the dtype's
    itemsize: int
    device: int
    writable: bool
    owner: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def broadcast(self, shape: tuple[int, ...]) -> "GpuArray":
        """The same memory in a larger shape (ValueError if it does not fit)."""
        if np.broadcast_shapes(self.shape, shape) != shape:
            raise ValueError
        missing = len(shape) - self.ndim
        own = (1,) * missing + self.shape
        steps = (0,) * missing + self.strides
        strides = tuple(0 if n == 1 else s for n, s in zip(own, steps, strict=True))
        return self._replace(shape=shape, strides=strides)

    def extent(self) -> tuple[int, int]:
        """The addresses from the first byte to behind the last."""
        if not self.size:
            return self.address, self.address
        reach = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        return self.address + low, self.address + high + self.itemsize

    def overlaps(self, other: "GpuArray") -> bool:
        """Whether the two may share memory."""
        (begin, end), (other_begin, other_end) = self.extent(), other.extent()
        return self.device == other.device and begin < other_end and other_begin < end


class Library(NamedTuple):
    """How a library makes arrays on a device, and on which of its streams it works."""

    empty: Callable[[tuple[int, ...], str], Any]
    stream: int


def contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of a C-ordered array."""
    strides, step = [], itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def take(value: Any, name: str) -> GpuArray:
    """The array behind ``value``, an argument called ``name``.

    Raises
    ------
    TypeError
        If it is no array on a CUDA device, or a PyTorch tensor that requires a gradient.
    """
    if _is_tensor(value):
        return _of_tensor(value, name)
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is not None:
        return _of_interface(value, interface, name)
    if hasattr(value, "__dlpack__") and value.__dlpack_device__()[0] in _CUDA:
        return _of_dlpack(value)
    full = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"{name} is a {full}, which is no array on a CUDA device")


def library(value: Any, array: GpuArray) -> Library:
    """That of ``value``, whose memory ``array`` describes."""
    package = type(value).__module__.partition(".")[0]
    if _is_tensor(value):
        return _torch(array.device)
    if package == "cupy":
        return _cupy(array.device)
    interface = getattr(value, "__cuda_array_interface__", None)
    stream = (interface or {}).get("stream") or 0  # on which the array is in use; 1 is the default stream
    if hasattr(value, "__array_namespace__"):
        return _array_namespace(value, stream)
    return Library(_numba_empty, stream)


# --- PyTorch ----------------------------------------------------------------------------


def _is_tensor(value: Any) -> bool:
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def _of_tensor(tensor: Any, name: str) -> GpuArray:
    if tensor.device.type != "cuda":
        raise TypeError(f"{name} is a torch tensor on device {str(tensor.device)!r}, which is no CUDA device")
    if tensor.requires_grad:
        raise TypeError(
            f"{name} is a torch tensor that requires a gradient, which this function does not compute; "
            f"pass {name}.detach()"
        )
    tensor = tensor.resolve_neg()
    size = tensor.element_size()
    return GpuArray(
        tensor.data_ptr(),
        tuple(tensor.shape),
        tuple(s * size for s in tensor.stride()),
        str(tensor.dtype).removeprefix("torch."),
        size,
        tensor.device.index,
        True,
        tensor,
    )


def _torch(device: int) -> Library:
    torch = sys.modules["torch"]

    def empty(shape: tuple[int, ...], name: str) -> Any:
        return torch.empty(shape, dtype=getattr(torch, name), device=f"cuda:{device}")

    return Library(empty, torch.cuda.current_stream(device).cuda_stream)


# --- CuPy, Numba and other arrays with __cuda_array_interface__ ----------------------------


def _of_interface(value: Any, interface: dict[str, Any], name: str) -> GpuArray:
    dtype = np.dtype(getattr(value, "dtype", interface["typestr"]))
    if interface.get("mask") is not None:
        raise TypeError(f"{name} has a mask in its __cuda_array_interface__; pass where= instead")
    if not dtype.isnative:
        raise TypeError(f"{name} has dtype {dtype.str}, in a byte order that no GPU has")
    shape = tuple(interface["shape"])
    strides = interface.get("strides")
    address, read_only = interface["data"]
    return GpuArray(
        address or 0,
        shape,
        contiguous(shape, dtype.itemsize) if strides is None else tuple(strides),
        dtype.name,
        dtype.itemsize,
        _device_of(value),
        not read_only,
        value,
    )


def _device_of(value: Any) -> int:
    """The number of the device; 0 where the array does not say."""
    found: Any = getattr(value, "device", None)
    if isinstance(found, int):
        return found
    if hasattr(found, "id") and isinstance(found.id, int):
        return found.id
    return value.__dlpack_device__()[1] if hasattr(value, "__dlpack_device__") else 0


def _cupy(device: int) -> Library:
    cuda, cupy_empty = sys.modules["cupy"].cuda, sys.modules["cupy"].empty

    def empty(shape: tuple[int, ...], name: str) -> Any:
        with cuda.Device(device):
            return cupy_empty(shape, np.dtype(name) if name == "uint8" else dtype_of(name))

    with cuda.Device(device):
        return Library(empty, cuda.get_current_stream().ptr)


def _numba_empty(shape: tuple[int, ...], name: str) -> Any:
    """For arrays whose library makes none that anybody could ask for."""
    if name == "bfloat16":
        raise TypeError("__cuda_array_interface__ cannot carry bfloat16; pass a torch tensor or an array with DLPack")
    return seam.device_array(shape, np.dtype(name))


# --- DLPack -----------------------------------------------------------------------------


def _of_dlpack(value: Any) -> GpuArray:
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(value, stream_ptr=-1)
    size = view.dtype.itemsize
    strides = view.strides
    return GpuArray(
        view.ptr,
        tuple(view.shape),
        contiguous(tuple(view.shape), size) if strides is None else tuple(s * size for s in strides),
        view.dtype.name,
        size,
        view.device_id,
        not view.readonly,
        (value, view),
    )


def _array_namespace(value: Any, stream: int) -> Library:
    namespace = value.__array_namespace__()

    def empty(shape: tuple[int, ...], name: str) -> Any:
        return namespace.empty(shape, dtype=getattr(namespace, name), device=value.device)

    return Library(empty, stream)
