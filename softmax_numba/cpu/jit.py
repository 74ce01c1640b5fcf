"""How functions become machine code: inlined into others, as kernels with a name, and as bodies called by address."""

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


def _called(returns, address, *kinds):
    """A call of the compiled function at ``address``, in Numba's calling convention."""
    kinds = [types.unliteral(kind) for kind in kinds]

    def emit(context, builder, sig, args):
        values = [context.cast(builder, *given) for given in zip(args[1:], sig.args[1:], kinds, strict=True)]
        function = builder.inttoptr(args[0], context.call_conv.get_function_type(returns, kinds).as_pointer())
        status, result = context.call_conv.call_function(builder, function, returns, kinds, values)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return returns(address, *kinds), emit


@intrinsic
def call_body(typing, address, x, mask, temperature, out, first, last, past_cache):
    """Calls the sweep whose machine code stands at ``address``."""
    return _called(types.none, address, x, mask, temperature, out, first, last, past_cache)


@intrinsic
def call_long_body(
    typing, address, x, mask, temperature, out, o, j, begin, end, numbers, sums, results, left, step, past_cache
):
    """Calls the sweep over parts of a long lane."""
    arrays = (x, mask, temperature, out)
    return _called(types.intp, address, *arrays, o, j, begin, end, numbers, sums, results, left, step, past_cache)
