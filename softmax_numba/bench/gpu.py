"""``python -m softmax_numba.bench.gpu``: tests, checks and measures on this machine's NVIDIA GPU; ``make gpu`` runs it.

Stage by stage, each in a process of its own: what is here; the tests with arrays of PyTorch, CuPy and Numba; streams,
graphs and large arrays; compute-sanitizer over every plan; the benchmark; its table. A stage that fails stops no other.
Everything is written to ``--out``; ``--resume`` leaves out what was done there. Nothing is installed and nothing is
fetched. Compiled kernels are taken from the folder that SOFTMAX_NUMBA_KERNELS names, where it does.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from softmax_numba.bench import gpu_peers, machine
from softmax_numba.bench.gpu_cells import tasks
from softmax_numba.bench.gpu_device import TorchDevice
from softmax_numba.bench.gpu_measure import began, measure
from softmax_numba.bench.gpu_stages import State, as_text, run_stage, stages
from softmax_numba.bench.results import Results, read

_REHEARSED_BYTES, _REHEARSED_STEP = 2**20, 11  # every eleventh: all ops, dtypes and shapes
_PACKAGES = (
    *("torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "numba-cuda", "cuda-core", "cuda-bindings", "nvidia-nvvm"),
    *("nvidia-nvjitlink", "nvidia-cuda-nvrtc"),
)


def main(arguments: list[str] | None = None) -> int:
    """1 if a stage failed."""
    parser = argparse.ArgumentParser(prog="python -m softmax_numba.bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("softmax-gpu"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=420.0, help="of the benchmark (default: %(default)g)")
    parser.add_argument("--resume", action="store_true", help="leave out the stages and cells that DIR has")
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="only these; several times is no harm")
    parser.add_argument("--only", choices=("environment", "benchmark", "table"), help=argparse.SUPPRESS)
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: every stage, as small as can be")
    how = parser.parse_args(arguments)
    how.out.mkdir(parents=True, exist_ok=True)
    if how.only == "environment":
        return _environment(how.out, how.rehearse)
    if how.only == "benchmark":
        return _benchmark(how.out, how.seconds, how.rehearse)
    if how.only == "table":
        return _table(how.out)
    found = stages(how.out.resolve(), how.seconds, how.rehearse)
    names = [stage.name for stage in found]
    if unknown := set(how.stages or ()) - set(names):
        parser.error(f"no stage {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    state = State.of(how.out) if how.resume or how.stages else State(how.out)
    if not how.resume and not how.stages:
        (how.out / "results.json").unlink(missing_ok=True)
    good = True
    for stage in found:
        if stage.name in (how.stages or names) and not (how.resume and state.is_done(stage.name)):
            print(f"{stage.name} ...", flush=True)
            good &= run_stage(stage, state)
    print(as_text(state))
    return 0 if good else 1


def _environment(folder: Path, rehearse: bool) -> int:
    """Writes down what is here; 1 where no kernel could run."""
    from softmax_numba.gpu import usable
    from softmax_numba.report.folder import write_whole

    facts: dict[str, Any] = {"gpus": machine.describe().gpus, "versions": _versions(), "usable": usable()}
    if not rehearse:
        device = TorchDevice()
        properties = device.torch.cuda.get_device_properties(0)
        facts |= {
            "name": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
            "cache_bytes": device.cache_bytes,
            "torch_cuda": device.torch.version.cuda,
        }
        x = device.normal((4, 1000), "float32")
        import softmax_numba

        facts["first_call"] = float(softmax_numba.softmax(x).sum())
    text = json.dumps(facts, indent=1, default=str)
    write_whole(folder / "environment.json", text + "\n")
    print(facts.get("name", "no GPU: a rehearsal"))
    return 0 if rehearse or abs(facts["first_call"] - 4) < 1e-5 else 1


def _versions() -> dict[str, str]:
    found = dict(machine.describe().versions)
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _benchmark(folder: Path, seconds: float, rehearse: bool) -> int:
    """Measures cell by cell, most telling first, until the time is up; cells that the folder has are left out."""
    from softmax_numba.report.folder import write_results

    device = TorchDevice("cpu" if rehearse else "cuda")
    wanted = tasks(_REHEARSED_BYTES, small=True)[::_REHEARSED_STEP] if rehearse else tasks()
    results = _results(folder, wanted, rehearse)
    known = {(cell.workload, cell.op, cell.dtype) for cell in results.cells}
    end = time.monotonic() + seconds
    for task in wanted:
        if task.key in known:
            continue
        if time.monotonic() > end:
            results.state = "interrupted"
            break
        results.cells.append(began(task))
        write_results(folder, results)
        results.cells[-1] = measure(task, device, 3 if rehearse else 9)
        write_results(folder, results)
        device.free()
        ours = results.cells[-1].ours
        print(f"{results.cells[-1].label}: {ours.status}, {ours.time.median if ours.time else 0:.3g} s", flush=True)
    else:
        results.state = "complete"
    results.finished = _now()
    write_results(folder, results)
    return 0 if all(cell.ours.status == "ok" for cell in results.cells) else 1


def _results(folder: Path, wanted: tuple[Any, ...], rehearse: bool) -> Results:
    """Those of the folder, or new ones."""
    file = folder / "results.json"
    if file.exists():
        return replace(read(file), state="running", finished=None)
    infos = {task.workload: task.info for task in reversed(wanted)}
    return Results(
        command="python -m softmax_numba.bench.gpu",
        mode="rehearsal" if rehearse else "gpu",
        seed=0,
        threads=1,
        machine=replace(machine.describe(), versions=_versions()),
        contenders=tuple(gpu_peers.info(contender, not rehearse) for contender in gpu_peers.CONTENDERS),
        workloads=tuple(infos[name] for name in dict.fromkeys(task.workload for task in wanted)),
        planned=len(wanted),
        started=_now(),
        device="cpu" if rehearse else "cuda",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _table(folder: Path) -> int:
    """The results as CSV and in Markdown."""
    from softmax_numba.bench.gpu_table import markdown
    from softmax_numba.report.folder import CSV, write_whole

    results = read(folder / "results.json")
    write_whole(folder / CSV, results.to_csv())
    text = markdown(results)
    write_whole(folder / "gpu.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
