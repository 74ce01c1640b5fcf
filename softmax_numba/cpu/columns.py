"""The sweep along columns: the lanes lie side by side, and a vector holds one value of each of its lanes.

A tile of neighbouring lanes is copied into a cache-resident buffer as it is read, so that memory is walked in whole
cache lines and only once; what the copy costs, the second and third look at each value save. The sums follow the order
of lane.py slot by slot, so that a column has the bits it would have as a row.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from softmax_numba.cpu.access import across, hide, place, takes_part, temperature_of
from softmax_numba.cpu.exponential import Scale, exp_relative, reference, scale_of
from softmax_numba.cpu.lane import (
    BLOCK,
    FIRST,
    HIGH,
    LOG,
    LOW,
    NUMBERS,
    PEAK,
    SECOND,
    SUMS,
    TIES,
    TOP,
    Settled,
    as_total,
    plus,
    plus_quad,
    safe_top,
)
from softmax_numba.cpu.memory import (
    aligned,
    filled,
    hold,
    load,
    load_first,
    load_pair,
    moved,
    number_like,
    pointer_to,
    put,
    store,
    store_first,
    store_pair,
    width_of,
)
from softmax_numba.cpu.simd import INLINED, compiled, inlined, larger

# Vectors side by side in a tile: enough to use whole cache lines of neighbours, few enough for the tile to fit L2.
TILE_BYTES, MOST_VECTORS = 2**18, 8
_SPARE = 64


@inlined
def vectors_in_tile(length, inner, width):
    """How many vectors of neighbouring lanes a tile has."""
    fitting = TILE_BYTES // (64 * min(length, BLOCK) + 1)
    return max(1, min(MOST_VECTORS, fitting, (inner + width - 1) // width))


def tiles_of(length: int, inner: int, itemsize: int) -> int:
    """Into how many tiles ``inner`` lanes of ``length`` values are cut; for the caller of a sweep."""
    width = 8 if itemsize == 8 else 16
    per_tile = width * vectors_in_tile.py_func(length, inner, width)
    return -(-inner // per_tile)


class Tile(NamedTuple):
    """Where a tile is, and the buffers that it passes through, all pointers and arrays."""

    o: int
    j: int
    lanes: int
    values: object  # a block of every vector of lanes: vector by vector, each as long as the block
    tops: object  # the lanes' maxima in that block
    scales: object  # the forms of the lanes' temperatures, a row a form
    stage: object  # one line of values in their stored type


@inlined
def read_block(x, mask, tile, start, count):
    """Copies a block of every lane into the tile and notes the maxima."""
    width = width_of(tile.values)
    for k in range(0, tile.lanes, width):
        store(tile.tops, k, filled(tile.values, -np.inf))
    for i in range(count):
        p = across(x, mask, tile.o, start + i, tile.j, tile.lanes, tile.stage)
        for k in range(0, tile.lanes, width):
            x_k = load(p, k) if k + width <= tile.lanes else load_first(p, k, tile.lanes - k)
            store(tile.values, k * count + i * width, x_k)
            store(tile.tops, k, larger(load(tile.tops, k), x_k))


def column_reduction(operation):
    """Compiles the reduction of one vector of lanes, ``count`` values each."""
    term, keeps = operation.term, operation.maps_exponentials

    @inlined
    def visit(p, i, count, ref, scale, top, ties):
        if i >= count:
            return filled(p, 0.0), ties
        k = i * width_of(p)
        x = load(p, k)
        e = exp_relative(x, ref, scale)
        if keeps:
            store(p, k, e)
        return term(e, x, top, ties)

    @inlined
    def reduce_vector(p, count, top, scale, slots):
        """The lanes' ties and their running sums; ``slots`` has room for a running sum a slot."""
        width = width_of(p)
        ref = reference(safe_top(top), scale)
        ties = zero = filled(p, 0.0)
        filled_slots = min(count, width)
        for s in range(filled_slots):
            total = as_total(zero)
            i = s
            while i < count:
                e0, ties = visit(p, i, count, ref, scale, top, ties)
                e1, ties = visit(p, i + width, count, ref, scale, top, ties)
                e2, ties = visit(p, i + 2 * width, count, ref, scale, top, ties)
                e3, ties = visit(p, i + 3 * width, count, ref, scale, top, ties)
                total = plus_quad(total, e0, e1, e2, e3)
                i += 4 * width
            store_pair(slots, s, total)
        step = width // 2
        while step > 0:
            for s in range(min(step, filled_slots - step)):
                a, b = load_pair(slots, s, total), load_pair(slots, s + step, total)
                store_pair(slots, s, plus(zero, a, b))
            filled_slots = min(filled_slots, step)
            step //= 2
        return ties, load_pair(slots, 0, as_total(zero))

    return reduce_vector


