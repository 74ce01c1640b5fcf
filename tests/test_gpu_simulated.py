"""The host's stand-in for a GPU: what its threads share, where they meet, and that it shows a barrier that lacks."""

import threading

import numpy as np
import pytest

from softmax_numba.gpu import simulated
from softmax_numba.gpu.simulated import cuda


def launched(kernel, *arguments, grid=1, block=96, shared=0, cluster=1):
    simulated.launched(kernel, grid, block, shared, cluster, arguments)


def test_every_thread_of_every_block_runs_once():
    found = np.zeros((3, 70), np.int64)

    def kernel(found):
        assert cuda.blockDim.x == 70
        found[cuda.blockIdx.x, cuda.threadIdx.x] += 1

    launched(kernel, found, grid=3, block=70)
    assert (found == 1).all()


@pytest.mark.parametrize("size", [100, 0])
def test_blocks_share_memory_and_each_has_its_own(size):
    """Of a size that stands in the kernel, or of the launch's."""
    found = np.zeros((2, 100), np.float32)

    def kernel(found):
        thread = cuda.threadIdx.x
        numbers = cuda.shared.array(size, np.dtype(np.float32))
        assert len(numbers) == 100
        assert thread or numbers[0] not in (0, 1)  # not what another block left, nor zeros
        numbers[thread] = cuda.blockIdx.x
        cuda.syncthreads()
        found[cuda.blockIdx.x, thread] = numbers[99 - thread]

    launched(kernel, found, grid=2, block=100, shared=0 if size else 400)
    assert (found == [[0], [1]]).all()


def test_blocks_of_a_cluster():
    found = np.zeros((4, 32), np.float64)

    def kernel(found):
        thread, rank = cuda.threadIdx.x, simulated.cluster_rank()
        assert rank == cuda.blockIdx.x % 2 and cuda.blockDim.x == 32
        numbers = cuda.shared.array(64, np.float64)
        simulated.cluster_sync()  # both have begun
        for other in range(2):
            simulated.store_in_cluster(numbers, 32 * rank + thread, other, 100.0 * cuda.blockIdx.x + thread)
        simulated.cluster_sync()
        found[cuda.blockIdx.x, thread] = numbers[32 * (1 - rank) + thread]

    launched(kernel, found, grid=4, block=32, cluster=2)
    assert (found == 100 * np.array([[1], [0], [3], [2]]) + np.arange(32)).all()


def test_shuffles():
    found = np.zeros((2, 64), np.int64)

    def kernel(found):
        thread = cuda.threadIdx.x
        found[0, thread] = simulated.across(thread, 5)
        found[1, thread] = simulated.from_thread(thread, 3)

    launched(kernel, found, block=64)
    threads = np.arange(64)
    assert (found[0] == threads ^ 5).all() and (found[1] == threads // 32 * 32 + 3).all()


@pytest.mark.parametrize("missing", [None, 0, 1])
@pytest.mark.parametrize("step", [1, 95])
def test_a_missing_barrier_shows(missing, step):
    """Whichever neighbour's number a thread reads: before it is there, or after the next was written over it."""
    found = np.zeros((2, 96), np.int64)

    def kernel(found):
        thread = cuda.threadIdx.x
        numbers = cuda.shared.array(96, np.int64)
        for turn in range(2):
            numbers[thread] = 1000 * turn + thread
            if missing != 0:
                cuda.syncthreads()
            found[turn, thread] = numbers[(thread + step) % 96]
            if missing != 1:
                cuda.syncthreads()

    launched(kernel, found)
    right = [[0], [1000]] + (np.arange(96) + step) % 96
    assert (found == right).all() == (missing is None)


def test_errors_name_the_thread():
    begun = []

    def kernel():
        begun.append(cuda.threadIdx.x)
        if cuda.threadIdx.x == 7:
            raise ValueError("a mistake")
        cuda.syncthreads()

    with pytest.raises(ValueError, match="a mistake") as caught:
        launched(kernel, grid=2)
    assert caught.value.__notes__ == ["in thread 7 of block 0"]
    assert begun == [*range(8)]


@pytest.mark.parametrize("leaves", [0, 50, 95])
def test_threads_that_wait_for_one_that_left(leaves):
    def kernel():
        if cuda.threadIdx.x != leaves:
            cuda.syncthreads()

    with pytest.raises(threading.BrokenBarrierError, match="left"):
        launched(kernel)


def test_fused_multiply_add():
    for kind in (np.float32, np.float64):
        a = kind(1) + np.finfo(kind).eps
        assert simulated.fma(a, a, -kind(1) - 2 * np.finfo(kind).eps) == np.finfo(kind).eps ** 2
