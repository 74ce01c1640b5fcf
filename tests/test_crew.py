"""Threads that stay awake between calls: they join, and nobody depends on them."""

import os
import threading
import time

import numpy as np
import pytest
from crews import asleep, joined, needs_a_crew, one_thread
from crews import two_threads as two_threads
from doors import entered
from grids import normal
from numba import njit, types
from oracle import BFLOAT16, same_bits
from processes import run

import softmax_numba
from softmax_numba.cpu import crew, door, joining
from softmax_numba.cpu.compiled import address_of_body
from softmax_numba.cpu.crew import MOST_VALUES
from softmax_numba.cpu.joining import AWAKE, CALL, CORE, ENDED, LEAD, LEAVE, LED, MOST, NAP, NAPS, SPIN
from softmax_numba.cpu.lane import SOFTMAX
from softmax_numba.cpu.plan import CREW_FROM
from softmax_numba.cpu.sweeps import DONE

pytestmark = [needs_a_crew, pytest.mark.usefixtures("two_threads")]


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "axis"),
    [
        ("softmax", np.float32, (701, 100), 1),
        ("softmax", np.float32, (8200, 10), 1),
        ("softmax", np.float32, (9, 300, 31), 1),
        ("softmax", np.float32, (70, 1001), 0),
        ("log_softmax", np.float64, (701, 100), 1),
        ("logsumexp", BFLOAT16, (701, 100), 1),
    ],
)
def test_the_same_bits_as_one_thread(name, dtype, shape, axis):
    """Of every sweep that is shared, and of every kind of result."""
    x = normal(shape, dtype, scale=3.0)
    function = getattr(softmax_numba, name)
    found = joined(lambda: function(x, axis))
    with one_thread():
        assert same_bits(found, function(x, axis))


@pytest.mark.parametrize("name", ["softmax_vjp", "log_softmax_vjp"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((701, 100), 1), ((8200, 10), 1), ((20, 10, 100), 2), ((9, 300, 31), 1), ((300, 1000), 0)]
)
def test_ways_back(name, shape, axis):
    y, dy = normal(shape, np.float32), normal(shape, np.float32, seed=2)
    function = getattr(softmax_numba, name)
    found = joined(lambda: function(y, dy, axis))
    with one_thread():
        assert same_bits(found, function(y, dy, axis))


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_and_grad"])
@pytest.mark.parametrize(
    ("shape", "axis", "options"),
    [
        ((701, 100), 1, {}),  # what most callers say has kernels of its own
        ((8200, 10), 1, {"reduction": "none"}),
        ((40, 5000), 1, {"reduction": "sum"}),
        ((8, 21, 130), 1, {"reduction": "none"}),
        ((30, 1000), 0, {}),
        ((701, 100), 1, {"label_smoothing": 0.1, "z_loss": 0.01}),
        ((4, 20, 2000), 1, {"reduction": "none"}),
        ((300, 1000), 0, {"focal_gamma": 2.0}),
    ],
)
def test_losses(name, shape, axis, options):
    x = normal(shape, np.float32, scale=3.0)
    lanes = shape[:axis] + shape[axis + 1 :]
    targets = np.random.default_rng(1).integers(0, shape[axis], lanes)

    def call():
        return getattr(softmax_numba, name)(x, targets, axis=axis, **options)

    found = joined(call)
    with one_thread():
        expected = call()
    if name == "cross_entropy":
        found, expected = (found,), (expected,)
    for one, other in zip(found, expected, strict=True):
        assert same_bits(np.asarray(one), np.asarray(other))


def test_losses_while_somebody_else_leads():
    x = normal((701, 100), np.float32)
    targets = np.zeros(701, np.int64)
    expected = joined(lambda: softmax_numba.cross_entropy(x, targets))
    crew._crew.seen[LED] = 1
    try:
        joined_calls = crew._crew.seen[CALL]
        assert softmax_numba.cross_entropy(x, targets) == expected
        assert crew._crew.seen[CALL] == joined_calls
    finally:
        crew._crew.seen[LED] = 0


def test_masks_and_temperatures():
    x = normal((700, 100), np.float32)
    where = np.random.default_rng(1).random(x.shape) < 0.7
    found = joined(lambda: softmax_numba.softmax(x, where=where, temperature=0.5))
    rows = [softmax_numba.softmax(x[i], where=where[i], temperature=0.5) for i in (0, 350, 699)]
    assert same_bits(found[[0, 350, 699]], np.stack(rows))


