"""Whether `make asv` can be believed: the same sources against themselves, and against a kernel made 30 % slower.

    python scripts/asv_trial.py same        the same sources, three times: no benchmark may change, either way
    python scripts/asv_trial.py slowdown    woven.py made 30 % slower: its benchmarks regress, and no others

Either works in a temporary clone of the last commit, to which it adds the commit to compare; nothing of it stays. Exits
with 1 if `asv continuous` says anything else than it should.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Three of the seven ops: a kernel's other ops share its sums. Everything: --bench '^kernels'.
FAMILY = r"^kernels.*\('(softmax|log_softmax|logsumexp)'"
# After each share three sevenths of its time are waited: 30 % fewer a second on any machine, and the same results.
# (Lanes that are computed once more come from a cache, and take less.)
SLOWED = Path("softmax_numba/cpu/woven.py")
BODY = """\
    return compiled(sweep, f"{operation.name}_woven", body=True)
"""
SLOWER_BODY = """\
    from llvmlite import ir
    from numba import types
    from numba.core.cgutils import get_or_insert_function
    from numba.extending import intrinsic

    once = compiled(sweep, f"{operation.name}_woven_once", body=True)

    @intrinsic
    def ticks(typing):
        def emit(context, builder, sig, args):
            kind = ir.FunctionType(ir.IntType(64), [])
            return builder.call(get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), [])

        return types.int64(), emit

    def slower(x, mask, temperature, out, first, last, past_cache):
        begin = ticks()
        once(x, mask, temperature, out, first, last, past_cache)
        end = ticks()
        end += (end - begin) * 3 // 7
        while ticks() < end:
            pass

    return compiled(slower, f"{operation.name}_woven", body=True)
"""
# Whose benchmarks must be caught: softmax and log_softmax of this workload, and nothing else, are woven.
CAUGHT = "softmax', 'classifier-head'"


@dataclass(frozen=True)
class Line:
    """A line of asv's table: its mark is + for a regression, - for a gain, blank for neither."""

    mark: str
    before: str
    after: str
    ratio: float
    name: str


def lines_of(output: str) -> list[Line]:
    """The table of ``asv continuous``.

    Examples
    --------
    >>> lines_of("| +        | 1.00                 | 1.30                |     1.3 | kernels.time(1) |")
    [Line(mark='+', before='1.00', after='1.30', ratio=1.3, name='kernels.time(1)')]
    """
    found = []
    for text in output.splitlines():
        columns = [column.strip() for column in text.strip().strip("|").split("|")]
        if len(columns) == 5 and re.fullmatch(r"~?\d+(\.\d+)?", columns[3]):
            mark, before, after, ratio, name = columns
            found.append(Line(mark, before, after, float(ratio.lstrip("~")), name))
    return found


def clone_with(folder: Path, change: bool) -> None:
    """A clone of this repository in ``folder`` whose last commit is the one to compare with the one before it."""

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(folder), *words], check=True, stdout=subprocess.DEVNULL)

    folder.mkdir()
    git("init", "--quiet", "--initial-branch", "main")
    git("pull", "--quiet", str(ROOT), "HEAD")
    git("config", "user.name", "asv trial")
    git("config", "user.email", "asv@localhost")
    if change:
        path = folder / SLOWED
        text = path.read_text()
        if text.count(BODY) != 1:
            raise SystemExit(f"{SLOWED} no longer has the line that is to be slowed down: {BODY.strip()}")
        path.write_text(text.replace(BODY, SLOWER_BODY))
    git("commit", "--quiet", "--all", "--allow-empty", "--message", "slower" if change else "the same")


def compare(folder: Path, factor: float, bench: str) -> list[Line]:
    """What ``asv continuous`` says of the last commit and the one before it."""
    command = [sys.executable, "-m", "asv", "continuous", "--factor", str(factor), "--no-only-changed"]
    done = subprocess.run(
        [*command, "--bench", bench, "HEAD~1", "HEAD"], cwd=folder, stdout=subprocess.PIPE, text=True, check=False
    )
    found = lines_of(done.stdout)
    if not found:
        raise SystemExit(f"asv compared nothing:\n{done.stdout}")
    return found


def summary(found: list[Line]) -> str:
    """One line: how many are compared, how many changed, and how far the ratios reach."""
    ratios = sorted(line.ratio for line in found)
    deviation = math.exp(sum(abs(math.log(ratio)) for ratio in ratios) / len(ratios))
    marks = [line.mark for line in found]
    return (
        f"{len(found)} benchmarks: {marks.count('+')} regressions, {marks.count('-')} gains; "
        f"ratios {ratios[0]:.2f} to {ratios[-1]:.2f}, {deviation:.3f} on average"
    )


def shown(found: list[Line]) -> str:
    return "\n".join(
        f"  {line.mark or ' '} {line.before:>12} {line.after:>12} {line.ratio:6.2f}  {line.name}"
        for line in sorted(found, key=lambda line: -line.ratio)
    )


def same(folder: Path, factor: float, bench: str, times: int) -> bool:
    """The same sources ``times`` times against themselves; True if nothing changed."""
    clone_with(folder, change=False)
    good = True
    for turn in range(times):
        found = compare(folder, factor, bench)
        print(f"A/A {turn + 1} of {times}, factor {factor}: {summary(found)}", flush=True)
        changed = [line for line in found if line.mark]
        if changed:
            good = False
            print(shown(changed), flush=True)
    return good


def slowdown(folder: Path, factor: float, bench: str) -> bool:
    """A kernel made slower; True if its benchmarks regress, and none of another kernel."""
    clone_with(folder, change=True)
    found = compare(folder, factor, bench)
    print(f"slow-down of {SLOWED}, factor {factor}: {summary(found)}\n{shown(found)}")
    missed = [line.name for line in found if CAUGHT in line.name and line.mark != "+"]
    stray = [line.name for line in found if line.mark == "+" and CAUGHT not in line.name]
    print(f"missed: {', '.join(missed) or 'none'}; others called regressions: {', '.join(stray) or 'none'}")
    return not missed and not stray


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trial", choices=("same", "slowdown"))
    parser.add_argument("--factor", type=float, default=1.3, help="as of asv continuous (default: 1.3)")
    parser.add_argument("--times", type=int, default=3, help="runs of the same sources (default: 3)")
    parser.add_argument("--bench", default=FAMILY, help="as of asv continuous: a regular expression")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="asv-trial-") as scratch:
        # Kernels of a commit that nobody will run again do not go to the user's cache.
        os.environ.setdefault("SOFTMAX_NUMBA_CACHE_DIR", str(Path(scratch, "kernels")))
        folder = Path(scratch, "clone")
        if chosen.trial == "same":
            good = same(folder, chosen.factor, chosen.bench, chosen.times)
        else:
            good = slowdown(folder, chosen.factor, chosen.bench)
    print("as it should be" if good else "NOT as it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
