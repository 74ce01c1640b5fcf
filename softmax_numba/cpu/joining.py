"""How a thread that is awake joins in a call of another's: a few numbers in memory that both look at.

Whoever leads a call publishes a task (``jit.as_task``) cut into shares and takes them from the first on; who joins
takes them from the last on. So in the next call on the same arrays each finds its half in its own core's cache: two
threads that took shares in turn needed a third longer. A share belongs to whoever counted it. When none is left nobody
joins any more, and the leader waits for those who did; it never waits for anybody else.
"""

import platform
import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from softmax_numba.cpu.inlining import inlined
from softmax_numba.cpu.jit import as_task, call_lead, call_task
from softmax_numba.cpu.simd import I8, I32, I64

# Where what stands, counted from the address by which all know the numbers, in words of 8 bytes; what several threads
# write has a cache line of its own.
CALL, TAKEN, LAST, LEAVE, END, AWAKE, PRESENT, BELL, LED = 8, 16, 17, 24, 25, 32, 33, 48, 56
FUNCTION, GIVEN, UNITS, SHARES, MOST, FAILED, CORE = range(40, 47)
# For whoever leads without asking Python: how many threads are of use, where the machine code of `lead` stands and that
# of Numba's question how many threads the caller's thread may use; when a call that the crew could have joined ended
# last, and how long ago that may be for the next to have somebody awake, in nanoseconds.
USEFUL, LEAD, ASK, ENDED, SPIN = range(64, 69)
NUMBERS = 72
LOOKS_A_TURN = 256  # some microseconds
NAP, NAPS = 50, 4  # microseconds, and how many of them use up a member's patience
# CALL holds the call's number, whether one may join, and in its lowest bits how many have.
OPEN, ONE_CALL = 1 << 8, 1 << 9
JOINED = OPEN - 1

_HINTS = {"x86_64": ("llvm.x86.sse2.pause",), "aarch64": ("llvm.aarch64.hint", ir.Constant(I32, 1))}
_HINTS |= {"amd64": _HINTS["x86_64"], "arm64": _HINTS["aarch64"]}


def _place(builder, args):
    return builder.gep(builder.inttoptr(args[0], I64.as_pointer()), [args[1]])


@intrinsic
def look(typing, numbers, index):
    """A number that another thread may write; what it wrote before is seen from here on."""

    def emit(context, builder, sig, args):
        return builder.load_atomic(_place(builder, args), "acquire", 8)

    return types.int64(types.intp, types.intp), emit


@intrinsic
def tell(typing, numbers, index, value):
    """Writes a number for other threads to look at."""

    def emit(context, builder, sig, args):
        builder.store_atomic(args[2], _place(builder, args), "release", 8)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.int64), emit


@intrinsic
def add(typing, numbers, index, value):
    """Adds to a number that other threads change too; what it was before."""

    def emit(context, builder, sig, args):
        return builder.atomic_rmw("add", _place(builder, args), args[2], "seq_cst")

    return types.int64(types.intp, types.intp, types.int64), emit


@intrinsic
def replace(typing, numbers, index, before, after):
    """Writes ``after`` if the number still is ``before``; whether it was."""

    def emit(context, builder, sig, args):
        done = builder.cmpxchg(_place(builder, args), args[2], args[3], "seq_cst")
        return builder.extract_value(done, 1)

    return types.boolean(types.intp, types.intp, types.int64, types.int64), emit


@intrinsic
def pause(typing):
    """Tells the processor, where there is a way, that this thread waits."""
    hint = _HINTS.get(platform.machine().lower())

    def emit(context, builder, sig, args):
        if hint is not None:
            kind = ir.FunctionType(ir.VoidType(), [value.type for value in hint[1:]])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, hint[0]), hint[1:])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def call_ask(typing, address):
    """Calls a function without arguments that stands there, for a 32-bit number."""

    def emit(context, builder, sig, args):
        kind = ir.FunctionType(I32, [])
        return builder.sext(builder.call(builder.inttoptr(args[0], kind.as_pointer()), []), I64)

    return types.int64(types.intp), emit