def scale_at(tile, k, temperature):
    """The :class:`Scale` of the vector of lanes at ``k``: numbers without a temperature, vectors with one."""
    raise NotImplementedError("only inside compiled code")


@overload(scale_at, jit_options=INLINED)
def _scale_at(tile, k, temperature):
    if temperature == types.none:
        return lambda tile, k, temperature: scale_of(number_like(tile.values), None)

    def tempered(tile, k, temperature):
        row = MOST_VECTORS * width_of(tile.values)
        at = moved(tile.scales, k)
        return Scale(load(at, 0), load(at, row), load(at, 2 * row), load(at, 3 * row), 1.0)

    return tempered


def note_scales(scales, tile, temperature):
    """Fills the tile's ``scales`` (an array) from the lanes' temperatures."""
    raise NotImplementedError("only inside compiled code")


@overload(note_scales, jit_options=INLINED)
def _note_scales(scales, tile, temperature):
    if temperature == types.none:
        return lambda scales, tile, temperature: None

    def note(scales, tile, temperature):
        for k in range(scales.shape[1]):
            # Lanes that fill up the last vector take the last one's.
            s = scale_of(scales[0, 0], temperature[tile.o, tile.j + min(k, tile.lanes - 1)])
            scales[0, k], scales[1, k], scales[2, k], scales[3, k] = (
                s.per_octave,
                s.octave_high,
                s.octave_low,
                s.inverse,
            )

    return note


def note_total(like, total, sums, place):
    """The lanes' sums from ``place`` on: float32's are a pair of halves, float64's a sum and its error."""
    raise NotImplementedError("only inside compiled code")


@overload(note_total, jit_options=INLINED)
def _note_total(like, total, sums, place):
    wide = like.element == types.float32

    def note(like, total, sums, place):
        base = pointer_to(sums.ctypes.data, sums)
        row = sums.shape[1]
        store(base, HIGH * row + place, total[0])
        if wide:
            store(base, HIGH * row + place + 8, total[1])
            store(base, LOW * row + place, total[0] - total[0])
            store(base, LOW * row + place + 8, total[0] - total[0])
        else:
            store(base, LOW * row + place, total[1])

    return note


def leave_out(mask, tile, numbers, step, results):
    """Settles lanes of which the mask leaves nothing."""
    raise NotImplementedError("only inside compiled code")


@overload(leave_out, jit_options=INLINED)
def _leave_out(mask, tile, numbers, step, results):
    if mask == types.none:
        return lambda mask, tile, numbers, step, results: None

    def leave_out_masked(mask, tile, numbers, step, results):
        for k in range(tile.lanes):
            if takes_part(mask, tile.o, tile.j + k) == 0:
                results[k] = -np.inf
                for b in range(k, numbers.shape[1], step):
                    numbers[FIRST, b] = numbers[SECOND, b] = numbers[PEAK, b] = numbers[LOG, b] = 0.0

    return leave_out_masked


