"""What is known about parameters before the data, and the likelihood with it: maximum a posteriori estimates."""

from typing import NamedTuple

import numpy as np


class LogNormal(NamedTuple):
    """A prior for a positive parameter v: log v is normal about log ``median`` with standard deviation ``sigma``.

    Estimates maximise the likelihood times the density of θ = log v, so that without data v is its median.

    Parameters
    ----------
    median : float
        In the parameter's own unit.
    sigma : float
        Of log v: v lies within a factor of exp(2 ``sigma``) of the median with probability 0.95.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LogNormal
    >>> prior = LogNormal(median=2.0, sigma=0.5)
    >>> round(prior.log_density(np.log(2.0)), 4)
    -0.2258
    """

    median: float
    sigma: float

    def check(self, name):
        """Refuse numbers that are not positive."""
        for field, value in self._asdict().items():
            if not (np.isscalar(value) and np.isreal(value) and 0 < value < np.inf):
                raise ValueError(f"{field} of the prior of {name} must be a positive number. Got {value!r}.")

    def log_density(self, theta):
        """The logarithm of the density of θ = log v at ``theta``."""
        deviation = (theta - np.log(self.median)) / self.sigma
        return float(-0.5 * deviation**2 - np.log(self.sigma) - 0.5 * np.log(2 * np.pi))


def check_priors(priors, names):
    """The priors in the order of θ, None where there is none.

    Parameters
    ----------
    priors : dict of str to LogNormal, or None
    names : list of str
        What θ holds.

    Returns
    -------
    list of LogNormal or None

    Raises
    ------
    ValueError
        For a name that is not among ``names``, or what is no `LogNormal`.

    Examples
    --------
    >>> from statespace.kalman.priors import LogNormal, check_priors
    >>> check_priors({"variance": LogNormal(1.0, 0.5)}, ["variance", "noise_variance"])
    [LogNormal(median=1.0, sigma=0.5), None]
    """
    priors = {} if priors is None else priors
    if not isinstance(priors, dict):
        raise ValueError(f"priors must be a dict of parameters' names to LogNormal(median, sigma). Got {priors!r}.")
    for name, prior in priors.items():
        if name not in names:
            raise ValueError(f"priors knows no free parameter {name!r}. The free parameters are {names}.")
        if not isinstance(prior, LogNormal):
            raise ValueError(f"the prior of {name} must be LogNormal(median, sigma). Got {prior!r}.")
        prior.check(name)
    return [priors.get(name) for name in names]


class LogPosterior:
    """A likelihood and priors, as a function of θ: what a search for the maximum a posteriori climbs.

    Parameters
    ----------
    likelihood : Likelihood
    priors : list of LogNormal or None
        One for each of θ.
    shift : ndarray of shape (k,)
        The priors' θ minus the likelihood's.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel, LogNormal
    >>> from statespace.kalman.binding import Binding
    >>> from statespace.kalman.likelihood import Likelihood
    >>> from statespace.kalman.priors import LogPosterior
    >>> binding = Binding(LocalLevel(), np.array([0.0, 1.0]))
    >>> likelihood = Likelihood(LocalLevel(), [(binding, np.array([[0.0], [1.0]]), 1.0)])
    >>> posterior = LogPosterior(likelihood, [LogNormal(1.0, 0.5)], np.zeros(1))
    >>> round(posterior.value(np.zeros(1)) - likelihood.value(np.zeros(1)), 4)
    -0.2258
    """

    def __init__(self, likelihood, priors, shift):
        self.likelihood, self.priors, self.shift = likelihood, priors, shift
        self.n_observed = likelihood.n_observed

    def _of_priors(self, theta):
        value, gradient = 0.0, np.zeros(len(theta))
        for j, prior in enumerate(self.priors):
            if prior is not None:
                own = theta[j] + self.shift[j]
                value += prior.log_density(own)
                gradient[j] = (np.log(prior.median) - own) / prior.sigma**2
        return value, gradient

    def value(self, theta):
        """The log-posterior at ``theta``, but for a constant; −inf where the likelihood is not defined."""
        return self.likelihood.value(theta) + self._of_priors(np.asarray(theta, dtype=float))[0]

    def gradient(self, theta):
        """The log-posterior at ``theta`` and its gradient of shape (len(theta),)."""
        value, gradient = self.likelihood.gradient(theta)
        by_priors = self._of_priors(np.asarray(theta, dtype=float))
        return value + by_priors[0], gradient + by_priors[1] if np.isfinite(value) else gradient

    def quick(self):
        """The same by a quicker way; None if there is none."""
        likelihood = self.likelihood.quick()
        return likelihood and LogPosterior(likelihood, self.priors, self.shift)

    def roughly(self):
        """The same with a rough likelihood; None where that is no other."""
        likelihood = self.likelihood.roughly()
        return likelihood and LogPosterior(likelihood, self.priors, self.shift)

    def head(self, n):
        """The posterior given about the first n samples that were observed."""
        return LogPosterior(self.likelihood.head(n), self.priors, self.shift)
