"""Two results files side by side: what changed by more than the noise of both runs is marked, and nothing else."""

import io
from dataclasses import replace

import numpy as np
import pytest

rich_console = pytest.importorskip("rich.console")

from report_cases import MACHINE, made_up_cell, made_up_results  # noqa: E402

from softmax_numba.bench.results import ContenderInfo  # noqa: E402
from softmax_numba.cli import main  # noqa: E402
from softmax_numba.report.compare import FASTER, LEVEL, SLOWER, UNKNOWN, changes, same_setting, table  # noqa: E402

OURS, NUMPY, TORCH = (1.0e-3, 1.1e-3, 0.9e-3), (6e-3, 6.6e-3, 5.5e-3), (2e-3, 2.3e-3, 1.7e-3)


def cell(factor=1.0, machine=1.0, **more):
    """Our time divided by a factor, and everybody's by another."""
    ours, numpy, torch = (
        tuple(t / f / machine for t in times) for times, f in ((OURS, factor), (NUMPY, 1), (TORCH, 1))
    )
    return made_up_cell(ours, numpy, torch, bound=tuple(t / machine for t in (0.5e-3, 0.6e-3, 0.7e-3)), **more)


def only(before, after):
    (change,) = changes(before, after)
    return change


def test_what_changed():
    for factor, verdict in ((1.0, LEVEL), (1.02, LEVEL), (3.0, FASTER), (1 / 3, SLOWER)):
        change = only(made_up_results(cell()), made_up_results(cell(factor)))
        assert change.verdict == verdict, factor
        assert change.factor == pytest.approx(factor)


def test_a_machine_that_is_slower_for_everybody_is_no_change():
    """By the clock it would be: 3 times as slow."""
    change = only(made_up_results(cell()), made_up_results(cell(machine=1 / 3)))
    assert change.verdict == LEVEL
    assert change.factor == pytest.approx(1)


def test_yardsticks_that_disagree_are_noise():
    before = made_up_results(made_up_cell(OURS, NUMPY, TORCH))
    after = made_up_results(made_up_cell(OURS, tuple(3 * t for t in NUMPY), TORCH))
    assert only(before, after).verdict == LEVEL


def test_peers_of_another_version_are_no_yardstick():
    contenders = [
        replace(c, version="9.9") if c.name in ("numpy", "torch") else c for c in made_up_results(cell()).contenders
    ]
    assert all(isinstance(c, ContenderInfo) for c in contenders)
    latency = {"op": "softmax", "workload": "single-1x10"}  # which has no copy beside it
    before = made_up_results(made_up_cell(OURS, NUMPY, TORCH, **latency))
    after = made_up_results(made_up_cell(tuple(t / 3 for t in OURS), NUMPY, TORCH, **latency))
    assert only(before, after).verdict == FASTER
    change = only(before, replace(after, contenders=tuple(contenders)))
    assert change.verdict == UNKNOWN
    assert change.factor == pytest.approx(3)


def test_an_a_a_comparison_of_noisy_runs_finds_little():
    """Hundreds of pairs of runs of the same code, each with noise of its own: at most one in twenty is marked."""
    rng = np.random.default_rng(0)

    def run():
        load = rng.lognormal(0, 0.3, 15)  # of the machine, which all contenders of a round see
        times = [tuple(t * load * rng.lognormal(0, 0.1, 15)) for t in (1e-3, 6e-3, 2e-3, 0.5e-3)]
        return made_up_results(made_up_cell(*times[:3], bound=times[3]))

    found = [only(run(), run()).verdict for _ in range(300)]
    assert found.count(LEVEL) >= 285


def test_cells_that_only_one_run_has_are_left_out():
    other = cell(op="log_softmax")
    assert [c.label for c in changes(made_up_results(cell(), other), made_up_results(other))] == [other.label]


def test_the_worst_comes_first():
    before = made_up_results(cell(), cell(op="log_softmax"))
    heads, first, second = table(list(changes(before, made_up_results(cell(2.0), cell(0.5, op="log_softmax")))))
    assert heads[0] == "cell"
    assert first[0].startswith("log_softmax") and first[3] == "0.500×"
    assert second[3] == "2.00×"


def test_what_differs_beside_the_code():
    before = made_up_results(cell())
    machine = replace(MACHINE, cpu="Another CPU", versions={"numpy": "2.4.6", "numba": "0.68.1"})
    assert same_setting(before, made_up_results(cell())) == []
    found = same_setting(before, made_up_results(cell(), machine=machine, threads=4))
    assert found == ["CPU: Some CPU <X>, then Another CPU", "threads: 2, then 4", "numba: –, then 0.68.1"]


@pytest.mark.parametrize("words", [["compare"], ["report", "compare"]], ids=" ".join)
def test_the_command(words, tmp_path, capsys):
    """Folders or files; a slower cell is an error only if asked for."""
    folder, file = tmp_path / "a", tmp_path / "b.json"
    folder.mkdir()
    (folder / "results.json").write_text(made_up_results(cell()).to_json(), encoding="utf-8")
    file.write_text(made_up_results(cell(0.25)).to_json(), encoding="utf-8")
    assert main([*words, str(folder), str(file)]) == 0
    text = capsys.readouterr().out
    assert "0.250×" in text and "slower" in text and "1 slower." in text
    assert main([*words, str(folder), str(file), "--strict"]) == 1
    assert main([*words, str(file), str(folder), "--strict"]) == 0
    assert "4.00×" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(made_up_results(cell()).to_json(), encoding="utf-8")
    bad.write_text("{}", encoding="utf-8")
    text = tmp_path / "text.json"
    text.write_text("# Notes", encoding="utf-8")
    other = tmp_path / "other.json"
    other.write_text(made_up_results(cell(op="logsumexp")).to_json(), encoding="utf-8")
    for given, message in (
        (tmp_path / "none", "expected: a report's folder, or the results.json in it"),
        (text, "text.json: not a results file"),
        (bad, "not a results file"),
        (other, "have no cell in common"),
    ):
        assert main(["report", "compare", str(good), str(given)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("softmax-numba: error: ") and message in line
    assert main(["report", "compare", str(good)]) == 2
    assert "(see: softmax-numba report compare --help)" in capsys.readouterr().err


def test_a_terminal_gets_a_table():
    from softmax_numba.report.terminal import print_changes

    console = rich_console.Console(file=io.StringIO(), width=200, force_terminal=True, color_system=None)
    print_changes(console, list(changes(made_up_results(cell()), made_up_results(cell(3.0)))), ["CPU: a, then b"])
    text = console.file.getvalue()
    assert "The runs differ in CPU: a, then b." in text
    assert "1 faster." in text
