"""How the loops of this folder are compiled: once per machine.

``entry`` is what Python calls, and is cached on disk. Arrays come from Python only (``Workspace``): without Numba's own
memory there is no reference counting, whose atomic increments would cost more than a step of the filter. A ``helper``
is inlined for the same reason, an array being seven words to pass; a ``shared`` one does enough work, in enough places,
to be called. Neither has a Python wrapper, which would take longer to compile than itself. Division by zero gives inf
or NaN as in NumPy, without a branch at every division.

Numba looks only at an entry's own file to see whether its cache is stale: after a change to a helper, delete
``__pycache__``.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numba import njit

entry = partial(njit, cache=True, error_model="numpy", no_cfunc_wrapper=True, _nrt=False)
shared = partial(njit, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True, _nrt=False)
helper = partial(shared, forceinline=True)


class Workspace(NamedTuple):
    """Room for one sweep: packed blocks (Σ s²,), vectors (n,) and matrices (n, n)."""

    A: np.ndarray
    Q: np.ndarray
    At: np.ndarray
    A_bar: np.ndarray
    Q_bar: np.ndarray
    W: np.ndarray
    X: np.ndarray
    Y: np.ndarray
    P: np.ndarray
    D: np.ndarray
    a: np.ndarray
    m: np.ndarray
    K0: np.ndarray
    e0: np.ndarray
    e1: np.ndarray
    g: np.ndarray
    u: np.ndarray
    x: np.ndarray
    z: np.ndarray
    scratch: np.ndarray


@lru_cache(maxsize=32)
def workspace(width, n, d):
    """``width`` is Σ s². Used again by later calls: a sweep holds the interpreter's lock and leaves nothing behind.

    Who wants one of its own calls ``workspace.__wrapped__``.
    """
    width = max(4, width)
    packed = np.zeros((5, width))
    matrices = np.zeros((4, n, n))
    return Workspace(
        *packed, *matrices, np.zeros((d, n)), *np.zeros((5, n)), np.zeros(d), np.zeros(4), *np.zeros((2, n)),
        np.zeros((3, max(n, d))),
    )  # fmt: skip
