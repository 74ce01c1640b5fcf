"""What ``make asv`` compares two commits by: the time of each kernel on one thread, measured so that it lasts.

A time of one process says little about one of another process on a shared machine. So each figure is a ratio: a call's
processor time over that of ``np.exp`` of the same numbers, taken in turns of a millisecond within one process.
Processor time does not count what other programs ran meanwhile; the ratio cancels what they do to the clock and to the
caches. What threads gain is not seen here: growth.py and calls.py measure that, on a machine that is left alone.
"""

import os
import statistics
import time

import numpy as np

import softmax_numba
from softmax_numba.bench.run import start_threads
from softmax_numba.bench.timing import Budget, interleaved, ratio
from softmax_numba.bench.workloads import OPS, TRAINING_OPS, WORKLOADS

# Of each workload so much of the first axis as stays in the second cache: one for each sweep, and a single call. One on
# ten numbers is mostly Python's, and differed by a third from one process to the next: calls.py has that.
_PARTS = {
    "classifier-head": 64,
    "gpt2-vocabulary": 2,
    "router": 8192,
    "segmentation": 1,
    "mixture": 4096,
    "single-16x100": 16,
}
_LOSSES = [op for op in TRAINING_OPS if not op.startswith("linear_")]
_ONCE = "SOFTMAX_NUMBA_ASV_SECONDS" in os.environ
_BUDGET = Budget(0.1, 1, 1) if _ONCE else Budget(0.2, 10, 30, sample_seconds=1e-3, lead_seconds=1e-3)
_PLACES = 1 if _ONCE else 3  # in memory, of which each process has others: a figure is the middle one of theirs


def _clock():
    """A thread's processor time, where that is told finely enough (not on Windows: 16 ms)."""
    fine = time.get_clock_info("thread_time").resolution < 1e-6
    return time.thread_time_ns if fine else time.perf_counter_ns


class Kernels:
    params = [[*OPS, *_LOSSES], list(_PARTS)]
    param_names = ["op", "workload"]
    unit = "np.exp"
    timeout = 300

    def setup(self, op, workload):
        start_threads(1)
        part, axis = _PARTS[workload], WORKLOADS[workload].axis
        given = [np.ascontiguousarray(array[:part]) for array in WORKLOADS[workload].operands(op)]
        function = getattr(softmax_numba, op)

        def placed():
            operands = [array.copy() for array in given]
            numbers, powers = operands[0], np.empty_like(operands[0])
            result = {} if op in ("logsumexp", "cross_entropy") else {"out": np.empty_like(numbers)}
            return {
                "ours": lambda: function(*operands, axis, **result),
                "exp": lambda: np.exp(numbers, out=powers),
            }

        self.places = [placed() for _ in range(_PLACES)]

    def track_time_over_exp(self, op, workload):
        found = [interleaved(calls, _BUDGET, clock=_clock()) for calls in self.places]
        return statistics.median(ratio(one["ours"].seconds, one["exp"].seconds).median for one in found)
