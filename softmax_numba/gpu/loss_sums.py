"""What losses need beside their lanes, in float64: codes of the targets, their weight in all, losses and their sum.

Every block adds up ``CHUNK`` lanes in twice the precision, one more block what they come to: the order is fixed by
their number.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from softmax_numba.gpu.copies import places
from softmax_numba.gpu.lane import LOGSUMEXP, lane
from softmax_numba.gpu.loss import CODE, IGNORED, NOTES, WRONG
from softmax_numba.gpu.seam import across, cuda, device, load_index, store_int32
from softmax_numba.gpu.storage import STORAGES

BLOCK = 128
EACH = 8  # lanes a thread
CHUNK = BLOCK * EACH
SUM = 16  # bytes of a sum in two numbers
ROOM = 2 * BLOCK // 32  # numbers of the sums of a block's warps


class Classes(NamedTuple):
    """How many there are, and which index counts for nothing."""

    count: int
    ignored: int


class Call(NamedTuple):
    """What holds for all lanes."""

    total: float  # what the mean divides by, where it is not counted; 1 where there is none
    z_loss: float


_two_sum = lane(LOGSUMEXP, np.float64).two_sum
_load, _store = STORAGES["float64"].load, STORAGES["float64"].store


@device
def _of_block(high, low, meeting, thread):
    """The sum of what all threads of a block have, in two numbers."""
    distance = 16
    while distance > 0:
        high, error = _two_sum(high, across(high, distance))
        low = error + (low + across(low, distance))
        distance >>= 1
    if thread & 31 == 0:
        meeting[thread >> 4], meeting[(thread >> 4) + 1] = high, low
    cuda.syncthreads()
    high, low = meeting[0], meeting[1]
    for w in range(1, cuda.blockDim.x >> 5):
        high, error = _two_sum(high, meeting[2 * w])
        low += error + meeting[2 * w + 1]
    return high, low


@device
def _of_list(sums, count, meeting, thread):
    """The sum of a list of sums, by one block; what an infinite one lost by rounding is NaN and left out."""
    high, low = 0.0, 0.0
    i = thread
    while i < count:
        high, error = _two_sum(high, _load(sums + i * SUM))
        low += error + _load(sums + i * SUM + 8)
        i += np.int64(cuda.blockDim.x)
    high, low = _of_block(high, low, meeting, thread)
    return high if abs(high) == np.inf else high + low


@functools.cache
def encode(name: str) -> Callable:
    """The kernel that makes codes of class indices of dtype ``name``: what is out of range is never used."""
    load = load_index[name]

    def kernel(a, classes):
        index = np.int64(cuda.blockIdx.x) * np.int64(cuda.blockDim.x) + np.int64(cuda.threadIdx.x)
        if index < a.count:
            begin, end = places(a, index)
            found = load(begin)
            code = found if found >= 0 and found < classes.count else np.int64(WRONG)
            if found == classes.ignored:
                code = np.int64(IGNORED)
            store_int32(end, code)

    return kernel


@functools.cache
def weigh(kind: str) -> Callable:
    """The kernel that adds up the weights of the targets that count, a sum a block."""
    load, load_code, size = STORAGES[kind].load, load_index["int32"], STORAGES[kind].itemsize

    def kernel(a):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        high, low = 0.0, 0.0
        for j in range(EACH):
            i = index * CHUNK + j * BLOCK + thread
            if i < a.lanes:
                code, weight = load_code(a.codes + i * CODE), 0.0
                if code >= 0:
                    weight = 1.0
                    if a.weights != 0:
                        weight = np.float64(load(a.weights + code * size))
                high, error = _two_sum(high, weight)
                low += error
        meeting = cuda.shared.array(ROOM, np.float64)
        high, low = _of_block(high, low, meeting, thread)
        if thread == 0:
            _store(a.y + index * SUM, high)
            _store(a.y + index * SUM + 8, low)

    return kernel


@functools.cache
def gauge(kind: str) -> Callable:
    """The kernel, one block, for what the mean divides by, and what gradients are multiplied by."""
    store, size, number = STORAGES[kind].store, STORAGES[kind].itemsize, STORAGES[kind].kind

    def kernel(a, call):
        thread, total = np.int64(cuda.threadIdx.x), np.float64(call.total)
        meeting = cuda.shared.array(ROOM, np.float64)
        counted = _of_list(a.x, a.segments, meeting, thread)
        if a.segments > 0:
            total = counted
        if thread == 0:
            gain = np.float64(0.0)
            if total != 0.0:
                gain = 1.0 / total
            _store(a.y, total)
            store(a.gains, number(gain))
            store(a.gains + size, number(2.0 * call.z_loss))

    return kernel


@functools.cache
def lose(kind: str, result: str | None, dense: bool) -> Callable:
    """The kernel for losses from the lanes' notes, or from the sums of their terms where every class has one.

    Each in dtype ``result`` at ``y``; or their sums, one a block.
    """
    load, load_code, size = STORAGES[kind].load, load_index["int32"], STORAGES[kind].itemsize
    added, infinity, nan = result is None, np.float64(np.inf), np.float64(np.nan)
    how = STORAGES["float64" if result is None else result]
    store, stored, number = how.store, how.itemsize, how.kind

    if dense:

        @device
        def terms(a, i, code, peak, log_sum):
            place = a.scratch + i * (2 * size)
            high, low = np.float64(load(place)), np.float64(load(place + size))
            return (high if abs(high) == infinity else high + low) + np.float64(0.0) * log_sum

    else:

        @device
        def terms(a, i, code, peak, log_sum):
            weight, loss = 1.0, 0.0
            if a.weights != 0:
                weight = np.float64(load(a.weights + code * size))
            if weight != 0.0:
                logit = np.float64(load(a.notes + i * (NOTES * size) + 3 * size))
                loss = weight * ((peak - logit) + log_sum)
            return loss

    @device
    def of_lane(a, i, call):
        code, loss = load_code(a.codes + i * CODE), 0.0
        notes = a.notes + i * (NOTES * size)
        if code >= 0:
            peak, log_sum = np.float64(load(notes)), np.float64(load(notes + size))
            loss = terms(a, i, code, peak, log_sum)
            if call.z_loss != 0.0:
                of_all = peak + log_sum
                loss += call.z_loss * of_all * of_all
        elif code == WRONG:
            loss = nan
        return loss

    def kernel(a, call):
        thread, index = np.int64(cuda.threadIdx.x), np.int64(cuda.blockIdx.x)
        high, low = 0.0, 0.0
        for j in range(EACH):
            i = index * CHUNK + j * BLOCK + thread
            if i < a.lanes:
                loss = of_lane(a, i, call)
                if added:
                    high, error = _two_sum(high, loss)
                    low += error
                else:
                    store(a.y + i * stored, number(loss))
        if added:
            meeting = cuda.shared.array(ROOM, np.float64)
            high, low = _of_block(high, low, meeting, thread)
            if thread == 0:
                _store(a.y + index * SUM, high)
                _store(a.y + index * SUM + 8, low)

    return kernel


@functools.cache
def conclude(result: str) -> Callable:
    """The kernel, one block, for the losses' sum over what the mean divides by."""
    how = STORAGES[result]
    store, number = how.store, how.kind

    def kernel(a):
        thread = np.int64(cuda.threadIdx.x)
        meeting = cuda.shared.array(ROOM, np.float64)
        added, total = _of_list(a.x, a.segments, meeting, thread), _load(a.scratch)
        if thread == 0:
            value = np.float64(0.0)
            if total != 0.0:
                value = added / total
            store(a.y, number(value))

    return kernel
