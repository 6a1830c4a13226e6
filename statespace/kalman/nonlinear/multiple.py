"""Several models of one state, and a Markov chain that switches between them."""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import expm

from statespace.kalman.nonlinear.chance import log_sum
from statespace.kalman.nonlinear.gaussian import GaussianFilter, log_density
from statespace.kalman.nonlinear.integration import random_steps
from statespace.kalman.nonlinear.interface import StateFilter
from statespace.kalman.nonlinear.record import grid
from statespace.kalman.nonlinear.results import GaussianState, SmootherResult
from statespace.kalman.nonlinear.roots import condition, solve_lower, triangular

# Later samples that narrow a direction by less than this say nothing of it.
_UNTOLD = 1e-9


class MixtureState(NamedTuple):
    """A Gaussian for each mode, the modes' probabilities, and where it stands.

    Attributes
    ----------
    modes : tuple of GaussianState
    probability : ndarray of shape (m,)
    time, n_samples, log_likelihood, innovation, innovation_covariance, u
        As in `GaussianState`; of the mixture.
    """

    modes: tuple[GaussianState, ...]
    probability: np.ndarray
    difference: Any
    time: float = 0.0
    n_samples: int = 0
    log_likelihood: float = 0.0
    innovation: np.ndarray | None = None
    innovation_covariance: np.ndarray | None = None
    u: np.ndarray | None = None

    @property
    def mean(self):
        """ndarray of shape (n,)."""
        return _collapse(self.modes, self.probability, self.difference)[0]

    @property
    def covariance(self):
        """ndarray of shape (n, n)."""
        root = _collapse(self.modes, self.probability, self.difference)[1]
        return root @ root.T


