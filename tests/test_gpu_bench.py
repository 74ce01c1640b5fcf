"""What ``make gpu`` does, without a GPU: its stages, and the benchmark on PyTorch's CPU tensors by the host's clock."""

import json
import sys

import pytest

from softmax_numba.bench import gpu, gpu_cells, gpu_measure
from softmax_numba.bench.gpu_stages import Stage, State, run_stage, stages
from softmax_numba.bench.results import read


def test_cells():
    """Every workload once in every op and dtype; long rows move a gigabyte; softmax of common dtypes comes first."""
    cells = gpu_cells.tasks()
    assert len({cell.key for cell in cells}) == len(cells) == 18 * 5 * 4 + 2 * 2 * (6 + 4)
    assert {cell.op for cell in cells[36:60]} == set(gpu_cells.LOSSES)
    liger = next(cell for cell in cells if cell.op == "cross_entropy_and_grad")
    assert (liger.shape, liger.dtype) == ((8192, 131072), "bfloat16")
    assert gpu_measure._bytes(liger) == (2**31 + 8 * 8192, 2**31 + 2)
    for cell in cells:
        if cell.workload.startswith("rows") and cell.op == "softmax":
            read_bytes, written = gpu_measure._bytes(cell)
            assert 0.95e9 < read_bytes + written <= 1e9
    assert {cell.op for cell in cells[:36]} == {"softmax"}


def stage(code, seconds=20.0, **how):
    return Stage("one", (sys.executable, "-c", code), seconds, **how)


@pytest.mark.parametrize(
    ("given", "status", "detail"),
    [
        (stage("print('=== 3 passed ===')"), "done", "3 passed"),
        (stage("import sys; print('no kernel'); sys.exit(3)"), "failed", "exit status 3; no kernel"),
        (stage("import time; time.sleep(60)", 1.0), "out of time", "more than 1 s"),
        (stage("", missing="cupy is not installed"), "not possible", "cupy is not installed"),
        (Stage("one", ("/no/such/program",), 5), "failed", "No such file"),
    ],
)
def test_how_a_stage_ends(tmp_path, given, status, detail):
    good = run_stage(given, State.of(tmp_path))
    kept = json.loads((tmp_path / "stages.json").read_text())["one"]
    assert good == (status in ("done", "not possible")) and kept["status"] == status and detail in kept["detail"]
    assert State.of(tmp_path).is_done("one") == (status == "done")


def test_a_stage_that_dies_is_begun_again(tmp_path):
    """As often as it may: the benchmark goes on behind the cell that it died in."""
    code = (
        f"import os, pathlib; p = pathlib.Path({str(tmp_path / 'tries')!r}); t = p.exists(); p.touch(); t or os.abort()"
    )
    assert not run_stage(stage(code), State.of(tmp_path))
    (tmp_path / "tries").unlink()
    assert run_stage(stage(code, attempts=2), State.of(tmp_path))


def test_stages_that_were_done_are_left_out(tmp_path, monkeypatch):
    ran = []
    found = [Stage("first", ("true",), 5), Stage("second", ("true",), 5)]
    monkeypatch.setattr(gpu, "stages", lambda *how: found)
    monkeypatch.setattr(gpu, "run_stage", lambda stage, state: ran.append(stage.name) or stage.name == "first")
    State.of(tmp_path).keep("first", "done", 1.0, "")
    out = ["--out", str(tmp_path)]
    assert gpu.main([*out, "--resume"]) == 1 and ran == ["second"]
    assert gpu.main([*out, "--stages", "first"]) == 0 and gpu.main(out) == 1
    assert ran == ["second", "first", "first", "second"]


def test_every_stage_has_a_limit_and_files(tmp_path):
    for found in stages(tmp_path, 300, rehearse=False):
        assert 0 < found.seconds <= 600
        files = [word for word in found.command if word.endswith(".py")]
        assert all((tmp_path / file).exists() for file in files)


