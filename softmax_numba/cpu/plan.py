"""Which sweep a call takes: a pure function of its lanes, layout, dtype and threads.

The choice decides how fast a result comes, never which bits it has: every sweep adds in the order of lane.py. Python
asks by :func:`plan`, compiled code (``door.py``) by the functions that it is made of.
"""

import functools
from typing import Literal, NamedTuple, get_args

from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import for_both
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.middle import LONGEST_GROUPED, PAGE_BYTES
from softmax_numba.cpu.shallow import LONGEST as LONGEST_SHALLOW
from softmax_numba.cpu.short import short_tiles_of
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.cpu.woven import WAITING_ROW_BYTES

Sweep = Literal["rows", "short", "woven", "blocks", "columns", "deep", "shallow", "middle", "narrow", "long", "tiny"]
# Their names, and the places of these, by which compiled code knows them.
SWEEPS: tuple[Sweep, ...] = get_args(Sweep)
ROWS, SHORT, WOVEN, BLOCKS, COLUMNS, DEEP, SHALLOW, MIDDLE, NARROW, LONG, TINY = range(len(SWEEPS))

# A second thread joins 15 µs after the launch (tbb makes an arena a call): what one needs for half as many values.
PARALLEL_FROM = 2**16
# With threads that are awake (crew.py), it needs two microseconds: what one needs for so many.
CREW_FROM = 2**14
# In this respect one of float64 counts twice, and a lane's logarithm as so many. Measured with two threads instead of
# one: float64 1.0x to 1.8x at 9,000 values, log_softmax of 1600 lanes of 2 to 4 values 1.3x to 1.5x.
LOG_VALUES = 10
# And a lane that threads share has two launches.
LONG_FROM = 2**18
# Which cost the crew less. Measured beside one thread 1.4x to 2x as fast at 100,000 values, in float64 1.25x at half as
# many as this; in float32 0.8x at 40,000.
CREW_LONG_FROM = 2**16
# Shares a thread, so that a core that is busy with something else holds up little.
SHARES = 8
# Below so many neighbouring lanes, vectors across them would be mostly empty.
FEWEST_COLUMNS = 8
# Columns of this length are walked line by line instead of tile by tile. Past the caches tiles are measured 1.2x to
# 1.3x as fast at 50 to 400 values, level at 500 and 750, and 0.9x at 1000.
DEEP_FROM, DEEP_PAST_CACHE_FROM = 256, 513
# Shorter ones go through a panel of a vector of lanes (middle.py) within the caches, and past them if they are shorter
# still, with 16 registers. Measured on a Zen 3 beside tiles: 1.2x to 1.5x within the caches at 9 to 200 values, 1.7x of
# eight lanes; past them 1.3x to 1.5x at 21 and 24, 1.2x at 64, 0.8x at 100. Where lines stand at the same place of
# every page, the first cache has no room for more results: 1.1x to 1.2x up to 21 (float64: 0.9x), 0.9x at 24, 0.5x at
# 32; of 16 bits 1.1x to 1.4x.
MIDDLE_TO = DEEP_FROM - 1 if REGISTER_BITS < 512 else 0
MIDDLE_PAST_CACHE_TO = 64
# With 16 registers float64, whose exponentials are kept (deep.py), from the same length on as within the caches: 1.0x
# to 1.15x; and where no exponentials are needed for the results, lines of so many bytes right from where the panel ends
# at the latest: 1.05x to 1.25x (of 32 to 128 bytes 0.5x to 0.8x).
DEEP_LOGARITHMS_FROM, DEEP_LINE_BYTES = MIDDLE_PAST_CACHE_TO + 1, 512
# Lanes of up to so many values with fewer neighbours are gathered into vectors (narrow.py). Measured on a Zen 3 beside
# rows: 2x at 2 values, 1.3x to 1.4x at 10 to 20, 1.05x at 200;
# ways back 6x at 2, 3x at 10, 1.3x at 200.
LONGEST_NARROW = 200
# In vectors of neighbouring lanes: a share is as wide as a page of memory, if there is one for each thread; in narrow
# ones every line of a lane costs a look at another page.
WIDE_SHARE = 64
# And where results stay in the caches, a share of a slab that is narrower gains nothing: at its edges two cores write
# neighbouring lines. Measured on two cores, beside one: (1000, 400) 0.6 to 0.9 times as fast, (300, 1000) 1.4 times.
LEAST_SHARE = 24
# So many rows are turned into columns, if they are short.
FEWEST_SHORT = 64
# Rows that hold four vectors are woven, if there are enough of them: below, that is 0.9x as fast. Not woven are 16-bit
# floats, which would have to be converted twice more, and where there are no results to write: 0.8x to 1.0x. With 16
# registers there is less to gain: measured on a Zen 3, 0.85x to 0.95x at 280 to 520 bytes, 0.9x to 1.1x beyond.
WOVEN_ROW_BYTES, WOVEN_FROM = 256 if REGISTER_BITS == 512 else 640, BLOCK
# Nor are, with those, rows that would also wait for a cache line to be full before they are streamed: softmax of
# (16384, 1000) is 0.85 to 0.9 times as fast then, log_softmax 0.75 to 0.9.
WEAVES_WAITING = REGISTER_BITS == 512
# From this size on streaming stores win, measured with a 32 MB last cache: 1.3x becomes 1.9x PyTorch's speed at 8 MB.
PAST_CACHE_BYTES = 2**22


