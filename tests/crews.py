"""A crew of two for tests: calls that somebody joins in, and that nobody is awake."""

import contextlib
import itertools
import math
import sys
import time

import numba
import pytest

from softmax_numba.cpu import crew, threads
from softmax_numba.cpu.cores import cores
from softmax_numba.cpu.joining import ASK, AWAKE, LAST, SPIN

needs_a_crew = pytest.mark.skipif(
    sys.platform != "linux" or min(cores(), threads.available()) < 2,
    reason="needs Linux's semaphores, a second core and a second thread",
)


def joined(call, seconds=30.0):
    """The result of the first call in which another thread has taken a share."""
    end = math.inf
    for calls in itertools.count():
        if calls == 100:  # those before may have compiled something
            end = time.monotonic() + seconds
        if time.monotonic() > end:
            break
        result = call()
        if crew._crew.numbers[LAST]:
            crew._crew.numbers[LAST] = 0
            return result
    raise AssertionError(f"nobody joined in {seconds} s")


@pytest.fixture
def nobody_awake():
    """Without a crew, whom a door leaves calls of 16,000 values and more that follow closely; nor is it known that a
    call may have one thread only."""
    seen = crew._crew.seen
    before, question = seen[SPIN], seen[ASK]
    seen[SPIN] = seen[ASK] = 0
    yield
    seen[SPIN], seen[ASK] = before, question


@contextlib.contextmanager
def so_many_threads(many):
    before = threads.in_use()
    numba.set_num_threads(many)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@pytest.fixture
def two_threads():
    """Wherever that many run at a time; where a container sees more cores than it may use, Numba has more."""
    with so_many_threads(2):
        yield


def one_thread():
    return so_many_threads(1)


def asleep():
    """Whether all members sleep before long."""
    end = time.monotonic() + 10
    while crew._crew.seen[AWAKE] and time.monotonic() < end:
        time.sleep(1e-3)
    return not crew._crew.seen[AWAKE]
