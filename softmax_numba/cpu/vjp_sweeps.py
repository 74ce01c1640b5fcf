"""The compiled ways back, shared out among threads."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import types

from softmax_numba.cpu import threads
from softmax_numba.cpu.compiled import address_of_body, once
from softmax_numba.cpu.plan import PARALLEL_FROM, SHARES, is_past_cache, is_shared_by_crew, is_shared_lane
from softmax_numba.cpu.sharing import Work, carrier
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.sweeps import bounds_of
from softmax_numba.cpu.vjp import Backward
from softmax_numba.cpu.vjp_columns import vjp_columns
from softmax_numba.cpu.vjp_long import vjp_long
from softmax_numba.cpu.vjp_narrow import vjp_narrow
from softmax_numba.cpu.vjp_plan import LONG, SWEEPS, most_shares, sweep_over, units_of
from softmax_numba.cpu.vjp_rows import vjp_rows
from softmax_numba.cpu.vjp_short import vjp_short
from softmax_numba.cpu.vjp_single import vjp_single
from softmax_numba.dtypes import dtype_of, storage_of

_BUILDERS = {
    "rows": vjp_rows,
    "short": vjp_short,
    "single": vjp_single,
    "columns": vjp_columns,
    "narrow": vjp_narrow,
    "long": vjp_long,
}


class Arrays(NamedTuple):
    """Of which dtypes the arrays of a call are, by their names."""

    y: str
    dy: str
    tempered: bool

    @property
    def compute(self) -> types.Type:
        return COMPUTES_IN[storage_of(self.y)]

    @property
    def types(self) -> tuple[types.Type, ...]:
        given, other = (types.Array(storage_of(name), 3, "A", readonly=True) for name in (self.y, self.dy))
        temperature = types.Array(types.float64, 2, "A", readonly=True) if self.tempered else types.none
        return given, other, temperature, types.Array(storage_of(self.y), 3, "A")


@once
def body_of(backward: Backward, sweep: str, arrays: Arrays) -> int:
    """The address of a sweep's machine code."""
    if dtype_of(arrays.y).itemsize == dtype_of(arrays.dy).itemsize == 2:
        backward = backward.narrow or backward
    body = _BUILDERS[sweep](backward, np.dtype(str(arrays.compute)).type)
    return address_of_body(body, body.__name__, (*arrays.types, *bounds_of(sweep, arrays.compute)))


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
    outer, length, inner = y.shape
    side_by_side = all(a.strides[1] == a.itemsize for a in (y, dy, out))
    in_columns = all(a.strides[2] == a.itemsize for a in (y, dy, out))
    end_to_end = inner == 1 and side_by_side and all(a.strides[0] == length * a.itemsize for a in (y, dy, out))
    sweep = sweep_over(outer, length, inner, y.itemsize, end_to_end, in_columns and not side_by_side)
    many = threads.in_use() if y.size >= PARALLEL_FROM else 1
    _carrier(backward, Arrays(*names, temperature is not None), y.shape, sweep, many)(y, dy, temperature, out)


@functools.lru_cache(maxsize=1024)  # what follows from these arguments costs as much as a small call
def _carrier(
    backward: Backward, arrays: Arrays, shape: tuple[int, int, int], sweep: int, many: int
) -> Callable[..., None]:
    (outer, length, inner), itemsize = shape, dtype_of(arrays.y).itemsize
    values = outer * length * inner

    def work(sweep: int, shares: int) -> Work:
        units = units_of(sweep, *shape, itemsize)
        return Work(lambda: body_of(backward, SWEEPS[sweep], arrays), units, shares, sweep == LONG)

    alone, by_layer, by_crew = work(sweep, 1), None, None
    if many > 1:
        shared = LONG if is_shared_lane(outer * inner, length, many) else sweep
        shares = min(most_shares(shared, *shape, itemsize, many), SHARES * many)
        by_layer = work(shared, shares) if shares > 1 else None
    # The crew are two at least.
    shared = LONG if is_shared_by_crew(outer * inner, length, itemsize, 2) else sweep
    most = most_shares(shared, *shape, itemsize, max(2, many))
    if most > 1:
        by_crew = work(shared, most)
    past_cache = is_past_cache(values * itemsize)
    return carrier(arrays.types, arrays.compute, values, past_cache, alone, by_layer, by_crew)
