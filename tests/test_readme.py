"""README.md's figures are those of a report in reports/, not typed by hand."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("jinja2", reason="the report's extra is not installed")
pytest.importorskip("matplotlib", reason="the report's extra is not installed")

ROOT = Path(__file__).resolve().parent.parent


def load_script():
    spec = importlib.util.spec_from_file_location("readme_table", ROOT / "scripts" / "readme_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_table_and_picture_come_from_a_report():
    script = load_script()
    text = (ROOT / "README.md").read_text()
    folder = re.search(r"\((reports/[^/)]+)/summary\.md\)", text)[1]
    summary = script.summarise(script.read(ROOT / folder / script.RESULTS))
    speed = script.read(ROOT / folder / "speed" / script.RESULTS)
    assert script.readme(text, summary, speed, folder) == text
    assert (ROOT / folder / "speed" / "regimes.md").read_text() == script.regimes.markdown(speed)
    assert (ROOT / folder / "figures" / "speed.svg").is_file()
    assert text.count("\n| ") >= len(summary.rows)


def test_the_grid_says_what_shapes_are_drawn():
    script = load_script()
    speed = script.read(next((ROOT / "reports").glob("*/speed/results.json")))
    cell = speed.cells[0]
    speed.cells = [cell, replace(cell, workload="drawn-3x7-axis-0")]
    for chosen_alone in (False, True):
        text = script.grid(speed, "reports/x")
        assert ("chosen by hand: `softmax-numba speed --regimes drawn`" in text) == chosen_alone
        assert ("- Shapes drawn at random: " in text) != chosen_alone
        assert ("the drawn ones it is slower: [reports/x/speed/regimes.md]" in text) != chosen_alone
        speed.cells.pop()


def test_missing_markers_are_refused():
    script = load_script()
    folder = next((ROOT / "reports").glob("*/results.json")).parent
    summary = script.summarise(script.read(folder / script.RESULTS))
    speed = script.read(folder / "speed" / script.RESULTS)
    with pytest.raises(SystemExit, match="picture:begin"):
        script.readme("nothing here", summary, speed, "reports/x")
