"""The Kalman filter as a regressor: a Gaussian process in time, in O(n), on irregular samples.

Above: the forecasters. Below: `statespace.kalman`, the processes and how they meet data.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_consistent_length, check_is_fitted

from statespace.kalman.base import Component, Scale
from statespace.kalman.binding import Binding
from statespace.kalman.components import LocalTrend, Regression
from statespace.kalman.fitting import Likelihood, fit
from statespace.kalman.rows import read
from statespace.validation import elapsed, gaps, median_gap

# Noise variances that are fitted lie between these multiples of y's variance: the lower one stands for none.
_NOISE = (1e-14, 1e2)


class KalmanRegressor(RegressorMixin, BaseEstimator):
    """A Gaussian process in time, fitted and predicted by a Kalman filter in O(n).

    The signal f(t) = H x(t) is a sum of processes (`statespace.kalman`) and is seen through noise,

        x(t_k) = A(Δ_k) x(t_{k−1}) + w_k,  w_k ~ N(0, Q(Δ_k)),    y_k = H_k x(t_k) + ε_k,  ε_k ~ N(0, R_k).

    Times may be irregular, repeated, and in any order; NaN in y is a missing observation. Processes that are not stationary start
    exactly diffuse (Koopman 1997; Durbin & Koopman 2012, chapter 5). The parameters maximise the exact likelihood, whose
    exact gradient one reverse sweep gives. The likelihood counts all constants of Durbin & Koopman's convention.

    Parameters
    ----------
    process : Component, optional
        By default a `LocalTrend`, and a `Regression` on all covariates if there are any. Parameters that are None start from values taken
        from the data.
    noise_variance : "fit" or float, default="fit"
        The variance R of the observation noise; known variances of single samples are given to `fit`.
    noise_variance_bounds : pair of float, optional
        Bounds of a noise variance that is fitted. None stands for wide ones in the data's units.
    optimizer : "fmin_l_bfgs_b", callable or None, default="fmin_l_bfgs_b"
        None keeps the parameters as given. A callable has the signature ``optimizer(objective, initial_theta, bounds)`` and returns
        ``(theta, value)``, as for scikit-learn's GaussianProcessRegressor; ``objective(theta, eval_gradient=True)`` is to be minimised.
    n_restarts_optimizer : int, default=0
        Further searches from starts drawn at random around the first one.
    time_unit : str, default="D"
        What one unit of time is for datetimes: a pandas unit such as "h", or a length such as "365.25D".
    backend : str, optional
        As in `statespace.kernels.kalman_filter`.
    random_state : int, RandomState or None, default=None
        Draws the restarts.

    Attributes
    ----------
    process_ : Component
        The process with the fitted parameters.
    noise_variance_ : float or ndarray of shape (n_samples,)
        The fitted or known noise variance, of each sample in the order of `fit` if those were given.
    theta_ : ndarray of shape (n_parameters,)
        The natural logarithms of the free parameters, the noise variance last where it is fitted.
    log_marginal_likelihood_value_ : float
        The log-likelihood at ``theta_``.
    params_ : DataFrame
        For each free parameter its estimate, standard error (from the observed information), bounds, and whether it ended at one of them.
        At a bound the standard error is NaN.
    time_scale_ : float
        The median positive gap.
    n_features_in_ : int
        The number of columns of X.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel, Seasonal
    >>> t = np.arange(60.0)
    >>> y = np.sin(2 * np.pi * t / 12) + 0.1 * np.random.default_rng(0).normal(size=60)
    >>> gp = KalmanRegressor(LocalLevel() + Seasonal(12, harmonics=1)).fit(t[:, np.newaxis], y)
    >>> mean, std = gp.predict([[63.0], [66.5]], return_std=True)
    >>> mean.round(1)
    array([1. , 0.3])
    """

    def __init__(
        self,
        process=None,
        *,
        noise_variance="fit",
        noise_variance_bounds=None,
        optimizer="fmin_l_bfgs_b",
        n_restarts_optimizer=0,
        time_unit="D",
        backend=None,
        random_state=None,
    ):
        self.process = process
        self.noise_variance = noise_variance
        self.noise_variance_bounds = noise_variance_bounds
        self.optimizer = optimizer
        self.n_restarts_optimizer = n_restarts_optimizer
        self.time_unit = time_unit
        self.backend = backend
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    # Fitting.

    def fit(self, X, y, noise_variance=None):
        """Fit the parameters by maximum likelihood, and keep the data to condition on.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1 + n_covariates), DataFrame, or datetimes of shape (n_samples,)
            X[:, 0] is the time, as numbers or datetimes; the other columns are covariates. Or a DataFrame of covariates with a
            DatetimeIndex; or a DatetimeIndex or datetime64 array alone. Rows in any order; times may repeat.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            NaN marks a missing observation. Several outputs are independent series with the same parameters.
        noise_variance : float or array-like of shape (n_samples,), optional
            Known variances of the noise of each sample; they replace the parameter of this name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or y is empty, not finite (but NaN in y), of unequal length, or y is NaN throughout; if a parameter is no positive number.
        """
        rows = read(X, self, reset=True)
        y = self._checked_targets(y, len(rows.times))
        order = np.argsort(elapsed(rows.times, origin=rows.times.min()), kind="stable")
        known = self._checked_noise(noise_variance, len(y))
        process = self._chosen_process(rows)

        self._times, self._covariates = rows.times[order], rows.covariates[order]
        self._y, self._single = y[order].reshape(len(y), -1), y.ndim == 1
        self._known_noise = known if known is None or np.ndim(known) == 0 else known[order]
        self._scale = self._scale_of(rows.names)
        self.time_scale_ = self._scale.time

        process = process.resolved(self._scale)
        noise, noise_bounds, noise_choices = self._noise_start()
        theta = np.append(process.theta, noise) if known is None else process.theta
        bounds = np.vstack([process.bounds, noise_bounds]) if known is None else process.bounds
        self._shift = self._theta_shift(process)
        self._prepare(process)
        fitted, standard_error, at_bound = theta, np.full(len(theta), np.nan), np.zeros(len(theta), dtype=bool)
        if self.optimizer is not None and len(theta):
            choices = [*self._chosen_process(rows).resolved_choices(self._scale, process)]
            choices += [noise_choices] if known is None else []
            outcome = fit(
                self._likelihood(process),
                bounds - self._shift[:, np.newaxis],
                np.append(process.is_variance(), True)[: len(theta)],
                [values - shift for values, shift in zip(choices, self._shift, strict=True)],
                optimizer=self._checked_optimizer(),
                n_restarts=self.n_restarts_optimizer,
                random_state=check_random_state(self.random_state),
            )
            fitted, standard_error, at_bound = outcome.theta + self._shift, outcome.standard_error, outcome.at_bound
            if outcome.message:
                warnings.warn(
                    f"The likelihood's maximum was not reached: {outcome.message}. Give start values or narrower bounds, or "
                    "raise n_restarts_optimizer.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
        return self._conclude(process, fitted, bounds, standard_error, at_bound, order)
