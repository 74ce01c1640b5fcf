"""Which sweep a call takes: a pure function of its lanes, layout, dtype and threads.

The choice decides how fast a result comes, never which bits it has: every sweep adds in the order of lane.py.
"""

import functools
from typing import Literal, NamedTuple

from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.tiles import tiles_of

# A second thread joins 15 µs after the launch (tbb makes an arena a call): what one needs for half as many values.
PARALLEL_FROM = 2**16
# Shares a thread, so that a core that is busy with something else holds up little.
SHARES = 8
# Below so many neighbouring lanes, vectors across them would be mostly empty.
FEWEST_COLUMNS = 8
# From this size on streaming stores win, measured with a 32 MB last cache: 1.3x becomes 1.9x PyTorch's speed at 8 MB.
PAST_CACHE_BYTES = 2**22


class Plan(NamedTuple):
    """How a call is carried out."""

    sweep: Literal["rows", "blocks", "columns", "long"]
    shares: int  # 1: serial
    past_cache: bool


@functools.lru_cache(maxsize=1024)
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
    past_cache = not one_number and values * itemsize >= PAST_CACHE_BYTES
    if many and lanes < 2 * threads and blocks >= 2 * threads:
        return Plan("long", min(blocks, SHARES * threads), past_cache)
    sweep: Literal["rows", "blocks", "columns"] = "rows" if length <= BLOCK else "blocks"
    units = lanes
    if not side_by_side and inner >= FEWEST_COLUMNS:
        sweep, units = "columns", outer * tiles_of(outer, length, inner, itemsize)
    return Plan(sweep, min(units, SHARES * threads) if many else 1, past_cache)
