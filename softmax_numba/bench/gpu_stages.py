"""The stages of a run on a GPU: each a process of its own with a time limit, whose end is written down at once."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DONE", "STATE", "Stage", "State", "as_text", "run_stage", "stages"]

DONE, FAILED, LATE, ABSENT = "done", "failed", "out of time", "not possible"
STATE = "stages.json"
_SELF = "softmax_numba.bench.gpu"
_PACKAGE = Path(__file__).parent.parent.parent
_SIMULATED = ("arguments", "gradients", "losses", "plans", "values")
_TAIL = 4000  # characters of a log that the summary shows of a failure


@dataclass(frozen=True)
class Stage:
    """A command and the seconds it may take; ``missing`` says why it cannot run, if so."""

    name: str
    command: tuple[str, ...]
    seconds: float
    env: dict[str, str] = field(default_factory=dict)
    attempts: int = 1
    missing: str | None = None


@dataclass
class State:
    """How each stage ended, in a folder's ``stages.json``."""

    folder: Path
    ends: dict[str, dict[str, object]] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "State":
        """What an earlier run left there."""
        try:
            return cls(folder, json.loads((folder / STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return cls(folder)

    def keep(self, name: str, status: str, seconds: float, detail: str) -> None:
        from softmax_numba.report.folder import write_whole

        self.ends[name] = {"status": status, "seconds": round(seconds, 1), "detail": detail}
        write_whole(self.folder / STATE, json.dumps(self.ends, indent=1) + "\n")

    def is_done(self, name: str) -> bool:
        return self.ends.get(name, {}).get("status") == DONE


def stages(folder: Path, seconds: float, rehearse: bool) -> list[Stage]:
    """All of them, in their order; ``seconds`` is for the benchmark."""
    python = sys.executable
    rehearsed = ("--rehearse",) if rehearse else ()
    own = (python, "-m", _SELF, "--out", str(folder), *rehearsed)
    simulated = {"NUMBA_ENABLE_CUDASIM": "1"} if rehearse else {}
    return [
        Stage("environment", (*own, "--only", "environment"), 120),
        *_tests(rehearse, simulated),
        *(_sanitizer(tool, rehearse) for tool in ("memcheck", "racecheck")),
        Stage("benchmark", (*own, "--only", "benchmark", "--seconds", str(seconds)), seconds + 120, attempts=3),
        Stage("table", (*own, "--only", "table"), 120),
    ]


def _pytest(files: tuple[str, ...], parallel: bool, *options: str) -> tuple[str, ...]:
    """pytest with nothing of this project's settings but its import path: warnings of other versions are no errors."""
    tests = [str(_PACKAGE / "tests" / file) for file in files]
    spread = ("-n", str(min(8, os.cpu_count() or 1))) if parallel and importlib.util.find_spec("xdist") else ()
    settings = ("-o", "filterwarnings=", "-o", "addopts=", "-p", "no:cacheprovider", "--import-mode=importlib")
    return (sys.executable, "-m", "pytest", "-q", "--tb=short", *settings, *spread, *options, *tests)


def _tests(rehearse: bool, simulated: dict[str, str]) -> list[Stage]:
    files = tuple(f"simulated_{name}.py" for name in _SIMULATED)
    few = ("-k", "test_where_of_a_list or test_no_dimensions") if rehearse else ()
    found = []
    for library in ("torch", "cupy", "numba"):
        arrays = {} if rehearse else {"SOFTMAX_NUMBA_TEST_ARRAYS": library}
        absent = None if importlib.util.find_spec(library) else f"{library} is not installed"
        which = files if library == "torch" and not rehearse else files[:3]
        command = _pytest(which, not rehearse, *few)
        found.append(Stage(f"tests-{library}", command, 540, {**simulated, **arrays}, missing=absent))
    alone = _pytest(("device_streams.py",), False, *(("--collect-only",) if rehearse else ()))
    found.insert(1, Stage("streams", alone, 300, missing=None if importlib.util.find_spec("torch") else "needs torch"))
    return found


def _sanitizer(tool: str, rehearse: bool) -> Stage:
    """Every plan at small sizes; each tensor has memory of its own, so that what lies beside it is nobody's."""
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    env = {"SOFTMAX_NUMBA_TEST_ARRAYS": "torch", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    missing = None if program else "compute-sanitizer is not installed"
    if rehearse:
        missing = "needs a GPU"
    command = (str(program), "--tool", tool, "--error-exitcode", "9", "--print-limit", "20")
    tests = _pytest(("simulated_plans.py", "simulated_gradients.py", "simulated_losses.py"), False)
    return Stage(tool, (*command, *tests), 540, env, missing=missing)


def run_stage(stage: Stage, state: State) -> bool:
    """Runs a stage and writes down how it ended; its output goes to ``NAME.log``. Whether nothing failed."""
    if stage.missing is not None:
        state.keep(stage.name, ABSENT, 0.0, stage.missing)
        return True
    log = state.folder / f"{stage.name}.log"
    log.unlink(missing_ok=True)
    path = os.pathsep.join(filter(None, (str(_PACKAGE), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, **stage.env, "PYTHONPATH": path}
    begin, status, detail = time.monotonic(), FAILED, ""
    for _ in range(stage.attempts):
        with log.open("a", encoding="utf-8") as output:
            try:
                left = stage.seconds - (time.monotonic() - begin)
                done = subprocess.run(
                    stage.command, stdout=output, stderr=subprocess.STDOUT, timeout=left, env=env, cwd=_PACKAGE
                )
                status, detail = (DONE, "") if done.returncode == 0 else (FAILED, f"exit status {done.returncode}")
            except subprocess.TimeoutExpired:
                status, detail = LATE, f"more than {stage.seconds:.0f} s"
            except OSError as error:
                status, detail = FAILED, str(error)
        if status != FAILED:
            break
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    detail = "; ".join(filter(None, (detail, lines[-1].strip("= ") if lines else "")))
    state.keep(stage.name, status, time.monotonic() - begin, detail)
    if status != DONE:
        print("\n".join(lines)[-_TAIL:], flush=True)
    return status == DONE


def as_text(state: State) -> str:
    """How every stage ended, a line each."""
    return "\n".join(
        f"{name:12} {end['status']:12} {end['seconds']:>7} s  {end['detail']}" for name, end in state.ends.items()
    )
