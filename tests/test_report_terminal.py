"""The terminal: a bar where there is one, plain lines where there is none, nothing cut off."""

import io

import pytest

rich_console = pytest.importorskip("rich.console")

from report_cases import FASTER, LOSING, TINY, made_up_results  # noqa: E402

from softmax_numba.bench.run import Plan  # noqa: E402
from softmax_numba.bench.workloads import select  # noqa: E402
from softmax_numba.report.summary import summarise  # noqa: E402
from softmax_numba.report.terminal import cell_line, print_summary, progress  # noqa: E402

SUMMARY = summarise(made_up_results(FASTER, LOSING))
PLAN = Plan(select(["classifier-head", "single-1x10"]), ("softmax",), ("float32",), (), 1, 0, TINY)


def shown(width=80, terminal=False):
    console = rich_console.Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_summary(console, SUMMARY)
    return console.file.getvalue()


def test_a_file_gets_everything_however_wide():
    text = shown()
    assert "…" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("classifier head")]
    for part in ("(4096, 1000) axis -1", "1.00 ms", "6.00×", "2.00×", "32,863", "1.5"):
        assert part in row
    assert "\x1b" not in text


@pytest.mark.parametrize("width", [110, 250])
def test_a_terminal_gets_a_line_a_cell(width):
    rows = [
        line for line in shown(width, terminal=True).splitlines() if line.startswith(("classifier head", "one digit"))
    ]
    assert len(rows) == 2
    assert "6.00×" in rows[0]
    assert "▼" in rows[1]


def test_headline_follows_the_table():
    text = " ".join(shown().split())
    assert "PyTorch: 1.02× as fast in the geometric mean of 2 cells" in text or "PyTorch: 1.00×" in text
    assert "least: 0.500× in softmax of single-1x10 float32" in text


def test_plain_lines_while_measuring():
    console = rich_console.Console(file=io.StringIO(), width=40)
    with progress(console, PLAN) as display:
        for task, cell in zip(PLAN.tasks, (FASTER, LOSING), strict=True):
            display.begins(task)
            display.ends(task, cell)
    lines = console.file.getvalue().splitlines()
    assert lines == [f"[1/2] {cell_line(FASTER)}", f"[2/2] {cell_line(LOSING)}"]
    assert "torch 0.500× ▼ slower" in lines[1]
    assert "numpy 6.00×" in lines[0]


def test_bar_in_a_terminal_names_what_is_measured():
    console = rich_console.Console(file=io.StringIO(), width=150, force_terminal=True, color_system=None)
    with progress(console, PLAN) as display:
        display.begins(PLAN.tasks[0])
        display.ends(PLAN.tasks[0], FASTER)
        display.begins(PLAN.tasks[1])
    text = console.file.getvalue()
    assert cell_line(FASTER) in text
    assert "softmax of single-1x10 float32" in text
    assert "left" in text
