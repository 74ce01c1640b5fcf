"""The command as users start it: a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("matplotlib")

COMMAND = [sys.executable, "-m", "softmax_numba"]
HEAVY = ("torch", "scipy", "matplotlib", "rich", "jinja2", "PIL")


def expected_layer():
    """What a first parallel call of ours gets in a fresh process: the benchmark must not change that."""
    from softmax_numba.bench.machine import probe_threading_layer

    return probe_threading_layer()


def start(*arguments, cwd, **options):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        **options,
    )


def test_report_on_the_users_own_array(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32))
    process = start("report", "--input", "x.npy", "--axis", "1", "--ops", "softmax", "--peers", "numpy", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err == ""
    folder = tmp_path / "softmax-report"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["state"] == "complete"
    assert results["command"] == "softmax-numba report --input x.npy --axis 1 --ops softmax --peers numpy"
    assert results["cells"][0]["axis"] == 1
    assert results["threading_layer"] == expected_layer()
    assert out.splitlines()[-1] == f"report: {folder.resolve() / 'index.html'}"
    assert "\x1b" not in out


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process there")
def test_ctrl_c_keeps_what_was_measured(tmp_path):
    def hear():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # who runs the tests in the background has it ignored

    np.save(tmp_path / "x.npy", np.zeros((2000, 1000), np.float32))
    arguments = ["--input", "x.npy", "--peers", "numpy", "--dtypes", "float32,float64,float16"]
    process = start("report", *arguments, cwd=tmp_path, preexec_fn=hear)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("[1/9]"):
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (lines, out, err)
    assert err == ""
    folder = tmp_path / "softmax-report"
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["state"] == "interrupted"
    assert 1 <= len(results["cells"]) < 9
    assert "Interrupted." in (folder / "index.html").read_text(encoding="utf-8")
    assert out.splitlines()[-1].startswith("interrupted: ")
    assert not [path for path in folder.rglob("*") if path.name.endswith(".part")]


def test_bad_request_ends_with_2(tmp_path):
    process = start("report", "--input", "none.npy", cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == "softmax-numba: error: --input none.npy does not exist; allowed: a .npy or .npz file\n"
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, softmax_numba; before = set(sys.modules)\n"
        "from softmax_numba.cli import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        f"heavy = {HEAVY!r} + ('numba', 'llvmlite')\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print('LOADED', sorted(new & set(heavy)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.endswith("LOADED []\n")
    assert "--input FILE" in run.stdout


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_leaves_is_no_traceback(tmp_path):
    process = start("info", cwd=tmp_path)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) in (0, 1)
    assert "Traceback" not in err
