"""Where the cache of compiled kernels stands, and how long: the user's choice, what can be written, a month."""

import errno
import os
import time
from pathlib import Path

import numba
import pytest
from caches import FOLDER, SMALL, files, increment
from caches import copy as copy
from caches import place as place
from processes import run

from softmax_numba.cpu import compiled

# --- places -------------------------------------------------------------------------


def test_switched_off():
    assert run(FOLDER, SOFTMAX_NUMBA_CACHE_DIR="") == ["None"]


def test_order_of_places(tmp_path):
    own, numbas, xdg = tmp_path / "own", tmp_path / "numba", tmp_path / "xdg"
    home = {"HOME": tmp_path, "XDG_CACHE_HOME": xdg, "NUMBA_CACHE_DIR": numbas, "SOFTMAX_NUMBA_CACHE_DIR": own}
    if os.name == "nt":
        pytest.skip("Windows has LOCALAPPDATA instead")
    expected = (own, numbas / "softmax_numba", xdg / "softmax_numba", tmp_path / ".cache" / "softmax_numba")
    for wanted, name in zip(
        expected, ["SOFTMAX_NUMBA_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", ""], strict=True
    ):
        (line,) = run(FOLDER, **home)
        assert Path(line).parent == wanted
        home[name] = None


def test_next_place_where_the_first_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    how = {"SOFTMAX_NUMBA_CACHE_DIR": None, "NUMBA_CACHE_DIR": tmp_path / "file" / "x", "XDG_CACHE_HOME": tmp_path}
    assert Path(run(FOLDER, **how)[0]).parent == tmp_path / "softmax_numba"


def test_nowhere_to_write_and_a_read_only_installation(copy, tmp_path):
    """No cache, no warning, no output, and nothing is written beside the sources either."""
    (tmp_path / "file").touch()
    nowhere = tmp_path / "file" / "below"
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    inside = sorted(copy.rglob("*"))
    how = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": nowhere,
        "LOCALAPPDATA": nowhere,
        "SOFTMAX_NUMBA_CACHE_DIR": None,
    }
    program = SMALL + "from softmax_numba.cpu import compiled; assert made and compiled.folder() is None"
    assert run(program, cwd=tmp_path, XDG_CACHE_HOME=None, **how) == []
    assert sorted(copy.rglob("*")) == inside
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_no_home_directory(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("SOFTMAX_NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(Path, "home", no_home)
    compiled.folder_of.cache_clear()
    try:
        assert compiled.folder() is None
        assert increment()[0](2.0) == 3.0
    finally:
        compiled.folder_of.cache_clear()


# --- old versions -------------------------------------------------------------------

MONTH = 31 * 86400


def old(path, *names, age=MONTH):
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text("x", encoding="utf-8")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_old_versions_are_removed_after_a_month(place):
    stale = old(place / ("0" * 24), "softmax-rows-0123456789abcdef.kernel", "softmax-rows-0.kernelk3x_9a")
    young = old(place / ("1" * 24), "softmax-rows-0123456789abcdef.kernel", age=86400)
    current = compiled.folder()
    assert not stale.exists()
    assert young.is_dir() and current.is_dir()


def test_foreign_files_are_never_removed(place):
    foreign = [
        old(place / ("2" * 24), "notes.txt"),
        old(place / "a folder", "linux.kernel"),
        old(place / "24 letters but no digest", "linux.kernel"),
        old(place / "deadbeef", "x.kernel"),
    ]
    (place / ("3" * 24)).write_text("a file", encoding="utf-8")
    os.utime(place / ("3" * 24), (0, 0))
    before = files(place)
    assert compiled.folder() is not None
    assert files(place) == before
    assert all(path.is_dir() for path in foreign)


def test_using_a_folder_keeps_it_young(place):
    current = compiled.folder()
    os.utime(current, (0, 0))
    compiled.folder_of.cache_clear()
    assert compiled.folder() == current
    assert time.time() - current.stat().st_mtime < 3600


def test_somebody_elses_folder_that_can_be_written_to(place, monkeypatch):
    """Its time cannot be set then; that is no reason to go without."""

    def not_mine(*arguments, **options):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", not_mine)
    assert compiled.folder() is not None
