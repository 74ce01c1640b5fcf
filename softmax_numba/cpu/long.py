"""A long lane that the crew shares: reduced in shares, settled, and mapped in shares, without a word of Python."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic

from softmax_numba.cpu.arrays import hold
from softmax_numba.cpu.blocks import HIDE, MAP, REDUCE, SETTLE
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.jit import as_task, call_at, call_lead, call_long_body, compiled
from softmax_numba.cpu.joining import LEAD, begins, ends, look
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.settling import NUMBERS, SUMS

# What leading says.
NOT_DONE, DONE, FAILED = range(3)


def _share(body, x, mask, temperature, out, o, j, numbers, sums, results, left, step, first, last, past_cache):
    """Blocks ``first`` to ``last`` of a step; how many of their values take part goes to ``left[first]``."""
    part = call_long_body(
        body, x, mask, temperature, out, o, j, first, last, numbers, sums, results, 0, step, past_cache
    )
    left[first] = part


def _notebook(compute: types.Type) -> tuple[types.Type, ...]:
    """The types of numbers, sums and results."""
    return types.Array(compute, 2, "C"), types.Array(types.float64, 2, "C"), types.Array(types.float64, 1, "C")


@once
def _address_of_share(arrays: tuple[types.Type, ...], compute: types.Type) -> int:
    place, counts = (types.intp,) * 2, types.Array(types.int64, 1, "C")
    bounds = types.intp, types.intp, types.intp, types.boolean
    signature = (types.intp, *arrays, *place, *_notebook(compute), counts, *bounds)
    return address_of_body(compiled(_share, "long_share", body=True), "long-share", signature)


def _leading(compute: types.Type) -> Callable:
    kind = np.dtype(str(compute)).type

    def lead_lanes(crew, body, share, x, mask, temperature, out, shares, most, past_cache):
        outer, length, inner = x.shape
        count = (length + BLOCK - 1) // BLOCK
        numbers, sums, results = np.empty((NUMBERS, count), kind), np.empty((SUMS, count)), np.empty(1)
        left = np.zeros(count, np.int64)
        if not begins(crew):
            return NOT_DONE
        failed = False
        for lane in range(outer * inner):
            o, j = lane // inner, lane % inner
            left[:] = 0
            given = body, x, mask, temperature, out, o, j, numbers, sums, results, left, REDUCE
            function, arguments = as_task(share, given, past_cache)
            failed = call_lead(look(crew, LEAD), crew, function, arguments, count, shares, most)
            if failed:
                break
            total = left.sum()
            maps = call_long_body(
                body, x, mask, temperature, out, o, j, 0, count, numbers, sums, results, total, SETTLE, past_cache
            )
            if maps:
                given = body, x, mask, temperature, out, o, j, numbers, sums, results, left, MAP
                function, arguments = as_task(share, given, past_cache)
                failed = call_lead(look(crew, LEAD), crew, function, arguments, count, shares, most)
                if failed:
                    break
                call_long_body(
                    body, x, mask, temperature, out, o, j, 0, count, numbers, sums, results, 0, HIDE, past_cache
                )
        ends(crew)
        hold(numbers)
        hold(sums)
        hold(results)
        hold(left)
        return FAILED if failed else DONE

    return lead_lanes


@once
def addresses(arrays: tuple[types.Type, ...], compute: types.Type) -> tuple[int, int]:
    """What compiled code leads lanes with: where :func:`lead_lanes_at` stands, and what it is to give to the crew."""
    lead = compiled(_leading(compute), "lead_lanes", body=True)
    signature = (*(types.intp,) * 3, *arrays, types.intp, types.intp, types.boolean)
    return address_of_body(lead, "lead-lanes", signature), _address_of_share(arrays, compute)


@intrinsic
def lead_lanes_at(typing, address, crew, body, share, x, mask, temperature, out, shares, most, past_cache):
    """Each lane of x (outer, length, inner), one after the other, shared out among the crew by the long body at
    ``body``: DONE; or FAILED; or NOT_DONE, and nothing is, while somebody else leads."""
    arrays = (x, mask, temperature, out)
    return call_at(types.intp, address, *(types.intp,) * 3, *arrays, types.intp, types.intp, types.boolean)


@once
def leader(arrays: tuple[types.Type, ...], compute: types.Type) -> Callable[..., bool]:
    """The same for Python: what :func:`softmax_numba.cpu.crew.leader` gives for a body."""
    lead, share = addresses(arrays, compute)

    def led_lanes(address, crew, body, share, x, mask, temperature, out, shares, most, past_cache):
        return lead_lanes_at(address, crew, body, share, x, mask, temperature, out, shares, most, past_cache)

    signature = (*(types.intp,) * 4, *arrays, types.intp, types.intp, types.boolean)
    call = compiled_for(compiled(led_lanes, "led_lanes"), "led-lanes", signature)

    def led(body: int, given: tuple[Any, ...], units: int, shares: int, most: int, past_cache: bool, crew: int) -> bool:
        said = call(lead, crew, body, share, *given, shares, most, past_cache)
        if said == FAILED:
            raise MemoryError("no memory for a buffer")
        return bool(said == DONE)

    return led
