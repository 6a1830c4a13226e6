"""The bootstrap particle filter: any noise, any function, at Monte Carlo's rate."""

from typing import Any, NamedTuple

import numpy as np

from statespace.kalman.nonlinear.chance import Seed, log_sum, weighted_covariance
from statespace.kalman.nonlinear.integration import random_steps
from statespace.kalman.nonlinear.interface import StateFilter
from statespace.kalman.nonlinear.model import NonlinearModel
from statespace.kalman.nonlinear.resampling import METHODS, resample
from statespace.kalman.nonlinear.results import SmootherResult
from statespace.kalman.nonlinear.roots import root_of

_LOG_TWO_PI = float(np.log(2 * np.pi))
# Pairs of particles that a backward draw looks at in one go, times the number of states.
_PAIRS = 4_000_000


class ParticleState(NamedTuple):
    """Weighted particles and where they stand.

    Attributes
    ----------
    particles : ndarray of shape (N, n)
    log_weights : ndarray of shape (N,)
        Normalised.
    ancestors : ndarray of int, shape (N,)
        Which particle of the sample before each came from.
    time, n_samples, log_likelihood, innovation, innovation_covariance, u
        As in `GaussianState`.
    """

    particles: np.ndarray
    log_weights: np.ndarray
    ancestors: np.ndarray
    seed: Seed
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
        return self.difference.mean(self.particles, np.exp(self.log_weights))

    @property
    def covariance(self):
        """ndarray of shape (n, n)."""
        return weighted_covariance(self.particles, self.mean, np.exp(self.log_weights), self.difference)

    @property
    def effective_size(self):
        """1 / Σ w²."""
        return float(np.exp(-log_sum(2 * self.log_weights)))


