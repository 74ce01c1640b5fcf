"""Ratios of speed and errors, of cells that are measured once for all of them."""

import os

from softmax_numba.bench.peers import PEERS
from softmax_numba.bench.run import QUICK, Plan, measure, start_threads
from softmax_numba.bench.workloads import OPS, WORKLOADS

# One of each kind: rows in cache, vocabularies, lanes shorter than a vector, an inner axis, one lane, a single call.
CELLS = ("classifier-head", "gpt2-vocabulary", "router", "segmentation", "one-lane", "single-1x10")
_SECONDS = os.environ.get("SOFTMAX_NUMBA_ASV_SECONDS")
if _SECONDS is not None:  # each cell and figure is a process of its own
    CELLS = ("router", "single-1x10")


def _measured() -> dict:
    """Of every (workload, op): our time over every installed peer's and over the limit, and our largest error."""
    from dataclasses import replace

    import numba

    threads = numba.config.NUMBA_NUM_THREADS
    start_threads(threads)
    effort = replace(QUICK, total_seconds=float(_SECONDS or 120))
    peers = tuple(peer for peer in PEERS.values() if peer.installed)
    workloads = tuple(WORKLOADS[name] for name in CELLS)
    found = {}
    for cell in measure(Plan(workloads, OPS, ("float32",), peers, threads, 0, effort)):
        ratios = {peer.name: cell.speed_ratio(peer.name) for peer in peers}
        limit = cell.share_of_bound(cell.ours.name)
        found[cell.workload, cell.op] = {
            "peers": {name: 1 / ratio.median for name, ratio in ratios.items() if ratio is not None},
            "limit": None if limit is None else 1 / limit.median,
            "ulp": None if cell.ours.accuracy is None else cell.ours.accuracy.max_ulp,
            "status": cell.ours.status,
        }
    return found


class _OfCells:
    timeout = 1800
    params = [list(CELLS), list(OPS)]
    param_names = ["workload", "op"]

    def setup_cache(self):
        return _measured()


class Speedup(_OfCells):
    """Our time over a peer's, median of interleaved rounds: 0.25 is four times as fast.

    This way round because asv takes the smaller of two figures for the better one.
    """

    params = [list(CELLS), list(OPS), list(PEERS)]
    param_names = ["workload", "op", "peer"]
    unit = "of the peer's time"

    def track_time_over_peer(self, cells, workload, op, peer):
        return cells[workload, op]["peers"].get(peer, float("nan"))


class Limits(_OfCells):
    """How near to what memory allows, and how near to the exact value."""

    def track_time_over_limit(self, cells, workload, op):
        times = cells[workload, op]["limit"]
        return float("nan") if times is None else times

    def track_largest_error(self, cells, workload, op):
        cell = cells[workload, op]
        if cell["status"] != "ok":
            raise ValueError(f"{op} of {workload} is {cell['status']}")
        return cell["ulp"]

    track_time_over_limit.unit = "times the limit"
    track_largest_error.unit = "ULP"


Limits.setup_cache = Speedup.setup_cache  # asv runs one function once
