"""How the loops of the layers' kernels are compiled: once per machine and type.

``entry`` is what Python calls, on several threads, and is cached on disk. A ``helper`` is called by compiled code only
and is a part of it: it has no Python wrappers, which would take longer to compile than many a helper itself, and no
file. Division by zero gives inf or NaN as in NumPy, without a branch at every division.
"""

from functools import partial

from numba import njit

entry = partial(njit, cache=True, nogil=True, error_model="numpy", no_cfunc_wrapper=True)
helper = partial(njit, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)
