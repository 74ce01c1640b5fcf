"""The command line: ``softmax-numba report``, ``speed``, ``compare`` and ``info``.

Only the standard library is imported here; what a command needs, it imports when it runs.
"""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["main"]

BAD_REQUEST, FAILED, INTERRUPTED = 2, 1, 130
_EXIT_CODES = """exit codes:
  0    done
  1    softmax-numba's own result was wrong or failed in some cell, or the report could not be written
  2    the request cannot be carried out: one line says why, nothing was measured or written
  130  interrupted: the report holds what was measured until then, and says so
"""


class _Parser(argparse.ArgumentParser):
    """An error is one line, like every other error of this program."""

    def error(self, message: str) -> NoReturn:
        raise _UsageError(f"{message} (see: {self.prog} --help)")


class _UsageError(Exception):
    pass


def _parser() -> argparse.ArgumentParser:
    from softmax_numba import __version__

    parser = _Parser(
        prog="softmax-numba",
        description="Softmax, log-softmax and logsumexp on the CPU: what they gain on this machine, and what a bug "
        "report needs to say about it.",
    )
    parser.add_argument("--version", action="version", version=f"softmax-numba {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_report(commands)
    _add_speed(commands)
    _add_compare(commands)
    machines = commands.add_parser(
        "machines",
        help="the reports of several machines side by side",
        description="Write index.html into a folder that has a folder a machine: a row a machine, a table a workload. "
        "`softmax-numba report machines` is the same.",
    )
    machines.add_argument("folder", type=Path, metavar="DIR", help="such as reports/")
    info = commands.add_parser(
        "info",
        help="versions, CPU, caches, threading layer, cache folder: what a bug report needs",
        description="Print versions, CPU and caches, vector width, threading layer, cache folder and GPU. "
        "The threading layer is found out by one parallel call in a process of its own.",
    )
    info.add_argument("--json", action="store_true", help="as a JSON object")
    return parser


def _add_report(commands: Any) -> None:
    from softmax_numba.bench.peers import PEERS, USUAL
    from softmax_numba.bench.workloads import DTYPES, OPS, WORKLOADS

    report = commands.add_parser(
        "report",
        help="compare with NumPy, SciPy and PyTorch on this machine",
        description="Check every result against extended precision, time it in rounds with its peers and a plain copy\n"
        "of the same bytes, and write results.json, results.csv, summary.md, index.html and figures/ into a folder.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = report.add_argument
    add("--out", type=Path, metavar="DIR", help="the folder (default: softmax-report; with --from, the file's own)")
    add(
        "--from",
        type=Path,
        metavar="FILE",
        dest="source",
        help="write the report of a results.json, or of its folder, anew; no timing",
    )
    add("--list", action="store_true", help="print workloads, ops and peers, and why one is missing; measure nothing")
    effort = report.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="at most 3 minutes on 2 cores (default)")
    effort.add_argument(
        "--full", action="store_true", help="all dtypes, more rounds, every result checked: up to half an hour"
    )
    names = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME"}
    add("--ops", **names, help=f"of: {', '.join(OPS)} (default: all)")
    add("--dtypes", **names, help=f"of: {', '.join(DTYPES)} (default: what each workload has in life)")
    add("--peers", **names, help=f"of: {', '.join(PEERS)} (default: {' '.join(USUAL)})")
    add("--workloads", **names, help=f"of: {', '.join(WORKLOADS)} (default: all, or only --input)")
    add("--threads", type=int, metavar="N", help="for softmax-numba, PyTorch and the copy (default: all there are)")
    add("--input", type=Path, metavar="FILE", help="measure your own array: a .npy or .npz file")
    add("--axis", type=int, metavar="A", help="the axis of --input to reduce (default: -1)")
    add("--key", metavar="KEY", help="which array of a .npz file")
    add("--seed", type=int, metavar="S", help="of the arrays' values and the order of timing (default: 0)")


def _add_speed(commands: Any) -> None:
    from softmax_numba.bench.drawn import COUNT

    speed = commands.add_parser(
        "speed",
        help="the grid of regimes: sizes, dtypes, layouts and options against PyTorch, with goals",
        description="Time softmax-numba and PyTorch in rounds over the grid of regimes, with a plain copy and the\n"
        "bare exponential of the same elements, and over shapes drawn at random; then a map of lengths and numbers of\n"
        "lanes, and one lane of every size with every number of threads. Write regimes.md, growth.svg and .png,\n"
        "results.json and results.csv into a folder.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = speed.add_argument
    add("--out", type=Path, default=Path("softmax-speed"), metavar="DIR", help="the folder (default: %(default)s)")
    add("--regimes", nargs="+", action="extend", default=[], metavar="NAME", help="which (default: all; --list)")
    add("--list", action="store_true", help="print the regimes, their goals and cells, and measure nothing")
    add("--threads", type=int, metavar="N", help="for both and the copy (default: all there are)")
    add("--drawn", type=int, metavar="N", help=f"how many cells the regime drawn has: the first N (default: {COUNT})")
    add("--drawn-seed", type=int, metavar="S", help="of these cells: shapes, axes, ops and dtypes (default: 0)")
    add("--seed", type=int, metavar="S", help="of the arrays' values and the order of timing (default: 0)")


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="two results files side by side, with what is outside the noise marked",
        description="Print the cells that two reports have in common, from what lost most to what gained most. A cell\n"
        "is faster or slower if every peer and copy that both runs timed beside it says so: the middle three fifths\n"
        "of the ratios do not overlap. `softmax-numba report compare` is the same.",
        epilog="exit codes:\n  0    done\n  1    a cell is slower, and --strict was given\n"
        "  2    a file cannot be read, or the two have no cell in common\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("before", type=Path, metavar="A", help="a results.json, or the folder of a report")
    compare.add_argument("after", type=Path, metavar="B", help="another")
    compare.add_argument("--strict", action="store_true", help="exit with 1 if a cell is slower")


def _split(names: Sequence[str]) -> list[str]:
    """``a,b c`` names three things."""
    return [part for name in names for part in name.split(",")]


# What says what to measure, and how.
_WHAT = ("ops", "dtypes", "peers", "workloads", "input", "axis", "key", "drawn", "drawn_seed")
_HOW = ("quick", "full", "threads", "seed")


def _refuse_measuring(options: argparse.Namespace, beside: str) -> None:
    """Says so where an option is given that measures, beside one with which nothing is measured."""
    for name in (*_WHAT, *_HOW):
        given = getattr(options, name, None)
        if given is not None and given is not False and given != []:
            option = name.replace("_", "-")
            raise _UsageError(f"--{option} has no meaning with {beside}: nothing is measured")


def _report(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    if options.list:
        _refuse_measuring(options, "--list")
        from softmax_numba.bench.catalogue import lines

        print("\n".join(lines()))
        return 0
    from softmax_numba.report.command import Request, execute, prepare, rewrite

    if options.source is not None:
        _refuse_measuring(options, "--from")
        print(f"report: {rewrite(options.source, options.out).resolve()}")
        return 0
    prepared = prepare(
        Request(
            out=options.out or Path("softmax-report"),
            command=shlex.join(["softmax-numba", *arguments]),
            full=options.full,
            ops=_split(options.ops),
            dtypes=_split(options.dtypes),
            peers=_split(options.peers),
            workloads=_split(options.workloads),
            threads=options.threads,
            input=options.input,
            key=options.key,
            axis=options.axis,
            seed=options.seed or 0,
        )
    )
    from rich.console import Console

    return execute(prepared, Console(highlight=False))


def _speed(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from softmax_numba.bench import regimes

    if options.list:
        _refuse_measuring(options, "--list")
        for regime in regimes.REGIMES.values():
            cells = f"{len(regime.tasks)} cell{'s' if len(regime.tasks) > 1 else ''}"
            print(f"{regime.name}: {regime.title}, {regime.goal:g}x PyTorch or more, {cells}")
        print(f"map: a grid of lengths and numbers of lanes, {len(regimes.MAP)} cells")
        print(f"growth: one lane of every size, with every number of threads, {len(regimes.GROWTH)} cells")
        return 0
    from rich.console import Console

    from softmax_numba.report.command import Request, execute, prepare_grid

    request = Request(
        out=options.out,
        command=shlex.join(["softmax-numba", *arguments]),
        threads=options.threads,
        seed=options.seed or 0,
        drawn=options.drawn,
        drawn_seed=options.drawn_seed,
    )
    return execute(prepare_grid(request, _split(options.regimes)), Console(highlight=False))


def _compare(options: argparse.Namespace) -> int:
    from rich.console import Console

    from softmax_numba.bench.requests import RequestError
    from softmax_numba.report.compare import SLOWER, changes, load, same_setting
    from softmax_numba.report.terminal import print_changes

    before, after = load(options.before), load(options.after)
    found = list(changes(before, after))
    if not found:
        raise RequestError(f"{options.before} and {options.after} have no cell in common")
    print_changes(Console(highlight=False), found, same_setting(before, after))
    return FAILED if options.strict and any(change.verdict == SLOWER for change in found) else 0


def _machines(options: argparse.Namespace) -> int:
    from softmax_numba.report.command import check_installed

    check_installed()
    from softmax_numba.report.machines import write

    print(f"report: {write(options.folder).resolve()}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from softmax_numba.bench.info import collect, lines

    facts = collect()
    print(json.dumps(facts, indent=2, ensure_ascii=False) if options.json else "\n".join(lines(facts)))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of the process.

    Returns
    -------
    int
        The exit code.

    Examples
    --------
    >>> main(["report", "--ops", "sofmax"])  # doctest: +SKIP
    2
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    typed = arguments
    if arguments[:2] in (["report", "compare"], ["report", "machines"]):
        arguments = arguments[1:]
    from softmax_numba.bench.requests import RequestError

    try:
        options = _parser().parse_args(arguments)
        if options.command == "info":
            return _info(options)
        if options.command == "compare":
            return _compare(options)
        if options.command == "machines":
            return _machines(options)
        return (_report if options.command == "report" else _speed)(options, arguments)
    except (_UsageError, RequestError) as error:
        return _fail(_as_typed(str(error), typed), BAD_REQUEST)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain once more when it flushes at exit.
        sys.stdout = None
        return FAILED
    except (OSError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__, FAILED)


def _as_typed(message: str, arguments: Sequence[str]) -> str:
    """The message, with the command as the user called it: ``report compare`` is read as ``compare``."""
    if arguments[:1] != ["report"]:
        return message
    return re.sub(r"softmax-numba (compare|machines) --help", r"softmax-numba report \1 --help", message)


def _fail(message: str, code: int) -> int:
    print(f"softmax-numba: error: {' '.join(message.split())}", file=sys.stderr)
    return code
