"""The door by which losses come in that take no options: compiled code that is given Python's objects, as in door.py.

Lanes may stand along any axis of arrays in C order. One machine code serves all dtypes, shapes and geometries: what is
done by arrays is done by their addresses, and what is known of a shape stands in the numbers of a call.
"""

from collections.abc import Callable

import numpy as np
from numba import prange, types

from softmax_numba.cpu import crew, entering
from softmax_numba.cpu.arrays import allocated, apart, array_at, lanes_at, on_stack, release
from softmax_numba.cpu.compiled import address_of_body, compiled_for, once
from softmax_numba.cpu.entering import LARGE
from softmax_numba.cpu.folding import entry
from softmax_numba.cpu.handed import (
    ALIGNED,
    AXES,
    C_CONTIGUOUS,
    DATA,
    FLAGS,
    SHAPE,
    WRITEABLE,
    Handed,
    half_word,
    with_lock,
    without_lock,
    word,
)
from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import address_named, as_task, call_body, call_loss_body, call_task, compiled, named
from softmax_numba.cpu.joining import ENDED, lead_unless_led, now, tell
from softmax_numba.cpu.lane import BLOCK, PARTS
from softmax_numba.cpu.loss_totals import added_up, counts_of
from softmax_numba.cpu.memory import address_of, put
from softmax_numba.cpu.plan import CREW_FROM, is_shared_lane, work_of
from softmax_numba.cpu.sweeps import DONE, REFUSED
from softmax_numba.cpu.threads import set_share_size, share_size

NONE, SUM, MEAN = range(3)  # what becomes of the losses
# What a door says beside REFUSED, DONE and LARGE: that somebody else leads the crew.
LED = LARGE + 1

# The numbers of a call. Its lanes as lanes.py presents them, and the classes' axis; where the dtypes of logits and
# indices stand, and how many bytes a logit, a number computed with and a result have; whether there is a gradient.
OUTER, CLASSES, INNER, AXIS, DTYPE, INDEX, ITEMSIZE, COMPUTE_SIZE, RESULT_SIZE, GRADIENT = range(10)
# The sweeps by address, the first 0 if nothing need be known of a lane; whether that turns rows into columns, and
# whether the second goes along columns; how many units and lanes a step of the outer axis has, and lanes a unit, as
# loss_sweeps.py has them; how many units wait in the cache, how many there are, and into how many shares the crew may
# cut them.
NORMALISE, LOSE, SHORT, COLUMNS, ROW, LANES, WHOLE, SIZE, UNITS, MOST, PAST_CACHE, NUMBERS = range(10, 22)

# For so many lanes the caller provides the room for their losses: new memory is slow.
ROOM_FROM = 2**19
_RELEASE_FROM = BLOCK  # values; for fewer, giving Python's lock to another thread would take longer than the sweep


@inlined
def _share(x, targets, losses, out, at, options, ignore, k, shares, room):
    """Part ``k`` of so many. What normalises a chunk of lanes stands where that of the last one stood, in the cache: in
    three planes, one number a lane and lane by lane, whatever the lanes are to each other."""
    outer, classes, inner = entry(at, OUTER), entry(at, CLASSES), entry(at, INNER)
    row, lanes, whole, size = entry(at, ROW), entry(at, LANES), entry(at, WHOLE), entry(at, SIZE)
    item, part, count, units = entry(at, ITEMSIZE), entry(at, COMPUTE_SIZE), outer * inner, entry(at, UNITS)
    line, plane = inner * item, size * lanes * part
    values = lanes_at(x, outer, classes, inner, classes * line, line, item, item)
    gradient = lanes_at(out, outer, classes, inner, classes * line, line, item, item)
    indices, found = array_at(targets, 0, (outer, inner)), array_at(losses, 0.0, (outer, inner))
    none, numbers = array_at(room, 0.0, (0,)), array_at(options, 0.0, (4,))
    first, last = units * k // shares, units * (k + 1) // shares
    while first < last:
        end = min(last, first + size)
        begin = first // row * whole + min(first % row * lanes, whole)
        stop = end // row * whole + min(end % row * lanes, whole)
        start = room - begin * part
        noted = lanes_at(start, outer, PARTS, inner, inner * part, plane, part, part)
        normalise = entry(at, NORMALISE)
        if normalise != 0 and entry(at, SHORT):
            turned = lanes_at(x, 1, classes, count, 0, item, classes * item, item)
            noted_turned = lanes_at(start, 1, PARTS, count, 0, plane, part, part)
            call_body(normalise, turned, None, None, noted_turned, first, end, False)
        elif normalise != 0:
            call_body(normalise, values, None, None, noted, first, end, False)
        if entry(at, COLUMNS):
            begin, stop = first, end
        past_cache = entry(at, PAST_CACHE) != 0
        call_loss_body(
            entry(at, LOSE),
            values,
            indices,
            none,
            none,
            noted,
            found,
            gradient,
            numbers,
            ignore,
            begin,
            stop,
            past_cache,
        )
        first = end


