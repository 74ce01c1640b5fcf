"""Bad requests: one line on stderr, exit code 2, and not a trace on the disk."""

import numpy as np
import pytest

from softmax_numba.cli import main

pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Everything happens in a folder with a few small files, and nothing is ever measured."""
    import softmax_numba.report.command as command

    monkeypatch.setattr(command, "execute", lambda *arguments: pytest.fail("a bad request was carried out"))
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.ones((3, 4), np.float32))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("two.npz", a=np.ones(2), b=np.ones(2))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "corrupt.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-9])


BAD = {
    "unknown op": (["--ops", "sofmax"], "unknown op 'sofmax'; known: softmax, log_softmax, logsumexp"),
    "unknown op after a comma": (["--ops", "softmax,nope"], "unknown op 'nope'"),
    "empty op": (["--ops", ","], "unknown op ''; known: softmax"),
    "unknown dtype": (["--dtypes", "float8"], "unknown dtype 'float8'; known: float32, float64, float16, bfloat16"),
    "unknown peer": (["--peers", "jaxx"], "unknown peer 'jaxx'; known: numpy, scipy, torch"),
    "unknown workload": (["--workloads", "nope"], "unknown workload 'nope'; known: classifier-head"),
    "no threads": (["--threads", "0"], "--threads 0 is out of range; allowed here: 1 to"),
    "too many threads": (["--threads", "100000"], "--threads 100000 is out of range; allowed here: 1 to"),
    "threads in words": (["--threads", "two"], "invalid int value: 'two'"),
    "negative seed": (["--seed", "-3"], "--seed -3 is negative; allowed: 0 and above"),
    "missing file": (["--input", "none.npy"], "--input none.npy does not exist; allowed: a .npy or .npz file"),
    "object array": (["--input", "objects.npy"], "--input objects.npy holds Python objects"),
    "corrupt file": (["--input", "corrupt.npy"], "--input corrupt.npy is damaged"),
    "no array at all": (["--input", "file"], "--input file is not a NumPy file"),
    "axis out of bounds": (
        ["--input", "x.npy", "--axis", "2"],
        "--axis 2 is out of bounds for a 2-D array; allowed: -2 to 1",
    ),
    "axis without input": (["--axis", "1"], "--axis 1 has no meaning without --input"),
    "key without input": (["--key", "a"], "--key a has no meaning without --input"),
    "key missing": (["--input", "two.npz"], "--input two.npz needs --key; it holds: a, b"),
    "key unknown": (["--input", "two.npz", "--key", "c"], "has no array --key c; it holds: a, b"),
    "out is a file": (["--out", "file"], "--out file is a file; allowed: a folder"),
    "out below a file": (["--out", "file/below"], "--out file/below cannot be written"),
    "quick and full": (["--quick", "--full"], "not allowed with argument"),
    "unknown option": (["--fast"], "unrecognized arguments: --fast"),
}


def only_line(capsys):
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    (line,) = err.splitlines()
    assert line.startswith("softmax-numba: error: ")
    return line


@pytest.mark.parametrize("name", BAD)
def test_bad_request(name, capsys, tmp_path):
    arguments, message = BAD[name]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["report", *arguments]) == 2
    assert message in only_line(capsys)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


BAD_SPEED = {
    "unknown regime": (["--regimes", "rows"], "unknown regime 'rows'; known: calls, short"),
    "no drawn cell": (["--drawn", "0"], "--drawn 0 is out of range; allowed: 1 and above"),
    "fewer than none": (["--drawn", "-5"], "--drawn -5 is out of range; allowed: 1 and above"),
    "cells in words": (["--drawn", "many"], "argument --drawn: invalid int value: 'many'"),
    "negative seed of cells": (["--drawn-seed", "-1"], "--drawn-seed -1 is negative; allowed: 0 and above"),
    "negative seed": (["--seed", "-1"], "--seed -1 is negative; allowed: 0 and above"),
    "drawn among others": (["--regimes", "lane", "--drawn", "5"], "--drawn 5 has no meaning without the regime drawn"),
    "seed among others": (
        ["--regimes", "map", "--drawn-seed", "5"],
        "--drawn-seed 5 has no meaning without the regime",
    ),
    "drawn and listed": (["--list", "--drawn", "5"], "--drawn has no meaning with --list: nothing is measured"),
    "seed and listed": (["--list", "--drawn-seed", "0"], "--drawn-seed has no meaning with --list"),
}


@pytest.mark.parametrize("name", BAD_SPEED)
def test_bad_request_of_the_grid(name, capsys, tmp_path):
    arguments, message = BAD_SPEED[name]
    assert main(["speed", "--out", "grid", *arguments]) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "grid").exists()


def test_the_options_of_drawn_cells_are_carried_out(monkeypatch, tmp_path):
    import softmax_numba.report.command as command
    from softmax_numba.bench.drawn import draw

    taken = []
    monkeypatch.setattr(command, "execute", lambda prepared, console: taken.append(prepared.plan.cells) or 0)
    assert main(["speed", "--out", "grid", "--regimes", "drawn", "--drawn", "7", "--drawn-seed", "3"]) == 0
    assert taken == [draw(7, 3)]


def test_every_part_is_checked_before_the_folder_is_made(capsys, tmp_path):
    assert main(["report", "--out", "new", "--input", "x.npy", "--axis", "7"]) == 2
    only_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["info", "--fast"]])
def test_bad_command(arguments, capsys):
    assert main(arguments) == 2
    only_line(capsys)


def test_missing_extra_is_named_with_the_command_that_helps(capsys, monkeypatch, tmp_path):
    import softmax_numba.report.command as command

    monkeypatch.setattr(command, "_NEEDED", ("jinja2", "no_such_module"))
    assert main(["report"]) == 2
    line = only_line(capsys)
    assert "no_such_module" in line
    assert 'pip install "softmax-numba[report]"' in line
    assert not (tmp_path / "softmax-report").exists()


def test_version(capsys):
    import softmax_numba

    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"softmax-numba {softmax_numba.__version__}\n"
