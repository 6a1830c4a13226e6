"""The Numba backend: fused loops over the record, A(Δ) and Q(Δ) formed on the way.

Python only cuts the record into segments here. A backward sweep needs the predicted moments of every sample: they are
kept for one segment at a time, and recomputed from the state at its beginning when the sweep gets there.
"""

import math

import numpy as np

from statespace.kernels.kalman_filter.backward import Backward
from statespace.kernels.kalman_filter.blocks import MATERN32
from statespace.kernels.kalman_filter.compiled import workspace
from statespace.kernels.kalman_filter.discretization import contract_all, discretize_all, expand, moves
from statespace.kernels.kalman_filter.forward import (
    FILTERED,
    GAINS,
    NOTHING,
    PREDICTED,
    Kept,
    Record,
    State,
    fill_gammas,
    forward,
    forward_pair,
)
from statespace.kernels.kalman_filter.gradient import gradient_segment
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult
from statespace.kernels.kalman_filter.smoothing import smooth_segment

SEGMENT_BYTES = 64_000_000
PAIR_CHUNK = 4096
SHORTEST_SEGMENT = 16


def discretize_blocks(blocks, dt):
    n = blocks.n_states
    transition, process_noise = np.zeros((len(dt), n, n)), np.zeros((len(dt), n, n))
    units = expand(blocks.kind, blocks.size)
    work = _workspace(units, n, 0)
    discretize_all(units, blocks, dt, work.A, work.Q, transition, process_noise)
    return transition, process_noise


def contract_blocks(blocks, dt, transition_bar, process_noise_bar):
    gradient = Gradient(*(np.zeros_like(array) for array in blocks[2:5]), *np.zeros((5, 0)))
    units = expand(blocks.kind, blocks.size)
    work = _workspace(units, blocks.n_states, 0)
    contract_all(units, blocks, dt, transition_bar, process_noise_bar, work.A_bar, work.Q_bar, gradient)
    return gradient.parameters


def kalman_log_likelihood(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    state = _start(mean, covariance, diffuse)
    work = _workspace(units, *diffuse.shape)
    stop = forward(record, units, 0, len(y), state, NOTHING, _room(0, len(mean), 0, NOTHING), work)
    roots, gammas = np.empty((2, min(len(y), PAIR_CHUNK)))
    for first in range(stop, len(y), PAIR_CHUNK):
        last = min(len(y), first + PAIR_CHUNK)
        if blocks.kind[0] == MATERN32:
            rate, gaps = blocks.parameters[0, 0], dt[first:last]
            exponents = np.multiply(gaps, -rate, out=roots[: len(gaps)])
            np.exp(exponents, out=exponents)
            fill_gammas(rate, gaps, roots, gammas)
        forward_pair(record, units, first, last, state, work, roots, gammas)
    return _log_likelihood(state)


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse):
    record = Record(y, dt, *blocks, observation, noise_variance)
    state = _start(mean, covariance, diffuse)
    kept = _room(len(y), len(mean), 0, FILTERED)
    units = expand(blocks.kind, blocks.size)
    forward(record, units, 0, len(y), state, FILTERED, kept, _workspace(units, *diffuse.shape))
    return FilterResult(
        _log_likelihood(state), kept.mean, kept.covariance, kept.innovation, kept.variance, _left(state),
        int(state.counts[3]),
    )  # fmt: skip


class Stepper:
    """A filter one sample at a time, with all that the compiled loop wants laid out once: see ``kalman_stepper``."""

    def __init__(self, blocks, observation, mean, covariance, diffuse):
        n, d = diffuse.shape
        self._record = Record(
            np.zeros(1), np.zeros(1), *(array.copy() for array in blocks), observation.copy(), np.zeros(1)
        )
        self._state = _start(mean, covariance, diffuse)
        self._units = expand(self._record.kind, self._record.size)
        self._kept = _room(1, n, 0, FILTERED)
        self._row = blocks.gap_index.copy()
        # of its own: a copied or pickled stepper takes it along
        self._work = workspace.__wrapped__(_width(self._units), n, d)
        self.mean, self.covariance = self._state.mean, self._state.covariance
        self.n_diffuse = d

    def step(self, y, dt, noise_variance, observation=None, table=None, predict=True):
        record = self._record
        record.y[0] = y
        record.dt[0] = dt if predict else 0.0
        if len(self._row):
            record.gap_index[0] = self._row[0] if predict else -1
        record.noise_variance[0] = noise_variance
        if observation is not None:
            record.observation[0] = observation
        if table is not None:
            record.transition[0], record.process_noise[0] = table
        forward(record, self._units, 0, 1, self._state, FILTERED, self._kept, self._work)
        if self.n_diffuse:
            self.n_diffuse = int(self._state.counts[0])

    @property
    def diffuse(self):
        return _left(self._state)

    @property
    def innovation(self):
        return float(self._kept.innovation[0])

    @property
    def innovation_variance(self):
        return float(self._kept.variance[0])


