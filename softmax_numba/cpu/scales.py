"""The temperatures of lanes that are computed side by side: a number a lane in each form that the exponential uses.

Without a temperature there is nothing to note, and every lane has the same plain numbers.
"""

from typing import NamedTuple

from numba import types
from numba.extending import overload

from softmax_numba.cpu.exponential import Reference, Scale, scale_of
from softmax_numba.cpu.inlining import INLINED, inlined
from softmax_numba.cpu.memory import moved, number_like, put
from softmax_numba.cpu.wide import fourfold, numbers_for, numbers_over


class Scales(NamedTuple):
    """Pointers to the fields of :class:`Scale`, a number a lane."""

    steps_per_one: object
    step_high: object
    step_low: object
    inverse: object


@inlined
def scales_at(p, room):
    """Room for the temperatures of so many lanes, four times ``room`` numbers from ``p`` on."""
    return Scales(p, moved(p, room), moved(p, 2 * room), moved(p, 3 * room))


@inlined
def note_scale(scales, lane, temperature):
    """Notes the forms of a lane's temperature, a float64."""
    scale = scale_of(number_like(scales.inverse), temperature)
    put(scales.steps_per_one, lane, scale.steps_per_one)
    put(scales.step_high, lane, scale.step_high)
    put(scales.step_low, lane, scale.step_low)
    put(scales.inverse, lane, scale.inverse)


@inlined
def scale_of_four(scale):
    """The :class:`Scale` for four vectors of the same lanes."""
    return Scale(
        fourfold(scale.steps_per_one),
        fourfold(scale.step_high),
        fourfold(scale.step_low),
        fourfold(scale.inverse),
        1.0,
        scale.terms,
    )


@inlined
def reference_of_four(shift, magic, floor):
    """The :class:`Reference` for four vectors of the same lanes."""
    return Reference(fourfold(shift), 0.0, fourfold(magic), fourfold(floor))


def _scale_read_by(numbers):
    """Compiles the :class:`Scale` of lanes from ``lane`` on; ``numbers(pointer, lane)`` reads theirs."""

    @inlined
    def scale_at(scales, lane):
        return Scale(
            numbers(scales.steps_per_one, lane),
            numbers(scales.step_high, lane),
            numbers(scales.step_low, lane),
            numbers(scales.inverse, lane),
            1.0,
            scale_of(number_like(scales.inverse), None).terms,
        )

    return scale_at


def scale_for(scales, lane, lanes, temperature):
    """The :class:`Scale` of so many ``lanes`` (a literal) from ``lane`` on, as :func:`numbers_for` spreads numbers."""
    raise NotImplementedError("only inside compiled code")


@overload(scale_for, jit_options=INLINED, prefer_literal=True)
def _scale_for(scales, lane, lanes, temperature):
    if temperature == types.none:
        return lambda scales, lane, lanes, temperature: scale_of(number_like(scales.inverse), None)
    count = lanes.literal_value
    scale_at = _scale_read_by(inlined(lambda pointer, lane: numbers_for(pointer, lane, count)))
    return lambda scales, lane, lanes, temperature: scale_at(scales, lane)


def scale_over(scales, lane, lanes, places, temperature):
    """The same, as :func:`numbers_over` repeats numbers."""
    raise NotImplementedError("only inside compiled code")


@overload(scale_over, jit_options=INLINED, prefer_literal=True)
def _scale_over(scales, lane, lanes, places, temperature):
    if temperature == types.none:
        return lambda scales, lane, lanes, places, temperature: scale_of(number_like(scales.inverse), None)
    count, times = lanes.literal_value, places.literal_value
    scale_at = _scale_read_by(inlined(lambda pointer, lane: numbers_over(pointer, lane, count, times)))
    return lambda scales, lane, lanes, places, temperature: scale_at(scales, lane)