@for_both
def longest_middle_past_cache(line: int, itemsize: int, one_number: bool) -> int:
    """Up to which length columns gain by the panel past the caches, where a line has so many bytes."""
    if line % PAGE_BYTES != 0:
        return MIDDLE_PAST_CACHE_TO
    if one_number:
        return LONGEST_GROUPED
    return 16 if itemsize == 8 else 21


@for_both
def deep_from(line: int, itemsize: int, large: bool, one_number: bool, logarithms: bool) -> int:
    """From which length on columns are walked line by line, of so many bytes; ``large`` is whether their values are
    past the caches."""
    if large and logarithms and line >= DEEP_LINE_BYTES and itemsize != 2 and REGISTER_BITS != 512:
        return DEEP_LOGARITHMS_FROM
    if large and not one_number and (itemsize != 8 or REGISTER_BITS == 512):
        return DEEP_PAST_CACHE_FROM
    return DEEP_FROM


@for_both
def longest_short(itemsize: int, one_number: bool, past_cache: bool) -> int:
    """Up to which length rows gain by that.

    Measured: 2.4x at 4 values and 1.2x at 24. With 16 registers, on a Zen 3, longer ones gain too, the less the nearer
    they are to a multiple of 16 (float64: 8), and a vector of 8 float64 has half as many places. Of one number a row
    float32 1.3x at 33, 1.1x to 1.4x at 41, 1.0x to 1.2x at 100 (float64: 1.4x, 1.4x, 1.2x), 0.9x to 1.05x at 128; with
    results 1.0x to 1.1x at 41 and 0.9x from 57 on (float64: 1.25x, 1.0x from 64 on), and past the caches 1.5x at 41,
    1.0x to 1.1x at 100 (float64: 1.3x, 1.1x). 16-bit results 1.2x at 33, 1.0x at 41, 0.85x to 1.0x at 64.
    """
    if REGISTER_BITS == 512:
        return 24 if itemsize == 8 else 32
    if one_number:
        return 128 if itemsize == 8 else 112
    if itemsize == 2:
        return 48 if past_cache else 40
    if past_cache:
        return 112
    return 64 if itemsize == 8 else 48


@for_both
def longest_tiny(itemsize: int) -> int:
    """Up to which length rows are done with a vector of them at a time: as many values as a register holds.

    Measured on a Zen 3 beside short ones: 1.1x to 1.3x at 2 to 4 values, 1.05x to 1.15x at 5 to 8, past the caches
    1.0x to 1.2x. Not known with registers of 512 bits.
    """
    if REGISTER_BITS == 512:
        return 0
    return 4 if itemsize == 8 else 8


