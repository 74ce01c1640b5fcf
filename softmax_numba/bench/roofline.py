"""The lines that nobody can beat: moving a cell's bytes once, with as many threads, and doing nothing else.

A softmax has to read its input and write its output once; what a plain copy of those bytes takes is a bound
that holds for any implementation on this machine, in cache or out of it. ``logsumexp`` writes next to
nothing, so a plain read bounds it. Copies run with ordinary and with streaming stores: which is faster
depends on the size, and the faster one is the bound. A way back reads two arrays and writes one, and so does what
bounds it. Where the bytes lie in the cache, arithmetic is the bound: the bare exponential of every element.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, set_num_threads, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "COPY",
    "EXPONENTIAL",
    "MERGE",
    "READ",
    "STREAMING_COPY",
    "STREAMING_MERGE",
    "bounds",
    "exponential",
    "merges",
    "one_block",
]

Array = np.ndarray[Any, Any]

COPY, STREAMING_COPY, READ, EXPONENTIAL = "copy", "streaming copy", "read", "exponential"
MERGE, STREAMING_MERGE = "merge", "streaming merge"
# Bytes of one vector; LLVM splits it where the machine's registers are narrower.
_VECTOR = 64
# Below this, starting threads costs more than the copy.
_SERIAL_BYTES = 1 << 17

_BYTES = ir.VectorType(ir.IntType(64), _VECTOR // 8)


# --- vectors of bytes ---------------------------------------------------------------


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _BYTES.as_pointer())


@intrinsic
def _move(typing, target, source):  # type: ignore[no-untyped-def]
    """Copy one vector; any alignment."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value = builder.load(_pointer(builder, args[1]), align=1)
        builder.store(value, _pointer(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


@intrinsic
def _stream(typing, target, source):  # type: ignore[no-untyped-def]
    """Copy one vector past the cache; the target's address must be a multiple of the vector's size."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value = builder.load(_pointer(builder, args[1]), align=1)
        store = builder.store(value, _pointer(builder, args[0]), align=_VECTOR)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


@intrinsic
def _merge(typing, target, source, other):  # type: ignore[no-untyped-def]
    """The bitwise or of two vectors; any alignment."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value, with_it = (builder.load(_pointer(builder, address), align=1) for address in args[1:])
        builder.store(builder.or_(value, with_it), _pointer(builder, args[0]), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def _merge_streaming(typing, target, source, other):  # type: ignore[no-untyped-def]
    """The same past the cache; the target's address must be a multiple of the vector's size."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        value, with_it = (builder.load(_pointer(builder, address), align=1) for address in args[1:])
        store = builder.store(builder.or_(value, with_it), _pointer(builder, args[0]), align=_VECTOR)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


@intrinsic
def _fence(typing):  # type: ignore[no-untyped-def]
    """Streaming stores are not ordered with what tells other threads that the copy is done."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def _combined(typing, source, count):  # type: ignore[no-untyped-def]
    """The bitwise or of ``count`` >= 1 vectors of 8 int64, kept in four accumulators, as one int64."""

    def emit(context, builder, sig, args):  # type: ignore[no-untyped-def]
        source, count = args
        word = ir.IntType(64)
        streams = 4
        sums = [cgutils.alloca_once_value(builder, ir.Constant(_BYTES, [0] * _BYTES.count)) for _ in range(streams)]

        def take(index: Any, into: Any) -> None:
            address = builder.add(source, builder.mul(index, ir.Constant(word, _VECTOR)))
            value = builder.load(_pointer(builder, address), align=1)
            builder.store(builder.or_(builder.load(into), value), into)

        quarter = builder.udiv(count, ir.Constant(word, streams))
        with cgutils.for_range(builder, quarter) as loop:
            first = builder.mul(loop.index, ir.Constant(word, streams))
            for k, into in enumerate(sums):
                take(builder.add(first, ir.Constant(word, k)), into)
        done = builder.mul(quarter, ir.Constant(word, streams))
        with cgutils.for_range(builder, builder.sub(count, done)) as loop:
            take(builder.add(done, loop.index), sums[0])
        total = builder.load(sums[0])
        for into in sums[1:]:
            total = builder.or_(total, builder.load(into))
        result = ir.Constant(word, 0)
        for k in range(_BYTES.count):
            result = builder.or_(result, builder.extract_element(total, ir.Constant(ir.IntType(32), k)))
        return result

    return types.int64(types.intp, types.intp), emit


# --- one thread's share, and all of them --------------------------------------------


@njit(nogil=True)
def _copy_range(target, source, first, last, streaming):  # type: ignore[no-untyped-def]
    """Copy the vectors first..last, counted from the first aligned place of the target."""
    if streaming:
        for k in range(first, last):
            _stream(target + k * _VECTOR, source + k * _VECTOR)
        _fence()
    else:
        for k in range(first, last):
            _move(target + k * _VECTOR, source + k * _VECTOR)


@njit(nogil=True)
def _copy_serial(target, source, vectors, streaming, threads):  # type: ignore[no-untyped-def]
    _copy_range(target, source, 0, vectors, streaming)


@njit(parallel=True, nogil=True)
def _copy_parallel(target, source, vectors, streaming, threads):  # type: ignore[no-untyped-def]
    for k in prange(threads):
        _copy_range(target, source, vectors * k // threads, vectors * (k + 1) // threads, streaming)


@njit(nogil=True)
def _merge_range(target, source, other, first, last, streaming):  # type: ignore[no-untyped-def]
    """The same of two sources."""
    if streaming:
        for k in range(first, last):
            _merge_streaming(target + k * _VECTOR, source + k * _VECTOR, other + k * _VECTOR)
        _fence()
    else:
        for k in range(first, last):
            _merge(target + k * _VECTOR, source + k * _VECTOR, other + k * _VECTOR)


@njit(nogil=True)
def _merge_serial(target, source, other, vectors, streaming, threads):  # type: ignore[no-untyped-def]
    _merge_range(target, source, other, 0, vectors, streaming)


@njit(parallel=True, nogil=True)
def _merge_parallel(target, source, other, vectors, streaming, threads):  # type: ignore[no-untyped-def]
    for k in prange(threads):
        _merge_range(target, source, other, vectors * k // threads, vectors * (k + 1) // threads, streaming)


@njit(nogil=True)
def _read_serial(source, vectors, seen, threads):  # type: ignore[no-untyped-def]
    seen[0] = _combined(source, vectors)


@njit(parallel=True, nogil=True)
def _read_parallel(source, vectors, seen, threads):  # type: ignore[no-untyped-def]
    for k in prange(threads):
        first, last = vectors * k // threads, vectors * (k + 1) // threads
        # A cache line each: neighbours would pass one line to and fro.
        seen[8 * k] = _combined(source + first * _VECTOR, last - first)


def _whole_vectors(target: int, nbytes: int) -> tuple[int, int]:
    """Bytes up to the first aligned place of the target, and whole vectors from there."""
    head = -target % _VECTOR
    return head, max(0, nbytes - head) // _VECTOR


def bounds(x: Array, out: Array, threads: int) -> dict[str, Callable[[], Any]]:
    """Calls that move the bytes of an operation from ``x`` to ``out`` and compute nothing.

    Parameters
    ----------
    x, out : ndarray
        The operation's own arrays, of any layout that covers one block of memory: the bytes are moved in the
        order in which they lie there. ``out`` is overwritten.
    threads : int
        How many threads to use; small arrays are moved by one.

    Returns
    -------
    dict of str to callable
        ``copy`` and ``streaming copy`` where out is as large as x, ``read`` where it is smaller. Fewer than
        128 bytes at the ends may be left out, for the sake of aligned vectors.

    Examples
    --------
    >>> x = np.ones((1000, 1000), np.float32)
    >>> sorted(bounds(x, np.empty_like(x), threads=1))
    ['copy', 'streaming copy']
    >>> sorted(bounds(x, np.empty(1000, np.float32), threads=1))
    ['read']
    """
    set_num_threads(threads)
    serial = threads == 1 or x.nbytes < _SERIAL_BYTES
    if out.nbytes < x.nbytes:
        source, vectors = _first_byte(x), x.nbytes // _VECTOR
        seen = np.zeros(8 * threads, np.int64)
        read = _read_serial if serial else _read_parallel
        return {READ: lambda: read(source, vectors, seen, threads)} if vectors else {}
    target = _first_byte(out)
    # A result wider than its input (integers in, floats out) reads what there is and writes the rest again.
    head, vectors = _whole_vectors(target, x.nbytes)
    source = _first_byte(x) + head
    target += head
    copy = _copy_serial if serial else _copy_parallel
    return {
        COPY: lambda: copy(target, source, vectors, False, threads),
        STREAMING_COPY: lambda: copy(target, source, vectors, True, threads),
    }


def merges(x: Array, other: Array, out: Array, threads: int) -> dict[str, Callable[[], Any]]:
    """Calls that read the bytes of ``x`` and ``other`` once and write those of ``out``, of the same size.

    Parameters
    ----------
    x, other, out : ndarray
        As for :func:`bounds`; ``out`` gets the bitwise or of both.
    threads : int

    Returns
    -------
    dict of str to callable
        ``merge`` and ``streaming merge``; nothing where the arrays differ in size.

    Examples
    --------
    >>> x = np.ones((1000, 1000), np.float32)
    >>> sorted(merges(x, x, np.empty_like(x), threads=1))
    ['merge', 'streaming merge']
    """
    if not x.nbytes == other.nbytes == out.nbytes:
        return {}
    set_num_threads(threads)
    target = _first_byte(out)
    head, vectors = _whole_vectors(target, x.nbytes)
    target, source, with_it = (_first_byte(array) + head for array in (out, x, other))
    merge = _merge_serial if threads == 1 or x.nbytes < _SERIAL_BYTES else _merge_parallel
    return {
        MERGE: lambda: merge(target, source, with_it, vectors, False, threads),
        STREAMING_MERGE: lambda: merge(target, source, with_it, vectors, True, threads),
    }


def one_block(array: Array) -> bool:
    """Whether the array covers one block of memory, so that a copy of its bytes says something."""
    low, high = np.lib.array_utils.byte_bounds(array)
    return high - low == array.nbytes and min(array.strides, default=0) >= 0


def _first_byte(array: Array) -> int:
    """The lowest address, whatever the signs of the strides."""
    return int(np.lib.array_utils.byte_bounds(array)[0])


# --- the bare exponential -----------------------------------------------------------


@functools.cache
def _exponentials(writes: bool) -> Callable[..., None]:
    """``run(x, out, numbers, threads)`` over 1-D arrays as kernels see them."""
    from softmax_numba.cpu.arrays import start_of
    from softmax_numba.cpu.exponential import exp_relative, held, reference, scale_of
    from softmax_numba.cpu.inlining import inlined
    from softmax_numba.cpu.memory import moved, number_like, put, store, width_of
    from softmax_numba.cpu.simd import largest_of
    from softmax_numba.cpu.wide import filled_wide, load_wide

    @inlined
    def share(x, out, numbers, k, first, last):  # type: ignore[no-untyped-def]
        p, q = start_of(x), start_of(out)
        zero, step = number_like(p), 4 * width_of(p)
        scale = held(scale_of(zero, None))
        ref = reference(zero, scale)
        total = filled_wide(p, 0.0, 4)
        for i in range(first * step, last * step, step):
            e = exp_relative(load_wide(p, i, 4), ref, scale)
            if writes:
                store(q, i, e)
            else:
                total = total + e
        if not writes:
            put(moved(start_of(numbers), 8 * k), 0, largest_of(total))

    @njit(parallel=True, nogil=True)
    def run(x, out, numbers, threads):  # type: ignore[no-untyped-def]
        steps = x.size // (4 * width_of(start_of(x)))
        for k in prange(threads):
            share(x, out, numbers, k, steps * k // threads, steps * (k + 1) // threads)

    @njit(nogil=True)
    def alone(x, out, numbers, threads):  # type: ignore[no-untyped-def]
        share(x, out, numbers, 0, 0, x.size // (4 * width_of(start_of(x))))

    return lambda x, out, numbers, threads: (alone if threads == 1 else run)(x, out, numbers, threads)


def exponential(x: Array, out: Array, threads: int) -> dict[str, Callable[[], Any]]:
    """A call that computes the exponential of every element of ``x`` and nothing else.

    Parameters
    ----------
    x, out : ndarray
        The operation's own arrays. Where out is as large as x, it gets the exponentials; where it is smaller, they
        are only added up.
    threads : int

    Returns
    -------
    dict of str to callable
        ``exponential``; nothing where an array's elements do not lie side by side, or are no floats. Fewer than 64
        elements at the end may be left out.

    Examples
    --------
    >>> x = np.ones((100, 100), np.float32)
    >>> list(exponential(x, np.empty_like(x), threads=1))
    ['exponential']
    """
    from softmax_numba.dtypes import FLOATS, for_kernel, name_of

    name = name_of(x.dtype)
    if name not in FLOATS or not x.flags.c_contiguous or not out.flags.c_contiguous or x.dtype != out.dtype:
        return {}
    set_num_threads(threads)
    used = 1 if x.nbytes < _SERIAL_BYTES else threads
    source, target = (for_kernel(array, name).reshape(-1) for array in (x, out))
    run, numbers = _exponentials(out.size == x.size), np.empty(8 * threads, np.float64)
    return {EXPONENTIAL: lambda: run(source, target, numbers, used)}
