"""Which kernel a call takes: a pure function of its lanes, layout, dtype and the device.

The choice decides how fast a result comes, never which bits it has: where a value is held and the order of every sum
are those of tiles.py and parts.py, fixed by a lane's length and dtype, and every kernel keeps to them.
"""

import functools
from typing import Literal, NamedTuple

from softmax_numba.gpu.tiles import Access

Sweep = Literal["several", "warp", "block", "shared", "cluster", "online", "split", "columns"]

VECTOR = 16  # bytes
WARP = 32
# Values a thread holds; more, and the compiler spills (float64 takes two registers each).
MOST_VALUES = {2: 32, 4: 32, 8: 16}
SHORT_BLOCK = 128  # threads of a block of several lanes
MOST_WARPS = 16  # with 128 registers a thread
MOST_WARPS_IN_64 = 32  # with 64, which is enough where nothing is realigned or masked
MOST_BLOCKS = 8  # of a cluster, on any device that has clusters
LONGEST_LIST = 1024  # parts of a lane
ALONE = 512  # threads of a block that has a long lane to itself
SHARE = 256  # and of one that has not
# Below so many lanes a multiprocessor, long ones are split: a block alone on one does not fill its memory's pipe.
FEW_LANES = 2
# Fewer neighbouring lanes leave most of a warp idle.
FEWEST_COLUMNS = 8
COLUMN_BLOCK = 256


class Device(NamedTuple):
    """What the choice asks of a device."""

    arch: str
    multiprocessors: int
    shared: int  # bytes a block may have if it opts in
    clusters: bool

    @property
    def tight(self) -> bool:
        """Whether kernels take some more registers than for sm_90, which has clusters: so the assembler for sm_80."""
        return not self.clusters


H100 = Device("sm_90", 132, 232448, True)
A100 = Device("sm_80", 108, 166912, False)


class Plan(NamedTuple):
    """How a call is carried out."""

    sweep: Sweep
    access: Access
    vectors: int  # 16-byte vectors a thread holds
    threads: int  # threads that share a tile
    block: int  # threads a block
    blocks: int  # blocks a lane; of columns: blocks for all the lanes of an outer place
    segments: int  # parts in a lane's list
    tiles: int  # tiles a segment
    shared: int  # bytes of dynamic shared memory

    @property
    def cluster(self) -> int:
        """Blocks a cluster."""
        return self.blocks if self.sweep == "cluster" else 1

    def grid(self, lanes: int, inner: int = 1) -> int:
        """How many blocks the lanes take, ``inner`` of them neighbours."""
        if self.sweep == "columns":
            return lanes // inner * self.blocks
        if self.sweep in ("several", "warp"):
            return -(-lanes * self.threads // self.block)
        return lanes * self.blocks


def _power(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def a_thread_a_lane(length: int, itemsize: int) -> Plan:
    """The plan for lanes of at most MOST_VALUES values that lie apart: neighbouring threads read neighbouring lanes."""
    return Plan("several", "elements", _power(-(-length * itemsize // VECTOR)), 1, SHORT_BLOCK, 1, 1, 1, 0)


@functools.lru_cache(maxsize=1024)
def plan(
    lanes: int,
    length: int,
    *,
    itemsize: int,
    side_by_side: bool,
    aligned: bool,
    lean: bool,
    one_number: bool,
    neighbours: int,
    device: Device,
    inputs: int = 1,
    losses: bool = False,
) -> Plan:
    """The plan for ``lanes`` lanes of ``length`` values.

    Parameters
    ----------
    lanes, length : int
        At least 1.
    itemsize : int
        Bytes a value: 2, 4 or 8.
    side_by_side : bool
        Whether a lane's values are neighbours in memory, and its results.
    aligned : bool
        Whether every lane and its results begin at a multiple of 16 bytes.
    lean : bool
        Whether there is neither a mask nor a temperature for each lane.
    one_number : bool
        Whether the result is one number a lane.
    neighbours : int
        How many lanes are neighbours in memory, as are their results; 1 where none are. ``aligned`` then is said of
        every value of the first of them.
    device : Device
        Where it runs.
    inputs : int, default 1
        How many arrays are read; two are held in the registers of one, and are read twice where a block has too few.
    losses : bool, default False
        Whether threads hold what they know of a lane's target besides.
    """
    width = VECTOR // itemsize
    if neighbours >= FEWEST_COLUMNS and not side_by_side:
        across = width if aligned else 1
        access: Access = "vectors" if aligned else "elements"
        return Plan("columns", access, 1, across, COLUMN_BLOCK, -(-neighbours // (WARP * across)), 1, 1, 0)
    threads = min(WARP, _power(-(-length // width)))
    vectors = min(_power(-(-length // (threads * width))), MOST_VALUES[itemsize] // (width * inputs))
    span = threads * vectors * width
    access = "elements" if not side_by_side else "vectors" if aligned else "realigned"
    if threads < WARP and access == "realigned":
        access = "elements"  # lanes of one warp begin at different places of a vector
    if length <= span:
        sweep: Sweep = "several" if threads < WARP else "warp"
        return Plan(sweep, access, vectors, threads, SHORT_BLOCK, 1, 1, 1, 0)
    tiles = -(-length // (span * LONGEST_LIST))
    segments = -(-length // (span * tiles))
    lightest = lean and access == "vectors" and itemsize < 8 and not (one_number and itemsize == 2)
    most_warps = MOST_WARPS_IN_64 if lightest else MOST_WARPS
    if losses and device.tight and access == "realigned":
        most_warps = min(most_warps, SHARE // WARP)
    few = lanes < FEW_LANES * device.multiprocessors
    if segments <= most_warps and not (few and segments > MOST_WARPS):
        return Plan("block", access, vectors, threads, WARP * segments, 1, segments, 1, 0)
    number = 8 if itemsize == 8 else 4
    list_bytes = 4 * number * segments
    if few:
        warps = SHARE // WARP
        return Plan("split", access, vectors, threads, SHARE, -(-segments // warps), segments, tiles, 0)
    # The others need more than 128 registers.
    alone = ALONE if access != "elements" and itemsize == 4 and inputs == 1 and not losses else SHARE
    kept = list_bytes + segments * span * itemsize
    if kept <= device.shared and not one_number and inputs == 1:
        return Plan("shared", access, vectors, threads, alone, 1, segments, 1, kept)
    blocks = _power(-(-segments // most_warps))
    if device.clusters and blocks <= MOST_BLOCKS and not one_number:
        return Plan("cluster", access, vectors, threads, WARP * -(-segments // blocks), blocks, segments, 1, 0)
    if device.tight:
        alone = SHARE
    return Plan("online", access, vectors, threads, alone, 1, segments, tiles, list_bytes)