def _called(name, *arguments):
    """Compiles to a call of the C library with these 32-bit numbers."""

    @intrinsic
    def call(typing):
        def emit(context, builder, sig, args):
            values = [ir.Constant(I32, value) for value in arguments]
            function = ir.FunctionType(I32, [value.type for value in values])
            found = builder.call(cgutils.get_or_insert_function(builder.module, function, name), values)
            return builder.sext(found, I64)

        return types.int64(), emit

    return call


give_way = _called("sched_yield")  # to another thread that waits for this core, if there is one
core = _called("sched_getcpu")  # on which this thread runs
_nap = _called("usleep", NAP)

_MONOTONIC = I32(1)
_MASK = ir.ArrayType(I64, 16)  # of 1024 cores, the C library's cpu_set_t
_AFFINITY = ir.FunctionType(I32, [I32, I64, _MASK.as_pointer()])


@intrinsic
def _leave(typing, core):
    """Has this thread run on another of the cores that it may run on, if there is one."""

    def emit(context, builder, sig, args):
        names = "sched_getaffinity", "sched_setaffinity"
        ask, set_to = (cgutils.get_or_insert_function(builder.module, _AFFINITY, name) for name in names)
        allowed, others = (cgutils.alloca_once(builder, _MASK) for _ in range(2))
        this_thread, size = ir.Constant(I32, 0), ir.Constant(I64, 128)
        known = builder.icmp_signed("==", builder.call(ask, [this_thread, size, allowed]), this_thread)
        within = builder.icmp_unsigned("<", args[0], ir.Constant(I64, 1024))
        with builder.if_then(builder.and_(known, within)):
            builder.store(builder.load(allowed), others)
            place = builder.gep(others, [ir.Constant(I64, 0), builder.lshr(args[0], ir.Constant(I64, 6))])
            bit = builder.shl(ir.Constant(I64, 1), builder.and_(args[0], ir.Constant(I64, 63)))
            builder.store(builder.and_(builder.load(place), builder.not_(bit)), place)
            builder.call(set_to, [this_thread, size, others])  # refused, with nothing done, if there is no other
            builder.call(set_to, [this_thread, size, allowed])
        return context.get_dummy_value()

    return types.void(types.int64), emit


@inlined
def _wait(looks):
    """Between two looks at a number: a moment, and now and then the core, which who is waited for may need.

    A thread that wakes may be put on the core of the one that woke it. Each would then wait for the other until the
    scheduler takes turns, milliseconds later.
    """
    if looks % LOOKS_A_TURN == 0:
        give_way()
    else:
        pause()


@inlined
def _take(numbers, k):
    units, shares = look(numbers, UNITS), look(numbers, SHARES)
    if call_task(look(numbers, FUNCTION), look(numbers, GIVEN), units * k // shares, units * (k + 1) // shares):
        tell(numbers, FAILED, 1)


def lead(numbers, function, given, units, shares, most):
    """Carries out a task together with at most ``most`` of those who are awake; whether it failed."""
    tell(numbers, FUNCTION, function)
    tell(numbers, GIVEN, given)
    tell(numbers, UNITS, units)
    tell(numbers, SHARES, shares)
    tell(numbers, MOST, most)
    tell(numbers, CORE, 1 + core())  # 0: unknown
    for index in (FAILED, TAKEN, LAST):
        tell(numbers, index, 0)
    tell(numbers, CALL, look(numbers, CALL) + ONE_CALL + OPEN)
    k = 0
    while add(numbers, TAKEN, 1) < shares:
        _take(numbers, k)
        k += 1
    add(numbers, CALL, -OPEN)
    looks = 0
    while look(numbers, CALL) & JOINED:
        looks += 1
        _wait(looks)
    return look(numbers, FAILED) != 0


@intrinsic
def _sleep(typing, numbers, index):
    """Waits for the semaphore that stands there, or for a signal."""
    return _called_with_place("sem_wait")


@intrinsic
def _rung_again(typing, numbers, index):
    """Not 0 unless the semaphore has been raised once more, which this takes back."""
    return _called_with_place("sem_trywait")


def _called_with_place(name):
    def emit(context, builder, sig, args):
        place = builder.bitcast(_place(builder, args), I8.as_pointer())
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, [place.type]), name)
        return builder.call(function, [place])

    return types.int32(types.intp, types.intp), emit