@for_both
def fewest_tiny(itemsize: int) -> int:
    """From how many rows on: a vector's. Measured beside rows: 16 of 8 values 2.1x, 17 of 5 to 8 1.2x to 1.5x."""
    return 8 if itemsize == 8 else 16


@for_both
def is_past_cache(nbytes: int) -> bool:
    """Whether results of so many bytes are to be streamed past the caches."""
    return nbytes >= PAST_CACHE_BYTES


@for_both
def work_of(values: int, lanes: int, itemsize: int, logarithms: bool) -> int:
    """How much there is to do, in values, to see whether it is enough for a crew."""
    if values >= CREW_FROM:
        return values
    work = 2 * values if itemsize == 8 else values
    return min(CREW_FROM, work + LOG_VALUES * lanes if logarithms else work)


@for_both
def is_woven(lanes: int, length: int, itemsize: int) -> bool:
    """Whether rows, their own values and their results side by side, are to be looked at, computed and written at
    once."""
    row, values = length * itemsize, lanes * length
    if itemsize == 2 or row < WOVEN_ROW_BYTES or length > BLOCK or values <= WOVEN_FROM:
        return False
    return WEAVES_WAITING or row > WAITING_ROW_BYTES or not is_past_cache(values * itemsize)


@for_both
def is_shared_lane(lanes: int, length: int, threads: int) -> bool:
    """Whether lanes are so few and so long that each is to be cut up among threads."""
    return threads > 1 and lanes * length >= LONG_FROM and lanes < 2 * threads and length > (2 * threads - 1) * BLOCK


