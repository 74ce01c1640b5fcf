"""From a kernel and its plan to work on a stream: compiled once, kept on disk, loaded once, launched by cuda.core.

A launch passes two dozen numbers and no array: nothing looks at types, and nothing waits.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.cpu.compiled import folder, keep_content, kept_content
from softmax_numba.gpu import seam
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
    from cuda.core import launch

    with _current(place.device):
        ready = _loaded(kernel, bound(how.block), place.device)
        launch(_stream(place.stream), _configured(how), ready, *(number for part in tuples for number in part))


def upload(given: np.ndarray, address: int, place: Place) -> None:
    """Queues a copy from the host's memory, which may be let go at once."""
    if seam.SIMULATED:
        ctypes.memmove(address, given.ctypes.data, given.nbytes)
        return
    from cuda.bindings import driver

    with _current(place.device):
        _checked(driver.cuMemcpyHtoDAsync(address, given.ctypes.data, given.nbytes, place.stream))


def _checked(answer: tuple[Any, ...]) -> None:
    """Raises RuntimeError if the driver reports an error."""
    from cuda.bindings import driver

    if answer[0] != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the CUDA driver reports {answer[0]!r}")


@functools.lru_cache(maxsize=256)
def _stream(handle: int) -> Any:
    from cuda.core import LEGACY_DEFAULT_STREAM, PER_THREAD_DEFAULT_STREAM, Stream

    # What CUDA calls its default streams: 0 and 1 are the same, 2 is a thread's own.
    default = {0: LEGACY_DEFAULT_STREAM, 1: LEGACY_DEFAULT_STREAM, 2: PER_THREAD_DEFAULT_STREAM}
    return default[handle] if handle in default else Stream.from_handle(handle)


@functools.lru_cache(maxsize=1024)
def _configured(how: Launch) -> Any:
    from cuda.core import LaunchConfig

    if how.cluster == 1:
        return LaunchConfig(grid=how.grid, block=how.block, shmem_size=how.shared)
    clusters = how.grid // how.cluster  # cuda.core counts the grid in clusters
    return LaunchConfig(grid=clusters, cluster=how.cluster, block=how.block, shmem_size=how.shared)


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


_LOADED: dict[tuple[Any, ...], Any] = {}


def _loaded(kernel: Kernel, threads: int, number: int) -> Any:
    ready = _LOADED.get((kernel.key, threads, number))
    if ready is None:
        from cuda.bindings import driver
        from cuda.core import ObjectCode

        properties = device(number)
        name, cubin = _compiled(kernel, properties.arch, threads)
        ready = ObjectCode.from_cubin(cubin).get_kernel(name)
        opt_in = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        static = ready.attributes.shared_size_bytes
        _checked(driver.cuKernelSetAttribute(opt_in, properties.shared - static, ready.handle, driver.CUdevice(number)))
        _LOADED[kernel.key, threads, number] = ready
    return ready


def signature(kernel: Kernel) -> Any:
    """A kernel's signature in Numba's types: a tuple of integers, and one of numbers where it takes any."""
    from numba import types

    names = kernel.arguments._fields  # type: ignore[attr-defined]
    integers = types.NamedUniTuple(types.int64, len(names), kernel.arguments)
    if kernel.numbers is None:
        return types.void(integers)
    count = len(kernel.numbers._fields)  # type: ignore[attr-defined]
    return types.void(integers, types.NamedUniTuple(getattr(types, kernel.kind), count, kernel.numbers))


# --- on disk ----------------------------------------------------------------------------


@functools.cache
def _versions() -> str:
    packages = ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
    found = []
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(found)


def _file(key: tuple[Any, ...], arch: str, threads: int) -> Path | None:
    where = folder()
    if where is None:
        return None
    digest = hashlib.sha256(repr((key, arch, threads, _versions())).encode()).hexdigest()[:24]
    return where / f"gpu-{arch}-{digest}.kernel"


def _compiled(kernel: Kernel, arch: str, threads: int) -> tuple[str, bytes]:
    """The kernel's name and cubin: from disk, or compiled and left there. What cannot be read counts as not there."""
    file = _file(kernel.key, arch, threads)
    content = None if file is None else kept_content(file)
    if content is not None:
        name, _, cubin = content.partition(b"\0")
        return name.decode(), cubin
    made = seam.compiled(kernel.function, signature(kernel), arch, threads)
    if file is not None:
        keep_content(file, made.name.encode() + b"\0" + made.cubin)
    return made.name, made.cubin
