"""The grid of regimes: what it holds, that its options mean the same to everybody, and the table."""

import numpy as np
import pytest
from report_cases import TINY
from rich.console import Console

from softmax_numba.bench import peers, regimes
from softmax_numba.bench import run as run_module
from softmax_numba.bench.regimes import REGIMES, Regime
from softmax_numba.bench.requests import RequestError
from softmax_numba.bench.results import read
from softmax_numba.bench.run import Task
from softmax_numba.bench.workloads import OPS, TRAINING_OPS
from softmax_numba.cpu.threads import available
from softmax_numba.report.command import Request, execute, prepare_grid


def test_regimes_by_name():
    calls, lanes = REGIMES["calls"].tasks, REGIMES["lane"].tasks
    assert regimes.tasks_of(["lane", "calls"]) == calls + lanes
    assert regimes.tasks_of(["growth"]) == regimes.GROWTH
    whole = [task for regime in REGIMES.values() for task in regime.tasks]
    assert regimes.tasks_of([]) == (*whole, *regimes.MAP, *regimes.GROWTH)
    with pytest.raises(RequestError, match="rows"):
        regimes.tasks_of(["rows"])


def test_a_name_means_one_array():
    found = {}
    for regime in REGIMES.values():
        assert regime.goal >= 1 and regime.tasks
        for task in regime.tasks:
            assert found.setdefault(task.workload.name, task.workload) == task.workload
            assert task.op in (*OPS, *TRAINING_OPS)
            assert task.op.startswith("linear") == (task.workload.features > 0)
    keys = [(t.workload.name, t.op, t.dtype) for regime in REGIMES.values() for t in regime.tasks]
    assert len(set(keys)) == len(keys)


def test_layouts_are_what_they_are_called():
    rows, columns = 6, 10
    seen = {}
    for name, draw in regimes._LAYOUTS.items():
        x = draw(np.random.default_rng(0), (rows, columns), np.float32)
        assert x.shape == (rows, columns)
        seen[name] = x.strides
    assert seen == {
        "x[:, ::2]": (80, 8),
        "x.T": (4, 24),
        "x[::-1]": (-40, 4),
        "x[:, ::-1]": (40, -4),
        "broadcast": (0, 4),
    }


def small(layout="", **options):
    return regimes._workload((40, 30), -1, layout, **options)


def training_tasks():
    """Every loss and way back, and along an axis that is not the last; 1000 of these values are judged."""
    for shape, axis in (((40, 300), -1), ((3, 11, 40), 1), ((2, 20_000), -1), ((30, 5), 0)):
        workload = regimes._workload(shape, axis)
        yield from (Task(workload, op, "float32") for op in TRAINING_OPS if not op.startswith("linear"))
    yield Task(regimes._linear((70, 900), 6), "linear_cross_entropy_and_grad", "float32")


@pytest.fixture
def grid(monkeypatch):
    """A small grid with every layout, option and operation."""
    workloads = [small(), *map(small, regimes._LAYOUTS), small(masked=True), small(temperature=2.0), small(fresh=True)]
    made = {
        "easy": Regime("easy", "easy", "", 1e-9, tuple(Task(w, "softmax", "float32") for w in workloads)),
        "hard": Regime("hard", "hard", "", 1e9, tuple(Task(workloads[0], op, "float64") for op in OPS)),
        "training": Regime("training", "training", "", 1e-9, tuple(training_tasks())),
    }
    # This first: it imports the module, which takes the grid as it is then.
    monkeypatch.setattr("softmax_numba.report.regimes.REGIMES", made)
    monkeypatch.setattr(regimes, "REGIMES", made)
    lanes = tuple(Task(regimes._workload((n,), growth=True), "softmax", "float32") for n in (1, 64, 70_000))
    monkeypatch.setattr(regimes, "GROWTH", lanes)
    monkeypatch.setattr(regimes, "MAP", (Task(workloads[0], "softmax", "float16"),))
    return made


def run(tmp_path, names=(), threads=1):
    request = Request(out=tmp_path / "grid", command="softmax-numba speed", threads=threads)
    effort = TINY.__class__(**{**vars(TINY), "name": "grid", "exponentials": True})
    with (tmp_path / "terminal").open("w") as file:
        assert execute(prepare_grid(request, names, effort=effort), Console(file=file)) == 0
    return read(tmp_path / "grid" / "results.json"), (tmp_path / "grid" / "regimes.md").read_text()


