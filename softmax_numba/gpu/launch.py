"""From a kernel and its plan to work on a stream: compiled once, kept on disk, loaded once, launched by the driver.

A launch passes two dozen numbers and no array: nothing looks at types, and nothing waits. The driver's own functions
are called, whose names and arguments stay the same from one version of the bindings to the next.
"""

import contextlib
import ctypes
import functools
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu import kept, seam
from softmax_numba.gpu.exponential import Scale
from softmax_numba.gpu.plan import H100, Device


class Place(NamedTuple):
    """Where work goes."""

    device: int
    stream: int


class Kernel(NamedTuple):
    """A kernel and what it is known by."""

    function: Callable
    key: tuple[Any, ...]  # its name and what it is specialised for
    kind: str  # the dtype that computes
    arguments: type
    numbers: type | None = Scale  # what follows the integers: a tuple of numbers of that dtype


class Launch(NamedTuple):
    """How many blocks of how many threads, with what."""

    grid: int
    block: int
    shared: int = 0  # bytes of dynamic shared memory
    cluster: int = 1  # blocks a cluster; the grid counts blocks


@functools.cache
def device(number: int) -> Device:
    """What plans ask of a device."""
    if seam.SIMULATED:
        return H100._replace(clusters=False)
    from cuda.core import Device as CudaDevice

    found = CudaDevice(number)
    major, minor = found.compute_capability
    if (major, minor) < (8, 0):
        raise RuntimeError(f"{found.name} has compute capability {major}.{minor}; kernels need 8.0 or more")
    return Device(
        f"sm_{major}{minor}",
        found.properties.multiprocessor_count,
        found.properties.max_shared_memory_per_block_optin,
        major >= 9,
    )


def bound(block: int) -> int:
    """The number of threads that a kernel is compiled for, at least ``block``."""
    return next(threads for threads in (128, 256, 512, 1024) if threads >= block)


