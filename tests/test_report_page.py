"""The page and its companions say what the stored rounds say, in one file that needs no other."""

import base64
import html.parser
import math
import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from report_cases import FASTER, LOSING, MACHINE, accuracy, made_up_cell, made_up_results

from softmax_numba.bench.timing import Spread
from softmax_numba.report import errors
from softmax_numba.report.gallery import draw
from softmax_numba.report.page import render
from softmax_numba.report.summary import summarise, verdict
from softmax_numba.report.text import markdown

RESULTS = made_up_results(FASTER, LOSING)


class Page(html.parser.HTMLParser):
    """Attributes that load or lead somewhere, and the text of each table row by its cell."""

    def __init__(self, text):
        super().__init__()
        self.links, self.rows, self.alts, self._row = [], {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.links += [(tag, known[name]) for name in ("src", "href", "srcset", "data", "action") if name in known]
        if tag == "img":
            self.alts.append(known.get("alt", ""))
        if tag == "tr":
            self._row = known.get("data-cell")

    def handle_data(self, data):
        if self._row:
            self.rows.setdefault(self._row, []).append(data.strip())


@pytest.fixture(scope="module")
def pictures():
    return draw(RESULTS)


@pytest.fixture(scope="module")
def page(pictures):
    return render(summarise(RESULTS), pictures)


def test_page_needs_nothing_from_outside(page, pictures):
    """What it shows stands in it; what it links to lies beside it."""
    links = Page(page).links
    assert [link for tag, link in links if tag == "img" and not link.startswith("data:")] == []
    assert [link for tag, link in links if tag not in ("img", "a")] == []
    files = {link for tag, link in links if tag == "a" and not link.startswith("#")}
    assert files == {"results.csv", "results.json", "summary.md", *(f"figures/{p.name}.svg" for p in pictures)}
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert page.count("<script") == 1


def test_cells_of_the_grid_stand_in_the_table_too():
    lost = replace(LOSING, op="logsumexp")
    text = render(summarise(made_up_results(FASTER)), (), (), made_up_results(lost, command="softmax-numba speed"))
    assert set(Page(text).rows) == {"classifier-head softmax float32", "single-1x10 logsumexp float32"}
    losing = text[text.index('id="losing"') : text.index('id="pictures"')]
    assert "as fast as PyTorch: logsumexp of single-1x10 float32" in losing


def test_pictures_are_embedded_whole(page, pictures):
    sources = [link for tag, link in Page(page).links if tag == "img"]
    assert [base64.b64decode(source.split(",", 1)[1]) for source in sources] == [p.svg for p in pictures]
    assert [p.name for p in pictures] == ["speed", "bandwidth", "accuracy", "tradeoff", "latency"]
    assert all(alt.startswith(p.title) for alt, p in zip(Page(page).alts, pictures, strict=True))


def test_ratios_on_the_page_are_those_of_the_rounds(page):
    row = " ".join(Page(page).rows["classifier-head softmax float32"])
    for peer in ("numpy", "torch"):
        theirs, ours = FASTER.named(peer).seconds, FASTER.ours.seconds
        low, median, high = np.percentile(np.array(theirs) / np.array(ours), [20, 50, 80])
        assert f"{median:.2f}×" in row
        assert f"{low:.2f}–{high:.2f}" in row


def test_geometric_mean_on_the_page_is_that_of_the_cells(page):
    medians = [np.median(np.array(c.named("numpy").seconds) / np.array(c.ours.seconds)) for c in RESULTS.cells]
    mean = math.exp(np.mean(np.log(medians)))
    shown = re.search(r'data-mean="numpy">([\d.]+)×', page)
    assert float(shown[1]) == pytest.approx(mean, abs=0.005)


def test_losing_cells_are_listed_and_marked_in_words(page):
    losing = page[page.index('id="losing"') : page.index('id="pictures"')]
    assert "as fast as PyTorch: softmax of single-1x10 float32" in losing
    assert "NumPy" not in losing
    row = " ".join(Page(page).rows["single-1x10 softmax float32"])
    assert "▼ slower" in row
    assert "slower" not in " ".join(Page(page).rows["classifier-head softmax float32"])


def test_nothing_lost_is_said_too():
    text = render(summarise(made_up_results(FASTER)), ())
    assert "Nowhere in these 1 cells" in text


def test_missing_peer_command_and_machine_are_on_the_page(page):
    assert "SciPy took no part: scipy is not installed" in page
    assert "<pre>softmax-numba report --quick</pre>" in page
    assert "Some CPU &lt;X&gt;" in page, "names are escaped"
    assert "2026-01-02" in page


def test_interrupted_run_says_so():
    text = render(summarise(made_up_results(FASTER, state="interrupted", planned=9)), ())
    assert "Interrupted." in text
    assert "1 of 9 cells" in text.replace("\n", " ")


def test_own_array_is_named():
    own = {"file": "dir/my logits.npz", "key": "a&b", "shape": [3, 4], "dtype": "float16", "axis": 1}
    text = render(summarise(made_up_results(FASTER, input=own)), ())
    for part in ("dir/my logits.npz", "a&amp;b", "(3, 4)", "float16", "axis 1"):
        assert part in text


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (1.7, True), (None, False)])
def test_a_busy_machine_is_admitted(load, busy):
    text = render(summarise(made_up_results(FASTER, machine=replace(MACHINE, load=load))), ())
    assert ("The machine was busy" in text) == busy


