"""The Numba backend: fused loops over the record, A(Δ) and Q(Δ) formed on the way.

Python only cuts the record into segments here. A backward sweep needs the predicted moments of every sample: they are
kept for one segment at a time, and recomputed from the state at its beginning when the sweep gets there.
"""

import math
import sys

import numpy as np

from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.kalman_filter.blocks import wanted_entries
from statespace.kernels.kalman_filter.compiled import workspace
from statespace.kernels.kalman_filter.discretization import contract_all, discretize_all, expand, moves
from statespace.kernels.kalman_filter.expectations import gradient_of, smoothed_of, write_filtered
from statespace.kernels.kalman_filter.forward import forward_start, log_likelihood
from statespace.kernels.kalman_filter.gradient import add_initial_adjoints
from statespace.kernels.kalman_filter.known_start import least_squares
from statespace.kernels.kalman_filter.lanes import filter_batch, gradient_batch, likelihood_batch, smooth_batch
from statespace.kernels.kalman_filter.looping import filter_each, gradient_each, likelihood_each, smooth_each
from statespace.kernels.kalman_filter.record import (
    FILTERED,
    GAINS,
    NOTHING,
    PREDICTED,
    TILES,
    Record,
    State,
    borrowed_room,
    bytes_of_a_sample,
    left,
    nothing_seen,
    room,
    start_from,
    way_back,
    width_of,
    workspace_for,
)
from statespace.kernels.kalman_filter.results import FilterResult, Gradient, SmootherResult
from statespace.kernels.kalman_filter.routes import forward, gradient_segment
from statespace.kernels.kalman_filter.smoothing import smooth_segment
from statespace.kernels.kalman_filter.stretches_gradient import gradient_in_stretches

SEGMENT_BYTES = 64_000_000
SHORTEST_SEGMENT = 16
# Of P∗ after the diffuse start, in units of the noise, and of the directions: see ``known_start.py``. In a search,
# which may be wrong by some thousandths until its end, P∗ may be larger.
TAME, ROUGHLY_TAME, FEWEST = 1e7, 1e14, 3
# Of many records, how many are looked at for this, and how far.
LOOKED_AT, LOOK = 5, 64


def discretize_blocks(blocks, dt):
    n = blocks.n_states
    transition, process_noise = np.zeros((len(dt), n, n)), np.zeros((len(dt), n, n))
    units = expand(blocks.kind, blocks.size)
    work = workspace_for(units, n, 0)
    discretize_all(units, blocks, dt, work.steps, transition, process_noise)
    return transition, process_noise


def contract_blocks(blocks, dt, transition_bar, process_noise_bar):
    gradient = Gradient(*(np.zeros_like(array) for array in blocks[2:5]), *np.zeros((5, 0)))
    units = expand(blocks.kind, blocks.size)
    work = workspace_for(units, blocks.n_states, 0)
    contract_all(units, blocks, dt, transition_bar, process_noise_bar, work.steps, gradient)
    return gradient.parameters


def kalman_log_likelihood(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, *, starts=None, tame=None
):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    state = start_from(mean, covariance, diffuse)
    if starts is not None:
        if _some_are_lost(record, blocks, units, state, starts, tame):
            given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
            return likelihood_each(kalman_log_likelihood, starts, *given)
        return likelihood_batch(record, units, state, starts)
    work = workspace_for(units, *diffuse.shape)
    forward(record, units, 0, len(y), state, NOTHING, room(0, len(mean), 0, NOTHING), 0, work)
    if _is_lost(record, blocks, state, tame):
        known = _known_start(record, units, mean, covariance, diffuse)
        if known is not None:
            return known.log_likelihood
    return log_likelihood(state)


def kalman_filter(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, *, starts=None):
    record = Record(y, dt, *blocks, observation, noise_variance)
    state = start_from(mean, covariance, diffuse)
    units = expand(blocks.kind, blocks.size)
    if starts is not None and _some_are_lost(record, blocks, units, state, starts):
        given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse)
        return filter_each(kalman_filter, starts, *given)
    kept = room(len(y), len(mean), 0, FILTERED)
    if starts is None:
        forward(record, units, 0, len(y), state, FILTERED, kept, 0, workspace_for(units, *diffuse.shape))
        value, rest, n_diffuse = log_likelihood(state), left(state), int(state.counts[3])
        if _is_lost(record, blocks, state):
            known = _known_start(record, units, mean, covariance, diffuse)
            if known is not None:
                value = known.log_likelihood
                fixed = y, dt, blocks, observation, noise_variance
                given = kept, int(state.counts[2]), fixed, mean, covariance, diffuse
                n_diffuse = write_filtered(sys.modules[__name__], *given)
                rest = np.zeros((len(mean), 0))
    else:
        value, rest, n_diffuse = filter_batch(record, units, state, starts, kept)
    return FilterResult(value, kept.mean, kept.covariance, kept.innovation, kept.variance, rest, n_diffuse)


