"""What is installed, what importing it brings along, and what makes the environment on a bare machine."""

import email.parser
import importlib
import importlib.metadata
import importlib.resources
import inspect
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import softmax_numba

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = {"jinja2", "matplotlib", "ml_dtypes", "mpmath", "rich", "scipy", "sklearn", "torch"}


def run(*command, **options):
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=False, **options
    )


def test_version_is_the_installed_one():
    assert softmax_numba.__version__ == importlib.metadata.version("softmax-numba")


def test_public_names_exist_and_are_listed_once():
    assert len(set(softmax_numba.__all__)) == len(softmax_numba.__all__)
    for name in softmax_numba.__all__:
        assert hasattr(softmax_numba, name), name


def test_package_says_that_it_is_typed():
    assert (importlib.resources.files("softmax_numba") / "py.typed").is_file()


def test_console_script_is_declared():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="softmax-numba")
    assert script.value == "softmax_numba.cli:main"
    assert callable(script.load())


@pytest.mark.parametrize("module", ["softmax_numba", "softmax_numba.special"])
def test_import_brings_in_no_optional_library(module):
    # Numba itself imports scipy where it is installed, to look at its version.
    program = f"import sys, numba; known = set(sys.modules); import {module}; print(*set(sys.modules) - known)"
    finished = run(sys.executable, "-W", "error", "-c", program)
    assert finished.returncode == 0, finished.stderr
    brought = finished.stdout.split()
    assert module in brought
    assert not {name.partition(".")[0] for name in brought} & OPTIONAL


def test_wheel_holds_the_package_and_its_data_and_nothing_else(tmp_path):
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields = email.parser.BytesParser().parsebytes(archive.read(metadata))
        licences = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
    package = ROOT / "softmax_numba"
    kept = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == kept
    assert fields["Version"] == softmax_numba.__version__
    assert fields["License-Expression"] == "BSD-3-Clause"
    assert len(licences) == 1


def readme_signatures():
    """What README.md's table says: (dotted name, signature) of each function."""
    rows = re.findall(r"^\| (`[^|]+`) \| `(\([^|`]*\))`", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [(name, signature) for names, signature in rows for name in re.findall(r"`([\w.]+)`", names)]


@pytest.mark.parametrize(("name", "signature"), readme_signatures())
def test_readme_tells_the_signature(name, signature):
    module, _, function = f"softmax_numba.{name}".rpartition(".")
    real = inspect.signature(getattr(importlib.import_module(module), function))
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in real.parameters.values()]
    told = real.replace(parameters=bare, return_annotation=inspect.Signature.empty)
    assert str(told).replace("'", '"') == signature


def test_readme_table_has_every_function():
    functions = {name for name in softmax_numba.__all__ if inspect.isfunction(getattr(softmax_numba, name))}
    assert functions
    assert functions <= {name for name, _ in readme_signatures()}


def test_readme_examples_run():
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


class BareMachine:
    """A machine as scripts/make_venv.sh sees it: a PATH of chosen commands, perhaps no ensurepip."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = folder / "bin"
        self.venv = folder / "venv"
        self.bin.mkdir()
        for name in ["sh", "rm", "cat", "mktemp", "mkdir", "ln"]:
            (self.bin / name).symlink_to(shutil.which(name))
        self.command("id", "echo 1000")

    def command(self, name, body):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def python(self, name, ensurepip=True):
        """The Python under test by another name, which hides ensurepip and pip if asked to."""
        hidden = self.folder / "hidden"
        hidden.mkdir(exist_ok=True)
        for module in ["ensurepip", "pip", "virtualenv"]:
            (hidden / f"{module}.py").write_text("raise ImportError('not on this machine')\n")
        prefix = "" if ensurepip else f"PYTHONPATH='{hidden}' "
        self.command(name, f'{prefix}exec "{sys.executable}" "$@"')

    def make_venv(self, *arguments):
        environment = {"PATH": str(self.bin), "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        return run("sh", ROOT / "scripts/make_venv.sh", self.venv, *arguments, env=environment)

    def has_pip(self):
        return run(self.venv / "bin/python", "-m", "pip", "--version").returncode == 0


@pytest.fixture
def machine(tmp_path):
    if os.name != "posix":
        pytest.skip("the Makefile and its script are for POSIX systems")
    return BareMachine(tmp_path)


def test_bootstrap_takes_the_newest_python_that_runs_and_keeps_what_it_made(machine):
    machine.command("python3.14", "exit 127")  # a name on PATH with no interpreter behind it
    machine.python("python3.13")
    machine.command("python3.12", "echo the older one was taken >&2; exit 1")
    made = machine.make_venv()
    assert made.returncode == 0, made.stderr
    assert "with python3.13" in made.stderr
    assert machine.has_pip()

    (machine.venv / "mine").touch()
    again = machine.make_venv()
    assert (again.returncode, again.stderr) == (0, "")
    assert (machine.venv / "mine").exists()


def test_bootstrap_makes_a_broken_environment_anew(machine):
    machine.python("python3.11")
    machine.venv.mkdir()
    (machine.venv / "pyvenv.cfg").touch()
    made = machine.make_venv()
    assert made.returncode == 0, made.stderr
    assert "no longer works" in made.stderr
    assert machine.has_pip()


def test_bootstrap_leaves_a_folder_that_is_no_environment_alone(machine):
    machine.python("python3.11")
    machine.venv.mkdir()
    (machine.venv / "letters.txt").touch()
    refused = machine.make_venv()
    assert refused.returncode == 1
    assert "is not a virtual environment" in refused.stderr
    assert [path.name for path in machine.venv.iterdir()] == ["letters.txt"]


def test_bootstrap_without_a_python_says_what_is_needed(machine):
    refused = machine.make_venv()
    assert refused.returncode == 1
    assert "no Python >= 3.11 found" in refused.stderr
    assert "make PYTHON=" in refused.stderr


def test_bootstrap_refuses_a_named_python_that_is_too_old(machine):
    machine.command("python3.9", 'case "$2" in *exit*) exit 1 ;; *) echo 3.9.2 ;; esac')
    refused = machine.make_venv("python3.9")
    assert refused.returncode == 1
    assert "PYTHON=python3.9: version 3.9.2, and Python >= 3.11 is needed" in refused.stderr


def test_bootstrap_without_ensurepip_takes_the_first_stand_in_that_works(machine):
    machine.python("python3.11", ensurepip=False)
    machine.command("virtualenv", f'mkdir "{machine.venv}"; exit 1')
    machine.command("uv", f'test -e "{machine.venv}" || "{sys.executable}" -m venv "$6"')
    made = machine.make_venv()
    assert made.returncode == 0, made.stderr
    assert machine.has_pip()


def test_bootstrap_gives_up_with_one_command_and_nothing_half_made(machine):
    machine.python("python3.11", ensurepip=False)
    refused = machine.make_venv()
    assert refused.returncode == 1
    advice = refused.stderr[refused.stderr.index("error: ") :]
    assert "sudo apt install python3." in advice or "make PYTHON=" in advice
    assert not machine.venv.exists()