def threads_for(count: int, block: int) -> int:
    """``block`` threads, or as many warps as so many things take."""
    return min(block, 32 * -(-count // 32))


def run(kernel: Kernel, how: Launch, place: Place, *tuples: tuple[Any, ...]) -> None:
    """Queues a kernel on a stream; its arguments are ``tuples`` of numbers."""
    if seam.SIMULATED:
        seam.simulate(kernel.function, how.grid, how.block, how.shared, how.cluster, tuples)
        return
    with _current(place.device):
        ready = _loaded(kernel, bound(how.block), how.shared > 0, place.device)
        with ready.packing.filled(number for part in tuples for number in part) as pointers:
            _queue(ready.function, how, place.stream, pointers)


def _queue(function: Any, how: Launch, stream: int, pointers: int) -> None:
    from cuda.bindings import driver

    if how.cluster == 1:
        _checked(
            driver.cuLaunchKernel(function, how.grid, 1, 1, how.block, 1, 1, how.shared, stream, pointers, 0),
        )
        return
    config, attribute = driver.CUlaunchConfig(), driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    size = attribute.value.clusterDim
    size.x, size.y, size.z = how.cluster, 1, 1
    config.gridDimX, config.gridDimY, config.gridDimZ = how.grid, 1, 1
    config.blockDimX, config.blockDimY, config.blockDimZ = how.block, 1, 1
    config.sharedMemBytes, config.hStream = how.shared, stream
    config.attrs, config.numAttrs = [attribute], 1
    _checked(driver.cuLaunchKernelEx(config, function, pointers, 0))


def upload(given: np.ndarray, address: int, place: Place) -> None:
    """Queues a copy from the host's memory, which may be let go at once."""
    if seam.SIMULATED:
        ctypes.memmove(address, given.ctypes.data, given.nbytes)
        return
    from cuda.bindings import driver

    with _current(place.device):
        _checked(driver.cuMemcpyHtoDAsync(address, given.ctypes.data, given.nbytes, place.stream))


def _checked(answer: tuple[Any, ...]) -> Any:
    """What the driver gives beside its status, if anything; RuntimeError if that is an error."""
    status, *given = answer
    if status:
        raise RuntimeError(f"the CUDA driver reports {status!r}")
    return given[0] if given else None


@contextlib.contextmanager
def _current(number: int) -> Iterator[None]:
    """Makes a device current, and the one before again."""
    from cuda.bindings import driver
    from cuda.core import Device as CudaDevice

    error, before = driver.cuCtxGetDevice()
    if error == driver.CUresult.CUDA_SUCCESS and int(before) == number:
        yield
        return
    CudaDevice(number).set_current()
    try:
        yield
    finally:
        if error == driver.CUresult.CUDA_SUCCESS:
            CudaDevice(int(before)).set_current()


class _Packing:
    """Memory for a kernel's arguments, and the list of their addresses that the driver reads at a launch."""

    def __init__(self, form: str) -> None:
        self._form = struct.Struct(form)
        self._places = [struct.calcsize(form[: n + 1]) - struct.calcsize(form[n]) for n in range(1, len(form))]
        self._free: list[tuple[Any, Any]] = []

    @contextlib.contextmanager
    def filled(self, numbers: Iterator[Any]) -> Iterator[int]:
        """The address of the list; it holds until the ``with`` ends, by when the driver has its own copy."""
        try:
            memory, pointers = self._free.pop()  # one that no other thread uses
        except IndexError:
            memory = ctypes.create_string_buffer(self._form.size)
            begin = ctypes.addressof(memory)
            pointers = (ctypes.c_void_p * len(self._places))(*(begin + place for place in self._places))
        self._form.pack_into(memory, 0, *numbers)
        yield ctypes.addressof(pointers)
        self._free.append((memory, pointers))


class _Loaded(NamedTuple):
    function: Any
    packing: _Packing


_LOADED: dict[tuple[Any, ...], _Loaded] = {}


def _loaded(kernel: Kernel, threads: int, opts_in: bool, number: int) -> _Loaded:
    """A kernel on a device; ``opts_in`` to more dynamic shared memory than the usual 48 KB."""
    ready = _LOADED.get((kernel.key, threads, number))
    if ready is None:
        from cuda.bindings import driver

        properties = device(number)
        name, cubin = machine_code(kernel, properties.arch, threads)
        library = _checked(driver.cuLibraryLoadData(cubin, [], [], 0, [], [], 0))
        found = _checked(driver.cuLibraryGetKernel(library, name.encode()))
        if opts_in:
            attribute, on = driver.CUfunction_attribute, driver.CUdevice(number)
            static = _checked(
                driver.cuKernelGetAttribute(attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, found, on),
            )
            most = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            _checked(driver.cuKernelSetAttribute(most, properties.shared - static, found, on))
        # A kernel's handle counts as a function's where one is launched.
        ready = _Loaded(driver.CUfunction(int(found)), _Packing(_form(kernel)))
        _LOADED[kernel.key, threads, number] = ready
    return ready


def _form(kernel: Kernel) -> str:
    """What ``struct`` calls the arguments: int64, and what numbers there are in the dtype that computes."""
    integers = "@" + "q" * len(kernel.arguments._fields)  # type: ignore[attr-defined]
    if kernel.numbers is None:
        return integers
    letter = {"float32": "f", "float64": "d", "int64": "q"}[kernel.kind]
    return integers + letter * len(kernel.numbers._fields)  # type: ignore[attr-defined]


def signature(kernel: Kernel) -> Any:
    """A kernel's signature in Numba's types: a tuple of integers, and one of numbers where it takes any."""
    from numba import types

    names = kernel.arguments._fields  # type: ignore[attr-defined]
    integers = types.NamedUniTuple(types.int64, len(names), kernel.arguments)
    if kernel.numbers is None:
        return types.void(integers)
    count = len(kernel.numbers._fields)  # type: ignore[attr-defined]
    return types.void(integers, types.NamedUniTuple(getattr(types, kernel.kind), count, kernel.numbers))


def machine_code(kernel: Kernel, arch: str, threads: int) -> tuple[str, bytes]:
    """The kernel's name and cubin: carried along, from disk, or compiled and left there."""
    found = kept.find(kernel.key, arch, threads)
    if found is None:
        made = seam.compiled(kernel.function, signature(kernel), arch, threads)
        found = made.name, made.cubin
        kept.keep(kernel.key, arch, threads, *found)
    return found
