"""``python -m softmax_numba.gpu --arch sm_80 sm_90``: compiles every kernel without a GPU and prints what it became.

With ``--keep DIR`` it leaves them there instead, in every number of threads and vectors that a plan can have:
where SOFTMAX_NUMBA_KERNELS names that folder, they need not be compiled again.
"""

import argparse
import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, get_args

from softmax_numba.gpu import table
from softmax_numba.gpu.plan import Sweep
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.tiles import Access


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 if a kernel is at fault."""
    parser = argparse.ArgumentParser(prog="python -m softmax_numba.gpu", description=__doc__)
    parser.add_argument("--arch", nargs="+", choices=table.DEVICES, default=["sm_80", "sm_90"])
    parser.add_argument("--dtype", nargs="+", choices=STORAGES, default=list(STORAGES))
    parser.add_argument("--operation", nargs="+", choices=table.NAMES, default=list(table.NAMES))
    parser.add_argument("--sweep", nargs="+", choices=get_args(Sweep), default=list(get_args(Sweep)))
    parser.add_argument("--access", nargs="+", choices=get_args(Access), default=list(get_args(Access)))
    parser.add_argument("--masks", action="store_true", help="with a mask and temperatures too")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    parser.add_argument("--keep", metavar="DIR", help="leave the kernels in a folder; prints no table")
    how = parser.parse_args(arguments)
    every = how.keep is not None
    jobs: list[Any] = [
        (specimen, arch)
        for arch in how.arch
        for specimen in table.specimens(arch, how.dtype, how.operation, how.sweep, how.masks, every)
        if specimen.plan.access in how.access
    ]
    if every and how.sweep == list(get_args(Sweep)) and how.access == list(get_args(Access)):
        jobs += [(other, arch) for arch in how.arch for other in table.others()]
    with contextlib.ExitStack() as stack:
        over: Callable[..., Iterator[Any]] = map
        if every:
            os.environ["SOFTMAX_NUMBA_KERNELS"] = how.keep  # also for the processes
        if how.jobs > 1:
            over = stack.enter_context(multiprocessing.get_context("spawn").Pool(how.jobs)).imap
        return _kept(over(table.kept, jobs), how.keep) if every else _printed(over(table.compiled, jobs), len(jobs))


def _kept(sizes: Iterator[int], folder: str) -> int:
    found = list(sizes)
    print(f"{len(found)} kernels, {sum(found) / 1e6:.0f} MB, in {folder}")
    return 0


def _printed(rows: Iterator[table.Row], count: int) -> int:
    form = "{:22} {:9} {:20} {:10} {:6} {:>7} {:>5} {:>5} {:>6} {:>5} {:>5} {:>4} {:>5} {}"
    print(form.format(*table.HEAD))
    wrong = 0
    for row in rows:
        print(form.format(*table.line(row)), flush=True)
        wrong += bool(row.faults)
    print(f"{count} kernels, {wrong} at fault")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
