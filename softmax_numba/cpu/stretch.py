"""The map over a stretch of a row: whole vectors to whole vectors, past the cache where nobody will read them soon."""

import functools

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.memory import load, load_first, store, store_first, stream, to_full_vectors, width_of


@inlined
def copy_stretch(p, count, out):
    """``out[:count]`` from ``p``; either may be of 16 bits."""
    i, width = 0, width_of(out)
    while i + width <= count:
        store(out, i, load(p, i))
        i += width
    if i < count:
        store_first(out, i, count - i, load_first(p, i, count - i))


@functools.cache
def stretch_map(value):
    """Compiles the map ``value(x, found, scale)`` from what lies side by side to results that do."""

    @inlined
    def map_to(p, count, out, found, scale, past_cache):
        """``out[:count]`` from ``p``, which holds exponentials if that is what the operation maps."""
        width = width_of(out)
        i = 0
        if past_cache:
            i = min(count, to_full_vectors(out))
            if i > 0:
                store_first(out, 0, i, value(load_first(p, 0, i), found, scale))
            while i + width <= count:
                stream(out, i, value(load(p, i), found, scale))
                i += width
        while i + width <= count:
            store(out, i, value(load(p, i), found, scale))
            i += width
        if i < count:
            store_first(out, i, count - i, value(load_first(p, i, count - i), found, scale))

    return map_to
