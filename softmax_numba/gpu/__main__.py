"""``python -m softmax_numba.gpu --arch sm_80 sm_90``: compiles every kernel without a GPU and prints what it became."""

import argparse
import contextlib
import multiprocessing
import sys
from collections.abc import Iterator
from typing import get_args

from softmax_numba.gpu import table
from softmax_numba.gpu.plan import Sweep
from softmax_numba.gpu.storage import STORAGES


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; 1 if a kernel is at fault."""
    parser = argparse.ArgumentParser(prog="python -m softmax_numba.gpu", description=__doc__)
    parser.add_argument("--arch", nargs="+", choices=table.DEVICES, default=["sm_80", "sm_90"])
    parser.add_argument("--dtype", nargs="+", choices=STORAGES, default=list(STORAGES))
    parser.add_argument("--operation", nargs="+", choices=table.NAMES, default=list(table.NAMES))
    parser.add_argument("--sweep", nargs="+", choices=get_args(Sweep), default=list(get_args(Sweep)))
    parser.add_argument("--masks", action="store_true", help="with a mask and temperatures too")
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    how = parser.parse_args(arguments)
    jobs = [
        (specimen, arch)
        for arch in how.arch
        for specimen in table.specimens(arch, how.dtype, how.operation, how.sweep, how.masks)
    ]
    form = "{:22} {:9} {:20} {:10} {:6} {:>7} {:>5} {:>5} {:>6} {:>5} {:>5} {:>4} {:>5} {}"
    print(form.format(*table.HEAD))
    wrong = 0
    with contextlib.ExitStack() as stack:
        rows: Iterator[table.Row] = map(table.compiled, jobs)
        if how.jobs > 1:
            rows = stack.enter_context(multiprocessing.get_context("spawn").Pool(how.jobs)).imap(table.compiled, jobs)
        for row in rows:
            print(form.format(*table.line(row)), flush=True)
            wrong += bool(row.faults)
    print(f"{len(jobs)} kernels, {wrong} at fault")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
