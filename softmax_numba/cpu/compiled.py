"""Compiled kernels, and the folder on disk that keeps them from one process to the next.

Numba's own cache looks at the file that a function stands in and sees no edit of the files it calls into, fails on a
truncated entry, and warns where it cannot write. Here a kernel's key is everything that its machine code depends on:
all sources of the package, the versions of Numba and llvmlite, the CPU and Python. One file a kernel, written whole
(temporary file, rename) with a checksum in front; what cannot be read, checked or unpickled counts as not there, and
where no folder can be written, nothing is kept and nothing is said.

``SOFTMAX_NUMBA_CACHE_DIR`` chooses the folder; empty, it switches the cache off. Then ``NUMBA_CACHE_DIR`` and the
user's cache folder (``$XDG_CACHE_HOME`` or ``~/.cache``; ``LOCALAPPDATA`` on Windows) are tried.
"""

import contextlib
import functools
import gc
import hashlib
import os
import pickle
import string
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import llvmlite
import numba
from numba.core.caching import NullCache, _Cache
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

_SUFFIX = ".kernel"
_DIGEST = hashlib.sha256
_STALE_DAYS = 30
_Made = TypeVar("_Made")

# Held while a kernel is made. A fork waits for it (threads.py): no child can finish what another thread began.
making = threading.RLock()


@functools.cache
def _key() -> str:
    """A hash of all that machine code depends on, the kernel itself aside."""
    digest = _DIGEST()
    package = Path(__file__).parent.parent
    sources = sorted(package.rglob("*.py"))
    if not sources:  # a frozen application: nothing tells one version of the kernels from the next
        raise FileNotFoundError(f"no sources in {package}")
    for path in sources:
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    codegen = numba.core.registry.cpu_target.target_context.codegen()
    digest.update(repr((numba.__version__, llvmlite.__version__, sys.version, codegen.magic_tuple())).encode())
    return digest.hexdigest()[:24]


def _candidates() -> list[Path]:
    own = os.environ.get("SOFTMAX_NUMBA_CACHE_DIR")
    if own is not None:
        return [Path(own)] if own else []
    places = []
    if numba.config.CACHE_DIR:
        places.append(Path(numba.config.CACHE_DIR) / "softmax_numba")
    if os.name == "nt":
        local = os.environ.get("LOCALAPPDATA")
        return places + ([Path(local) / "softmax_numba"] if local else [])
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return [*places, Path(base) / "softmax_numba"]
    with contextlib.suppress(RuntimeError, KeyError):  # no home directory
        places.append(Path.home() / ".cache" / "softmax_numba")
    return places


def folder() -> Path | None:
    """The folder of this version's kernels, made if need be; None where none can be written."""
    with contextlib.suppress(OSError, RuntimeError):
        return folder_of(_key())
    return None


@functools.cache
def folder_of(key: str) -> Path | None:
    """The same of the kernels that a ``key`` of 24 hexadecimal digits tells from others."""
    for base in _candidates():
        try:
            path = base / key
            path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path).close()
        except (OSError, RuntimeError):
            continue
        with contextlib.suppress(OSError):  # somebody else's folder that this user may write to
            _forget_old_versions(base, path)
        return path
    return None


def _forget_old_versions(base: Path, current: Path) -> None:
    """Removes kernels of other versions that no process has used for a month, so that the cache stays bounded."""
    os.utime(current)
    limit = time.time() - _STALE_DAYS * 86400
    for other in base.iterdir():
        with contextlib.suppress(OSError):
            ours = len(other.name) == len(current.name) and set(other.name) <= set(string.hexdigits)
            if ours and other != current and other.stat().st_mtime < limit:
                for file in other.glob(f"*{_SUFFIX}*"):  # and what a process left that died while writing
                    file.unlink()
                other.rmdir()


def kept_content(file: Path) -> bytes | None:
    """What :func:`keep_content` left in a file; None where that cannot be read or is not whole."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    size = _DIGEST().digest_size
    return content[size:] if _DIGEST(content[size:]).digest() == content[:size] else None


def keep_content(file: Path, content: bytes) -> None:
    """Writes a file whole or not at all, with a checksum in front; says nothing where it cannot."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(_DIGEST(content).digest() + content)
        os.replace(temporary, file)
    except OSError:  # a full disk, a folder made read-only since
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def file_of(name: str, signature: object) -> Path | None:
    """Where the kernel of that name is kept for a signature; None where none can be."""
    path = folder()
    if path is None:
        return None
    return path / f"{name}-{_DIGEST(repr(signature).encode()).hexdigest()[:16]}{_SUFFIX}"


class _KernelCache(_Cache):
    """Numba's cache interface over one file a kernel and signature."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def cache_path(self) -> str | None:
        path = folder()
        return None if path is None else str(path)

    def load_overload(self, sig: Any, target_context: Any) -> CompileResult | None:
        file = file_of(self._name, sig)
        if file is None:
            return None
        # Whatever stands in a cache file, the worst that it may cost is a compilation.
        with contextlib.suppress(Exception):
            content = kept_content(file)
            if content is not None:
                # Numba's own cache calls `target_context.refresh()`: that looks at all that may be compiled, imports
                # SciPy's BLAS and takes half a second. Code that is there needs the runtime alone.
                rtsys.initialize(target_context)
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        return None

    def save_overload(self, sig: object, data: Any) -> None:
        file = file_of(self._name, sig)
        # Code with addresses of this process in it (a ctypes function, say) would crash the next.
        if file is None or data.library.has_dynamic_globals:
            return
        keep_content(file, dumps(data._reduce()))

    def enable(self) -> None: ...
    def disable(self) -> None: ...
    def flush(self) -> None: ...


def kept(dispatcher: Any, name: str) -> Any:
    """The dispatcher with its compiled code kept on disk under ``name``."""
    dispatcher._cache = NullCache() if folder() is None else _KernelCache(name)
    return dispatcher


def compiled_for(function: Callable[..., object], name: str, signature: tuple[Any, ...]) -> Callable[..., Any]:
    """The function compiled (or read from disk) for a signature; a call compiles it for no other."""
    dispatcher = kept(function, name)
    dispatcher.disable_compile(False)  # a body is compiled for several: what it calls is there from the first on
    collects = gc.isenabled()
    gc.disable()  # a compiler makes a lot that stays: looking through it again and again took a tenth of the time
    try:
        dispatcher.compile(signature)
    finally:
        if collects:
            gc.enable()
    dispatcher.disable_compile()
    return dispatcher


_loaded: list[CompileResult] = []  # what was compiled stays in memory as long as its address may be called


def address_of_body(body: Callable[..., object], name: str, signature: tuple[Any, ...]) -> int:
    """Where the machine code of a body stands for one signature."""
    dispatcher: Any = compiled_for(body, name, signature)
    result = dispatcher.overloads[signature]
    _loaded.append(result)
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def once(make: Callable[..., _Made]) -> Callable[..., _Made]:
    """``make``, called once for each set of arguments, also where several threads ask at the same time.

    Who asks for what is there does not wait for what is being made.
    """
    made: dict[tuple[Any, ...], _Made] = {}

    @functools.wraps(make)
    def wait_and_make(*arguments: Any) -> _Made:
        if arguments not in made:
            with making:
                if arguments not in made:
                    made[arguments] = make(*arguments)
        return made[arguments]

    return wait_and_make
