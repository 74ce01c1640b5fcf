"""The cache of compiled kernels: used where it is right, rebuilt where it is not, silent where it cannot be."""

import ctypes
import errno
import hashlib
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite
import numba
import pytest
from caches import FOLDER, PACKAGE, SMALL, files, increment
from caches import copy as copy
from caches import place as place
from numba import types
from processes import CALLS, WATCH, run

from softmax_numba.cpu import compiled, door, entering, vjp_door


@pytest.fixture
def key(monkeypatch):
    """`key(package)`: the key that the sources in a folder get now."""

    def of(package=PACKAGE):
        compiled._key.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(compiled, "__file__", str(package / "cpu" / "compiled.py"))
            return compiled._key()

    yield of
    compiled._key.cache_clear()


# --- what is kept and found again ---------------------------------------------------


def test_second_process_compiles_nothing():
    """Serial and parallel kernels of every sweep."""
    program = "x = np.ones((9, 9)); softmax(x); log_softmax(x, 0); logsumexp(x, None); results(); serial_results()"
    run(program, before=CALLS, timeout=300)  # it compiles eleven kernels, perhaps beside others who do
    run(program + "\nassert not made, made", before=CALLS + WATCH)


def test_loading_a_kernel_looks_at_nothing_else(place):
    """Numba's own cache brings in all that could be compiled, which takes longer than everything else here."""
    program = "import numpy as np, sys, softmax_numba; softmax_numba.softmax(np.ones((3, 7)))"
    seen = "print(made, 'numba.np.arraymath' in sys.modules)"
    assert run("\n".join([program, seen]), before=WATCH, timeout=300)[0].endswith("True")
    assert run("\n".join([program, seen]), before=WATCH) == ["[] False"]


def test_kernel_comes_back_from_disk(place):
    dispatcher, found = increment()
    assert not found
    (file,) = files(place)
    assert file.suffix == ".kernel" and file.parent == compiled.folder()
    again, found = increment()
    assert found
    assert again(2.0) == dispatcher(2.0) == 3.0
    assert files(place) == [file]


def test_each_signature_has_its_own_file(place):
    """What was made for float32 does not serve float64."""
    increment(types.float32)
    assert not increment(types.float64)[1]
    assert len(files(place)) == 2
    for kind in (types.float32, types.float64):
        dispatcher, found = increment(kind)
        assert found
        assert dispatcher.signatures == [(kind,)]
    assert not increment(types.float64, "another name")[1]


def test_code_with_addresses_in_it_is_not_kept(place):
    """A function of the C library stands in machine code as a number, which the next process has elsewhere."""
    process_id = ctypes.CDLL(None).getpid
    process_id.restype, process_id.argtypes = ctypes.c_int, ()
    dispatcher = compiled.kept(numba.njit(lambda: process_id()), "addresses")
    dispatcher.compile(())
    assert dispatcher() == os.getpid()
    assert files(place) == []


def test_kernels_from_disk_and_new_ones_do_not_meet(tmp_path):
    """Symbols of a cached kernel and of one compiled now must not be taken for one another, in any order."""
    before = """
    import numpy as np, scipy.special, softmax_numba
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 90)).astype(np.float32)
    lane = rng.normal(size=100_000).astype(np.float32)
    def check(*calls):
        for name, way in (call.split() for call in calls):
            data, axis = {"rows": (x, 1), "columns": (x, 0), "long": (lane, 0), "small": (x[:9], 1)}[way]
            wide = data.astype(np.float64)
            expected = getattr(scipy.special, name)(wide, axis=axis)
            assert np.allclose(getattr(softmax_numba, name)(data, axis), expected, rtol=2e-6, atol=1e-6), (name, way)
    """
    pytest.importorskip("scipy")
    before = "\n".join(line[4:] for line in before.splitlines())
    for calls in (
        ("logsumexp small",),
        ("softmax small", "logsumexp small"),
        ("logsumexp small", "logsumexp long", "softmax small"),
    ):
        run(f"check(*{calls!r})", before=before, SOFTMAX_NUMBA_CACHE_DIR=tmp_path)


def test_each_door_of_a_way_back_has_a_file_of_its_own(tmp_path):
    """A door holds the name of the sweep that it calls: one that was read for another would call nothing."""
    before = """
import numpy as np
from softmax_numba import softmax_vjp
def check(*shapes):
    for shape in shapes:
        y, dy = np.full(shape, 1 / shape[1]), np.arange(float(shape[0] * shape[1])).reshape(shape)
        exact = y * (dy - (y * dy).sum(1, keepdims=True))
        assert np.allclose(softmax_vjp(y, dy), exact), shape
"""
    rows, short = (9, 40), (100, 4)
    for shapes in ((short,), (rows,), (short, rows)):
        run(f"check(*{shapes})", before=before, SOFTMAX_NUMBA_CACHE_DIR=tmp_path)


@pytest.mark.parametrize(
    ("name", "call"), [("door", "softmax(x)"), ("vjp_door", "log_softmax_vjp(x, x)")], ids=["forward", "back"]
)
def test_a_first_call_has_no_door_made_but_takes_one_from_disk(tmp_path, name, call):
    """Compiling it would take as long as what that call needs."""
    before = """
import numpy as np
from softmax_numba import functions, gradients, log_softmax_vjp, softmax
x = np.ones((3, 8), np.float32)
"""

    def doors_after(program):
        run(program, before=before, SOFTMAX_NUMBA_CACHE_DIR=tmp_path)
        return sum(file.name.startswith(f"{name}-") for file in tmp_path.rglob("*"))

    assert doors_after(call) == 0
    assert doors_after(f"{call}; {call}") == 1
    doors_after(f"functions.general = gradients._vjp = None; {call}")  # there is no other way


