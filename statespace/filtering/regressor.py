"""The Kalman filter as a regressor: a Gaussian process in time, in O(n), on irregular samples.

Above: the forecasters. Below: `statespace.kalman`, the processes and how they meet data.
"""

import warnings
from functools import partial

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from statespace.filtering.diagnosis import Diagnosis
from statespace.filtering.estimation import Estimation
from statespace.filtering.files import exported, imported
from statespace.filtering.noise import check_noise, noise_start
from statespace.kalman.base import Component
from statespace.kalman.components import LocalTrend, Regression
from statespace.kalman.composition import Sum
from statespace.kalman.posterior import Record
from statespace.kalman.robust import Tails
from statespace.kalman.rows import read, read_targets
from statespace.times import elapsed


class KalmanRegressor(Diagnosis, RegressorMixin, BaseEstimator):
    """A Gaussian process in time, fitted and predicted by a Kalman filter in O(n).

    The signal f(t) = H x(t) is a sum of processes (`statespace.kalman`) and is seen through noise,

        x(t_k) = A(Δ_k) x(t_{k−1}) + w_k,  w_k ~ N(0, Q(Δ_k)),    y_k = H_k x(t_k) + ε_k,  ε_k ~ N(0, R_k).

    Times may be irregular, repeated, and in any order; NaN in y is a missing observation. Processes that are not
    stationary start exactly diffuse (Koopman 1997; Durbin & Koopman 2012, chapter 5). The parameters maximise the
    exact likelihood, whose exact gradient one reverse sweep gives. The likelihood counts all constants of Durbin &
    Koopman's convention.

    Parameters
    ----------
    process : Component, optional
        By default a `LocalTrend`, and a `Regression` on all covariates if there are any. Parameters that are None
        start from values taken from the data.
    noise_variance : "fit" or float, default="fit"
        The variance R of the observation noise; known variances of single samples are given to `fit`.
    noise_variance_bounds : pair of float, optional
        Bounds of a noise variance that is fitted. None stands for wide ones in the data's units.
    noise : {"gaussian", "student_t", "huber"}, default="gaussian"
        Student-t noise, or Huber's (normal with exponential tails), lets outliers hardly move the estimate. R is then
        the square of the noise's scale. The signal is smoothed with noise variances R/w_k, with a weight w_k for each
        sample, and what is maximised is the lower bound of the log-likelihood that these weights make highest, by
        variational inference (`statespace.kalman.robust` derives it); it takes the place of the log-likelihood
        everywhere.
    df : "fit" or float, default="fit"
        The degrees of freedom of Student-t noise. Fitted, they lie between 1 and 1000, where the noise is normal.
    huber_threshold : float, default=1.345
        The number of scales √R beyond which Huber's noise is exponential.
    optimizer : "fmin_l_bfgs_b", callable or None, default="fmin_l_bfgs_b"
        None keeps the parameters as given. A callable has the signature ``optimizer(objective, initial_theta,
        bounds)`` and returns ``(theta, value)``, as for scikit-learn's GaussianProcessRegressor; ``objective(theta,
        eval_gradient=True)`` is to be minimised.
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
        The natural logarithms of the free parameters, the noise variance last where it is fitted, and after it the
        degrees of freedom where those are.
    df_ : float
        The degrees of freedom; only with Student-t noise.
    weights_ : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The weight w of each sample, small for outliers; 1 where y is missing. Only with Student-t or Huber noise.
    log_marginal_likelihood_value_ : float
        The log-likelihood at ``theta_``.
    params_ : DataFrame
        For each free parameter its estimate, standard error (from the observed information), bounds, and whether it
        ended at one of them. At a bound the standard error is NaN. The errors are computed on access.
    time_scale_ : float
        The median positive gap.
    n_features_in_ : int
        The number of columns of X; of the covariates only where times are datetimes, because they may stand in the
        index.

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
    array([ 0.9, -0.3])
    """

    def __init__(
        self,
        process=None,
        *,
        noise_variance="fit",
        noise_variance_bounds=None,
        noise="gaussian",
        df="fit",
        huber_threshold=1.345,
        optimizer="fmin_l_bfgs_b",
        n_restarts_optimizer=0,
        time_unit="D",
        backend=None,
        random_state=None,
    ):
        self.process = process
        self.noise_variance = noise_variance
        self.noise_variance_bounds = noise_variance_bounds
        self.noise = noise
        self.df = df
        self.huber_threshold = huber_threshold
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
            X[:, 0] is the time, as numbers or datetimes; the other columns are covariates. Or a DataFrame of
            covariates with a DatetimeIndex; or a DatetimeIndex or datetime64 array alone. Rows in any order; times
            may repeat.
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
            If X or y is empty, not finite (but NaN in y), of unequal length, or y is NaN throughout; if a parameter
            is no positive number.
        """
        rows = read(X, self, reset=True)
        y = read_targets(y, len(rows.times))
        known = check_noise(self.noise_variance if noise_variance is None else noise_variance, len(y))
        tails = Tails.of(self.noise, self.df, self.huber_threshold)
        order = np.argsort(elapsed(rows.times, origin=rows.times.min()), kind="stable")
        self._single = y.ndim == 1
        ordered_noise = known[order] if np.ndim(known) else known
        record = Record(rows.times[order], rows.covariates[order], y[order].reshape(len(y), -1), ordered_noise)
        start = partial(noise_start, bounds=self.noise_variance_bounds)
        estimation, theta = Estimation.pose(
            self._chosen_process(rows), record, rows.names, start, self.time_unit, self.backend, tails
        )
        if self.optimizer is not None and len(theta):
            theta, message = estimation.maximum(
                self._checked_optimizer(), self.n_restarts_optimizer, check_random_state(self.random_state)
            )
            if message:
                warnings.warn(
                    f"The maximum of the likelihood was not reached: {message}. Give start values or narrower bounds, "
                    "or raise n_restarts_optimizer.",
                    ConvergenceWarning,
                    stacklevel=2,
                )
        self._order = order
        self._conclude(estimation, theta, estimation.unpack(theta)[1] if known is None else known)
        return self

    def _conclude(self, estimation, theta, noise_variance, squares=None):
        self._estimation, self.time_scale_ = estimation, estimation.scale.time
        estimation.settle(theta, squares)
        if estimation.tails is not None:
            weights = np.empty(estimation.record.y.shape)
            weights[self._order] = estimation.weights(theta)
            self.weights_ = self._shaped(weights)
            if estimation.tails.kind == "student_t":
                self.df_ = float(estimation.family(theta).df)
        self.theta_, self.noise_variance_ = theta, noise_variance
        self.process_, _ = estimation.unpack(theta)
        self.log_marginal_likelihood_value_ = self.log_marginal_likelihood(theta)

    @property
    def _record(self):
        return self._estimation.record

    def _posterior(self, theta=None):
        return self._estimation.posterior(self.theta_ if theta is None else theta)

    @property
    def params_(self):
        """DataFrame of the free parameters, computed when it is asked for: 2 gradients a parameter."""
        check_is_fitted(self)
        return self._estimation.table(self.theta_)

    def _chosen_process(self, rows):
        if self.process is None:
            return LocalTrend() + Regression() if rows.names else LocalTrend()
        if not isinstance(self.process, Component):
            raise ValueError(f"process must be a component of statespace.kalman or a sum. Got {self.process!r}.")
        components = self.process.components if isinstance(self.process, Sum) else [self.process]
        reads = any(type(component).design is not Component.design for component in components)
        if rows.names and not reads:
            raise ValueError(
                f"X has the covariates {list(rows.names)} besides the time, and no component of {self.process!r} "
                "reads them. Add Regression(), or drop the columns."
            )
        return self.process

    def _checked_optimizer(self):
        if callable(self.optimizer) or self.optimizer == "fmin_l_bfgs_b":
            return self.optimizer
        raise ValueError(f"optimizer must be 'fmin_l_bfgs_b', a callable or None. Got {self.optimizer!r}.")

    def log_marginal_likelihood(self, theta=None, eval_gradient=False):
        """The log-likelihood of the data given in `fit`.

        Parameters
        ----------
        theta : array-like of shape (n_parameters,), optional
            Logarithms of the parameters, as ``theta_``, which is the default.
        eval_gradient : bool, default=False

        Returns
        -------
        value : float
            Of all outputs together, with all constants of Durbin & Koopman (2012), section 7.2.
        gradient : ndarray of shape (n_parameters,)
            By theta; only with ``eval_gradient``.
        """
        check_is_fitted(self, "theta_")
        theta = self.theta_ if theta is None else np.asarray(theta, dtype=float)
        if theta.shape != self.theta_.shape:
            names = self._estimation.names()
            raise ValueError(f"theta must have an entry for each of {names}. Got shape {theta.shape}.")
        return self._estimation.gradient(theta) if eval_gradient else self._estimation.value(theta)

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        check_is_fitted(self)
        return exported(self)

    @classmethod
    def _import(cls, state, arrays):
        """The fitted estimator that `_export` described."""
        return imported(cls, state, arrays)

    def save(self, path):
        """Write the fitted estimator to one safetensors file; ``statespace.load(path)`` reads it.

        A ``random_state`` that is no integer is not kept.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            The estimator is not fitted.
        TypeError
            The process is not made of this package's own components, or the optimizer is a callable.
        """
        from statespace import persistence

        persistence.save(self, path)

    # Predicting.

    def predict(self, X, return_std=False, return_cov=False, include_noise=False):
        """The signal at other times, given all of the data: interpolated, smoothed or forecast.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1 + n_covariates), or any form that `fit` takes
            In any order.
        return_std : bool, default=False
            Also return standard deviations, in O(n).
        return_cov : bool, default=False
            Also return the joint covariance of all rows, in O(n_samples · n).
        include_noise : bool, default=False
            Whether std and cov are those of a new observation rather than of the signal.

        Returns
        -------
        mean : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        std : ndarray of the same shape
            Infinite where the data leave a diffuse process open; the mean is then any number.
        cov : ndarray of shape (n_samples, n_samples) or (n_samples, n_samples, n_outputs)

        Raises
        ------
        ValueError
            For X as in `fit`; if both std and cov are asked for; or for the noise of new samples where only that of
            each known sample is known.
        """
        check_is_fitted(self)
        if return_std and return_cov:
            raise ValueError("At most one of return_std or return_cov can be requested.")
        rows = read(X, self, reset=False)
        noise = self._new_noise() if include_noise else 0.0
        posterior = self._posterior()
        mean, variance = (part[:, 0] for part in posterior.at(rows.times, rows.covariates))
        if return_cov:
            covariance = posterior.joint_covariance(rows.times, rows.covariates)
            covariance[np.diag_indices(len(covariance))] += noise
            return self._shaped(mean), self._shaped(covariance)
        if return_std:
            return self._shaped(mean), self._shaped(np.sqrt(variance + noise))
        return self._shaped(mean)

    def _shaped(self, array):
        return array[..., 0] if self._single else array

    def _new_noise(self):
        if np.ndim(self._record.noise):
            raise ValueError(
                "include_noise=True needs the noise variance of new samples, and fit was given that of each known "
                "sample only. Predict without it and add the variance that you know."
            )
        return self.noise_variance_ * self._noise_factor()

    def _noise_factor(self):
        """The variance of the noise in units of R."""
        family = self._estimation.family(self.theta_)
        return 1.0 if family is None else family.variance

    def decompose(self, X):
        """Each component at other times, given all of the data. The components add up to `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, 1 + n_covariates), or any form that `fit` takes

        Returns
        -------
        DataFrame with n_samples rows
            Two columns for each component: its mean, and its standard deviation with the suffix ``_std``. Of several
            outputs, one such table beside the other under a first level of columns that counts them.
        """
        check_is_fitted(self)
        rows = read(X, self, reset=False)
        mean, variance = self._posterior().at(rows.times, rows.covariates, components=True)
        tables = []
        for k in range(mean.shape[2]):
            columns = {}
            for j, (name, _) in enumerate(self.process_.named()):
                columns[name], columns[f"{name}_std"] = mean[:, j, k], np.sqrt(variance[:, j, k])
            tables.append(pd.DataFrame(columns, index=rows.index))
        return tables[0] if self._single else pd.concat(dict(enumerate(tables)), axis=1)

    def sample_y(self, X, n_samples=1, random_state=0, include_noise=False):
        """Joint draws of the signal at other times, given all of the data.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, 1 + n_covariates), or any form that `fit` takes
        n_samples : int, default=1
        random_state : int, RandomState or None, default=0
        include_noise : bool, default=False
            Whether to draw new observations rather than the signal.

        Returns
        -------
        ndarray of shape (n_samples_X, n_samples) or (n_samples_X, n_outputs, n_samples)
            NaN where the data leave a diffuse process open.
        """
        check_is_fitted(self)
        rows = read(X, self, reset=False)
        random_state = check_random_state(random_state)
        drawn = self._posterior().sample(rows.times, rows.covariates, n_samples, random_state)
        if include_noise:
            self._new_noise()
            family = self._estimation.family(self.theta_)
            draw = random_state.normal(size=drawn.shape) if family is None else family.draw(random_state, drawn.shape)
            drawn += np.sqrt(self.noise_variance_) * draw
        return drawn[:, 0] if self._single else drawn

    def stream(self, from_prior=False, include_noise=False):
        """A filter that takes one sample at a time, at constant cost.

        With Student-t or Huber noise each sample gets its weight when it comes, from its innovation, and keeps it;
        `predict` weighs it by what comes later, too.

        Parameters
        ----------
        from_prior : bool, default=False
            Start a new series with the fitted parameters, rather than at the end of the data of `fit`.
        include_noise : bool, default=False
            Whether its standard deviations are those of an observation rather than of the signal.

        Returns
        -------
        KalmanStream
        """
        from statespace.streaming.kalman import KalmanStream

        check_is_fitted(self)
        if include_noise:
            self._new_noise()
        return KalmanStream(
            self._posterior(),
            None if np.ndim(self._record.noise) else self.noise_variance_,
            single=self._single,
            from_prior=from_prior,
            include_noise=include_noise,
            family=self._estimation.family(self.theta_),
        )
