"""The report command from request to files: what is measured is kept, whatever goes wrong on the way."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
rich_console = pytest.importorskip("rich.console")

from report_cases import TINY, fake_peer  # noqa: E402

from softmax_numba.bench import peers, run  # noqa: E402
from softmax_numba.bench.processes import ProcessCost  # noqa: E402
from softmax_numba.bench.results import read  # noqa: E402
from softmax_numba.bench.workloads import select  # noqa: E402
from softmax_numba.cli import main  # noqa: E402
from softmax_numba.report import command  # noqa: E402
from softmax_numba.report.drawing import QUESTIONS  # noqa: E402

FILES = {"results.json", "results.csv", "summary.md", "index.html", "figures"}
NAMES = ("speed", "bandwidth", "accuracy", "tradeoff", "latency", *(n for n in QUESTIONS if n.startswith("explained")))
PICTURES = {f"{name}.{ending}" for name in NAMES for ending in ("svg", "png")}


@pytest.fixture
def console():
    return rich_console.Console(file=io.StringIO(), width=200)


def request(tmp_path, **options):
    defaults = {"workloads": ["single-1x10"], "peers": ["numpy"]}
    return command.Request(out=tmp_path / "out", command="softmax-numba report", **(defaults | options))


def report(tmp_path, console, *, extra_peers=(), **options):
    prepared = command.prepare(request(tmp_path, **options), effort=TINY)
    plan = replace(prepared.plan, peers=(*prepared.plan.peers, *extra_peers))
    code = command.execute(replace(prepared, plan=plan), console)
    return code, console.file.getvalue()


@pytest.fixture
def registry(monkeypatch):
    """Put made-up peers into the registry."""

    def add(*extra):
        monkeypatch.setattr(peers, "PEERS", peers.PEERS | {peer.name: peer for peer in extra})
        return extra

    return add


def test_a_whole_report(tmp_path, console):
    array = tmp_path / "logits.npy"
    np.save(array, np.random.default_rng(0).normal(size=(80, 70)).astype(np.float32))
    code, text = report(
        tmp_path, console, input=array, axis=0, workloads=["single-3x7"], peers=["numpy", "scipy"], dtypes=["float32"]
    )
    out = tmp_path / "out"
    assert code == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert {path.name for path in (out / "figures").iterdir()} == PICTURES
    for path in (out / "figures").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    results = read(out / "results.json")
    assert results.state == "complete"
    assert results.finished >= results.started
    assert [(c.workload, c.op) for c in results.cells] == [
        (name, op) for name in ("your-array", "single-3x7") for op in ("softmax", "log_softmax", "logsumexp")
    ]
    assert results.input == {"file": str(array), "key": None, "shape": [80, 70], "dtype": "float32", "axis": 0}
    own = results.cells[0]
    assert {m.name for m in own.measurements} == {"softmax-numba", "numpy", "scipy", "copy", "streaming copy"}
    assert all(len(m.seconds) == 2 and min(m.seconds) > 0 for m in own.measurements)
    assert all(m.accuracy.max_ulp < 100 for m in own.measurements if m.role != "bound")
    rows = list(csv.DictReader((out / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == sum(len(cell.measurements) for cell in results.cells)

    lines = text.splitlines()
    assert sum(line.startswith("[") for line in lines) == results.planned == 6
    assert lines[-1] == f"report: {out / 'index.html'}"
    assert "vs NumPy" in text
    assert "logits.npy" in (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("stops_after", [1, 4])
def test_interrupted_run_keeps_what_it_measured(tmp_path, console, registry, stops_after):
    begun = set()

    def interrupts(job):
        begun.add((id(job.x), job.op))
        if len(begun) > stops_after:
            raise KeyboardInterrupt
        np.copyto(job.out, 0)

    extra = registry(fake_peer("stopper", interrupts))
    code, text = report(tmp_path, console, extra_peers=extra, workloads=["single-1x10", "single-3x7"])
    out = tmp_path / "out"
    assert code == command.INTERRUPTED
    results = read(out / "results.json")
    assert (results.state, len(results.cells), results.planned) == ("interrupted", stops_after, 6)
    assert {path.name for path in out.iterdir()} == FILES
    said = f"{stops_after} of 6 cells were measured"
    assert f"interrupted: {said}" in text
    for name in ("index.html", "summary.md"):
        assert re.search(f"[Ii]nterrupted.*{said}", (out / name).read_text(encoding="utf-8"), re.DOTALL)


def test_interrupted_before_anything_was_measured(tmp_path, console, monkeypatch):
    def interrupts(threads):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "start_threads", interrupts)
    code, text = report(tmp_path, console)
    assert code == command.INTERRUPTED
    assert "nothing was written" in text
    assert list((tmp_path / "out").iterdir()) == []


def test_json_is_there_after_each_cell(tmp_path, console, registry):
    seen = []

    def looks(job):
        path = tmp_path / "out" / "results.json"
        seen.append(len(json.loads(path.read_text())["cells"]) if path.exists() else 0)
        np.copyto(job.out, 0)

    report(tmp_path, console, extra_peers=registry(fake_peer("looker", looks)))
    assert seen == sorted(seen)
    assert set(seen) == {0, 1, 2}


def test_a_crash_leaves_the_measured_cells(tmp_path, console, monkeypatch):
    measure = run.measure

    def crashes(plan, **options):
        cells = measure(plan, **options)
        yield next(cells)
        yield next(cells)
        raise MemoryError

    monkeypatch.setattr(run, "measure", crashes)
    with pytest.raises(MemoryError):
        report(tmp_path, console)
    results = read(tmp_path / "out" / "results.json")
    assert (results.state, len(results.cells)) == ("running", 2)


def test_missing_peer_is_named_and_is_no_error(tmp_path, console, registry):
    registry(fake_peer("absent", lambda job: None, module="no_such_module_anywhere"))
    code, text = report(tmp_path, console, peers=["numpy", "absent"], ops=["softmax"])
    assert code == 0
    assert "Absent (absent is not installed)" in text
    results = read(tmp_path / "out" / "results.json")
    assert [c.missing for c in results.contenders] == [None, None, "absent is not installed"]
    for name in ("index.html", "summary.md"):
        assert "Absent took no part: absent is not installed" in (tmp_path / "out" / name).read_text(encoding="utf-8")


def test_wrong_peer_is_shown_as_wrong_not_as_fast(tmp_path, console, registry):
    extra = registry(fake_peer("liar", lambda job: np.copyto(job.out, 0.25)))
    code, _ = report(tmp_path, console, extra_peers=extra, ops=["softmax"])
    assert code == 0
    (cell,) = read(tmp_path / "out" / "results.json").cells
    liar = cell.named("liar")
    assert liar.status == "wrong"
    assert "off by" in liar.reason
    assert cell.speed_ratio("liar") is None


@pytest.mark.parametrize(
    ("run_peer", "reason"),
    [
        (lambda job: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda job: None, "nan"),
    ],
)
def test_a_peer_that_fails_or_computes_nothing(tmp_path, console, registry, run_peer, reason):
    extra = registry(fake_peer("broken", run_peer))
    code, _ = report(tmp_path, console, extra_peers=extra, ops=["softmax"])
    assert code == 0
    (cell,) = read(tmp_path / "out" / "results.json").cells
    assert cell.named("broken").status in ("failed", "wrong")
    assert reason in cell.named("broken").reason
    assert cell.speed_ratio("numpy") is not None


def test_unsupported_cells_say_why(tmp_path, console):
    code, _ = report(tmp_path, console, dtypes=["bfloat16"], ops=["softmax"])
    assert code == 0
    (cell,) = read(tmp_path / "out" / "results.json").cells
    assert cell.named("numpy").status == "unsupported"
    assert "NumPy has no bfloat16" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_our_own_wrong_result_is_an_error_of_the_run(tmp_path, console, monkeypatch):
    lies = replace(peers.OURS, bind=lambda job: lambda: np.copyto(job.out, 0.25))
    monkeypatch.setattr(run, "OURS", lies)
    code, text = report(tmp_path, console, ops=["softmax"])
    assert code == command.OURS_IS_WRONG
    assert "wrong" in text


def test_full_takes_all_dtypes_and_judges_everything(tmp_path):
    prepared = command.prepare(request(tmp_path, full=True))
    assert prepared.plan.dtypes == ("float32", "float64", "float16", "bfloat16")
    assert prepared.plan.effort.judged_values is None
    assert prepared.plan.effort.name == "full"


def test_a_full_run_finds_out_what_a_process_costs(tmp_path, console, monkeypatch):
    asked = []

    def costs(contenders, threads, repeats):
        asked.append((list(contenders), repeats))
        return tuple(ProcessCost(name, True, (0.1,), (0.2,), {"softmax": 2**26}) for name, _ in contenders)

    monkeypatch.setattr("softmax_numba.bench.processes.in_processes", costs)
    prepared = command.prepare(request(tmp_path, ops=["softmax"]), effort=replace(TINY, processes=2))
    assert command.execute(prepared, console) == 0
    assert asked == [([("softmax-numba", "softmax_numba"), ("numpy", "numpy")], 2)]
    assert [cost.name for cost in read(tmp_path / "out" / "results.json").processes] == ["softmax-numba", "numpy"]
    assert {"memory.svg", "start.svg"} <= {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    assert run.FULL.processes and not run.QUICK.processes


def test_default_is_quick_and_covers_everything(tmp_path):
    plan = command.prepare(request(tmp_path, workloads=[], peers=[])).plan
    assert plan.effort.name == "quick"
    assert len(plan.tasks) == 36
    assert plan.ops == ("softmax", "log_softmax", "logsumexp")


def test_own_array_alone_unless_workloads_are_asked_for(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones((3, 4), np.int8))
    plan = command.prepare(request(tmp_path, input=tmp_path / "x.npz", workloads=[])).plan
    assert [(w.name, w.axis, w.dtypes) for w in plan.workloads] == [("your-array", -1, ("int8",))]


def test_integer_array_runs_as_float64(tmp_path, console):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.int16).reshape(3, 4))
    code, _ = report(tmp_path, console, input=tmp_path / "x.npy", workloads=[])
    assert code == 0
    cell = read(tmp_path / "out" / "results.json").cells[0]
    assert (cell.dtype, cell.read_bytes, cell.written_bytes) == ("int16", 24, 96)


def test_array_with_nan_and_infinity(tmp_path, console):
    x = np.array([[0, np.nan, 1], [np.inf, 0, 1], [-np.inf] * 3, [-np.inf, 0, 0]], np.float32)
    np.save(tmp_path / "x.npy", x)
    code, _ = report(tmp_path, console, input=tmp_path / "x.npy", workloads=[], peers=["torch"])
    assert code == 0


def test_late_cells_of_a_slow_run_get_fewer_rounds():
    plan = run.Plan(
        workloads=select(["single-1x10"]),
        ops=("softmax", "log_softmax"),
        dtypes=("float32",),
        peers=(),
        threads=1,
        seed=0,
        effort=replace(
            TINY, budget=replace(TINY.budget, min_rounds=4, max_rounds=4), fewest_rounds=2, total_seconds=5.0
        ),
    )
    ticks = iter([0.0, 1.0, 100.0])
    first, second = run.measure(plan, clock=lambda: next(ticks))
    assert (len(first.ours.seconds), len(second.ours.seconds)) == (4, 2)


def test_report_is_written_anew_from_its_results(tmp_path, console, capsys):
    report(tmp_path, console)
    out = tmp_path / "out"
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for path in before:
        if path.name != "results.json":
            (out / path).unlink()
    assert main(["report", "--from", str(out)]) == 0
    assert capsys.readouterr().out == f"report: {out / 'index.html'}\n"
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("options", [["--ops", "softmax"], ["--full"], ["--threads", "1"], ["--seed", "0"]])
def test_what_to_measure_has_no_meaning_when_nothing_is_measured(tmp_path, capsys, options):
    for how in (["--from", str(tmp_path)], ["--list"]):
        assert main(["report", *how, *options]) == 2
        assert f"{options[0]} has no meaning with {how[0]}" in capsys.readouterr().err
