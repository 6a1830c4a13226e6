"""The contenders of the forecasting tasks, ours and others', and the intervals of each by conformal calibration.

Every forecaster of windows has ``fit(past, future)`` and ``forecast(past)``, on arrays (n, history) and (n, horizon) of
one channel each: one model reads the windows of all channels or series. It sees them as differences to the last value.
"""

import numpy as np
from forecasts import COVERAGE, M4_HORIZON, coverage
from scipy.stats import norm
from sklearn.linear_model import RidgeCV

from statespace import KalmanRegressor, S4DRegressor
from statespace.conformal import conformal_quantile
from statespace.kalman import LocalLevel, LocalTrend, OrnsteinUhlenbeck, Seasonal
from statespace.lti import HiPPOMemory

ALPHAS = np.logspace(-1, 5, 7)


class Naive:
    """The value one ``period`` before, again and again; with a period of 1 the last value."""

    def __init__(self, period=1):
        self.period = period

    def fit(self, past, future):
        self._horizon = future.shape[1]
        return self

    def forecast(self, past):
        season = past[:, -self.period :]
        return np.tile(season, (1, -(-self._horizon // self.period)))[:, : self._horizon]


class Linear:
    """Ridge regression on the values of the past, the penalty chosen by leave-one-out on the training windows."""

    def fit(self, past, future):
        last = past[:, -1:]
        self._ridge = RidgeCV(ALPHAS).fit(self._features(past - last, fit=True), future - last)
        return self

    def forecast(self, past):
        last = past[:, -1:]
        return last + self._ridge.predict(self._features(past - last))

    def _features(self, past, fit=False):
        return past


class Memory(Linear):
    """Ridge regression on what a `HiPPOMemory`, a linear state-space system, remembers of the past."""

    def __init__(self, measure, n_coefficients):
        self._memory = HiPPOMemory(measure, n_coefficients)

    def _features(self, past, fit=False):
        states = self._memory.fit_transform(past) if fit else self._memory.transform(past)
        if fit:
            self._scale = states.std(axis=0) + 1e-9
        return states / self._scale


class Network:
    """A regressor of series that reads the past in patches of ``patch`` values, and answers all horizons at once."""

    def __init__(self, estimator=S4DRegressor, patch=1, scaled=False, **options):
        self._estimator, self._patch, self._scaled = estimator(**options, target="series"), patch, scaled

    def fit(self, past, future):
        level, scale = self._frame(past)
        self._estimator.fit(self._patches((past - level) / scale), (future - level) / scale)
        return self

    def forecast(self, past):
        level, scale = self._frame(past)
        return level + scale * self._estimator.predict(self._patches((past - level) / scale))

    def _frame(self, past):
        """Each window's last value, and if series differ in scale the spread of its steps."""
        if not self._scaled:
            return past[:, -1:], 1.0
        steps = np.abs(np.diff(past, axis=1)).mean(axis=1, keepdims=True)
        return past[:, -1:], np.maximum(steps, 1e-6)

    def _patches(self, past):
        return past.reshape(len(past), -1, self._patch)


def rolling_intervals(scores, forecast, every, memory):
    """Intervals of forecasts whose origins follow each other step by step, from errors that were known at each.

    An origin's errors are known when its last target is: after ``horizon`` more origins. The intervals of ``every``
    origins on end have the half-width of the conformal quantile of the ``memory`` origins last known, for each channel
    and horizon by itself. Origins follow each other and are not exchangeable: what is covered is measured, not promised.

    Parameters
    ----------
    scores : ndarray of shape (n_before + n_windows, n_channels, horizon)
        Absolute errors at origins before those of ``forecast``, and at those.
    forecast : ndarray of shape (n_windows, n_channels, horizon)

    Returns
    -------
    lower, upper : ndarray of shape (n_windows, n_channels, horizon)
    """
    horizon, before = forecast.shape[2], len(scores) - len(forecast)
    width = np.empty_like(forecast)
    for start in range(0, len(forecast), every):
        known = before + start - horizon + 1
        width[start : start + every] = conformal_quantile(scores[max(0, known - memory) : known], COVERAGE)
    return forecast - width, forecast + width


class LogKalman:
    """One `KalmanRegressor` a series, on the logarithms of its last values: trend, a year and what reverts to them.

    The parameters are fitted to all but the last 13 weeks. How these are then forecast, in standard deviations, gives
    each horizon its conformal quantile over the series; with them the filter goes on, parameters as they are.
    """

    def __init__(self, longest=520, trend=True, year=52.18, harmonics=3, reverting=5.0):
        process = LocalTrend() if trend else LocalLevel()
        if reverting:
            process = process + OrnsteinUhlenbeck(length_scale=reverting)
        if harmonics:
            process = process + Seasonal(year, harmonics=harmonics)
        self._longest, self._process = longest, process

    def forecast(self, train, horizon=M4_HORIZON):
        """Medians (n_series, horizon) and the bounds of 90 % intervals."""
        held, ahead = [], []
        for series in train:
            logs = np.log(series[-self._longest :])
            middle, scale = logs.mean(), logs.std() + 1e-9
            logs = (logs - middle) / scale
            weeks = np.arange(len(logs) + horizon, dtype=float)[:, None]
            n = len(logs) - horizon
            model = KalmanRegressor(self._process).fit(weeks[:n], logs[:n])
            mean, std = model.predict(weeks[n : n + horizon], return_std=True, include_noise=True)
            held.append((logs[n:] - mean) / std)
            model = model.condition(weeks[: len(logs)], logs)
            mean, std = model.predict(weeks[len(logs) :], return_std=True, include_noise=True)
            ahead.append((middle + scale * mean, scale * std))
        width = conformal_quantile(np.abs(held), COVERAGE)
        mean, std = np.stack(ahead, axis=1)
        return np.exp(mean), np.exp(mean - width * std), np.exp(mean + width * std)


def gap_constant(record):
    """The mean and the standard deviation of what is shown."""
    shown, n = record.shown().values, record.hidden.sum()
    return np.repeat(shown.mean(), n), np.repeat(shown.std(), n)


def gap_line(record):
    """Straight lines across the gaps, with the spread of their errors across gaps made in what is shown."""
    shown = record.shown()
    inner = shown.hide(np.diff(record.times[record.hidden]).max(initial=0.0) or 1.0, 0.2, 0)
    return shown, inner


def gap_kalman(record, process, known_error=False):
    """A Kalman smoother on what is shown; ``known_error`` takes the published errors as the noise."""
    shown = record.shown()
    middle = shown.values.mean()
    noise = {"noise_variance": shown.error**2} if known_error else {}
    model = KalmanRegressor(process).fit(shown.times[:, None], shown.values - middle, **noise)
    mean, std = model.predict(record.times[record.hidden][:, None], return_std=True)
    noise = record.error[record.hidden] ** 2 if known_error else model.noise_variance_
    return mean + middle, np.sqrt(std**2 + noise)
