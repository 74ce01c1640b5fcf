"""How many processors a process may use, from the files of Linux's control groups."""

import math

import pytest

from softmax_numba.cpu.cores import quota

SECOND, FIRST = "0::{}", "11:cpuset:/elsewhere\n4:cpu,cpuacct:{}\n1:name=systemd:/elsewhere"


def quota_of(folder, group, form, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    process = folder / "process"
    process.write_text(form.format(group) + "\n")
    return quota(folder, process)


@pytest.mark.parametrize(
    ("group", "form", "files", "expected"),
    [
        ("/", SECOND, {"cpu.max": "max 100000\n"}, math.inf),
        ("/", SECOND, {"cpu.max": "150000 100000\n"}, 1.5),
        ("/pod/box", SECOND, {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "400000 100000\n"}, 4.0),
        ("/pod/box", SECOND, {"pod/box/cpu.max": "50000 50000\n", "pod/cpu.max": "400000 100000\n"}, 1.0),
        ("/pod/box", SECOND, {}, math.inf),
        ("/outside/of/this", SECOND, {"cpu.max": "200000 100000\n"}, 2.0),
        ("/", FIRST, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("/", FIRST, {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("/a", FIRST, {"cpu,cpuacct/a/cpu.cfs_quota_us": "5000", "cpu,cpuacct/a/cpu.cfs_period_us": "10000"}, 0.5),
        ("/", SECOND, {"cpu.max": "something else"}, math.inf),
    ],
)
def test_the_narrowest_group_counts(tmp_path, group, form, files, expected):
    assert quota_of(tmp_path, group, form, files) == expected


def test_no_control_groups_no_limit(tmp_path):
    assert quota(tmp_path, tmp_path / "none") == math.inf


def test_this_process_has_one():
    assert quota() > 0
