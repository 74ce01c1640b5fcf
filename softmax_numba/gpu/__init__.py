"""The same functions on NVIDIA GPUs, room by room as in ``softmax_numba.cpu``; imported by the first GPU array.

Not named after CUDA, as one would: numba-cuda's import hook takes every module with ``numba.cuda`` in its full name for
Numba's own and recurses without end on ``softmax_numba.cuda``.
"""

import os


def usable() -> bool:
    """Whether there is a CUDA driver with a device, or Numba's simulator of one."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        return True
    try:
        from cuda.bindings import driver

        found = driver.cuInit(0)[0] == driver.CUresult.CUDA_SUCCESS
        return bool(found and driver.cuDeviceGetCount()[1])
    except (ImportError, RuntimeError, OSError):
        return False
