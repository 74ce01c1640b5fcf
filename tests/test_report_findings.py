"""The sentence under a picture is computed from the results, and says nothing where they hold nothing."""

from dataclasses import replace

import pytest

pytest.importorskip("matplotlib", reason="the report's extra is not installed")

from report_cases import FASTER, LOSING, made_up_results

from softmax_numba.bench.processes import ProcessCost
from softmax_numba.report.drawing import QUESTIONS
from softmax_numba.report.findings import finding

RESULTS = made_up_results(FASTER, LOSING)
COSTS = [
    ProcessCost("softmax-numba", False, (0.5,), (3.0,)),
    ProcessCost("softmax-numba", True, (0.5, 0.5), (0.1, 0.1), {"softmax": 2**20}),
    ProcessCost("torch", True, (1.0, 1.0), (0.25, 0.25), {"softmax": 2**26}),
]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("speed", "PyTorch (faster in 1 of 2 cells, slower in 1)"),
        ("bandwidth", "From 55 % of the limit"),
        ("accuracy", "At most 1.5 ULP; NumPy 60.0, PyTorch 32,863."),
        ("tradeoff", "in 1 of 4 comparisons"),
        ("latency", "softmax-numba 2.10 µs, NumPy 9.00 µs, PyTorch 1.00 µs"),
    ],
)
def test_the_answer_is_that_of_the_rounds(name, said):
    assert said in finding(name, RESULTS)


def test_memory_and_start_up_answer_too():
    results = replace(RESULTS, processes=COSTS)
    assert finding("memory", results) == "softmax takes softmax-numba 1 MiB, PyTorch 64 MiB."
    assert finding("start", results) == (
        "To the first result: softmax-numba 3.50 s when it has yet to compile, softmax-numba 600 ms, PyTorch 1.25 s."
    )


@pytest.mark.parametrize("name", QUESTIONS)
def test_nothing_is_said_of_nothing(name):
    assert finding(name, made_up_results()) == ""
