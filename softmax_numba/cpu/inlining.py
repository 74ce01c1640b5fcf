"""Functions that exist to be inlined: taken as far as LLVM's intermediate code, and no further.

Numba makes a whole library of every function that another calls: it optimises it, has machine code made of it and
loads that. Of a function that is always inlined nobody calls that code, and what was optimised is optimised once more
where it ends up. Leaving both out takes a fifth off the first call of a kernel, which is made of fifty such functions.

It is done by a compiler pipeline of our own, which differs from Numba's in one pass (Numba Developer Manual,
"Customizing the Compiler").
"""

from types import SimpleNamespace
from typing import Any

from numba import njit
from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.typed_passes import NativeLowering
from numba.extending import register_jitable


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


class _Pipeline(CompilerBase):
    def define_pipelines(self) -> list[PassManager]:
        usual, ours = DefaultPassBuilder.define_nopython_pipeline(self.state), PassManager("inlined")
        for made, reason in usual.passes:
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
# For what Python asks as well: a plain function to it, and inlined where compiled code calls it.
for_both = register_jitable(**INLINED)
