"""Interleaved timing: every round times every contender once, so that all of them see the same machine.

On a shared machine a time means little and a ratio taken within one round means much; the figures of every
round are kept, and medians with 20 % and 80 % quantiles are computed from them.
"""

import contextlib
import gc
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Budget", "Series", "Spread", "interleaved", "ratio", "spread"]

Call = Callable[[], Any]
Clock = Callable[[], int]


@dataclass(frozen=True)
class Budget:
    """How long one cell may take.

    Attributes
    ----------
    seconds : float
        After this no further round begins, once ``min_rounds`` are there.
    min_rounds, max_rounds : int
    sample_seconds : float
        A faster call is repeated within one sample until the sample lasts this long.
    lead_seconds : float
        Before each sample the contender runs untimed for about this long.
    """

    seconds: float
    min_rounds: int = 5
    max_rounds: int = 25
    sample_seconds: float = 1e-3
    lead_seconds: float = 5e-3

    def __post_init__(self) -> None:
        if not 1 <= self.min_rounds <= self.max_rounds:
            raise ValueError(f"rounds must be 1 <= min <= max, got {self.min_rounds} and {self.max_rounds}")


@dataclass(frozen=True)
class Series:
    """One contender's figures.

    Attributes
    ----------
    calls : int
        Calls within one sample.
    seconds : tuple of float
        Time of one call, one figure a round.
    """

    calls: int
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """Median, and the quantiles between which three fifths of the figures lie."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and the 20 % and 80 % quantiles.

    Examples
    --------
    >>> spread([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Spread(median=3.5, low=2.0, high=5.0)
    """
    low, median, high = (float(q) for q in np.percentile(np.asarray(values, np.float64), [20, 50, 80]))
    return Spread(median, low, high)


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """The spread of the ratios taken round by round.

    Examples
    --------
    >>> ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]).median
    2.0
    """
    if len(numerator) != len(denominator):
        raise ValueError(f"a ratio needs the same rounds on both sides, got {len(numerator)} and {len(denominator)}")
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def _sample(call: Call, calls: int, clock: Clock) -> int:
    repeats = range(calls)
    start = clock()
    for _ in repeats:
        call()
    return clock() - start


def _calls_per_sample(call: Call, target_ns: float, clock: Clock) -> tuple[int, float]:
    """How many calls make a sample, and what one call costs in nanoseconds."""
    call()
    calls = 1
    while True:
        taken = max(_sample(call, calls, clock), 1)
        if taken >= target_ns:
            # Once may have been slow by chance, or because something was made for later calls: that takes two.
            taken = min(taken, max(_sample(call, calls, clock), 1))
        if taken >= target_ns:
            return calls, taken / calls
        # Aim a fifth above the target: a faster second try would otherwise double once more.
        calls = min(max(calls + 1, int(1.2 * calls * target_ns / taken)), 10 * calls)


def _others_run(tasks: Path = Path("/proc/self/task")) -> bool:
    """Whether another thread of the process is running now; on systems that do not tell, no.

    Not by their processor time: the kernel brings that of a running thread up to date once a tick, 4 or 10 ms apart.
    """
    me = str(threading.get_native_id())
    try:
        for task in tasks.iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                if task.name != me and (task / "stat").read_text().rpartition(")")[2].split()[0] == "R":
                    return True
    except OSError:
        pass
    return False


def _wait_for_quiet(limit: float = 0.05) -> None:
    """Wait until the contender before has let go of the processor: its threads may spin on for a while.

    A worker of PyTorch's OpenMP runs for 8 to 10 ms after each call, on a core that the next contender's threads need:
    a 20 µs copy on two threads took 125 µs meanwhile. This thread does not sleep while it waits: a core that has slept
    for 10 ms takes 6 ms to come back to its speed (a call of 1.2 ms took 2.6, 2.1, 1.6, 1.3, 1.2 ms), and who follows
    those threads would pay for it.
    """
    end = time.monotonic() + limit
    while _others_run() and time.monotonic() < end:
        pass


def _lead_in(call: Call, cost_ns: float, lead_ns: float, clock: Clock) -> None:
    """Run the contender untimed before its sample, which brings back the caches and its own threads.

    A call much longer than the lead takes that in its stride.
    """
    if cost_ns < 4 * lead_ns:
        end = clock() + lead_ns
        while clock() < end:
            call()


def interleaved(
    calls: Mapping[str, Call],
    budget: Budget,
    *,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
    prepare: Callable[[str], None] = lambda name: None,
) -> dict[str, Series]:
    """Time all calls in rounds; each round takes one sample of every call, in an order drawn anew.

    Parameters
    ----------
    calls : mapping of str to callable without arguments
        What is timed. Each pays for the same one Python-level call, about 40 ns.
    budget : Budget
    seed : int
        Draws the orders.
    clock : callable, optional
        Nanoseconds as an integer.
    prepare : callable, optional
        Given a contender's name before it runs; its time does not count.

    Returns
    -------
    dict of str to Series
        All with the same number of rounds.

    Examples
    --------
    >>> figures = interleaved({"a": lambda: sum(range(100))}, Budget(0.0, min_rounds=3, max_rounds=3))
    >>> len(figures["a"].seconds)
    3
    """
    generator = np.random.default_rng(seed)
    names, lead_ns = list(calls), budget.lead_seconds * 1e9
    collects = gc.isenabled()
    gc.disable()
    try:
        sizes: dict[str, tuple[int, float]] = {}
        for name in names:
            prepare(name)
            sizes[name] = _calls_per_sample(calls[name], budget.sample_seconds * 1e9, clock)
        figures: dict[str, list[float]] = {name: [] for name in names}
        start = clock()
        for done in range(budget.max_rounds):
            # A round that would end beyond the budget is not begun.
            spent = (clock() - start) * 1e-9
            if done >= budget.min_rounds and spent * (done + 1) / done > budget.seconds:
                break
            for name in (names[i] for i in generator.permutation(len(names))):
                _wait_for_quiet()
                prepare(name)
                _lead_in(calls[name], sizes[name][1], lead_ns, clock)
                taken = _sample(calls[name], sizes[name][0], clock)
                figures[name].append(taken * 1e-9 / sizes[name][0])
    finally:
        if collects:
            gc.enable()
    return {name: Series(sizes[name][0], tuple(figures[name])) for name in names}
