"""What all doors are made of (``door.py``): Python's objects looked at, and a sweep carried out by whoever is awake."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from softmax_numba.cpu import crew, handed
from softmax_numba.cpu.compiled import compiled_for, file_of, once
from softmax_numba.cpu.handed import (
    DESCRIPTION,
    TYPE,
    integer,
    place_in_memory,
    with_lock,
    without_lock,
    word,
)
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import address_named, compiled, named, try_body
from softmax_numba.cpu.joining import ENDED, lead_unless_led, now, tell
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.long import FAILED, NOT_DONE, lead_lanes_at
from softmax_numba.cpu.plan import CREW_FROM

# What a door says beside REFUSED and DONE: that a plan is needed, that the door of another dtype is to be asked, and
# from MISSING on that something has to be made, by its number.
LARGE, OTHER, MISSING = range(2, 5)

_RELEASE_FROM = BLOCK  # values; for fewer, giving Python's lock to another thread would take longer than the sweep


class Door(NamedTuple):
    """``enter(*objects, numbers)``, and ``make(said - MISSING)`` for what it says is missing."""

    enter: Callable[..., int]
    make: Callable[[int], None]
    numbers: np.ndarray


class Steps(NamedTuple):
    """What doors do, compiled into them."""

    is_array_of: Callable
    place_of_axis: Callable
    crew_numbers: Callable
    carry_out: Callable


@once
def steps() -> Steps:
    for name, what in (("ndarray", np.ndarray), ("int", int), ("last", -1)):
        named(f"softmax_numba.{name}", id(what))
    named("softmax_numba.crew", crew.address())
    crew_numbers, ndarray = address_named("softmax_numba.crew"), address_named("softmax_numba.ndarray")
    int_type, last_axis = address_named("softmax_numba.int"), address_named("softmax_numba.last")

    @inlined
    def is_array_of(handed, dtype):
        return word(handed, TYPE) == ndarray() and word(handed, DESCRIPTION) == dtype

    @inlined
    def place_of_axis(axis, axes):
        """Which of so many axes is meant; -1 if none."""
        if place_in_memory(axis) == last_axis():
            return axes - 1
        if word(axis, TYPE) != int_type():
            return -1
        value, too_large = integer(axis)
        if too_large or value < -axes or value >= axes:
            return -1
        return value + axes if value < 0 else value

    @inlined
    def carry_out(arrays, body, is_long, lead, share, units, shares, work, many, past_cache):
        """A sweep over the four arrays that its body takes: whether it was done, and failed. One that ``is_long`` is
        led by what stands at ``lead``."""
        numbers, (first, second, third, out) = crew_numbers(), arrays
        if many == 1 or shares == 1:
            state = without_lock(work > _RELEASE_FROM)
            failed = try_body(body, first, second, third, out, 0, units, past_cache)
            with_lock(state)
            if work >= CREW_FROM:
                tell(numbers, ENDED, now())
            return True, failed
        state = without_lock(True)
        if is_long:
            said = lead_lanes_at(lead, numbers, body, share, first, second, third, out, shares, many - 1, past_cache)
            done, failed = said != NOT_DONE, said == FAILED
        else:
            done, failed = lead_unless_led(numbers, body, arrays, units, shares, many - 1, past_cache)
        with_lock(state)
        return done, failed

    return Steps(is_array_of, place_of_axis, crew_numbers, carry_out)


_asked_for: set[str] = set()


def is_worth_making(name: str, *given: types.Type) -> bool:
    """Whether a call shall have :func:`entry_of` compiled under a name: not the first of a process, unless it is on
    disk. That takes as long as compiling a sweep, and there is another way."""
    file = file_of(name, given)
    if name in _asked_for or (file is not None and file.exists()):
        return True
    _asked_for.add(name)
    return False


def doors_by_dtype(make: Callable[[str], Door], entry: tuple[Any, ...]) -> Callable[[str], Door | None]:
    """``door_for(name)``: the door of an operation for the dtype of that name; None for no name, where doors cannot
    be, and as long as what they are entered by is not worth making."""
    doors: dict[str, Door | None] = {}

    def door_for(name: str) -> Door | None:
        if name not in doors:
            if not name or not handed.readable():
                doors[name] = None
            elif not is_worth_making(*entry):
                return None
            else:
                doors[name] = make(name)
        return doors[name]

    return door_for


def entry_of(enter: Callable[..., Any], name: str, *given: types.Type) -> Callable[..., Any]:
    """What a door is entered by that is given such objects and numbers."""
    dispatcher: Any = compiled_for(compiled(enter, name, nogil=False), name, given)
    (only,) = dispatcher.overloads.values()
    # The dispatcher itself would look up the types of what it is given.
    return only.entry_point  # type: ignore[no-any-return]
