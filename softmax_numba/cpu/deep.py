"""The sweep along deep columns: lanes that lie side by side and are so long that a tile of them would leave the cache.

Nothing is copied: the lines of memory are walked three times in their order, once for the lanes' maxima, once for
their sums and once for the results, whose exponentials have been kept or are computed again. The second and third time
they come from a cache where they fit one, and a line is wide enough to be prefetched where they do not. The sums follow
the order of lane.py slot by slot: four lines that are a vector's places apart make up one quad of each slot.
"""

import functools
from typing import NamedTuple

import numpy as np

from softmax_numba.cpu.access import temperature_of
from softmax_numba.cpu.across import settling
from softmax_numba.cpu.arrays import allocated, hold, place, release, start_of
from softmax_numba.cpu.deep_sums import Kept, Lines, largest_of_lines, line_adder
from softmax_numba.cpu.exponential import Reference, exp_relative, held, reference, scale_of
from softmax_numba.cpu.host import REGISTER_BITS
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import compiled
from softmax_numba.cpu.lane import BLOCK
from softmax_numba.cpu.memory import (
    LINE_BYTES,
    address_of,
    fence,
    load,
    load_first,
    moved,
    number_at,
    prefetch,
    put,
    store,
    store_first,
    stored_size,
    stream,
    to_full_vectors,
    width_of,
)
from softmax_numba.cpu.scales import Scales, note_scale, scale_for, scales_at
from softmax_numba.cpu.settling import FIRST, HIGH, LOG, NUMBERS, PEAK, SECOND, SUMS, TIES, TOP, UNIT, Settled, safe_top
from softmax_numba.cpu.sums import load_total, store_sums
from softmax_numba.cpu.wide import (
    load_first_wide,
    load_wide,
    numbers_for,
)

# A tile is at most as wide as a page of memory: in the first cache are the lanes' notes, in the second their sums.
MOST_VECTORS = 64
# Up to which size memory is asked for a whole tile: while results are written, or, where there are none, while the sums
# are added up (measured, two threads past the caches: 1.3x at 0.5 MB a tile, 1.0x to 1.2x at others, 0.96x at 8 MB).
CACHED_BYTES, SUMMED_BYTES = 2**19, 2**22
# Up to so many exponentials of a tile, whose lanes are a block at most, are kept for its results; more are computed
# again. Measured on a Zen 3: float64 1.2x to 1.4x; float32 1.15x to 1.2x in the caches, past them, where it keeps none,
# 0.8x to 1.0x. Not known with registers of 512 bits.
MOST_KEPT = 2**18 if REGISTER_BITS == 256 else 0


