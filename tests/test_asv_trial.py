"""The trial of the asv tool chain: what it reads of asv's table, and that the kernel it slows down is still there."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parent.parent / "scripts" / "asv_trial.py"
TABLE = """\
| Change   | Before [aa] <main~1>   | After [bb] <main>   |   Ratio | Benchmark (Parameter)                       |
|----------|------------------------|---------------------|---------|---------------------------------------------|
| +        | 0.70                   | 0.94                |    1.34 | kernels.Kernels.f('softmax', 'classifier')  |
|          | 1.00                   | 1.10                |   ~1.10 | kernels.Kernels.f('softmax', 'router')      |
| -        | 2.00                   | 1.00                |    0.50 | kernels.Kernels.f('softmax', 'mixture')     |
"""


@pytest.fixture(scope="module")
def trial():
    spec = importlib.util.spec_from_file_location("asv_trial", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["asv_trial"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["asv_trial"]


def test_the_table_is_read(trial):
    found = trial.lines_of(TABLE)
    assert [(line.mark, line.ratio) for line in found] == [("+", 1.34), ("", 1.1), ("-", 0.5)]
    assert found[0].name == "kernels.Kernels.f('softmax', 'classifier')"
    assert trial.summary(found).startswith("3 benchmarks: 1 regressions, 1 gains; ratios 0.50 to 1.34")


def test_the_kernel_that_is_slowed_down_is_there(trial):
    text = (trial.ROOT / trial.SLOWED).read_text()
    assert text.count(trial.BODY) == 1


@pytest.mark.parametrize(
    ("marks", "good"),
    [
        ({"softmax', 'classifier-head": "+", "log_softmax', 'classifier-head": "+", "softmax', 'router": ""}, True),
        ({"softmax', 'classifier-head": "+", "log_softmax', 'classifier-head": ""}, False),
        ({"softmax', 'classifier-head": "+", "logsumexp', 'classifier-head": "+"}, False),
        ({"softmax', 'classifier-head": "+", "softmax', 'router": "+"}, False),
    ],
)
def test_a_slow_down_is_caught_where_it_is_and_nowhere_else(trial, monkeypatch, tmp_path, marks, good):
    lines = [trial.Line(mark, "1", "1", 1.0, f"kernels('{name}')") for name, mark in marks.items()]
    monkeypatch.setattr(trial, "clone_with", lambda folder, change: None)
    monkeypatch.setattr(trial, "compare", lambda folder, factor, bench: lines)
    assert trial.slowdown(tmp_path, 1.2, "") is good
