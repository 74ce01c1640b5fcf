"""The same functions on NVIDIA GPUs, room by room as in ``softmax_numba.cpu``; imported by the first GPU array.

Not named after CUDA, as one would: numba-cuda's import hook takes every module with ``numba.cuda`` in its full name for
Numba's own and recurses without end on ``softmax_numba.cuda``.
"""
