"""What the figures were measured on: hardware, versions, threads. Nothing here fails, and nothing heavy is imported."""

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = [
    "Cache",
    "Machine",
    "available_threads",
    "cache_folder",
    "describe",
    "load_average",
    "probe_threading_layer",
    "threading_layer",
]

_PACKAGES = ("softmax-numba", "numba", "llvmlite", "numpy", "scipy", "torch", "tbb", "ml_dtypes")
_CPUS = Path("/sys/devices/system/cpu")
# A probe is a program of the operating system; one that hangs must not take the command with it.
_PROBE_SECONDS = 10


@dataclass(frozen=True)
class Cache:
    """One kind of cache; ``bytes`` is the size of one of ``instances`` equal ones."""

    level: int
    kind: str
    bytes: int
    instances: int


@dataclass(frozen=True)
class Machine:
    """Hardware and software; None where the system does not say.

    Attributes
    ----------
    system : str
    cpu : str
        The model's name, as the processor gives it.
    microarchitecture : str
        LLVM's name for it.
    cores : int or None
        Physical cores of the machine.
    threads : int
        Hardware threads that this process may use.
    caches : tuple of Cache
    vectors : str
        The widest vector instructions, with their width.
    memory_bytes : int or None
    governor : str or None
        The frequency governor of the first core.
    load : float or None
        Processes that wanted to run over the last minute, when the description was made.
    python : str
    versions : dict of str to str
        Of the packages that take part; one that is not installed is left out.
    gpus : tuple of str
    turbo : bool or None
        Whether cores may run faster than their base frequency.
    """

    system: str
    cpu: str
    microarchitecture: str
    cores: int | None
    threads: int
    caches: tuple[Cache, ...]
    vectors: str
    memory_bytes: int | None
    governor: str | None
    load: float | None
    python: str
    versions: dict[str, str]
    gpus: tuple[str, ...]
    turbo: bool | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Machine":
        caches = tuple(Cache(**cache) for cache in data["caches"])
        return cls(**{**data, "caches": caches, "gpus": tuple(data["gpus"])})


def describe() -> Machine:
    """This machine.

    Examples
    --------
    >>> machine = describe()
    >>> machine.threads >= 1 and "numpy" in machine.versions
    True
    """
    microarchitecture, vectors = _host_vectors()
    return Machine(
        system=f"{_system()}, {platform.machine()}",
        cpu=_cpu_name(),
        microarchitecture=microarchitecture,
        cores=_physical_cores(),
        threads=_usable_threads(),
        caches=_caches(),
        vectors=vectors,
        memory_bytes=_memory(),
        governor=_read(_CPUS / "cpu0/cpufreq/scaling_governor"),
        load=load_average(),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        versions=_versions(),
        gpus=_gpus(),
        turbo=_turbo(),
    )


def available_threads() -> int:
    """The largest number of threads that a call may use."""
    try:
        from softmax_numba.cpu.threads import available
    except ImportError:
        return _usable_threads()
    return int(available())


def threading_layer() -> str | None:
    """The threading layer in use in this process; None before the first parallel call."""
    try:
        from softmax_numba.cpu.threads import layer
    except ImportError:
        return None
    chosen = layer()
    return None if chosen is None else str(chosen)


def cache_folder() -> Path | None:
    """Where compiled code is kept; None if it is not kept."""
    try:
        from softmax_numba.cpu.compiled import folder
    except ImportError:
        return None
    return folder()


def load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


_PROBE = """
import numpy as np
import softmax_numba
from softmax_numba.bench.machine import threading_layer
softmax_numba.softmax(np.zeros((4096, 1000), np.float32))
print(threading_layer() or "none: the test call ran in one thread")
"""