@pytest.fixture
def few(monkeypatch):
    """Rows, one number a lane, a way back along an inner axis, losses of more rows than are judged and of columns."""
    pytest.importorskip("torch")

    def task(op, dtype, shape, axis, kind="throughput"):
        return gpu_cells.Task(f"{op}-{dtype}", "title", "reason", shape, axis, kind, op, dtype)

    chosen = (
        task("softmax", "float32", (30, 500), -1),
        task("logsumexp", "bfloat16", (1, 1000), -1, "latency"),
        task("log_softmax_vjp", "float64", (4, 30, 8), 1),
        task("cross_entropy_and_grad", "bfloat16", (40, 500), -1),
        task("cross_entropy", "float32", (2, 30, 5, 8), 1),
    )
    monkeypatch.setattr(gpu, "tasks", lambda *how, **more: chosen)
    monkeypatch.setattr(gpu_measure, "JUDGED", 2**13)
    monkeypatch.setattr(gpu, "_REHEARSED_STEP", 1)
    return chosen


def test_benchmark(tmp_path, few):
    """The results are of the report's schema, its page can be written of them, and a second run adds nothing."""
    pytest.importorskip("matplotlib")
    from softmax_numba.report.folder import write_all

    assert gpu.main(["--out", str(tmp_path), "--only", "benchmark", "--rehearse"]) == 0
    results = read(tmp_path / "results.json")
    assert results.state == "complete" and [(c.op, c.dtype) for c in results.cells] == [(t.op, t.dtype) for t in few]
    for cell in results.cells:
        assert cell.ours.status == cell.named("torch").status == "ok" and len(cell.ours.seconds) == 3
        assert cell.ours.accuracy.values > 0 and cell.ours.accuracy.max_ulp < 8
        assert cell.named("cupy").status == "unsupported"
        assert (cell.named("copy") is not None) == (cell.kind == "throughput")
    before = [cell.ours.seconds for cell in results.cells]
    assert gpu.main(["--out", str(tmp_path), "--only", "benchmark", "--rehearse"]) == 0
    assert [cell.ours.seconds for cell in read(tmp_path / "results.json").cells] == before
    assert gpu.main(["--out", str(tmp_path), "--only", "table"]) == 0
    table = (tmp_path / "gpu.md").read_text()
    assert "softmax 30 × 500 float32" in table and "log_softmax_vjp 4 × 30 × 8, axis 1 float64" in table
    write_all(tmp_path, results)
    assert (tmp_path / "index.html").stat().st_size > 1000


def test_a_cell_that_took_the_process_with_it(tmp_path, few, monkeypatch):
    """It stays failed, the others are measured, and the exit status says it."""
    measured = []

    def measure(task, *how):
        if task is few[0]:
            raise SystemExit
        measured.append(task)
        return gpu_measure.measure(task, *how)

    monkeypatch.setattr(gpu, "measure", measure)
    how = ["--out", str(tmp_path), "--only", "benchmark", "--rehearse"]
    with pytest.raises(SystemExit):
        gpu.main(how)
    assert gpu.main(how) == 1 and measured == list(few[1:])
    first = read(tmp_path / "results.json").cells[0].ours
    assert first.status == "failed" and "never ended" in first.reason


def test_wrong_losses_show(tmp_path, few, monkeypatch):
    """Of rows that are judged, and of the mean over those that are not."""
    import softmax_numba

    right = softmax_numba.cross_entropy_and_grad

    def without_the_middle(x, targets, axis, out):
        x = x.clone()
        x[10:30] = 0
        return right(x, targets, axis, out=out)

    for wrong in (lambda x, *how, out: right(2 * x, *how, out=out), without_the_middle):
        monkeypatch.setattr(softmax_numba, "cross_entropy_and_grad", wrong)
        cell = gpu_measure.measure(few[3], gpu.TorchDevice("cpu"), 1)
        assert cell.ours.accuracy.max_ulp > 8, cell.ours


def test_wrong_results_show(tmp_path, few, monkeypatch):
    import softmax_numba

    right = softmax_numba.softmax
    monkeypatch.setattr(softmax_numba, "softmax", lambda x, axis, out: right(2 * x, axis, out=out))
    assert gpu.main(["--out", str(tmp_path), "--only", "benchmark", "--rehearse"]) == 1
    assert read(tmp_path / "results.json").cells[0].ours.status == "wrong"
