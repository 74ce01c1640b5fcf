"""The machine code of the sweeps: full vector registers, and nothing in the hot loops that holds them up."""

import platform
import re

import numpy as np
import pytest
from llvmlite import binding
from numba import types

from softmax_numba.cpu import blocks, columns, deep, rows, shallow, short
from softmax_numba.cpu.lane import LOGSUMEXP, SOFTMAX


def vector_register():
    """The widest vector registers of this CPU, by their name in assembly."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip(f"no expectation for {platform.machine()}")
    features = binding.get_host_cpu_features()
    if not features.get("fma"):
        pytest.skip("no expectation for x86-64 without FMA")
    return "zmm" if features.get("avx512f") else "ymm"


def assembly(build, operation, storage):
    """Of a serial sweep, made for this test: code from disk has none to show."""
    compute = {types.float32: np.float32, types.float64: np.float64}[storage]
    sweep = build(operation, compute)
    x = types.Array(storage, 3, "A", readonly=True)
    out = types.Array(storage, 3, "A")
    sweep.compile((x, types.none, types.none, out, types.intp, types.intp, types.boolean))
    ((_, text),) = sweep.inspect_asm().items()
    return text


def loops(text):
    """The innermost loops, each a list of instructions."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    places = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.LBB\w+:", line.split("#")[0].strip())}
    spans = set()
    for i, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.LBB\w+)", line)
        if jump and places.get(jump.group(1), i + 1) <= i:
            spans.add((places[jump.group(1)], i))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [lines[begin : end + 1] for begin, end in inner]


@pytest.mark.parametrize("storage", [types.float32, types.float64], ids=str)
@pytest.mark.parametrize(
    ("build", "operation", "vectors"),
    [
        pytest.param(rows.rows, SOFTMAX, 4, id="rows"),  # four vectors of a lane at a time
        pytest.param(blocks.blocks, SOFTMAX, 4, id="blocks"),
        pytest.param(short.short_rows, SOFTMAX, 4, id="short rows"),
        pytest.param(columns.columns, LOGSUMEXP, 1, id="columns"),
        pytest.param(deep.deep_columns, SOFTMAX, 4, id="deep columns"),
        pytest.param(shallow.shallow_columns, SOFTMAX, 4, id="shallow columns"),
    ],
)
def test_hot_loops_are_vectors_without_calls(build, operation, vectors, storage):
    """The loops around the exponential: full registers, no call (to exp or anything else), no gather."""
    register = vector_register()
    text = assembly(build, operation, storage)
    assert not re.search(r"\b(expf|logf|_ZGV\w+)\b", text)
    packed = rf"vfn?madd\w+p{'s' if storage == types.float32 else 'd'}\b.*%{register}"
    hot = [loop for loop in loops(text) if sum(bool(re.match(packed, line)) for line in loop) >= 5]
    assert hot
    for loop in hot:
        assert not [line for line in loop if re.match(r"call|vp?gather|vp?scatter", line)], loop
    heaviest = max(sum(bool(re.match(packed, line)) for line in loop) for loop in hot)
    assert heaviest >= vectors * (7 if storage == types.float32 else 12)
    if build is rows.rows:  # results past the cache are streamed
        assert re.search(rf"vmovntp[sd]\s+%{register}", text)
