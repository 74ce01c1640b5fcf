"""What a program waits for before its first result, each measured in a process of its own."""

import os
import subprocess
import sys
import tempfile

from softmax_numba.bench.timing import spread

_IMPORT = "import time, numba, numpy; a = time.perf_counter(); import softmax_numba; print(time.perf_counter() - a)"
_FIRST = (
    "import time, numba, numpy as np, softmax_numba; x, targets = np.ones((4, 10), np.float32), np.zeros(4, int); "
    "a = time.perf_counter(); softmax_numba.{call}; print(time.perf_counter() - a)"
)
_CALLS = {"softmax": "softmax(x)", "cross_entropy": "cross_entropy(x, targets)"}
_REPEATS = 1 if "SOFTMAX_NUMBA_ASV_SECONDS" in os.environ else 5


def _seconds(program, folder):
    environment = {**os.environ, "SOFTMAX_NUMBA_CACHE_DIR": folder}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


class Start:
    unit = "s"
    timeout = 300

    def track_import_beside_numba(self):
        with tempfile.TemporaryDirectory() as folder:
            return spread([_seconds(_IMPORT, folder) for _ in range(_REPEATS)]).median


class FirstCall:
    unit = "s"
    timeout = 300
    params = list(_CALLS)
    param_names = ("op",)

    def track_without_cache(self, op):
        figures = []
        for _ in range(min(3, _REPEATS)):
            with tempfile.TemporaryDirectory() as folder:
                figures.append(_seconds(_FIRST.format(call=_CALLS[op]), folder))
        return spread(figures).median

    def track_with_cache(self, op):
        with tempfile.TemporaryDirectory() as folder:
            _seconds(_FIRST.format(call=_CALLS[op]), folder)
            return spread([_seconds(_FIRST.format(call=_CALLS[op]), folder) for _ in range(_REPEATS)]).median
