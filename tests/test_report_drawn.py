"""The report on cells drawn at random: of any number and seed, apart from the chosen ones, with those that lose."""

from dataclasses import replace

import pytest
from report_cases import made_up_cell, made_up_results

from softmax_numba.bench.drawn import draw
from softmax_numba.bench.regimes import REGIMES
from softmax_numba.bench.results import WorkloadInfo
from softmax_numba.report.command import rewrite
from softmax_numba.report.folder import write_results
from softmax_numba.report.heatmap import boxes
from softmax_numba.report.regimes import brief_table, headline, lines, markdown

# None of these is among the cells that a run has by itself.
TASKS = [task for task in draw(60, seed=7) if task not in REGIMES["drawn"].tasks]
CHOSEN = REGIMES["calls"].tasks[0]
SECTION = "## Shapes drawn at random: where it is slower"


def cell_of(task, seconds, spread=0.0):
    """Ours takes a millisecond, PyTorch so many seconds, give or take a share of ``spread``."""
    ours, w = (1e-3, 1e-3, 1e-3), task.workload
    torch = tuple(seconds * factor for factor in (1 - spread, 1, 1 + spread))
    made = made_up_cell(ours, ours, torch, op=task.op)
    return replace(made, workload=w.name, dtype=task.dtype, shape=w.shape, axis=w.axis, kind=w.kind)


def results_of(*cells, tasks=(CHOSEN, *TASKS)):
    infos = {
        w.name: WorkloadInfo(w.name, w.title, w.reason, w.shape, w.axis, w.kind) for w in (t.workload for t in tasks)
    }
    return made_up_results(*cells, mode="grid", workloads=tuple(infos.values()))


CHOSEN_CELL = cell_of(CHOSEN, 2e-3)
WON = [cell_of(task, 4e-3) for task in TASKS[:3]]
LOST = [cell_of(TASKS[3], 0.9e-3), cell_of(TASKS[4], 0.25e-3), cell_of(TASKS[5], 0.5e-3)]
LEVEL = cell_of(TASKS[6], 0.95e-3, spread=0.2)


def section(text):
    return text.partition(SECTION)[2].partition("\n\nvs PyTorch:")[0].strip()


def test_chosen_and_drawn_cells_are_counted_apart():
    alone = headline(lines(results_of(CHOSEN_CELL)))
    assert len(alone) == 1 and alone[0].startswith(
        "2.00× PyTorch's speed in the geometric mean of 1 cells; faster in 1,"
    )
    both = headline(lines(results_of(CHOSEN_CELL, *WON, *LOST, LEVEL)))
    assert both[:1] == alone
    (said,) = both[1:]
    mean = (4**3 * 0.9 * 0.25 * 0.5 * 0.95) ** (1 / 7)
    assert said.startswith(f"Shapes drawn at random: {mean:.2f}× PyTorch's speed in the geometric mean of 7 cells; ")
    assert "faster in 3, level in 1, slower in 3," in said and "least: 0.250× (0.250–0.250) in" in said
    assert headline(lines(results_of(*WON)))[0].startswith("Shapes drawn at random: 4.00×")
    assert headline(lines(results_of())) == ["No cell was compared with PyTorch."]


def test_they_are_a_regime_of_the_table():
    table = brief_table(results_of(CHOSEN_CELL, *WON, *LOST))
    assert [row[0] for row in table[1:]] == ["single calls", "shapes drawn at random"]
    assert table[2][1:] == ["6", "1.39×", "0.250×", "4.00×", "1×", "3 of 6"]
    text = markdown(results_of(CHOSEN_CELL, *WON, *LOST))
    assert text.count("\n| shapes drawn at random | ") == 1 + 6


def test_the_losing_ones_are_listed_worst_first():
    text = section(markdown(results_of(CHOSEN_CELL, *WON, *LOST, LEVEL)))
    first, _, *rows = text.splitlines()
    assert first == "In 3 of 7 cells, the worst first:"
    assert rows[0] == "| shape | axis | op | dtype | time | PyTorch's | vs PyTorch (20–80 %) |"
    expected = []
    for task, time, ratio in (
        (TASKS[4], "250 µs", "0.250"),
        (TASKS[5], "500 µs", "0.500"),
        (TASKS[3], "900 µs", "0.900"),
    ):
        w, both = task.workload, f"{ratio}× ({ratio}–{ratio})"
        shape = " × ".join(map(str, w.shape))
        expected.append(f"| {shape} | {w.axis} | {task.op} | {task.dtype} | 1.00 ms | {time} | {both} |")
    assert rows[2:] == expected


def test_none_that_loses():
    text = section(markdown(results_of(CHOSEN_CELL, *WON, LEVEL)))
    assert text == "In none of 4 cells, by the 20 % and 80 % quantiles of the rounds."


@pytest.mark.parametrize(
    "cells", [(CHOSEN_CELL,), (CHOSEN_CELL, replace(WON[0], measurements=WON[0].measurements[:1]))]
)
def test_without_a_drawn_cell_to_compare_nothing_is_said(cells):
    assert "drawn at random:" not in markdown(results_of(*cells)).lower()


def test_the_map_stays_one_of_chosen_rows():
    rows = [task for task in draw(1000) if task.op == "softmax" and task.workload.axis == len(task.workload.shape) - 1]
    assert boxes(results_of(*(cell_of(task, 2e-3) for task in rows), tasks=rows)) == {}


def test_a_results_file_is_written_anew(tmp_path):
    results = results_of(CHOSEN_CELL, *WON, *LOST)
    write_results(tmp_path, results)
    assert rewrite(tmp_path, None).read_text() == markdown(results)
