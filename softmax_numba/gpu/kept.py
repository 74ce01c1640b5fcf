"""Compiled kernels from one process to the next, and from a machine without a GPU to one with it.

A kernel is known by what it is specialised for, the architecture, and the sources that it is made of: neither by the
machine that compiled it nor by where the package lies. Two places are looked at:

    the cache              what this installation compiled; another version of the compiler has kernels of its own
    SOFTMAX_NUMBA_KERNELS  a folder that ``python -m softmax_numba.gpu --keep`` filled, for a machine that cannot
                           compile or shall not spend time on it, whatever compiler that has
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import zlib
from pathlib import Path
from typing import Any

from softmax_numba.cpu import compiled

_COMPILERS = ("numba", "llvmlite", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")
_LENGTH = 24  # digits of a key


@functools.cache
def sources() -> str | None:
    """A hash of all that kernels are made of but the compiler; None in a frozen application, which has no sources."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    try:
        for path in sorted([*package.glob("gpu/*.py"), package / "cpu" / "exponential.py"]):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()[:_LENGTH]


@functools.cache
def _own() -> Path | None:
    """The folder of this installation's kernels; None where nothing can be kept."""
    key = sources()
    if key is None:
        return None
    found = [key]
    for package in _COMPILERS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{package} {importlib.metadata.version(package)}")
    return compiled.folder_of(hashlib.sha256(repr(found).encode()).hexdigest()[:_LENGTH])


def _carried() -> Path | None:
    """The folder that came along, if one did."""
    named, key = os.environ.get("SOFTMAX_NUMBA_KERNELS"), sources()
    return Path(named) / key if named and key else None


def _name(key: tuple[Any, ...], arch: str, threads: int) -> str:
    digest = hashlib.sha256(repr((key, arch, threads)).encode()).hexdigest()[:_LENGTH]
    return f"gpu-{arch}-{digest}.kernel"


def find(key: tuple[Any, ...], arch: str, threads: int) -> tuple[str, bytes] | None:
    """A kernel's name and cubin. What cannot be read counts as not there; what only the cache has is carried too."""
    for folder in (_carried(), _own()):
        content = None if folder is None else compiled.kept_content(folder / _name(key, arch, threads))
        if content is not None:
            name, packed = content.split(b"\0", 1)
            cubin = zlib.decompress(packed)
            if _carried() not in (None, folder):
                keep(key, arch, threads, name.decode(), cubin)
            return name.decode(), cubin
    return None


def keep(key: tuple[Any, ...], arch: str, threads: int, name: str, cubin: bytes) -> None:
    """Leaves a kernel in the folder that came along, if one did, or in the cache."""
    place = _carried() or _own()
    if place is not None:
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
        compiled.keep_content(place / _name(key, arch, threads), name.encode() + b"\0" + zlib.compress(cubin))
