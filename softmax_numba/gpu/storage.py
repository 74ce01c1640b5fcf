"""How the four floats lie in memory, and how they get into registers and back.

A *word* is what a register holds as loaded: one float32 or float64, or two 16-bit floats in an integer. A 16-byte
vector is four (float64: two) words.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from softmax_numba.gpu import seam
from softmax_numba.gpu.seam import device


class Storage(NamedTuple):
    """One of the four floats, with the device functions that move it.

    ``load_word(address, step, index, count)`` is the word whose first value is ``index`` steps away, of values that lie
    ``step`` bytes apart; a place outside ``range(count)`` is not touched and counts as -inf. ``store_word`` writes one
    likewise. ``spread(words, w, values, k)`` puts a vector's words from ``w`` on as values from ``k`` on;
    ``gather(values, k, words, w)`` is its inverse. Vectors come from and go to arrays of words.
    """

    name: str
    itemsize: int
    kind: Any  # the type that computes
    word: Any
    per_word: int  # values a word
    words: int  # words a vector
    load: Callable  # one value
    store: Callable
    load_word: Callable
    store_word: Callable
    load_vector: Callable
    store_vector: Callable
    spread: Callable
    gather: Callable

    @property
    def per_vector(self) -> int:
        return 16 // self.itemsize


def _halves(name: str, unpack: Callable, pack: Callable, minus_infinity: int) -> Storage:
    nothing, vacant = np.float32(0), np.uint32(minus_infinity)
    load_bits, store_bits = seam.load_half, seam.store_half
    load_words, store_words = seam.load_wordx4, seam.store_wordx4
    upper, mask = np.uint32(16), np.uint32(0xFFFF)

    @device
    def load(address):
        return unpack(load_bits(address))[0]

    @device
    def store(address, value):
        store_bits(address, pack(value, nothing))

    @device
    def load_word(address, step, index, count):
        low, high = vacant, vacant
        if index >= 0 and index < count:
            low = load_bits(address + index * step)
        if index + 1 >= 0 and index + 1 < count:
            high = load_bits(address + (index + 1) * step)
        return np.uint32(low | np.uint32(high << upper))

    @device
    def store_word(address, step, index, count, word):
        if index >= 0 and index < count:
            store_bits(address + index * step, np.uint32(word & mask))
        if index + 1 >= 0 and index + 1 < count:
            store_bits(address + (index + 1) * step, np.uint32(word >> upper))

    @device
    def load_vector(address, words, w):
        words[w], words[w + 1], words[w + 2], words[w + 3] = load_words(address)

    @device
    def store_vector(address, words, w):
        store_words(address, (words[w], words[w + 1], words[w + 2], words[w + 3]))

    @device
    def spread(words, w, values, k):
        values[k], values[k + 1] = unpack(words[w])
        values[k + 2], values[k + 3] = unpack(words[w + 1])
        values[k + 4], values[k + 5] = unpack(words[w + 2])
        values[k + 6], values[k + 7] = unpack(words[w + 3])

    @device
    def gather(values, k, words, w):
        words[w] = pack(values[k], values[k + 1])
        words[w + 1] = pack(values[k + 2], values[k + 3])
        words[w + 2] = pack(values[k + 4], values[k + 5])
        words[w + 3] = pack(values[k + 6], values[k + 7])

    moves = (load, store, load_word, store_word, load_vector, store_vector, spread, gather)
    return Storage(name, 2, np.float32, np.uint32, 2, 4, *moves)


def _single_words(load: Callable, store: Callable, kind: Any) -> tuple[Callable, Callable]:
    vacant = kind(-np.inf)

    @device
    def load_word(address, step, index, count):
        found = vacant
        if index >= 0 and index < count:
            found = load(address + index * step)
        return found

    @device
    def store_word(address, step, index, count, word):
        if index >= 0 and index < count:
            store(address + index * step, word)

    return load_word, store_word


def _float32() -> Storage:
    load_words, store_words = seam.load_float32x4, seam.store_float32x4

    @device
    def load_vector(address, words, w):
        words[w], words[w + 1], words[w + 2], words[w + 3] = load_words(address)

    @device
    def store_vector(address, words, w):
        store_words(address, (words[w], words[w + 1], words[w + 2], words[w + 3]))

    @device
    def move(words, w, values, k):
        values[k], values[k + 1], values[k + 2], values[k + 3] = words[w], words[w + 1], words[w + 2], words[w + 3]

    load, store = seam.load_float32, seam.store_float32
    singles = _single_words(load, store, np.float32)
    moves = (load, store, *singles, load_vector, store_vector, move, move)
    return Storage("float32", 4, np.float32, np.float32, 1, 4, *moves)


def _float64() -> Storage:
    load_words, store_words = seam.load_float64x2, seam.store_float64x2

    @device
    def load_vector(address, words, w):
        words[w], words[w + 1] = load_words(address)

    @device
    def store_vector(address, words, w):
        store_words(address, (words[w], words[w + 1]))

    @device
    def move(words, w, values, k):
        values[k], values[k + 1] = words[w], words[w + 1]

    load, store = seam.load_float64, seam.store_float64
    singles = _single_words(load, store, np.float64)
    moves = (load, store, *singles, load_vector, store_vector, move, move)
    return Storage("float64", 8, np.float64, np.float64, 1, 2, *moves)


STORAGES = {
    "float16": _halves("float16", seam.halves, seam.of_halves, 0xFC00),
    "bfloat16": _halves("bfloat16", seam.bfloats, seam.of_bfloats, 0xFF80),
    "float32": _float32(),
    "float64": _float64(),
}