def kalman_gradient(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters, by_observation
):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    arguments = (*blocks[2:5], noise_variance, observation, mean, covariance, diffuse)
    gradient = Gradient(*(np.zeros_like(argument) for argument in arguments))
    moving = moves(blocks.kind, free_parameters)[units[2]]
    origin, state, b = _start(mean, covariance, diffuse), _start(mean, covariance, diffuse), _nothing_seen(len(mean))
    work = _workspace(units, *diffuse.shape)

    def back(first, last, kept):
        gradient_segment(
            record, units, moving, by_observation, first, last, state.counts[2], origin, kept, b, gradient, work
        )

    if by_observation or moving.any():
        for part in _backwards(record, units, state, work):
            back(*part)
    else:
        # r and N need no moments but those of the diffuse start, which are filtered once more for themselves
        for first, last, kept in _backwards(record, units, state, work, GAINS):
            begin = max(first, int(state.counts[2]))
            if begin < last:
                back(begin, last, Kept(*(array[begin - first :] for array in kept)))
        if state.counts[2] > 0:
            again = _start(mean, covariance, diffuse)
            for part in _backwards(record, units, again, work, stop=int(state.counts[2])):
                back(*part)
    if not by_observation:
        gradient.observation[:] = 0.0
    gradient.parameters[~free_parameters] = 0.0
    gradient.mean[:] = b.r0
    gradient.covariance[:] = 0.5 * (np.outer(b.r0, b.r0) - b.N0)
    gradient.diffuse[:] = (np.outer(b.r0, b.r1) + np.outer(b.r1, b.r0) - b.N1) @ diffuse
    return _log_likelihood(state), gradient


def kalman_smoother(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    T, n = len(y), len(mean)
    whole = readout is None
    readout = np.zeros((1, 0, n)) if whole else readout
    r = readout.shape[1]
    means, variances = np.empty((T, n if whole else r)), np.empty((T, r))
    covariances = np.empty((T if whole else 0, n, n))
    state, b = _start(mean, covariance, diffuse), _nothing_seen(n)
    work = _workspace(units, *diffuse.shape)
    for first, last, kept in _backwards(record, units, state, work):
        smooth_segment(
            record, units, first, last, state.counts[2], state.counts[0] > 0, kept, b, readout, means, variances,
            covariances, work,
        )  # fmt: skip
    return SmootherResult(_log_likelihood(state), means, covariances if whole else variances)


def _start(mean, covariance, diffuse):
    """The state before the first sample, copied."""
    rows = diffuse.T.copy()
    return State(mean.copy(), covariance.copy(), rows, np.array([len(rows), 0, 0, 0]), np.array([0.0, 1.0, 0.0, 0.0]))


def _workspace(units, n, d):
    return workspace(_width(units), n, d)


def _width(units):
    return sum(s * s for s in units[1].tolist())


def _left(state):
    return state.diffuse[: state.counts[0]].T.copy()


def _log_likelihood(state):
    logs, product, squares, _ = state.totals.tolist()
    return -0.5 * (logs + math.log(product) + squares + int(state.counts[1]) * math.log(2.0 * math.pi))


def _nothing_seen(n):
    return Backward(np.zeros(n), np.zeros(n), np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n)))


def _room(length, n, d, keep):
    moments = length if keep in (FILTERED, PREDICTED) else 0
    predicted = length if keep == PREDICTED else 0
    products = length if keep in (PREDICTED, GAINS) else 0
    return Kept(
        np.empty((moments, n)), np.empty((moments, n, n)), np.empty((predicted, d, n)),
        np.zeros(predicted, dtype=np.int64), np.empty(length), np.empty(length), np.zeros(length, dtype=np.int64),
        np.empty((products, n)),
    )  # fmt: skip


def _backwards(record, units, state, work, keep=PREDICTED, stop=None):
    """Run the filter, then yield (first, last, what is kept) of each segment, from the last to the first.

    ``state`` is the final one from the first segment on. Samples from ``stop`` on are left out.
    """
    T, n, d = len(record.y) if stop is None else stop, len(state.mean), len(state.diffuse)
    fit = SEGMENT_BYTES // (8 * (n + 3 if keep == GAINS else n * n + n * (2 + d) + 4))
    length = min(T, max(fit, math.isqrt(T), SHORTEST_SEGMENT))
    kept = _room(length, n, d, keep)
    beginnings = []
    for first in range(0, T, length):
        beginnings.append(State(*(array.copy() for array in state)))
        forward(record, units, first, min(T, first + length), state, keep, kept, work)
    for first in range((len(beginnings) - 1) * length, -1, -length):
        last = min(T, first + length)
        if last < T:
            forward(record, units, first, last, beginnings[first // length], keep, kept, work)
        yield first, last, kept
