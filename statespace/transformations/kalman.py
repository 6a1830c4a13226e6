"""KalmanSmoother: denoises and imputes series on regular and irregular indexes, with sktime's interface.

Above: sktime. Below: `statespace.KalmanRegressor`, one for each column.
"""

from typing import ClassVar

import numpy as np
import pandas as pd
from sktime.transformations.base import BaseTransformer

from statespace.filtering import KalmanRegressor
from statespace.forecasting.horizon import TimeAxis
from statespace.kalman import Component, LocalTrend
from statespace.kalman.composition import Sum

_MODES = ("smooth", "filter", "impute")


class KalmanSmoother(BaseTransformer):
    """The signal in a noisy series with gaps, by a Kalman smoother at the times that the samples really have.

    Each column is a sum of processes seen through noise, as in `statespace.KalmanRegressor`. `fit` maximises the exact
    likelihood; `transform` returns the posterior mean of the signal at the same index. Other data than those of `fit`
    are smoothed given themselves alone, with the parameters of `fit`. Nothing is missing in the answer.

    Time is counted as by `statespace.forecasting.KalmanForecaster`: in steps of the frequency on a PeriodIndex or a
    DatetimeIndex with a ``freq`` (``Seasonal(12)`` on months is a year), in the index' own units if it holds integers,
    and in days on any other DatetimeIndex; ``time_unit`` sets a unit.

    Parameters
    ----------
    process : Component, optional
        From `statespace.kalman`. By default a `LocalTrend`. Where a component reads covariates (`Regression`), they are
        the columns of ``y``, which sktime's pipelines pass exogenous data as.
    mode : {"smooth", "filter", "impute"}, default="smooth"
        Given all samples; given those up to each time (and all of them where those leave it open); or what was
        observed, with the smoothed signal only where it is missing.
    components : bool, default=False
        Whether to return each component of the signal too, in columns such as ``level__local_trend``; not for "filter".
    return_std : bool, default=False
        Whether to return standard deviations of the signal too, in columns such as ``level__std``.
    noise_variance : "fit" or float, default="fit"
        The variance of the observation noise.
    noise : {"gaussian", "student_t", "huber"}, default="gaussian"
        With the heavy tails of the others, outliers hardly move the signal; as in `statespace.KalmanRegressor`.
    df : "fit" or float, default="fit"
        Student-t's degrees of freedom.
    huber_threshold : float, default=1.345
        Huber's threshold.
    optimizer : "fmin_l_bfgs_b", callable or None, default="fmin_l_bfgs_b"
        None keeps the parameters as given.
    time_unit : str, optional
        The unit in which datetimes are counted, such as "h" or "365.25D". None: steps of the frequency where there is
        one, else days.
    backend : str, optional
        As in `statespace.kernels.kalman_filter`.
    random_state : int, RandomState or None, default=None
        As in `statespace.KalmanRegressor`.

    Attributes
    ----------
    regressors_ : list of KalmanRegressor
        The fitted model of each column; their X is the time since the first of `fit`.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace.transformations import KalmanSmoother
    >>> when = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-05", "2024-01-06", "2024-01-09"])
    >>> y = pd.Series([1.0, 2.1, np.nan, 5.9, 9.0], index=when)
    >>> KalmanSmoother(mode="impute").fit_transform(y).round(1).tolist()
    [1.0, 2.1, 5.0, 5.9, 9.0]
    """

    _tags: ClassVar = {
        "authors": "the statespace developers",
        "maintainers": "the statespace developers",
        "scitype:transform-input": "Series",
        "scitype:transform-output": "Series",
        "scitype:instancewise": True,
        "X_inner_mtype": "pd.DataFrame",
        "y_inner_mtype": "pd.DataFrame",
        "fit_is_empty": False,
        "transform-returns-same-time-index": True,
        "skip-inverse-transform": True,
        "capability:inverse_transform": False,
        "capability:multivariate": True,
        "capability:unequal_length": True,
        "capability:missing_values": True,
        "capability:missing_values:removes": True,
        "capability:categorical_in_X": False,
        "capability:random_state": True,
    }
    _config: ClassVar = {"remember_data": False}
    _X = None

    def __init__(
        self,
        process=None,
        mode="smooth",
        components=False,
        return_std=False,
        noise_variance="fit",
        noise="gaussian",
        df="fit",
        huber_threshold=1.345,
        optimizer="fmin_l_bfgs_b",
        time_unit=None,
        backend=None,
        random_state=None,
    ):
        self.process = process
        self.mode = mode
        self.components = components
        self.return_std = return_std
        self.noise_variance = noise_variance
        self.noise = noise
        self.df = df
        self.huber_threshold = huber_threshold
        self.optimizer = optimizer
        self.time_unit = time_unit
        self.backend = backend
        self.random_state = random_state
        super().__init__()

    def _fit(self, X, y=None):
        if self.mode not in _MODES:
            raise ValueError(f"mode must be 'smooth', 'filter' or 'impute'. Got {self.mode!r}.")
        if self.components and self.mode == "filter":
            raise ValueError("components=True needs mode='smooth' or 'impute'.")
        self._axis = TimeAxis.of([X.index], unit=self.time_unit)
        rows = self._rows(X.index, y)
        process = LocalTrend() if self.process is None else self.process
        options = {"noise_variance", "noise", "df", "huber_threshold", "optimizer", "backend", "random_state"}
        given = {name: getattr(self, name) for name in options}
        self.regressors_ = [KalmanRegressor(process, **given).fit(rows, column) for column in X.to_numpy(float).T]
        return self

    def _update(self, X, y=None):
        """The parameters stay as they are: `transform` takes its own data."""
        return self

    def _rows(self, index, y):
        """The regressors' X: the time, and the covariates at it where the process reads some."""
        rows = pd.DataFrame({"time": self._axis.count(index)})
        if not _reads_covariates(self.process):
            return rows
        if y is None:
            raise ValueError(f"{self.process!r} reads covariates: give them as y, with the index of X.")
        place = y.index.get_indexer(index)
        if (place < 0).any():
            missing = index[place < 0][0]
            raise ValueError(f"y must have a row of covariates for every time of X: it has none for {missing}.")
        for name in y.columns:
            rows[f"{name}" if f"{name}" != "time" else "time of row"] = y[name].to_numpy(float)[place]
        return rows

    def _transform(self, X, y=None):
        if X.shape[1] != len(self.regressors_):
            raise ValueError(f"X must have {len(self.regressors_)} columns, as in fit. Got {X.shape[1]}.")
        rows, columns = self._rows(X.index, y), {}
        several = X.shape[1] > 1
        for name, values, regressor in zip(X.columns, X.to_numpy(float).T, self.regressors_, strict=True):
            own = _given(regressor, rows, values)
            mean, std = own.predict(rows, return_std=True)
            if self.mode == "filter":
                mean, std = self._filtered(own, rows, values, mean, std)
            signal = np.where(np.isnan(values), mean, values) if self.mode == "impute" else mean
            columns[name] = signal
            prefix = f"{name}__" if several or name != 0 else ""
            if self.return_std:
                columns[f"{prefix}std"] = std
            if self.components:
                table = own.decompose(rows)
                for part in table.columns[::2]:
                    columns[f"{prefix}{part}"] = table[part].to_numpy()
        return pd.DataFrame(columns, index=X.index)

    def _filtered(self, own, rows, values, mean, std):
        """The signal given the samples up to each time; as it was where those leave it open."""
        order = np.argsort(rows["time"].to_numpy(), kind="stable")
        covariates = rows.iloc[order, 1:].to_numpy() if rows.shape[1] > 1 else None
        gaps = np.diff(rows["time"].to_numpy()[order], prepend=rows["time"].to_numpy()[order[0]])
        filtered, spread = own.stream(from_prior=True).extend(values[order], dt=gaps, x=covariates)
        mean, std = mean.copy(), std.copy()
        known = np.isfinite(spread)
        mean[order[known]], std[order[known]] = filtered[known], spread[known]
        return mean, std

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Small parameter sets for sktime's tests."""
        from statespace.kalman import LocalLevel

        return [
            {"process": LocalLevel(variance=0.1), "noise_variance": 1.0, "optimizer": None},
            {"process": LocalTrend(0.1, 0.01), "mode": "filter", "noise_variance": 0.5, "optimizer": None},
            {"process": LocalLevel(variance=0.1), "mode": "impute", "noise_variance": 1.0, "optimizer": None},
        ]


def _reads_covariates(process):
    if not isinstance(process, Component):
        return False
    components = process.components if isinstance(process, Sum) else [process]
    return any(type(component).design is not Component.design for component in components)


def _given(regressor, rows, values):
    """The model given other data; nothing at all is known of a column that is missing throughout."""
    if np.isnan(values).all():
        raise ValueError("a column of X contains NaN only: there is nothing to smooth.")
    return regressor.condition(rows, values)
