"""The programs in examples/ do what their first lines say, each in a process of its own."""

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the examples' extra is not installed")

from processes import environment
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FIT = r"^{}\s+accuracy ([\d.]+)  objective ([\d.]+)  [\d.]+ ms$"


def start(*arguments, cwd):
    """What Python prints, given `arguments`; it must end well and say nothing on stderr."""
    command = [sys.executable, "-W", "error", *map(str, arguments)]
    env = environment(OPENBLAS_NUM_THREADS=1)  # waiting threads of a BLAS spin: beside other tests, ten times as slow
    finished = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=env, timeout=300)
    assert (finished.returncode, finished.stderr) == (0, ""), finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The folder with logits.npy, and what the example printed."""
    folder = tmp_path_factory.mktemp("digits")
    return folder, start(EXAMPLES / "digits.py", "--output", "logits.npy", cwd=folder)


def fitted(printed, name):
    (found,) = re.findall(FIT.format(name), printed, re.MULTILINE)
    return tuple(map(float, found))


def test_digits_are_learnt_as_by_scikit_learn(digits):
    _, printed = digits
    accuracy, objective = fitted(printed, "softmax-numba")
    assert accuracy > 0.95
    their_accuracy, their_objective = fitted(printed, "scikit-learn")
    assert accuracy == pytest.approx(their_accuracy, abs=0.005)
    assert objective == pytest.approx(their_objective, abs=2e-6)


def test_digits_leaves_the_logits_of_what_it_held_out(digits):
    folder, printed = digits
    logits = np.load(folder / "logits.npy")
    assert (logits.shape, logits.dtype) == ((450, 10), np.float64)
    assert printed.splitlines()[-1] == "logits of the held-out digits: logits.npy, shape (450, 10), float64"
    _, true = load_digits(return_X_y=True)
    _, held_out = train_test_split(true, test_size=450, stratify=true, random_state=0)
    accuracy, _ = fitted(printed, "softmax-numba")
    assert np.mean(logits.argmax(axis=1) == held_out) == pytest.approx(accuracy, abs=1e-4)


def test_report_on_the_digits_logits_says_so(digits):
    pytest.importorskip("jinja2", reason="the report's extra is not installed")
    pytest.importorskip("matplotlib", reason="the report's extra is not installed")
    folder, _ = digits
    arguments = ["--input", "logits.npy", "--ops", "softmax", "--peers", "numpy", "--quick"]
    start("-m", "softmax_numba", "report", *arguments, cwd=folder)
    page = (folder / "softmax-report/index.html").read_text(encoding="utf-8")
    words = " ".join(unescape(re.sub(r"<[^>]*>", "", page)).split())
    assert "Your own array: logits.npy: shape (450, 10), float64, along axis -1." in words
    summary = (folder / "softmax-report/summary.md").read_text(encoding="utf-8")
    assert "- Input: logits.npy: shape (450, 10), float64, axis -1\n" in summary
    assert "| your array (450, 10) axis -1 | softmax | float64 |" in summary
