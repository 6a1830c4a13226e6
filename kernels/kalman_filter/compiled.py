"""How the loops of this folder are compiled: once per machine.

``entry`` is what Python calls, and is cached on disk. Arrays come from Python only (``Workspace``): without Numba's own
memory there is no reference counting, whose atomic increments would cost more than a step of the filter. A ``helper``
is inlined for the same reason, an array being seven words to pass; a ``shared`` one does enough work, in enough places,
to be called. Neither has a Python wrapper, which would take longer to compile than itself, nor machine code: each is
simplified on its own before it becomes a part of its callers (``parts.py``). A large one with one caller is
``embedded``, a part from the beginning. Division by zero gives inf or NaN as in NumPy, without a branch at every
division.

Numba looks only at an entry's own file to see whether its cache is stale: after a change to a helper, delete
``__pycache__``.
"""

from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numba import njit

from statespace.kernels.kalman_filter.parts import AS_PART

entry = partial(njit, cache=True, error_model="numpy", no_cfunc_wrapper=True, _nrt=False)
shared = partial(njit, error_model="numpy", no_cfunc_wrapper=True, no_cpython_wrapper=True, _nrt=False, **AS_PART)
helper = partial(shared, forceinline=True)
embedded = partial(shared, inline="always")

# Numbers with a type. A function that is handed Python's 0 or True is compiled for that very constant, and then again.
ZERO, ONE, NO, YES = np.int64(0), np.int64(1), np.bool_(False), np.bool_(True)


# Samples of a chunk in ``projective.py``, whose columns fit into a first cache, and how far apart these begin: not a
# power of two, which would let them displace one another.
CHUNK = 128
COLUMN = 136


class Transitions(NamedTuple):
    """Room for a chunk: ``slot`` (C,) of each sample, −1 where the state stays; of each slot Δ, row, A, Q, Ā, Q̄.

    ``root``, ``rest`` hold what one block wants of each slot before its matrices: exp(−λΔ) and a function of it.
    """

    slot: np.ndarray
    gap: np.ndarray
    row: np.ndarray
    A: np.ndarray
    Q: np.ndarray
    A_bar: np.ndarray
    Q_bar: np.ndarray
    root: np.ndarray
    rest: np.ndarray


class Tiles(NamedTuple):
    """Room for the sweeps of ``tiles.py``: tiles of a symmetric matrix, vectors with two entries for every block."""

    P: np.ndarray
    a: np.ndarray
    m: np.ndarray
    k: np.ndarray
    w: np.ndarray
    h: np.ndarray
    x: np.ndarray


class Workspace(NamedTuple):
    """Room for one sweep: transitions, tiles, columns, packed blocks Aᵀ (Σ s²,), vectors (n,), matrices (n, n)."""

    steps: Transitions
    tiles: Tiles
    columns: np.ndarray
    At: np.ndarray
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
def workspace(width, blocks, n, d):
    """``width`` is Σ s², or 4 for each of ``blocks`` where there are tiles.

    Used again by later calls: a sweep holds the interpreter's lock and leaves nothing behind. Who wants one of its own
    calls ``workspace.__wrapped__``. A chunk's A and Q take 32 kB, as much as a first cache.
    """
    width = max(4, width)
    chunk = max(8, min(256, 2048 // width))
    packed = np.zeros((4, chunk, width))
    slot, row = np.zeros((2, chunk), dtype=np.int64)
    steps = Transitions(slot, np.zeros(chunk), row, *packed, *np.zeros((2, chunk)))
    tiles = Tiles(np.zeros(2 * blocks * (blocks + 1)), *np.zeros((6, 2 * blocks)))
    matrices = np.zeros((4, n, n))
    return Workspace(
        steps, tiles, np.zeros(40 * COLUMN), np.zeros(width), *matrices, np.zeros((d, n)), *np.zeros((5, n)),
        np.zeros(d), np.zeros(4), *np.zeros((2, n)), np.zeros((3, max(n, d))),
    )  # fmt: skip
