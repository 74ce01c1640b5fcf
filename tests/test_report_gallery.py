"""Each picture answers its question from the rounds: the map's boxes, threads, memory, and softmax explained."""

import csv
import json
import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from oracle import softmax as exact_softmax
from report_cases import FASTER, LOSING, accuracy, made_up_cell, made_up_results

from softmax_numba.bench.processes import PEAK_SHAPE, ProcessCost, in_processes, peak_bytes
from softmax_numba.bench.results import Measurement, Results, WorkloadInfo
from softmax_numba.bench.workloads import OPS
from softmax_numba.report import curves, explained, gallery, growth
from softmax_numba.report.drawing import QUESTIONS
from softmax_numba.report.heatmap import boxes
from softmax_numba.report.page import render
from softmax_numba.report.summary import summarise
from softmax_numba.report.text import facts


def shaped(shape, ours, numpy, torch, **changes):
    return replace(made_up_cell(3 * [ours], 3 * [numpy], 3 * [torch]), shape=shape, **changes)


def test_a_box_has_the_ratio_to_the_fastest_peer():
    cells = (
        shaped((1, 16), 1.0, 4.0, 2.0),
        shaped((1, 20), 1.0, 4.0, 8.0),
        shaped((4096, 1000), 2.0, 1.0, 8.0),
        shaped((65536, 8), 1.0, 3.0, 3.0),
        shaped((16, 4096, 21), 1.0, 9.0, 9.0, axis=1),
    )
    found = boxes(made_up_results(*cells))
    assert found == {("softmax", "float32"): {(1, 0): [2.0, 4.0], (3, 3): [0.5], (1, 4): [3.0]}}


def test_the_map_of_a_grid_leaves_out_masked_strided_and_fresh_cells():
    cells = [replace(shaped((16**i, 1024), 1.0, 2.0, 2.0), workload=f"{16**i}x1024") for i in range(4)]
    titles = ["1 × 1024", "16 × 1024", "256 × 1024 masked", "4096 × 1024"]
    infos = tuple(
        WorkloadInfo(c.workload, title, "a regime", c.shape, -1, "throughput")
        for c, title in zip(cells, titles, strict=True)
    )
    found = boxes(made_up_results(*cells, mode="grid", workloads=infos))
    assert sorted(found["softmax", "float32"]) == [(3, 0), (3, 1), (3, 3)]


def growing(length):
    """One lane with one thread and with two, which take two thirds of the time."""
    seconds = (3e-6 * length, 3.3e-6 * length, 3.6e-6 * length)
    ours = Measurement("softmax-numba", "ours", "ok", None, 1, tuple(s / 1.5 for s in seconds))
    one = Measurement("softmax-numba (1 thread)", "variant", "ok", None, 1, seconds)
    return replace(FASTER, workload=f"{length}-growth", shape=(length,), kind="growth", measurements=(ours, one))


def test_every_picture_is_drawn_or_its_command_said():
    costs = tuple(
        ProcessCost(name, compiled, (0.1, 0.2), (0.3, 0.4), dict.fromkeys(OPS, 2**26))
        for name, compiled in (("softmax-numba", True), ("softmax-numba", False), ("numpy", True))
    )
    lanes = [shaped((2**n, 2**14), 1.0, 2.0, 2.0, read_bytes=2**26) for n in (10, 14)]
    grid = [replace(c, workload="x".join(map(str, c.shape))) for c in (*lanes, replace(lanes[0], shape=(2**20, 64)))]
    grid += [replace(grid[0], dtype=dtype) for dtype in ("float64", "float16")]
    grid += [growing(2**n) for n in (4, 10)]
    infos = tuple(
        WorkloadInfo(c.workload, " × ".join(map(str, c.shape)), "", c.shape, -1, c.kind)
        for c in {c.workload: c for c in grid}.values()
    )
    speed = made_up_results(*grid, mode="grid", workloads=infos, command="softmax-numba speed")
    whole = gallery.draw(made_up_results(FASTER, LOSING, processes=costs), speed)
    assert [*(p.name for p in whole), *(p.name for p in explained.draw())] == list(QUESTIONS)
    assert gallery.absent(whole) == ()

    results = made_up_results(FASTER, LOSING)
    drawn = gallery.draw(results)
    text = render(summarise(results), drawn)
    left = {entry.title: entry.command for entry in gallery.absent(drawn)}
    assert len(left) + len(drawn) == len(whole)
    assert left["What do more threads gain, the longer the lane?"] == "softmax-numba speed --out DIR/speed"
    for title, command in left.items():
        assert f"{title} <code>{command}</code>" in text
    for picture in drawn:
        assert f"Made by <code>{picture.command}</code>" in text


