"""What can be proven of the GPU's side without one: the kernels in Numba's simulator, and what they compile to."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import attempt, run

import softmax_numba

pytest.importorskip("numba_cuda", reason='needs pip install "softmax-numba[cuda]"')

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(path.name for path in HERE.glob("simulated_*.py")))
def test_in_the_simulator(file):
    """In a process of its own: what numba.cuda is, is settled when it is imported."""
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=env, cwd=HERE.parent)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


# --- compiled without a GPU -----------------------------------------------------------------

TABLE = "import sys; from softmax_numba.gpu.__main__ import main; sys.exit(main(sys.argv[1:] or {!r}.split()))"


def table(arguments):
    """The rows that the command prints, as words."""
    done = attempt(TABLE.format(arguments), python=(), timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1][-3:] == ["0", "at", "fault"]
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1:-1]]


def test_every_plan_compiles_without_a_spill():
    """float32 softmax for sm_90; CONTRIBUTING.md has the command for all dtypes and architectures."""
    rows = table("--arch sm_90 --dtype float32 --operation softmax")
    kernels = {row["kernel"].partition("/")[0] for row in rows}
    assert kernels == {"several", "warp", "block", "shared", "cluster", "online", "survey", "finish", "columns"}
    assert all(row["spill"] == "0" and int(row["regs"]) <= 65536 // int(row["threads"]) for row in rows)
    vectors = [row for row in rows if row["access"] == "vectors" and row["kernel"].startswith(("warp", "block"))]
    assert vectors and all(int(row["ld16"]) and int(row["st16"]) for row in vectors)


@pytest.mark.parametrize(
    "arguments",
    [
        "--arch sm_80 --dtype bfloat16 --operation log_softmax --sweep block --access realigned",
        "--arch sm_90 --dtype float16 --operation logsumexp --sweep warp online --access vectors",
        "--arch sm_90 --dtype float64 --operation log_softmax --sweep warp shared --access elements",
        "--arch sm_90 --dtype float32 --operation softmax --sweep block --masks --access vectors",
        "--arch sm_90 --dtype float32 --operation cross_entropy_and_grad --sweep block --access elements",
        "--arch sm_80 --dtype bfloat16 --operation cross_entropy --sweep several warp --access vectors",
        "--arch sm_80 --dtype float16 --operation cross_entropy_and_grad --sweep columns --access elements",
        "--arch sm_80 --dtype bfloat16 --operation softmax --sweep online --access realigned",
    ],
)
def test_kernels_of_other_dtypes(arguments):
    """One way to reach values each, of three; CONTRIBUTING.md has the command for all."""
    assert table(arguments)


def test_copies_and_temperatures_compile():
    program = """
    from softmax_numba.gpu import copies, launch, seam, temperatures
    from softmax_numba.gpu.arguments import Arguments
    from softmax_numba.gpu.copies import Copy
    for source, target in (("int32", "float64"), ("bool", "bool"), ("float64", "bfloat16"), ("float16", "float32")):
        kernel = launch.Kernel(copies.copy(source, target), (), "float32", Copy, None)
        assert "0 bytes spill stores" in seam.compiled(kernel.function, launch.signature(kernel), "sm_80", 256).log
    kernel = launch.Kernel(temperatures.temper("float64", "float32"), (), "float32", Arguments)
    assert "0 bytes spill stores" in seam.compiled(kernel.function, launch.signature(kernel), "sm_80", 128).log
    """
    assert attempt(program, python=(), timeout=120).returncode == 0


def test_what_losses_need_besides_compiles():
    """Without a spill, and without float64 beside the lanes of narrower dtypes."""
    program = """
    from softmax_numba.gpu import launch, loss_dense, loss_held, loss_sums, losses, seam
    from softmax_numba.gpu.loss_terms import Kind
    from softmax_numba.gpu.arguments import Arguments
    from softmax_numba.gpu.copies import Copy
    def compiled(function, kind, arguments, numbers):
        kernel = launch.Kernel(function, (), kind, arguments, numbers)
        code = seam.compiled(function, launch.signature(kernel), "sm_80", 256)
        assert "0 bytes spill stores" in code.log and ".local" not in code.ptx
        return code.ptx
    compiled(loss_sums.encode("uint64"), "int64", Copy, loss_sums.Classes)
    compiled(loss_sums.weigh("float32"), "float32", Arguments, None)
    compiled(loss_sums.gauge("float32"), "float64", Arguments, loss_sums.Call)
    compiled(loss_sums.lose("float32", None, False), "float64", Arguments, loss_sums.Call)
    compiled(loss_sums.lose("float64", "bfloat16", True), "float64", Arguments, loss_sums.Call)
    compiled(loss_sums.conclude("float16"), "float64", Arguments, None)
    def lanes(kernel):
        assert ".f64" not in compiled(kernel.function, kernel.kind, kernel.arguments, kernel.numbers)
    lanes(losses.dense_kernel(loss_dense.Shape(Kind("float16", "float32", True, True), True, 32, False)))
    lanes(losses.held_kernel("warp", loss_held.Shape(Kind("float32", None, False, True), True, 2, 32, "realigned")))
    """
    assert attempt(program, python=(), timeout=120).returncode == 0


def test_the_command_fails_where_a_kernel_is_at_fault():
    program = """
    from softmax_numba.gpu import table
    from softmax_numba.gpu.__main__ import main
    made, some = table.compiled, table.specimens
    table.specimens = lambda *how: [next(some(*how))]
    table.compiled = lambda job: made(job)._replace(spilled=8, wide=3, loads=0)
    print(main("--arch sm_90 --dtype float32 --operation softmax --sweep warp".split()))
    """
    lines = attempt(program, python=(), timeout=120).stdout.splitlines()
    assert lines[-1] == "1"
    for words in ("8 bytes of local memory", "3 float64 instructions", "no 16-byte load"):
        assert any(words in line for line in lines)


# --- plans: a pure function -------------------------------------------------------------------

PLANS = """
from softmax_numba.gpu.plan import plan, H100, A100
def sweep(lanes, length, itemsize=4, device=H100, **how):
    usual = dict(side_by_side=True, aligned=True, lean=True, one_number=False, neighbours=1)
    return plan(lanes, length, itemsize=itemsize, device=device, **{**usual, **how})
