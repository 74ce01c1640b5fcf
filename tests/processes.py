"""Programs in processes of their own: what a threading layer, a fork or an import does to a whole process."""

import os
import subprocess
import sys
import textwrap

import pytest

import softmax_numba  # noqa: F401  (loads the TBB that `needs` asks for)

LAYERS = ("tbb", "omp", "workqueue")
# More threads than a small machine has cores, so that calls go parallel everywhere.
THREADS = 4

# Lists what is compiled from here on in `made`.
WATCH = """
from numba.core import event
made = []
class Compilations(event.Listener):
    def on_start(self, event): made.append(event.data["dispatcher"].__name__)
    def on_end(self, event): pass
event.register("numba:compile", Compilations())
"""

# Calls of every sweep, each big enough to be split over threads, and the bytes of their results.
CALLS = """
import numpy as np, numba, softmax_numba
from softmax_numba import log_softmax, logsumexp, softmax
_rng = np.random.default_rng(7)
_calls = [
    (softmax, _rng.normal(size=(700, 100)).astype(np.float32), -1),
    (log_softmax, _rng.normal(size=(100, 700)).astype(np.float32), 0),
    (logsumexp, _rng.normal(size=200_000).astype(np.float32), -1),
    (softmax, _rng.normal(size=(350, 200)), 1),
]
def results(first=0):
    order = [(first + i) % len(_calls) for i in range(len(_calls))]
    found = {i: _calls[i][0](_calls[i][1], _calls[i][2]).tobytes() for i in order}
    return [found[i] for i in range(len(_calls))]
def serial_results():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        return results()
    finally:
        numba.set_num_threads(before)
"""


def needs(layer):
    """Skips where Numba has no such threading layer."""
    module = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}[layer]
    pytest.importorskip(f"numba.np.ufunc.{module}", exc_type=ImportError)


def environment(**changes):
    """This process's environment without Numba's settings; a value of None takes a variable out."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    env["NUMBA_NUM_THREADS"] = str(THREADS)
    env["OMP_WAIT_POLICY"] = "passive"  # eight pools that spin on two cores take minutes for seconds
    for name, value in changes.items():
        env.pop(name, None)
        if value is not None:
            env[name] = str(value)
    return env


def run(program, *, before="", python=("-W", "error"), timeout=60, cwd=None, **env):
    """What `program` prints, as lines; it must end well, say nothing on stderr, and not hang."""
    finished = attempt(program, before=before, python=python, timeout=timeout, cwd=cwd, **env)
    assert finished.returncode == 0, f"exit status {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
    assert finished.stderr == ""
    return finished.stdout.splitlines()


def attempt(program, *, before="", python=("-W", "error"), timeout=60, cwd=None, **env):
    """The finished process of `program`. One that hangs prints where each thread stands, and its children end too."""
    watch = f"import faulthandler; faulthandler.dump_traceback_later({timeout}, exit=True)"
    source = "\n".join([watch, textwrap.dedent(before), textwrap.dedent(program)])
    process = subprocess.Popen(
        [sys.executable, *python, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**env),
        cwd=cwd,
        start_new_session=os.name == "posix",
    )
    try:
        out, err = process.communicate(timeout=timeout + 20)
    except subprocess.TimeoutExpired:
        if os.name == "posix":
            os.killpg(process.pid, 9)
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"hangs\n{out}\n{err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
