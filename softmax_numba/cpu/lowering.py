"""The two compiler pipelines, of functions that are always inlined and of kernels, which differ from Numba's in a pass
or some (Numba Developer Manual, "Customizing the Compiler").

Numba makes a whole library of every function that another calls: it optimises it, has machine code made of it and
loads that. Of a function that is always inlined nobody calls that code, and what was optimised is optimised once more
where it ends up. Leaving both out takes a fifth off the first call of a kernel, which is made of fifty such functions.

A kernel's stack begins on a cache line. LLVM has more vectors than registers and keeps the others there, by itself no
better aligned than to 16 bytes: which of them lie across two cache lines, or two pages, is then settled anew for every
process and thread, by where its stack begins. Measured, 2.1x the time of log_softmax of (1000000, 16) in one of two
threads whose stacks differed in nothing else.
"""

from types import SimpleNamespace
from typing import Any

from numba.core.codegen import CPUCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import PassManager, register_pass
from numba.core.lowering import Lower
from numba.core.typed_passes import NativeLowering

_STACK_ALIGNMENT = 64

# Passes over `with` blocks, closures, raised expressions, calls of literally(), literal_unroll() and isinstance(), what
# is inlined by Numba, arrays' expressions, and parallel loops: an eighth of what Python has to do for a function that
# has nothing of them.
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


class _KernelLower(Lower):
    def setup_function(self, fndesc: Any) -> None:
        super().setup_function(fndesc)
        attributes = self.function.attributes
        attributes.alignstack = _STACK_ALIGNMENT
        attributes.add("nounwind")  # which holds for all of Numba's code; llvmlite writes no alignment alone


@register_pass(mutates_CFG=True, analysis_only=False)
class _KernelLowering(NativeLowering):
    _name = "softmax_numba_kernel_lowering"

    @property
    def lowering_class(self) -> type[Lower]:
        return _KernelLower


def _pipeline(compiler: CompilerBase, name: str, lowering: type[NativeLowering], left_out: set[str]) -> PassManager:
    """Numba's passes with another lowering."""
    ours = PassManager(name)
    for made, reason in DefaultPassBuilder.define_nopython_pipeline(compiler.state).passes:
        if made.__name__ not in left_out:
            ours.add_pass(lowering if made is NativeLowering else made, reason)
    ours.finalize()
    return ours


class Inlined(CompilerBase):
    def define_pipelines(self) -> list[PassManager]:
        return [_pipeline(self, "inlined", _IntermediateLowering, _NOTHING_TO_DO)]


class Kernel(CompilerBase):
    def define_pipelines(self) -> list[PassManager]:
        return [_pipeline(self, "kernel", _KernelLowering, set())]
