"""Which sweep a call takes: a pure function of its lanes, layout, dtype and threads.

The choice decides how fast a result comes, never which bits it has: every sweep adds in the order of lane.py.
"""

from typing import Literal, NamedTuple

from softmax_numba.cpu.lane import BLOCK

# A parallel launch costs 2 to 5 µs (tbb, omp): as much as one thread needs for this many values.
PARALLEL_FROM = 2**15
# Shares a thread, so that a core that is busy with something else holds up little.
SHARES = 8
# Below so many neighbouring lanes, vectors across them would be mostly empty.
FEWEST_COLUMNS = 8
# From this size on streaming stores win, measured with a 32 MB last cache: 1.3x becomes 1.9x PyTorch's speed at 8 MB.
PAST_CACHE_BYTES = 2**22
# Streaming stores pay for rows of this size: measured, 0.6x to 0.9x at 1 kB, 1.0x to 1.5x at 2 kB, 1.8x at 8 kB.
STREAMED_ROW_BYTES = 2048


class Plan(NamedTuple):
    """How a call is carried out."""

    sweep: Literal["rows", "columns", "long"]
    shares: int  # 1: serial
    past_cache: bool


def plan(
    outer: int, length: int, inner: int, *, itemsize: int, side_by_side: bool, one_number: bool, threads: int
) -> Plan:
    """The plan for ``outer * inner`` lanes of ``length`` values.

    Parameters
    ----------
    outer, length, inner : int
        The lanes as lanes.py presents them, none of them 0.
    itemsize : int
        Bytes a value.
    side_by_side : bool
        Whether a lane's own values are neighbours in memory.
    one_number : bool
        Whether the result is one number a lane.
    threads : int
        How many threads the call may use.
    """
    lanes, blocks = outer * inner, -(-length // BLOCK)
    values = lanes * length
    many = threads > 1 and values >= PARALLEL_FROM
    past_cache = not one_number and values * itemsize >= PAST_CACHE_BYTES and length * itemsize >= STREAMED_ROW_BYTES
    if many and lanes < 2 * threads and blocks >= 2 * threads:
        return Plan("long", min(blocks, SHARES * threads), past_cache)
    sweep: Literal["rows", "columns"] = "rows" if side_by_side or inner < FEWEST_COLUMNS else "columns"
    units = lanes if sweep == "rows" else outer * -(-inner // 16)
    return Plan(sweep, min(units, SHARES * threads) if many else 1, past_cache and sweep == "rows")
