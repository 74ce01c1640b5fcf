"""results.json and results.csv: what is stored comes back, what is derived comes from the rounds."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from report_cases import FASTER, LOSING, accuracy, made_up_results

from softmax_numba.bench.results import SCHEMA, SCHEMA_VERSION, Measurement, Results, read


def test_json_round_trip(tmp_path):
    results = made_up_results(
        FASTER, LOSING, input={"file": "a.npy", "key": None, "shape": [3], "dtype": "f4", "axis": 0}
    )
    path = tmp_path / "results.json"
    path.write_text(results.to_json(), encoding="utf-8")
    assert read(path) == results


def test_json_names_its_schema_and_holds_every_rounds_figures():
    data = json.loads(made_up_results(FASTER).to_json())
    assert (data["schema"], data["schema_version"]) == (SCHEMA, SCHEMA_VERSION)
    (cell,) = data["cells"]
    assert [m["name"] for m in cell["measurements"]] == ["softmax-numba", "numpy", "torch", "copy"]
    assert cell["measurements"][1]["seconds"] == [6e-3, 6.6e-3, 5.5e-3]
    assert data["machine"]["caches"][0] == {"level": 1, "kind": "data", "bytes": 32768, "instances": 2}


def test_documented_members_are_those_of_the_file():
    import softmax_numba.bench.results as module

    data = json.loads(made_up_results(FASTER).to_json())
    undocumented = [name for name in data if f"``{name}``" not in module.__doc__]
    cell = data["cells"][0]
    undocumented += [name for name in cell if f"``{name}``" not in module.__doc__]
    undocumented += [name for name in cell["measurements"][0] if f"``{name}``" not in module.__doc__]
    assert undocumented == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(schema="other"), "not a results file"),
        (lambda data: data.update(schema_version=2), "version 2 is not known; allowed: 1"),
        (lambda data: data.pop("machine"), "machine"),
        (lambda data: data["cells"][0].pop("op"), "op"),
        (lambda data: data["cells"][0].update(speed=1), "speed"),
        (lambda data: data["cells"][0]["measurements"][0].pop("seconds"), "seconds"),
    ],
)
def test_another_file_is_refused(change, message):
    data = json.loads(made_up_results(FASTER).to_json())
    change(data)
    with pytest.raises(ValueError, match=message):
        Results.from_json(json.dumps(data))


def test_not_even_json_is_refused():
    with pytest.raises(ValueError, match="line 1"):
        Results.from_json("<html>")


def test_ratio_is_taken_round_by_round():
    ratio = FASTER.speed_ratio("numpy")
    expected = np.array([6e-3, 6.6e-3, 5.5e-3]) / np.array([1e-3, 1.1e-3, 0.9e-3])
    low, median, high = np.percentile(expected, [20, 50, 80])
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((low, median, high))


def test_speed_and_share_of_the_bound():
    assert FASTER.bytes_per_second("softmax-numba") == pytest.approx(2 * 4096 * 1000 * 4 / 1e-3)
    share = FASTER.share_of_bound("softmax-numba")
    assert share.median == pytest.approx(np.median([0.5 / 1, 0.6 / 1.1, 0.7 / 0.9]))


def test_the_fastest_copy_is_the_bound():
    slow = Measurement("streaming copy", "bound", "ok", None, 1, (0.9e-3, 0.1e-3, 0.9e-3))
    cell = replace(FASTER, measurements=(*FASTER.measurements, slow))
    assert cell.bound.name == "copy"


@pytest.mark.parametrize("status", ["wrong", "failed", "unsupported"])
def test_no_ratio_to_a_peer_without_a_right_result(status):
    torch = replace(FASTER.named("torch"), status=status)
    cell = replace(FASTER, measurements=tuple(torch if m.name == "torch" else m for m in FASTER.measurements))
    assert cell.speed_ratio("torch") is None
    assert cell.speed_ratio("numpy") is not None


def test_no_ratio_where_our_own_result_is_wrong():
    ours = replace(FASTER.ours, status="wrong", accuracy=accuracy(1e9, "all off"))
    cell = replace(FASTER, measurements=(ours, *FASTER.measurements[1:]))
    assert cell.speed_ratio("numpy") is None


def test_csv_has_a_row_a_cell_and_contender():
    rows = list(csv.DictReader(io.StringIO(made_up_results(FASTER, LOSING).to_csv())))
    assert len(rows) == 4 + 3
    numpy = rows[1]
    assert (numpy["workload"], numpy["contender"], numpy["shape"]) == ("classifier-head", "numpy", "4096x1000")
    assert float(numpy["time_over_ours_median"]) == FASTER.speed_ratio("numpy").median
    assert float(numpy["seconds_median"]) == 6e-3
    assert float(numpy["max_ulp"]) == 60.0
    assert rows[3]["role"] == "bound"
