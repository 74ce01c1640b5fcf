"""The machine code of the sweeps: full vector registers, and nothing in the hot loops that holds them up."""

import platform
import re
from typing import NamedTuple

import numpy as np
import pytest
from llvmlite import binding
from numba import types

from softmax_numba.cpu import blocks, columns, deep, loss, loss_columns, loss_rows, rows, shallow, short, vjp
from softmax_numba.cpu.lane import LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.loss_sweeps import INDICES, Kernel
from softmax_numba.cpu.simd import BFLOAT, COMPUTES_IN, HALF
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP

binding.initialize_all_targets()
binding.initialize_all_asmprinters()


class Machine(NamedTuple):
    """A kind of processor, and what its assembly calls full registers."""

    triple: str
    cpu: str
    registers: int  # that one vector of ours takes
    fused: str  # the product and sum of a full register of float32 or float64
    call: str
    gather: str


_X86 = r"call", r"vp?(gather|scatter)"
MACHINES = {
    "x86-64-v3": Machine("x86_64-unknown-linux-gnu", "x86-64-v3", 2, r"vfn?m(add|sub)\w+p{}\b.*%ymm", *_X86),
    "x86-64-v4": Machine("x86_64-unknown-linux-gnu", "x86-64-v4", 1, r"vfn?m(add|sub)\w+p{}\b.*%zmm", *_X86),
    "neoverse-n1": Machine(
        "aarch64-unknown-linux-gnu", "neoverse-n1", 4, r"fml[as]\s+v\d+\.(4s|2d)", r"blr?\b", r"ld1.*\]\["
    ),
}


def host():
    """The machine that comes closest to this one; None where nothing is expected of it."""
    features = binding.get_host_cpu_features() if platform.machine().lower() in ("x86_64", "amd64") else {}
    if not features.get("fma"):
        return None
    return MACHINES["x86-64-v4" if features.get("avx512f") else "x86-64-v3"]


def compiled(build, operation, storage):
    """A serial sweep, made for this test: code from disk has nothing to show."""
    compute = np.float64 if storage == types.float64 else np.float32
    x, out = types.Array(storage, 3, "A", readonly=True), types.Array(storage, 3, "A")
    arrays = (x, types.none, types.none, out)
    if isinstance(operation, loss.Kind):
        sweep = build(compute, operation, True)
        arrays = (*Kernel("rows", str(COMPUTES_IN[storage]), INDICES, operation.dense, True).types, types.int64)
        assert storage == COMPUTES_IN[storage]
    else:
        sweep = build(operation, compute)
        if operation is LOG_SOFTMAX_VJP:
            arrays = (x, x, types.none, out)
    sweep.compile((*arrays, types.intp, types.intp, types.boolean))
    return sweep


def assembly_for(machine, sweep):
    """What LLVM makes of a sweep's intermediate code on another machine."""
    ((_, code),) = sweep.inspect_llvm().items()
    target = binding.Target.from_triple(machine.triple).create_target_machine(cpu=machine.cpu, opt=3)
    code = re.sub("target triple = .*", f'target triple = "{machine.triple}"', code)
    code = re.sub("target datalayout = .*", f'target datalayout = "{target.target_data}"', code)
    # Numba counts references with an instruction that other processors do not have; it becomes a call.
    return target.emit_assembly(binding.parse_assembly(code.replace("llvm.x86.", "x86_")))


def loops(text):
    """The innermost loops, each a list of instructions."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    places = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line.split("#")[0].strip())}
    spans = set()
    for i, line in enumerate(lines):
        jump = re.match(r"(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s+(?:.*\s)?(\.LBB\w+)", line)
        if jump and places.get(jump.group(1), i + 1) <= i:
            spans.add((places[jump.group(1)], i))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [lines[begin : end + 1] for begin, end in inner]


SWEEPS = {  # and how many vectors take each step together
    "rows": (rows.rows, SOFTMAX, 4),
    "blocks": (blocks.blocks, SOFTMAX, 4),
    "short rows": (short.short_rows, SOFTMAX, 4),
    "columns": (columns.columns, LOGSUMEXP, 1),
    "deep columns": (deep.deep_columns, SOFTMAX, 4),
    "shallow columns": (shallow.shallow_columns, SOFTMAX, 4),
    "losses": (loss_rows.loss_rows, loss.Kind(False, False), 4),
    "smooth losses": (loss_rows.loss_rows, loss.Kind(False, True), 4),
    "losses of columns": (loss_columns.loss_columns, loss.Kind(False, False), 4),
    "vjp": (vjp.vjp_rows, LOG_SOFTMAX_VJP, 4),
    "vjp of columns": (vjp.vjp_columns, LOG_SOFTMAX_VJP, 4),
}


def check_hot_loops(machine, text, storage, vectors):
    """The loops around the exponential: full registers, no call (to exp or anything else), no gather."""
    assert not re.search(r"\b(expf|logf|fmaf?|_ZGV\w+|__\w*hfsf2|__\w*sfhf2)\b", text)
    fused = machine.fused.format("d" if storage == types.float64 else "s")
    hot = [loop for loop in loops(text) if sum(bool(re.match(fused, line)) for line in loop) >= 5]
    assert hot
    for loop in hot:
        assert not [line for line in loop if re.match(f"{machine.call}|{machine.gather}", line)], loop
    heaviest = max(sum(bool(re.match(fused, line)) for line in loop) for loop in hot)
    assert heaviest >= machine.registers * vectors * (12 if storage == types.float64 else 7)


@pytest.mark.parametrize(
    ("sweep", "storage"),
    [(sweep, kind) for sweep in SWEEPS for kind in (types.float32, types.float64)] + [("rows", HALF), ("rows", BFLOAT)],
    ids=str,
)
def test_hot_loops_are_vectors_without_calls(sweep, storage):
    """On this machine, and on those with registers of 512, 256 and 128 bits: as many full ones as a vector takes."""
    build, operation, vectors = SWEEPS[sweep]
    made = compiled(build, operation, storage)
    machine = host()
    if machine is not None and storage not in (HALF, BFLOAT):
        ((_, text),) = made.inspect_asm().items()
        check_hot_loops(machine, text, storage, vectors)
        if sweep == "rows":  # results past the cache are streamed
            register = "zmm" if machine.registers == 1 else "ymm"
            assert re.search(rf"vmovntp[sd]\s+%{register}", text)
    if storage != types.float64 or sweep == "rows":
        for other in MACHINES.values():
            check_hot_loops(other, assembly_for(other, made), storage, vectors)
