"""The summary as text: sentences, and the table's cells."""

from collections.abc import Sequence

from softmax_numba.bench.results import Results
from softmax_numba.report import errors
from softmax_numba.report.summary import FASTER, LEVEL, SLOWER, Row, Summary
from softmax_numba.report.words import bytes_text, digits_text, ratio_text, ulp_text

__all__ = ["cells", "columns", "facts", "headline", "markdown", "pipes"]


def headline(summary: Summary) -> list[str]:
    """The results in a few sentences."""
    lines = []
    for s in summary.standings:
        if s.mean is None:
            lines.append(f"{s.title}: no cell to compare.")
            continue
        cell, worst = s.ratios[0]
        lines.append(
            f"{s.title}: {ratio_text(s.mean.median)} as fast in the geometric mean of {len(s.ratios)} cells "
            f"(20–80 %: {digits_text(s.mean.low)}–{digits_text(s.mean.high)}); faster in {s.count(FASTER)}, level in "
            f"{s.count(LEVEL)}, slower in {s.count(SLOWER)}; least: {ratio_text(worst.median)} in {cell.label}."
        )
    if summary.share is not None:
        lines.append(f"Of the fastest plain copy of the same bytes: {100 * summary.share.median:.0f} % in the mean.")
    peers = ", ".join(f"{s.title} {ulp_text(s.max_ulp)}" for s in summary.standings)
    lines.append(f"Largest error, in ULP: softmax-numba {ulp_text(summary.max_ulp)}{'; ' + peers if peers else ''}.")
    return lines


def columns(summary: Summary, *, brief: bool = False) -> list[str]:
    """The table's headings."""
    titles = [peer.title for peer in summary.results.peers]
    if brief:
        return ["workload", "op", "dtype", "time", "GB/s", *(f"vs {t}" for t in titles), "of copy", "ULP", "peers' ULP"]
    return [
        "workload",
        "op",
        "dtype",
        "time",
        "GB/s",
        *(f"vs {title}" for title in titles),
        "of copy",
        "max ULP",
        *(f"{title} ULP" for title in titles),
    ]


def cells(summary: Summary, row: Row, *, brief: bool = False) -> list[str]:
    """One row of the table; briefly: without the shape and the quantiles of the ratios."""
    names = [peer.name for peer in summary.results.peers]
    if brief:
        ratios = [f"{row.ratios[name]} {row.marks.get(name, '')}".rstrip() for name in names]
        return [row.title, row.op, row.dtype, row.time, row.gigabytes, *ratios, row.share, row.ulp, row.worst_peer_ulp]
    return [
        f"{row.title} {row.shape}",
        row.op,
        row.dtype,
        row.time if row.status == "ok" else f"{row.time} {row.status}",
        row.gigabytes,
        *(row.ratio_cell(name) for name in names),
        row.share,
        f"{row.ulp} > promised" if row.ulp_exceeds else row.ulp,
        *(row.peer_ulps[name] for name in names),
    ]


def facts(results: Results) -> list[tuple[str, str]]:
    """How it was measured, as (what, value)."""
    machine = results.machine
    caches = ", ".join(
        f"L{c.level} {bytes_text(c.bytes)}{f' × {c.instances}' if c.instances > 1 else ''}" for c in machine.caches
    )
    cores = f"{machine.cores or '?'} cores, {machine.threads} hardware threads usable"
    memory = "" if machine.memory_bytes is None else f"; {bytes_text(machine.memory_bytes)} of memory"
    load = "unknown" if machine.load is None else f"{machine.load:g} at the start"
    loads = [cell.load for cell in results.cells if cell.load is not None]
    if loads:
        load += f", {min(loads):g} to {max(loads):g} while measuring, which is a load itself"
    turbo = {True: "; turbo: on", False: "; turbo: off", None: ""}[machine.turbo]
    rounds = sum(len(m.seconds) for cell in results.cells for m in cell.measurements)
    pairs = [
        ("Processor", f"{machine.cpu} ({machine.microarchitecture}), {machine.vectors}"),
        ("Cores", cores + memory),
        ("Caches", caches or "unknown"),
        ("System", machine.system),
        ("Threads used", f"{results.threads} (threading layer: {results.threading_layer or 'not known'})"),
        ("Load", load + (f"; frequency governor: {machine.governor}" if machine.governor else "") + turbo),
        ("Samples", f"{rounds:,} timed, {results.discarded_rounds or 'none'} thrown away"),
        ("Versions", ", ".join([f"Python {machine.python}", *(f"{n} {v}" for n, v in machine.versions.items())])),
        ("Date", f"{results.started} to {results.finished or '(not finished)'}"),
        ("Mode", f"{results.mode}, seed {results.seed}; {len(results.cells)} of {results.planned} cells measured"),
    ]
    if results.input is not None:
        i = results.input
        key = f" [{i['key']}]" if i["key"] else ""
        pairs.insert(0, ("Input", f"{i['file']}{key}: shape {tuple(i['shape'])}, {i['dtype']}, axis {i['axis']}"))
    return pairs


def markdown(summary: Summary, grid: Results | None = None) -> str:
    """``summary.md``; with the grid of regimes on the same machine, its errors are among the largest."""
    results = summary.results
    lines = ["# softmax-numba, measured", ""]
    if results.state == "interrupted":
        lines += [f"**Interrupted: {len(results.cells)} of {results.planned} cells were measured.**", ""]
    lines += [f"- {line}" for line in headline(summary)]
    lines += ["", "How to repeat it:", "", f"    {results.command}", ""]
    lines += [f"- {what}: {value}" for what, value in facts(results)]
    lines += ["", *pipes([columns(summary), *(cells(summary, row) for row in summary.rows)])]
    lines += [
        "",
        "Ratios: the peer's time over ours, taken round by round; median and, in brackets, the 20 % and 80 % "
        "quantiles; above 1 we are faster. GB/s: bytes of input and output over the median time. Of copy: the "
        "share of the fastest plain copy (logsumexp: read) of the same bytes with as many threads.",
    ]
    of_what = "" if grid is None else ", of these cells and those of the grid"
    lines += ["", f"## Largest errors{of_what}", ""]
    lines += [*pipes(errors.table([results] if grid is None else [results, grid])), "", errors.NOTE]
    if summary.losing:
        lines += ["", "## Where it is slower", ""]
        lines += [f"- {title}: {ratio_text(r.median)} in {cell.label}" for title, cell, r in summary.losing]
    if summary.missing or summary.notes:
        lines += ["", "## Not compared, or not right", ""]
        lines += [f"- {title} took no part: {reason}" for title, reason in summary.missing]
        lines += [f"- {n.contender}, {n.status}: {n.reason} ({'; '.join(n.cells)})" for n in summary.notes]
    return "\n".join(lines) + "\n"


def pipes(rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its headings first."""
    heads, *others = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return ["| " + " | ".join(row) + " |" for row in [heads, ["---"] * len(heads), *others]]
