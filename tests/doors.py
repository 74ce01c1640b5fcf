"""Doors for tests: entering one, and a record of what they did."""

import pytest

import softmax_numba
from softmax_numba import calls
from softmax_numba.cpu import door, entering, sweeps
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

    def watched(self, made, fold):
        """The door, of which is noted what it does and which sweeps it asks for."""

        def enter(*arguments):
            said = made.enter(*arguments)
            self.done += said == sweeps.DONE
            return said

        def make(part):
            if part != fold:
                self.sweeps.append(part)
            made.make(part)

        return entering.Door(enter, make, made.numbers)

    def counted(self, way):
        """Another way, of which calls are counted."""

        def other(*arguments, **named):
            self.others += 1
            return way(*arguments, **named)

        return other


@pytest.fixture
def taken(monkeypatch):
    found = Taken()
    make, general, run = door.door.__wrapped__, calls.general, sweeps.run

    def recorded(operation, storage):
        found.doors.append(make(operation, storage))
        return found.watched(found.doors[-1], door.FOLD)

    monkeypatch.setattr(door, "door", recorded)
    monkeypatch.setattr(sweeps, "run", found.counted(run))
    monkeypatch.setattr(softmax_numba.functions, "general", found.counted(general))
    for name, operation in OPERATIONS.items():
        monkeypatch.setattr(softmax_numba.functions, f"_small_{name}", calls.short_way(operation))
    return found


def long_way(name, x, axis=-1):
    """The result by a plan."""
    return calls.general(OPERATIONS[name], x, axis, None, 1.0, None, None)
