"""Threads of our own that stay awake for a moment, for calls that follow closely on each other.

A threading layer wakes its threads anew for each call, and a second one joins after some 15 µs: half of what 100,000
values take. So where a call on few values begins shortly after another has ended, as in a loop, it is shared with
threads of our own (``joining.py``), who stay awake until there has been no such call for ``SOFTMAX_NUMBA_SPIN``
microseconds (200 unless the environment says otherwise; 0: there are none), and join in the next within one. OpenMP's
threads do the same for milliseconds. Any other call takes the layer's threads as ever.

Nobody waits for these threads: one that sleeps, is late or is gone after a fork leaves its shares to whoever calls.
"""

import atexit
import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from softmax_numba.cpu import threads
from softmax_numba.cpu.compiled import compiled_for, once
from softmax_numba.cpu.cores import cores
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.joining import AWAKE, BELL, END, LEAVE, NUMBERS, PRESENT, led, serve

# More values take the layer's threads: what is 15 µs to them, and there may be more of those. Measured on two cores,
# beside the layer: 1.4 to 1.5 times as fast up to here, no difference at four times as many.
MOST_VALUES = 2**18
MOST_MEMBERS = 7
SHARES = 4  # a thread
_NUMBERS = types.Array(types.int64, 1, "C")
_DEFAULT_SPIN, _MOST_SPIN = 200e-6, 1.0


def _spin() -> float:
    given = os.environ.get("SOFTMAX_NUMBA_SPIN", "")
    try:
        return min(max(0.0, float(given) * 1e-6), _MOST_SPIN) if given else _DEFAULT_SPIN
    except ValueError:
        return _DEFAULT_SPIN


# Whose semaphores need no name.
_LIBRARY: Any = ctypes.PyDLL(None) if sys.platform == "linux" else None


class _Crew:
    """The threads of a process, and the numbers by which they are told what to do."""

    def __init__(self) -> None:
        room = np.zeros(NUMBERS + 8, np.int64)
        first = -room.ctypes.data // 8 % 8
        self.numbers = room[first : first + NUMBERS]
        self.seen = memoryview(self.numbers)  # a look costs a third of the array's
        self.bell = ctypes.c_void_p(self.numbers.ctypes.data + BELL * self.numbers.itemsize)
        self.spin = _spin() if _LIBRARY is not None and _LIBRARY.sem_init(self.bell, 0, 0) == 0 else 0.0
        self.leads = threading.Lock()
        self.members = 0
        self.most = 1  # threads that are of use, the caller's among them
        self.ended = -1.0

    def wake(self, most: int) -> None:
        """Has as many members awake, or soon so."""
        asleep = min(most, self.members) - self.seen[AWAKE]
        if asleep <= 0 and self.members >= most:
            return
        self.numbers[LEAVE] = 0
        for _ in range(asleep):
            _LIBRARY.sem_post(self.bell)
        while self.members < most:
            serve = _server()  # made by this thread: a process that ends while another one compiles may crash
            threading.Thread(target=_serve, args=(self, serve), name="softmax_numba", daemon=True).start()
            self.members += 1


_crew = _Crew()


def _serve(crew: _Crew, serve: Callable) -> None:
    """What a member's thread does: everything but this in compiled code, without Python's lock."""
    looks, least = 1000, math.inf
    for _ in range(8):  # the least: meanwhile the thread may be stopped
        begin = time.perf_counter()
        serve(np.zeros(NUMBERS, np.int64), looks, 1)
        least = min(least, time.perf_counter() - begin)
    serve(crew.numbers, int(crew.spin * looks / least), -1)


@once
def _server() -> Callable:
    return compiled_for(compiled(serve, "serve"), "serve", (_NUMBERS, types.intp, types.intp))


@once
def leader(operands: tuple[types.Type, ...]) -> Callable:
    """What :func:`together` calls for a sweep over arrays of these types."""
    signature = (types.intp, *operands, types.intp, types.intp, types.intp, types.boolean, _NUMBERS)
    return compiled_for(compiled(led, "led"), "led", signature)


def together(operands: tuple[types.Type, ...], body: int, units: int, past_cache: bool) -> Callable[..., bool]:
    """``call(arrays)``: carries out a sweep with the crew; False, and nothing done, where no call has just ended."""
    leads: list[Callable] = []  # made when there is a crew to lead

    def call(*arrays: np.ndarray | None) -> bool:
        crew = _crew
        if time.perf_counter() - crew.ended >= crew.spin or not crew.leads.acquire(False):
            return False
        try:
            many = threads.in_use()
            if crew.seen[AWAKE] < min(many, crew.most) - 1 or many > crew.most:  # asking takes a microsecond
                crew.most = min(cores(), MOST_MEMBERS + 1)
            many = min(many, crew.most)
            crew.wake(many - 1)
            if not leads:
                leads.append(leader(operands))
            shares = min(units, SHARES * many)
            return threads.run(leads[0], body, *arrays, units, shares, many - 1, past_cache, crew.numbers)
        finally:
            crew.ended = time.perf_counter()
            crew.leads.release()

    return call


def ended() -> None:
    """To be told when a call on few values has been carried out in another way."""
    _crew.ended = time.perf_counter()


def dismiss() -> None:
    """Lets those who are awake sleep, whose cores others need."""
    if _crew.seen[AWAKE]:
        _crew.numbers[LEAVE] = 1


@atexit.register
def _dissolve() -> None:
    """Before the code that members run is taken away."""
    crew = _crew
    crew.spin = 0.0
    crew.numbers[LEAVE] = crew.numbers[END] = 1
    for _ in range(crew.members):
        _LIBRARY.sem_post(crew.bell)
    end = time.monotonic() + 0.1
    while crew.seen[PRESENT] and time.monotonic() < end:
        time.sleep(1e-4)


def _after_fork_in_child() -> None:
    global _crew
    _crew = _Crew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
