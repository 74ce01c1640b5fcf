"""Tiles: what the threads of a warp hold of a lane at a time, in registers, and how it gets there and back.

A tile is ``vectors`` 16-byte vectors a thread. Value c of vector j of thread t is value ``(j * threads + t) * V + c``
of the tile, V values a vector: where a value is held depends on its place in the lane and on nothing else, so that sums
have the same bits wherever the lane lies. The three ways into memory:

    vectors    the lane begins at a multiple of 16 bytes: a thread's vectors are memory's
    realigned  it does not, as in every other row of an odd length: aligned vectors are loaded all the same and put
               right by shuffles between neighbouring threads, a word at a time
    elements   its values lie apart: one by one

A vector that sticks out of the lane, at either end, is accessed one by one: no byte beside the lane is touched.
"""

import functools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from softmax_numba.gpu import seam
from softmax_numba.gpu.seam import device
from softmax_numba.gpu.storage import STORAGES

Access = Literal["vectors", "realigned", "elements"]


class Tile(NamedTuple):
    """Device functions that fill ``words`` from memory, and the reverse; the values from words, and the reverse.

    ``words`` has place for a vector more than the tile: the one that straddles its end when realigned.
    """

    read: Callable
    write: Callable
    spread: Callable
    gather: Callable
    mask: Callable
    values: int
    words: int


@functools.cache
def tile(storage: str, vectors: int, threads: int, access: Access) -> Tile:
    """The tile of ``vectors`` vectors in each of ``threads`` threads."""
    how = STORAGES[storage]
    size, width, w, per_word = how.itemsize, how.per_vector, how.words, how.per_word
    load_word, store_word, load_vector, store_vector = how.load_word, how.store_word, how.load_vector, how.store_vector
    spread_vector, gather_vector = how.spread, how.gather
    load_byte, first, leap = seam.load_byte, np.int64(0), (threads - 1) * width

    @device
    def spread(words, values):
        for j in range(vectors):
            spread_vector(words, j * w, values, j * width)

    @device
    def gather(values, words):
        for j in range(vectors):
            gather_vector(values, j * width, words, j * w)

    @device
    def mask(address, step, count, slot):
        """One bit a value: whether it takes part."""
        kept = np.uint32(0)
        for j in range(vectors):
            for c in range(width):
                index = (j * threads + slot) * width + c
                if index < count and load_byte(address + index * step) != 0:
                    kept = np.uint32(kept | np.uint32(np.uint32(1) << np.uint32(j * width + c)))
        return kept

    # Elements are reached step by step: of products the compiler would keep a table in registers, for the loop around.

    @device
    def read_elements(words, address, step, count, slot):
        place, left = address + slot * width * step, count - slot * width
        for j in range(vectors):
            for i in range(w):
                words[j * w + i] = load_word(place, step, first, left)
                place, left = place + per_word * step, left - per_word
            place, left = place + leap * step, left - leap

    @device
    def write_elements(words, address, step, count, slot):
        place, left = address + slot * width * step, count - slot * width
        for j in range(vectors):
            for i in range(w):
                store_word(place, step, first, left, words[j * w + i])
                place, left = place + per_word * step, left - per_word
            place, left = place + leap * step, left - leap

    @device
    def read_vector(words, j, address, index, count):
        """The vector whose first value is ``index``; perhaps beyond an end of the tile."""
        if index >= 0 and index + width <= count:
            load_vector(address + index * size, words, j * w)
        else:
            for i in range(w):
                words[j * w + i] = load_word(address, size, index + i * per_word, count)

    @device
    def write_vector(words, j, address, index, count):
        if index >= 0 and index + width <= count:
            store_vector(address + index * size, words, j * w)
        else:
            for i in range(w):
                store_word(address, size, index + i * per_word, count, words[j * w + i])

    @device
    def read_vectors(words, address, step, count, slot):
        if count >= vectors * threads * width:  # no branch between the loads, so that all are under way at once
            for j in range(vectors):
                load_vector(address + (j * threads + slot) * 16, words, j * w)
        else:
            for j in range(vectors):
                read_vector(words, j, address, (j * threads + slot) * width, count)

    @device
    def write_vectors(words, address, step, count, slot):
        for j in range(vectors):
            write_vector(words, j, address, (j * threads + slot) * width, count)

    if access == "elements":
        return Tile(read_elements, write_elements, spread, gather, mask, vectors * width, (vectors + 1) * w)
    if access == "vectors":
        return Tile(read_vectors, write_vectors, spread, gather, mask, vectors * width, (vectors + 1) * w)
    forwards, backwards = _shifts(vectors, w, per_word)
    straddling = vectors

    @device
    def read_realigned(words, address, step, count, slot):
        ahead = (address % 16) // size
        for j in range(vectors):
            read_vector(words, j, address, (j * threads + slot) * width - ahead, count)
        if slot == 0:
            read_vector(words, straddling, address, vectors * threads * width - ahead, count)
        forwards(words, ahead, slot)

    @device
    def write_realigned(words, address, step, count, slot):
        ahead = (address % 16) // size
        backwards(words, ahead, slot)
        for j in range(vectors):
            write_vector(words, j, address, (j * threads + slot) * width - ahead, count)
        if slot == 0:
            write_vector(words, straddling, address, vectors * threads * width - ahead, count)

    return Tile(read_realigned, write_realigned, spread, gather, mask, vectors * width, (vectors + 1) * w)


