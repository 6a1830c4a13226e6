"""The ensemble Kalman filter: a covariance carried by members, for states too many for a matrix of their own."""

from typing import Any, NamedTuple

import numpy as np

from statespace.kalman.nonlinear.chance import Seed, weighted_covariance
from statespace.kalman.nonlinear.gaussian import log_density
from statespace.kalman.nonlinear.integration import random_steps
from statespace.kalman.nonlinear.interface import StateFilter
from statespace.kalman.nonlinear.model import NonlinearModel
from statespace.kalman.nonlinear.results import SmootherResult
from statespace.kalman.nonlinear.roots import solve_lower, triangular


class EnsembleState(NamedTuple):
    """An ensemble and where it stands.

    Attributes
    ----------
    ensemble : ndarray of shape (N, n)
    time, n_samples, log_likelihood, innovation, innovation_covariance, u
        As in `GaussianState`.
    """

    ensemble: np.ndarray
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
        return self.difference.mean(self.ensemble, np.full(len(self.ensemble), 1.0 / len(self.ensemble)))

    @property
    def covariance(self):
        """ndarray of shape (n, n), with the divisor N − 1."""
        members = len(self.ensemble)
        return weighted_covariance(self.ensemble, self.mean, np.full(members, 1.0 / (members - 1)), self.difference)


