"""How many processors this process may keep busy: those it may run on, and no more than a control group allows.

A container that was given the time of two processors still sees all of the machine's. Threads that wait for work by
looking for it use up that time, and then the kernel stops everybody until the next tenth of a second.
"""

import contextlib
import functools
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def _read(place: Path, names: tuple[str, ...]) -> list[str]:
    """The words of these files of a group, none if one of them is missing."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return [word for name in names for word in (place / name).read_text().split()]
    return []


def _limits(groups: Path, process: Path) -> Iterator[float]:
    for line in _read_lines(process):
        _, controllers, path = line.split(":", 2)
        # The second version has one tree, the first one a tree for each set of controllers.
        trees, files = [groups], ("cpu.max",)
        if controllers:
            if "cpu" not in controllers.split(","):
                continue
            trees, files = [groups / "cpu", groups / controllers], ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        inside = PurePosixPath(path).relative_to("/")
        for tree in trees:
            for group in (inside, *inside.parents):  # the narrowest of all that it is in
                words = _read(tree / group, files)
                if len(words) == 2 and words[0] not in ("max", "-1"):
                    yield int(words[0]) / int(words[1])


def _read_lines(file: Path) -> list[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text().splitlines()
    return []


def quota(groups: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> float:
    """How many processors' time Linux's control groups give this process; infinite where nothing limits it."""
    with contextlib.suppress(ValueError, ZeroDivisionError):  # nothing that a kernel writes
        return min(_limits(groups, process), default=math.inf)
    return math.inf


_quota = functools.cache(quota)


def cores() -> int:
    """How many threads may run at the same time; 1 where that is not known."""
    if sys.platform != "linux":
        return 1
    return max(1, math.floor(min(len(os.sched_getaffinity(0)), _quota())))
