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
from statespace.filtering.estimation import in_parallel, maximize_each
from statespace.filtering.files import answers, exported, imported
from statespace.filtering.noise import check_noise, noise_start
from statespace.filtering.panel import read_panel, read_values
from statespace.filtering.posteriors import Posteriors
from statespace.filtering.prediction import Prediction
from statespace.kalman.base import Component
from statespace.kalman.components import LocalTrend, Regression
from statespace.kalman.composition import Sum
from statespace.kalman.robust import Tails
from statespace.kalman.rows import read_targets


class KalmanRegressor(Diagnosis, Prediction, RegressorMixin, BaseEstimator):
    """A Gaussian process in time, fitted and predicted by a Kalman filter in O(n).

    The signal f(t) = H x(t) is a sum of processes (`statespace.kalman`) and is seen through noise,

        x(t_k) = A(Δ_k) x(t_{k−1}) + w_k,  w_k ~ N(0, Q(Δ_k)),    y_k = H_k x(t_k) + ε_k,  ε_k ~ N(0, R_k).

    Times may be irregular, repeated, and in any order; NaN in y is a missing observation. Processes that are not
    stationary start exactly diffuse (Koopman 1997; Durbin & Koopman 2012, chapter 5). The parameters maximise the
    exact likelihood, whose exact gradient one reverse sweep gives. The likelihood counts all constants of Durbin &
    Koopman's convention.

    X may hold one series, or many of any lengths: a list of them, a `SeriesCollection` with times, or a table with a
    (series, time) MultiIndex. Many series are independent of each other, and are fitted together, with parameters that
    they share, or side by side, each with its own.

    y may have several outputs: independent series at the same times, with the same process and, where it is fitted,
    the same noise variance, so they should be in like units. Each may be missing on its own, and known noise variances
    may differ. (Outputs that are correlated are what `statespace.kalman.LinearGaussianModel` is for.)

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
        everywhere. Huber's scale, if it is fitted, grows with many gross outliers; Student-t's hardly does.
    df : "fit" or float, default="fit"
        The degrees of freedom of Student-t noise. Fitted, they lie between 1 and 1000, where the noise is normal.
    huber_threshold : float, default=1.345
        The number of scales √R beyond which Huber's noise is exponential.
    optimizer : "fmin_l_bfgs_b", callable or None, default="fmin_l_bfgs_b"
        The default's name is that of scikit-learn's GaussianProcessRegressor. It stands for a quasi-Newton search
        within the bounds, whose Hessian is dense and measured at the start (`statespace.kalman.ascent`): few parameters
        and a smooth likelihood want no limited memory. None keeps the parameters as given. A callable has the signature
        ``optimizer(objective, initial_theta, bounds)`` and returns ``(theta, value)``, as scikit-learn's;
        ``objective(theta, eval_gradient=True)`` is to be minimised.
    n_restarts_optimizer : int, default=0
        Further searches from starts drawn at random around the first one.
    priors : dict of str to LogNormal, optional
        What is known about free parameters beforehand, by their names in ``params_``, such as
        ``{"matern__length_scale": LogNormal(median=10.0, sigma=0.5)}``. The parameters then maximise the posterior
        density of their logarithms, and their standard errors are from its curvature; all likelihoods reported stay
        likelihoods.
    parameters : {"shared", "separate"}, default="shared"
        Whether many series share their parameters, or each has its own.
    time_unit : str, default="D"
        What one unit of time is for datetimes: a pandas unit such as "h", or a length such as "365.25D".
    backend : str, optional
        As in `statespace.kernels.kalman_filter`.
    n_jobs : int, optional
        How many series are fitted at a time where each has its own parameters, through joblib: threads, processes or
        dask, as ``joblib.parallel_config`` says. Series that share their parameters are filtered by Numba's threads.
    random_state : int, RandomState or None, default=None
        Draws the restarts.

    Attributes
    ----------
    process_ : Component
        The process with the fitted parameters; not where each series has its own.
    processes_ : dict of label to Component
        Only where each series has its own parameters.
    series_ : Index or None
        The labels of the series: those of the index, or 0, 1, …; None where X was one series.
    noise_variance_ : float or ndarray
        The fitted or known noise variance; one for each series where they have their own. If `fit` was given that of
        each sample: those, of shape (n_samples,) or (n_samples, n_outputs), in the order of the rows.
    theta_ : ndarray of shape (n_parameters,) or (n_series, n_parameters)
        The natural logarithms of the free parameters, the noise variance last where it is fitted, and after it the
        degrees of freedom where those are.
    df_ : float or ndarray of shape (n_series,)
        The degrees of freedom; only with Student-t noise.
    weights_ : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        The weight w of each sample, small for outliers; 1 where y is missing. Of many series, in the order of the rows
        of all of them. Only with Student-t or Huber noise.
    log_marginal_likelihood_value_ : float
        The log-likelihood at ``theta_``, of all series together.
    params_ : DataFrame
        For each free parameter its estimate, standard error (from the observed information), bounds, and whether it
        ended at one of them. At a bound the standard error is NaN. Where each series has its own parameters, they
        are the second level of the index, and the first names the series. The errors are computed on access.
    time_scale_ : float or ndarray of shape (n_series,)
        The median positive gap; of each series where they have their own parameters.
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

    Two series of different lengths, fitted together:

    >>> X, Y = [t[:, np.newaxis], t[:30, np.newaxis] + 0.5], [y, y[:30]]
    >>> both = KalmanRegressor(LocalLevel() + Seasonal(12, harmonics=1)).fit(X, Y)
    >>> [mean.shape for mean in both.predict(X)]
    [(60,), (30,)]
    >>> both.predict([[63.0]], series=1).shape
    (1,)
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
        priors=None,
        parameters="shared",
        time_unit="D",
        backend=None,
        n_jobs=None,
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
        self.priors = priors
        self.parameters = parameters
        self.time_unit = time_unit
        self.backend = backend
        self.n_jobs = n_jobs
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
        X : array-like of shape (n_samples, 1 + n_covariates), DataFrame or datetimes of shape (n_samples,), or many
            Of one series: X[:, 0] is the time, as numbers or datetimes; the other columns are covariates. Or a
            DataFrame of covariates whose index holds datetimes or floats; or a DatetimeIndex or datetime64 array alone.
            Rows in any order; times may repeat.

            Many series: a list of such, an array of shape (n_series, n_times, 1 + n_covariates), a SeriesCollection
            with times, whose channels are the covariates, or a DataFrame with a MultiIndex whose last level is the time
            and whose others name the series; or such an index alone.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), or that of many series
            NaN marks a missing observation. Several outputs are independent series with the same parameters. Of many
            series a list of such arrays, or, where X is a table, a Series, DataFrame or array with its rows.
        noise_variance : float, or array-like with an entry for each entry or row of y, optional
            Known variances of the noise of each sample; they replace the parameter of this name.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X or y is empty, not finite (but NaN in y), of unequal length, or y is NaN throughout; if a parameter
            is no positive number, the message naming the series; or if no parameters are found at which the
            log-likelihood is finite.
        """
        panel, record, known = self._read(X, y, noise_variance, reset=True)
        process, rows = self._chosen_process(panel.rows), panel.rows
        optimizer = self._checked_optimizer()
        if self.parameters not in ("shared", "separate"):
            raise ValueError(f"parameters must be 'shared' or 'separate'. Got {self.parameters!r}.")
        separate = self.parameters == "separate" and self.series_ is not None
        records = [record.one(i) for i in range(record.n_series)] if separate else [record]
        if separate:
            self._refuse_empty(records)
        random_state = check_random_state(self.random_state)
        # Seeds of their own let a series have the same restarts whoever fits it.
        seeds = [random_state] if not separate else random_state.randint(2**31 - 1, size=len(records)).tolist()
        pose = partial(
            maximize_each, process=process, names=rows.names, unit=self.time_unit, backend=self.backend,
            noise_start=partial(noise_start, bounds=self.noise_variance_bounds), optimizer=optimizer,
            n_restarts=self.n_restarts_optimizer, tails=Tails.of(self.noise, self.df, self.huber_threshold),
            priors=self.priors,
        )  # fmt: skip
        fitted = in_parallel(pose, records, seeds, self.n_jobs) if separate else pose(records, seeds)
        messages = [message for *_, message in fitted]
        if any(messages):
            first = next(filter(None, messages))
            of = f" of {sum(map(bool, messages))} of {len(messages)} series" if separate else ""
            warnings.warn(
                f"The maximum of the likelihood{of} was not reached: {first}. Give start values or narrower bounds, "
                "or raise n_restarts_optimizer.",
                ConvergenceWarning,
                stacklevel=2,
            )
        estimations, thetas = [estimation for estimation, *_ in fitted], [theta for _, theta, _ in fitted]
        self._conclude(estimations, thetas, known)
        self._refuse_impossible()
        return self

    def _read(self, X, y, noise_variance, *, reset):
        """The panel, the record, and the known noise: None where it is fitted."""
        panel = read_panel(X, self, reset=reset)
        y = read_targets(read_values(y, panel, "y"), len(panel.series))
        known = self.noise_variance if noise_variance is None else noise_variance
        if isinstance(known, list | tuple) or np.ndim(known):
            known = read_values(known, panel, "noise_variance")
        known = check_noise(known, y.shape)
        self._single, self.series_ = y.ndim == 1, panel.labels
        self._order = np.lexsort((panel.rows.times, panel.series))
        return panel, panel.record(y, known), known

    def _refuse_empty(self, records):
        for label, record in zip(self.series_, records, strict=True):
            if np.isnan(record.y).all():
                raise ValueError(f"y of series {label!r} contains NaN only: there is nothing to fit its parameters to.")

    def _conclude(self, estimations, thetas, known, squares=None):
        for i, (estimation, theta) in enumerate(zip(estimations, thetas, strict=True)):
            estimation.settle(theta, None if squares is None else squares[i])
        self._estimations, self._known = estimations, known
        self._known_each = np.ndim(known) > 0
        self._separate = self.parameters == "separate" and self.series_ is not None
        if self._separate:
            self.theta_, self.time_scale_ = np.array(thetas), np.array([each.scale.time for each in estimations])
            processes = [each.unpack(theta)[0] for each, theta in zip(estimations, thetas, strict=True)]
            self.processes_ = dict(zip(self.series_, processes, strict=True))
        else:
            self.theta_, self.time_scale_ = thetas[0], estimations[0].scale.time
            self.process_, _ = estimations[0].unpack(self.theta_)
        noise = known
        if known is None:
            fitted = [each.unpack(theta)[1] for each, theta in zip(estimations, thetas, strict=True)]
            noise = np.array(fitted) if self._separate else fitted[0]
        if known is not None and np.ndim(known) == 0 and self._separate:
            noise = np.full(len(estimations), known)
        self.noise_variance_ = float(noise) if np.ndim(noise) == 0 else noise
        if self.noise != "gaussian":
            pairs = list(zip(estimations, thetas, strict=True))
            weights = np.concatenate([each.weights(theta) for each, theta in pairs])
            self.weights_ = self._shaped(self._in_order(weights))
            if self.noise == "student_t":
                df = [each.family(theta).df for each, theta in pairs]
                self.df_ = np.array(df) if self._separate else df[0]
        self.log_marginal_likelihood_value_ = self.log_marginal_likelihood(self.theta_)
        return self

    def _refuse_impossible(self):
        # a variance that was lost to rounding may leave an absurd number as well
        if not abs(self.log_marginal_likelihood_value_) < 1e100:
            raise ValueError(
                f"the log-likelihood is {self.log_marginal_likelihood_value_} with {self.process!r} at "
                f"theta = {self.theta_.tolist()}: no parameters were found at which the record is possible and its "
                "likelihood can be computed. Either samples without noise contradict each other (give "
                "noise_variance > 0, or fit it), or the process has directions that the first samples cannot tell "
                "apart, such as many yearly harmonics on daily samples (take fewer harmonics or coarser samples), or "
                "the start values are out of reach of the data (leave them None, or set bounds around likely values)."
            )

    @property
    def _estimation(self):
        return self._estimations[0]

    @property
    def _record(self):
        return self._estimation.record

    def _posterior(self, theta=None):
        return self._estimation.posterior(self.theta_ if theta is None else theta)

    def _posteriors(self):
        thetas = self.theta_ if self._separate else [self.theta_]
        each = [each.posterior(theta) for each, theta in zip(self._estimations, thetas, strict=True)]
        return Posteriors(each, shared=not self._separate)

    @property
    def params_(self):
        """DataFrame of the free parameters, computed when it is asked for: 2 gradients a parameter."""
        check_is_fitted(self)
        if not self._separate:
            return self._estimation.table(self.theta_)
        tables = [each.table(theta) for each, theta in zip(self._estimations, self.theta_, strict=True)]
        table = pd.concat(tables, keys=self.series_.to_list())
        names = ["series"] if table.index.nlevels == 2 else [None] * (table.index.nlevels - 1)
        return table.rename_axis([*names, "parameter"])

    def _chosen_process(self, rows):
        if self.process is None:
            return LocalTrend() + Regression() if rows.names else LocalTrend()
        if not isinstance(self.process, Component):
            raise ValueError(f"process must be a component of statespace.kalman or a sum. Got {self.process!r}.")
        components = self.process.components if isinstance(self.process, Sum) else [self.process]
        reads = any(type(c).design is not Component.design and not c.uses_times for c in components)
        if rows.names and not reads:
            raise ValueError(
                f"X has the covariates {list(rows.names)} besides the time, and no component of {self.process!r} "
                "reads them. Add Regression(), or drop the columns."
            )
        return self.process

    def _checked_optimizer(self):
        if self.optimizer is None or callable(self.optimizer) or self.optimizer == "fmin_l_bfgs_b":
            return self.optimizer
        raise ValueError(f"optimizer must be 'fmin_l_bfgs_b', a callable or None. Got {self.optimizer!r}.")

    def log_marginal_likelihood(self, theta=None, eval_gradient=False):
        """The log-likelihood of the data given in `fit`.

        Parameters
        ----------
        theta : array-like of shape (n_parameters,) or (n_series, n_parameters), optional
            Logarithms of the parameters, as ``theta_``, which is the default.
        eval_gradient : bool, default=False

        Returns
        -------
        value : float
            Of all series and outputs together, with all constants of Durbin & Koopman (2012), section 7.2.
        gradient : ndarray of the shape of theta
            By theta; only with ``eval_gradient``.
        """
        check_is_fitted(self, "theta_")
        theta = self.theta_ if theta is None else np.asarray(theta, dtype=float)
        if theta.shape != self.theta_.shape:
            names = self._estimation.names()
            each = f" for each of {len(self.series_)} series" if self._separate else ""
            raise ValueError(f"theta must have an entry for each of {names}{each}. Got shape {theta.shape}.")
        thetas = theta if self._separate else [theta]
        if not eval_gradient:
            return sum(each.value(part) for each, part in zip(self._estimations, thetas, strict=True))
        values, gradients = zip(
            *(each.gradient(part) for each, part in zip(self._estimations, thetas, strict=True)), strict=True
        )
        return sum(values), np.reshape(gradients, theta.shape)

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        check_is_fitted(self)
        return exported(self)

    @classmethod
    def _import(cls, state, arrays):
        """The fitted estimator that `_export` described."""
        return imported(cls, state, arrays)

    def _probe(self):
        """Short and long gaps, for `statespace.persistence`."""
        return {"gaps": self._estimations[0].scale.time * np.array([0.1, 1.0, 10.0])}

    def _answer_probe(self, given):
        """The matrices of the processes over them."""
        return answers(self, given["gaps"].ravel()[:8])  # a file may come from anyone

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
