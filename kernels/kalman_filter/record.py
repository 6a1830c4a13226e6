"""What a sweep reads, carries and leaves, and how Python makes room for it."""

from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter.compiled import workspace

NOTHING, FILTERED, PREDICTED, GAINS = range(4)


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
    ``totals``: Σ log F so far, the running product of F since, Σ v²/F, the last F.
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    counts: np.ndarray
    totals: np.ndarray


class Kept(NamedTuple):
    """What a sweep leaves of each sample: the moments, D and its living rows, v, F, the observation's status, m."""

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray
    alive: np.ndarray
    innovation: np.ndarray
    variance: np.ndarray
    status: np.ndarray
    product: np.ndarray


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
    return State(mean.copy(), covariance.copy(), rows, np.array([len(rows), 0, 0, 0]), np.array([0.0, 1.0, 0.0, 0.0]))


def workspace_for(units, n, d):
    return workspace(width_of(units), n, d)


def width_of(units):
    return sum(s * s for s in units[1].tolist())


def left(state):
    return state.diffuse[: state.counts[0]].T.copy()


def nothing_seen(n):
    return Backward(np.zeros(n), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)))


def room(length, n, d, keep):
    moments = length if keep in (FILTERED, PREDICTED) else 0
    predicted = length if keep == PREDICTED else 0
    products = length if keep in (PREDICTED, GAINS) else 0
    return Kept(
        np.empty((moments, n)), np.empty((moments, n, n)), np.empty((predicted, d, n)),
        np.empty(predicted, dtype=np.int64), np.empty(length), np.empty(length), np.empty(length, dtype=np.int64),
        np.empty((products, n)),
    )  # fmt: skip


def bytes_of_a_sample(n, d, keep):
    """What ``Kept`` takes for a sample."""
    return 8 * (n + 3 if keep == GAINS else n * n + n * (2 + d) + 4)
