"""The user's own array, and every other request: refused in one line that names the value and what is allowed."""

import io
import os
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

from softmax_numba.bench.requests import RequestError, check_seed, check_threads, choose, load_array, writable_folder


def refused(message, function, *arguments, **options):
    with pytest.raises(RequestError) as caught:
        function(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(message, text), text


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "bool", ">f4", ">i2"])
def test_arrays_come_back_in_native_order_and_their_own_layout(tmp_path, dtype, order):
    array = np.array(np.arange(24).reshape(2, 3, 4) % 2, dtype=dtype, order=order)
    np.save(tmp_path / "x.npy", array)
    loaded = load_array(tmp_path / "x.npy")
    assert np.array_equal(loaded, array)
    assert loaded.dtype == array.dtype.newbyteorder("=")
    assert loaded.dtype.isnative
    assert loaded.flags.f_contiguous == (order == "F")
    assert loaded.flags.writeable
    assert type(loaded) is np.ndarray


def test_bfloat16_survives_numpys_format(tmp_path):
    array = np.arange(6).astype(ml_dtypes.bfloat16).reshape(2, 3)
    np.save(tmp_path / "x.npy", array)
    loaded = load_array(tmp_path / "x.npy")
    assert loaded.dtype == ml_dtypes.bfloat16
    assert np.array_equal(loaded.view(np.uint16), array.view(np.uint16))


def test_archive_with_one_array_needs_no_key(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", logits=np.ones((2, 2)))
    assert load_array(tmp_path / "x.npz").shape == (2, 2)
    assert load_array(tmp_path / "x.npz", "logits").shape == (2, 2)


def test_archive_with_several_arrays(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones(2), b=np.ones(3))
    assert load_array(path, "b").shape == (3,)
    refused(r"needs --key; it holds: a, b", load_array, path)
    refused(r"has no array --key c; it holds: a, b", load_array, path, "c")


def test_the_name_of_the_file_does_not_matter(tmp_path):
    with (tmp_path / "logits.bin").open("wb") as file:
        np.save(file, np.ones(3))
    assert load_array(tmp_path / "logits.bin").shape == (3,)


def raw(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


BAD_FILES = {
    "empty file": (b"", "not a NumPy file"),
    "text": (b"1,2,3\n", r"not a NumPy file; allowed: .npy or .npz"),
    "pickle": (pickle.dumps([1, 2, 3]), "not a NumPy file; allowed: .npy or .npz, without pickles"),
    "objects": (raw(np.array([1, "a"], object), allow_pickle=True), "Python objects"),
    "objects in archive": (archive(a=np.array([{}], object)), "Python objects"),
    "truncated": (raw(np.ones(1000))[:500], "damaged"),
    "header only": (b"\x93NUMPY\x01\x00", "damaged"),
    "bad header": (b"\x93NUMPY\x01\x00\x10\x00{'descr': nonsens", "damaged"),
    "unknown version": (b"\x93NUMPY\x09\x00" + raw(np.ones(3))[8:], "damaged"),
    "truncated archive": (archive(a=np.ones(1000))[:200], "damaged"),
    "archive with bad sum": (archive(a=np.ones(1000)).replace(b"\x3f" * 1, b"\x40", 5), "damaged"),
    "archive of text": (archive()[:0] + b"PK\x05\x06" + b"\0" * 18, "not a NumPy file"),
    "0-d": (raw(np.array(1.0)), "0-d array; allowed: at least one dimension"),
    "no element": (raw(np.ones((3, 0))), r"shape \(3, 0\), no element"),
    "complex": (raw(np.ones(3, complex)), "dtype complex128; allowed: float16, bfloat16"),
    "string": (raw(np.array(["a"])), "dtype <U1; allowed"),
    "dates": (raw(np.array(["2020-01-01"], "M8[D]")), r"dtype datetime64\[D\]; allowed"),
    "record": (raw(np.zeros(2, [("a", "f4")])), "allowed: float16"),
    "longdouble": (raw(np.ones(3, np.longdouble)), "allowed: float16"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(tmp_path, name):
    content, message = BAD_FILES[name]
    if name == "longdouble" and np.dtype(np.longdouble).itemsize == 8:
        pytest.skip("longdouble is float64 here")
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    refused(message, load_array, path)
    refused(re.escape(str(path)), load_array, path)


def test_no_pickle_is_ever_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    (tmp_path / "a.npy").write_bytes(raw(np.array([Trap()], object), allow_pickle=True))
    (tmp_path / "b.npz").write_bytes(archive(a=np.array([Trap()], object)))
    for name in ("a.npy", "b.npz"):
        refused("Python objects", load_array, tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_missing_file_and_folder(tmp_path):
    refused("does not exist; allowed: a .npy or .npz file", load_array, tmp_path / "none.npy")
    refused("cannot be read: Is a directory", load_array, tmp_path)


def test_key_without_archive(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    refused("--key a has no meaning", load_array, tmp_path / "x.npy", "a")


def test_threads():
    assert check_threads(None, 8) == 8
    assert check_threads(3, 8) == 3
    for threads in (0, -1, 9):
        refused(f"--threads {threads} is out of range; allowed here: 1 to 8", check_threads, threads, 8)


def test_seed():
    assert check_seed(0) == 0
    refused("--seed -1 is negative; allowed: 0 and above", check_seed, -1)


def test_names():
    assert choose("op", ["b", "a", "b"], ["a", "b", "c"]) == ("a", "b")
    refused("unknown op 'd'; known: a, b, c", choose, "op", ["a", "d"], ["a", "b", "c"])
    refused("no op given; known: a", choose, "op", [], ["a"])


def test_folder_is_made_with_its_parents(tmp_path):
    assert writable_folder(tmp_path / "a" / "b").is_dir()
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("mine")
    refused("is a file; allowed: a folder", writable_folder, tmp_path / "f")
    refused("cannot be written", writable_folder, tmp_path / "f" / "below")
    assert (tmp_path / "f").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    refused("Permission denied", writable_folder, tmp_path / "new")
    refused("Permission denied", writable_folder, tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a file system that refuses even root")
def test_folder_that_the_system_refuses():
    refused("cannot be written", writable_folder, __import__("pathlib").Path("/proc/report"))