def _shifts(vectors: int, w: int, per_word: int) -> tuple[Callable, Callable]:
    """Moves of a warp's words by ``ahead`` values towards the beginning, and back; thread 0 has the vector at the end.

    Every thread turns the words of each vector in a circle, so that those it needs stand where its neighbour has its
    own, and exchanges them; half a word more where two values make one. No exchange is under a condition: where the
    assembler cannot see that a warp's threads agree, it prepares for each to come alone, for sm_80 by a call that
    costs two dozen registers.
    """
    half = per_word - 1
    from_thread = seam.from_thread if per_word == 1 else seam.word_from_thread

    @device
    def from_next(words, j, i, slot):
        """Word i of the vector after this thread's vector j."""
        given = words[j * w + i]
        if slot == 0:
            given = words[(j + 1) * w + i]
        return from_thread(given, (slot + 1) & 31)

    @device
    def from_previous(words, j, i, slot):
        """Word i of the vector before this thread's vector j; anything before the first."""
        given = words[j * w + i]
        if slot == 31 and j > 0:
            given = words[(j - 1) * w + i]
        return from_thread(given, (slot + 31) & 31)

    @device
    def turn(words, j, by):
        """Turns the words of vector j by so many to the left."""
        k = j * w
        if w == 2:
            if by & 1:
                words[k], words[k + 1] = words[k + 1], words[k]
        else:
            a, b, c, d = words[k], words[k + 1], words[k + 2], words[k + 3]
            if by & 1:
                a, b, c, d = b, c, d, a
            if by & 2:
                a, b, c, d = c, d, a, b
            words[k], words[k + 1], words[k + 2], words[k + 3] = a, b, c, d

    @device
    def later(word, following, ahead):
        """The word that begins half a word later if ``ahead`` is odd, without a branch."""
        by = np.uint32((ahead & 1) << 4)
        return np.uint32(word >> by) | np.uint32(np.uint32(following << np.uint32(1)) << np.uint32(np.uint32(31) - by))

    @device
    def earlier(word, previous, ahead):
        """The reverse."""
        by = np.uint32((ahead & 1) << 4)
        return np.uint32(word << by) | np.uint32(np.uint32(previous >> np.uint32(1)) >> np.uint32(np.uint32(31) - by))

    @device
    def forwards(words, ahead, slot):
        by = ahead >> half
        for j in range(vectors + 1):
            turn(words, j, by)
        for j in range(vectors):
            following = words[j * w]
            if half:
                following = from_next(words, j, 0, slot)
            for i in range(1, w):
                beyond = from_next(words, j, i, slot)
                if i + by >= w:
                    words[j * w + i] = beyond
            if half:
                for i in range(w - 1):
                    words[j * w + i] = later(words[j * w + i], words[j * w + i + 1], ahead)
                words[j * w + w - 1] = later(words[j * w + w - 1], following, ahead)

    @device
    def backwards(words, ahead, slot):
        by = ahead >> half
        for j in range(vectors + 1):
            turn(words, j, w - by)
        for n in range(vectors + 1):
            j = vectors - n
            previous = words[j * w]
            if half:
                previous = from_previous(words, j, w - 1, slot)
            for i in range(w - 1):
                before = from_previous(words, j, i, slot)
                if i < by:
                    words[j * w + i] = before
            if half:
                for i in range(w - 1):
                    m = j * w + w - 1 - i
                    words[m] = earlier(words[m], words[m - 1], ahead)
                words[j * w] = earlier(words[j * w], previous, ahead)

    return forwards, backwards