class Stepper:
    """A filter one sample at a time, with all that the compiled loop wants laid out once: see ``kalman_stepper``."""

    def __init__(self, blocks, observation, mean, covariance, diffuse):
        n, d = diffuse.shape
        self._record = Record(
            np.zeros(1), np.zeros(1), *(array.copy() for array in blocks), observation.copy(), np.zeros(1)
        )
        self._state = start_from(mean, covariance, diffuse)
        self._units = expand(self._record.kind, self._record.size)
        self._kept = room(1, n, 0, FILTERED)
        self._row = blocks.gap_index.copy()
        # of its own: a copied or pickled stepper takes it along
        self._work = workspace.__wrapped__(*width_of(self._units), n, d)
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
        forward(record, self._units, 0, 1, self._state, FILTERED, self._kept, 0, self._work)
        if self.n_diffuse:
            self.n_diffuse = int(self._state.counts[0])

    @property
    def diffuse(self):
        return left(self._state)

    @property
    def innovation(self):
        return float(self._kept.innovation[0])

    @property
    def innovation_variance(self):
        return float(self._kept.variance[0])


def kalman_gradient(
    y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters, by_observation, *,
    starts=None, tame=None,
):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    T, n = len(y), len(mean)
    if starts is not None and (
        _too_long(starts, diffuse)
        or _some_are_lost(record, blocks, units, start_from(mean, covariance, diffuse), starts, tame)
    ):
        given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, free_parameters)
        return gradient_each(kalman_gradient, starts, *given, by_observation)
    arguments = (*blocks[2:5], noise_variance, observation, mean, covariance, diffuse)
    gradient = Gradient(*(np.zeros_like(argument) for argument in arguments))
    moving = moves(blocks.kind, free_parameters)[units[2]]
    origin, state, b = start_from(mean, covariance, diffuse), start_from(mean, covariance, diffuse), nothing_seen(n)
    work = workspace_for(units, *diffuse.shape)

    keep = way_back(units, n)

    def back(first, last, kept, base):
        tiled = keep == TILES and state.counts[0] == 0
        gradient_segment(
            record, units, moving, by_observation, first, last, 0, T, state.counts[2], tiled, origin, kept, base, b,
            gradient, work,
        )  # fmt: skip

    in_stretches = None
    if starts is None and keep == TILES and n > 2:
        in_stretches = gradient_in_stretches(record, units, origin, moving, by_observation, b, gradient, work)
        if in_stretches is None:
            b = nothing_seen(n)
            gradient = Gradient(*(np.zeros_like(argument) for argument in arguments))
    if starts is not None:
        value = gradient_batch(record, units, origin, starts, moving, by_observation, gradient)
    else:
        if in_stretches is not None:
            state = in_stretches
        elif by_observation or moving.any() or n <= 2 or keep == TILES:
            for first, last, kept in _backwards(record, units, state, work, keep):
                back(first, last, kept, first)
        else:
            # r and N need no moments but those of the diffuse start, which are filtered once more for themselves
            for first, last, kept in _backwards(record, units, state, work, GAINS):
                begin = max(first, int(state.counts[2]))
                if begin < last:
                    back(begin, last, kept, first)
            if state.counts[2] > 0:
                again = start_from(mean, covariance, diffuse)
                for first, last, kept in _backwards(record, units, again, work, stop=int(state.counts[2])):
                    back(first, last, kept, first)
        if _is_lost(record, blocks, state, tame):
            known = _known_start(record, units, mean, covariance, diffuse)
            if known is not None:
                fixed = y, dt, blocks, observation, noise_variance
                return gradient_of(
                    sys.modules[__name__], known, fixed, mean, covariance, diffuse, free_parameters, by_observation
                )
        add_initial_adjoints(b, origin, gradient)
        value = log_likelihood(state)
    if not by_observation:
        gradient.observation[:] = 0.0
    gradient.parameters[~free_parameters] = 0.0
    gradient.transition[:, ~wanted_entries(blocks, free_parameters)] = 0.0
    return value, gradient