def test_costs_of_processes_are_kept_and_old_files_have_none():
    cost = ProcessCost("numpy", True, (0.1,), (0.2,), {"softmax": 5})
    results = made_up_results(FASTER, processes=(cost,))
    assert Results.from_json(results.to_json()) == results
    assert cost.until_first.median == pytest.approx(0.3)
    older = json.loads(results.to_json())
    del older["processes"]
    assert Results.from_json(json.dumps(older)) == made_up_results(FASTER)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory is read from Linux's /proc")
def test_the_peak_of_a_call_is_what_it_takes():
    def takes():
        np.ones(2**23)

    # The kernel counts resident pages in batches.
    assert 0.99 * 2**26 < peak_bytes(takes) < 1.1 * 2**26
    assert peak_bytes(lambda: None) < 2**22


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="the peak of memory is read from Linux's /proc")
def test_a_process_says_what_a_library_costs():
    ours, fresh, numpy = in_processes([("softmax-numba", "softmax_numba"), ("numpy", "numpy")], 1, 1)
    size = 4 * PEAK_SHAPE[0] * PEAK_SHAPE[1]
    assert [cost.reason for cost in (ours, fresh, numpy)] == [None] * 3
    assert max(ours.peak_bytes.values()) < size / 8, "ours needs no array beside its result"
    assert numpy.peak_bytes["softmax"] < size / 8 < 0.99 * size < numpy.peak_bytes["logsumexp"]
    assert fresh.until_first.median > ours.until_first.median


@pytest.mark.parametrize("level", [100.0, 1000.0])
def test_the_formula_taken_by_its_word_fails_where_softmax_does_not(level):
    x = explained._LOGITS + np.float32(level)
    assert np.isnan(explained.naive(x)).all()
    assert np.allclose(explained.softmax(x), exact_softmax(x), rtol=1e-6)
    assert np.isfinite(explained.naive(explained._LOGITS)).all()


def test_a_wrong_result_is_nowhere_shown_as_fast():
    """Ten times as fast and wrong: no ratio, no speed, no share, no mark among the right ones."""
    lie = {"status": "wrong", "reason": "100 % off", "accuracy": accuracy(1e7, "100 % off")}

    def lying(cell, name):
        return replace(cell, measurements=tuple(replace(m, **lie) if m.name == name else m for m in cell.measurements))

    peer = lying(made_up_cell(3 * [1e-3], 3 * [2e-3], 3 * [1e-4]), "torch")
    ours = lying(made_up_cell(3 * [1e-4], 3 * [2e-3], 3 * [1e-3], op="logsumexp"), "softmax-numba")
    lane = lying(growing(2**10), "softmax-numba")
    results = made_up_results(peer, ours)
    summary = summarise(results)
    assert [(s.peer, len(s.ratios)) for s in summary.standings] == [("numpy", 1), ("torch", 0)]
    assert summary.rows[0].ratios["torch"] == "wrong"
    assert (summary.rows[1].verdict, summary.rows[1].gigabytes, summary.rows[1].share) == ("wrong", "–", "–")
    for row in csv.DictReader(results.to_csv().splitlines()):
        if row["status"] == "wrong" or (row["op"] == "logsumexp" and row["role"] == "peer"):
            assert row["time_over_ours_median"] == ""
        if row["status"] == "wrong":
            assert row["gigabytes_per_second"] == row["share_of_bound_median"] == ""
    assert boxes(made_up_results(ours)) == {}
    assert growth.table(made_up_results(lane))[1][1:3] == ["wrong", "wrong"]
    lanes = made_up_results(lane, replace(lane, shape=(2**12,)))
    assert growth.draw(lanes) is None and curves.threads(lanes, lanes) is None


def test_load_and_discarded_rounds_are_said():
    said = dict(facts(made_up_results(replace(FASTER, load=0.5), replace(LOSING, load=1.25))))
    assert said["Load"].startswith("0.1 at the start, 0.5 to 1.25 while measuring")
    assert said["Samples"] == "21 timed, none thrown away"