class InteractingMultipleModel(StateFilter):
    """Interacting-multiple-model filter and smoother.

    Each mode j has a filter of its own. Over a gap the modes mix, μ_{i|j} ∝ π_ij μ_i; the filter of mode j moves the
    Gaussian with the mixture's mean and covariance, takes the sample, and its likelihood Λ_j weighs the mode,
    μ_j ∝ Λ_j Σ_i π_ij μ_i. With one mode this is its filter.

    Parameters
    ----------
    filters : sequence of ExtendedKalmanFilter or UnscentedKalmanFilter
        Their models, linear or not, have the same states and outputs; the initial state is that of each.
    transition : array-like of shape (m, m), optional
        π_ij, the probability that mode j follows i from one sample to the next, whatever the gap. Rows sum to one.
    transition_rate : array-like of shape (m, m), optional
        In its place for irregular times, rates of change from i to j: π = exp(rate Δ). Rows sum to zero.
    initial_probability : array-like of shape (m,), optional
        Equal by default.

    Notes
    -----
    The smoother goes back through all pairs of modes, i before a gap and j after it. What the later samples say of the
    state under j, the ratio of its smoothed to its predicted Gaussian, is taken as an observation by i's prediction;
    its density there weighs the pair beside π_ij μ_i. (Without it, as in Kim 1994, a confident mode that the later
    state contradicts keeps its weight: errors may then exceed the filter's.) With one mode it is the filter's own
    smoother. `sample` draws modes and states back, from the state drawn.

    References
    ----------
    Blom and Bar-Shalom, IEEE Trans. Automatic Control 33, 1988 (filter); Kim, J. Econometrics 60, 1994; Barber,
    *Expectation correction for smoothed inference in switching linear dynamical systems*, JMLR 7, 2006.

    Examples
    --------
    A level that is quiet or lively:

    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import ExtendedKalmanFilter, InteractingMultipleModel, NonlinearModel
    >>> def mode(variance):
    ...     return ExtendedKalmanFilter(NonlinearModel(
    ...         [[1.0]], 0.1, drift=[[0.0]], spectral_density=variance, initial_mean=[0.0], initial_covariance=1.0))
    >>> imm = InteractingMultipleModel([mode(1e-4), mode(4.0)], transition_rate=[[-0.1, 0.1], [0.5, -0.5]])
    >>> result = imm.filter([0.1, 0.0, -0.1, 3.0, 6.5], times=[0, 1, 2, 3.5, 4])
    >>> result.extra["mode_probability"].argmax(axis=1)
    array([0, 0, 0, 1, 1])
    """

    def __init__(self, filters, transition=None, *, transition_rate=None, initial_probability=None):
        self.filters = list(filters)
        if not self.filters or not all(isinstance(f, GaussianFilter) for f in self.filters):
            raise ValueError("filters must be a list of extended or unscented Kalman filters, one for each mode.")
        sizes = [f.model.n_states for f in self.filters]
        if len(set(sizes)) > 1:
            raise ValueError(f"The models of all modes must have the same states. Their numbers are {sizes}.")
        super().__init__(self.filters[0].model)
        m = len(self.filters)
        if m == 1 and transition is None and transition_rate is None:
            transition = [[1.0]]
        if (transition is None) == (transition_rate is None):
            raise ValueError("Give one of transition and transition_rate.")
        self.transition = None if transition is None else _square(transition, m, "transition", 1.0)
        self.transition_rate = None if transition_rate is None else _square(transition_rate, m, "transition_rate", 0.0)
        given = np.full(m, 1.0 / m) if initial_probability is None else np.asarray(initial_probability, dtype=float)
        if given.shape != (m,) or not (given >= 0.0).all() or not np.isclose(given.sum(), 1.0):
            raise ValueError(f"initial_probability must be {m} numbers >= 0 whose sum is one. Got {given.tolist()}.")
        self.initial_probability = given / given.sum()

    def initial_state(self, time=0.0):
        """Each mode's initial state.

        Parameters
        ----------
        time : float, default=0.0

        Returns
        -------
        MixtureState
        """
        modes = tuple(f.initial_state(time) for f in self.filters)
        return MixtureState(modes, self.initial_probability, self.model.state_difference, float(time))

    def _prepare(self, p, t, u):
        for f in self.filters:
            f.model.prepare(p, t, u)

    def _switching(self, gap):
        if self.transition is not None:
            return self.transition
        return np.maximum(expm(self.transition_rate * gap), 0.0)

    def _mixing(self, probability, gap):
        """The modes' probabilities after a gap, and μ_{i|j} (i, j)."""
        joint = self._switching(gap) * probability[:, None]
        after = joint.sum(axis=0)
        # What no mode leads to keeps its own state.
        mixing = np.where(after > 0.0, joint / np.where(after > 0.0, after, 1.0), np.eye(len(after)))
        return after / after.sum(), mixing

    def _predict(self, state, gap, u, with_kernel=False):
        if gap == 0.0:
            return state, None
        after, mixing = self._mixing(state.probability, gap)
        modes = []
        for j, f in enumerate(self.filters):
            mean, root = _collapse(state.modes, mixing[:, j], state.difference)
            mixed = state.modes[j]._replace(mean=mean, root=root, time=state.time)
            modes.append(f._predict(mixed, gap, u)[0])
        return state._replace(modes=tuple(modes), probability=after, time=state.time + gap), None

    def _update(self, state, y_t, u):
        difference = self.model.observation_difference
        if state.n_samples == 0:
            self._prepare(len(y_t), state.time, u)
        modes = [
            f._update(mode._replace(time=state.time), y_t, u)
            for f, mode in zip(self.filters, state.modes, strict=True)
        ]
        gained = [new.log_likelihood - old.log_likelihood for new, old in zip(modes, state.modes, strict=True)]
        with np.errstate(divide="ignore"):
            weights = np.log(state.probability) + gained
        total = log_sum(weights)
        if not np.isfinite(total):
            raise ValueError(f"The observation at t = {state.time:g} is impossible in every mode.")
        means = np.stack([mode.innovation for mode in modes])
        innovation = state.probability @ means
        spread = difference(means, innovation)
        spread = np.where(np.isnan(spread), 0.0, spread)
        covariances = np.stack([mode.innovation_covariance for mode in modes])
        covariance = np.tensordot(state.probability, covariances, axes=1) + (spread.T * state.probability) @ spread
        return state._replace(
            modes=tuple(modes), probability=np.exp(weights - total), n_samples=state.n_samples + 1,
            log_likelihood=state.log_likelihood + total, innovation=innovation, innovation_covariance=covariance,
        )  # fmt: skip

    def _expect(self, state, u):
        each = [f._expect(mode._replace(time=state.time), u) for f, mode in zip(self.filters, state.modes, strict=True)]
        means, covariances = (np.stack(parts) for parts in zip(*each, strict=True))
        mean = self.model.observation_difference.mean(means, state.probability)
        spread = self.model.observation_difference(means, mean)
        within = np.tensordot(state.probability, covariances, axes=1)
        return mean, within + (spread.T * state.probability) @ spread

    def _moments(self, state):
        mean, root = _collapse(state.modes, state.probability, state.difference)
        return mean, root @ root.T

    def _note(self, notes, state):
        notes.setdefault("mode_probability", []).append(state.probability)

    def smooth(self, y, times=None, u=None):
        """The state and the modes at each sample given all samples.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        SmootherResult
            With ``extra["mode_probability"]`` (T, m).
        """
        record = self.model.record(y, times, u)
        states = [state for _, state, _ in self._forward(record)]
        n_times, n = len(states), self.model.n_states
        modes, probability = list(states[-1].modes), states[-1].probability
        means, covariances = np.empty((n_times, n)), np.empty((n_times, n, n))
        probabilities = np.empty((n_times, len(modes)))
        for k in range(n_times - 1, -1, -1):
            if k < n_times - 1 and record.gaps[k + 1] > 0.0:
                modes, probability = self._back(
                    states[k], record.t[k], modes, probability, record.gaps[k + 1], record.input(k)
                )
            means[k], root = _collapse(modes, probability, states[k].difference)
            covariances[k], probabilities[k] = root @ root.T, probability
        extra = {"mode_probability": probabilities}
        return SmootherResult(means, covariances, states[-1].log_likelihood, None, extra)

    def _pairs(self, state, t, gap, u):
        """For each mode i before a gap and j after it: the predicted state, the kernel back, and log π_ij μ_i."""
        start = [mode._replace(time=t) for mode in state.modes]
        pairs = [[f._predict(mode, gap, u, with_kernel=True) for f in self.filters] for mode in start]
        with np.errstate(divide="ignore"):
            return pairs, np.log(self._switching(gap) * state.probability[:, None])

    def _before(self, pairs, prior, j, values):
        """P(mode i before the gap | mode j and the state after it), of states (m, n): (m, modes)."""
        logs = np.empty((len(values), len(pairs)))
        for i, row in enumerate(pairs):
            predicted = row[j][0]
            errors = self.model.state_difference(values, predicted.mean)
            logs[:, i] = prior[i, j] + [
                log_density(predicted.root, solve_lower(predicted.root, error)) for error in errors
            ]
        if not np.isfinite(logs).any(axis=1).all() or np.isnan(logs).any() or np.isposinf(logs).any():
            logs[:] = prior[:, j]  # states without noise have no density
        if np.isneginf(logs).all():
            return np.tile(np.eye(len(pairs))[j], (len(values), 1))
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def _back(self, state, t, later, probability, gap, u):
        """Smoothed modes and probabilities one sample earlier."""
        pairs, prior = self._pairs(state, t, gap, u)
        m = len(self.filters)
        logs = np.full((m, m), -np.inf)
        revised = [[after] * m for after in later]
        for j, after in enumerate(later):
            told = _told(after, [row[j][0] for row in pairs], prior[:, j], state.difference)
            for i in range(m):
                logs[i, j] = prior[i, j]
                if told is not None:
                    mean, root, density = _revise(pairs[i][j][0], told, state.difference)
                    revised[j][i] = after._replace(mean=mean, root=root)
                    logs[i, j] += density
        total = np.array([log_sum(column) for column in logs.T])
        weights = np.exp(logs - np.where(np.isfinite(total), total, 0.0))
        weights[:, ~np.isfinite(total)] = np.eye(m)[:, ~np.isfinite(total)]
        joint = weights * probability
        earlier = joint.sum(axis=1)
        modes = []
        for i, mode in enumerate(state.modes):
            moved = []
            for j in range(m):
                mean, root = self.filters[j]._back(revised[j][i].mean, revised[j][i].root, pairs[i][j][1])
                moved.append(mode._replace(mean=mean, root=root))
            mean, root = _collapse(moved, joint[i] / earlier[i] if earlier[i] > 0.0 else probability, state.difference)
            modes.append(mode._replace(mean=mean, root=root))
        return modes, earlier / earlier.sum()

    def _draw(self, n_times, times, u, n_samples, random_state):
        t, gaps, inputs = grid(n_times, times, u, self.model.time_unit)
        rng = np.random.default_rng(random_state)
        self._prepare(None, t[0], None if inputs is None else inputs[0])
        p = self.model.n_outputs
        states, observations = np.empty((n_samples, len(t), self.model.n_states)), np.empty((n_samples, len(t), p))
        chosen = rng.choice(len(self.filters), n_samples, p=self.initial_probability)
        for k, now in enumerate(t):
            if k and gaps[k] > 0.0:
                switching = np.cumsum(self._switching(gaps[k]), axis=1)
                chosen = np.sum(rng.random((n_samples, 1)) * switching[chosen, -1:] >= switching[chosen], axis=1)
            for j, f in enumerate(self.filters):
                own = chosen == j
                if k == 0:
                    start = rng.standard_normal((own.sum(), self.model.n_states))
                    states[own, 0] = f.model.initial_mean + start @ f.model.initial_root.T
                elif gaps[k] > 0.0 and own.any():
                    held = None if inputs is None else inputs[k - 1]
                    states[own, k] = random_steps(f.model, states[own, k - 1], t[k] - gaps[k], gaps[k], held, rng)
                elif own.any():
                    states[own, k] = states[own, k - 1]
                if own.any():
                    u_k = None if inputs is None else inputs[k]
                    observations[own, k] = f.model.draw_observations(states[own, k], now, u_k, rng)
        return states, observations

    def _paths(self, record, n_samples, rng):
        states = [state for _, state, _ in self._forward(record)]
        n, last = self.model.n_states, len(states) - 1
        paths = np.empty((n_samples, len(states), n))
        chosen = rng.choice(len(self.filters), n_samples, p=states[-1].probability)
        for k in range(last, -1, -1):
            if k < last and record.gaps[k + 1] == 0.0:
                paths[:, k] = paths[:, k + 1]
                continue
            following = chosen
            if k < last:
                pairs, prior = self._pairs(states[k], record.t[k], record.gaps[k + 1], record.input(k))
                chosen = np.empty(n_samples, dtype=int)
                for j in np.unique(following):
                    own = following == j
                    total = np.cumsum(self._before(pairs, prior, j, paths[own, k + 1]), axis=1)
                    chosen[own] = np.sum(rng.random((own.sum(), 1)) * total[:, -1:] >= total, axis=1)
            for i, j in product(range(len(self.filters)), repeat=2):
                own = (chosen == i) & (following == j)
                mode, difference = states[k].modes[i], states[k].difference
                if k == last:
                    mean, root = mode.mean, mode.root
                else:
                    kernel = pairs[i][j][1]
                    moved = difference(paths[own, k + 1], kernel.predicted)
                    mean, root = kernel.mean + moved @ kernel.gain.T, kernel.remainder
                if own.any():
                    paths[own, k] = difference.wrapped(mean + rng.standard_normal((own.sum(), n)) @ root.T)
        return paths


