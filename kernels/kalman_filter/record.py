"""What a sweep reads, carries and leaves, and how Python makes room for it."""

from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.compiled import workspace

NOTHING, FILTERED, PREDICTED, GAINS, TILES = range(5)

# of one or two states: filtered a, predicted P₀₀, P₀₁, P₁₁, 1/F and v/F (0 where nothing was observed)
ROWS = 7


class Record(NamedTuple):
    """What a sweep reads: y (T,), Δ (T,), the blocks, h (1, n) or (T, n), R (1,) or (T,)."""

    y: np.ndarray
    dt: np.ndarray
    kind: np.ndarray
    size: np.ndarray
    parameters: np.ndarray
    transition: np.ndarray
    process_noise: np.ndarray
    gap_index: np.ndarray
    observation: np.ndarray
    noise_variance: np.ndarray


class State(NamedTuple):
    """What a sweep carries and changes in place: a (n,), P (n, n), D (d, n) row by row, and running totals.

    ``counts``: rows of D still alive, samples observed, 1 + index of the last DIFFUSE one, samples that began diffuse.
    ``totals``: Σ log F so far, the running product of F since, Σ v²/F, the last F, how much of y's variance P∗ made up
    after a sample that was DIFFUSE, at most.
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    counts: np.ndarray
    totals: np.ndarray


class Kept(NamedTuple):
    """What a sweep leaves of each sample: the moments, D and its living rows, v, F, the observation's status, m.

    TILES, from where nothing is diffuse any more: a, m and P of ``tiles.py`` side by side; of one or two states the
    ``ROWS`` of ``adjoint.py``, one after the other. Samples abreast[0] … abreast[1] − 1 are those of ``strides.py``, in
    the order of its vectors: filtered a and P, 1/F, v/F.
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    alive: np.ndarray
    innovation: np.ndarray
    variance: np.ndarray
    status: np.ndarray
    product: np.ndarray
    tiles: np.ndarray
    abreast: np.ndarray


class Backward(NamedTuple):
    """r₀, r₁ (n,) and N₀, N₁, N₂ (n, n), changed in place."""

    r0: np.ndarray
    r1: np.ndarray
    N0: np.ndarray
    N1: np.ndarray
    N2: np.ndarray


def start_from(mean, covariance, diffuse):
    """The state before the first sample, copied."""
    rows = diffuse.T.copy()
    counts, totals = np.array([len(rows), 0, 0, 0]), np.array([0.0, 1.0, 0.0, 0.0, 0.0])
    return State(mean.copy(), covariance.copy(), rows, counts, totals)


def workspace_for(units, n, d):
    return workspace(*width_of(units), n, d)


def width_of(units):
    """How many numbers the packed blocks need, and how many blocks there are where all fit into tiles (else 0)."""
    sizes = units[1].tolist()
    if max(sizes) <= 2:
        return 4 * len(sizes), len(sizes)
    return sum(s * s for s in sizes), 0


def way_back(units, n):
    """What a forward sweep keeps for the gradient."""
    return TILES if width_of(units)[1] else PREDICTED


def left(state):
    return state.diffuse[: state.counts[0]].T.copy()


def nothing_seen(n):
    return Backward(np.zeros(n), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)))


def room(length, n, d, keep, blocks=0):
    moments = length if keep in (FILTERED, PREDICTED, TILES) else 0
    predicted = length if keep in (PREDICTED, TILES) else 0
    products = length if keep in (PREDICTED, GAINS, TILES) else 0
    tiles = (length if keep == TILES else 0, 2 * blocks * (blocks + 3))
    return Kept(
        np.empty((moments, n)), np.empty((moments, n, n)), np.empty((predicted, d, n)),
        np.empty(predicted, dtype=np.int64), np.empty(length), np.empty(length), np.empty(length, dtype=np.int64),
        np.empty((products, n)), np.empty((ROWS, tiles[0]) if n <= 2 else tiles),
        np.zeros(2, dtype=np.int64),
    )  # fmt: skip


def bytes_of_a_sample(n, d, keep, blocks=0):
    """What ``Kept`` takes for a sample."""
    if keep == TILES:
        return 8 * (ROWS if n <= 2 else 2 * blocks * (blocks + 3) + 3)
    return 8 * (n + 3 if keep == GAINS else n * n + n * (2 + d) + 4)


# what the last backward sweep left of its room: to touch new memory costs as much as to filter
_spare: list[tuple[tuple[int, int, int, int], Kept]] = []
SPARE_BYTES = 32_000_000


@contextmanager
def borrowed_room(length, n, d, keep, blocks=0):
    """``room`` for a sweep, from the last one's where that fits. Two threads never hold the same."""
    try:
        key, kept = _spare.pop()
    except IndexError:
        key, kept = None, None
    if key != (n, d, keep, blocks) or len(kept.status) < length:
        key, kept = (n, d, keep, blocks), room(length, n, d, keep, blocks)
    try:
        yield kept
    finally:
        if len(kept.status) * bytes_of_a_sample(n, d, keep, blocks) <= SPARE_BYTES and not _spare:
            _spare.append((key, kept))