def probe_threading_layer(timeout: float = 120.0) -> str:
    """The layer that a parallel call gets, found out by one in a process of its own: a crash is an answer too."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=timeout, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown: the test call did not end ({type(error).__name__})"
    if probe.returncode == 0 and probe.stdout.strip():
        return probe.stdout.strip().splitlines()[-1]
    last = (probe.stderr.strip().splitlines() or ["no message"])[-1]
    return f"unknown: the test call failed with exit code {probe.returncode}: {last}"


# --- single facts -------------------------------------------------------------------


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _output(*command: str) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        run = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip() or None if run.returncode == 0 else None


def _system() -> str:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        name = None
    kernel = f"{platform.system()} {platform.release()}"
    return f"{name} ({kernel})" if name else kernel


def _cpu_name() -> str:
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model") and value.strip():
            return value.strip()
    brand = _output("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    return brand or platform.processor() or platform.machine() or "unknown"


def _usable_threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _physical_cores() -> int | None:
    if sys.platform == "darwin":
        count = _output("sysctl", "-n", "hw.physicalcpu")
        return int(count) if count and count.isdigit() else None
    siblings = {_read(path) for path in _CPUS.glob("cpu[0-9]*/topology/thread_siblings_list")} - {None}
    return len(siblings) or None


def _caches() -> tuple[Cache, ...]:
    if sys.platform == "darwin":
        return _darwin_caches()
    shared: dict[tuple[int, str, int], set[str]] = {}
    for index in _CPUS.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        amount = re.fullmatch(r"(\d+)([KMG]?)", size or "")
        if level is None or not level.isdigit() or kind not in ("Data", "Unified") or amount is None:
            continue
        nbytes = int(amount[1]) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[amount[2]]
        cpus = _read(index / "shared_cpu_list") or str(index)
        shared.setdefault((int(level), kind.lower(), nbytes), set()).add(cpus)
    return tuple(Cache(*key, instances=len(cpus)) for key, cpus in sorted(shared.items()))


def _darwin_caches() -> tuple[Cache, ...]:
    names = (
        (1, "data", "hw.l1dcachesize"),
        (2, "unified", "hw.l2cachesize"),
        (3, "unified", "hw.l3cachesize"),
    )
    sizes = ((level, kind, _output("sysctl", "-n", name)) for level, kind, name in names)
    return tuple(Cache(level, kind, int(size), 1) for level, kind, size in sizes if size and size.isdigit())


def _host_vectors() -> tuple[str, str]:
    try:
        from llvmlite import binding

        name, features = binding.get_host_cpu_name(), binding.get_host_cpu_features()
    except (ImportError, RuntimeError, OSError):
        return "unknown", "unknown"
    for feature, words in (
        ("avx512f", "AVX-512, 512 bits"),
        ("avx2", "AVX2, 256 bits"),
        ("avx", "AVX, 256 bits"),
        ("sve", "SVE"),
        ("neon", "NEON, 128 bits"),
        ("sse2", "SSE2, 128 bits"),
    ):
        if features.get(feature):
            return name, words
    # LLVM lists no features of Apple's processors, all of which have it.
    return name, "NEON, 128 bits" if platform.machine() in ("arm64", "aarch64") else "unknown"


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _turbo() -> bool | None:
    barred, boost = _read(_CPUS / "intel_pstate/no_turbo"), _read(_CPUS / "cpufreq/boost")
    if barred in ("0", "1"):
        return barred == "0"
    return boost == "1" if boost in ("0", "1") else None


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    commit = _commit()
    if commit is not None and "softmax-numba" in found:
        found["softmax-numba"] += f"+g{commit}"
    return found


def _commit() -> str | None:
    """The commit that the package's sources are of, where they are a clone's; "…-dirty" if they have been changed."""
    package = Path(__file__).resolve().parent.parent
    if not (package.parent / ".git").exists():
        return None
    commit = _output("git", "-C", str(package), "rev-parse", "--short", "HEAD")
    state = _output("git", "-C", str(package), "status", "--porcelain", "--branch", "--", str(package))
    if commit is None or state is None:
        return None
    _, *changes = state.splitlines()  # the first line names the branch
    return commit + ("-dirty" if changes else "")


def _gpus() -> tuple[str, ...]:
    listed = _output("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return tuple(line.strip() for line in (listed or "").splitlines() if line.strip())
