"""The machine code of the sweeps: full vector registers, and nothing in the hot loops that holds them up."""

import platform
import re
from typing import NamedTuple

import pytest
from llvmlite import binding
from numba import types

from softmax_numba.cpu import compiled, sweeps, vjp_sweeps
from softmax_numba.cpu.host import FEW_REGISTERS, MASKS
from softmax_numba.cpu.lane import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX
from softmax_numba.cpu.loss_sweeps import INDICES, Kernel, body_of_losses
from softmax_numba.cpu.simd import BFLOAT, HALF
from softmax_numba.cpu.vjp import LOG_SOFTMAX_VJP, SOFTMAX_VJP

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


@pytest.fixture
def made(monkeypatch):
    """`made(build, *arguments)`: the code of a sweep that callers use, compiled now: what is on disk has nothing to
    show. It is kept there all the same, so nobody compiles it again."""
    monkeypatch.setattr(compiled._KernelCache, "load_overload", lambda *arguments: None)

    def make(build, *arguments):
        with monkeypatch.context() as here:
            here.setattr(compiled, "kept", lambda body, name: body.overloads.clear() or kept(body, name))
            build.__wrapped__(*arguments)
        return compiled._loaded[-1].library

    kept = compiled.kept

    return make


_VALUE = r"(<[^<>]*>|%[\w.]+)"
_LOOKED_UP = re.compile(
    rf"(?:tail )?call (<\d+ x float>) @llvm\.x86\.avx[\w.]+\(\1 {_VALUE}, (<\d+ x i32>) {_VALUE}\)( #\d+)?"
)
_AFTER = re.compile(rf'(?:tail )?call (<\d+ x float>) asm "", "=x,0,x"\(\1 {_VALUE}, \1 {_VALUE}\)( #\d+)?')


def assembly_for(machine, sweep):
    """What LLVM makes of a sweep's intermediate code on another machine."""
    target = binding.Target.from_triple(machine.triple).create_target_machine(cpu=machine.cpu, opt=3)
    code = re.sub("target triple = .*", f'target triple = "{machine.triple}"', sweep.get_llvm_str())
    code = re.sub("target datalayout = .*", f'target datalayout = "{target.target_data}"', code)
    if FEW_REGISTERS and machine.triple.startswith("aarch64"):
        code = code.replace('"=x,0"', '"=w,0"')  # hidden.py: what assembly calls a register of floats
        code = _AFTER.sub(r"bitcast \1 \2 to \1", code)  # of which none has 256 bits
    if machine.triple.startswith("aarch64") or (MASKS and machine.cpu == "x86-64-v3"):
        # What would be looked up in another way, or not at all (exponential.py): the rest of the code shows.
        code = _LOOKED_UP.sub(r"bitcast \3 \4 to \1", code)
    # Numba counts references with an instruction that other processors do not have; it becomes a call.
    return target.emit_assembly(binding.parse_assembly(code.replace("llvm.x86.atomic", "x86_atomic")))


def loops(text, counts=lambda loop: True):
    """The innermost of the loops that count, each a list of instructions."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    places = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line.split("#")[0].strip())}
    spans = set()
    for i, line in enumerate(lines):
        jump = re.match(r"(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s+(?:.*\s)?(\.LBB\w+)", line)
        if jump and places.get(jump.group(1), i + 1) <= i:
            spans.add((places[jump.group(1)], i))
    spans = {(begin, end) for begin, end in spans if counts(lines[begin : end + 1])}
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [lines[begin : end + 1] for begin, end in inner]


def sweep_of(operation, name):
    return lambda storage: (sweeps.body_of, operation, name, sweeps.Arrays(storage, False, False))


def losses_of(form, dense):
    return lambda storage: (body_of_losses, Kernel(form, str(storage), INDICES, dense, True))


def way_back(name, backward=LOG_SOFTMAX_VJP):
    return lambda storage: (
        vjp_sweeps.body_of,
        backward,
        name,
        vjp_sweeps.Arrays(str(storage), str(storage), False),
    )


SWEEPS = {  # and how many vectors take each step together
    "rows": (sweep_of(SOFTMAX, "rows"), 4),
    "woven rows": (sweep_of(SOFTMAX, "woven"), 4),
    "blocks": (sweep_of(SOFTMAX, "blocks"), 4),
    "short rows": (sweep_of(SOFTMAX, "short"), 4),
    "tiny rows": (sweep_of(SOFTMAX, "tiny"), 4),
    "columns": (sweep_of(LOGSUMEXP, "columns"), 1),
    "deep columns": (sweep_of(SOFTMAX, "deep"), 4),
    "shallow columns": (sweep_of(SOFTMAX, "shallow"), 4),
    "middle columns": (sweep_of(SOFTMAX, "middle"), 4),
    "losses": (losses_of("rows", False), 4),
    "losses of short rows": (losses_of("turned", False), 4),
    "losses in one look": (losses_of("held", False), 4),
    "smooth losses": (losses_of("rows", True), 4),
    "losses of columns": (losses_of("columns", False), 4),
    "vjp": (way_back("rows"), 4),
    "vjp of short rows": (way_back("short"), 4),
    "vjp of columns": (way_back("columns"), 4),
}
# Of what shares its steps with one of those, in float32 alone.
OTHERS = {
    "log_softmax": (sweep_of(LOG_SOFTMAX, "rows"), 4),
    "long lanes": (sweep_of(LOG_SOFTMAX, "long"), 4),
}


# Where few values are filled up by zeros, without a call.
NO_CALLS = {"columns", "middle columns"}
# In whose loops over float32 the exponential's constants are numbers that the compiler does not know.
HOLD = {"woven rows", "blocks", "deep columns"}


def check_constants(text):
    """The loops over four vectors at a time find the exponential's constants where they are, and do not look for them
    anew."""
    for loop in loops(text):
        fused, rest = sum(bool(re.match(r"vfn?m(add|sub)", line)) for line in loop), "maskmov" in " ".join(loop)
        if fused >= 56 and not rest:
            made_anew = [line for line in loop if line.startswith("movabs")]
            assert len(made_anew) <= 2, made_anew


def check_read_again(text):
    """Where terms are told from the largest, values are compared where they were read, not on the stack."""
    compares = [[line for line in loop if line.startswith("vcmpeqps")] for loop in loops(text)]
    compares = [found for found in compares if len(found) >= 8]
    assert compares
    for found in compares:
        assert sum(bool(re.search(r"\(%r(?!sp|bp)", line)) for line in found) >= 8, found


def check_sums_in_registers(text):
    """The loop that adds up a row's products, widened, four vectors at a time, leaves nothing on the stack."""
    adds = [
        loop for loop in loops(text) if sum(line.startswith("vcvtps2pd") for line in loop) == 32
    ]  # two of each vector
    assert adds
    for loop in adds:
        assert not [line for line in loop if re.search(r"\(%r[sb]p\)", line)], loop


