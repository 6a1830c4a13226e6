"""Maximum likelihood in θ: start values, L-BFGS-B with the exact gradient, variances that belong at zero, standard errors."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize


# Start values are compared on no more samples than this.
_SCOUTED = 2000
# What stands for "no likelihood at all", finite because a line search must be able to subtract it.
_IMPOSSIBLE = 1e25


class Likelihood:
    """The log-likelihood of several series that share a process and a noise variance, as a function of θ.

    θ holds the logarithms of the process' free parameters and, where the noise variance is fitted, its own last.

    Parameters
    ----------
    process : Component
        In scaled units.
    records : list of (Binding, ndarray of shape (n_times, n_outputs), float or ndarray of shape (n_times,) or None)
        Each with y, NaN where missing, and the known noise variances, or None where one noise variance is fitted.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import Binding
    >>> from statespace.kalman.fitting import Likelihood
    >>> process = LocalLevel()
    >>> binding = Binding(process, np.array([0.0, 1.0, 1.0]))
    >>> likelihood = Likelihood(process, [(binding, np.array([[0.0], [1.0], [0.5]]), None)])
    >>> value, gradient = likelihood.gradient(np.zeros(2))
    >>> gradient.shape
    (2,)
    """

    def __init__(self, process, records):
        self.process = process
        self.records = records
        self.n_process = len(process.free)
        self.n_observed = sum(int(np.isfinite(y).sum()) for _, y, _ in records)

    def _bound(self, theta):
        theta = np.asarray(theta, dtype=float)
        process = self.process.clone_with_theta(theta[: self.n_process])
        for binding, y, known in self.records:
            noise = float(np.exp(theta[-1])) if known is None else known
            yield binding.bind(process), y, noise, known is None

    def value(self, theta):
        """The log-likelihood at ``theta``; −inf where it is not defined."""
        total = 0.0
        with np.errstate(all="ignore"):
            for binding, y, noise, _ in self._bound(theta):
                total += sum(binding.log_likelihood(column, noise) for column in y.T)
        return total if np.isfinite(total) else -np.inf

    def gradient(self, theta):
        """The log-likelihood at ``theta`` and its gradient of shape (len(theta),)."""
        total, by_theta = 0.0, np.zeros(len(theta))
        with np.errstate(all="ignore"):
            for binding, y, noise, fitted in self._bound(theta):
                for column in y.T:
                    value, by_process, by_noise = binding.gradient(column, noise)
                    total += value
                    by_theta[: self.n_process] += by_process
                    if fitted:
                        by_theta[-1] += noise * np.sum(by_noise)
        if not (np.isfinite(total) and np.isfinite(by_theta).all()):
            return -np.inf, np.zeros(len(theta))
        return total, by_theta

    def head(self, n):
        """The likelihood of no more than the first n samples of each record."""
        records = [
            (binding.part(0, n), y[:n], known if known is None or np.ndim(known) == 0 else known[:n])
            for binding, y, known in self.records
        ]
        return Likelihood(self.process, records)


class Fit(NamedTuple):
    """The outcome of `maximize`.

    Attributes
    ----------
    theta : ndarray of shape (k,)
    at_bound : ndarray of bool, shape (k,)
    standard_error : ndarray of shape (k,)
        Of the logarithms; NaN at a bound and where the data say nothing.
    message : str
        Empty if the search converged.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.fitting import Fit
    >>> Fit(np.zeros(1), np.array([False]), np.ones(1), "").message
    ''
    """

    theta: np.ndarray
    at_bound: np.ndarray
    standard_error: np.ndarray
    message: str


def scout(likelihood, choices, sweeps=2):
    """A start for the search: the best of a few values for each parameter, one parameter after the other.

    Parameters
    ----------
    likelihood : Likelihood
    choices : list of ndarray
        For each of θ, the values to try.
    sweeps : int, default=2
        How often to go through the parameters.

    Returns
    -------
    ndarray of shape (k,)
    """
    theta = np.array([values[len(values) // 2] for values in choices])
    open_ones = [j for j, values in enumerate(choices) if len(values) > 1]
    if not open_ones:
        return theta
    head = likelihood.head(_SCOUTED)
    best, seen = head.value(theta), {}
    for _ in range(sweeps):
        before = theta.copy()
        # The noise is last in θ and decides most: it goes first.
        for j in reversed(open_ones):
            for value in choices[j]:
                trial = theta.copy()
                trial[j] = value
                key = tuple(trial)
                if key not in seen:
                    seen[key] = head.value(trial)
                if seen[key] > best:
                    best, theta = seen[key], trial
        if np.array_equal(before, theta):
            break
    return theta


def maximize(likelihood, start, bounds, is_variance, choices, optimizer="fmin_l_bfgs_b"):
    """The maximum of the likelihood near ``start``.

    Parameters
    ----------
    likelihood : Likelihood
    start : ndarray of shape (k,)
    bounds : ndarray of shape (k, 2)
        Of θ.
    is_variance : ndarray of bool, shape (k,)
        Which of θ scale a noise: towards their lower bound the likelihood is flat, so that a gradient alone
        neither brings them there nor away from there.
    choices : list of ndarray
        Values of θ to try for a noise that ended at its lower bound.
    optimizer : "fmin_l_bfgs_b" or callable
        A callable has the signature that scikit-learn's GaussianProcessRegressor asks for.

    Returns
    -------
    theta : ndarray of shape (k,)
    value : float
        The log-likelihood there.
    message : str
        Empty if the search converged.
    """
    # A gradient of sqrt(n) · 1e-5 is 1e-5 of its standard deviation: the likelihood lacks about 1e-10 then.
    tolerance = 1e-5 * np.sqrt(max(likelihood.n_observed, 1))

    def objective(theta, eval_gradient=True):
        if not eval_gradient:
            value = likelihood.value(theta)
            return -value if np.isfinite(value) else _IMPOSSIBLE
        value, gradient = likelihood.gradient(theta)
        return (-value, -gradient) if np.isfinite(value) else (_IMPOSSIBLE, gradient)

    def search(theta):
        if callable(optimizer):
            theta, value = optimizer(objective, theta, bounds)
            return np.asarray(theta, dtype=float), -float(value), ""
        result = minimize(
            objective, theta, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"ftol": 1e-15, "gtol": tolerance, "maxiter": 1000, "maxfun": 5000, "maxls": 40},
        )  # fmt: skip
        # Where rounding ends the line search, the gradient still says whether this is the maximum.
        arrived = result.success or np.abs(_inward(result.x, result.jac, bounds)).max() <= 100 * tolerance
        return result.x, -float(result.fun), "" if arrived else str(result.message)

    theta, value, message = search(np.clip(start, *bounds.T))
    for _ in range(3):
        moved, value_moved = _to_zero_and_back(likelihood, theta, value, bounds, is_variance, choices)
        if moved is None:
            break
        theta_new, value_new, message_new = search(moved)
        if value_new < value_moved:
            theta_new, value_new = moved, value_moved
        gained = value_new - value
        theta, value, message = theta_new, value_new, message_new
        if gained < 1e-9:
            break
    return theta, value, message


def _inward(theta, gradient, bounds):
    """The gradient of what is minimised, without the parts that only the bounds hold."""
    held = ((theta <= bounds[:, 0]) & (gradient > 0)) | ((theta >= bounds[:, 1]) & (gradient < 0))
    return np.where(held, 0.0, gradient)


def _to_zero_and_back(likelihood, theta, value, bounds, is_variance, choices):
    """Move noises to their lower bound where that costs nothing, and away from it where that gains; None if neither."""
    best, moved = value, theta.copy()
    for j in np.flatnonzero(is_variance):
        low = bounds[j, 0]
        tried = [low] if moved[j] > low else choices[j]
        for candidate in tried:
            trial = moved.copy()
            trial[j] = candidate
            found = likelihood.value(trial)
            # Equal likelihoods prefer the bound: what cannot be told from zero is reported as zero.
            needed = best if candidate == low else best + 1e-6
            if found >= needed:
                best, moved = found, trial
    return (None, value) if np.array_equal(moved, theta) else (moved, best)


def standard_errors(likelihood, theta, inside):
    """Standard errors of θ from the observed information, by differences of the exact gradient.

    Parameters
    ----------
    likelihood : Likelihood
    theta : ndarray of shape (k,)
    inside : ndarray of bool, shape (k,)
        The entries that are not at a bound; the others are taken as known.

    Returns
    -------
    ndarray of shape (k,)
        NaN for the others, and where the information is not positive definite.
    """
    result = np.full(len(theta), np.nan)
    places = np.flatnonzero(inside)
    step = 1e-4
    information = np.empty((len(places), len(places)))
    for row, j in enumerate(places):
        shift = np.zeros(len(theta))
        shift[j] = step
        above, below = likelihood.gradient(theta + shift)[1], likelihood.gradient(theta - shift)[1]
        information[row] = -(above - below)[places] / (2 * step)
    information = (information + information.T) / 2
    if len(places) and np.isfinite(information).all():
        values, vectors = np.linalg.eigh(information)
        # A direction in which the likelihood does not bend says nothing about the parameters that it involves.
        known = values > 1e-8 * max(values.max(), 1.0)
        variance = (vectors[:, known] ** 2 / values[known]).sum(axis=1)
        variance[(vectors[:, ~known] ** 2 > 1e-6).any(axis=1)] = np.nan
        result[places] = np.sqrt(variance)
    return result


def fit(likelihood, bounds, is_variance, choices, *, optimizer, n_restarts, random_state):
    """Scout, maximise, restart, and measure what was found.

    Parameters
    ----------
    likelihood : Likelihood
    bounds, is_variance, choices, optimizer
        As in `maximize`.
    n_restarts : int
        Further searches, from starts drawn around the first.
    random_state : numpy.random.RandomState

    Returns
    -------
    Fit
    """
    start = np.clip(scout(likelihood, choices), *bounds.T)
    arguments = (bounds, is_variance, choices, optimizer)
    theta, value, message = maximize(likelihood, start, *arguments)
    for _ in range(n_restarts):
        # Two decades and a half to either side: the bounds are too wide to draw from.
        drawn = np.clip(start + random_state.uniform(-6.0, 6.0, size=len(start)), *bounds.T)
        other = maximize(likelihood, drawn, *arguments)
        if other[1] > value:
            theta, value, message = other
    at_bound = (theta - bounds[:, 0] < 1e-6) | (bounds[:, 1] - theta < 1e-6)
    return Fit(theta, at_bound, standard_errors(likelihood, theta, ~at_bound), message)
