"""What every kernel compiles to, without a GPU: registers, spills, shared memory, 16-byte accesses, calls.

The kernels are those that ``plan`` chooses for lanes of every kind. A kernel is at fault if it spills or keeps an array
in local memory, if its plan promises 16-byte accesses and it has none, or if it computes in float64 where its values
are narrower.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from softmax_numba.gpu import copies, launch, loss_dense, loss_held, seam, temperatures
from softmax_numba.gpu.kernels import backward_kernel, backward_shape, copy_kernel, kernel, shape_of, temper_kernel
from softmax_numba.gpu.lane import LOSS_AND_GRADIENT, LOSSES, OPERATIONS
from softmax_numba.gpu.loss_terms import Kind
from softmax_numba.gpu.losses import dense_kernel, held_kernel
from softmax_numba.gpu.plan import MOST_VALUES, Device, Plan, a_thread_a_lane, plan
from softmax_numba.gpu.storage import STORAGES
from softmax_numba.gpu.vjp import BACKWARD

# Properties of the smallest device of an architecture that plans ask for.
DEVICES = {
    "sm_80": Device("sm_80", 108, 166912, False),
    "sm_86": Device("sm_86", 84, 101376, False),
    "sm_89": Device("sm_89", 128, 101376, False),
    "sm_90": Device("sm_90", 132, 232448, True),
}
MANY = 10**6  # lanes
BY_NAME = {operation.name: operation for operation in (*OPERATIONS, *LOSSES)}
OF_LOSSES = tuple(operation.name for operation in LOSSES)
NAMES = (*BY_NAME, *BACKWARD)


class Specimen(NamedTuple):
    """One kernel to compile."""

    operation: str
    dtype: str
    plan: Plan
    kernel: str
    masked: bool
    heated: bool


class Row(NamedTuple):
    """What came of it."""

    specimen: Specimen
    arch: str
    threads: int
    registers: int
    spilled: int  # bytes
    shared: int
    loads: int  # of 16 bytes
    stores: int
    single_loads: int
    calls: int
    wide: int  # float64 instructions

    @property
    def faults(self) -> list[str]:
        found = []
        if self.spilled:
            found.append(f"{self.spilled} bytes of local memory")
        vectors = self.specimen.plan.access != "elements"
        if vectors and not self.loads and self.specimen.kernel != "finish":
            found.append("no 16-byte load")
        writes = not _one_number(self.specimen.operation) and self.specimen.kernel != "survey"
        if vectors and writes and not self.stores:
            found.append("no 16-byte store")
        if self.wide and self.specimen.dtype != "float64":
            found.append(f"{self.wide} float64 instructions")
        return found


def _one_number(name: str) -> bool:
    return name in BY_NAME and BY_NAME[name].one_number


def _plans(name: str, itemsize: int, device: Device, every: bool) -> Iterator[Plan]:
    """The plans for values of a size, in the order of the lanes' lengths; ``every`` number of threads and vectors."""
    inputs, one_number = 2 if name in BACKWARD else 1, _one_number(name)
    lean = inputs == 1 and name != LOSS_AND_GRADIENT.name
    width, span = 16 // itemsize, 32 * MOST_VALUES[itemsize]
    short = [width << k for k in range((span // width).bit_length())] if every else [width, 2 * width, 32 * width, span]
    few = (8, 16, 32, 48, 128) if name in OF_LOSSES else (16, 32, 48, 128)  # float64 stays in registers up to 8
    lengths = (*short, *(n * span for n in ((2, 8, 16, 32, 48, 128) if every else few)))
    seen = set()
    for aligned, side_by_side in ((True, True), (False, True), (False, False)):
        for lanes in (MANY, 1):
            for length in (*lengths, 1200 * span):
                found = plan(
                    lanes,
                    length,
                    itemsize=itemsize,
                    side_by_side=side_by_side,
                    aligned=aligned,
                    lean=lean,
                    one_number=one_number,
                    neighbours=1,
                    device=device,
                    inputs=inputs,
                    losses=name in OF_LOSSES,
                )
                compiled = (found.sweep, found.access, found.vectors, found.threads, launch.bound(found.block))
                if compiled not in seen:
                    seen.add(compiled)
                    yield found
    if name in OF_LOSSES:
        yield a_thread_a_lane(MOST_VALUES[itemsize], itemsize)
    for aligned in (True, False):
        yield plan(
            MANY,
            100,
            itemsize=itemsize,
            side_by_side=False,
            aligned=aligned,
            lean=lean,
            one_number=one_number,
            neighbours=4096,
            device=device,
            inputs=inputs,
            losses=name in OF_LOSSES,
        )


def specimens(
    arch: str, dtypes: list[str], operations: list[str], sweeps: list[str], thorough: bool, every: bool = False
) -> Iterator[Specimen]:
    """The kernels of an architecture; ``thorough`` ones with masks and temperatures too, ``every`` one there is."""
    device = DEVICES[arch]
    for name in operations:
        inputs = 2 if name in BACKWARD else 1
        for dtype in dtypes:
            for found in _plans(name, STORAGES[dtype].itemsize, device, every):
                if found.sweep not in sweeps:
                    continue
                for kernel_name in _kernels(name, STORAGES[dtype].itemsize, found, device):
                    yield Specimen(name, dtype, found, kernel_name, False, False)
                    # A plan for lanes with more to hold has no blocks of 1024.
                    if thorough and name not in OF_LOSSES and launch.bound(found.block) < 1024:
                        yield Specimen(name, dtype, found, kernel_name, inputs == 1, True)


def _kernels(name: str, itemsize: int, found: Plan, device: Device) -> tuple[str, ...]:
    """The names of the kernels that carry out a plan, and for losses those where every class has a term."""
    if found.sweep == "split":
        return "survey", "finish"
    if name in OF_LOSSES and loss_held.holds(found, itemsize, device):
        return found.sweep, f"held {found.sweep}"
    if name in OF_LOSSES and found.sweep == "columns" and found.access == "elements":
        return found.sweep, "dense columns"
    return (found.sweep,)


def _kernel(specimen: Specimen) -> launch.Kernel:
    name, dtype, found, kernel_name, masked, heated = specimen
    if name in BACKWARD:
        return backward_kernel(kernel_name, backward_shape(name, dtype, found, heated))
    if kernel_name == "dense columns":
        again = loss_dense.threads_of(MOST_VALUES[STORAGES[dtype].itemsize] + 1, found)
        kind = Kind(dtype, dtype, True, True)
        return dense_kernel(loss_dense.Shape(kind, name == LOSS_AND_GRADIENT.name, again, True))
    if kernel_name.startswith("held "):
        kind = Kind(dtype, dtype, False, True)  # probabilities and weights: the most there is to read
        of_terms = loss_held.Shape(kind, name == LOSS_AND_GRADIENT.name, found.vectors, found.threads, found.access)
        return held_kernel(found.sweep, of_terms)
    return kernel(kernel_name, shape_of(BY_NAME[name], dtype, found, masked, heated))


def compiled(job: tuple[Specimen, str]) -> Row:
    """Compiles a kernel for an architecture and reads its PTX and the assembler's log."""
    specimen, arch = job
    made = _kernel(specimen)
    threads = launch.bound(specimen.plan.block)
    code = seam.compiled(made.function, launch.signature(made), arch, threads)

    def count(pattern: str) -> int:
        return len(re.findall(pattern, code.ptx))

    def logged(pattern: str) -> int:
        return max((int(number) for number in re.findall(pattern, code.log)), default=0)

    return Row(
        specimen,
        arch,
        threads,
        logged(r"Used (\d+) registers"),
        max(logged(r"(\d+) bytes stack frame"), logged(r"(\d+) bytes spill"), count(r"\.local")),
        logged(r"(\d+) bytes smem"),
        count(r"ld\.global\S*\.v(?:4\.[fub]32|2\.[fub]64)"),
        count(r"st\.global\S*\.v(?:4\.[fub]32|2\.[fub]64)"),
        count(r"ld\.global\S*") - count(r"ld\.global\S*\.v"),
        count(r"\bcall\b"),
        count(r"\b[a-z.]+\.f64\b"),
    )


def others() -> list[tuple[str, str, str]]:
    """The kernels beside those of lanes: copies to every float, and scales of temperatures."""
    floats, wholes = list(STORAGES), ["bool", *seam.load_integer]
    pairs = [(s, t) for s in floats for t in floats if s != t] + [(s, "float64") for s in wholes] + [("bool", "bool")]
    tempers = [(source, computes) for source in floats for computes in ("float32", "float64")]
    return [("copy", *names) for names in pairs] + [("temper", *names) for names in tempers]


def kept(job: tuple[Specimen | tuple[str, str, str], str]) -> int:
    """Compiles a kernel for an architecture unless it is kept; the size of its machine code."""
    what, arch = job
    if isinstance(what, Specimen):
        made, block = _kernel(what), what.plan.block
    elif what[0] == "copy":
        made, block = copy_kernel(*what[1:]), copies.BLOCK
    else:
        made, block = temper_kernel(*what[1:]), temperatures.BLOCK
    return len(launch.machine_code(made, arch, launch.bound(block))[1])


HEAD = (
    "operation",
    "dtype",
    "kernel",
    "access",
    "arch",
    "threads",
    "regs",
    "spill",
    "shared",
    "ld16",
    "st16",
    "ld",
    "calls",
    "",
)


def line(row: Row) -> tuple[str, ...]:
    """A row of the table as text."""
    s = row.specimen
    name = (
        f"{s.kernel.replace(' ', '-')}/{s.plan.vectors}x{s.plan.threads}"
        + ("+mask" if s.masked else "")
        + ("+T" if s.heated else "")
    )
    numbers = (row.threads, row.registers, row.spilled, row.shared, row.loads, row.stores, row.single_loads, row.calls)
    return (s.operation, s.dtype, name, s.plan.access, row.arch, *map(str, numbers), "; ".join(row.faults))
