"""The map over a stretch of a row: whole vectors to whole vectors, past the cache where nobody will read them soon."""

from softmax_numba.cpu.jit import inlined
from softmax_numba.cpu.memory import address_of, load, load_first, moved, store, store_first, stream, width_of

LINE_BYTES = 64


def stretch_map(operation):
    """Compiles the map from values that lie side by side to results that do."""
    value = operation.map

    @inlined
    def map_to(p, count, out, found, scale, past_cache):
        """``out[:count]`` from ``p``, which holds exponentials if that is what the operation maps."""
        width = width_of(out)
        i = 0
        if past_cache:
            size = address_of(out, 1) - address_of(out, 0)
            i = min(count, (-address_of(out, 0) & (width * size - 1)) // size)
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


@inlined
def copy(p, count, out):
    """Copies ``count`` numbers in their stored type."""
    i = 0
    while i < count:
        store_first(out, i, count - i, load_first(p, i, count - i))
        i += width_of(p)


@inlined
def flush(waiting, head, end, target):
    """Streams the whole lines of ``waiting[head:end]`` to ``target``, where a line begins, and moves the rest to front.

    What stands before ``head`` is not there; a line that begins before it is written with ordinary stores. Returns
    the new head, end and target.
    """
    width = width_of(waiting)
    in_line = LINE_BYTES // (address_of(waiting, 1) - address_of(waiting, 0))
    whole = end // in_line * in_line
    if whole == 0:
        return head, end, target
    i = 0
    if head > 0:
        copy(moved(waiting, head), in_line - head, moved(target, head))
        i = in_line
    while i < whole:
        stream(target, i, load(waiting, i))
        i += width
    for k in range(0, in_line, width):
        store(waiting, k, load(waiting, whole + k))
    return 0, end - whole, moved(target, whole)
