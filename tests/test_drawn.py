"""Cells drawn at random: the same for everybody, of every kind, right in each, and as many as are asked for."""

from itertools import islice
from zlib import crc32

import pytest
from report_cases import TINY

from softmax_numba.bench import drawn, peers, regimes
from softmax_numba.bench.drawn import draw, is_drawn
from softmax_numba.bench.requests import RequestError
from softmax_numba.bench.run import GRID, Plan, measure
from softmax_numba.bench.workloads import DTYPES, OPS, TRAINING_OPS
from softmax_numba.report.command import Request, prepare_grid
from softmax_numba.report.summary import promised_ulp

SEEDS = (0, 1, 2**40)


def described(task):
    return task.op, task.dtype, task.workload.shape, task.workload.axis


def test_the_same_in_every_version():
    """Figures of two commits are about the same cells: no change of ours or of NumPy's may draw others."""
    assert [described(task) for task in draw(4)] == [
        ("cross_entropy", "float64", (517, 1), 1),
        ("log_softmax_vjp", "float32", (153, 1, 130), 1),
        ("cross_entropy", "float32", (43, 19, 292), 0),
        ("cross_entropy_and_grad", "float32", (24585,), 0),
    ]
    assert crc32(repr([described(task) for task in draw()]).encode()) == 3744239466


@pytest.mark.parametrize("seed", SEEDS)
def test_the_first_are_the_same_however_many(seed):
    whole = draw(150, seed)
    assert len(whole) == 150
    for count in (1, 7, drawn.COUNT):
        assert draw(count, seed) == whole[:count]


def test_another_seed_draws_others():
    first, second, _ = (set(draw(50, seed)) for seed in SEEDS)
    assert len(first & second) < 5


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_occurs(seed):
    tasks = draw(seed=seed)
    assert {task.op for task in tasks} == {*OPS, *TRAINING_OPS} - {"linear_cross_entropy_and_grad"}
    assert {task.dtype for task in tasks} == set(DTYPES)
    assert {len(task.workload.shape) for task in tasks} == {1, 2, 3, 4}
    for op in OPS + TRAINING_OPS[:-1]:
        places = {(task.workload.axis, len(task.workload.shape)) for task in tasks if task.op == op}
        assert any(axis < dimensions - 1 for axis, dimensions in places)
        assert any(axis == dimensions - 1 for axis, dimensions in places)
    assert any(task.workload.length == 1 for task in tasks)
    assert any(task.workload.lanes == 1 for task in tasks)
    sizes = [task.workload.elements for task in tasks]
    assert min(sizes) >= 4 and min(sizes) < 64 and 2**20 < max(sizes) < 2**24


def test_a_name_means_one_array():
    """Whatever the seed: results of two runs are compared by these names."""
    found = {task.workload.name: task.workload for regime in regimes.REGIMES.values() for task in regime.tasks}
    for seed in SEEDS:
        tasks = draw(1000, seed)
        assert len({(task.workload.name, task.op, task.dtype) for task in tasks}) == 1000
        for task in tasks:
            assert found.setdefault(task.workload.name, task.workload) == task.workload
            assert is_drawn(task.workload.name)
    assert {name for name in found if not is_drawn(name)} == {
        task.workload.name for regime in regimes.REGIMES.values() if regime.name != drawn.NAME for task in regime.tasks
    }


def test_everybody_is_right_in_them():
    """Any axis of any shape, lanes of a single value among them."""
    small = (task for task in draw(400) if task.dtype == "float32" and task.workload.elements < 500)
    tasks = tuple(islice(small, 30))
    assert any(task.workload.length == 1 for task in tasks)
    peer = peers.PEERS["torch"]
    others = (peer,) if peer.installed else ()
    plan = Plan((), OPS, None, others, threads=1, seed=0, effort=TINY, cells=tasks)
    for cell in measure(plan):
        assert all(m.status == "ok" for m in cell.measurements), (cell.label, cell.measurements)
        assert (cell.ours.accuracy.max_ulp or 0) <= promised_ulp(cell.op, cell.dtype), cell.label


def test_as_many_as_are_asked_for():
    assert regimes.tasks_of([drawn.NAME]) == draw()
    assert regimes.tasks_of([drawn.NAME], 5) == draw(5)
    assert regimes.tasks_of([drawn.NAME], drawn_seed=3) == draw(seed=3)
    assert regimes.tasks_of(["calls", drawn.NAME], 130, 3) == (*regimes.REGIMES["calls"].tasks, *draw(130, 3))
    rest = regimes.tasks_of([], 2)
    assert len(rest) == len(regimes.tasks_of([])) - drawn.COUNT + 2


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        (["drawn"], (0, None), "--drawn 0 is out of range; allowed: 1 and above"),
        (["drawn"], (-3, 1), "--drawn -3 is out of range; allowed: 1 and above"),
        ([], (None, -1), "--drawn-seed -1 is negative; allowed: 0 and above"),
        (["calls", "map"], (5, None), "--drawn 5 has no meaning without the regime drawn"),
        (["calls"], (None, 0), "--drawn-seed 0 has no meaning without the regime drawn"),
    ],
)
def test_what_is_not_allowed(names, asked, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        regimes.tasks_of(names, *asked)
    count, seed = asked
    with pytest.raises(RequestError, match=message):
        prepare_grid(Request(out=tmp_path / "grid", command="", drawn=count, drawn_seed=seed), names)
    assert not (tmp_path / "grid").exists()


def test_each_brings_its_time(tmp_path):
    """The others have as much of it whether none are drawn or a thousand."""
    for names, options, count in ([["calls"], {}, 0], [["calls", "drawn"], {}, drawn.COUNT], [[], {"drawn": 999}, 999]):
        request = Request(out=tmp_path / "grid", command="", **options)
        assert prepare_grid(request, names).plan.effort.total_seconds == GRID.total_seconds + count * drawn.SECONDS
