"""Times of single calls: throughput by workload, and what a call on a few numbers costs."""

import numpy as np

import softmax_numba
from softmax_numba.bench.run import start_threads
from softmax_numba.bench.workloads import OPS, TRAINING_OPS, WORKLOADS

_LOSSES = [op for op in TRAINING_OPS if not op.startswith("linear_")]


class _Call:
    def setup(self, op, workload, dtype):
        if dtype not in WORKLOADS[workload].dtypes and dtype != "float32":
            raise NotImplementedError
        import numba

        start_threads(numba.config.NUMBA_NUM_THREADS)
        self.operands = WORKLOADS[workload].operands(op, dtype=dtype)
        self.axis, self.function = WORKLOADS[workload].axis, getattr(softmax_numba, op)
        self.out = {}
        if op not in ("logsumexp", "cross_entropy"):
            self.out = {"out": np.empty_like(self.operands[0])}
        self.function(*self.operands, self.axis, **self.out)

    def time_call(self, op, workload, dtype):
        self.function(*self.operands, self.axis, **self.out)


class Throughput(_Call):
    params = [list(OPS), ["classifier-head", "llama3-vocabulary", "router", "segmentation"], ["float32", "bfloat16"]]
    param_names = ["op", "workload", "dtype"]


class Latency(_Call):
    params = [[*OPS, *_LOSSES], ["single-1x10", "single-16x100"], ["float32"]]
    param_names = ["op", "workload", "dtype"]


class Training(_Call):
    params = [_LOSSES, ["classifier-head", "router"], ["float32"]]
    param_names = ["op", "workload", "dtype"]


class Memory:
    """The highest resident memory of a process that makes one call on 64 MB; the first parameter is the baseline."""

    params = ["nothing", "softmax", "logsumexp", "cross_entropy", "cross_entropy_and_grad"]
    param_names = ["op"]

    def setup(self, op):
        self.x = np.ones((4096, 4096), np.float32)
        self.others = (np.zeros(4096, np.int64),) if op.startswith("cross_entropy") else ()
        few = tuple(array[:4] for array in (self.x, *self.others))
        getattr(softmax_numba, op, lambda *arrays: None)(*few)

    def peakmem_call(self, op):
        getattr(softmax_numba, op, lambda *arrays: None)(self.x, *self.others)
