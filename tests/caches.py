"""The cache of kernels for tests: folders of their own, a kernel to keep in them, what a process compiles."""

import shutil
from pathlib import Path

import numba
import pytest
from numba import types
from processes import WATCH

import softmax_numba
from softmax_numba.cpu import compiled

PACKAGE = Path(softmax_numba.__file__).parent
SMALL = (
    WATCH
    + """
import numpy as np, softmax_numba
x = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
assert np.allclose(softmax_numba.logsumexp(x), np.log(np.exp(x).sum(-1)))
"""
)
FOLDER = "from softmax_numba.cpu import compiled; print(compiled.folder())"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    folder = tmp_path / "kernels"
    monkeypatch.setenv("SOFTMAX_NUMBA_CACHE_DIR", str(folder))
    compiled.folder_of.cache_clear()
    yield folder
    compiled.folder_of.cache_clear()


@pytest.fixture
def copy(tmp_path):
    """A copy of the package's sources."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "softmax_numba", ignore=shutil.ignore_patterns("__pycache__")))


def increment(kind=types.float64, name="increment"):
    """A tiny kernel through the cache: the dispatcher, and whether it came from disk."""

    def increment(x):
        return x + 1

    dispatcher = compiled.kept(numba.njit(increment), name)
    dispatcher.compile((kind,))
    return dispatcher, bool(sum(dispatcher.stats.cache_hits.values()))


def files(place):
    return sorted(path for path in place.rglob("*") if path.is_file())
