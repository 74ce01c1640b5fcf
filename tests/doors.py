"""Doors for tests: entering one, and a record of what they did."""

import pytest

import softmax_numba
from softmax_numba import calls
from softmax_numba.cpu import door, sweeps
from softmax_numba.cpu.lane import LOG_SOFTMAX, LOGSUMEXP, SOFTMAX

OPERATIONS = {"softmax": SOFTMAX, "log_softmax": LOG_SOFTMAX, "logsumexp": LOGSUMEXP}


def entered(made):
    """``enter(x, axis, out)`` of a door."""
    return lambda x, axis, out: made.enter(x, axis, out, made.numbers)


class Taken:
    """What doors did: the sweeps that calls through them took, and how many calls took another way."""

    def __init__(self):
        self.doors, self.done, self.others, self.sweeps = [], 0, 0, []

    def clear(self):
        """From here on every sweep has to be asked for again."""
        for one in self.doors:
            one.numbers[: door.PARTS] = 0
        self.done, self.others, self.sweeps = 0, 0, []


@pytest.fixture
def taken(monkeypatch):
    found = Taken()
    make, general, run = door.door.__wrapped__, calls.general, sweeps.run

    def recorded(operation, storage):
        made = make(operation, storage)
        found.doors.append(made)

        def enter(x, axis, out, numbers):
            said = made.enter(x, axis, out, numbers)
            found.done += said == sweeps.DONE
            return said

        def noted(part):
            if part != door.FOLD:
                found.sweeps.append(part)
            made.make(part)

        return door.Door(enter, noted, made.numbers)

    def counted(way):
        def other(*arguments, **named):
            found.others += 1
            return way(*arguments, **named)

        return other

    monkeypatch.setattr(door, "door", recorded)
    monkeypatch.setattr(sweeps, "run", counted(run))
    monkeypatch.setattr(softmax_numba.functions, "general", counted(general))
    for name, operation in OPERATIONS.items():
        monkeypatch.setattr(softmax_numba.functions, f"_small_{name}", calls.short_way(operation))
    return found


def long_way(name, x, axis=-1):
    """The result by a plan."""
    return calls.general(OPERATIONS[name], x, axis, None, 1.0, None, None)