@inlined
def _ask_for(p, i):
    """Prefetches what four vectors take."""
    for k in range(0, 4 * width_of(p), LINE_BYTES // stored_size(p)):
        prefetch(p, i + k)


class References(NamedTuple):
    """Pointers to the fields of :class:`Reference`, a number a lane."""

    shift: object
    magic: object
    floor: object


class Notes(NamedTuple):
    """What is noted of the lanes of a block: pointers to a number a lane."""

    refs: References
    scales: Scales
    noted: object  # in rows of so many numbers
    row: int


@functools.cache
def _map(operation, width, kept):
    """Compiles the map of a block, from its values or from exponentials that have been kept."""
    value, maps_exponentials, wide = operation.map, operation.maps_exponentials and not kept, 4 * width

    @inlined
    def results(x, k, lanes, notes, temperature, rescaled):
        """The results of so many lanes (a literal) from lane ``k`` on."""
        noted, row, refs = notes.noted, notes.row, notes.refs
        scale = held(scale_for(notes.scales, k, lanes, temperature))
        if maps_exponentials:
            ref = Reference(
                numbers_for(refs.shift, k, lanes),
                0.0,
                numbers_for(refs.magic, k, lanes),
                numbers_for(refs.floor, k, lanes),
            )
            x = exp_relative(x, ref, scale)
            if rescaled:
                x = x * numbers_for(noted, FIRST * row + k, lanes)
        found = Settled(
            numbers_for(noted, SECOND * row + k, lanes),
            numbers_for(noted, PEAK * row + k, lanes),
            numbers_for(noted, LOG * row + k, lanes),
        )
        return value(x, found, scale)

    @inlined
    def map_stretch(p, count, lanes, target, notes, temperature, rescaled, past_cache, ahead):
        """The results of ``count`` values that lie side by side, the lanes' first, their second, and so on."""
        k = i = 0
        if past_cache:
            i = min(count, to_full_vectors(target))
            if i > 0:
                given = results(load_first(p, 0, i), 0, width, notes, temperature, rescaled)
                store_first(target, 0, i, given)
            k = i % lanes
        while i + wide <= count:
            given = results(load_wide(p, i, 4), k, wide, notes, temperature, rescaled)
            if past_cache:
                stream(target, i, given)
            else:
                store(target, i, given)
            _ask_for(p, i + ahead)
            i, k = i + wide, k + wide
            while k >= lanes:
                k -= lanes
        if i < count:
            given = results(load_first_wide(p, i, count - i, 4), k, wide, notes, temperature, rescaled)
            store_first(target, i, count - i, given)

    return map_stretch


@functools.cache
def deep_columns(operation, compute):
    """Compiles the sweep over vectors ``first`` to ``last`` of neighbouring lanes of an array (outer, length, inner)
    whose lanes lie side by side, as do their results. There is no mask."""
    settle, one_number, put_lane = operation.settle, operation.one_number, operation.put
    term, counts_ties = operation.largest_term, operation.counts_ties
    width = 64 // np.dtype(compute).itemsize
    settle_block, add_up = settling(operation, width), line_adder(operation, width)
    map_stretch, map_kept = _map(operation, width, False), _map(operation, width, True)
    keeps, always = operation.maps_exponentials and MOST_KEPT > 0, np.dtype(compute).itemsize == 8

    @inlined
    def refer(notes, lanes, temperature):
        """Notes what the exponentials of a block are relative to."""
        for k in range(0, lanes, width):
            top = load(notes.noted, TOP * notes.row + k)
            ref = reference(safe_top(top), scale_for(notes.scales, k, width, temperature))
            store(notes.refs.shift, k, ref.shift)
            store(notes.refs.magic, k, ref.magic)
            store(notes.refs.floor, k, ref.floor)

    @inlined
    def carry_on(notes, k, lane):
        """Notes of place ``k``, beyond the lanes, what is noted of a lane."""
        put(notes.refs.shift, k, number_at(notes.refs.shift, lane))
        put(notes.refs.magic, k, number_at(notes.refs.magic, lane))
        put(notes.refs.floor, k, number_at(notes.refs.floor, lane))
        for of in (FIRST, SECOND, PEAK, LOG):
            put(notes.noted, of * notes.row + k, number_at(notes.noted, of * notes.row + lane))
        put(notes.scales.steps_per_one, k, number_at(notes.scales.steps_per_one, lane))
        put(notes.scales.step_high, k, number_at(notes.scales.step_high, lane))
        put(notes.scales.step_low, k, number_at(notes.scales.step_low, lane))
        put(notes.scales.inverse, k, number_at(notes.scales.inverse, lane))

    @inlined
    def next_tile(x, top_line, begin, across):
        """How far away it is, from every value, in numbers."""
        later = place(x, begin // across, 0, begin % across * width)
        return (address_of(later, 0) - address_of(top_line, 0)) // x.itemsize

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        blocks = (length + BLOCK - 1) // BLOCK
        across = (inner + width - 1) // width
        vectors = min(MOST_VECTORS, across, last - first)
        per_tile = vectors * width
        # Vectors that begin at the start of a line of the result reach one beyond the tile's last.
        room = per_tile + 8 * width
        row = blocks * room
        numbers, sums = np.empty((NUMBERS, row), compute), np.empty((SUMS, row))
        noted, summed = start_of(numbers), start_of(sums)
        lanes_buffer = allocated(compute(0), 8 * room)
        ties = moved(lanes_buffer, 3 * room)
        refs = References(lanes_buffer, moved(lanes_buffer, room), moved(lanes_buffer, 2 * room))
        scales = scales_at(moved(lanes_buffer, 4 * room), room)
        slots, results, nothing = allocated(0.0, 16 * width * vectors), allocated(0.0, room), allocated(x, per_tile)
        for k in range(per_tile):
            put(nothing, k, -np.inf)
        lines_kept = (length + 4 * width - 1) // (4 * width) * (4 * width)
        kept = Kept(allocated(compute(0), min(MOST_KEPT, lines_kept * per_tile) if keeps else 0), 0)
        step, to_step = x.strides[1] // x.itemsize, out.strides[1] // out.itemsize
        begin = first
        while begin < last:
            o = begin // across
            j = (begin - o * across) * width
            lanes = min(inner - j, per_tile, (last - begin) * width)
            begin += (lanes + width - 1) // width
            if temperature is not None:
                for k in range(room):  # lanes that fill up the last vectors take the last one's
                    note_scale(scales, k, temperature_of(temperature, o, j + min(k, lanes - 1)))
            top_line, further = place(x, o, 0, j), step
            if one_number and length * lanes * x.itemsize <= SUMMED_BYTES:
                further = next_tile(x, top_line, begin, across)
            pitch = (lanes + width - 1) // width * width
            if not keeps or blocks > 1 or lines_kept * pitch > MOST_KEPT or (past_cache and not always):
                pitch = 0
            kept = Kept(kept.values, pitch)
            for b in range(blocks):
                start, tops = b * BLOCK, moved(noted, TOP * row + b * room)
                count = min(BLOCK, length - start)
                lines = Lines(place(x, o, start, j), step, nothing, lanes)
                largest_of_lines(lines, count, tops)
                refer(Notes(refs, scales, moved(noted, b * room), row), lanes, temperature)
                add_up(lines, count, tops, refs, scales, temperature, ties, slots, vectors, further, kept)
                for k in range(0, lanes, width):
                    top = load(tops, k)
                    if counts_ties and blocks == 1:
                        scale = scale_for(scales, k, width, temperature)
                        store(noted, UNIT * row + k, term(top, reference(safe_top(top), scale), scale))
                    store(noted, TIES * row + b * room + k, load(ties, k))
                    store_sums(summed, HIGH * row + b * room + k, row, top, load_total(slots, k // width))
            if blocks == 1:
                settle_block(lanes, noted, summed, row, results)
            else:
                for k in range(lanes):
                    scale = scale_of(compute(0), temperature_of(temperature, o, j + k))
                    put(results, k, settle(numbers, sums, k, room, blocks, scale, 1))
            if one_number:
                for k in range(lanes):
                    factor, peak = number_at(noted, SECOND * row + k), number_at(noted, PEAK * row + k)
                    log_sum = number_at(noted, LOG * row + k)
                    put_lane(out, o, j + k, number_at(results, k), factor, peak, log_sum)
            else:
                # Lines that follow each other, as their results do, are one stretch, whose vectors go beyond the lanes.
                flat = to_step == lanes == (pitch if pitch > 0 else step)
                ahead = 2 * step
                if length * lanes * x.itemsize <= CACHED_BYTES:
                    ahead = next_tile(x, top_line, begin, across)
                for b in range(blocks):
                    start, notes = b * BLOCK, Notes(refs, scales, moved(noted, b * room), row)
                    count = min(BLOCK, length - start)
                    p, target = moved(top_line, start * step), place(out, o, start, j)
                    if blocks > 1:
                        refer(notes, lanes, temperature)
                    if flat:
                        for k in range(lanes, lanes + 8 * width):
                            carry_on(notes, k, k - lanes)
                    stretches, many = (1, count * lanes) if flat else (count, lanes)
                    if keeps and pitch > 0:
                        e = kept.values
                        for _ in range(stretches):
                            map_kept(e, many, lanes, target, notes, temperature, False, past_cache, 0)
                            e, target = moved(e, pitch), moved(target, to_step)
                    else:
                        for _ in range(stretches):
                            map_stretch(p, many, lanes, target, notes, temperature, blocks > 1, past_cache, ahead)
                            p, target = moved(p, step), moved(target, to_step)
        if past_cache:
            fence()
        release(lanes_buffer)
        release(slots)
        release(results)
        release(nothing)
        release(kept.values)
        hold(numbers)
        hold(sums)

    return compiled(sweep, f"{operation.name}_deep", body=True)
