"""KalmanForecaster: Gaussian forecasts of a sum of continuous-time processes, with sktime's interface."""

from numbers import Integral

import numpy as np
import pandas as pd
from scipy.stats import norm

from statespace.filtering import KalmanRegressor
from statespace.filtering.posteriors import rows_of_each
from statespace.forecasting.ahead import predict_ahead
from statespace.forecasting.base import TimeForecaster, covariate_rows, extended
from statespace.forecasting.horizon import common_freq
from statespace.kalman import Component, LocalTrend, Regression
from statespace.kalman.composition import Sum
from statespace.kalman.description import description, restored
from statespace.kalman.robust import quantile


class KalmanForecaster(TimeForecaster):
    """Forecasts by a Kalman filter, on regular grids and on irregular times.

    The model is that of `statespace.KalmanRegressor`, a sum of processes seen through noise. Its parameters maximise
    the exact likelihood. The forecast at a time is the normal distribution of an observation there, observation noise
    included, **given all observations before that time**. In-sample forecasts are therefore one-step-ahead, and
    residuals are the innovations; beyond the cutoff all of the data count. The first few in-sample times, at which the
    past does not yet determine the diffuse components, get the smoothed value instead, given all of the data.
    (``regressor_.predict`` interpolates and smooths.)

    Time is counted in steps of the frequency on a PeriodIndex or a DatetimeIndex with a ``freq`` (``Seasonal(12)`` on
    months is a year), in the index' own units if it holds integers, and in days on any other DatetimeIndex;
    ``time_unit`` sets a unit. Horizons may be absolute, Timedeltas, or integers, which are steps of the frequency,
    units of an integer index, and median gaps on an irregular DatetimeIndex.

    The series of a panel or of a hierarchy are independent of each other, and may be of any lengths and times. They are
    fitted side by side, each with its own parameters, or together, with parameters that they share. NaN in y is a
    missing observation.

    Parameters
    ----------
    process : Component, optional
        From `statespace.kalman`. By default a `LocalTrend`. Where X is given and no component reads covariates, a
        `Regression` on all of its columns is added.
    noise_variance : "fit" or float, default="fit"
        The variance of the observation noise.
    noise_variance_bounds : pair of float, optional
        Bounds of a noise variance that is fitted.
    noise : {"gaussian", "student_t", "huber"}, default="gaussian"
        With the heavy tails of the others, outliers hardly move the forecasts; as in `statespace.KalmanRegressor`.
        Quantiles and intervals are those of the signal and this noise together.
    df : "fit" or float, default="fit"
        Student-t's degrees of freedom.
    huber_threshold : float, default=1.345
        Huber's threshold.
    optimizer : "fmin_l_bfgs_b", callable or None, default="fmin_l_bfgs_b"
        None keeps the parameters as given.
    n_restarts_optimizer : int, default=0
        Further searches from random starts.
    parameters : {"separate", "shared"}, default="separate"
        Whether each series of a panel has its own parameters, or all share theirs.
    time_unit : str, optional
        The unit in which datetimes are counted, such as "h" or "365.25D", also on a regular index. None: steps of the
        frequency where there is one, else days.
    backend : str, optional
        As in `statespace.kernels.kalman_filter`.
    n_jobs : int, optional
        How many series are fitted at a time where each has its own parameters, through joblib.
    random_state : int, RandomState or None, default=None
        Draws the restarts.

    Attributes
    ----------
    regressor_ : KalmanRegressor
        The fitted model; time is counted from the first time of y.
    process_ : Component
        The process with the fitted parameters; not where each series has its own.
    processes_ : dict of label to Component
        Only where each series has its own.
    noise_variance_ : float or ndarray of shape (n_series,)
        The variance of the observation noise.
    params_ : DataFrame
        Estimates, standard errors and bounds, from the last fit of the parameters; computed on access.

    Raises
    ------
    ValueError
        If y has no value; if X has no row for a time that is forecast; if a horizon is of another kind than the index.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.forecasting import KalmanForecaster
    >>> from statespace.kalman import LocalLevel, Seasonal
    >>> months = pd.period_range("2015-01", periods=60, freq="M")
    >>> y = pd.Series(np.sin(2 * np.pi * np.arange(60) / 12), index=months)
    >>> y += 0.1 * np.random.default_rng(0).normal(size=60)
    >>> forecaster = KalmanForecaster(LocalLevel() + Seasonal(12, harmonics=1)).fit(y)
    >>> forecaster.predict(fh=[3, 6]).round(1)
    2020-03    0.8
    2020-06    0.5
    Freq: M, dtype: float64
    >>> forecaster.predict_interval(fh=[3, 6], coverage=0.9).shape
    (2, 2)
    """

    _tags = {
        "y_inner_mtype": ["pd.Series", "pd-multiindex", "pd_multiindex_hier"],
        "X_inner_mtype": ["pd.DataFrame", "pd-multiindex", "pd_multiindex_hier"],
    }

    def __init__(
        self,
        process=None,
        noise_variance="fit",
        noise_variance_bounds=None,
        noise="gaussian",
        df="fit",
        huber_threshold=1.345,
        optimizer="fmin_l_bfgs_b",
        n_restarts_optimizer=0,
        parameters="separate",
        time_unit=None,
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
        self.parameters = parameters
        self.time_unit = time_unit
        self.backend = backend
        self.n_jobs = n_jobs
        self.random_state = random_state
        super().__init__()

    def _fit(self, y, X, fh):
        self._history, self._covariates = y, None if X is None else covariate_rows(y.index, X)
        indexes = list(self._indexes().values())
        self._axis = self._make_axis(indexes, freq=common_freq(indexes) if isinstance(y.index, pd.MultiIndex) else None)
        if self._restored is not None:
            self._restore()
        else:
            self._condition(update_params=True)
        return self

    def _update(self, y, X=None, update_params=True):
        if (X is None) != (self._covariates is None):
            raise ValueError("update needs X if fit was given X, and only then.")
        if X is not None:
            self._covariates = extended(self._covariates, covariate_rows(y.index, X))
        self._history = extended(self._history, y)
        self._condition(update_params)
        return self

    def _condition(self, update_params):
        """Give the whole history to the regressor; its parameters are fitted, or kept as they are."""
        rows, y = self._rows(self._history.index), self._history.to_numpy(dtype=np.float64).reshape(-1)
        if update_params:
            self.regressor_ = KalmanRegressor(
                self._chosen_process(),
                noise_variance=self.noise_variance,
                noise_variance_bounds=self.noise_variance_bounds,
                noise=self.noise,
                df=self.df,
                huber_threshold=self.huber_threshold,
                optimizer=self.optimizer,
                n_restarts_optimizer=self.n_restarts_optimizer,
                parameters=self.parameters,
                backend=self.backend,
                n_jobs=self.n_jobs,
                random_state=self.random_state,
            ).fit(rows, y)
            self._estimated = self.regressor_
        else:
            self.regressor_ = self.regressor_.condition(rows, y)
        self._take_parameters()

    def _take_parameters(self):
        regressor = self.regressor_
        self.noise_variance_ = regressor.noise_variance_
        if hasattr(regressor, "processes_"):
            self.processes_ = regressor.processes_
        else:
            self.process_ = regressor.process_

    @property
    def params_(self):
        """DataFrame of the free parameters, computed when it is asked for."""
        return self._estimated.params_

    def _chosen_process(self):
        process = LocalTrend() if self.process is None else self.process
        if self._covariates is None or not isinstance(process, Component):
            return process
        components = process.components if isinstance(process, Sum) else [process]
        reads = any(type(component).design is not Component.design for component in components)
        return process if reads else process + Regression()

    def _rows(self, index, X=None):
        """The regressor's X: the time, and the covariates at it; of a panel they name their series."""
        times = index.get_level_values(-1)
        time = self._axis.count(times)
        covariates = None if self._covariates is None else covariate_rows(index, X, self._covariates)
        columns = [] if covariates is None else [f"{name}" for name in covariates.columns]
        values = np.zeros((len(index), 0)) if covariates is None else covariates.to_numpy(dtype=np.float64)
        if isinstance(index, pd.MultiIndex):
            names = [index.get_level_values(level) for level in range(index.nlevels - 1)]
            return pd.DataFrame(values, index=pd.MultiIndex.from_arrays([*names, time]), columns=columns)
        rows = pd.DataFrame(values, columns=columns)
        rows.insert(0, "time" if "time" not in rows else "time of row", time)
        return rows

    def _moments(self, fh, X):
        """The index of the horizon; mean and variance of the signal there, and the place of each row's series."""
        index, numbers = self._asked(fh)
        rows = self._rows(index, X)
        regressor = self.regressor_
        panel, codes = regressor._asked(rows, None)
        times, covariates = panel.rows.times, panel.rows.covariates
        posteriors = regressor._posteriors()
        # Beyond a series' last time, the whole of it is its past.
        ends = np.array([self._axis.count(own[-1:])[0] for own in self._indexes().values()])
        past = times <= ends[numbers]
        mean, variance = np.empty(len(times)), np.full(len(times), np.inf)
        for code, own in rows_of_each(np.where(past, codes, -1)):
            if code >= 0:
                mean[own], variance[own] = predict_ahead(posteriors.one(code), times[own], covariates[own], 0.0)
        still_open = ~np.isfinite(variance)
        if still_open.any():
            smoothed = posteriors.at(times[still_open], covariates[still_open], codes[still_open])
            mean[still_open], variance[still_open] = (part[:, 0, 0] for part in smoothed)
        return index, mean, variance, codes

    def _predict(self, fh, X):
        index, mean, *_ = self._moments(fh, X)
        if isinstance(self._history, pd.DataFrame):
            return pd.DataFrame(mean, index=index, columns=self._history.columns)
        return pd.Series(mean, index=index, name=self._history.name)

    def _predict_var(self, fh, X=None, cov=False):
        index, _, variance, codes = self._moments(fh, X)
        if not cov:
            variance = variance + self.regressor_._new_noise(codes)
            return pd.DataFrame(variance, index=index, columns=self._get_varnames())
        ends = np.array([self._axis.count(own[-1:])[0] for own in self._indexes().values()])
        if (self._axis.count(index.get_level_values(-1)) <= ends[self._asked(fh)[1]]).any():
            raise ValueError("cov=True needs a horizon beyond the cutoff: in-sample forecasts each know another past.")
        covariance = self.regressor_.predict(self._rows(index, X), return_cov=True, include_noise=True)[1]
        return pd.DataFrame(covariance, index=index, columns=index)

    def _predict_quantiles(self, fh, X, alpha):
        index, mean, variance, codes = self._moments(fh, X)
        if self.noise == "gaussian":
            std = np.sqrt(variance + self.regressor_._new_noise(codes))
            quantiles = mean[:, np.newaxis] + std[:, np.newaxis] * norm.ppf(alpha)
        else:
            quantiles = mean[:, np.newaxis] + self._tail_quantiles(alpha, variance, codes)
        return pd.DataFrame(quantiles, index=index, columns=self._get_columns(method="predict_quantiles", alpha=alpha))

    def _tail_quantiles(self, alpha, variance, codes):
        """Quantiles about the mean, of the signal and its noise with heavy tails together: an array (n, len(alpha))."""
        families, R = self.regressor_._families(), self.regressor_.noise_variance_
        result = np.empty((len(variance), len(alpha)))
        for code, own in rows_of_each(codes):
            family, own_R = (families[code], R[code]) if len(families) > 1 else (families[0], np.ravel(R)[0])
            for j, probability in enumerate(alpha):
                result[own, j] = quantile(family, probability, variance[own], np.full(len(own), own_R))
        return result

    def diagnostics(self, lags=None, h=None):
        """Tests of the standardised innovations; as `statespace.KalmanRegressor.diagnostics`."""
        self.check_is_fitted()
        return self.regressor_.diagnostics(lags, h)

    def summary(self, level=0.95):
        """Parameters, criteria, diagnostics and final states; as `statespace.KalmanRegressor.summary`."""
        self.check_is_fitted()
        return self.regressor_.summary(level)

    def _export(self):
        self.check_is_fitted()
        state, arrays = self._export_data()
        state["params"] = self.get_params(deep=False) | {"process": description(self.process)}
        if not isinstance(self.random_state, Integral):
            state["params"]["random_state"] = None
        state["regressor"], parts = self.regressor_._export()
        return state, arrays | {f"regressor.{name}": value for name, value in parts.items()}

    @classmethod
    def _import(cls, state, arrays):
        params = state["params"] | {"process": restored(state["params"]["process"])}
        if params["noise_variance_bounds"] is not None:
            params["noise_variance_bounds"] = tuple(params["noise_variance_bounds"])
        return cls(**params)._import_data(state, arrays)

    def _restore(self):
        """Take what a file brings in the place of what fitting would learn."""
        state, arrays = self._restored
        parts = {name.removeprefix("regressor."): a for name, a in arrays.items() if name.startswith("regressor.")}
        self.regressor_ = KalmanRegressor._import(state["regressor"], parts)
        self._estimated = self.regressor_
        self._take_parameters()

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two small parameter sets for sktime's tests."""
        from statespace.kalman import LocalLevel

        return [
            {"process": LocalLevel(variance=0.1), "noise_variance": 1.0, "optimizer": None},
            {
                "process": LocalTrend(0.1, 0.01),
                "noise_variance": 0.5,
                "optimizer": None,
                "parameters": "shared",
            },
        ]