def _shares_of_losses(x, targets, losses, out, at, gain, ignore, shares, first, last, past_cache):
    """Shares ``first`` to ``last`` of so many."""
    room = allocated(np.uint8(0), entry(at, SIZE) * entry(at, LANES) * PARTS * entry(at, COMPUTE_SIZE))
    options = on_stack(0.0, 4)
    put(options, 0, 1.0)
    put(options, 1, 0.0)
    put(options, 2, 0.0)
    put(options, 3, gain)
    for k in range(first, last):
        _share(x, targets, losses, out, at, address_of(options, 0), ignore, k, shares, address_of(room, 0))
    release(room)


@inlined
def _gain_of(counted, reduction):
    if reduction != MEAN:
        return 1.0
    return 1.0 / counted if counted > 0 else 0.0


@inlined
def _reduced(losses, lanes, counted, found, at, reduction):
    """What the losses come to, in the result's precision; where that is one each, they are put down."""
    values = array_at(losses, 0.0, ((lanes + 7) // 8 * 8,))
    if reduction == NONE:
        if entry(at, RESULT_SIZE) == 4:
            narrow = array_at(found, np.float32(0), (lanes,))
            for k in range(lanes):
                narrow[k] = values[k]
        else:
            wide = array_at(found, 0.0, (lanes,))
            for k in range(lanes):
                wide[k] = values[k]
        return 0.0
    for k in range(lanes, values.shape[0]):
        values[k] = 0.0
    total = added_up(values)
    if reduction == MEAN:
        total = total / counted if counted > 0 else 0.0
    return np.float64(np.float32(total)) if entry(at, RESULT_SIZE) == 4 else total


@once
def _body() -> int:
    """Where :func:`_shares_of_losses` stands."""
    numbers = (*[types.intp] * 5, types.float64, types.int64, *[types.intp] * 3, types.boolean)
    body = compiled(_shares_of_losses, "shares_of_losses", body=True)
    return address_of_body(body, "shares_of_losses", numbers)


@once
def door() -> Callable[..., tuple[int, float]]:
    """``enter(logits, targets, room, found, out, ignore, numbers, reduction, many)``, and what the losses come to.

    ``numbers`` is the address of a call's numbers, which are those of the shape of the logits; ``room`` an array for
    as many float64 losses as there are lanes, and up to a multiple of 8, from ``ROOM_FROM`` on; ``found`` one that gets
    them if they are not reduced; ``out`` what gets the gradient, if there is one. What is not needed may be any object.

    DONE if it was done, in one thread or with the crew. Otherwise nothing was: REFUSED where a condition does not
    hold; LARGE where ``many`` is 0 and threads may be worth while and cannot be had here: it is then how many threads
    the crew has, which the caller leads, or 1; LED where somebody else leads.
    """
    named("softmax_numba.shares_of_losses", _body())
    is_array_of, _, crew_numbers, _ = entering.steps()
    body = address_named("softmax_numba.shares_of_losses")

    @inlined
    def is_kept(handed, dtype, flags):
        """Whether it is an array of a dtype, kept in a way."""
        return is_array_of(handed, dtype) and half_word(handed, FLAGS) & flags == flags

    @inlined
    def refuses(x, targets, out, at):
        """Whether an array is not what it is to be, or they overlap otherwise than in the same places."""
        readable = C_CONTIGUOUS | ALIGNED
        if not is_kept(x, entry(at, DTYPE), readable) or not is_kept(targets, entry(at, INDEX), readable):
            return True
        axes, axis, shape = half_word(x, AXES), entry(at, AXIS), word(x, SHAPE)
        if half_word(targets, AXES) != axes - 1:
            return True
        kept = word(targets, SHAPE)
        for i in range(axes - 1):
            if entry(kept, i) != entry(shape, i + (i >= axis)):
                return True
        if not entry(at, GRADIENT):
            return False
        if not is_kept(out, entry(at, DTYPE), readable | WRITEABLE) or half_word(out, AXES) != axes:
            return True
        shape_of_out, size = word(out, SHAPE), 1
        for i in range(axes):
            size *= entry(shape, i)
            if entry(shape_of_out, i) != entry(shape, i):
                return True
        size *= entry(at, ITEMSIZE)
        gradient = array_at(word(out, DATA), np.uint8(0), (size,))
        if word(x, DATA) != word(out, DATA) and not apart(array_at(word(x, DATA), np.uint8(0), (size,)), gradient):
            return True
        return not apart(array_at(word(targets, DATA), 0, (entry(at, OUTER) * entry(at, INNER),)), gradient)

    def enter(x, targets, room, found, out, ignore, at, reduction, many):
        if refuses(x, targets, out, at):
            return REFUSED, 0.0
        lanes, classes, most = entry(at, OUTER) * entry(at, INNER), entry(at, CLASSES), entry(at, MOST)
        work, numbers = work_of(lanes * classes, lanes, entry(at, ITEMSIZE), True), crew_numbers()
        if many == 0:
            many = crew.threads_for(numbers, work)
            if many == 0:
                return LARGE, 0.0
            if is_shared_lane(lanes, classes, many):
                return REFUSED, 0.0
        counted, wrong = counts_of(array_at(word(targets, DATA), 0, (lanes,)), classes, ignore)
        if wrong > 0:
            return REFUSED, 0.0
        own = lanes < ROOM_FROM
        mine = allocated(0.0, (lanes + 7) // 8 * 8 if own else 0)
        losses = address_of(mine, 0) if own else word(room, DATA)
        gradient = word(out, DATA) if entry(at, GRADIENT) else 0
        shares = 1 if many == 1 else crew.shares_of(most, work, many)
        given = word(x, DATA), word(targets, DATA), losses, gradient, at, _gain_of(counted, reduction), ignore, shares
        done, failed, result = True, False, 0.0
        state = without_lock(work > _RELEASE_FROM)
        if shares == 1:
            task, arguments = as_task(body(), given, False)
            failed = call_task(task, arguments, 0, 1) != 0
            if work >= CREW_FROM:
                tell(numbers, ENDED, now())
        else:
            done, failed = lead_unless_led(numbers, body(), given, shares, shares, many - 1, False)
        if done and not failed:
            result = _reduced(losses, lanes, counted, word(found, DATA) if reduction == NONE else 0, at, reduction)
        with_lock(state)
        release(mine)
        if failed:
            raise MemoryError("no memory for a buffer")
        return DONE if done else LED, result

    return entering.entry_of(enter, "loss_door", *[Handed()] * 5, types.int64, *[types.intp] * 3)


@once
def shared() -> Callable[..., tuple[int, float]]:
    """The same with the layer's threads, in so many ``shares`` and all arrays by address, once the door has said LARGE:
    ``call(logits, targets, room, found, out, ignore, numbers, reduction, shares)``."""
    named("softmax_numba.shares_of_losses", _body())
    body = address_named("softmax_numba.shares_of_losses")

    def losses_in_shares(x, targets, losses, found, out, ignore, at, reduction, shares):
        lanes = entry(at, OUTER) * entry(at, INNER)
        counted, wrong = counts_of(array_at(targets, 0, (lanes,)), entry(at, CLASSES), ignore)
        if wrong > 0:
            return REFUSED, 0.0
        given = x, targets, losses, out, at, _gain_of(counted, reduction), ignore, shares
        task, arguments = as_task(body(), given, False)
        failed, before = 0, share_size()
        set_share_size(1)
        for k in prange(shares):
            failed += call_task(task, arguments, k, k + 1)
        set_share_size(before)
        if failed != 0:
            raise MemoryError("no memory for a buffer")
        return DONE, _reduced(losses, lanes, counted, found, at, reduction)

    signature = (*[types.intp] * 5, types.int64, *[types.intp] * 3)
    name = "losses_in_shares"
    # Only loops that say so: Numba would share out an array of ten zeros too.
    kinds = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion", "prange")
    parallel = {kind: kind == "prange" for kind in kinds}
    return compiled_for(compiled(losses_in_shares, name, parallel=parallel), name, signature)