def check_hot_loops(machine, text, storage, vectors):
    """The loops around the exponential: full registers, no call (to exp or anything else), no gather."""
    assert not re.search(r"\b(expf|logf|fmaf?|_ZGV\w+|__\w*hfsf2|__\w*sfhf2)\b", text)
    fused = machine.fused.format("d" if storage == types.float64 else "s")

    def is_hot(loop):
        return sum(bool(re.match(fused, line)) for line in loop) >= 5

    # A jump back from a branch that was put elsewhere looks like a loop within a hot one.
    hot = [loop for loop in loops(text) if is_hot(loop)] or loops(text, is_hot)
    assert hot
    for loop in hot:
        assert not [line for line in loop if re.match(f"{machine.call}|{machine.gather}", line)], loop
    heaviest = max(sum(bool(re.match(fused, line)) for line in loop) for loop in hot)
    assert heaviest >= machine.registers * vectors * (12 if storage == types.float64 else 7)


@pytest.mark.skipif(not FEW_REGISTERS, reason="where rows are woven, sums share the registers with what is written")
def test_a_row_is_added_up_in_registers(made):
    check_sums_in_registers(made(*way_back("rows", SOFTMAX_VJP)(types.float32)).get_asm_str())


@pytest.mark.parametrize(
    ("sweep", "storage"),
    [
        *((sweep, kind) for sweep in SWEEPS for kind in (types.float32, types.float64)),
        *((sweep, types.float32) for sweep in OTHERS),
        ("rows", HALF),
        ("rows", BFLOAT),
    ],
    ids=str,
)
def test_hot_loops_are_vectors_without_calls(sweep, storage, made):
    """On this machine, and on those with registers of 512, 256 and 128 bits: as many full ones as a vector takes."""
    which, vectors = (SWEEPS | OTHERS)[sweep]
    body = made(*which(storage))
    machine = None if storage in (HALF, BFLOAT) else host()
    if machine is not None:
        text = body.get_asm_str()
        check_hot_loops(machine, text, storage, vectors)
        if not MASKS:  # a masked store is slow, and LLVM makes them of its own accord
            assert not re.search(r"vp?maskmov\w+\s+%[xy]mm\d+, %[xy]mm\d+, \S*\(", text)
        assert "memset" not in body.get_llvm_str() or sweep not in NO_CALLS
        # Vectors that registers have no room for lie within cache lines, wherever the caller's stack ends.
        assert re.search(r"andq\s+\$-64, %rsp", text)
        if FEW_REGISTERS and sweep in HOLD and storage == types.float32:
            check_constants(text)
        if FEW_REGISTERS and sweep == "log_softmax":
            check_read_again(text)
        if sweep in ("rows", "woven rows"):  # results past the cache are streamed
            register = "zmm" if machine.registers == 1 else "ymm"
            assert re.search(rf"vmovntp[sd]\s+%{register}", text)
    if storage != types.float64 or sweep == "rows":
        for other in (found for found in MACHINES.values() if found != machine):
            check_hot_loops(other, assembly_for(other, body), storage, vectors)
