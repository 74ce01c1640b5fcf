"""Terms of all classes where they are looked at again: long lanes, focal factors.

``long.py`` and ``rows.py`` have noted what normalises the lanes. Values are read one by one: a thread a lane where the
plan has one, else a warp, or a block for a long one, as the length alone decides. Of lanes that are neighbours in
memory, a warp reads 32 side by side.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.arguments import mask_of, other_of, results_of, values_of
from softmax_numba.gpu.column_parts import DEEP
from softmax_numba.gpu.exponential import Scale, exponential, scale_of
from softmax_numba.gpu.loss import NOTES
from softmax_numba.gpu.loss_terms import Kind, Sums, terms
from softmax_numba.gpu.plan import WARP, Plan
from softmax_numba.gpu.seam import cuda, device, fma, load_index, quotient
from softmax_numba.gpu.storage import STORAGES

WARP_BLOCK = 128
LONGEST_OF_WARP = 1024  # values


class Shape(NamedTuple):
    """What a kernel is specialised for."""

    kind: Kind
    gradient: bool
    threads: int  # a lane

    columns: bool  # the threads of a warp then have lanes of their own, and a lane has so many warps

    @property
    def block(self) -> int:
        return WARP * self.threads if self.columns else max(self.threads, WARP_BLOCK)

    def grid(self, lanes: int, inner: int) -> int:
        """How many blocks the lanes take, ``inner`` of them neighbours."""
        if self.columns:
            return lanes // inner * -(-inner // WARP)
        return -(-lanes * self.threads // self.block)


def threads_of(length: int, how: Plan) -> int:
    """How many threads a lane has, normalised by a plan."""
    if how.sweep == "columns":
        return DEEP
    if how.threads == 1:
        return 1
    return 32 if length <= LONGEST_OF_WARP else 256


class _Looks(NamedTuple):
    """The device functions for the values ``slot``, ``slot + threads``, ... of a lane."""

    summed: Callable  # their terms
    ended: Callable  # writes what the lane's terms come to
    mapped: Callable  # writes their gradient


@functools.cache
def _looks(kind: Kind, threads: int) -> _Looks:
    how = STORAGES[kind.storage]
    number_type, load, store = how.kind, how.load, how.store
    name = np.dtype(number_type).name
    load_number, store_number, size = STORAGES[name].load, STORAGES[name].store, np.dtype(number_type).itemsize
    load_code, (term, plus, _, _, factor_of) = load_index["int32"], terms(kind)
    reference, relative, _ = exponential(number_type)
    per_octave, octave_high, octave_low, _ = (number_type(number) for number in scale_of(1.0, number_type))
    zero, one = number_type(0), number_type(1)

    @device
    def noted(number, a):
        """The target's code, and the lane's maximum, log(sum / exp(max)) and 1 / sum."""
        where = mask_of(number, a)
        notes = a.notes + ((where - a.codes) >> 2) * (NOTES * size)
        return load_code(where), load_number(notes), load_number(notes + size), load_number(notes + 2 * size)

    @device
    def summed(number, slot, count, a, targets):
        target, peak, log_sum, _ = noted(number, a)
        x, place = values_of(number, a), other_of(number, a)
        sums = Sums(zero, zero, zero, zero)
        k = slot
        while k < count:
            loss, slope = term(k, load(x + k * a.x_step), target, place, a, targets, peak, log_sum)
            sums = plus(sums, loss, slope)
            k += threads
        return sums

    @device
    def ended(number, sums, a):
        at = a.scratch + ((mask_of(number, a) - a.codes) >> 2) * (2 * size)
        store_number(at, sums.loss)
        store_number(at + size, sums.loss_low)

    @device
    def mapped(number, slot, count, sums, a, targets):
        target, peak, log_sum, inverse = noted(number, a)
        x, y, place = values_of(number, a), results_of(number, a), other_of(number, a)
        natural = Scale(per_octave, octave_high, octave_low, one)
        ref, (factor, gain, shows) = (
            reference(peak, natural),
            factor_of(sums, target, peak, log_sum, inverse, a.gains),
        )
        k = slot
        while k < count:
            z, value = load(x + k * a.x_step), zero
            if shows:
                slope = term(k, z, target, place, a, targets, peak, log_sum)[1]
                value = fma(relative(z, ref, natural), factor, -fma(slope, gain, zero))
            store(y + k * a.y_step, value)
            k += threads

    return _Looks(summed, ended, mapped)


@functools.cache
def dense(shape: Shape) -> Callable:
    """The kernel: sums of a lane's terms into ``scratch``, and its gradient."""
    if shape.columns:
        return _columns(shape)
    threads, block, gradient, kind = shape.threads, shape.block, shape.gradient, STORAGES[shape.kind.storage].kind
    (summed, ended, mapped), (_, _, merged, over, _) = _looks(shape.kind, threads), terms(shape.kind)
    warps, numbers, together = threads // WARP, 4 * (block // WARP), min(threads, WARP)

    def kernel(a, targets):
        thread = np.int64(cuda.threadIdx.x)
        number, slot = (np.int64(cuda.blockIdx.x) * block + thread) // threads, thread % threads
        count = a.length
        if number >= a.lanes:  # these threads take part in the shuffles and touch nothing
            number, count = np.int64(0), np.int64(0)
        sums = over(summed(number, slot, count, a, targets), together)
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
            ended(number, sums, a)
        if gradient:
            mapped(number, slot, count, sums, a, targets)

    return kernel


def _columns(shape: Shape) -> Callable:
    """A block has the lanes of a warp's threads, a warp every ``warps``-th of their values."""
    warps, gradient, kind = shape.threads, shape.gradient, STORAGES[shape.kind.storage].kind
    (summed, ended, mapped), merged = _looks(shape.kind, warps), terms(shape.kind).merged
    numbers = 4 * WARP * warps

    def kernel(a, targets):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        slot, column = thread >> 5, thread & 31
        blocks = (a.inner + 31) >> 5
        o = quotient(index, blocks)
        first = (index - o * blocks) * WARP + column
        number, count = o * a.inner + first, a.length
        if first >= a.inner:
            number, count = np.int64(0), np.int64(0)
        sums = summed(number, slot, count, a, targets)
        meeting = cuda.shared.array(numbers, kind)
        i = slot * WARP + column  # neighbouring threads, neighbouring numbers
        apart = WARP * warps
        meeting[i], meeting[i + apart] = sums.loss, sums.loss_low
        meeting[i + 2 * apart], meeting[i + 3 * apart] = sums.mass, sums.mass_low
        cuda.syncthreads()
        i = column
        sums = Sums(meeting[i], meeting[i + apart], meeting[i + 2 * apart], meeting[i + 3 * apart])
        for w in range(1, warps):
            i = w * WARP + column
            more = Sums(meeting[i], meeting[i + apart], meeting[i + 2 * apart], meeting[i + 3 * apart])
            sums = merged(sums, more)
        if slot == 0 and count > 0:
            ended(number, sums, a)
        if gradient:
            mapped(number, slot, count, sums, a, targets)

    return kernel
