"""What a report can measure here, and why it cannot compare with somebody."""

from collections.abc import Iterator

from softmax_numba.bench.peers import PEERS, USUAL
from softmax_numba.bench.workloads import DTYPES, OPS, WORKLOADS

__all__ = ["lines"]


def lines() -> Iterator[str]:
    """Workloads, ops, dtypes and peers, one a line."""
    yield "workloads:"
    for w in WORKLOADS.values():
        yield f"  {w.name}: {w.shape} along axis {w.axis}, {', '.join(w.dtypes)}; {w.reason}"
    yield f"ops: {', '.join(OPS)}"
    yield f"dtypes: {', '.join(DTYPES)}"
    yield "peers:"
    for peer in PEERS.values():
        if not peer.installed:
            state = f"{peer.distribution} is not installed: pip install {peer.distribution}"
        else:
            named = "" if peer.name in USUAL else f"; takes part only if named: --peers {peer.name}"
            state = f"{peer.version}{named}"
        yield f"  {peer.name}: {peer.title}, {state}"
