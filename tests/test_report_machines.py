"""Reports of several machines on one page; one machine is enough."""

from dataclasses import replace

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from report_cases import FASTER, LOSING, MACHINE, made_up_results

from softmax_numba.bench.requests import RequestError
from softmax_numba.cli import main
from softmax_numba.report import machines
from softmax_numba.report.folder import write_results


@pytest.fixture
def folder(tmp_path):
    """Two machines: the second has fewer cells, and a loss."""
    for name, cells in (("alpha", (FASTER, LOSING)), ("beta", (LOSING,))):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, made_up_results(*cells, machine=replace(MACHINE, cpu=f"{name} <&>")))
    return tmp_path


def test_a_row_a_machine_and_a_table_a_workload(folder, capsys):
    assert main(["report", "machines", str(folder)]) == 0
    assert capsys.readouterr().out == f"report: {folder / 'index.html'}\n"
    text = (folder / "index.html").read_text(encoding="utf-8")
    for name in ("alpha", "beta"):
        assert text.count(f'data-machine="{name}"') == 1
        assert f'<a href="{name}/index.html">' in text and f"{name} &lt;&amp;&gt;" in text
    single = text[text.index('data-workload="single-1x10"') :]
    assert single.count("▼ slower") == 2
    assert text[: text.index('data-workload="single-1x10"')].count("▼ slower") == 0
    means = {entry.name: entry.mean("torch").median for entry in machines.entries(folder)}
    assert means["beta"] == pytest.approx(0.5) and means["alpha"] == pytest.approx(1.0)


def test_one_machine_is_enough(folder):
    (only,) = (entry for entry in machines.entries(folder) if entry.name == "beta")
    text = machines.render([only])
    assert "softmax-numba on 1 machine<" in text and text.count("data-machine") == 1


def test_a_folder_without_reports_is_refused(tmp_path, capsys):
    with pytest.raises(RequestError, match=r"has no folder with a results\.json"):
        machines.entries(tmp_path)
    assert main(["report", "machines", str(tmp_path)]) == 2
    assert "a folder a machine is expected there" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
