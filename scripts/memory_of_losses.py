"""What memory losses take beside what they are handed: memory_of_losses.py [--gb N] [--rows N] [--classes N] [...]

- cross_entropy: one call over float32 logits in a memory map, --gb large, of a temporary file in --folder
  (default: where temporary files are), which is gone afterwards;
- OnlineLogSumExp: as many logits from a generator, block by block;
- linear_cross_entropy_and_grad: --rows × --features times --classes, and PyTorch's two steps and backward() for the
  same, where it is installed.

Each runs in a process of its own, after a small call that compiles and starts threads. What is printed is the most
anonymous memory that it has at any time of the call (RssAnon in /proc, read every 2 ms: pages of a mapped file do not
count), less what it had before. The exit code is 1 if either of the first two takes more than 100 MB, or if the
linear layer takes more than a tenth of PyTorch's memory beside the gradients that both return.

    memory_of_losses.py                # less than a minute
    memory_of_losses.py --gb 8         # needs 8 GB on disk
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 100e6
SHARE = 0.1
# Rows of logits that the file repeats.
_ROWS = 128
_BLOCK = (1024, 4096)


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--gb", type=float, default=1.0, metavar="N", help="gigabytes of logits (default: %(default)s)")
    add("--folder", type=Path, metavar="DIR", help="where the file of logits is made")
    add("--rows", type=int, default=2048, metavar="N", help="of the linear layer (default: %(default)s)")
    add("--features", type=int, default=768, metavar="N", help="of the linear layer (default: %(default)s)")
    add("--classes", type=int, default=50257, metavar="N", help="of either (default: %(default)s)")
    add("--only", choices=list(_CALLS), help=argparse.SUPPRESS)  # what a process of its own does
    add("--file", type=Path, help=argparse.SUPPRESS)
    return parser


# --- the file -------------------------------------------------------------------------


def rows_of(given: argparse.Namespace) -> int:
    """The nearest number of rows that is a multiple of those that are repeated."""
    return _ROWS * max(1, round(given.gb * 1e9 / (4 * given.classes * _ROWS)))


@contextmanager
def logits(given: argparse.Namespace) -> Iterator[Path]:
    """A file of logits, as long as it is needed."""
    folder = Path(tempfile.gettempdir()) if given.folder is None else given.folder
    if not folder.is_dir():
        raise SystemExit(f"--folder {folder} is no folder")
    needed, free = rows_of(given) * given.classes * 4, shutil.disk_usage(folder).free
    if needed > free:
        raise SystemExit(f"--gb {given.gb:g} needs {needed / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB are free")
    with tempfile.TemporaryDirectory(prefix="logits-", dir=folder) as made:
        path = Path(made) / "logits"
        rows = repeated_rows(given)
        with path.open("wb") as file:
            for _ in range(rows_of(given) // _ROWS):
                rows.tofile(file)
        yield path


def repeated_rows(given: argparse.Namespace) -> np.ndarray:
    return 3 * np.random.default_rng(0).standard_normal((_ROWS, given.classes), dtype=np.float32)


# --- what a process of its own does ---------------------------------------------------


def _begin() -> None:
    """Everything is there: wait until the other process has seen how much that is."""
    import softmax_numba

    softmax_numba.release_memory()
    print("ready", flush=True)
    sys.stdin.readline()


def _cross_entropy(given: argparse.Namespace) -> float:
    from softmax_numba import cross_entropy

    rows, targets = repeated_rows(given), np.random.default_rng(1).integers(0, given.classes, _ROWS)
    expected = cross_entropy(rows, targets)
    del rows
    x = np.memmap(given.file, np.float32, "r", shape=(rows_of(given), given.classes))
    targets = np.tile(targets, len(x) // _ROWS)
    _begin()
    found = cross_entropy(x, targets)
    if not np.isclose(found, expected, rtol=1e-6):
        raise SystemExit(f"the loss is {found}, and of the rows that repeat it is {expected}")
    return float(found)


def _online(given: argparse.Namespace) -> float:
    from softmax_numba import OnlineLogSumExp

    block, generator = np.empty(_BLOCK, np.float32), np.random.default_rng(0)
    OnlineLogSumExp().update(generator.standard_normal(out=block, dtype=np.float32)).logsumexp  # noqa: B018
    _begin()
    seen = OnlineLogSumExp()
    for _ in range(max(1, round(given.gb * 1e9 / block.nbytes))):
        seen.update(generator.standard_normal(out=block, dtype=np.float32))
    return float(np.mean(seen.logsumexp))


def _operands(rows: int, features: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    hidden, weight = (generator.standard_normal((n, features), dtype=np.float32) for n in (rows, classes))
    weight /= np.float32(np.sqrt(features))
    return hidden, weight, generator.integers(0, classes, rows)


def _linear(given: argparse.Namespace) -> float:
    from softmax_numba import linear_cross_entropy_and_grad

    linear_cross_entropy_and_grad(*_operands(256, given.features, 1000))
    operands = _operands(given.rows, given.features, given.classes)
    _begin()
    return float(linear_cross_entropy_and_grad(*operands)[0])


def _torch(given: argparse.Namespace) -> float:
    import torch

    def step(hidden: np.ndarray, weight: np.ndarray, targets: np.ndarray) -> float:
        rows, matrix = (torch.from_numpy(array).requires_grad_() for array in (hidden, weight))
        loss = torch.nn.functional.cross_entropy(rows @ matrix.T, torch.from_numpy(targets))
        loss.backward()
        return float(loss.detach())

    step(*_operands(256, given.features, 1000))
    operands = _operands(given.rows, given.features, given.classes)
    _begin()
    return step(*operands)


_CALLS = {
    "cross_entropy": _cross_entropy,
    "OnlineLogSumExp": _online,
    "linear_cross_entropy_and_grad": _linear,
    "PyTorch's": _torch,
}


# --- the process that looks on --------------------------------------------------------


def anonymous_bytes(process: int) -> int:
    """What it has in memory that no file stands behind; 0 once it has ended."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    return 0


