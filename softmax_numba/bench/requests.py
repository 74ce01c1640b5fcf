"""What the user asked for, checked before anything is measured.

Everything here raises :class:`RequestError`, whose message is one line that names the value and what is
allowed.
"""

import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "RequestError",
    "check_axis",
    "check_positive",
    "check_seed",
    "check_threads",
    "choose",
    "load_array",
    "writable_folder",
]

# What parsing a damaged .npy header or .npz archive has been seen to raise.
_DAMAGE = (
    ValueError,
    OSError,
    EOFError,
    SyntaxError,
    KeyError,
    IndexError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"


class RequestError(ValueError):
    """A request that cannot be carried out; the message is one line for the user."""


def choose(kind: str, asked: Iterable[str], known: Sequence[str]) -> tuple[str, ...]:
    """The asked-for names, each once and in the order of ``known``.

    Examples
    --------
    >>> choose("op", ["logsumexp", "softmax"], ["softmax", "log_softmax", "logsumexp"])
    ('softmax', 'logsumexp')
    """
    wanted = list(asked)
    for name in wanted:
        if name not in known:
            raise RequestError(f"unknown {kind} {name!r}; known: {', '.join(known)}")
    if not wanted:
        raise RequestError(f"no {kind} given; known: {', '.join(known)}")
    return tuple(name for name in known if name in wanted)


def check_threads(threads: int | None, available: int) -> int:
    """The number of threads to use: all that are available unless a number in 1..available is asked for."""
    if threads is None:
        return available
    if not 1 <= threads <= available:
        raise RequestError(f"--threads {threads} is out of range; allowed here: 1 to {available}")
    return threads


def check_seed(seed: int, option: str = "--seed") -> int:
    if seed < 0:
        raise RequestError(f"{option} {seed} is negative; allowed: 0 and above")
    return seed


def check_positive(count: int, option: str) -> int:
    if count < 1:
        raise RequestError(f"{option} {count} is out of range; allowed: 1 and above")
    return count


def check_axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise RequestError(f"--axis {axis} is out of bounds for a {ndim}-D array; allowed: {-ndim} to {ndim - 1}")
    return axis


def writable_folder(path: Path) -> Path:
    """Make the folder where it does not exist yet, and make sure that a file can be written into it."""
    try:
        if path.exists() and not path.is_dir():
            raise RequestError(f"--out {path} is a file; allowed: a folder, or a name that is free")
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise RequestError(f"--out {path} cannot be written: {_reason(error)}; allowed: a writable folder") from None
    return path


def load_array(path: Path, key: str | None = None) -> np.ndarray[Any, Any]:
    """The array in a ``.npy`` or ``.npz`` file, in memory, native byte order and its own layout.

    Pickles are never opened. A ``.npz`` with one array needs no key. bfloat16, which NumPy stores as two
    nameless bytes an element, comes back as ``ml_dtypes.bfloat16``.

    Parameters
    ----------
    path : Path
        The file; what it is is decided by its first bytes, not by its name.
    key : str, optional
        Which array of a ``.npz`` file.

    Raises
    ------
    RequestError
        For a file that is missing, damaged, or holds something that softmax is not defined for.
    """
    array = _native(path, _stored(path, key))
    if array.ndim == 0:
        raise RequestError(f"--input {path} holds a 0-d array; allowed: at least one dimension")
    if array.size == 0:
        raise RequestError(f"--input {path} has shape {array.shape}, no element; allowed: at least one")
    return array


def _stored(path: Path, key: str | None) -> np.ndarray[Any, Any]:
    try:
        with path.open("rb") as file:
            start = file.read(len(_NPY))
    except FileNotFoundError:
        raise RequestError(f"--input {path} does not exist; allowed: a .npy or .npz file") from None
    except OSError as error:
        raise RequestError(f"--input {path} cannot be read: {_reason(error)}; allowed: a .npy or .npz file") from None
    if start.startswith(_ZIP):
        return _from_archive(path, key)
    if start != _NPY:
        raise RequestError(f"--input {path} is not a NumPy file; allowed: .npy or .npz, without pickles")
    if key is not None:
        raise RequestError(f"--key {key} has no meaning for {path}, a .npy file with one array")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _from_archive(path: Path, key: str | None) -> np.ndarray[Any, Any]:
    try:
        # Opened here: np.load leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = list(archive.files)
            if key is None and len(names) == 1:
                key = names[0]
            if key is None or key not in names:
                given = "needs --key" if key is None else f"has no array --key {key}"
                raise RequestError(f"--input {path} {given}; it holds: {', '.join(names) or 'nothing'}")
            return archive[key]
    except RequestError:
        raise
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: BaseException) -> RequestError:
    if "object" in str(error).lower() or "pickle" in str(error).lower():
        return RequestError(f"--input {path} holds Python objects (a pickle); allowed: numbers")
    return RequestError(f"--input {path} is damaged: {_reason(error)}; allowed: a whole .npy or .npz file")


def _native(path: Path, stored: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    kind, size = stored.dtype.kind, stored.dtype.itemsize
    if kind == "V" and size == 2 and stored.dtype.names is None:
        from ml_dtypes import bfloat16

        return np.array(stored, order="K").view(bfloat16)
    if kind in "biu" or (kind == "f" and size <= 8):
        try:
            return np.array(stored, dtype=stored.dtype.newbyteorder("="), order="K")
        except MemoryError:
            raise RequestError(f"--input {path} needs {stored.nbytes} bytes of memory, more than there is") from None
    raise RequestError(
        f"--input {path} has dtype {stored.dtype}; allowed: float16, bfloat16, float32, float64, integers and booleans"
    )


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