class EnsembleKalmanFilter(StateFilter):
    """Ensemble Kalman filter and smoother.

    With deviations X of the members from their mean and Y of their observations, both divided by √(N − 1),
    K = X Yᵀ (Y Yᵀ + R)⁻¹. "stochastic": each member takes a perturbed observation, x_i += K (y + v_i − h(x_i)), the v_i
    centred. "deterministic" (ETKF): the mean takes y, and the deviations X (I + Yᵀ R⁻¹ Y)^{−1/2} have the posterior's
    covariance without drawn noise.

    Parameters
    ----------
    model : NonlinearModel
    n_members : int, default=100
    method : {"stochastic", "deterministic"}, default="stochastic"
    inflation : float, default=1.0
        Of the deviations after each gap: above 1 against the loss of spread in small ensembles.
    localization : tuple of two ndarray, (n, p) and (p, p), optional
        Tapers, multiplied into X Yᵀ and Y Yᵀ; stochastic only.
    max_step : float, optional
        The longest sub-step in continuous time; by default a tenth of the drift's shortest time constant.
    random_state : int, Generator or None

    References
    ----------
    Evensen, *Data Assimilation*, 2nd ed. 2009; Bishop, Etherton and Majumdar 2001 and Hunt, Kostelich and Szunyogh 2007
    (ETKF); Raanes, *On the ensemble Rauch–Tung–Striebel smoother*, QJRMS 142, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.nonlinear import EnsembleKalmanFilter, NonlinearModel
    >>> def lorenz(x):
    ...     a, b, c = x[..., 0], x[..., 1], x[..., 2]
    ...     return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)
    >>> model = NonlinearModel(
    ...     drift=lorenz, spectral_density=0.1, observation=np.eye(3)[:1], observation_noise=1.0,
    ...     initial_mean=[1.0, 1.0, 20.0], initial_covariance=4.0,
    ... )
    >>> states, y = model.simulate(times=0.1 * np.arange(5), random_state=0)
    >>> enkf = EnsembleKalmanFilter(model, n_members=50, method="deterministic", random_state=0)
    >>> enkf.filter(y, times=0.1 * np.arange(5)).mean.shape
    (5, 3)
    """

    def __init__(
        self, model, *, n_members=100, method="stochastic", inflation=1.0, localization=None, max_step=None,
        random_state=None,
    ):  # fmt: skip
        if not isinstance(model, NonlinearModel):
            raise ValueError(f"model must be a NonlinearModel. Got {type(model).__name__}.")
        if int(n_members) != n_members or n_members < 2:
            raise ValueError(f"n_members must be a whole number >= 2. Got {n_members}.")
        if method not in ("stochastic", "deterministic"):
            raise ValueError(f"method must be 'stochastic' or 'deterministic'. Got {method!r}.")
        if not inflation > 0.0:
            raise ValueError(f"inflation must be positive. Got {inflation}.")
        if localization is not None and method != "stochastic":
            raise ValueError("localization needs method='stochastic'.")
        super().__init__(model)
        self.n_members, self.method, self.inflation = int(n_members), method, inflation
        self.localization, self.max_step, self.random_state = localization, max_step, random_state

    def initial_state(self, time=0.0):
        """Members drawn from the initial distribution.

        Parameters
        ----------
        time : float, default=0.0

        Returns
        -------
        EnsembleState
        """
        model = self.model
        rng, seed = Seed.of(self.random_state).draw()
        members = model.initial_mean + rng.standard_normal((self.n_members, model.n_states)) @ model.initial_root.T
        return EnsembleState(model.state_difference.wrapped(members), seed, model.state_difference, float(time))

    def _predict(self, state, gap, u, with_kernel=False):
        if gap == 0.0:
            return state, None
        rng, seed = state.seed.draw()
        ensemble = random_steps(self.model, state.ensemble, state.time, gap, u, rng, self.max_step)
        moved = state._replace(ensemble=ensemble, seed=seed, time=state.time + gap)
        if self.inflation != 1.0:
            mean = moved.mean
            spread = mean + self.inflation * state.difference(ensemble, mean)
            moved = moved._replace(ensemble=state.difference.wrapped(spread))
        return moved, None

    def _observed(self, state, u):
        """Mean of the members' observations, their deviations (p, N) over √(N − 1), and √R."""
        arguments = {"t": state.time, "u": u}
        values = self.model.observation(state.ensemble, **arguments)
        difference, members = self.model.observation_difference, self.n_members
        mean = difference.mean(values, np.full(members, 1.0 / members))
        root = self.model.observation_noise_root(state.mean, **arguments)
        return mean, difference(values, mean).T / np.sqrt(members - 1), root

    def _expect(self, state, u):
        mean, observed, root = self._observed(state, u)
        return mean, observed @ observed.T + root @ root.T

    def _update(self, state, y_t, u):
        mean, observed, root = self._observed(state, u)
        seen = ~np.isnan(y_t)
        innovation = np.where(seen, self.model.observation_difference(np.where(seen, y_t, mean), mean), np.nan)
        state = state._replace(
            n_samples=state.n_samples + 1, innovation=innovation,
            innovation_covariance=observed @ observed.T + root @ root.T,
        )  # fmt: skip
        if not seen.any():
            return state
        values, observed, root = innovation[seen], observed[seen], root[seen]
        centre = state.mean
        deviations = state.difference(state.ensemble, centre).T / np.sqrt(self.n_members - 1)
        total = triangular(np.concatenate([root, observed], axis=1))
        cross = solve_lower(total, observed @ deviations.T).T
        scaled = solve_lower(total, values)
        density = log_density(total, scaled)
        if not np.isfinite(density):
            raise ValueError(
                f"The observation at t = {state.time:g} is predicted without uncertainty, or the members are not "
                "finite: give observation_noise, more process noise or a shorter max_step."
            )
        if self.method == "deterministic":
            moved = centre + cross @ scaled
            ensemble = moved + np.sqrt(self.n_members - 1) * _shrunk(deviations, observed, root).T
            seed = state.seed
        else:
            rng, seed = state.seed.draw()
            noise = rng.standard_normal((self.n_members, root.shape[1]))
            noise = (noise - noise.mean(axis=0)) @ root.T
            errors = values + noise - np.sqrt(self.n_members - 1) * observed.T
            if self.localization is None:
                ensemble = state.ensemble + solve_lower(total, np.asfortranarray(errors.T)).T @ cross.T
            else:
                ensemble = state.ensemble + errors @ self._localized(deviations, observed, root, seen).T
        return state._replace(
            ensemble=state.difference.wrapped(ensemble), seed=seed, log_likelihood=state.log_likelihood + density
        )

    def _localized(self, deviations, observed, root, seen):
        """The gain with tapered covariances."""
        shapes = (len(deviations), len(seen)), (len(seen), len(seen))
        tapers = [np.asarray(taper, dtype=float) for taper in self.localization]
        if tuple(taper.shape for taper in tapers) != shapes:
            found = " and ".join(str(taper.shape) for taper in tapers)
            raise ValueError(f"localization must be two arrays of shapes {shapes[0]} and {shapes[1]}. Got {found}.")
        cross = tapers[0][:, seen] * (deviations @ observed.T)
        total = tapers[1][np.ix_(seen, seen)] * (observed @ observed.T) + root @ root.T
        return np.linalg.solve(total, cross.T).T

    def _smoothed(self, record):
        """The ensembles given all samples, and the last filtered state."""
        forward = [(predicted, state) for predicted, state, _ in self._forward(record)]
        difference = self.model.state_difference
        ensembles = np.empty((len(forward), self.n_members, self.model.n_states))
        ensembles[-1] = forward[-1][1].ensemble
        for k in range(len(forward) - 2, -1, -1):
            before, after = forward[k][1], forward[k + 1][0]
            change = difference(ensembles[k + 1], after.ensemble)
            if record.gaps[k + 1] > 0.0:
                late, early = difference(after.ensemble, after.mean), difference(before.ensemble, before.mean)
                change = change @ np.linalg.pinv(late) @ early
            ensembles[k] = difference.wrapped(before.ensemble + change)
        return ensembles, forward[-1][1]

    def smooth(self, y, times=None, u=None):
        """The state at each sample given all samples, by the ensemble Rauch–Tung–Striebel recursion.

        Parameters
        ----------
        y, times, u
            As in `filter`.

        Returns
        -------
        SmootherResult
            With ``extra["ensemble"]`` (N, T, n).
        """
        ensembles, last = self._smoothed(self.model.record(y, times, u))
        states = [last._replace(ensemble=ensemble) for ensemble in ensembles]
        means = np.stack([state.mean for state in states])
        covariances = np.stack([state.covariance for state in states])
        deviations = self.model.state_difference(ensembles, means[:, None])
        lagged = np.einsum("tmi,tmj->tij", deviations[1:], deviations[:-1]) / (self.n_members - 1)
        return SmootherResult(means, covariances, last.log_likelihood, lagged, {"ensemble": ensembles.swapaxes(0, 1)})

    def _paths(self, record, n_samples, rng):
        """Members of the smoothed ensemble."""
        if n_samples > self.n_members:
            raise ValueError(f"n_samples must be at most n_members, {self.n_members}. Got {n_samples}.")
        chosen = rng.choice(self.n_members, n_samples, replace=False)
        return self._smoothed(record)[0][:, chosen].swapaxes(0, 1)


def _shrunk(deviations, observed, root):
    """X (I + Yᵀ R⁻¹ Y)^{−1/2}, the symmetric root, so that deviations that sum to zero still do.

    The root is the identity but on the range of Yᵀ, and is never formed: members may be many.
    """
    try:
        scaled = solve_lower(np.linalg.cholesky(root @ root.T), observed)
    except np.linalg.LinAlgError:
        raise ValueError("observation_noise must be positive definite for method='deterministic'.") from None
    _, sizes, rows = np.linalg.svd(scaled, full_matrices=False)
    return deviations + (deviations @ rows.T * (1.0 / np.sqrt(1.0 + sizes**2) - 1.0)) @ rows