def growth_of(name: str, arguments: list[str]) -> tuple[int, Any]:
    """The growth of a call's process in bytes, and what the call returned."""
    command = [sys.executable, __file__, *arguments, "--only", name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            if child.stdout is None or child.stdin is None or child.stdout.readline().strip() != "ready":
                raise SystemExit(f"{name} did not begin")
            before = most = anonymous_bytes(child.pid)
            child.stdin.write("go\n")
            child.stdin.flush()
            while child.poll() is None:
                most = max(most, anonymous_bytes(child.pid))
                time.sleep(2e-3)
            answer = child.stdout.read()
        finally:
            child.kill()
    if child.returncode:
        raise SystemExit(f"{name} ended with exit code {child.returncode}")
    return most - before, json.loads(answer)


def main(arguments: list[str]) -> int:
    given = options().parse_args(arguments)
    if given.only is not None:
        print(json.dumps(_CALLS[given.only](given)))
        return 0
    if not Path("/proc/self/status").exists():
        raise SystemExit("there is no /proc/self/status here, which says how much memory a process has: Linux has it")
    found: dict[str, int] = {}

    def line(name: str, what: str, *more: str) -> None:
        found[name], value = growth_of(name, [*arguments, *more])
        print(f"{name:<30} {found[name] / 1e6:8.1f} MB   {what}: {value:.6f}", flush=True)

    with logits(given) as path:
        size = f"{path.stat().st_size / 1e9:.2f} GB"
        line("cross_entropy", f"{size} of logits in a file", "--file", str(path))
    line("OnlineLogSumExp", f"{given.gb:.2f} GB of logits, block by block")
    kept = 4 * (given.rows + given.classes) * given.features
    shape = f"{given.rows} × {given.features} times {given.classes} classes, {kept / 1e6:.1f} MB of it gradients"
    line("linear_cross_entropy_and_grad", shape)
    right = max(found["cross_entropy"], found["OnlineLogSumExp"]) <= LIMIT
    if find_spec("torch") is None:
        print("PyTorch is not installed: nothing to compare the linear layer with")
        return 0 if right else 1
    line("PyTorch's", shape)
    ours, theirs = (max(0, found[name] - kept) for name in ("linear_cross_entropy_and_grad", "PyTorch's"))
    print(f"beside the gradients, the linear layer takes {100 * ours / max(theirs, 1):.1f} % of what PyTorch takes")
    return 0 if right and ours <= SHARE * theirs else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