class ParticleFilter(StateFilter):
    """Bootstrap particle filter, with smoothers.

    Particles move by the model's dynamics and are weighted by p(y | x); when 1 / Σ w² falls below ``threshold`` N, they
    are drawn anew in proportion to their weights. exp(log_likelihood) is an unbiased estimate of the likelihood.

    Parameters
    ----------
    model : NonlinearModel
        With observation_noise, or with an observation_log_density of any shape.
    n_particles : int, default=1000
    resampling : {"systematic", "stratified", "residual", "multinomial"}, default="systematic"
    threshold : float, default=0.5
        1 draws anew at each sample, 0 never.
    smoother : {"auto", "backward", "ancestors"}, default="auto"
        "backward" draws ``n_trajectories`` from the end to the start with the density of the transition, which discrete
        models and linear drifts with a noise in every direction have; "ancestors" traces where the last particles came
        from, which always works but leaves few different ancestors after many samples.
    n_trajectories : int, default=200
    max_step : float, optional
        The longest sub-step in continuous time; by default a tenth of the drift's shortest time constant.
    keep_particles : bool, default=False
        Whether `filter` returns all particles: T N n numbers, in ``extra``.
    random_state : int, Generator or None
        The same int gives the same numbers; a Generator goes on from call to call.

    References
    ----------
    Gordon, Salmond and Smith 1993; Godsill, Doucet and West 2004 (backward simulation); Särkkä and Svensson 2023,
    ch. 11 and 15.

    Examples
    --------
    Counts whose rate is the exponential of a random walk:

    >>> import numpy as np
    >>> from scipy.stats import poisson
    >>> from statespace.kalman.nonlinear import NonlinearModel, ParticleFilter
    >>> model = NonlinearModel(
    ...     transition=lambda x: x, process_noise=0.05, observation=lambda x: np.exp(x),
    ...     observation_log_density=lambda x, y: poisson.logpmf(y[0], np.exp(x[..., 0])),
    ...     initial_mean=[0.0], initial_covariance=1.0,
    ... )
    >>> result = ParticleFilter(model, n_particles=500, random_state=0).filter([1, 0, 2, np.nan, 5])
    >>> result.mean.shape, result.extra["effective_size"].shape
    ((5, 1), (5,))
    """

    def __init__(
        self, model, *, n_particles=1000, resampling="systematic", threshold=0.5, smoother="auto", n_trajectories=200,
        max_step=None, keep_particles=False, random_state=None,
    ):  # fmt: skip
        if not isinstance(model, NonlinearModel):
            raise ValueError(f"model must be a NonlinearModel. Got {type(model).__name__}.")
        for name, number in (("n_particles", n_particles), ("n_trajectories", n_trajectories)):
            if int(number) != number or number < 2:
                raise ValueError(f"{name} must be a whole number >= 2. Got {number}.")
        if resampling not in METHODS:
            raise ValueError(f"resampling must be one of {', '.join(METHODS)}. Got {resampling!r}.")
        if not 0.0 <= threshold <= 1.0:
            raise ValueError(f"threshold must lie in [0, 1], a part of the particles. Got {threshold}.")
        if smoother not in ("auto", "backward", "ancestors"):
            raise ValueError(f"smoother must be 'auto', 'backward' or 'ancestors'. Got {smoother!r}.")
        super().__init__(model)
        self.n_particles, self.resampling, self.threshold = int(n_particles), resampling, threshold
        self.smoother, self.n_trajectories, self.max_step = smoother, int(n_trajectories), max_step
        self.keep_particles, self.random_state = keep_particles, random_state

    def initial_state(self, time=0.0):
        """Particles drawn from the initial distribution.

        Parameters
        ----------
        time : float, default=0.0

        Returns
        -------
        ParticleState
        """
        model, n = self.model, self.n_particles
        rng, seed = Seed.of(self.random_state).draw()
        particles = model.initial_mean + rng.standard_normal((n, model.n_states)) @ model.initial_root.T
        weights, difference = np.full(n, -np.log(n)), model.state_difference
        return ParticleState(difference.wrapped(particles), weights, np.arange(n), seed, difference, float(time))

    def _predict(self, state, gap, u, with_kernel=False):
        ancestors = np.arange(self.n_particles)
        if gap == 0.0:
            return state._replace(ancestors=ancestors), None
        rng, seed = state.seed.draw()
        particles, weights = state.particles, state.log_weights
        if self.threshold == 1.0 or state.effective_size < self.threshold * self.n_particles:
            ancestors = resample(np.exp(weights), self.resampling, rng)
            particles, weights = particles[ancestors], np.full(self.n_particles, -np.log(self.n_particles))
        particles = random_steps(self.model, particles, state.time, gap, u, rng, self.max_step)
        return state._replace(
            particles=particles, log_weights=weights, ancestors=ancestors, seed=seed, time=state.time + gap
        ), None

    def _update(self, state, y_t, u):
        arguments = {"t": state.time, "u": u}
        expected, roots, mean, covariance = self._observed(state, arguments)
        difference = self.model.observation_difference
        seen = ~np.isnan(y_t)
        innovation = np.where(seen, difference(np.where(seen, y_t, mean), mean), np.nan)
        state = state._replace(
            n_samples=state.n_samples + 1, innovation=innovation, innovation_covariance=covariance
        )
        if not seen.any():
            return state
        if self.model.observation_log_density is not None:
            density = self.model.observation_log_density(state.particles, y=y_t, **arguments)
        else:
            density = _gaussian(difference(np.where(seen, y_t, 0.0), expected), roots, seen)
        new = state.log_weights + np.where(np.isnan(density), -np.inf, density)
        total = log_sum(new)
        if not np.isfinite(total):
            raise ValueError(
                f"The observation at t = {state.time:g} is impossible for all {self.n_particles} particles: its "
                "density is 0 or not finite. Take more particles, or more observation or process noise."
            )
        return state._replace(log_weights=new - total, log_likelihood=state.log_likelihood + total)

    def _observed(self, state, arguments):
        """The particles' observations, √R, and the mean and covariance of an observation."""
        weights, difference = np.exp(state.log_weights), self.model.observation_difference
        expected = self.model.observation(state.particles, **arguments)
        noise = self.model.observation_noise
        roots = None if noise is None else noise.roots_at(state.particles, **arguments)
        mean = difference.mean(expected, weights)
        covariance = weighted_covariance(expected, mean, weights, difference)
        if roots is not None:
            squares = roots @ np.swapaxes(roots, -1, -2)
            covariance = covariance + (squares if squares.ndim == 2 else np.tensordot(weights, squares, axes=1))
        return expected, roots, mean, covariance

    def _expect(self, state, u):
        return self._observed(state, {"t": state.time, "u": u})[2:]

    def _moments(self, state):
        mean, weights = state.mean, np.exp(state.log_weights)
        return mean, weighted_covariance(state.particles, mean, weights, state.difference)

    def _note(self, notes, state):
        notes.setdefault("effective_size", []).append(state.effective_size)
        if self.keep_particles:
            for name in ("particles", "log_weights", "ancestors"):
                notes.setdefault(name, []).append(getattr(state, name))

    def smooth(self, y, times=None, u=None):
        """The state at each sample given all samples, from weighted or drawn trajectories.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        SmootherResult
            With ``extra["trajectories"]`` (M, T, n).
        """
        record = self.model.record(y, times, u)
        states = [state for _, state, _ in self._forward(record)]
        rng = states[-1].seed.draw()[0]
        if self._method() == "backward":
            paths = self._backward(record, states, self.n_trajectories, rng)
            weights = np.full(len(paths), 1.0 / len(paths))
        else:
            paths, weights = _traced(states, np.arange(self.n_particles)), np.exp(states[-1].log_weights)
        difference = self.model.state_difference
        mean = np.stack([difference.mean(paths[:, k], weights) for k in range(len(states))])
        deviations = difference(paths, mean)
        weighted = deviations * weights[:, None, None]
        covariance = np.einsum("mti,mtj->tij", weighted, deviations)
        lagged = np.einsum("mti,mtj->tij", weighted[:, 1:], deviations[:, :-1])
        return SmootherResult(mean, covariance, states[-1].log_likelihood, lagged, {"trajectories": paths})

    def _paths(self, record, n_samples, rng):
        states = [state for _, state, _ in self._forward(record)]
        if self._method() == "backward":
            return self._backward(record, states, n_samples, rng)
        return _traced(states, rng.choice(self.n_particles, n_samples, p=np.exp(states[-1].log_weights)))

    def _method(self):
        """Whether the transition has a density that can be evaluated."""
        model = self.model
        if model.continuous:
            able = model.is_exact and _full_rank(model.linear_step(1.0)[1])
            why = "the drift is a function (give a linear one as a matrix), or noise does not reach every state"
        else:
            root = model.process_noise.root
            able = root is None or _full_rank(root)
            why = "process_noise has no full rank"
        if self.smoother == "backward" and not able:
            raise ValueError(f"The transition has no density to draw backward with: {why}. Use smoother='ancestors'.")
        return "backward" if able and self.smoother != "ancestors" else "ancestors"

    def _backward(self, record, states, count, rng):
        """Draw trajectories from the last sample to the first: w_i p(x_{k+1} | x_k^i) at each."""
        n_times, n = len(states), self.model.n_states
        paths = np.empty((count, n_times, n))
        index = rng.choice(self.n_particles, count, p=np.exp(states[-1].log_weights))
        paths[:, -1] = states[-1].particles[index]
        for k in range(n_times - 2, -1, -1):
            state, gap = states[k], record.gaps[k + 1]
            if gap > 0.0:
                given = paths[:, k + 1], record.t[k], gap, record.input(k)
                index = self._draw_earlier(state, *given, rng)
            paths[:, k] = state.particles[index]  # over a gap of zero a particle stays what it is
        return paths

    def _draw_earlier(self, state, later, t, gap, u, rng):
        moved, roots = self._transition(state.particles, t, gap, u)
        difference, chunk = self.model.state_difference, max(1, _PAIRS // moved.size)
        index = np.empty(len(later), dtype=int)
        whitened = difference.plain and roots.ndim == 2
        if whitened:  # once for each particle, not for each pair
            moved, later = np.linalg.solve(roots, moved.T).T, np.linalg.solve(roots, later.T).T
        for start in range(0, len(later), chunk):
            part = slice(start, start + chunk)
            if whitened:
                squares = sum(np.square(later[part, None, i] - moved[:, i]) for i in range(moved.shape[1]))
                weights = state.log_weights - 0.5 * squares
            else:
                weights = state.log_weights + _log_gaussian(difference(later[part, None, :], moved), roots)
            total = np.cumsum(np.exp(weights - weights.max(axis=1, keepdims=True)), axis=1)
            drawn = rng.random((len(total), 1)) * total[:, -1:]
            index[part] = np.sum(total <= drawn, axis=1)
        return index

    def _transition(self, particles, t, gap, u):
        model, arguments = self.model, {"t": t + gap, "dt": gap, "u": u}
        if model.continuous:
            matrix, root = model.linear_step(gap)
            return particles @ matrix.T, root
        return model.transition(particles, **arguments), model.process_noise.roots_at(particles, **arguments)


def _full_rank(root):
    scale = np.sqrt(np.square(root).sum(axis=1))
    return bool(scale.all()) and np.linalg.matrix_rank(root / scale[:, None]) == len(root)


def _traced(states, index):
    """The trajectories that end in the particles of ``index``."""
    paths = np.empty((len(index), len(states), states[0].particles.shape[1]))
    for k in range(len(states) - 1, -1, -1):
        paths[:, k] = states[k].particles[index]
        index = states[k].ancestors[index]
    return paths


def _gaussian(errors, roots, seen):
    """log N of the seen entries of errors (N, p)."""
    if not seen.all():
        errors, rows = errors[:, seen], roots[..., seen, :]
        covariance = rows @ np.swapaxes(rows, -1, -2)
        roots = np.stack([root_of(r) for r in covariance]) if covariance.ndim == 3 else root_of(covariance)
    try:
        return _log_gaussian(errors, roots)
    except np.linalg.LinAlgError:
        raise ValueError(
            "observation_noise must be positive definite for a ParticleFilter: no particle hits an observation exactly."
        ) from None


def _log_gaussian(errors, roots):
    """log N(e; 0, S Sᵀ) of errors (..., n), with one root (n, n) or one for each of the last axis but one."""
    if roots.ndim == 2:
        scaled = np.linalg.solve(roots, errors.reshape(-1, errors.shape[-1]).T)
        squares = np.square(scaled).sum(axis=0).reshape(errors.shape[:-1])
    else:
        squares = np.square(np.linalg.solve(roots, errors[..., None])[..., 0]).sum(axis=-1)
    return -0.5 * (squares + errors.shape[-1] * _LOG_TWO_PI) - np.linalg.slogdet(roots)[1]
