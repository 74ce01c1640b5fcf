"""The folder that a report is kept in. Every file is written whole: under another name first, then renamed."""

import os
import tempfile
from pathlib import Path

from softmax_numba.bench.results import Results, read
from softmax_numba.report import explained, gallery, growth, regimes
from softmax_numba.report.drawing import QUESTIONS
from softmax_numba.report.page import render
from softmax_numba.report.summary import Summary, summarise
from softmax_numba.report.text import markdown

__all__ = [
    "CSV",
    "FIGURES",
    "GRID",
    "PAGE",
    "REGIMES",
    "RESULTS",
    "SUMMARY",
    "grid_beside",
    "write_all",
    "write_grid",
    "write_results",
    "write_whole",
]

RESULTS, CSV, SUMMARY, PAGE, FIGURES = "results.json", "results.csv", "summary.md", "index.html", "figures"
REGIMES, GRID = "regimes.md", "speed"


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, whatever interrupts."""
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            # mkstemp makes files that only the owner can read.
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_results(folder: Path, results: Results) -> None:
    """Only ``results.json``: after each cell."""
    write_whole(folder / RESULTS, results.to_json())


def _keep_results(folder: Path, results: Results) -> None:
    """A file that holds the same, of this version or an older one, stays as it is."""
    if _read(folder / RESULTS) != results:
        write_results(folder, results)


def grid_beside(folder: Path) -> Results | None:
    """The grid of regimes in the folder's own folder ``speed``; None if none is there that can be read."""
    return _read(folder / GRID / RESULTS)


def _read(path: Path) -> Results | None:
    try:
        return read(path)
    except (OSError, ValueError):
        return None


def write_all(folder: Path, results: Results) -> Summary:
    """Every file of the report, the page last: when it is there, what it speaks of is there."""
    summary, grid = summarise(results), grid_beside(folder)
    pictures, lesson = gallery.draw(results, grid), explained.draw()
    figures = folder / FIGURES
    figures.mkdir(exist_ok=True)
    for picture in (*pictures, *lesson):
        write_whole(figures / f"{picture.name}.svg", picture.svg)
        write_whole(figures / f"{picture.name}.png", picture.png)
    # A picture of an earlier report in this folder that this one has no figures for.
    for name in set(QUESTIONS) - {picture.name for picture in (*pictures, *lesson)}:
        for ending in ("svg", "png"):
            (figures / f"{name}.{ending}").unlink(missing_ok=True)
    _keep_results(folder, results)
    write_whole(folder / CSV, results.to_csv())
    write_whole(folder / SUMMARY, markdown(summary, grid))
    write_whole(folder / PAGE, render(summary, pictures, lesson, grid))
    return summary


def write_grid(folder: Path, results: Results) -> Summary:
    """The files of a grid of regimes: the table, the picture of growing lanes, every round and CSV."""
    _keep_results(folder, results)
    write_whole(folder / CSV, results.to_csv())
    picture = growth.draw(results)
    if picture is not None:
        write_whole(folder / f"{picture.name}.svg", picture.svg)
        write_whole(folder / f"{picture.name}.png", picture.png)
    write_whole(folder / REGIMES, regimes.markdown(results))
    return summarise(results)