@for_both
def is_shared_by_crew(lanes: int, length: int, itemsize: int, threads: int) -> bool:
    """The same where so many threads are awake: of few values, unless there are as many lanes for each."""
    if is_shared_lane(lanes, length, threads):
        return True
    enough = lanes * length >= (CREW_LONG_FROM // 2 if itemsize == 8 else CREW_LONG_FROM)
    long = enough and length > (2 * threads - 1) * BLOCK
    return threads > 1 and long and lanes < 2 * threads and lanes % threads != 0


@for_both
def column_shares(outer: int, units: int, threads: int, in_cache: bool) -> int:
    """How many shares ``outer`` slabs of columns are cut into, of so many units in all."""
    if in_cache and outer < threads and units < LEAST_SHARE * threads:
        return 1
    return min(units, threads * max(1, min(SHARES, units // (WIDE_SHARE * threads))))


@for_both
def is_across(sweep: int) -> bool:
    """Whether vectors hold neighbouring lanes' values."""
    return sweep in (COLUMNS, DEEP, SHALLOW, MIDDLE)


@for_both
def is_turned(sweep: int) -> bool:
    """Whether it is given rows as columns: x (outer, length, 1) as (1, length, outer)."""
    return sweep in (SHORT, TINY)


@for_both
def sweep_over(
    outer: int,
    length: int,
    inner: int,
    itemsize: int,
    side_by_side: bool,
    one_number: bool,
    turnable: bool,
    columnar: bool,
    logarithms: bool,
) -> int:
    """Which sweep is taken over lanes that are not shared: its place in ``SWEEPS``. Arguments as of :func:`plan`."""
    if not side_by_side and inner >= FEWEST_COLUMNS:
        large = is_past_cache(outer * length * inner * itemsize)
        if columnar and length <= LONGEST_SHALLOW:
            return SHALLOW
        longest = MIDDLE_TO
        if large and itemsize != 2:
            longest = min(longest, longest_middle_past_cache(inner * itemsize, itemsize, one_number))
        if columnar and length <= longest:
            return MIDDLE
        if columnar and length >= deep_from(inner * itemsize, itemsize, large, one_number, logarithms):
            return DEEP
        return COLUMNS
    if not side_by_side and inner > 1 and columnar and length <= LONGEST_NARROW:
        return NARROW
    if side_by_side and inner == 1 and turnable:
        past_cache = not one_number and is_past_cache(outer * length * itemsize)
        if length <= longest_tiny(itemsize) and outer >= fewest_tiny(itemsize):
            return TINY
        if outer >= FEWEST_SHORT and length <= longest_short(itemsize, one_number, past_cache):
            return SHORT
        if not one_number and is_woven(outer, length, itemsize):
            return WOVEN
    return ROWS if length <= BLOCK else BLOCKS


@for_both
def units_of(sweep: int, outer: int, length: int, inner: int, itemsize: int) -> int:
    """What a sweep counts its work in: vectors of neighbouring lanes, tiles of short rows, lanes, or blocks of one."""
    if is_across(sweep):
        return outer * vectors_across(inner, itemsize)
    if sweep == NARROW:
        return vectors_across(outer * inner, itemsize)
    if is_turned(sweep):
        return short_tiles_of(outer, length, itemsize)
    return -(-length // BLOCK) if sweep == LONG else outer * inner


@for_both
def most_shares(sweep: int, outer: int, length: int, inner: int, itemsize: int, one_number: bool, threads: int) -> int:
    """Into how many shares so many threads may cut a sweep."""
    units = units_of(sweep, outer, length, inner, itemsize)
    if is_across(sweep):
        in_cache = not one_number and not is_past_cache(outer * length * inner * itemsize)
        return column_shares(outer, units, threads, in_cache)
    return units


@for_both
def can_be_shared(sweep: int, outer: int, length: int, inner: int, itemsize: int, one_number: bool) -> bool:
    """Whether two threads who are awake find something to share."""
    shares = most_shares(sweep, outer, length, inner, itemsize, one_number, 2)
    return shares > 1 or is_shared_by_crew(outer * inner, length, itemsize, 2)


class Plan(NamedTuple):
    """How a call is carried out."""

    sweep: Sweep
    shares: int  # 1: serial
    past_cache: bool

    @property
    def across(self) -> bool:
        """Whether vectors hold neighbouring lanes' values: shares are as wide as memory is fast, or there is one."""
        return is_across(SWEEPS.index(self.sweep))

    @property
    def turned(self) -> bool:
        """Whether the sweep is given rows as columns."""
        return is_turned(SWEEPS.index(self.sweep))


@functools.lru_cache(maxsize=1024)
def plan(
    outer: int,
    length: int,
    inner: int,
    *,
    itemsize: int,
    side_by_side: bool,
    one_number: bool,
    turnable: bool,
    columnar: bool,
    logarithms: bool,
    threads: int,
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
    turnable : bool
        Whether rows may be turned into columns: there is no mask, and each row's results are neighbours in memory.
    columnar : bool
        Whether neighbouring lanes are neighbours in memory, as are their results, and there is no mask.
    logarithms : bool
        Whether values are mapped to logarithms, not exponentials.
    threads : int
        How many threads the call may use.
    """
    lanes, values = outer * inner, outer * length * inner
    if is_shared_lane(lanes, length, threads):
        sweep = LONG
    else:
        sweep = sweep_over(outer, length, inner, itemsize, side_by_side, one_number, turnable, columnar, logarithms)
    shares = 1
    if threads > 1 and values >= PARALLEL_FROM:
        shares = min(most_shares(sweep, outer, length, inner, itemsize, one_number, threads), SHARES * threads)
    return Plan(SWEEPS[sweep], shares, not one_number and is_past_cache(values * itemsize))


@functools.lru_cache(maxsize=1024)
def plan_in_c_order(
    outer: int, length: int, inner: int, itemsize: int, one_number: bool, logarithms: bool, threads: int
) -> Plan:
    """:func:`plan` for arrays in C order without a mask; a fifth of the time where it has been asked for before."""
    alone = inner == 1
    return plan(
        outer,
        length,
        inner,
        itemsize=itemsize,
        side_by_side=alone,
        one_number=one_number,
        turnable=alone or one_number,
        columnar=True,
        logarithms=logarithms,
        threads=threads,
    )
