"""KalmanForecaster: Gaussian forecasts of a sum of continuous-time processes, with sktime's interface."""

from numbers import Integral

import numpy as np
import pandas as pd
from scipy.stats import norm

from statespace.filtering import KalmanRegressor
from statespace.filtering.posteriors import rows_of_each
from statespace.forecasting.ahead import Filtered, predict_ahead
from statespace.forecasting.base import TimeForecaster, covariate_rows, extended
from statespace.forecasting.calibration import Calibration, held_out, held_out_forecasts
from statespace.forecasting.horizon import common_freq
from statespace.kalman import Component, LocalTrend, Regression
from statespace.kalman.composition import Sum
from statespace.kalman.description import description, restored
from statespace.kalman.robust import quantile
from statespace.quantiles import LEVELS, quantiles_at
from statespace.quantiles import variance as spread_of

# Where the distribution of a signal and noise with heavy tails is computed; between them it is interpolated.
_TAIL_LEVELS = norm.cdf(np.linspace(-5, 5, 81))


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

    ``update(y_new, update_params=False)`` filters the new observations alone, whatever came before, as long as they
    follow those that are known and the noise is normal. ``fitted_values`` and ``predict_residuals`` are one step ahead.

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
    calibrate : bool, default=False
        Fit to the first part of every series too, forecast the last from there, and move the quantiles of each horizon
        until they have their levels among those forecasts (split conformal prediction). Intervals then cover what they
        say, as far as errors of one horizon are exchangeable between that part and the future, whatever the model. The
        parameters that forecast are those of all the data.
    calibration_fraction : float, default=0.2
        The share of the observations of each series that is held out for that.
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
    calibration_ : Calibration or None
        The corrections of quantiles by horizon; None without ``calibrate``.
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
        calibrate=False,
        calibration_fraction=0.2,
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
        self.calibrate = calibrate
        self.calibration_fraction = calibration_fraction
        self.random_state = random_state
        super().__init__()

    def _fit(self, y, X, fh):
        self._history, self._covariates = y, None if X is None else covariate_rows(y.index, X)
        indexes = list(self._indexes().values())
        self._axis = self._make_axis(indexes, freq=common_freq(indexes) if isinstance(y.index, pd.MultiIndex) else None)
        self._check_calibration()
        if self._restored is not None:
            self._restore()
        else:
            self._condition(update_params=True)
        self._filter()
        return self

    def _update(self, y, X=None, update_params=True):
        if (X is None) != (self._covariates is None):
            raise ValueError("update needs X if fit was given X, and only then.")
        known = self._history.index
        if X is not None:
            self._covariates = extended(self._covariates, covariate_rows(y.index, X))
        self._history = extended(self._history, y)
        if update_params or not self._filter_on(y, known):
            self._condition(update_params)
            self._filter()
        return self

    def _filter(self):
        """The state at the end of every series that has samples."""
        posteriors = self._regressor._posteriors()
        each = [posteriors.one(code) for code in range(len(self._indexes()))]
        self._filtered = [Filtered.of(posterior) if len(posterior.record.times) else None for posterior in each]

    def _filter_on(self, y, known):
        """Take new samples in at the end of their series, and nothing else; False where that is not possible."""
        ends = {name: index[-1] for name, index in self._indexes(known).items()}
        places = self._places(y.index)
        # The weights of noise with heavy tails depend on all samples.
        if self.noise != "gaussian" or not places.keys() <= ends.keys():
            return False
        panel, codes = self._regressor._asked(self._rows(y.index), None)
        codes = [codes[rows[0]] for rows in places.values()]
        indexes = self._indexes(y.index)
        if any(indexes[name][0] <= ends[name] for name in places):
            return False
        covariates, values = panel.rows.covariates, y.to_numpy(dtype=np.float64).reshape(-1)
        posteriors = self._regressor._posteriors()
        for (name, rows), code in zip(places.items(), codes, strict=True):
            times = self._axis.count(indexes[name])
            new = times, covariates[rows], values[rows]
            self._filtered[code] = self._filtered[code].after(posteriors.one(code), *new)
        self._is_behind = True
        return True

    @property
    def regressor_(self):
        """The fitted model, given all of the data."""
        if "_regressor" not in vars(self):
            raise AttributeError(f"this {type(self).__name__} is not fitted, and has no regressor_ yet.")
        if self._is_behind:
            self._regressor, self._is_behind = self._up_to_date(), False
        return self._regressor

    def _up_to_date(self):
        if not self._is_behind:
            return self._regressor
        rows = self._rows(self._history.index)
        return self._regressor.condition(rows, self._history.to_numpy(dtype=np.float64).reshape(-1))

    def _condition(self, update_params):
        """Give the whole history to the regressor; its parameters are fitted, or kept as they are."""
        rows, y = self._rows(self._history.index), self._history.to_numpy(dtype=np.float64).reshape(-1)
        self._is_behind = False
        if update_params:
            self.calibration_ = self._calibrated_on(rows, y) if self.calibrate else None
            self._regressor = self._new_regressor().fit(rows, y)
            self._estimated = self._regressor
        else:
            self._regressor = self._regressor.condition(rows, y)
        self._take_parameters()

    def _new_regressor(self):
        return KalmanRegressor(
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
        )

    def _calibrated_on(self, rows, y):
        """Fit to the first part of every series, forecast the last, and see how far off the quantiles were."""
        observed = {name: own[~np.isnan(y[own])] for name, own in self._places().items()}
        counts = np.array([len(own) for own in observed.values()])
        cuts = held_out(counts, self.calibration_fraction)
        # The first part has all rows up to its last observation.
        first = np.concatenate([
            own[own <= seen[cut - 1]] if cut else own[:0]
            for own, seen, cut in zip(self._places().values(), observed.values(), cuts, strict=True)
        ])  # fmt: skip
        first.sort()
        regressor = self._new_regressor().fit(rows.iloc[first], y[first]).condition(rows, y)
        times = self._axis.count(self._history.index.get_level_values(-1))
        numbers, ends, targets = held_out_forecasts([times[own] for own in observed.values()], cuts, np.inf, 0)
        panel, codes = regressor._asked(rows, None)
        posteriors, parts = regressor._posteriors(), []
        for number, own in rows_of_each(numbers):
            seen = list(observed.values())[number]
            posterior = posteriors.one(codes[seen[0]])
            X, at, filtered, known = panel.rows.covariates[seen], times[seen], None, 0
            for end, asked in rows_of_each(ends[own]):
                stop = np.searchsorted(posterior.record.times, at[end - 1], side="right")
                filtered = Filtered.of(posterior, stop) if filtered is None else filtered.until(posterior, known, stop)
                known, ahead = stop, targets[own[asked]]
                moments = filtered.ahead(posterior, at[ahead], X[ahead])
                parts.append((*moments, y[seen[ahead]], at[ahead] - at[end - 1], codes[seen[ahead]]))
        mean, variance, values, horizons, codes = (np.concatenate(part) for part in zip(*parts, strict=True))
        quantiles = self._quantiles(regressor, mean, variance, codes, LEVELS)
        fine = np.isfinite(quantiles).all(axis=1) & (horizons > 0)
        return Calibration.learned(quantiles[fine], values[fine], horizons[fine])

    def _take_parameters(self):
        regressor = self._regressor
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

    def _moments(self, index, numbers, X):
        """Mean and variance of the signal at rows of series ``numbers``, and the series' places in the regressor."""
        panel, codes = self._regressor._asked(self._rows(index, X), None)
        times, covariates = panel.rows.times, panel.rows.covariates
        # Beyond a series' last time, the whole of it is its past.
        past = times <= self._ends()[numbers]
        current = self._up_to_date() if past.any() else self._regressor
        posteriors = current._posteriors()
        mean, variance = np.empty(len(times)), np.full(len(times), np.inf)
        for code, own in rows_of_each(np.where(past, codes, -1)):
            if code >= 0:
                mean[own], variance[own] = predict_ahead(posteriors.one(code), times[own], covariates[own], 0.0)
        for code, own in rows_of_each(np.where(past, -1, codes)):
            if code >= 0 and self._filtered[code] is not None:
                one = self._regressor._posteriors().one(code) if past.any() else posteriors.one(code)
                mean[own], variance[own] = self._filtered[code].ahead(one, times[own], covariates[own])
        still_open = ~np.isfinite(variance)
        if still_open.any():
            posteriors = self._up_to_date()._posteriors()
            smoothed = posteriors.at(times[still_open], covariates[still_open], codes[still_open])
            mean[still_open], variance[still_open] = (part[:, 0, 0] for part in smoothed)
        return mean, variance, codes

    def _points(self, index, numbers, X):
        return self._moments(index, numbers, X)[0]

    def _ends(self):
        """The last time of each series."""
        return np.array([self._axis.count(own[-1:])[0] for own in self._indexes().values()])

    def _predict_var(self, fh, X=None, cov=False):
        index, numbers = self._asked(fh)
        if cov:
            if (self._axis.count(index.get_level_values(-1)) <= self._ends()[numbers]).any():
                raise ValueError(
                    "cov=True needs a horizon beyond the cutoff: in-sample forecasts each know another past."
                )
            regressor = self._up_to_date()
            covariance = regressor.predict(self._rows(index, X), return_cov=True, include_noise=True)[1]
            return pd.DataFrame(covariance, index=index, columns=index)
        mean, variance, codes = self._moments(index, numbers, X)
        if self.calibration_ is None:
            total = variance + self._regressor._new_noise(codes)
        else:
            total = spread_of(self._calibrated_quantiles(index, numbers, mean, variance, codes))
        return pd.DataFrame(total, index=index, columns=self._get_varnames())

    def _predict_quantiles(self, fh, X, alpha):
        index, numbers = self._asked(fh)
        moments = self._moments(index, numbers, X)
        if self.calibration_ is None:
            quantiles = self._quantiles(self._regressor, *moments, alpha)
        else:
            quantiles = quantiles_at(self._calibrated_quantiles(index, numbers, *moments), alpha)
        return pd.DataFrame(quantiles, index=index, columns=self._get_columns(method="predict_quantiles", alpha=alpha))

    def _predict_proba(self, fh, X, marginal=True):
        from skpro.distributions import Normal

        from statespace.forecasting.distribution import PiecewiseNormal

        self._refuse_joint(marginal)
        index, numbers = self._asked(fh)
        mean, variance, codes = self._moments(index, numbers, X)
        labels = {"index": index, "columns": self._get_varnames()}
        if self.calibration_ is not None:
            quantiles, levels = self._calibrated_quantiles(index, numbers, mean, variance, codes), LEVELS
        elif self.noise != "gaussian":
            quantiles, levels = self._quantiles(self._regressor, mean, variance, codes, _TAIL_LEVELS), _TAIL_LEVELS
        else:
            std = np.sqrt(variance + self._regressor._new_noise(codes))
            return Normal(mean[:, np.newaxis], std[:, np.newaxis], **labels)
        return PiecewiseNormal(quantiles[:, np.newaxis], levels, **labels)

    def _calibrated_quantiles(self, index, numbers, mean, variance, codes):
        """At `LEVELS`: by the model, moved by what held-out values have shown for horizons of this length."""
        quantiles = self._quantiles(self._regressor, mean, variance, codes, LEVELS)
        times, horizons = self._axis.count(index.get_level_values(-1)), np.zeros(len(index))
        values = np.asarray(self._history, dtype=np.float64).ravel()
        for number, rows in enumerate(self._places().values()):
            known = self._axis.count(self._history.index[rows[~np.isnan(values[rows])]].get_level_values(-1))
            mine = np.flatnonzero(numbers == number)
            place = np.searchsorted(known, times[mine], side="left")
            horizons[mine[place > 0]] = times[mine[place > 0]] - known[place[place > 0] - 1]
        # Before a series' first value there is no horizon: the shortest.
        return self.calibration_(quantiles, np.where(horizons > 0, horizons, np.exp(self.calibration_.log_horizons[0])))

    def _quantiles(self, regressor, mean, variance, codes, levels):
        """Quantiles of an observation where the signal has this mean and variance: an array (n, len(levels))."""
        if self.noise == "gaussian":
            std = np.sqrt(variance + regressor._new_noise(codes))
            return mean[:, np.newaxis] + std[:, np.newaxis] * norm.ppf(levels)
        families, R = regressor._families(), regressor.noise_variance_
        result = np.empty((len(variance), len(levels)))
        for code, own in rows_of_each(codes):
            family, own_R = (families[code], R[code]) if len(families) > 1 else (families[0], np.ravel(R)[0])
            for j, level in enumerate(levels):
                result[own, j] = quantile(family, level, variance[own], np.full(len(own), own_R))
        return mean[:, np.newaxis] + result

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

    def _probe(self):
        """As `statespace.KalmanRegressor`, for `statespace.persistence`."""
        return self.regressor_._probe()

    def _answer_probe(self, given):
        return self.regressor_._answer_probe(given)

    def _restore(self):
        """Take what a file brings in the place of what fitting would learn."""
        state, arrays = self._restored
        parts = {name.removeprefix("regressor."): a for name, a in arrays.items() if name.startswith("regressor.")}
        self._regressor, self._is_behind = KalmanRegressor._import(state["regressor"], parts), False
        self._estimated = self._regressor
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
