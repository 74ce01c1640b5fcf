"""The page in a real browser: its table sorts and filters, its links lead somewhere, it fits a telephone and prints."""

import base64
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from browser import started
from report_cases import FASTER, LOSING, made_up_results

from softmax_numba.report.folder import PAGE, write_all

REPORTS = Path(__file__).resolve().parent.parent / "reports"
VISIBLE = "[...document.querySelectorAll('#table tbody tr')].filter(row => !row.hidden).map(row => row.dataset.cell)"
KEYS = "[...document.querySelectorAll('#table tbody tr')].map(row => row.cells[{column}].dataset.key ?? null)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with started(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small report with its grid beside it."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "speed").mkdir()
    write_all(folder / "speed", made_up_results(replace(FASTER, op="logsumexp"), command="softmax-numba speed"))
    write_all(folder, made_up_results(FASTER, LOSING))
    return folder


@pytest.fixture
def page(browser, folder):
    browser.width(1280)
    browser.open((folder / PAGE).as_uri())
    yield browser
    assert browser.complaints == []


def head(page, text):
    columns = page.run("[...document.querySelectorAll('#table thead th')].map(head => head.textContent)")
    return columns.index(text)


def test_a_click_sorts_by_the_number_and_again_the_other_way(page):
    column = head(page, "vs NumPy")
    button = f"document.querySelectorAll('#table thead th button')[{column}]"
    found = {}
    for direction in ("ascending", "descending"):
        page.run(f"{button}.click()")
        assert page.run(f"{button}.parentElement.getAttribute('aria-sort')") == direction
        found[direction] = [float(key) for key in page.run(KEYS.format(column=column))]
    assert found["ascending"] == sorted(found["ascending"])
    assert found["descending"] == found["ascending"][::-1] != found["ascending"]


def test_cells_without_a_number_come_last_either_way(page):
    column = head(page, "GB/s")
    for _ in range(2):
        page.run(f"document.querySelectorAll('#table thead th button')[{column}].click()")
        keys = page.run(KEYS.format(column=column))
        assert keys[-1] is None and None not in keys[:-1]


def test_the_keyboard_is_enough(page):
    page.run("document.querySelector('#table thead button').focus()")
    page.press("Enter", 13)
    assert page.run("document.querySelector('#table thead th').getAttribute('aria-sort')") == "ascending"
    page.press("Tab", 9)
    assert page.run("document.activeElement.closest('th').cellIndex") == 1


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("verdict", "slower", ["single-1x10 softmax float32"]),
        ("run", "grid", ["classifier-head logsumexp float32"]),
        ("text", "Single softmax", ["single-1x10 softmax float32"]),
        ("text", "nothing like it", []),
    ],
)
def test_filters_leave_what_fits(page, field, value, left):
    page.run(
        f"{{ const field = document.getElementById('filters').elements['{field}']; field.value = {value!r};"
        "field.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    assert page.run(VISIBLE) == left
    assert page.run("document.querySelector('#filters output').textContent") == f"{len(left)} of 3 cells"


def test_every_link_leads_to_a_file_or_a_place(page, folder):
    links = page.run("[...document.links].map(link => link.getAttribute('href'))")
    assert {"results.csv", "results.json", "speed/results.csv", "speed/results.json"} <= set(links)
    for link in links:
        if link.startswith("#"):
            assert page.run(f"document.getElementById({link[1:]!r}) !== null"), link
        else:
            assert (folder / link).is_file(), link


@pytest.mark.parametrize("width", [1280, 375])
def test_nothing_overflows_and_every_picture_is_shown(page, width):
    page.width(width)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("Promise.all([...document.images].map(i => i.decode())).then(() => document.images.length)") >= 4
    assert page.run("[...document.images].every(image => image.naturalWidth > 300)")


def test_without_scripts_the_table_stands_there_whole(page):
    page("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(page.run("location.href"))
        page("Emulation.setScriptExecutionDisabled", value=False)
        assert page.run("document.getElementById('filters').hidden")
        assert len(page.run(VISIBLE)) == 3
        assert page.run("document.querySelectorAll('#table button').length") == 0
    finally:
        page("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(page):
    sheet = base64.b64decode(page("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert sheet.startswith(b"%PDF-") and len(sheet) > 20_000


@pytest.mark.parametrize("path", sorted(REPORTS.rglob(PAGE)), ids=lambda path: path.parent.name)
def test_published_pages(browser, tmp_path, path):
    """Those in reports/ as they are, on a telephone."""
    copy = shutil.copytree(path.parent, tmp_path / "copy")
    browser.width(375)
    browser.open((copy / PAGE).as_uri())
    assert browser.run("document.documentElement.scrollWidth") <= 375
    for link in browser.run("[...document.links].map(link => link.getAttribute('href'))"):
        assert link.startswith("#") or (copy / link).is_file(), link
    assert browser.complaints == []
