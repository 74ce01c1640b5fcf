"""The timer: interleaved rounds whose ratios are right even where the times are not."""

import gc
import hashlib
import sys
import threading

import numpy as np
import pytest

from softmax_numba.bench.timing import Budget, _others_run, interleaved, ratio, spread


class Machine:
    """A clock that advances when work is done; how fast it works changes all the time."""

    def __init__(self, slowness=lambda now: 1.0):
        self.now, self.slowness, self.log = 0.0, slowness, []

    def clock(self):
        return int(self.now)

    def work(self, name, nanoseconds):
        def call():
            self.log.append(name)
            self.now += nanoseconds * self.slowness(self.now)

        return call


def test_known_durations_are_reported():
    machine = Machine()
    calls = {"a": machine.work("a", 3_000_000), "b": machine.work("b", 7_500_000)}
    figures = interleaved(calls, Budget(10.0, 4, 4), clock=machine.clock)
    assert figures["a"].seconds == pytest.approx([3e-3] * 4)
    assert figures["b"].seconds == pytest.approx([7.5e-3] * 4)
    assert figures["a"].calls == figures["b"].calls == 1


def test_ratio_survives_a_machine_that_slows_down_threefold():
    machine = Machine(lambda now: 1 + 2 * min(now / 4e9, 1))
    calls = {"ours": machine.work("ours", 2_000_000), "peer": machine.work("peer", 5_000_000)}
    figures = interleaved(calls, Budget(60.0, 25, 200), clock=machine.clock)
    times = figures["ours"].seconds
    assert max(times) > 2.5 * min(times)
    found = ratio(figures["peer"].seconds, times)
    assert found.low <= 2.5 <= found.high
    assert found.median == pytest.approx(2.5, rel=0.02)


def bursts(seed):
    """Load that comes and goes: the machine is up to 4 times as slow, for 1 to 80 ms at a time."""
    generator = np.random.default_rng(seed)
    ends = np.cumsum(generator.exponential(40e6, 4000) + 1e6)
    slowness = np.where(np.arange(4000) % 2, 1.0, generator.uniform(1.5, 4.0, 4000))
    return lambda now: slowness[np.searchsorted(ends, now) % 4000]


def one_after_the_other(calls, clock, rounds):
    """How it is done elsewhere: all samples of one, then all of the next."""
    found = {}
    for name, call in calls.items():
        found[name] = []
        for _ in range(rounds):
            begin = clock()
            call()
            found[name].append(clock() - begin)
    return spread(found["peer"]).median / spread(found["ours"]).median


def test_the_interval_of_a_ratio_covers_the_truth_under_load():
    """A peer that takes 1.7 times as long, 40 loads: every interval has the truth in it."""
    truth, missed, misled = 1.7, [], 0
    for seed in range(40):
        machine, other = Machine(bursts(seed)), Machine(bursts(seed))
        calls = {"ours": machine.work("ours", 2_000_000), "peer": machine.work("peer", truth * 2_000_000)}
        figures = interleaved(calls, Budget(60.0, 25, 25), seed=seed, clock=machine.clock)
        found = ratio(figures["peer"].seconds, figures["ours"].seconds)
        # Where no burst begins or ends within a round, nothing but rounding is left.
        if not found.low / (1 + 1e-9) <= truth <= found.high * (1 + 1e-9) or abs(found.median / truth - 1) > 0.15:
            missed.append((seed, found))
        blocks = {"ours": other.work("ours", 2_000_000), "peer": other.work("peer", truth * 2_000_000)}
        misled += abs(one_after_the_other(blocks, other.clock, 25) / truth - 1) > 0.15
    assert missed == []
    assert misled >= 15, "a load that does not mislead the plain way proves nothing"


def test_every_round_takes_one_sample_of_each():
    machine = Machine()
    names = ["a", "b", "c"]
    calls = {name: machine.work(name, 10_000_000) for name in names}
    rounds = 6
    interleaved(calls, Budget(60.0, rounds, rounds, lead_seconds=0.0), clock=machine.clock)
    timed = machine.log[-rounds * len(names) :]
    orders = {tuple(timed[i : i + 3]) for i in range(0, len(timed), 3)}
    assert all(sorted(order) == names for order in orders)
    assert len(orders) > 1, "the order is drawn anew, so that nobody always follows the same neighbour"


