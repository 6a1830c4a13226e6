"""Maximum likelihood of a process and a noise variance on a record: what θ holds, its bounds, and its likelihood."""

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed

from statespace.kalman.fitting import Search, at_bounds, fit, standard_errors
from statespace.kalman.posterior import Posterior
from statespace.kalman.priors import LogPosterior, check_priors
from statespace.kalman.robust import DF_BOUNDS, RobustLikelihood, weights_at
from statespace.kalman.scale import measure

# Where the search for degrees of freedom begins.
_DF = 5.0

# A gradient of the log-likelihood that is 0 but for rounding.
_FLAT = 1e-10

# Series that are handed to a worker together.
_SERIES_AT_ONCE = 64


class Estimation:
    """A process and a record, and the likelihood that joins them as a function of θ.

    θ holds the natural logarithms of the process' free parameters, then that of the noise variance where it is fitted,
    then that of the noise's degrees of freedom where those are. The search runs in scaled units, where θ differs by
    ``shift``.

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
    tails : Tails, optional
        The noise, where it is not normal; the likelihood is then its lower bound (`statespace.kalman.robust`).

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

    def __init__(self, start, bounds, shift, record, scale, unit, backend=None, tails=None):
        self.start, self.bounds, self.shift = start, bounds, shift
        self.record, self.scale, self.unit, self.backend, self.tails = record, scale, unit, backend, tails
        self.squares = None
        n = len(start.free)
        noise = self.shift[n : n + 1] if record.noise is None else []
        self.likelihood, self.constant = self._posterior(np.append(start.theta, noise)).likelihood()
        if tails is not None:
            self.likelihood = RobustLikelihood(self.likelihood.process, self.likelihood.records, tails)
        self.objective, self._priors = self.likelihood, None

    def with_priors(self, priors):
        """The same problem, whose objective counts priors by the names of the parameters; returns self."""
        if priors is not None:
            given = check_priors(priors, self.names())
            self.objective, self._priors = LogPosterior(self.likelihood, given, self.shift), priors
        return self

    @classmethod
    def pose(cls, process, record, names, noise_start, unit, backend=None, tails=None, priors=None):
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
        tails : Tails, optional
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
        if tails is not None and tails.fits_df:
            theta, bounds = np.append(theta, np.log(_DF)), np.vstack([bounds, np.log(DF_BOUNDS)])
            ranges = [*ranges, np.log([_DF, _DF])]
            is_variance, shift = np.append(is_variance, False), np.append(shift, 0.0)
        self = cls(start, bounds, shift, record, scale, unit, backend, tails)
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
        """The same process with the parameters θ, and the same scales, given another record; and its own θ."""
        start, _ = self.unpack(theta)
        keep = np.ones(len(theta), dtype=bool)
        if record.noise is not None and self.record.noise is None:
            keep[len(start.free)] = False
        bounds, shift = self.bounds[keep], self.shift[keep]
        other = Estimation(start, bounds, shift, record, self.scale, self.unit, self.backend, self.tails)
        priors = self._priors
        other.with_priors(priors and {name: priors[name] for name in other.names() if name in priors})
        return other, theta[keep]

    def says_nothing(self, theta):
        """Whether no parameter moves the likelihood: the samples only tell where the diffuse states begin."""
        n_diffuse, record = self.start.initial().diffuse.shape[1], self.record
        seen = np.isfinite(record.y).T
        if self.tails is not None or self._priors is not None:
            return False
        if max(np.bincount(record.series, column).max() for column in seen) > n_diffuse:
            return False
        value, gradient = self.likelihood.gradient(theta - self.shift)
        return bool(np.isfinite(value) and np.abs(gradient).max() <= _FLAT)

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

    def family(self, theta):
        """The density of the noise, where it is not normal; else None."""
        return None if self.tails is None else self.tails.family(np.exp(theta[-1]) if self.tails.fits_df else None)

    def settle(self, theta, squares=None):
        """Make θ the place from which all others are seen: of noise that is not normal, find each sample's weight.

        ``squares`` are what settled it before (its attribute of this name), from a file.
        """
        if self.tails is not None:
            given = None if squares is None else [squares]
            (self.squares,) = self.likelihood.freeze(theta - self.shift, given)

    def weights(self, theta):
        """ndarray of shape (n, m): the weights w, of noise variances R/w; None for normal noise."""
        if self.tails is None:
            return None
        (squares,), _ = self.likelihood.squares(theta - self.shift)
        return weights_at(self.family(theta), squares)

    def _posterior(self, theta, weights=None):
        process, noise = self.unpack(theta)
        return Posterior(process, noise, self.record, self.scale, self.unit, self.backend, weights)

    def posterior(self, theta):
        """The process with these parameters, given the record."""
        return self._posterior(theta, self.weights(theta))

    def names(self):
        """What θ holds."""
        names = [*self.start.hyperparameters(), *(["noise_variance"] if self.record.noise is None else [])]
        return [*names, "df"] if self.tails is not None and self.tails.fits_df else names

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


def maximize_each(
    records, seeds, *, process, names, noise_start, unit, backend, optimizer, n_restarts, tails=None, priors=None
):
    """Maximum likelihood of a process on records that have nothing to do with each other.

    Parameters
    ----------
    records : list of Record
    seeds : list of int or RandomState
        What draws the restarts of each.
    process, names, noise_start, unit, backend, tails : as in `Estimation.pose`
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
        estimation, theta = Estimation.pose(process, record, names, noise_start, unit, backend, tails, priors)
        message = ""
        if optimizer is not None and len(theta):
            if estimation.says_nothing(theta):
                message = "there are too few samples for any parameter to matter, and all stay where they started"
            else:
                theta, message = estimation.maximum(optimizer, n_restarts, check_random_state(seed))
        fitted.append((estimation, theta, message))
    return fitted


def in_parallel(fit, records, seeds, n_jobs):
    """`maximize_each`, some series at a time, so that handing them over costs little.

    Parameters
    ----------
    fit : callable
        ``fit(records, seeds)`` returns a list.
    records, seeds : list
    n_jobs : int or None
        As in joblib, whose backend runs them.

    Returns
    -------
    list
        What ``fit`` makes of each record.
    """
    size = max(1, min(_SERIES_AT_ONCE, len(records) // (4 * effective_n_jobs(n_jobs))))
    parts = [slice(start, start + size) for start in range(0, len(records), size)]
    answers = Parallel(n_jobs=n_jobs)(delayed(fit)(records[part], seeds[part]) for part in parts)
    return [answer for part in answers for answer in part]
