"""The losses of many lanes: each thread normalises as many lanes as its cache holds, and goes through them again.

So the values are read from memory once, and nothing of their size is written but the gradient.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import prange, types

from softmax_numba import pages
from softmax_numba.cpu import crew, sweeps, threads
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.exponential import exp_relative, reference, scale_of
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import call_body, call_loss_body, compiled
from softmax_numba.cpu.lane import NORMALISER, OF_FACTOR, OF_LOG, OF_PEAK, PARTS
from softmax_numba.cpu.loss import Kind
from softmax_numba.cpu.loss_columns import loss_columns
from softmax_numba.cpu.loss_focal import loss_focal
from softmax_numba.cpu.loss_held import loss_held
from softmax_numba.cpu.loss_picked import loss_certain, loss_picked
from softmax_numba.cpu.loss_rows import loss_rows
from softmax_numba.cpu.loss_turned import loss_turned
from softmax_numba.cpu.plan import PARALLEL_FROM, Plan, is_past_cache, plan, work_of
from softmax_numba.cpu.settling import safe_top
from softmax_numba.cpu.short import lanes_in_short_tile, short_tiles_of
from softmax_numba.cpu.simd import COMPUTES_IN
from softmax_numba.cpu.sweeps import Arrays, body_of
from softmax_numba.cpu.threads import set_share_size, share_size
from softmax_numba.cpu.tiles import vectors_across
from softmax_numba.dtypes import STORED, dtype_of, storage_of

# So many bytes of values wait in a thread's cache until their losses are taken.
CHUNK_BYTES = 2**18
# Of many rows, a multiple of what is settled at once: one more takes as long as several.
ROWS_TOGETHER = 16
# Forms of kernels that find out themselves what normalises a lane, or need not know.
NORMALISED = ("held", "turned", "certain")
# Those for gradients of index targets along rows that lie end to end, by the sweep that normalises them.
FOR_ROWS = {"rows": "held", "short": "turned", "tiny": "turned"}
# What stands in the place of a dtype of probabilities: targets that are indices, or none at all.
INDICES, NOTHING = "indices", "nothing"
_NO_GRADIENT = {name: np.empty((0, 0, 0), dtype) for name, dtype in STORED.items()}


class Kernel(NamedTuple):
    """Which body goes through the lanes again."""

    form: str  # "rows", "held", "turned", "columns", "focal", "picked" or "certain"
    storage: str
    targets: str  # the dtype of probabilities, or one of the above
    dense: bool  # there is something for every class
    gradient: bool

    @property
    def types(self) -> tuple[types.Type, ...]:
        storage = storage_of(self.storage)
        compute = COMPUTES_IN[storage]
        targets = types.Array(types.int64, 2, "A", readonly=True)
        if self.targets not in (INDICES, NOTHING):
            targets = types.Array(storage_of(self.targets), 3, "A", readonly=True)
        of_class = types.Array(compute, 1, "C")
        losses, options = types.Array(types.float64, 2, "A"), types.Array(types.float64, 1, "C")
        parts, out = types.Array(compute, 3, "A"), types.Array(storage, 3, "A")
        values = types.Array(storage, 3, "A", readonly=True)
        return values, targets, of_class, of_class, parts, losses, out, options


@once
def body_of_losses(kernel: Kernel) -> int:
    """The address of a body's machine code."""
    compute = np.dtype(str(COMPUTES_IN[storage_of(kernel.storage)])).type
    kind = Kind(kernel.targets not in (INDICES, NOTHING), kernel.dense, kernel.targets == NOTHING)
    if kernel.form == "picked":
        body = loss_picked()
    elif kernel.form == "certain":
        body = loss_certain(kernel.gradient)
    elif kernel.form in FOR_ROWS.values():
        body = (loss_turned if kernel.form == "turned" else loss_held)(compute)
    else:
        build = {"rows": loss_rows, "columns": loss_columns, "focal": loss_focal}[kernel.form]
        body = build(compute, kind, kernel.gradient)
    signature = (*kernel.types, types.int64, types.intp, types.intp, types.boolean)
    return address_of_body(body, body.__name__, signature)