def kalman_smoother(y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout, *, starts=None):
    record = Record(y, dt, *blocks, observation, noise_variance)
    units = expand(blocks.kind, blocks.size)
    if starts is not None and (
        _too_long(starts, diffuse)
        or _some_are_lost(record, blocks, units, start_from(mean, covariance, diffuse), starts)
    ):
        given = (y, dt, blocks, observation, noise_variance, mean, covariance, diffuse, readout)
        return smooth_each(kalman_smoother, starts, *given)
    T, n = len(y), len(mean)
    whole = readout is None
    readout = np.zeros((1, 0, n)) if whole else readout
    r = readout.shape[1]
    means, variances = np.empty((T, n if whole else r)), np.empty((T, r))
    covariances = np.empty((T if whole else 0, n, n))
    state = start_from(mean, covariance, diffuse)
    if starts is not None:
        value = smooth_batch(record, units, state, starts, readout, means, variances, covariances)
    else:
        work, b = workspace_for(units, *diffuse.shape), nothing_seen(n)
        for first, last, kept in _backwards(record, units, state, work):
            smooth_segment(
                record, units, first, last, T, state.counts[2], state.counts[0] > 0, kept, first, b, readout, means,
                variances, covariances, work,
            )  # fmt: skip
        value = log_likelihood(state)
        if _is_lost(record, blocks, state):
            known = _known_start(record, units, mean, covariance, diffuse)
            if known is not None:
                fixed = y, dt, blocks, observation, noise_variance
                return smoothed_of(
                    sys.modules[__name__], known, fixed, mean, covariance, diffuse, None if whole else readout
                )
    return SmootherResult(value, means, covariances if whole else variances)


def _is_lost(record, blocks, state, tame=None):
    """Whether P∗ after the diffuse start was so large beside the noise that too few digits of it were left."""
    return len(state.diffuse) >= FEWEST and _is_large(record, blocks, state, tame)


def _some_are_lost(record, blocks, units, origin, starts, tame=None):
    """`_is_lost` of some of many records: they have the model in common, and mostly the kind of gaps."""
    n, d = len(origin.mean), len(origin.diffuse)
    if d < FEWEST:
        return False
    work, nothing = workspace_for(units, n, d), room(0, n, 0, NOTHING)
    for i in np.unique(np.linspace(0, len(starts) - 2, LOOKED_AT).astype(np.intp)):
        state = State(*(array.copy() for array in origin))
        forward_start(record, units, starts[i], min(starts[i] + LOOK, starts[i + 1]), state, NOTHING, nothing, 0, work)
        if _is_large(record, blocks, state, tame):
            return True
    return False


def _is_large(record, blocks, state, tame):
    return is_large(record, blocks, state.totals[4], tame)


def is_large(record, blocks, size, tame=None):
    """Whether ``size``, how much of y's variance P∗ made up after the diffuse start, is large beside the noise."""
    tame = TAME if tame is None else tame
    R = record.noise_variance
    if size <= tame * R.max() or R.min() == 0.0:
        return False
    h = np.abs(record.observation).max(axis=0)
    # of the last sample with a gap before it
    moved = np.flatnonzero(record.gap_index >= 0) if len(record.gap_index) else np.arange(len(record.dt))
    last = slice(moved[-1], moved[-1] + 1) if len(moved) else slice(0, 1)
    noise = discretize_blocks(blocks._replace(gap_index=record.gap_index[last]), record.dt[last])[1][0]
    return bool(size > tame * (R.max() + h**2 @ np.diag(noise)))


def _responses(record, units, covariance, diffuse):
    """v of the filters that start at the columns of ``diffuse``, y = 0: (T, d)."""
    flat = record._replace(y=np.where(np.isnan(record.y), np.nan, 0.0))
    return np.column_stack([_innovations(flat, units, column, covariance)[0] for column in diffuse.T])


def _innovations(record, units, mean, covariance):
    n, T = len(mean), len(record.y)
    state, kept = start_from(mean, covariance, np.zeros((n, 0))), room(T, n, 0, GAINS)
    forward(record, units, 0, T, state, GAINS, kept, 0, workspace_for(units, n, 0))
    return kept.innovation, kept.variance


def _known_start(record, units, mean, covariance, diffuse):
    v, F = _innovations(record, units, mean, covariance)
    return least_squares(v, _responses(record, units, covariance, diffuse), F)


def _too_long(starts, diffuse):
    """Whether one of the records needs more than one segment."""
    return np.diff(starts).max() * bytes_of_a_sample(*diffuse.shape, PREDICTED) > SEGMENT_BYTES


def _backwards(record, units, state, work, keep=PREDICTED, stop=None):
    """Run the filter, then yield (first, last, what is kept) of each segment, from the last to the first.

    ``state`` is the final one from the first segment on. Samples from ``stop`` on are left out.
    """
    T, n, d = len(record.y) if stop is None else stop, len(state.mean), len(state.diffuse)
    blocks = width_of(units)[1] if keep == TILES else 0
    fit = SEGMENT_BYTES // bytes_of_a_sample(n, d, keep, blocks)
    length = min(T, max(fit, math.isqrt(T), SHORTEST_SEGMENT))
    with borrowed_room(length, n, d, keep, blocks) as kept:
        beginnings = []
        for first in range(0, T, length):
            beginnings.append(State(*(array.copy() for array in state)))
            forward(record, units, first, min(T, first + length), state, keep, kept, first, work)
        for first in range((len(beginnings) - 1) * length, -1, -length):
            last = min(T, first + length)
            if last < T:
                forward(record, units, first, last, beginnings[first // length], keep, kept, first, work)
            yield first, last, kept
