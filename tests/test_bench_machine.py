"""The machine's description: it never fails, and says what it does not know."""

import json
import shutil
import subprocess
import sys

import pytest

from softmax_numba.bench import machine
from softmax_numba.bench.info import collect, lines


def test_description_round_trips_through_json():
    found = machine.describe()
    assert machine.Machine.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_description_of_this_machine():
    found = machine.describe()
    assert found.threads >= 1
    assert {"numpy", "numba", "llvmlite"} <= set(found.versions)
    assert found.python.startswith(".".join(map(str, sys.version_info[:3])))


def test_nothing_known_is_no_error(monkeypatch):
    monkeypatch.setattr(machine, "_read", lambda path: None)
    monkeypatch.setattr(machine, "_output", lambda *command: None)
    monkeypatch.setattr(machine, "_CPUS", machine.Path("/nowhere"))
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (_ for _ in ()).throw(OSError()), raising=False)
    found = machine.describe()
    assert found.cores is None
    assert found.caches == ()
    assert found.load is None
    assert found.cpu


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_commit_that_is_measured(tmp_path, monkeypatch):
    """Of a clone's sources; what is changed beside them, a report say, does not matter."""
    package = tmp_path / "clone" / "package"
    module = package / "bench" / "machine.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(machine, "__file__", str(module))
    assert machine._commit() is None  # no clone

    def git(*arguments):
        identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", "-C", str(package.parent), *identity, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    assert machine._commit() is None  # of no commit yet
    git("add", ".")
    git("commit", "-m", "first")
    (package.parent / "report.md").write_text("")
    assert machine._commit() == git("rev-parse", "--short", "HEAD")
    monkeypatch.setattr(machine, "version", lambda name: "0.1.0")
    assert machine._versions()["softmax-numba"] == f"0.1.0+g{machine._commit()}"
    module.write_text("changed")
    assert machine._commit() == git("rev-parse", "--short", "HEAD") + "-dirty"


def test_caches_are_counted_by_who_shares_them(tmp_path, monkeypatch):
    for cpu in range(4):
        for index, (level, kind, size, shared) in enumerate(
            [(1, "Data", "32K", f"{cpu}"), (1, "Instruction", "32K", f"{cpu}"), (3, "Unified", "16M", "0-3")]
        ):
            folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
            folder.mkdir(parents=True)
            for name, value in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)]:
                (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    monkeypatch.setattr(machine.sys, "platform", "linux")
    assert machine._caches() == (machine.Cache(1, "data", 2**15, 4), machine.Cache(3, "unified", 2**24, 1))


def test_a_hanging_probe_is_given_up(monkeypatch):
    monkeypatch.setattr(machine, "_PROBE_SECONDS", 0.05)
    assert machine._output("sleep", "10") is None


@pytest.mark.parametrize("code", ["import sys; sys.exit('no pool')", "import os; os.abort()"])
def test_a_crashing_test_call_is_an_answer(monkeypatch, code):
    monkeypatch.setattr(machine, "_PROBE", code)
    assert machine.probe_threading_layer().startswith("unknown: the test call failed")


def test_a_test_call_that_does_not_end_is_an_answer(monkeypatch):
    monkeypatch.setattr(machine, "_PROBE", "import time; time.sleep(60)")
    assert "did not end" in machine.probe_threading_layer(timeout=0.2)


def test_info_for_people_and_for_machines(monkeypatch):
    monkeypatch.setattr("softmax_numba.bench.info.probe_threading_layer", lambda: "tbb")
    facts = collect()
    assert json.loads(json.dumps(facts)) == json.loads(json.dumps(facts))
    text = "\n".join(lines(facts))
    for word in ("python", "numba", "numpy", "cpu", "caches", "vectors", "threading layer", "cache folder", "gpu"):
        assert f"\n{word} " in f"\n{text}"


def test_info_command_end_to_end():
    run = subprocess.run(
        [sys.executable, "-m", "softmax_numba", "info", "--json"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    facts = json.loads(run.stdout)
    assert facts["threading_layer"] in ("tbb", "omp", "workqueue") or "one thread" in facts["threading_layer"]


@pytest.mark.parametrize(
    ("file", "text", "turbo"),
    [
        ("intel_pstate/no_turbo", "0", True),
        ("intel_pstate/no_turbo", "1", False),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
        ("cpufreq/other", "1", None),
    ],
)
def test_turbo_as_either_driver_says_it(tmp_path, monkeypatch, file, text, turbo):
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text + "\n")
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    assert machine.describe().turbo is turbo