def test_a_whole_grid(tmp_path, grid):
    """Everybody is right in every cell, whatever the layout and the options; each regime has its row and its cells."""
    results, table = run(tmp_path)
    assert len(results.cells) == 12 + 17 + 1 + 3
    for cell in results.cells:
        statuses = {m.name: (m.status, m.reason) for m in cell.measurements}
        assert all(status == ("ok", None) for status in statuses.values()), (cell.label, statuses)
    assert "| easy | 9 |" in table and "| 9 of 9 |" in table
    assert "| hard | 3 |" in table and "| 0 of 3 |" in table
    assert "| training | 17 |" in table and "| 17 of 17 |" in table
    assert table.count("1e+09× ▼") == 3
    assert sum(line.startswith("| easy | 40 × 30") for line in table.splitlines()) == 9


def test_one_regime(tmp_path, grid):
    results, table = run(tmp_path, ["hard"])
    assert {cell.dtype for cell in results.cells} == {"float64"}
    assert "| easy" not in table and "Losses and ways back" not in table


def test_losses_and_ways_back_have_the_limits_that_they_have(tmp_path, grid):
    """A loss reads the logits, its gradient is written too; a way back reads two arrays."""
    results, table = run(tmp_path, ["training"])
    assert "Losses and ways back" in table
    merges = {"merge", "streaming merge"}
    expected = {
        "cross_entropy": {"read", "exponential"},
        "cross_entropy_and_grad": {"copy", "streaming copy", "exponential"},
        "softmax_vjp": merges,
        "log_softmax_vjp": merges,
    }
    for cell in results.cells:
        if cell.kind == "throughput":
            assert {m.name for m in cell.measurements if m.role == "bound"} == expected.get(cell.op, set()), cell.label
    sizes = {cell.op: (cell.read_bytes, cell.written_bytes) for cell in results.cells if cell.shape in SIZES}
    logits = 4 * 40 * 300
    assert sizes == {
        "cross_entropy": (logits + 8 * 40, 4),
        "cross_entropy_and_grad": (logits + 8 * 40, 4 + logits),
        "softmax_vjp": (2 * logits, logits),
        "log_softmax_vjp": (2 * logits, logits),
        "linear_cross_entropy_and_grad": (4 * (70 + 900) * 6 + 8 * 70, 4 + 4 * (70 + 900) * 6),
    }


SIZES = ((40, 300), (70, 900))


@pytest.mark.skipif(available() < 2, reason="one thread")
def test_growing_lanes_with_every_number_of_threads(tmp_path, grid):
    results, table = run(tmp_path, ["growth"], threads=2)
    ours, torch = (contender.name for contender in results.contenders)
    for cell in results.cells:
        timed = {m.name: m.role for m in cell.measurements if m.seconds}
        assert timed == {
            ours: "ours",
            torch: "peer",
            f"{ours} (1 thread)": "variant",
            f"{torch} (1 thread)": "variant",
        }
    rows = [
        line.split(" | ") for line in table.splitlines() if line.startswith(("| values", "| 1 ", "| 64 ", "| 70,000 "))
    ]
    assert [len(row) for row in rows] == [5, 5, 5, 5]
    assert all(float(number.strip(" |")) > 0 for row in rows[1:] for number in row[1:])
    for ending in ("svg", "png"):
        assert (tmp_path / "grid" / f"growth.{ending}").stat().st_size > 10_000


def test_variants_with_fewer_threads():
    calls = {"a": lambda: None, "b": lambda: None}
    found = run_module._variants(calls, 6)
    assert {name: threads for name, (_, threads) in found.items()} == {
        f"{name} ({k} thread{'s' * (k > 1)})": k for name in "ab" for k in (1, 2, 4)
    }
    assert run_module._variants(calls, 1) == {}


def test_without_pytorch_it_is_named_as_missing(tmp_path, grid, monkeypatch):
    monkeypatch.setattr(peers.Peer, "installed", property(lambda peer: peer.name != "torch"))
    results, table = run(tmp_path, ["hard"])
    assert results.contenders[1].missing == "torch is not installed"
    assert "No cell was compared with PyTorch." in table


def test_unknown_regime_leaves_no_folder(tmp_path):
    with pytest.raises(RequestError, match="calls"):
        prepare_grid(Request(out=tmp_path / "grid", command=""), ["nothing"])
    assert not (tmp_path / "grid").exists()
