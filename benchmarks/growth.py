"""How cost grows: with the length of a lane, and with threads."""

import os

import numba
import numpy as np

import softmax_numba
from softmax_numba.bench.run import start_threads
from softmax_numba.bench.timing import Budget, interleaved, spread

_BUDGET = Budget(0.1, 1, 1) if "SOFTMAX_NUMBA_ASV_SECONDS" in os.environ else Budget(2.0, 5, 15)


def _seconds(call):
    figures = interleaved({"call": call}, _BUDGET)
    return spread(figures["call"].seconds).median


class Length:
    """Nanoseconds an element of one lane."""

    params = [["softmax", "logsumexp"], list(range(0, 25, 4))]
    param_names = ["op", "log2 of the length"]
    unit = "ns"
    timeout = 300

    def track_per_element(self, op, exponent):
        start_threads(numba.config.NUMBA_NUM_THREADS)
        x = np.random.default_rng(0).normal(size=2**exponent).astype(np.float32)
        function = getattr(softmax_numba, op)
        return _seconds(lambda: function(x)) / x.size * 1e9


class Threads:
    """The time of all threads over that of one, in rounds that take turns; the smaller, the more they gain."""

    params = ["classifier-head", "one-lane"]
    param_names = ["workload"]
    unit = "of one thread's time"
    timeout = 300

    def track_all_over_one(self, workload):
        from softmax_numba.bench.timing import ratio
        from softmax_numba.bench.workloads import WORKLOADS

        many = numba.config.NUMBA_NUM_THREADS
        start_threads(many)
        x, axis = WORKLOADS[workload].make(), WORKLOADS[workload].axis
        out = np.empty_like(x)

        def call():
            softmax_numba.softmax(x, axis, out=out)

        counts = {"one": 1, "all": many}
        found = interleaved(
            dict.fromkeys(counts, call), _BUDGET, prepare=lambda name: numba.set_num_threads(counts[name])
        )
        numba.set_num_threads(many)
        return ratio(found["all"].seconds, found["one"].seconds).median
