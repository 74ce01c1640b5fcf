"""Functions that exist to be inlined: taken as far as LLVM's intermediate code, and no further.

Numba makes a whole library of every function that another calls: it optimises it, has machine code made of it and
loads that. Of a function that is always inlined nobody calls that code, and what was optimised is optimised once more
where it ends up. Leaving both out takes a fifth off the first call of a kernel, which is made of fifty such functions.

It is done by a compiler pipeline of our own (Numba Developer Manual, "Customizing the Compiler"), which differs from
Numba's in one pass and in those it leaves out: they rewrite what such functions have nothing of.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Generic, ParamSpec, TypeVar

from numba import njit, types
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering
from numba.extending import typeof_impl

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class _Intermediate(CPUCodeLibrary):
    """A library to link into others, with nothing in it that can be called."""

    # The environment is what code that runs on its own finds Python's objects in: this has none.
    codegen = SimpleNamespace(set_env=lambda name, environment: None)

    def _optimize_final_module(self) -> None: ...

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0


@register_pass(mutates_CFG=True, analysis_only=False)
class _IntermediateLowering(NativeLowering):
    _name = "softmax_numba_intermediate_lowering"

    def run_pass(self, state: Any) -> bool:
        state.library = _Intermediate(state.targetctx.codegen(), state.func_id.func_qualname)
        return super().run_pass(state)


# Passes over `with` blocks, closures, raised expressions, calls of literally(), literal_unroll() and isinstance(), what
# is inlined by Numba, arrays' expressions, and parallel loops: an eighth of what Python has to do for a function.
_NOTHING_TO_DO = {
    "WithLifting",
    "InlineClosureLikes",
    "RewriteDynamicRaises",
    "MakeFunctionToJitFunction",
    "InlineInlinables",
    "FindLiterallyCalls",
    "LiteralUnroll",
    "LiteralPropagationSubPipelinePass",
    "InlineOverloads",
    "NopythonRewrites",
    "DumpParforDiagnostics",
}


class _Pipeline(CompilerBase):
    def define_pipelines(self) -> list[PassManager]:
        usual, ours = DefaultPassBuilder.define_nopython_pipeline(self.state), PassManager("inlined")
        for made, reason in usual.passes:
            if made.__name__ not in _NOTHING_TO_DO:
                ours.add_pass(_IntermediateLowering if made is NativeLowering else made, reason)
        ours.finalize()
        return [ours]


# Division gives inf and NaN as NumPy's does; Numba's default would raise and cost a branch.
INLINED = {
    "pipeline_class": _Pipeline,
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


@typeof_impl.register(for_both)
def _type_of(value: Any, context: Any) -> types.Type:
    return types.Dispatcher(value.compiled)
