"""Functions that exist to be inlined: taken as far as LLVM's intermediate code, and no further (lowering.py)."""

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from numba import njit, types
from numba.extending import models, register_model, typeof_impl

from softmax_numba.cpu.lowering import Inlined

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")

# Division gives inf and NaN as NumPy's does; Numba's default would raise and cost a branch.
INLINED = {
    "pipeline_class": Inlined,
    "forceinline": True,
    "error_model": "numpy",
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
inlined = njit(**INLINED)


class for_both(Generic[_Given, _Result]):
    """For what Python asks as well: a plain function to it, and inlined where compiled code calls it.

    Numba's own way to this, ``register_jitable``, compiles a function once more for every set of options that a caller
    is compiled under, and for every literal number that it is given.
    """

    def __init__(self, function: Callable[_Given, _Result]) -> None:
        functools.update_wrapper(self, function)
        self._function, self.compiled = function, inlined(function)

    def __call__(self, *args: _Given.args, **kwargs: _Given.kwargs) -> _Result:
        return self._function(*args, **kwargs)


class _OfAnyNumber(types.Dispatcher):
    """Called with a literal number, as with any other: a function is not compiled for each of them."""

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        return super().get_call_type(context, tuple(map(types.unliteral, args)), kws)


register_model(_OfAnyNumber)(models.OpaqueModel)


@typeof_impl.register(for_both)
def _type_of(value: Any, context: Any) -> types.Type:
    return _OfAnyNumber(value.compiled)
