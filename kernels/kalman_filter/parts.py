"""Compiled code that only becomes a part of other compiled code, in half of the time.

Numba optimises a helper twice and makes machine code of it, although every caller takes in its code, optimises it again
and has machine code of its own. Here a helper goes through the first round only: its callers still find it simplified,
its loops in vectors, which for the recursions over lanes in memory decides how fast they are.
"""

from types import SimpleNamespace

from llvmlite import binding
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _Part(JITCodeLibrary):
    # Numba would put the objects of a function at the address of its machine code. Here there are none.
    codegen = SimpleNamespace(set_env=lambda name, environment: None)

    def _optimize_final_module(self):
        own = self._codegen
        options = {"loop_vectorize": own._loopvect, "slp_vectorize": False, "opt": own._opt_level, "cost": "cheap"}
        passes, builder = own._module_pass_manager(**options)
        passes.run(self._final_module, builder)

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class _Compiler(Compiler):
    def compile_extra(self, func):
        self.state.library = _Part(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


# Options of `numba.njit`; none where Numba is older than LLVM's new pass managers.
AS_PART = {"pipeline_class": _Compiler} if hasattr(binding, "create_pass_builder") else {}