def _told(after, predicted, prior, difference):
    """What the samples after a gap say of the state there, N(smoothed) / N(predicted), as an observation of it.

    In the axes in which the prediction is the unit ball and the smoothed covariance diagonal, d: values z / (1 − d)
    with variances d / (1 − d). None where the prediction, over all modes before, is not a density.
    """
    total = log_sum(prior)
    if not np.isfinite(total):
        return None
    centre, root = _collapse(predicted, np.exp(prior - total), difference)
    if not (np.abs(root.diagonal()) > 1e-13 * np.abs(root).sum(axis=1)).all():
        return None
    axes, sizes, _ = np.linalg.svd(solve_lower(root, after.root))
    matrix = axes.T @ solve_lower(root, np.eye(len(root)))
    known = sizes**2 < 1.0 - _UNTOLD
    kept = 1.0 - sizes[known] ** 2
    values = matrix[known] @ difference(after.mean, centre) / kept
    return centre, matrix[known], values, np.diag(sizes[known] / np.sqrt(kept))


def _revise(predicted, told, difference):
    """A pair's prediction given what is told: mean, root, and the density of the telling."""
    centre, matrix, values, noise = told
    if not len(values):
        return predicted.mean, predicted.root, 0.0
    total, cross, root = condition(noise, matrix @ predicted.root, predicted.root)
    scaled = solve_lower(total, values - matrix @ difference(predicted.mean, centre))
    return difference.wrapped(predicted.mean + cross @ scaled), root, log_density(total, scaled)


def _collapse(modes, weights, difference):
    """Mean and root of the mixture's covariance."""
    if len(modes) == 1:
        return modes[0].mean, modes[0].root
    means = np.stack([mode.mean for mode in modes])
    mean = difference.mean(means, weights)
    roots = np.sqrt(weights)
    columns = [root * mode.root for root, mode in zip(roots, modes, strict=True)]
    columns.append((difference(means, mean) * roots[:, None]).T)
    return mean, triangular(np.concatenate(columns, axis=1))


def _square(given, m, name, total):
    matrix = np.asarray(given, dtype=float)
    if matrix.shape != (m, m):
        raise ValueError(f"{name} must have shape ({m}, {m}) for {m} modes. Got {matrix.shape}.")
    negative = matrix < 0.0
    if total == 0.0:
        negative &= ~np.eye(m, dtype=bool)
    if negative.any() or not np.allclose(matrix.sum(axis=1), total, atol=1e-8 * (1 + np.abs(matrix).max())):
        where = "" if total == 1.0 else " off the diagonal"
        raise ValueError(
            f"The rows of {name} must be numbers >= 0{where} whose sum is {total:g}: row i leads from mode i. "
            f"Got {matrix.tolist()}."
        )
    return matrix
