"""Which sweep a way back takes: as plan.py does for the operations."""

from typing import Literal, get_args

from softmax_numba.cpu.inlining import for_both
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.plan import (
    FEWEST_COLUMNS,
    FEWEST_SHORT,
    LONGEST_NARROW,
    column_shares,
    is_past_cache,
    is_shared_by_crew,
)
from softmax_numba.cpu.rows import STREAMED_ROW_BYTES
from softmax_numba.cpu.tiles import vectors_across

Sweep = Literal["rows", "short", "single", "columns", "narrow", "long"]
SWEEPS: tuple[Sweep, ...] = get_args(Sweep)
ROWS, SHORT, SINGLE, COLUMNS, NARROW, LONG = range(len(SWEEPS))

# Rows of up to so many bytes in the compute dtype are written end to end. Measured on a Zen 3 in the cache: float32
# gains 1.05x to 1.5x at 70 to 250 values, float64 1.1x at 40 and loses from 50 on, 0.65x to 0.9x. If
# results are streamed so are longer ones, up to those that stream their own: these gain 1.05x to 1.6x.
LONGEST_SHORT_BYTES, LONGEST_SHORT_BYTES_OF_FLOAT64 = 1024, 320


@for_both
def sweep_over(outer: int, length: int, inner: int, itemsize: int, end_to_end: bool, columnar: bool) -> int:
    """Which sweep is taken over lanes that are not shared: its place in ``SWEEPS``.

    Parameters
    ----------
    outer, length, inner, itemsize : int
        As for :func:`softmax_numba.cpu.plan.plan`.
    end_to_end : bool
        Whether each lane's own values are neighbours in memory, and one lane begins where another ends.
    columnar : bool
        Whether neighbouring lanes are neighbours in memory, and no lane's own values are. All of this is to be true of
        y, dy and the result.
    """
    if columnar and inner >= FEWEST_COLUMNS:
        return COLUMNS
    if columnar and inner > 1 and length <= LONGEST_NARROW:
        return NARROW
    if end_to_end and length == 1:
        return SINGLE
    if end_to_end:
        row_bytes = length * max(itemsize, 4)
        if is_past_cache(outer * length * itemsize):
            return SHORT if row_bytes < STREAMED_ROW_BYTES else ROWS
        longest = LONGEST_SHORT_BYTES_OF_FLOAT64 if itemsize == 8 else LONGEST_SHORT_BYTES
        return SHORT if row_bytes <= longest and outer >= FEWEST_SHORT else ROWS
    return ROWS


@for_both
def units_of(sweep: int, outer: int, length: int, inner: int, itemsize: int) -> int:
    """What a sweep counts its work in: vectors of lanes, side by side or end to end, lanes, or blocks of one."""
    if sweep == LONG:
        return -(-length // BLOCK)
    if sweep == COLUMNS:
        return outer * vectors_across(inner, itemsize)
    if sweep == NARROW:
        return vectors_across(outer * inner, itemsize)
    return vectors_across(outer, itemsize) if sweep in (SHORT, SINGLE) else outer * inner


@for_both
def most_shares(sweep: int, outer: int, length: int, inner: int, itemsize: int, threads: int) -> int:
    """Into how many shares so many threads may cut a sweep."""
    units = units_of(sweep, outer, length, inner, itemsize)
    if sweep == COLUMNS:
        return column_shares(outer, units, threads, not is_past_cache(outer * length * inner * itemsize))
    return units


@for_both
def can_be_shared(sweep: int, outer: int, length: int, inner: int, itemsize: int) -> bool:
    """Whether two threads who are awake find something to share."""
    shares = most_shares(sweep, outer, length, inner, itemsize, 2)
    return shares > 1 or is_shared_by_crew(outer * inner, length, itemsize, 2)
