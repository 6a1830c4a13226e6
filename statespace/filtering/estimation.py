"""Maximum likelihood of a process and a noise variance on a record: what θ holds, its bounds, and its likelihood."""

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from statespace.kalman.fitting import Search, at_bounds, fit, standard_errors
from statespace.kalman.posterior import Posterior
from statespace.kalman.priors import LogPosterior, check_priors
from statespace.kalman.scale import measure


class Estimation:
    """A process and a record, and the likelihood that joins them as a function of θ.

    θ holds the natural logarithms of the process' free parameters, and that of the noise variance last where it is
    fitted. The search runs in scaled units, where θ differs by ``shift``.

    Parameters
    ----------
    start : Component
        Resolved, in the data's units.
    bounds : ndarray of shape (k, 2)
        Of θ.
    shift : ndarray of shape (k,)
        θ minus θ in scaled units.
    record : Record
    scale : Scale
    unit : str
        The unit of time for datetimes.
    backend : str, optional

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.filtering.estimation import Estimation
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.posterior import Record
    >>> record = Record(np.arange(3.0), np.zeros((3, 0)), np.array([[1.0], [2.0], [4.0]]), noise=1.0)
    >>> estimation, theta = Estimation.pose(LocalLevel(variance=1.0), record, (), None, "D")
    >>> round(estimation.value(theta), 4)
    -4.984
    """

    def __init__(self, start, bounds, shift, record, scale, unit, backend=None):
        self.start, self.bounds, self.shift = start, bounds, shift
        self.record, self.scale, self.unit, self.backend = record, scale, unit, backend
        noise = self.shift[-1:] if record.noise is None else []
        self.likelihood, self.constant = self.posterior(np.append(start.theta, noise)).likelihood()
        self.objective, self._priors = self.likelihood, None

    def with_priors(self, priors):
        """The same problem, whose objective counts priors by the names of the parameters; returns self."""
        if priors is not None:
            given = check_priors(priors, self.names())
            self.objective, self._priors = LogPosterior(self.likelihood, given, self.shift), priors
        return self

    @classmethod
    def pose(cls, process, record, names, noise_start, unit, backend=None, priors=None):
        """The problem for a process as the user gave it.

        Parameters
        ----------
        process : Component
            Its parameters, bounds and numbers of states may still be None, to be taken from the record.
        record : Record
        names : tuple of str or int
            The covariates' names.
        noise_start : callable or None
            Makes (start, bounds, range) of the noise variance's logarithm from the scale; None where it is known.
        unit : str
        backend : str, optional
        priors : dict of str to LogNormal, optional

        Returns
        -------
        estimation : Estimation
        theta : ndarray of shape (k,)
            The parameters as given, or typical ones where they are None.
        """
        process.validate()
        scale = measure(record, names, process, unit)
        start, ranges = process.resolved(scale), process.ranges(scale)
        theta, bounds, is_variance = start.theta, start.bounds, start.is_variance()
        shift = theta - start.rescaled(scale).theta
        if record.noise is None:
            at, noise_bounds, noise_range = noise_start(scale)
            theta, bounds, ranges = np.append(theta, at), np.vstack([bounds, noise_bounds]), [*ranges, noise_range]
            is_variance, shift = np.append(is_variance, True), np.append(shift, 2 * np.log(scale.value))
        self = cls(start, bounds, shift, record, scale, unit, backend)
        self.with_priors(priors)
        self._ranges, self._is_variance = np.reshape(ranges, (-1, 2)), is_variance
        if priors is not None:
            self._narrow(self.objective.priors)
        return self, theta

    def _narrow(self, priors):
        """Start where the priors say, and do not put at zero what they do not have there."""
        for j, prior in enumerate(priors):
            if prior is not None:
                likely = np.log(prior.median) + 2.0 * prior.sigma * np.array([-1.0, 1.0])
                self._ranges[j], self._is_variance[j] = np.clip(likely, *self.bounds[j]), False

    def given(self, record, theta):
        """The same process with the parameters θ, and the same scales, given another record."""
        start, _ = self.unpack(theta)
        keep = slice(len(start.free)) if record.noise is not None else slice(None)
        other = Estimation(start, self.bounds[keep], self.shift[keep], record, self.scale, self.unit, self.backend)
        priors = self._priors
        return other.with_priors(priors and {name: priors[name] for name in other.names() if name in priors})

    def maximum(self, optimizer, n_restarts, random_state):
        """θ of the highest likelihood or posterior density, and why the search ended before it; empty if it did not."""
        by_shift = self.shift[:, np.newaxis]
        search = Search(self.objective, self.bounds - by_shift, self._is_variance, self._ranges - by_shift, optimizer)
        scaled, message = fit(search, n_restarts, random_state)
        return np.clip(scaled + self.shift, *self.bounds.T), message

    def unpack(self, theta):
        """The process and the noise variance (of the record, in the order of time) that θ stands for."""
        known = self.record.noise
        n = len(self.start.free)
        return self.start.clone_with_theta(theta[:n]), float(np.exp(theta[n])) if known is None else known

    def posterior(self, theta):
        """The process with these parameters, given the record."""
        process, noise = self.unpack(theta)
        return Posterior(process, noise, self.record, self.scale, self.unit, self.backend)

    def names(self):
        """What θ holds."""
        return [*self.start.hyperparameters(), *(["noise_variance"] if self.record.noise is None else [])]

    def value(self, theta):
        """The log-likelihood of the data as they are."""
        return float(self.likelihood.value(theta - self.shift) + self.constant)

    def gradient(self, theta):
        """The log-likelihood, and its gradient by θ."""
        value, gradient = self.likelihood.gradient(theta - self.shift)
        return float(value + self.constant), gradient

    def table(self, theta):
        """DataFrame of the free parameters: 2 gradients for each."""
        held = at_bounds(theta, self.bounds)
        columns = {
            "estimate": np.exp(theta),
            "standard_error": np.exp(theta) * standard_errors(self.objective, theta - self.shift, ~held),
            "lower_bound": np.exp(self.bounds[:, 0]),
            "upper_bound": np.exp(self.bounds[:, 1]),
            "at_bound": held,
        }
        return pd.DataFrame(columns, index=pd.Index(self.names(), name="parameter"))


def maximize_each(records, seeds, *, process, names, noise_start, unit, backend, optimizer, n_restarts, priors=None):
    """Maximum likelihood of a process on records that have nothing to do with each other.

    Parameters
    ----------
    records : list of Record
    seeds : list of int or RandomState
        What draws the restarts of each.
    process, names, noise_start, unit, backend : as in `Estimation.pose`
    optimizer : "fmin_l_bfgs_b", callable or None
        None keeps the parameters as given.
    n_restarts : int
    priors : dict of str to LogNormal, optional

    Returns
    -------
    list of (Estimation, ndarray of shape (k,), str)
        Each with θ, and why the search ended before the maximum; empty if it did not.
    """
    fitted = []
    for record, seed in zip(records, seeds, strict=True):
        estimation, theta = Estimation.pose(process, record, names, noise_start, unit, backend, priors)
        message = ""
        if optimizer is not None and len(theta):
            theta, message = estimation.maximum(optimizer, n_restarts, check_random_state(seed))
        fitted.append((estimation, theta, message))
    return fitted