@inlined
def _pass_over(normalise, lose, given, noted, call, of_unit, size, first, last, past_cache):
    """Units ``first`` to ``last`` of the sweep that normalises, ``size`` at a time."""
    row, lanes, whole = of_unit
    x, targets, share, even, parts, losses, out, options, ignore = call
    while first < last:
        end = min(last, first + size)
        if normalise != 0:
            call_body(normalise, given, None, None, noted, first, end, False)
        begin = first // row * whole + min(first % row * lanes, whole)
        stop = end // row * whole + min(end % row * lanes, whole)
        call_loss_body(lose, x, targets, share, even, parts, losses, out, options, ignore, begin, stop, past_cache)
        first = end


def _arguments(kernel: Kernel) -> tuple[types.Type, ...]:
    """Of a pass over units, but for which of them."""
    arrays = kernel.types
    call = types.Tuple((*arrays, types.int64))
    return types.intp, types.intp, arrays[0], arrays[4], call, types.UniTuple(types.intp, 3), types.intp


@once
def _body_of_pass(kernel: Kernel) -> int:
    def pass_over(normalise, lose, given, noted, call, of_unit, size, first, last, past_cache):
        _pass_over(normalise, lose, given, noted, call, of_unit, size, first, last, past_cache)

    signature = (*_arguments(kernel), types.intp, types.intp, types.boolean)
    return address_of_body(compiled(pass_over, "pass_over_losses", body=True), "pass_over_losses", signature)


@once
def _leader(kernel: Kernel) -> Callable[..., bool]:
    return crew.leader(_arguments(kernel))


@once
def _caller(kernel: Kernel, parallel: bool) -> Callable:
    """Shares out units of the sweep that normalises; a unit is ``of_unit[1]`` lanes, the last of every ``of_unit[0]``
    as many as are left of ``of_unit[2]``."""

    def losses_of(normalise, lose, given, noted, call, of_unit, size, units, shares, past_cache):
        _pass_over(normalise, lose, given, noted, call, of_unit, size, 0, units, past_cache)

    def losses_shared(normalise, lose, given, noted, call, of_unit, size, units, shares, past_cache):
        before = share_size()
        set_share_size(1)
        for k in prange(shares):
            first, last = units * k // shares, units * (k + 1) // shares
            _pass_over(normalise, lose, given, noted, call, of_unit, size, first, last, past_cache)
        set_share_size(before)

    signature = (*_arguments(kernel), types.intp, types.intp, types.boolean)
    call = losses_shared if parallel else losses_of
    name = call.__name__
    return compiled_for(compiled(call, name, parallel=parallel), name, signature)


class Arrangement(NamedTuple):
    """How a call is carried out."""

    kernel: Kernel
    plan: Plan  # of the sweep that normalises
    units: int
    of_unit: tuple[int, int, int]
    size: int  # units that wait in the cache
    past_cache: bool


