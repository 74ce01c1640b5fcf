"""A sweep carried out by one thread, by the threading layer's, or by the crew (``crew.py``)."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import prange, types

from softmax_numba.cpu import crew, long, threads
from softmax_numba.cpu.blocks import HIDE, MAP, REDUCE, SETTLE
from softmax_numba.cpu.compiled import compiled_for, once
from softmax_numba.cpu.jit import call_body, call_long_body, compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.settling import NUMBERS, SUMS
from softmax_numba.cpu.threads import set_share_size, share_size


class Work(NamedTuple):
    """A sweep over some arrays, as somebody carries it out."""

    body: Callable[[], int]  # the address of its machine code
    units: int
    shares: int  # at most
    is_long: bool  # it goes through lanes that are each shared


def carrier(
    arrays: tuple[types.Type, ...],
    compute: types.Type,
    work: int,
    past_cache: bool,
    alone: Work,
    by_layer: Work | None,
    by_crew: Work | None,
) -> Callable[..., None]:
    """``carry(*arrays)``: whoever does so much work, in values, best. ``by_layer`` and ``by_crew`` are None where
    threads find nothing to share."""

    def in_one_thread(*given: np.ndarray | None) -> None:
        _serial(arrays)(alone.body(), *given, 0, alone.units, past_cache)

    for_crew = crew.CREW_FROM <= work <= crew.MOST_VALUES
    if not for_crew:
        by_crew = None
    if by_layer is None and by_crew is None:
        return in_one_thread

    def with_crew(given: tuple[np.ndarray | None, ...], by: Work) -> bool:
        return crew.together(by.body, leader, given, work, by.units, by.shares, past_cache)

    in_many_threads, body, bounds = in_one_thread, 0, (0,)
    if by_layer is not None:
        body = by_layer.body()
        in_many_threads = _long(arrays, compute) if by_layer.is_long else _parallel(arrays)
        bounds = (by_layer.shares,) if by_layer.is_long else (by_layer.units, by_layer.shares)

    @functools.cache  # types are slow to make, and to look for
    def leader() -> Callable[..., bool]:
        return long.leader(arrays, compute) if by_crew is not None and by_crew.is_long else crew.leader(arrays)

    def shared(*given: np.ndarray | None) -> None:
        if not for_crew:
            crew.dismiss()
        elif by_crew is not None and with_crew(given, by_crew):
            return
        if by_layer is None or not threads.run(in_many_threads, body, *given, *bounds, past_cache):
            in_one_thread(*given)
        if for_crew:
            crew.ended(work)

    return shared


@once
def _serial(arrays: tuple[types.Type, ...]) -> Callable:
    """``call(body, x, mask, temperature, out, first, last, past_cache)`` for arrays of these types."""

    def serial(body, x, mask, temperature, out, first, last, past_cache):
        call_body(body, x, mask, temperature, out, first, last, past_cache)

    signature = (types.intp, *arrays, types.intp, types.intp, types.boolean)
    return compiled_for(compiled(serial, "serial"), "serial", signature)


@once
def _parallel(arrays: tuple[types.Type, ...]) -> Callable:
    """``call(body, x, mask, temperature, out, units, shares, past_cache)``."""

    def parallel(body, x, mask, temperature, out, units, shares, past_cache):
        before = share_size()
        set_share_size(1)
        for k in prange(shares):
            call_body(body, x, mask, temperature, out, units * k // shares, units * (k + 1) // shares, past_cache)
        set_share_size(before)

    signature = (types.intp, *arrays, types.intp, types.intp, types.boolean)
    return compiled_for(compiled(parallel, "parallel", parallel=True), "parallel", signature)


@once
def _long(arrays: tuple[types.Type, ...], compute: types.Type) -> Callable:
    """``call(body, x, mask, temperature, out, shares, past_cache)`` for lanes that are each split over threads."""
    kind = np.dtype(str(compute)).type

    def long(body, x, mask, heat, out, shares, past_cache):
        outer, length, inner = x.shape
        count = (length + BLOCK - 1) // BLOCK
        numbers, sums, results = np.empty((NUMBERS, count), kind), np.empty((SUMS, count)), np.empty(1)
        before = share_size()
        set_share_size(1)
        for o in range(outer):
            for j in range(inner):
                left = 0
                for k in prange(shares):
                    a, b = count * k // shares, count * (k + 1) // shares
                    left += call_long_body(
                        body, x, mask, heat, out, o, j, a, b, numbers, sums, results, 0, REDUCE, past_cache
                    )
                maps = call_long_body(
                    body, x, mask, heat, out, o, j, 0, count, numbers, sums, results, left, SETTLE, past_cache
                )
                if maps:
                    for k in prange(shares):
                        a, b = count * k // shares, count * (k + 1) // shares
                        call_long_body(body, x, mask, heat, out, o, j, a, b, numbers, sums, results, 0, MAP, past_cache)
                    call_long_body(
                        body, x, mask, heat, out, o, j, 0, count, numbers, sums, results, 0, HIDE, past_cache
                    )
        set_share_size(before)

    signature = (types.intp, *arrays, types.intp, types.boolean)
    return compiled_for(compiled(long, "long", parallel=True), "long", signature)