def test_fast_calls_are_repeated_until_a_sample_lasts():
    machine = Machine()
    figures = interleaved(
        {"fast": machine.work("fast", 400)}, Budget(1.0, 3, 3, sample_seconds=1e-3), clock=machine.clock
    )
    assert figures["fast"].calls >= 2500
    assert figures["fast"].seconds == pytest.approx([4e-7] * 3)


@pytest.mark.parametrize("slow", [2, 3, 4])
def test_one_slow_call_does_not_settle_how_often_it_is_repeated(slow):
    """As where something is made once, for calls that follow closely on each other."""
    machine = Machine()
    machine.slowness = lambda now: 1000.0 if len(machine.log) == slow else 1.0
    figures = interleaved(
        {"fast": machine.work("fast", 40_000)}, Budget(1.0, 3, 3, sample_seconds=1e-3), clock=machine.clock
    )
    assert figures["fast"].calls >= 25


def test_contender_runs_untimed_before_its_sample():
    machine = Machine()
    calls = {"a": machine.work("a", 1_000_000), "b": machine.work("b", 1_000_000)}
    interleaved(calls, Budget(1.0, 1, 1, lead_seconds=5e-3), clock=machine.clock)
    first = machine.log[-12:-6]
    assert len(set(first)) == 1, "five milliseconds of lead, then the sample, then the other one's"


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 3), (0.105, 10), (100.0, 25)])
def test_rounds_follow_the_budget(seconds, expected):
    machine = Machine()
    budget = Budget(seconds, 3, 25, lead_seconds=0.0)
    figures = interleaved({"a": machine.work("a", 10_000_000)}, budget, clock=machine.clock)
    assert len(figures["a"].seconds) == expected


def test_same_seed_same_order():
    logs = []
    for seed in (1, 1, 2):
        machine = Machine()
        interleaved({n: machine.work(n, 1e7) for n in "abcd"}, Budget(9.0, 5, 5), seed=seed, clock=machine.clock)
        logs.append(machine.log)
    assert logs[0] == logs[1] != logs[2]


def test_garbage_collection_is_off_while_timing_and_back_afterwards():
    seen = []

    def fails():
        seen.append(gc.isenabled())
        if len(seen) > 3:
            raise ZeroDivisionError

    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        interleaved({"a": fails}, Budget(1.0, 5, 5))
    assert gc.isenabled()
    assert not any(seen)


def test_real_time_of_a_known_duration():
    import time

    figures = interleaved({"sleep": lambda: time.sleep(0.02)}, Budget(1.0, 3, 3))
    assert min(figures["sleep"].seconds) >= 0.02


@pytest.mark.parametrize("state", ["R", "S", "D", "t"])
def test_who_runs_is_seen(tmp_path, state):
    """As /proc has it, where a name may hold anything; the thread that looks runs, of course."""
    for name, its in {"1": state, str(threading.get_native_id()): "R", "3": "S"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(f"{name} (a) R name) {its} 1 2 3\n")
    (tmp_path / "4").mkdir()  # a thread that has just ended
    assert _others_run(tmp_path) == (state == "R")
    assert not _others_run(tmp_path / "no such folder")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_thread_that_computes_is_seen():
    seen, done = [], False

    def compute():  # for a while, without Python's lock
        while not done:
            hashlib.sha256(bytes(2**22)).digest()

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        while thread.is_alive() and not any(seen):
            seen.append(_others_run())
    finally:
        done = True
        thread.join()
    assert any(seen)


def test_spread_is_median_and_fifths():
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0]
    found = spread(values)
    assert (found.low, found.median, found.high) == (2.0, 3.5, 5.0)


def test_ratios_are_taken_round_by_round():
    # The ratio of the medians would be 3/2.
    assert ratio([2.0, 3.0, 40.0], [1.0, 2.0, 10.0]).median == 2.0


def test_ratio_of_different_rounds_is_refused():
    with pytest.raises(ValueError, match="3 and 2"):
        ratio([1.0, 2.0, 3.0], [1.0, 2.0])


def test_impossible_budget_is_refused():
    with pytest.raises(ValueError, match="got 5 and 2"):
        Budget(1.0, 5, 2)
