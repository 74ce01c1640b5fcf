"""Write README.md's picture and tables from a report's results: readme_table.py REPORT_FOLDER [README]

The folder holds a report and, in its own folder ``speed``, the grid of regimes (``softmax-numba speed``). Nothing
between the markers is typed by hand; tests/test_readme.py holds README.md to it.
"""

import re
import sys
from pathlib import Path

from softmax_numba.bench.drawn import is_drawn
from softmax_numba.bench.results import Results, read
from softmax_numba.report import errors, regimes
from softmax_numba.report.folder import RESULTS, write_whole
from softmax_numba.report.summary import Summary, summarise
from softmax_numba.report.text import cells, columns, headline, pipes

ROOT = Path(__file__).resolve().parent.parent


def table(summary: Summary, folder: str) -> str:
    """The table of every cell, the losing ones too, with what it was measured on and how to repeat it."""
    results = summary.results
    versions = ", ".join(f"{name} {version}" for name, version in results.machine.versions.items())
    rows = [columns(summary, brief=True), *(cells(summary, row, brief=True) for row in summary.rows)]
    lines = [
        f"Measured on {results.started[:10]}: {results.machine.cpu} ({results.machine.microarchitecture}), "
        f"{results.threads} threads; Python {results.machine.python}, {versions}. To repeat it: `{results.command}`.",
        f"The whole report, with intervals: [{folder}/summary.md]({folder}/summary.md).",
        "",
        *(f"- {line}" for line in headline(summary)),
        "",
        *pipes(rows),
        "",
        "Time of softmax-numba; `vs`: the library's time over ours, median of interleaved rounds (≈ level, ▼ slower);",
        "of copy: share of the speed of a plain copy of the same bytes (logsumexp: a read); ULP: largest error.",
    ]
    return "\n".join(lines)


def grid(results: Results, folder: str) -> str:
    """A row a regime, and where the cells stand: the chosen ones, and those whose shapes were drawn at random."""
    lines = [f"- {line}" for line in regimes.headline(regimes.lines(results))]
    what = "Every cell, and in which of the drawn ones it is slower"
    if not any(is_drawn(cell.workload) for cell in results.cells):
        lines += [
            "- All of them were chosen by hand: `softmax-numba speed --regimes drawn` measures shapes drawn at random."
        ]
        what = "Every cell"
    lines += ["", *pipes(regimes.brief_table(results)), ""]
    lines += [f"{what}: [{folder}/speed/regimes.md]({folder}/speed/regimes.md). To repeat it: `{results.command}`."]
    return "\n".join(lines)


def largest_errors(results: Results, speed: Results) -> str:
    """A row an operation and dtype, of all cells of the report and the grid."""
    return "\n".join([*pipes(errors.table([results, speed])), "", errors.NOTE])


def readme(text: str, summary: Summary, speed: Results, folder: str) -> str:
    """``text`` with picture and tables brought up to date."""
    picture = f"![How many times as fast as each library, cell by cell]({folder}/figures/speed.svg)"
    contents = {
        "picture": picture,
        "table": table(summary, folder),
        "grid": grid(speed, folder),
        "errors": largest_errors(summary.results, speed),
    }
    for marker, content in contents.items():
        pattern = re.compile(rf"(<!-- {marker}:begin -->\n).*?(<!-- {marker}:end -->)", re.DOTALL)
        text, found = pattern.subn(lambda match, c=content: f"{match[1]}{c}\n{match[2]}", text)
        if found != 1:
            raise SystemExit(f"README has {found} places marked {marker}:begin to {marker}:end; there must be one")
    return text


def main(arguments: list[str]) -> None:
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    folder, path = Path(arguments[0]), Path(arguments[1]) if len(arguments) == 2 else ROOT / "README.md"
    if not folder.resolve().is_relative_to(ROOT) or not (folder / RESULTS).is_file():
        raise SystemExit(f"{folder} has no {RESULTS}, or is not in {ROOT}")
    shown = folder.resolve().relative_to(ROOT).as_posix()
    speed = read(folder / "speed" / RESULTS)
    write_whole(path, readme(path.read_text(), summarise(read(folder / RESULTS)), speed, shown))


if __name__ == "__main__":
    main(sys.argv[1:])