def test_a_second_call_has_a_door_made_where_none_can_be_kept(monkeypatch):
    monkeypatch.setattr(entering, "file_of", lambda name, given: None)
    monkeypatch.setattr(entering, "_asked_for", set())
    assert [entering.is_worth_making(*door.ENTRY) for _ in range(3)] == [False, True, True]
    assert not entering.is_worth_making(*vjp_door.ENTRY)


# --- the key ------------------------------------------------------------------------


def test_key_changes_with_every_source_file(copy, key):
    first = key(copy)
    sources = sorted(copy.rglob("*.py"))
    assert len(sources) > 20
    for path in sources:
        text = path.read_bytes()
        path.write_bytes(text + b"# a comment\n")
        assert key(copy) != first, path
        path.write_bytes(text)
        assert key(copy) == first, path


def test_key_changes_with_names_of_files(copy, key):
    first = key(copy)
    (copy / "cpu" / "new.py").touch()
    with_new_file = key(copy)
    (copy / "cpu" / "new.py").rename(copy / "new.py")
    assert len({first, with_new_file, key(copy)}) == 3


def test_key_stays_where_only_times_and_places_change(copy, key):
    for path in copy.rglob("*.py"):
        os.utime(path, (1, 1))
    (copy / "notes.txt").write_text("not a source", encoding="utf-8")
    assert key(copy) == key(PACKAGE)


@pytest.mark.parametrize(
    ("owner", "name"), [(numba, "__version__"), (llvmlite, "__version__"), (sys, "version")], ids=lambda v: str(v)[:20]
)
def test_key_changes_with_versions(owner, name, key, monkeypatch):
    first = key()
    monkeypatch.setattr(owner, name, "99.0")
    assert key() != first


def test_key_changes_with_the_cpu(tmp_path):
    found = {run(FOLDER, SOFTMAX_NUMBA_CACHE_DIR=tmp_path)[0]}
    found.add(run(FOLDER, SOFTMAX_NUMBA_CACHE_DIR=tmp_path, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[0])
    host = numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[2]
    fewer = ",".join(host.split(",")[:-1])
    found.add(run(FOLDER, SOFTMAX_NUMBA_CACHE_DIR=tmp_path, NUMBA_CPU_FEATURES=fewer)[0])
    assert len(found) == 3


def test_two_processes_begin_at_once_then_a_file_is_edited(copy, tmp_path):
    """Both are right and leave whole files, a sweep's and its caller's; the next compiles none, until an edit."""
    cache = tmp_path / "kernels"
    program = SMALL + f"assert softmax_numba.__file__.startswith({str(tmp_path)!r})\nprint(len(made))"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    how = {"cwd": tmp_path, "PYTHONPATH": path, "SOFTMAX_NUMBA_CACHE_DIR": cache}
    with ThreadPoolExecutor(2) as pool:
        counts = [job.result() for job in [pool.submit(run, program, **how) for _ in range(2)]]
    assert any(int(count) > 0 for (count,) in counts)
    assert [file.suffix for file in files(cache)] == [".kernel"] * 2
    assert run(program, **how) == ["0"]
    with (copy / "cpu" / "lane.py").open("a") as stream:
        stream.write("# a comment\n")
    assert Path(run(FOLDER, **how)[0]) != files(cache)[0].parent


def test_without_sources_nothing_is_kept(place, tmp_path, monkeypatch):
    """A frozen application: no way to tell the kernels of one version from the next."""
    compiled._key.cache_clear()
    monkeypatch.setattr(compiled, "__file__", str(tmp_path / "empty" / "cpu" / "compiled.pyc"))
    try:
        assert compiled.folder() is None
        assert not increment()[1] and not increment()[1]
    finally:
        compiled._key.cache_clear()


# --- damage -------------------------------------------------------------------------


def _checked(content):
    return hashlib.sha256(content).digest() + content


DAMAGE = {
    "empty": lambda good: b"",
    "shorter than a checksum": lambda good: good[:20],
    "truncated": lambda good: good[: len(good) // 2],
    "one bit flipped": lambda good: good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
    "wrong checksum": lambda good: bytes(32) + good[32:],
    "garbage": lambda good: os.urandom(5000),
    "no pickle": lambda good: _checked(b"not a pickle"),
    "a pickle of something else": lambda good: _checked(pickle.dumps({"a": 1})),
    "a pickle of a missing module": lambda good: _checked(b"cnosuchmodule\nf\n."),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_ignored_and_replaced(damage, place):
    increment()
    (file,) = files(place)
    file.write_bytes(DAMAGE[damage](file.read_bytes()))
    dispatcher, found = increment()
    assert not found
    assert dispatcher(2.0) == 3.0
    assert files(place) == [file]
    assert increment()[1]


def test_folder_in_the_files_place(place):
    increment()
    (file,) = files(place)
    file.unlink()
    (file / "inside").mkdir(parents=True)
    dispatcher, found = increment()
    assert not found and dispatcher(2.0) == 3.0
    assert files(place) == []


def test_full_disk_leaves_nothing_behind(place, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("replace", "fdopen"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            dispatcher, _ = increment()
        assert dispatcher(2.0) == 3.0
        assert files(place) == []
    assert not increment()[1]
    assert increment()[1]