def columns(operation, compute):
    """Compiles the sweep over tiles ``first`` to ``last`` of a (outer, length, inner) array."""
    settle, settle_vector = operation.settle, operation.settle_vector
    one_number, hidden = operation.one_number, operation.hidden
    value, maps_exponentials = operation.map, operation.maps_exponentials
    reduce_vector = column_reduction(operation)
    width = 64 // np.dtype(compute).itemsize
    most_lanes = MOST_VECTORS * width

    @inlined
    def note_block(tile, count, temperature, slots, numbers, sums, first):
        """Notes maximum and sums of the block's lanes from place ``first`` on."""
        noted, row = pointer_to(numbers.ctypes.data, numbers), numbers.shape[1]
        for k in range(0, tile.lanes, width):
            top, scale = load(tile.tops, k), scale_at(tile, k, temperature)
            ties, total = reduce_vector(moved(tile.values, k * count), count, top, scale, slots)
            store(noted, TOP * row + first + k, top)
            store(noted, TIES * row + first + k, ties)
            note_total(top, total, sums, first + k)

    @inlined
    def settle_block(tile, count, temperature, slots, numbers, results):
        """Settles lanes of a single block, a vector of them at once."""
        noted, row = pointer_to(numbers.ctypes.data, numbers), numbers.shape[1]
        settled_results = pointer_to(results.ctypes.data, results)
        for k in range(0, tile.lanes, width):
            top, scale = load(tile.tops, k), scale_at(tile, k, temperature)
            ties, total = reduce_vector(moved(tile.values, k * count), count, top, scale, slots)
            second, peak, log_sum, result = settle_vector(top, ties, total, scale)
            store(noted, FIRST * row + k, filled(noted, 1.0))
            store(noted, SECOND * row + k, second)
            store(noted, PEAK * row + k, peak)
            store(noted, LOG * row + k, log_sum)
            store(settled_results, k, result[0])
            store(settled_results, k + width - 8, result[1])

    @inlined
    def map_block(tile, start, count, temperature, again, numbers, first, out):
        """The block's results; its exponentials are computed ``again`` if the tile holds values."""
        noted = pointer_to(numbers.ctypes.data, numbers)
        row = numbers.shape[1]
        direct = out.strides[2] == out.itemsize
        for i in range(count):
            target = place(out, tile.o, start + i, tile.j) if direct else pointer_to(tile.stage.ctypes.data, tile.stage)
            for k in range(0, tile.lanes, width):
                scale, at = scale_at(tile, k, temperature), moved(noted, first + k)
                v = load(tile.values, k * count + i * width)
                if maps_exponentials and again:
                    v = exp_relative(v, reference(safe_top(load(at, TOP * row)), scale), scale)
                found = Settled(
                    load(at, FIRST * row), load(at, SECOND * row), load(at, PEAK * row), load(at, LOG * row)
                )
                if maps_exponentials:
                    v = v * found.first
                v = value(v, found, scale)
                if k + width <= tile.lanes:
                    store(target, k, v)
                else:
                    store_first(target, k, tile.lanes - k, v)
            if not direct:
                for k in range(tile.lanes):
                    out[tile.o, start + i, tile.j + k] = tile.stage[k]

    def sweep(x, mask, temperature, out, first, last, past_cache):
        length, inner = x.shape[1], x.shape[2]
        blocks = (length + BLOCK - 1) // BLOCK
        per_tile = width * vectors_in_tile(length, inner, width)
        tiles = (inner + per_tile - 1) // per_tile
        held = np.empty(per_tile * min(length, BLOCK) + most_lanes + 2 * _SPARE, compute)
        slots = np.empty(2 * 8 * width + _SPARE)
        scales = np.empty((4, most_lanes), compute)
        stage = np.empty(most_lanes + _SPARE, x.dtype)
        numbers, sums = np.zeros((NUMBERS, blocks * per_tile), compute), np.empty((SUMS, blocks * per_tile))
        results = np.empty(most_lanes)
        tops = aligned(held)
        for t in range(first, last):
            j = (t % tiles) * per_tile
            lanes = min(per_tile, inner - j)
            tile = Tile(
                t // tiles, j, lanes, moved(tops, most_lanes), tops, pointer_to(scales.ctypes.data, scales), stage
            )
            note_scales(scales, tile, temperature)
            if blocks == 1:
                read_block(x, mask, tile, 0, length)
                settle_block(tile, length, temperature, aligned(slots), numbers, results)
            else:
                for b in range(blocks):
                    count = min(BLOCK, length - b * BLOCK)
                    read_block(x, mask, tile, b * BLOCK, count)
                    note_block(tile, count, temperature, aligned(slots), numbers, sums, b * per_tile)
                for k in range(lanes):
                    scale = scale_of(compute(0), temperature_of(temperature, tile.o, j + k))
                    results[k] = settle(numbers, sums, k, per_tile, blocks, scale, 1)
            leave_out(mask, tile, numbers, per_tile, results)
            if one_number:
                for k in range(lanes):
                    put(place(out, tile.o, 0, j + k), 0, results[k])
            if not one_number:
                for b in range(blocks):
                    count = min(BLOCK, length - b * BLOCK)
                    if blocks > 1:
                        read_block(x, mask, tile, b * BLOCK, count)
                    map_block(tile, b * BLOCK, count, temperature, blocks > 1, numbers, b * per_tile, out)
                for k in range(lanes):
                    hide(mask, out, tile.o, j + k, results[k], hidden)
        hold(held)
        hold(slots)
        hold(scales)
        hold(numbers)

    return compiled(sweep, f"{operation.name}_columns")
