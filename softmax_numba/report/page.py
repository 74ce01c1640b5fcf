"""The page: one HTML file that holds everything it shows, pictures included; downloads lie beside it."""

from base64 import b64encode
from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from softmax_numba.bench.results import Results
from softmax_numba.report import errors
from softmax_numba.report.drawing import Picture
from softmax_numba.report.gallery import absent
from softmax_numba.report.summary import Row, Summary, summarise
from softmax_numba.report.text import facts
from softmax_numba.report.words import ratio_text, ulp_text

__all__ = ["environment", "render"]


def _data_uri(content: bytes | str, kind: str) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{kind};base64,{b64encode(raw).decode('ascii')}"


def _tuple_text(values: Sequence[int]) -> str:
    return str(tuple(values))


def _key(row: Row, what: str) -> Markup:
    """The attribute that a cell of the table is sorted by."""
    return Markup(f' data-key="{row.keys[what]:.6g}"') if what in row.keys else Markup("")


def environment() -> Environment:
    """Where the templates are, and what they write numbers with."""
    environment = Environment(
        loader=PackageLoader("softmax_numba.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "data_uri": _data_uri,
        "key": _key,
        "ratio": ratio_text,
        "ulp": ulp_text,
        "tuple_text": _tuple_text,
    }
    return environment


def render(
    summary: Summary, pictures: Sequence[Picture], lesson: Sequence[Picture] = (), grid: Results | None = None
) -> str:
    """The page's text.

    Parameters
    ----------
    summary : Summary
    pictures, lesson : sequence of Picture
        Of the results, and of what softmax is: embedded as SVG, in this order.
    grid : Results, optional
        The grid of regimes on the same machine, whose cells stand in the table too.
    """
    results = summary.results
    machine = results.machine
    others = summarise(grid) if grid is not None else None
    peers = {peer.name: peer for run in (results, grid) if run is not None for peer in run.peers}
    rows = [("report", row) for row in summary.rows]
    losing = list(summary.losing)
    if others is not None:
        rows += [("grid", row) for row in others.rows]
        losing += others.losing
    references = dict.fromkeys(
        m.accuracy.reference for cell in results.cells for m in cell.measurements if m.accuracy is not None
    )
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            summary=summary,
            results=results,
            machine=machine,
            ours=results.contenders[0],
            peers=tuple(peers.values()),
            grid=grid,
            rows=rows,
            losing=losing,
            pictures=pictures,
            lesson=lesson,
            absent=absent(pictures),
            others=others,
            # Others' work for more than half a hardware thread.
            busy=machine.load is not None and machine.load > 0.5,
            references=list(references),
            facts=facts(results),
            errors=errors.table([run for run in (results, grid) if run is not None]),
            errors_note=errors.NOTE,
        )
    )
