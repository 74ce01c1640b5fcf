"""Lanes whose results are written while another lane is computed, quad by quad: memory works while the core does.

Whoever computes exponentials four vectors at a time asks after each such quad for the mate's (:func:`mates`). What
goes past the cache begins where a cache line does; the few results before it, and behind the last whole quad, are
written apart.
"""

from typing import NamedTuple

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import load_first, moved, store, store_first, stream, to_full_vectors, width_of
from softmax_numba.cpu.stretch import stretch_map
from softmax_numba.cpu.wide import load_wide


class Mate(NamedTuple):
    """A stretch of results that is due."""

    source: object  # exponentials or values, whatever the operation maps
    target: object
    stores: int  # how many make up quads, if they are to stay in the cache
    streams: int  # if not
    left: int  # how many there are
    found: object
    scale: object


def mates(operation):
    """Compiles the three steps: the beginning, each quad, and the rest."""
    value, map_to = operation.map, stretch_map(operation)

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
