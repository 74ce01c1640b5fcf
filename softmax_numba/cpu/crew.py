"""Threads of our own that stay awake for a moment, for calls that follow closely on each other.

A threading layer wakes its threads anew for each call, and a second one joins after some 15 µs: half of what 100,000
values take. So where a call on few values begins shortly after another has ended, as in a loop, it is shared with
threads of our own (``joining.py``), who stay awake until there has been no such call for ``SOFTMAX_NUMBA_SPIN``
microseconds (200 unless the environment says otherwise; 0: there are none), and join in the next within one. OpenMP's
threads do the same for milliseconds. Any other call takes the layer's threads as ever.

Nobody waits for these threads: one that sleeps, is late or is gone after a fork leaves its shares to whoever calls.

While enough of them are awake, compiled code can lead them without a word of Python (``door.py``).
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
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.cores import cores
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.joining import (
    ASK,
    AWAKE,
    BELL,
    END,
    ENDED,
    LEAD,
    LEAVE,
    NUMBERS,
    PRESENT,
    SPIN,
    USEFUL,
    lead,
    led,
    serve,
)

# More values take the layer's threads, and so do more than FEW_VALUES if there are more of those. Measured on two cores
# beside the layer: 1.3 times as fast at 100,000 values, 1.2 times at 10**6, 1.05 times at 4 * 10**6.
FEW_VALUES, MOST_VALUES = 2**18, 2**22
MOST_MEMBERS = 7
SHARES = 4  # a thread
_DEFAULT_SPIN, _MOST_SPIN = 200_000, 1_000_000_000  # nanoseconds


def _spin() -> int:
    given = os.environ.get("SOFTMAX_NUMBA_SPIN", "")
    try:
        return int(min(max(0.0, float(given) * 1000), _MOST_SPIN)) if given else _DEFAULT_SPIN
    except ValueError:
        return _DEFAULT_SPIN


# Whose semaphores need no name.
_LIBRARY: Any = ctypes.PyDLL(None) if sys.platform == "linux" else None


def _room() -> np.ndarray:
    """Where the numbers of a process stand, from a cache line's begin on."""
    room = np.zeros(NUMBERS + 8, np.int64)
    first = -room.ctypes.data // 8 % 8
    return room[first : first + NUMBERS]


class _Crew:
    """The threads of a process, and the numbers by which they are told what to do."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers
        self.numbers[:] = 0
        self.seen = memoryview(self.numbers)  # a look costs a third of the array's
        self.address = self.numbers.ctypes.data
        self.bell = ctypes.c_void_p(self.address + BELL * self.numbers.itemsize)
        self.seen[SPIN] = _spin() if _LIBRARY is not None and _LIBRARY.sem_init(self.bell, 0, 0) == 0 else 0
        self.leads = threading.Lock()
        self.members = 0
        self.most = 1  # threads that are of use, the caller's among them

    def wake(self, most: int) -> None:
        """Has as many members awake, or soon so."""
        asleep = min(most, self.members) - self.seen[AWAKE]
        if asleep <= 0 and self.members >= most:
            return
        self.seen[LEAVE] = 0
        for _ in range(asleep):
            _LIBRARY.sem_post(self.bell)
        while self.members < most:
            serve = _server()  # made by this thread: a process that ends while another one compiles may crash
            threading.Thread(target=_serve, args=(self, serve), name="softmax_numba", daemon=True).start()
            self.members += 1


_crew = _Crew(_room())


def address() -> int:
    """Where the numbers stand; the same in a forked child, whose crew is its own."""
    return _crew.address


def _serve(crew: _Crew, serve: Callable) -> None:
    """What a member's thread does: everything but this in compiled code, without Python's lock."""
    looks, least, alone = 1000, math.inf, _room()
    for _ in range(8):  # the least: meanwhile the thread may be stopped
        begin = time.perf_counter_ns()
        serve(alone.ctypes.data, looks, 1)
        least = min(least, time.perf_counter_ns() - begin)
    serve(crew.address, int(crew.seen[SPIN] * looks / least), -1)


@once
def _server() -> Callable:
    return compiled_for(compiled(serve, "serve"), "serve", (types.intp, types.intp, types.intp))


@once
def _lead() -> int:
    return address_of_body(compiled(lead, "lead", body=True), "lead", (types.intp,) * 6)


@once
def leader(operands: tuple[types.Type, ...]) -> Callable:
    """What :func:`together` calls for a sweep over arrays of these types."""
    signature = (types.intp, *operands, types.intp, types.intp, types.intp, types.boolean, types.intp)
    return compiled_for(compiled(led, "led"), "led", signature)


def together(
    operands: tuple[types.Type, ...], body: int, values: int, units: int, past_cache: bool
) -> Callable[..., bool]:
    """``call(arrays)``: carries out a sweep with the crew; False, and nothing done, where no call has just ended, or
    where so many values had better have the layer's threads."""
    leads: list[Callable] = []  # made when there is a crew to lead

    def call(*arrays: np.ndarray | None) -> bool:
        crew = _crew
        seen = crew.seen
        alone = time.perf_counter_ns() - seen[ENDED] >= seen[SPIN] and not seen[AWAKE]
        if alone or not crew.leads.acquire(False):
            return False
        try:
            many = threads.in_use()
            if seen[AWAKE] < min(many, crew.most) - 1 or many > crew.most:  # asking takes a microsecond
                crew.most = min(cores(), MOST_MEMBERS + 1)
                seen[USEFUL], seen[ASK] = crew.most, threads.address_of_question()
            if many > crew.most and values > FEW_VALUES:
                dismiss()
                return False
            if not seen[LEAD]:
                seen[LEAD] = _lead()
            many = min(many, crew.most)
            crew.wake(many - 1)
            if not leads:
                leads.append(leader(operands))
            shares = min(units, SHARES * many)
            return leads[0](body, *arrays, units, shares, many - 1, past_cache, crew.address)
        finally:
            crew.leads.release()

    return call


def ended() -> None:
    """To be told when a call on few values has been carried out in another way."""
    _crew.seen[ENDED] = time.perf_counter_ns()


def dismiss() -> None:
    """Lets those who are awake sleep, whose cores others need."""
    if _crew.seen[AWAKE]:
        _crew.seen[LEAVE] = 1


@atexit.register
def _dissolve() -> None:
    """Before the code that members run is taken away."""
    crew = _crew
    crew.seen[SPIN], crew.seen[LEAVE], crew.seen[END] = 0, 1, 1
    for _ in range(crew.members):
        _LIBRARY.sem_post(crew.bell)
    end = time.monotonic() + 0.1
    while crew.seen[PRESENT] and time.monotonic() < end:
        time.sleep(1e-4)


def _after_fork_in_child() -> None:
    global _crew
    _crew = _Crew(_crew.numbers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
