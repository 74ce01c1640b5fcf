"""What reaches the CUDA driver: a driver that runs nothing writes down what it is asked for (``gpu_driver.c``)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import run

pytest.importorskip("numba_cuda", reason='needs pip install "softmax-numba[cuda]"')

ARRAYS = """
import numpy as np
import softmax_numba
stream = None
class Library:
    float32, float64, uint8 = np.dtype("f4"), np.dtype("f8"), np.dtype("u1")
    empty = staticmethod(lambda shape, *, dtype, device: Gpu(np.empty(shape, dtype)))
class Gpu:
    device = 0
    def __init__(self, values):
        self.values, self.dtype, self.shape = values, values.dtype, values.shape
    def __array_namespace__(self):
        return Library
    def __dlpack_device__(self):
        return 2, 0
    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "strides": self.values.strides, "typestr": self.dtype.str, "version": 3,
                "data": (self.values.ctypes.data, False), "stream": stream}
def many(lanes, length):  # whose memory nobody touches
    return Gpu(np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (lanes, length), (4 * length, 4)))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """`driver(program)`: the lines that the driver writes, as words."""
    folder = tmp_path_factory.mktemp("driver")
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler on Linux")
    source = Path(__file__).parent / "gpu_driver.c"
    library = folder / "libcuda.so.1"
    count = "from softmax_numba.gpu.arguments import Arguments; print(len(Arguments._fields))"
    (integers,) = run(count, python=())
    subprocess.run([compiler, "-shared", "-fPIC", f"-DINTEGERS={integers}", "-o", library, source, "-ldl"], check=True)

    def drive(program, **env):
        log = folder / "log"
        log.write_text("")
        run(program, before=ARRAYS, python=(), timeout=120, LD_LIBRARY_PATH=folder, GPU_DRIVER_LOG=log, **env)
        return [line.split() for line in log.read_text().splitlines()]

    return drive


def launches(lines):
    """Grid, block, shared memory, stream, cluster; the integers and the floats that the kernel is given."""
    found = [words[1:] for words in lines if words[0] == "launch"]
    return [
        ([int(n) for n in words[:5]], [int(n) for n in words[5:-4]], [float(n) for n in words[-4:]]) for words in found
    ]


def test_numbers(driver):
    """Every argument where the kernel looks for it, on the stream of the caller's array."""
    lines = driver(
        """
        x, out = Gpu(np.zeros((3, 100), np.float32)), Gpu(np.zeros((100, 3), np.float32).T)
        stream = 2**40 + 16
        softmax_numba.softmax(x, out=out, temperature=0.5)
        print(x.values.ctypes.data, out.values.ctypes.data)
        """
    )
    ((how, integers, floats),) = launches(lines)
    assert how == [1, 128, 0, 2**40 + 16, 1] and ["load", "1"] in lines
    assert integers[2:17] == [0, 0, 0, 3, 1, 100, 1, 1, 1, 400, 0, 4, 4, 0, 12] and not any(integers[17:])
    assert floats == pytest.approx([2.8853900, 0.34657359, -9.5232e-10, 2.0], rel=1e-3)


def test_float64(driver):
    program = "softmax_numba.softmax(Gpu(np.zeros((3, 100))))"
    ((_, _, floats),) = launches(driver(program, GPU_DRIVER_DOUBLE=1))
    assert floats[0] == pytest.approx(1.4426950408889634, rel=1e-15) and floats[3] == 1.0


def test_clusters_and_shared_memory(driver):
    """The grid counts blocks; a kernel that wants more than 48 KB opts in to all but its own."""
    lines = driver(
        """
        for lanes, length in ((300, 100_000), (300, 50_000)):
            x = many(lanes, length)
            softmax_numba.softmax(x, out=x)
        """
    )
    (clusters, *_), (shared, *_) = launches(lines)
    assert clusters == [1200, 800, 0, 0, 4]
    assert shared[:2] == [300, 512] and shared[2] > 48 * 1024 and shared[4] == 1
    assert [words for words in lines if words[0] == "attribute"] == [["attribute", "8", str(232448 - 1000)]]


def test_uploads(driver):
    """Masks of lists, and the results of lanes of no values, one by one where they lie apart."""
    lines = driver(
        """
        softmax_numba.softmax(Gpu(np.zeros((3, 100), np.float32)), where=[True] * 100)
        softmax_numba.logsumexp(Gpu(np.zeros((3, 0), np.float32)))
        softmax_numba.logsumexp(Gpu(np.zeros((3, 0), np.float32)), out=Gpu(np.zeros(6, np.float32)[::2]))
        """
    )
    assert [words[1] for words in lines if words[0] == "upload"] == ["100", "12", "4", "4", "4"]


def test_kernels_that_came_along(driver, tmp_path):
    """What ``--keep`` left is loaded by a process with a cache of its own, which compiles nothing."""
    command = ["--arch", "sm_90", "--dtype", "float32", "--operation", "softmax", "--sweep", "warp"]
    kept = f"from softmax_numba.gpu.__main__ import main; main({[*command, '--keep', str(tmp_path)]!r})"
    (told,) = run(kept, python=(), timeout=120)
    assert told.startswith("12 kernels, ")
    lines = driver(
        """
        from softmax_numba.gpu import seam
        def compiled(*arguments):
            raise AssertionError("compiles")
        seam.compiled = compiled
        for length in (65, 200, 400, 1024):
            softmax_numba.softmax(Gpu(np.zeros((3, length), np.float32)))
        """,
        SOFTMAX_NUMBA_KERNELS=tmp_path,
        SOFTMAX_NUMBA_CACHE_DIR="",
    )
    assert len(launches(lines)) == 4


def test_the_cache_is_carried_too(tmp_path):
    """A kernel that the cache has already is left in the folder all the same, and found there without the cache."""
    program = """
    from softmax_numba.gpu import kept
    {}
    print(kept.find(("a", 1.5), "sm_90", 128), kept.find(("a", 1.5), "sm_90", 256))
    """
    cache, folder = tmp_path / "cache", tmp_path / "folder"
    keeps = program.format('kept.keep(("a", 1.5), "sm_90", 128, "name", b"\\0code")')
    expected = ["('name', b'\\x00code') None"]
    assert run(keeps, SOFTMAX_NUMBA_CACHE_DIR=cache) == expected
    assert run(program.format(""), SOFTMAX_NUMBA_CACHE_DIR=cache, SOFTMAX_NUMBA_KERNELS=folder) == expected
    assert run(program.format(""), SOFTMAX_NUMBA_CACHE_DIR="", SOFTMAX_NUMBA_KERNELS=folder) == expected
    assert run(program.format(""), SOFTMAX_NUMBA_CACHE_DIR="") == ["None None"]
