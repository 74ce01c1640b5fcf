"""What is looked at for its maximum, and results that are written, while exponentials of another stretch are computed.

Exponentials keep a core's arithmetic busy and its memory idle, the other two steps do the opposite. So whoever computes
exponentials four vectors at a time looks at such a quad of what comes later (:func:`look`) and writes one of what was
computed before, the mate (:func:`mates`). Quads of results may begin where a cache line does; the few before the first,
and behind the last whole one, are written apart.
"""

import functools
from typing import NamedTuple

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import (
    load_first,
    moved,
    prefetch,
    store,
    store_first,
    stream,
    to_full_vectors,
    width_of,
)
from softmax_numba.cpu.simd import larger
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.wide import largest_of_quarters, load_first_wide, load_wide


class Later(NamedTuple):
    """A stretch that is looked at."""

    values: object
    whole: int  # how many of them make up quads
    ahead: object  # what memory is asked for meanwhile


@inlined
def look(later, i, tops):
    """The largest values so far, a slot each, after the quad at ``i``, if there is one; with a NaN any will do."""
    width = width_of(later.values)
    if i < later.whole:
        tops = larger(tops, largest_of_quarters(load_wide(later.values, i, 4)))
    for k in range(4):
        prefetch(later.ahead, i + k * width)
    return tops


@inlined
def largest_values(p, count, done, tops):
    """The largest of ``p[:count]``, a slot each and never NaN; ``tops`` are those of ``p[:done]``, whole quads."""
    quad, i = 4 * width_of(p), done
    while i + quad <= count:
        tops = larger(tops, largest_of_quarters(load_wide(p, i, 4)))
        i += quad
    if i < count:
        tops = larger(tops, largest_of_quarters(load_first_wide(p, i, count - i, 4)))
    return tops


class Mate(NamedTuple):
    """A stretch of results that is due."""

    source: object  # exponentials or values, whatever the operation maps
    target: object
    stores: int  # how many make up quads, if they are to stay in the cache
    streams: int  # if not
    left: int  # how many there are
    found: object
    scale: object


@functools.cache
def mates(operation):
    """Compiles the three steps: the beginning, each quad, and the rest."""
    value, map_to = operation.map, stretch_map(operation.map)

    @inlined
    def mate_of(source, target, count, found, scale, aligned, past_cache):
        """``count`` results as a mate, whose quads, if ``aligned``, begin where a cache line does: the few before it
        are written at once."""
        head = 0
        if aligned:
            head = min(count, to_full_vectors(target))
            if head > 0:
                store_first(target, 0, head, value(load_first(source, 0, head), found, scale))
        left, quad = count - head, 4 * width_of(source)
        whole = left // quad * quad
        stores = 0 if past_cache else whole
        return Mate(moved(source, head), moved(target, head), stores, whole - stores, left, found, scale)

    @inlined
    def write_quad(mate, i):
        """The mate's quad at ``i``, if there is one."""
        if i < mate.stores:
            store(mate.target, i, value(load_wide(mate.source, i, 4), mate.found, mate.scale))
        if i < mate.streams:
            stream(mate.target, i, value(load_wide(mate.source, i, 4), mate.found, mate.scale))

    @inlined
    def finish(mate, done):
        """The results of a mate but for those of the quads before ``done``."""
        past_cache = mate.streams > 0
        done = min(done, mate.stores + mate.streams)
        source, target = moved(mate.source, done), moved(mate.target, done)
        map_to(source, mate.left - done, target, mate.found, mate.scale, past_cache)

    return mate_of, write_quad, finish
