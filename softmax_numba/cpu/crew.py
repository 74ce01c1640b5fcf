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
import contextlib
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
from softmax_numba.cpu.inlining import for_both, inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.joining import (
    ASK,
    AWAKE,
    BELL,
    END,
    ENDED,
    LEAD,
    LEAVE,
    LOOKS_A_TURN,
    NUMBERS,
    PRESENT,
    SPIN,
    USEFUL,
    follows_closely,
    is_alone,
    lead,
    led,
    serve,
    threads_awake,
)
from softmax_numba.cpu.plan import CREW_FROM, PARALLEL_FROM

# More values take the layer's threads, and so do more than FEW_VALUES if there are more of those. Measured on two cores
# beside the layer: 1.3 times as fast at 100,000 values, 1.2 times at 10**6, 1.05 times at 4 * 10**6.
FEW_VALUES, MOST_VALUES = 2**18, 2**22
MOST_MEMBERS = 7
# Shares a thread, of few values and of many: who is held up in the last one holds up everybody.
FEW_SHARES, MANY_SHARES, MANY_VALUES = 4, 8, 2**20
_DEFAULT_SPIN, _MOST_SPIN = 200_000, 1_000_000_000  # nanoseconds


@for_both
def shares_of(units: int, values: int, many: int) -> int:
    """Into how many shares so many units are cut for ``many`` threads."""
    return min(units, many * (FEW_SHARES if values <= MANY_VALUES else MANY_SHARES))


@inlined
def threads_for(numbers, values):
    """How many threads compiled code may have for so many values that can be shared; 0 if that is not for it to say."""
    if values < CREW_FROM or is_alone(numbers):
        return 1
    many = 0
    if values <= MOST_VALUES:
        many = threads_awake(numbers, values > FEW_VALUES)
    if many == 0 and values < PARALLEL_FROM and not follows_closely(numbers):
        return 1
    return many


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
        self.limit = MOST_MEMBERS  # how many members the system allows

    def wake(self, most: int) -> None:
        """Has as many members awake, or soon so."""
        asleep = min(most, self.members) - self.seen[AWAKE]
        if asleep <= 0 and self.members >= most:
            return
        self.seen[LEAVE] = 0
        for _ in range(asleep):
            _LIBRARY.sem_post(self.bell)
        while self.members < min(most, self.limit):
            serve = _server()  # made by this thread: a process that ends while another one compiles may crash
            member = threading.Thread(target=_serve, args=(self, serve), name="softmax_numba", daemon=True)
            try:
                member.start()
            except RuntimeError:  # no more threads are to be had: those there are will do
                self.limit = self.members
                return
            self.members += 1


_crew = _Crew(_room())


def _serve(crew: _Crew, serve: Callable) -> None:
    """What a member's thread does: everything but this in compiled code, without Python's lock."""
    # Fewer than there are in a turn, after which the core is given away: where others wait for it that takes so long
    # that a thousand looks once seemed to last milliseconds, and nobody stayed awake for more than a few.
    looks, least, alone = LOOKS_A_TURN - 1, math.inf, _room()
    for _ in range(20):  # the least: meanwhile the thread may be stopped
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
def leader(arguments: tuple[types.Type, ...]) -> Callable[..., bool]:
    """``call(body, arguments, units, shares, most, past_cache, numbers)`` for a body with such arguments."""
    signature = (types.intp, types.Tuple(arguments), *[types.intp] * 3, types.boolean, types.intp)
    return compiled_for(compiled(led, "led"), "led", signature)


def begin(values: int) -> int:
    """How many threads a call on so many values has with the crew, which it leads until :func:`end`.

    0, and no end is to be told, if it is better carried out in another way: no call has just ended, it has too few
    values or too many, or somebody else leads.
    """
    crew = _crew
    seen = crew.seen
    if not CREW_FROM <= values <= MOST_VALUES:
        if values > MOST_VALUES:
            dismiss()
        return 0
    if time.perf_counter_ns() - seen[ENDED] >= seen[SPIN] and not seen[AWAKE]:
        return 0
    if not crew.leads.acquire(False):
        return 0
    try:
        many = _summoned(crew, values)
    except BaseException:
        end()
        raise
    if many == 0:
        end()
    return many


def _summoned(crew: _Crew, values: int) -> int:
    """How many threads the call has of a crew that it leads; 0 if fewer than two."""
    seen, many = crew.seen, threads.in_use()
    if seen[AWAKE] < min(many, crew.most) - 1 or many > crew.most or not seen[ASK]:  # asking takes a microsecond
        crew.most = min(cores(), crew.limit + 1)
        seen[USEFUL], seen[ASK] = crew.most, threads.address_of_question()
    if many > crew.most and values > FEW_VALUES:
        dismiss()
        many = 0
    many = min(many, crew.most)
    if many < 2:
        return 0
    if not seen[LEAD]:
        seen[LEAD] = _lead()
    crew.wake(many - 1)
    return many if crew.members else 0


def address() -> int:
    """Where the numbers stand; the same in a forked child, whose crew is its own."""
    return _crew.address


def end() -> None:
    """To be told when a call that began has been carried out, or has failed."""
    with contextlib.suppress(RuntimeError):  # a signal handler forked meanwhile: this is the child
        _crew.leads.release()


def together(
    body: Callable[[], int],
    leader: Callable[[], Callable[..., bool]],
    arguments: tuple[Any, ...],
    values: int,
    units: int,
    shares: int,
    past_cache: bool,
) -> bool:
    """Whether the crew has carried out the ``units`` of the body at address ``body()``, on these arguments, in at most
    so many shares; ``leader()`` is what :func:`leader` made for arguments of their types."""
    many = begin(values)
    if many == 0:
        return False
    try:
        shares = min(shares, shares_of(units, values, many))
        return leader()(body(), arguments, units, shares, many - 1, past_cache, _crew.address)
    finally:
        end()


def ended(values: int) -> None:
    """To be told when a call on so many values has been carried out in another way."""
    if CREW_FROM <= values <= MOST_VALUES:
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