def changed(cell, name, **changes):
    measurements = tuple(replace(m, **changes) if m.name == name else m for m in cell.measurements)
    return replace(cell, measurements=measurements)


def test_wrong_peer_takes_no_part_in_means_and_is_listed():
    lying = changed(FASTER, "torch", status="wrong", reason="100 % off", accuracy=accuracy(1e7, "100 % off"))
    summary = summarise(made_up_results(lying, LOSING))
    torch = next(s for s in summary.standings if s.peer == "torch")
    assert (len(torch.ratios), torch.wrong) == (1, 1)
    text = render(summary, ())
    assert "PyTorch, <strong>wrong</strong>: 100 % off" in text
    assert "wrong" in " ".join(Page(text).rows["classifier-head softmax float32"])


def test_our_wrong_or_inaccurate_result_is_not_hidden():
    wrong = changed(FASTER, "softmax-numba", status="wrong", reason="all NaN", accuracy=accuracy(None, "all NaN"))
    inaccurate = changed(LOSING, "softmax-numba", accuracy=accuracy(4.5))
    summary = summarise(made_up_results(wrong, inaccurate))
    assert not summary.right
    assert [cell.workload for cell in summary.exceeding] == ["single-1x10"]
    rows = Page(render(summary, ())).rows
    assert "wrong" in " ".join(rows["classifier-head softmax float32"])
    assert "> promised" in " ".join(rows["single-1x10 softmax float32"])


@pytest.mark.parametrize(
    ("spread", "word"),
    [
        (Spread(1.5, 1.1, 2.0), "faster"),
        (Spread(1.5, 0.9, 2.0), "level"),
        (Spread(0.9, 0.8, 1.01), "level"),
        (Spread(0.9, 0.8, 0.99), "slower"),
    ],
)
def test_verdict_needs_the_interval_on_one_side(spread, word):
    assert verdict(spread) == word


def test_markdown_holds_headline_command_table_and_losses():
    text = markdown(summarise(RESULTS))
    assert "    softmax-numba report --quick" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 2 + 2 + 1
    assert len({line.count("|") for line in table[:4]}) == len({line.count("|") for line in table[4:]}) == 1
    assert "PyTorch: 0.500× in softmax of single-1x10" in text
    assert "SciPy took no part" in text


def test_without_any_peer_there_is_still_a_report():
    alone = replace(FASTER, measurements=tuple(m for m in FASTER.measurements if m.role != "peer"))
    results = made_up_results(alone, contenders=RESULTS.contenders[:1])
    assert [p.name for p in draw(results)] == ["bandwidth", "accuracy"]
    text = render(summarise(results), ())
    assert "Nothing was there to compare with" in text
    assert markdown(summarise(results))


def test_pictures_of_the_same_results_are_the_same(pictures):
    again = draw(RESULTS)
    assert [p.svg for p in again] == [p.svg for p in pictures]


def test_pictures_draw_every_cell_in_its_row():
    """Rows are added, not dropped: the picture grows with the number of workloads."""
    small = draw(made_up_results(FASTER))[0].svg
    large = draw(RESULTS)[0].svg

    def height(svg):
        return float(re.search(rb'height="([\d.]+)pt"', svg)[1])

    assert height(large) > height(small)


def test_a_peer_a_thousand_times_slower_fits_on_the_page():
    cell = made_up_cell((1e-6, 1e-6, 1e-6), (4e-3, 5e-3, 6e-3), (0.5e-9, 1e-9, 1e-9), workload="single-1x10")
    assert len(draw(made_up_results(cell))) == 4


def test_largest_errors_of_each_operation_and_dtype():
    """Of all cells of all runs, for each library that has any."""
    measured = (replace(m, accuracy=accuracy(99_999.0)) if m.name == "torch" else m for m in LOSING.measurements)
    other = replace(LOSING, measurements=tuple(measured))
    grid = made_up_results(other, replace(other, op="linear_cross_entropy_and_grad", dtype="float64"))
    heads, *rows = errors.table([RESULTS, grid])
    assert heads == ["op", "dtype", "cells", "promised", "softmax-numba", "NumPy", "PyTorch"]
    assert [row[:4] for row in rows] == [
        ["softmax", "float32", "3", "4"],
        ["linear_cross_entropy_and_grad", "float64", "1", "–"],
    ]
    assert [row[-1] for row in rows] == ["99,999", "99,999"]
    assert "## Largest errors, of these cells and those of the grid" in markdown(summarise(RESULTS), grid)
    assert (
        "99,999" in re.search(r'<section id="errors">.*?</section>', render(summarise(RESULTS), (), grid=grid), re.S)[0]
    )
