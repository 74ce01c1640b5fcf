"""Terms of all classes where they are looked at again: long lanes, focal factors.

``long.py`` and ``rows.py`` have noted what normalises the lanes. Values are read one by one: a thread a lane where the
plan has one, else a warp, or a block for a long one, as the length alone decides.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, other_of, results_of, values_of
from softmax_numba.gpu.exponential import Scale, exponential, scale_of
from softmax_numba.gpu.loss import NOTES
from softmax_numba.gpu.loss_terms import Kind, Sums, terms
from softmax_numba.gpu.plan import WARP, Plan
from softmax_numba.gpu.seam import cuda, fma, load_index
from softmax_numba.gpu.storage import STORAGES

WARP_BLOCK = 128
LONGEST_OF_WARP = 1024  # values


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    kind: Kind
    gradient: bool
    threads: int  # a lane

    @property
    def block(self) -> int:
        return max(self.threads, WARP_BLOCK)


def threads_of(length: int, how: Plan) -> int:
    """How many threads a lane has, normalised by a plan."""
    if how.threads == 1:
        return 1
    return 32 if length <= LONGEST_OF_WARP else 256


@functools.cache
def dense(shape: Shape) -> Callable:
    """The kernel: sums of a lane's terms into ``scratch``, and its gradient."""
    how, threads, block = STORAGES[shape.kind.storage], shape.threads, shape.block
    kind, load, store, gradient = how.kind, how.load, how.store, shape.gradient
    name = np.dtype(kind).name
    load_number, store_number, size = STORAGES[name].load, STORAGES[name].store, np.dtype(kind).itemsize
    load_code, (term, plus, merged, over, factor_of) = load_index["int32"], terms(shape.kind)
    reference, relative, _ = exponential(kind)
    per_octave, octave_high, octave_low, _ = (kind(number) for number in scale_of(1.0, kind))
    zero, one, warps, numbers = kind(0), kind(1), threads // WARP, 4 * (block // WARP)
    together = min(threads, WARP)

    def kernel(a, targets):
        thread = np.int64(cuda.threadIdx.x)
        number, slot = (np.int64(cuda.blockIdx.x) * block + thread) // threads, thread % threads
        count = a.length
        if number >= a.lanes:  # these threads take part in the shuffles and touch nothing
            number, count = np.int64(0), np.int64(0)
        where = mask_of(number, a)
        lane_at = (where - a.codes) >> 2
        target, notes = load_code(where), a.notes + lane_at * (NOTES * size)
        peak, log_sum, inverse = load_number(notes), load_number(notes + size), load_number(notes + 2 * size)
        x, place = values_of(number, a), other_of(number, a)
        sums = Sums(zero, zero, zero, zero)
        k = slot
        while k < count:
            loss, slope = term(k, load(x + k * a.x_step), target, place, a, targets, peak, log_sum)
            sums = plus(sums, loss, slope)
            k += threads
        sums = over(sums, together)
        if warps > 1:
            meeting = cuda.shared.array(numbers, kind)
            warp = slot >> 5
            if slot & 31 == 0:
                meeting[4 * warp], meeting[4 * warp + 1] = sums.loss, sums.loss_low
                meeting[4 * warp + 2], meeting[4 * warp + 3] = sums.mass, sums.mass_low
            cuda.syncthreads()
            sums = Sums(meeting[0], meeting[1], meeting[2], meeting[3])
            for w in range(1, warps):
                i = 4 * w
                sums = merged(sums, Sums(meeting[i], meeting[i + 1], meeting[i + 2], meeting[i + 3]))
        if slot == 0 and count > 0:
            store_number(a.scratch + lane_at * (2 * size), sums.loss)
            store_number(a.scratch + lane_at * (2 * size) + size, sums.loss_low)
        if gradient:
            natural = Scale(per_octave, octave_high, octave_low, one)
            ref, (factor, gain, shows) = (
                reference(peak, natural),
                factor_of(sums, target, peak, log_sum, inverse, a.gains),
            )
            y = results_of(number, a)
            k = slot
            while k < count:
                z, value = load(x + k * a.x_step), zero
                if shows:
                    slope = term(k, z, target, place, a, targets, peak, log_sum)[1]
                    value = fma(relative(z, ref, natural), factor, -fma(slope, gain, zero))
                store(y + k * a.y_step, value)
                k += threads

    return kernel