@functools.lru_cache(maxsize=1024)  # what follows from these arguments costs as much as a small call
def arranged(
    storage: str,
    targets: str,
    shape: tuple[int, int, int],
    side_by_side: bool,
    in_columns: bool,
    columnar: bool,
    dense: bool,
    focal: bool,
    gradient: bool,
    many: int,
    end_to_end: bool,
    plain: bool = False,
) -> Arrangement:
    outer, length, inner = shape
    itemsize = dtype_of(storage).itemsize
    size = outer * length * inner * itemsize
    chosen = plan(
        outer,
        length,
        inner,
        itemsize=itemsize,
        side_by_side=side_by_side,
        one_number=True,
        turnable=True,
        columnar=in_columns,
        logarithms=True,
        threads=many,
    )
    across = chosen.across
    # Without a gradient and weights for all classes there is nothing to do but a number a lane.
    columns = across and columnar and (dense or gradient)
    if plain and length == 1:
        form = "certain"
    else:
        form = "focal" if focal and dense else "columns" if columns else "picked" if plain and not gradient else "rows"
        if form == "rows" and gradient and end_to_end and targets == INDICES and not dense:
            form = FOR_ROWS.get(chosen.sweep, form)
    units, of_unit = outer * inner, (inner, 1, inner)
    if across:
        row = vectors_across(inner, itemsize)
        units = outer * row
        of_unit = (1, 1, 1) if form == "columns" else (row, 8 if itemsize == 8 else 16, inner)
    elif chosen.sweep == "narrow":
        units = vectors_across(outer * inner, itemsize)
        of_unit = (units, 8 if itemsize == 8 else 16, outer * inner)
    elif chosen.turned:
        units = short_tiles_of(outer, length, itemsize)
        of_unit = (units, lanes_in_short_tile(length, itemsize), outer)
    past_cache = gradient and is_past_cache(size)
    kernel = Kernel(form, storage, targets, dense, gradient)
    some = max(1, CHUNK_BYTES * units // size)
    if chosen.sweep == "rows" and some > ROWS_TOGETHER:
        some -= some % ROWS_TOGETHER
    return Arrangement(kernel, chosen, units, of_unit, some, past_cache)


def _arrangement(
    storage: str,
    x: np.ndarray,
    targets: str,
    beside: list[np.ndarray],
    dense: bool,
    focal: bool,
    gradient: bool,
    plain: bool = False,
) -> Arrangement:
    size = x.itemsize
    in_columns = x.strides[2] == size
    columnar = in_columns and all(a.strides[2] == a.itemsize for a in beside)
    many = threads.in_use() if x.size >= PARALLEL_FROM else 1
    side_by_side = x.strides[1] == size
    end_to_end = x.shape[2] == 1 and side_by_side and x.strides[0] >= x.shape[1] * size
    end_to_end = end_to_end and all(a.strides[:2] == (x.shape[1] * size, size) for a in beside)
    return arranged(
        storage,
        targets,
        x.shape,
        side_by_side,
        in_columns,
        columnar,
        dense,
        focal,
        gradient,
        many,
        end_to_end,
        plain,
    )


def run(
    storage: str,
    x: np.ndarray,
    targets: np.ndarray,
    share: np.ndarray,
    even: np.ndarray,
    losses: np.ndarray,
    out: np.ndarray | None,
    options: np.ndarray,
    ignore: int,
    *,
    dense: bool,
    focal: bool,
) -> None:
    """Fills ``losses`` (outer, inner; float64), and the gradient unless ``out`` is None.

    Parameters
    ----------
    storage : str
        The dtype that x and out hold.
    x, out : numpy.ndarray
        In shape (outer, length, inner), as for kernels.
    targets : numpy.ndarray
        Indices in shape (outer, inner), int64; or probabilities in x's shape.
    share, even : numpy.ndarray
        For every class and ``SPARE`` more, in the compute dtype; empty where loss.py needs none.
    options : numpy.ndarray
        The call's numbers, see loss.py.
    ignore : int
        The index that counts for nothing.
    dense : bool
        Whether every class has a weight, not only the target's.
    focal : bool
        Whether each of them has a focal factor.
    """
    beside = [] if out is None else [out]
    name = INDICES
    if targets.ndim == 3:
        name, dense = _name(targets), True
        beside.append(targets)
    plain = not (dense or focal or share.size or options[1:3].any())
    how = _arrangement(storage, x, name, beside, dense, focal, out is not None, plain)
    parts = pages.empty((x.shape[0], PARTS, x.shape[2]), even.dtype)
    given, noted = (x.T, parts.T) if how.plan.turned else (x, parts)
    normalise, shares = 0, how.plan.shares
    if how.plan.sweep == "long":  # a few lanes that threads share
        sweeps.run(NORMALISER, how.plan, storage, x, None, None, parts)
        shares = min(how.units, shares)
    elif how.kernel.form not in NORMALISED:
        normalise = body_of(NORMALISER, how.plan.sweep, Arrays(storage_of(storage), False, False, True))
    gradient = _NO_GRADIENT[storage] if out is None else out
    arguments = (x, targets, share, even, parts, losses, gradient, options, ignore)
    _call(how, normalise, shares, given, noted, arguments)


def _call(how: Arrangement, normalise: int, shares: int, given: np.ndarray, noted: np.ndarray, arguments: Any) -> None:
    of_pass = (normalise, body_of_losses(how.kernel), given, noted, arguments, how.of_unit, how.size)
    logarithms, past_cache = how.kernel.form != "certain", how.past_cache
    work = work_of(given.size, noted.size // PARTS, given.itemsize, logarithms)
    most = shares if how.plan.across else how.units
    if most > 1 and crew.together(
        lambda: _body_of_pass(how.kernel), lambda: _leader(how.kernel), of_pass, work, how.units, most, past_cache
    ):
        return
    call = (*of_pass, how.units, shares, past_cache)
    if shares == 1 or not threads.run(_caller(how.kernel, True), *call):
        _caller(how.kernel, False)(*call)
    crew.ended(work)


def _name(targets: np.ndarray) -> str:
    return {np.dtype(np.uint16): "float16", np.dtype(np.int16): "bfloat16"}.get(targets.dtype, targets.dtype.name)


# --- a lane's parts, and what is computed from them --------------------------------------


def normalised(storage: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of every lane of x (outer, length, inner): its maximum, and how far its sum of exponentials relative to that one
    exceeds 1; float64 arrays (outer, inner). An infinite maximum or a NaN makes the second NaN."""
    how = _arrangement(storage, x, NOTHING, [], False, False, False)
    outer, _, inner = x.shape
    parts = np.empty((outer, PARTS, inner), np.float64 if storage == "float64" else np.float32)
    sweeps.run(NORMALISER, how.plan, storage, x, None, None, parts)
    peak, rest = np.empty((outer, inner)), np.empty((outer, inner))
    _resolver(str(parts.dtype))(parts, peak, rest)
    return peak, rest


def probabilities(storage: str, x: np.ndarray, peak: np.ndarray, rest: np.ndarray, out: np.ndarray) -> None:
    """Fills ``out`` with exp(x - peak) / (1 + rest); peak and rest (outer, inner) as of :func:`normalised`."""
    how = _arrangement(storage, x, NOTHING, [out], False, False, True)
    compute = np.dtype(np.float64 if storage == "float64" else np.float32)
    parts = np.empty((x.shape[0], PARTS, x.shape[2]), compute)
    _inverter(str(compute))(peak, rest, parts)
    targets, options = np.full((x.shape[0], x.shape[2]), -1), np.array([0.0, 0.0, 0.0, 1.0])
    losses, none = np.empty((x.shape[0], x.shape[2])), np.empty(0, compute)
    shares = min(how.units, how.plan.shares)
    _call(how, 0, shares, x, parts, (x, targets, none, none, parts, losses, out, options, 0))


_LANES = types.Array(types.float64, 2, "A", readonly=True)
_NUMBERS = {"float32": types.float32, "float64": types.float64}


@once
def _resolver(compute: str) -> Callable:
    number = np.dtype(compute).type

    def resolve_parts(parts, peak, rest):
        scale = scale_of(number(0), None)
        for o in range(peak.shape[0]):
            for j in range(peak.shape[1]):
                top, log_sum = parts[o, OF_PEAK, j], np.float64(parts[o, OF_LOG, j])
                unit = np.float64(exp_relative(top, reference(safe_top(top), scale), scale))
                peak[o, j] = top
                # Where the largest term outweighs the others, the logarithm has their digits.
                rest[o, j] = math.expm1(log_sum)
                if log_sum > 0.5:
                    rest[o, j] = 1.0 / (np.float64(parts[o, OF_FACTOR, j]) * unit) - 1.0

    parts, lanes = types.Array(_NUMBERS[compute], 3, "C", readonly=True), types.Array(types.float64, 2, "C")
    return compiled_for(compiled(resolve_parts, "resolve_parts"), "resolve_parts", (parts, lanes, lanes))


@once
def _inverter(compute: str) -> Callable:
    number = np.dtype(compute).type

    def invert_sums(peak, rest, parts):
        scale = scale_of(number(0), None)
        for o in range(peak.shape[0]):
            for j in range(peak.shape[1]):
                top = number(peak[o, j])
                unit = np.float64(exp_relative(top, reference(safe_top(top), scale), scale))
                parts[o, OF_FACTOR, j] = math.exp(np.float64(top) - peak[o, j]) / ((1.0 + rest[o, j]) * unit)
                parts[o, OF_PEAK, j] = top
                parts[o, OF_LOG, j] = 0.0

    signature = (_LANES, _LANES, types.Array(_NUMBERS[compute], 3, "C"))
    return compiled_for(compiled(invert_sums, "invert_sums"), "invert_sums", signature)
