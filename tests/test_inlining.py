"""Functions that are always inlined: in whoever calls them, and nowhere else."""

import numpy as np
import pytest
from numba import njit, types
from numba.extending import overload

from softmax_numba.cpu.inlining import INLINED, for_both, inlined


@inlined
def quotient(a, b):
    return a / b


def half(a):
    raise NotImplementedError("only inside compiled code")


@overload(half, jit_options=INLINED)
def _half(a):
    return lambda a: quotient(a, 2.0)


@inlined
def checked(a):
    if a < 0:
        raise ValueError("negative")
    return half(a)


def test_it_does_what_it_says():
    @njit(error_model="numpy")
    def kernel(a, b):
        return checked(a) + quotient(a, b)

    assert kernel(3.0, 2.0) == 3.0
    assert kernel(1.0, 0.0) == np.inf, "divided as NumPy does"
    with pytest.raises(ValueError, match="negative"):
        kernel(-1.0, 1.0)


def test_it_is_inlined_and_no_machine_code_is_made_of_it_alone():
    @njit(error_model="numpy")
    def kernel(a):
        return checked(a)

    kernel(1.0)
    (code,) = kernel.inspect_llvm().values()
    calls = [line for line in code.splitlines() if " call " in line]
    assert not any("checked" in call or "quotient" in call or "half" in call for call in calls)
    ((made,),) = ([cres for key, cres in checked.overloads.items() if key == (types.float64,)],)
    defined = [function.name for function in made.library.get_defined_functions()]
    assert any("checked" in name for name in defined)
    assert all(made.library.get_pointer_to_function(name) == 0 for name in defined)


@for_both
def bounded(a, most):
    """The smaller."""
    return min(a, most)


def test_a_function_for_both_is_plain_to_python_and_compiled_once():
    """Whatever its callers are compiled with, and whether they give it a literal number."""
    assert bounded(3, 2) == 2 and bounded.__doc__ == "The smaller."
    assert not bounded.compiled.overloads

    @inlined
    def with_options(a):
        return bounded(a, 7)

    @njit
    def kernel(a, b):
        return with_options(a), bounded(a, 5), bounded(a, b)

    assert kernel(6, 4) == (6, 5, 4)
    assert list(bounded.compiled.overloads) == [(types.int64, types.int64)]