def test_calls_that_follow_closely_wake_somebody():
    """Even those of so few values that none is shared with the layer's threads."""
    x = normal((CREW_FROM // 100 + 1, 100), np.float32)
    assert same_bits(joined(lambda: softmax_numba.softmax(x)), np.stack([softmax_numba.softmax(row) for row in x]))


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("softmax", (CREW_FROM // 200 + 1, 100), np.float64),
        ("log_softmax", (CREW_FROM // 10, 2), np.float32),
        ("logsumexp", (CREW_FROM // 10, 2), np.float32),
    ],
)
def test_few_values_that_take_long_are_shared(name, shape, dtype):
    """By calls that come in by a door, and by those that have a mask."""
    x, function = normal(shape, dtype), getattr(softmax_numba, name)
    expected = np.stack([function(row) for row in x])
    assert x.size < CREW_FROM
    assert same_bits(joined(lambda: function(x)), expected)
    assert same_bits(joined(lambda: function(x, where=np.ones_like(x, bool))), expected)


def few_values():
    """Logits, of which there are few for what their losses take, and targets."""
    x = normal((CREW_FROM // 10, 2), np.float32)
    return x, np.random.default_rng(1).integers(0, 2, len(x))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}], ids=["plain", "smoothed"])
def test_losses_of_few_values_are_shared(options):
    """By the door, and by the way of all options."""
    x, targets = few_values()
    with one_thread():
        expected = softmax_numba.cross_entropy(x, targets, **options)
    assert joined(lambda: softmax_numba.cross_entropy(x, targets, **options)) == expected


@pytest.mark.parametrize("options", [{}, {"z_loss": 0.1}], ids=["plain", "with z-loss"])
def test_gradients_of_few_values_are_shared(options):
    """Also where one look is all there is."""
    x, targets = few_values()
    with one_thread():
        expected = softmax_numba.cross_entropy_and_grad(x, targets, **options)
    loss, gradient = joined(lambda: softmax_numba.cross_entropy_and_grad(x, targets, **options))
    assert loss == expected[0]
    assert same_bits(gradient, expected[1])


def test_no_more_join_than_threads_are_in_use():
    x = normal((700, 100), np.float32)
    joined(lambda: softmax_numba.softmax(x))
    assert crew._crew.numbers[MOST] == 1
    assert crew._crew.members == 1


def test_one_thread_alone_has_nothing_to_plan():
    """As soon as it is known that there is no other: compiled code carries out calls of any size."""
    enter = entered(door.door(SOFTMAX, "float32"))
    x = normal((MOST_VALUES // 100 + 1, 100), np.float32)
    few, out = x[: CREW_FROM // 100 + 1], np.empty_like(x)
    with one_thread():
        for _ in range(3):
            expected = softmax_numba.softmax(few)
        for rows in (few, x):
            assert enter(rows, -1, out[: len(rows)]) == DONE
            assert same_bits(out[: len(few)], expected)
    assert enter(x, -1, out) == door.LARGE


def test_they_sleep_soon():
    x = normal((700, 100), np.float32)
    joined(lambda: softmax_numba.softmax(x))
    assert asleep()
    used = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - used < 0.1


def test_patience_is_measured_in_looks_alone():
    """None gives the core away: with others waiting for it that would take milliseconds, and be taken for a look."""
    served, members = [], crew._Crew(crew._room())

    def serve(numbers, looks, times):
        served.append((numbers, looks, times))
        time.sleep(1e-3)

    crew._serve(members, serve)
    *measured, (numbers, patience, times) = served
    assert measured
    assert {times for _, _, times in measured} == {1}
    assert all(numbers != members.address and looks < joining.LOOKS_A_TURN for numbers, looks, _ in measured)
    assert (numbers, times) == (members.address, -1)
    assert 0 < patience <= members.seen[SPIN] * joining.LOOKS_A_TURN / 1_000_000


def test_calls_far_apart_wake_nobody():
    x = normal((700, 100), np.float32)
    joined(lambda: softmax_numba.softmax(x))
    calls = crew._crew.numbers[CALL]
    for _ in range(3):
        assert asleep()
        time.sleep(2e-9 * crew._crew.seen[SPIN])
        softmax_numba.softmax(x)
    assert crew._crew.numbers[CALL] == calls


@pytest.mark.parametrize(("exception", "raised"), [(RuntimeError, False), (KeyboardInterrupt, True)])
def test_whoever_fails_to_wake_a_member_leads_no_longer(exception, raised, monkeypatch):
    """No thread to be had is no error; any other leaves nothing behind."""
    fresh = crew._Crew(crew._room())
    monkeypatch.setattr(crew, "_crew", fresh)
    with monkeypatch.context() as patch:

        def failing(thread):
            raise exception("no thread")

        patch.setattr(threading.Thread, "start", failing)
        for _ in range(3):
            fresh.seen[ENDED] = time.perf_counter_ns() + 10**9  # a call has just ended
            if raised:
                with pytest.raises(exception):
                    crew.begin(CREW_FROM)
            else:
                assert crew.begin(CREW_FROM) == 0
            assert not fresh.leads.locked()
    assert fresh.limit == (crew.MOST_MEMBERS if raised else 0)
    assert fresh.members == 0


def test_a_failure_in_a_share_is_the_callers():
    def body(x, mask, temperature, out, first, last, past_cache):
        if first >= 10:
            raise MemoryError

    arrays = (
        types.Array(types.float32, 3, "A", readonly=True),
        types.none,
        types.none,
        types.Array(types.float32, 3, "A"),
    )
    address = address_of_body(
        crew.compiled(body, "failing_body", body=True), "failing", (*arrays, types.intp, types.intp, types.boolean)
    )
    x = np.ones((20, 2, 1), np.float32)
    given = x, None, None, x
    leader, numbers = crew.leader(arrays), crew._Crew(crew._room())
    numbers.seen[LEAD] = crew._lead()
    with pytest.raises(MemoryError):
        leader(address, given, 20, 4, 1, False, numbers.address)
    assert leader(address, given, 10, 4, 1, False, numbers.address)
    numbers.seen[LED] = 1
    assert not leader(address, given, 20, 4, 1, False, numbers.address)


def test_from_several_python_threads():
    """One leads, the others take the layer's threads."""
    x = normal((700, 100), np.float32)
    expected, right = softmax_numba.softmax(x), []

    def work():
        right.extend(same_bits(softmax_numba.softmax(x), expected) for _ in range(200))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert right == [True] * 800


def in_a_thread(work):
    """What ``work()`` gives in a thread of its own, whose cores nobody else has chosen."""
    results = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    (result,) = results
    return result


NO_CORE = 5000


@njit(nogil=True)
def core_after_leaving(begin):
    joining._leave(begin)
    return joining.core()


def test_who_runs_where_the_leader_does_goes_elsewhere():
    """To any other core that it may run on, on all of which it may run still; and stays if there is none."""

    def leaves(cores):
        os.sched_setaffinity(0, cores)
        begin = core_after_leaving(NO_CORE)
        end = core_after_leaving(begin)
        return begin, end, os.sched_getaffinity(0)

    allowed = os.sched_getaffinity(0)
    for _ in range(5):
        begin, end, left = in_a_thread(lambda: leaves(allowed))
        assert begin != end
        assert {begin, end} <= left == allowed
    for only in allowed:
        assert in_a_thread(lambda only=only: leaves({only})) == (only, only, {only})


def awake(leader, patience=10**12):
    """A member on one core, whose leader was last seen on ``leader`` (-1: unknown); its thread, its numbers."""
    numbers = crew._room()
    numbers[CORE] = 1 + leader
    serve = crew._server()

    def work():
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        serve(numbers.ctypes.data, patience, 1)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, numbers


def test_who_cannot_go_elsewhere_naps_and_gives_up():
    """Its core is the leader's: there is nothing to win by staying awake, for days here."""
    thread, numbers = awake(min(os.sched_getaffinity(0)))
    thread.join(60)
    gave_up = not thread.is_alive()
    numbers[LEAVE] = 1
    assert gave_up
    assert numbers[AWAKE] == 0


@pytest.mark.parametrize("known", [True, False])
def test_who_is_alone_on_its_core_stays(known):
    """Ten times as long as who naps; where the leader's core is not known, too."""
    thread, numbers = awake(max(os.sched_getaffinity(0)) + 1 if known else -1)
    thread.join(10 * NAPS * NAP * 1e-6 + 0.1)
    stayed = thread.is_alive()
    numbers[LEAVE] = 1
    thread.join()
    assert stayed
    assert numbers[AWAKE] == 0


LOOP = """
import os, signal, threading, time
import numpy as np, numba
from softmax_numba import softmax
from softmax_numba.cpu import crew
from softmax_numba.cpu.cores import cores
from softmax_numba.cpu.joining import LAST
numba.set_num_threads(2)
x = np.random.default_rng(1).normal(size=(700, 100)).astype(np.float32)
expected = softmax(x).tobytes()
def loop(seconds=20.0):
    end = time.monotonic() + seconds
    while not crew._crew.numbers[LAST] and time.monotonic() < end:
        assert softmax(x).tobytes() == expected
    return bool(crew._crew.numbers[LAST])
"""


def test_a_forked_child_has_a_crew_of_its_own():
    program = """
    assert loop()
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)
        os._exit(0 if softmax(x).tobytes() == expected and loop() else 3)
    assert os.waitpid(pid, 0)[1] == 0
    assert softmax(x).tobytes() == expected
    """
    run(program, before=LOOP)


def test_a_process_ends_while_they_are_awake():
    for _ in range(3):
        run("assert loop(); softmax(x)", before=LOOP, SOFTMAX_NUMBA_SPIN=1_000_000)


def test_they_can_be_switched_off():
    program = """
    assert not loop(0.5)
    assert [t.name for t in threading.enumerate()] == ["MainThread"]
    """
    run(program, before=LOOP, SOFTMAX_NUMBA_SPIN=0)