"""


def test_plans():
    program = """
    many = 10**6
    for length, expected in ((16, "several"), (32, "several"), (200, "warp"), (1024, "warp"), (1025, "block"),
                             (32768, "block"), (50000, "shared"), (100000, "cluster"), (262144, "cluster"),
                             (300000, "online")):
        assert sweep(many, length).sweep == expected, (length, sweep(many, length))
    assert sweep(many, 100000, device=A100).sweep == "online"
    assert sweep(many, 100000, itemsize=2).sweep == "shared"
    assert sweep(many, 100000, one_number=True).sweep == "online"
    assert sweep(8, 151936).sweep == sweep(1, 2**24).sweep == "split"
    assert sweep(many, 100, side_by_side=False, neighbours=4096).sweep == "columns"
    assert sweep(many, 100, aligned=False).access == "realigned"
    back = {"inputs": 2, "lean": False}
    for length, expected in ((8192, "block"), (8193, "cluster"), (65536, "cluster"), (65537, "online")):
        assert sweep(many, length, **back).sweep == expected, (length, sweep(many, length, **back))
    assert sweep(many, 10000, device=A100, **back).sweep == "online"
    assert sweep(8, 151936, **back).sweep == "split"
    assert sweep(many, 100, side_by_side=False, neighbours=4096, **back).sweep == "columns"
    tight = {"device": A100, "losses": True, "lean": False}
    assert sweep(many, 10000, **tight).sweep == "block" and sweep(many, 8192, aligned=False, **tight).sweep == "block"
    assert sweep(many, 10000, aligned=False, **tight).sweep == "shared"
    assert sweep(many, 100, side_by_side=False, neighbours=4096, **tight).sweep == "columns"
    assert sweep(many, 10, aligned=False).access == sweep(many, 100, side_by_side=False).access == "elements"
    """
    run(program, before=PLANS)


def test_a_plan_holds_the_lane():
    """Whatever the plan, its segments cover the lane, its list has room and its blocks can be launched."""
    program = """
    for itemsize in (2, 4, 8):
        for device in (H100, A100):
            for lanes in (1, 8, 1000, 10**6):
                for length in [*range(1, 70), *(2**k + d for k in range(7, 31) for d in (-1, 0, 1))]:
                    two = {"inputs": 2, "lean": False}
                    usual = {}, {"aligned": False}, {"side_by_side": False}, {"lean": False}, {"one_number": True}
                    for how in (*usual, two, {**two, "aligned": False}):
                        p = sweep(lanes, length, itemsize, device, **how)
                        tile = p.threads * p.vectors * 16 // itemsize
                        assert p.segments * p.tiles * tile >= length > (p.segments - 1) * p.tiles * tile
                        assert p.segments <= 1024 and p.block <= 1024 and p.shared <= device.shared
                        assert p.grid(lanes) * p.block >= lanes
                        assert p.vectors * 16 // itemsize <= 32  # a bit of the mask's word for each
                        if p.sweep in ("block", "cluster"):
                            assert p.blocks * p.block // 32 >= p.segments and p.tiles == 1
    """
    run(program, before=PLANS)


# --- without a GPU ----------------------------------------------------------------------------


class OnCuda:
    shape, dtype = (2,), np.dtype(np.float32)

    def __dlpack_device__(self):
        return 2, 0

    def __dlpack__(self, **how):
        raise AssertionError("an array on a GPU must not be exported to the host")


def test_without_a_device():
    from softmax_numba.gpu import usable

    if usable():
        pytest.skip("there is a GPU")
    with pytest.raises(TypeError, match=r'pip install "softmax-numba\[cuda\]", which is installed.* driver'):
        softmax_numba.softmax(OnCuda())


def test_importing_the_package_imports_nothing_of_cuda():
    program = """
    import sys, softmax_numba, numpy
    softmax_numba.softmax(numpy.ones((2, 3)))
    assert not [name for name in sys.modules if name.startswith(("numba_cuda", "softmax_numba.gpu", "cuda."))]
    """
    run(program)
