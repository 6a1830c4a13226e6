"""Maximum likelihood of a process and a noise variance on a record: what θ holds, its bounds, and its likelihood."""

import numpy as np
import pandas as pd

from statespace.kalman.fitting import Search, at_bounds, fit, standard_errors
from statespace.kalman.posterior import Posterior
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
        self.likelihood, self.constant = self.posterior(self._given_theta()).likelihood()

    @classmethod
    def pose(cls, process, record, names, noise_start, unit, backend=None):
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
        self._ranges, self._is_variance = np.reshape(ranges, (-1, 2)), is_variance
        return self, theta

    def _given_theta(self):
        return self.start.theta if self.record.noise is not None else np.append(self.start.theta, self.shift[-1])

    def maximum(self, optimizer, n_restarts, random_state):
        """θ of the highest likelihood, and why the search ended before it; empty if it did not."""
        by_shift = self.shift[:, np.newaxis]
        search = Search(self.likelihood, self.bounds - by_shift, self._is_variance, self._ranges - by_shift, optimizer)
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
            "standard_error": np.exp(theta) * standard_errors(self.likelihood, theta - self.shift, ~held),
            "lower_bound": np.exp(self.bounds[:, 0]),
            "upper_bound": np.exp(self.bounds[:, 1]),
            "at_bound": held,
        }
        return pd.DataFrame(columns, index=pd.Index(self.names(), name="parameter"))