@inlined
def _stay_awake(numbers, patience):
    """Joins calls until there has been none for ``patience`` looks, or until told to leave."""
    add(numbers, AWAKE, 1)
    seen, waited = -1, 0
    while waited < patience and not look(numbers, LEAVE):
        call = look(numbers, CALL)
        waited += 1
        if call & OPEN and call // ONE_CALL != seen and call & JOINED < look(numbers, MOST):
            if replace(numbers, CALL, call, call + 1):
                seen, waited = call // ONE_CALL, 0
                shares = look(numbers, SHARES)
                while add(numbers, TAKEN, 1) < shares:
                    _take(numbers, shares - 1 - add(numbers, LAST, 1))
                add(numbers, CALL, -1)
        elif waited % LOOKS_A_TURN == 0 and 1 + core() == look(numbers, CORE):
            # Woken where the leader runs, and who stays awake is left there even when another core is free. Who wakes
            # up may be put on that one; if not, there is a way to insist.
            _nap()
            waited += patience // NAPS
            if 1 + core() == look(numbers, CORE):
                _leave(core())
        else:
            _wait(waited)
    add(numbers, AWAKE, -1)


def serve(numbers, patience, times):
    """A member's life: awake, and asleep until the bell rings, ``times`` times or until the end."""
    add(numbers, PRESENT, 1)
    while not look(numbers, END):
        _stay_awake(numbers, patience)
        times -= 1
        if times == 0:
            break
        _sleep(numbers, BELL)
        while _rung_again(numbers, BELL) == 0:  # it rings at every call until somebody is awake
            pass
    add(numbers, PRESENT, -1)


@intrinsic
def now(typing):
    """Nanoseconds, by the clock of :func:`time.perf_counter_ns`; 0 where there is no crew."""

    def emit(context, builder, sig, args):
        if sys.platform != "linux":
            return I64(0)
        both = cgutils.alloca_once(builder, ir.ArrayType(I64, 2))  # seconds and nanoseconds
        kind = ir.FunctionType(I32, [I32, both.type])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "clock_gettime"), [_MONOTONIC, both])
        seconds, rest = (builder.extract_value(builder.load(both), i) for i in range(2))
        return builder.add(builder.mul(seconds, I64(1_000_000_000)), rest)

    return types.int64(), emit


@inlined
def follows_closely(numbers):
    """Whether a call that the crew could have joined has just ended."""
    spin = look(numbers, SPIN)
    return spin > 0 and now() - look(numbers, ENDED) < spin


@inlined
def is_alone(numbers):
    """Whether it is known that a call made now may have no other thread."""
    question = look(numbers, ASK)
    return question != 0 and call_ask(question) == 1


@inlined
def threads_awake(numbers, all_of_them):
    """How many threads a call made now may have with the crew; 0 if that is not known or somebody is not awake, or the
    crew are not ``all_of_them`` that the call might have otherwise."""
    question = look(numbers, ASK)
    if question == 0:
        return question
    asked, useful = call_ask(question), look(numbers, USEFUL)
    many = min(asked, useful)
    if all_of_them and many < asked:
        return 0
    return many if look(numbers, AWAKE) >= many - 1 else 0


@inlined
def begins(numbers):
    """Whether nobody else leads; then it is this thread, until it says :func:`ends`."""
    return replace(numbers, LED, 0, 1)


@inlined
def ends(numbers):
    tell(numbers, LED, 0)
    tell(numbers, ENDED, now())


@inlined
def lead_unless_led(numbers, body, arguments, units, shares, most, past_cache):
    """Carries out the units of a body with the crew: whether it was done, and failed; nothing was while somebody else
    leads."""
    if not begins(numbers):
        return False, False
    function, given = as_task(body, arguments, past_cache)
    failed = call_lead(look(numbers, LEAD), numbers, function, given, units, shares, most)
    ends(numbers)
    return True, failed


def led(body, arguments, units, shares, most, past_cache, numbers):
    """The same for Python: whether it was done."""
    done, failed = lead_unless_led(numbers, body, arguments, units, shares, most, past_cache)
    if failed:
        raise MemoryError("no memory for a buffer")
    return done
