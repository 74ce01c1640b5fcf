"""The compiled ways back, shared out among threads."""

from collections.abc import Callable

import numpy as np
from numba import prange, types

from softmax_numba.cpu import crew, threads
from softmax_numba.cpu.arrays import apart, as_lanes, start_of
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.jit import body_named, call_body, compiled, named
from softmax_numba.cpu.memory import address_of
from softmax_numba.cpu.plan import FEWEST_COLUMNS, PARALLEL_FROM, SHARES, column_shares, is_past_cache
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.sweeps import DONE, REFUSED
from softmax_numba.cpu.threads import set_share_size, share_size
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.cpu.vjp import Backward, vjp_columns, vjp_rows
from softmax_numba.dtypes import dtype_of, storage_of


def _types(y: str, dy: str, tempered: bool) -> tuple[types.Type, ...]:
    given, other = (types.Array(storage_of(name), 3, "A", readonly=True) for name in (y, dy))
    temperature = types.Array(types.float64, 2, "A", readonly=True) if tempered else types.none
    return given, other, temperature, types.Array(storage_of(y), 3, "A")


@once
def _body(backward: Backward, columns: bool, y: str, dy: str, tempered: bool) -> int:
    build = vjp_columns if columns else vjp_rows
    body = build(backward, np.dtype(str(COMPUTES_IN[storage_of(y)])).type)
    signature = (*_types(y, dy, tempered), types.intp, types.intp, types.boolean)
    return address_of_body(body, body.__name__, signature)


@once
def _caller(y: str, dy: str, tempered: bool, parallel: bool) -> Callable:
    def vjp_serial(body, y, dy, temperature, out, units, shares, past_cache):
        call_body(body, y, dy, temperature, out, 0, units, past_cache)

    def vjp_parallel(body, y, dy, temperature, out, units, shares, past_cache):
        before = share_size()
        set_share_size(1)
        for k in prange(shares):
            call_body(body, y, dy, temperature, out, units * k // shares, units * (k + 1) // shares, past_cache)
        set_share_size(before)

    call = vjp_parallel if parallel else vjp_serial
    signature = (types.intp, *_types(y, dy, tempered), types.intp, types.intp, types.boolean)
    return compiled_for(compiled(call, call.__name__, parallel=parallel), call.__name__, signature)


@once
def small(backward: Backward, storage: str) -> Callable[[np.ndarray, np.ndarray, np.ndarray], int]:
    """The serial sweep over rows as ``kernel(y, dy, out)`` for 2-D arrays of one dtype, in C order and not empty.

    REFUSED, and nothing done, where their shapes differ, or out overlaps another otherwise than in the same places.
    """
    symbol = f"softmax_numba.{backward.name}.{storage}"
    named(symbol, _body(backward, False, storage, storage, False))
    body = body_named(symbol)

    def vjp_of_few(y, dy, out):
        if y.shape != dy.shape or y.shape != out.shape:
            return REFUSED
        to = address_of(start_of(out), 0)
        if not (to == address_of(start_of(y), 0) or apart(y, out)):
            return REFUSED
        if not (to == address_of(start_of(dy), 0) or apart(dy, out)):
            return REFUSED
        body(as_lanes(y), as_lanes(dy), None, as_lanes(out), 0, y.shape[0], False)
        return DONE

    given = types.Array(storage_of(storage), 2, "C", readonly=True)
    name = f"{backward.name}_of_few"
    return compiled_for(compiled(vjp_of_few, name), name, (given, given, types.Array(given.dtype, 2, "C")))


def run(
    backward: Backward,
    names: tuple[str, str],
    y: np.ndarray,
    dy: np.ndarray,
    temperature: np.ndarray | None,
    out: np.ndarray,
) -> None:
    """Fills ``out``; all arrays as kernels take them, (outer, length, inner), the temperature (outer, inner).

    ``names`` are the dtypes of y and dy, which are computed with in the same type.
    """
    outer, _, inner = y.shape
    in_columns = inner >= FEWEST_COLUMNS and all(a.strides[2] == a.itemsize for a in (y, dy, out))
    columns = in_columns and not all(a.strides[1] == a.itemsize for a in (y, dy, out))
    itemsize = dtype_of(names[0]).itemsize
    many = threads.in_use() if y.size >= PARALLEL_FROM else 1
    units, shares = outer * inner, SHARES * many
    tempered, past_cache = temperature is not None, is_past_cache(y.size * itemsize)
    if columns:
        units = outer * vectors_across(inner, itemsize)
        shares = column_shares(outer, units, many, not past_cache)
    shares = min(units, shares) if many > 1 else 1
    body, given = _body(backward, columns, *names, tempered), (y, dy, temperature, out)
    most = shares if columns else units
    if most > 1 and crew.together(lambda: body, _types(*names, tempered), given, y.size, units, most, past_cache):
        return
    call = (body, *given, units, shares, past_cache)
    if shares == 1 or not threads.run(_caller(*names, tempered, True), *call):
        _caller(*names, tempered, False)(*call)
    crew.ended(y.size)
