"""How functions become machine code: inlined into others, as kernels with a name, and as bodies called by address."""

from llvmlite import binding
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Division gives inf and NaN as NumPy's does; Numba's default would raise and cost a branch.
INLINED = {"forceinline": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inlined = njit(**INLINED)


def compiled(function, name, parallel=False, body=False):
    """The function compiled under a name of its own: symbols are named after functions, and a kernel that was read
    from disk must not meet another of the same name. A ``body`` is called by its address only."""
    function.__name__ = function.__qualname__ = name
    wrappers = {"no_cpython_wrapper": body, "no_cfunc_wrapper": True}
    return njit(nogil=True, parallel=parallel, error_model="numpy", **wrappers)(function)


def _called(returns, kinds, address):
    """A call, in Numba's calling convention, of the compiled function that ``address(builder, type, args)`` gives."""
    kinds = [types.unliteral(kind) for kind in kinds]

    def emit(context, builder, sig, args):
        given, values = sig.args[-len(kinds) :], args[-len(kinds) :]
        values = [context.cast(builder, *one) for one in zip(values, given, kinds, strict=True)]
        function = address(builder, context.call_conv.get_function_type(returns, kinds), args)
        status, result = context.call_conv.call_function(builder, function, returns, kinds, values)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return returns(*kinds), emit


def _at_address(returns, address, *kinds):
    signature, emit = _called(returns, kinds, lambda builder, kind, args: builder.inttoptr(args[0], kind.as_pointer()))
    return returns(address, *signature.args), emit


@intrinsic
def call_body(typing, address, x, mask, temperature, out, first, last, past_cache):
    """Calls the sweep whose machine code stands at ``address``."""
    return _at_address(types.none, address, x, mask, temperature, out, first, last, past_cache)


@intrinsic
def call_loss_body(
    typing, address, x, targets, share, even, parts, losses, out, options, ignore, first, last, past_cache
):
    """Calls the sweep over lanes' losses."""
    arrays = (x, targets, share, even, parts, losses, out, options)
    return _at_address(types.none, address, *arrays, ignore, first, last, past_cache)


@intrinsic
def call_long_body(
    typing, address, x, mask, temperature, out, o, j, begin, end, numbers, sums, results, left, step, past_cache
):
    """Calls the sweep over parts of a long lane."""
    arrays = (x, mask, temperature, out)
    return _at_address(types.intp, address, *arrays, o, j, begin, end, numbers, sums, results, left, step, past_cache)


def named(symbol, address):
    """Makes known under a name what stands at an address, to code that is loaded from now on."""
    binding.add_symbol(symbol, address)


def body_named(symbol):
    """:func:`call_body` of a sweep that has a name: the caller is compiled for it alone and is given no address."""

    @intrinsic
    def call(typing, x, mask, temperature, out, first, last, past_cache):
        def known(builder, kind, args):
            return cgutils.get_or_insert_function(builder.module, kind, symbol)

        return _called(types.none, (x, mask, temperature, out, first, last, past_cache), known)

    return call
