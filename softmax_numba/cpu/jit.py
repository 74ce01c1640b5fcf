"""How functions become machine code: as kernels with a name, and as bodies called by address."""

from llvmlite import binding, ir
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from softmax_numba.cpu.lowering import Kernel

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_TASK = ir.FunctionType(_I64, [ir.IntType(8).as_pointer(), _I64, _I64])


def compiled(function, name, parallel=False, body=False, nogil=True):
    """The function compiled under a name of its own: symbols are named after functions, and a kernel that was read
    from disk must not meet another of the same name. A ``body`` is called by its address only."""
    if config.DISABLE_JIT:
        raise RuntimeError("softmax_numba is Numba's compiled code: NUMBA_DISABLE_JIT must be 0 or unset, not 1")
    function.__name__ = function.__qualname__ = name
    how = {"no_cpython_wrapper": body, "no_cfunc_wrapper": True}
    if not parallel:
        how["pipeline_class"] = Kernel
    return njit(nogil=nogil, parallel=parallel, error_model="numpy", **how)(function)


def _called(returns, kinds, address, tried=False):
    """A call, in Numba's calling convention, of the compiled function that ``address(builder, type, args)`` gives.

    Its errors are the caller's, unless it is ``tried``: then the result is whether it failed.
    """
    kinds = [types.unliteral(kind) for kind in kinds]

    def emit(context, builder, sig, args):
        given, values = sig.args[-len(kinds) :], args[-len(kinds) :]
        values = [context.cast(builder, *one) for one in zip(values, given, kinds, strict=True)]
        function = address(builder, context.call_conv.get_function_type(returns, kinds), args)
        status, result = context.call_conv.call_function(builder, function, returns, kinds, values)
        if tried:
            return status.is_error
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return (types.boolean if tried else returns)(*kinds), emit


def call_at(returns, address, *kinds, tried=False):
    """For an intrinsic: the call of the function that stands at the ``address`` which is its first argument."""

    def known(builder, kind, args):
        return builder.inttoptr(args[0], kind.as_pointer())

    signature, emit = _called(returns, kinds, known, tried)
    return signature.return_type(address, *signature.args), emit


@intrinsic
def call_body(typing, address, x, mask, temperature, out, first, last, past_cache):
    """Calls the sweep whose machine code stands at ``address``."""
    return call_at(types.none, address, x, mask, temperature, out, first, last, past_cache)


@intrinsic
def try_body(typing, address, x, mask, temperature, out, first, last, past_cache):
    """The same; whether it failed."""
    return call_at(types.none, address, x, mask, temperature, out, first, last, past_cache, tried=True)


@intrinsic
def call_loss_body(
    typing, address, x, targets, share, even, parts, losses, out, options, ignore, first, last, past_cache
):
    """Calls the sweep over lanes' losses."""
    arrays = (x, targets, share, even, parts, losses, out, options)
    return call_at(types.none, address, *arrays, ignore, first, last, past_cache)


@intrinsic
def call_lead(typing, address, numbers, function, given, units, shares, most):
    """Calls :func:`softmax_numba.cpu.joining.lead`."""
    return call_at(types.boolean, address, *[types.intp] * 6)


@intrinsic
def call_long_body(
    typing, address, x, mask, temperature, out, o, j, begin, end, numbers, sums, results, left, step, past_cache
):
    """Calls the sweep over parts of a long lane."""
    arrays = (x, mask, temperature, out)
    return call_at(types.intp, address, *arrays, o, j, begin, end, numbers, sums, results, left, step, past_cache)


def named(symbol, address):
    """Makes known under a name what stands at an address, to code that is loaded from now on."""
    binding.add_symbol(symbol, address)


def address_named(symbol):
    """Compiles to the address that :func:`named` has given a name: it is another one in every process."""

    @intrinsic
    def address(typing):
        def emit(context, builder, sig, args):
            there = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, ir.IntType(8), symbol)
            return builder.ptrtoint(there, _I64)

        return types.int64(), emit

    return address


@intrinsic
def as_task(typing, address, arguments, past_cache):
    """The body ``(*arguments, first, last, past_cache)`` at ``address`` as something that any thread may call, while
    the caller runs: a function and what it is given, both as integers for :func:`call_task`."""
    given_types = [types.unliteral(kind) for kind in arguments.types]
    kinds = [*given_types, types.intp, types.intp, types.boolean]

    def emit(context, builder, sig, args):
        body, given, past = args
        given = [builder.extract_value(given, i) for i in range(len(given_types))]
        given = [context.cast(builder, *one) for one in zip(given, sig.args[1].types, given_types, strict=True)]
        values = [body, *given, past]
        record = ir.LiteralStructType([value.type for value in values])
        with builder.goto_entry_block():
            room = builder.alloca(record)
        for i, value in enumerate(values):
            builder.store(value, builder.gep(room, [_I32(0), _I32(i)]))
        name = builder.module.get_unique_name("softmax_numba.task")
        function = ir.Function(builder.module, _TASK, name)
        function.linkage = "internal"
        inside = ir.IRBuilder(function.append_basic_block())
        given, first, last = function.args
        given = inside.bitcast(given, record.as_pointer())
        body, *values, past = (inside.load(inside.gep(given, [_I32(0), _I32(i)])) for i in range(len(values)))
        body = inside.inttoptr(body, context.call_conv.get_function_type(types.none, kinds).as_pointer())
        status, _ = context.call_conv.call_function(inside, body, types.none, kinds, [*values, first, last, past])
        inside.ret(inside.zext(status.is_error, _I64))
        both = builder.ptrtoint(function, _I64), builder.ptrtoint(room, _I64)
        return context.make_tuple(builder, sig.return_type, both)

    return types.UniTuple(types.intp, 2)(types.intp, arguments, types.boolean), emit


@intrinsic
def call_task(typing, function, given, first, last):
    """Carries out a task's units ``first`` to ``last``; not 0 if it failed."""

    def emit(context, builder, sig, args):
        function = builder.inttoptr(args[0], _TASK.as_pointer())
        return builder.call(function, [builder.inttoptr(args[1], _TASK.args[0]), *args[2:]])

    return types.intp(types.intp, types.intp, types.intp, types.intp), emit
