"""How the loops of the layers' kernels are compiled: once per machine and type.

``entry`` is what Python calls, on several threads, and is cached on disk. A ``helper`` is called by compiled code only
and is a part of it: it has no Python wrappers, which would take longer to compile than many a helper itself, no machine
code of its own, and no file. Division by zero gives inf or NaN as in NumPy, without a branch at every division.
"""

from functools import partial
from types import SimpleNamespace

from numba import njit
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _Part(JITCodeLibrary):
    """Code that its callers take in, and optimise and translate with theirs: here it stays as it is."""

    # a constant of code that is never called from Python
    codegen = SimpleNamespace(set_env=lambda name, environment: None)

    def _optimize_final_module(self):
        """Numba would optimise a helper once for itself, and again for every caller."""

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._finalized = True


class PartCompiler(Compiler):
    """Numba's compiler, up to code that is only a part of other code: see ``pipeline_class`` of `numba.njit`."""

    def compile_extra(self, func):
        self.state.library = _Part(self.state.targetctx.codegen(), func.__qualname__)
        return super().compile_extra(func)


entry = partial(njit, cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
helper = partial(njit, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True, pipeline_class=PartCompiler)
