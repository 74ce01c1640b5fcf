"""Functions that are always inlined: in whoever calls them, and nowhere else."""

import numpy as np
import pytest
from numba import njit, types
from numba.extending import overload

from softmax_numba.cpu.inlining import INLINED, inlined


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
