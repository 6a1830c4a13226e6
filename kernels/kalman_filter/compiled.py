"""How the loops of this folder are compiled: once per machine, ``entry`` for what Python calls, ``helper`` for the rest.

Division by zero gives inf or NaN as in NumPy, without a branch at every division; a helper has no Python wrapper, which
would take longer to compile than itself. Numba looks only at the file of an entry to see whether its cache is stale:
after a change to a helper, delete ``__pycache__``.
"""

from functools import partial

from numba import njit

entry = partial(njit, cache=True, error_model="numpy", no_cfunc_wrapper=True)
helper = partial(njit, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True)
