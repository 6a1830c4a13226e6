"""The contenders of the forecasting tasks, ours and others'.

A forecaster of windows has ``fit(past, future)`` and ``forecast(past)``, on arrays (n, history) and (n, horizon) of one
channel each: one model reads the windows of all channels or series, as differences to their last value. A forecaster of
series has ``fit(series)`` and ``forecast(series)``, which answers a median and a unit of error for each horizon.
"""

import numpy as np
import pandas as pd
from forecasts import M4_HORIZON
from sklearn.base import clone
from sklearn.linear_model import Ridge

from statespace import KalmanRegressor, S4DRegressor
from statespace.forecasting import SSMForecaster
from statespace.kalman import LocalLevel, LocalTrend, OrnsteinUhlenbeck, Seasonal
from statespace.lti import HiPPOMemory


class Naive:
    """The values one ``period`` before, again and again; with a period of 1 the last value."""

    def __init__(self, period=1):
        self.period = period

    def fit(self, past, future):
        self._horizon = future.shape[1]
        return self

    def forecast(self, past):
        season = past[:, -self.period :]
        return np.tile(season, (1, -(-self._horizon // self.period)))[:, : self._horizon]


class Mean(Naive):
    """Zero, which is the mean of a channel in the training part where values are scaled by it."""

    def forecast(self, past):
        return np.zeros((len(past), self._horizon))


class Linear:
    """Ridge regression on the values of the past, with a ``penalty`` a window."""

    def __init__(self, penalty=0.1):
        self._penalty = penalty

    def fit(self, past, future):
        last = past[:, -1:]
        self._ridge = Ridge(self._penalty * len(past)).fit(self._features(past - last, fit=True), future - last)
        return self

    def forecast(self, past):
        last = past[:, -1:]
        return last + self._ridge.predict(self._features(past - last))

    def _features(self, past, fit=False):
        return past


class Memory(Linear):
    """Ridge regression on what a `HiPPOMemory`, a linear state-space system, remembers of the past."""

    def __init__(self, measure="legs", n_coefficients=64, penalty=0.1):
        super().__init__(penalty)
        self._memory = HiPPOMemory(measure, n_coefficients)

    def _features(self, past, fit=False):
        states = self._memory.fit_transform(past) if fit else self._memory.transform(past)
        if fit:
            self._scale = states.std(axis=0) + 1e-9
        return states / self._scale


class Network:
    """A regressor of series that reads the past in patches of ``patch`` values, and answers all horizons at once.

    With ``linear`` it learns what ridge regression on the values leaves.
    """

    def __init__(self, estimator=S4DRegressor, patch=1, linear=False, **options):
        self._regressor, self._patch = estimator(**options, target="series"), patch
        self._linear = Linear() if linear else Naive()

    def fit(self, past, future):
        rest = future - self._linear.fit(past, future).forecast(past)
        self._regressor.fit(self._patches(past), rest)
        return self

    def forecast(self, past):
        return self._linear.forecast(past) + self._regressor.predict(self._patches(past))

    def _patches(self, past):
        return (past - past[:, -1:]).reshape(len(past), -1, self._patch)


class Filter:
    """A `KalmanRegressor` for the windows of each channel: level, day and what reverts to them; its filter forecasts.

    The parameters are fitted to the end of the training part, channel by channel.
    """

    def __init__(self, period=24, harmonics=4, longest=2000):
        self._process = LocalLevel(0.1) + OrnsteinUhlenbeck(length_scale=10.0) + Seasonal(period, harmonics=harmonics)
        self._longest = longest

    def fit_channels(self, values):
        tail = values[-self._longest :]
        hours = np.arange(len(tail), dtype=float)[:, None]
        model = KalmanRegressor(self._process, parameters="shared")
        self._models = [clone(model).fit([hours], [column]) for column in tail.T]
        return self

    def forecast_channels(self, past, horizon):
        """From (n_windows, n_channels, history) to (n_windows, n_channels, horizon)."""
        hours = np.arange(past.shape[2] + horizon, dtype=float)[:, None]
        known, asked = hours[: past.shape[2]], hours[past.shape[2] :]
        found = []
        for channel, model in enumerate(self._models):
            windows = list(past[:, channel])
            conditioned = model.condition([known] * len(windows), windows)
            found.append(np.stack([np.ravel(row) for row in conditioned.predict([asked] * len(windows))]))
        return np.stack(found, axis=1)


class KalmanOfLogs:
    """One `KalmanRegressor` a series, on the logarithms of its last values: trend, a year and what reverts to both."""

    def __init__(self, longest=520, trend=True, harmonics=3, reverting=5.0):
        process = LocalTrend() if trend else LocalLevel()
        if reverting:
            process = process + OrnsteinUhlenbeck(length_scale=reverting)
        if harmonics:
            process = process + Seasonal(52.18, harmonics=harmonics)
        self._longest, self._process = longest, process

    def fit(self, series):
        self._frames, self._models = [], []
        for values in series:
            logs = np.log(values[-self._longest :])
            frame = logs.mean(), logs.std() + 1e-9
            weeks = np.arange(len(logs), dtype=float)[:, None]
            self._frames.append(frame)
            self._models.append(KalmanRegressor(self._process).fit(weeks, (logs - frame[0]) / frame[1]))
        return self

    def forecast(self, series):
        median, unit = [], []
        for values, (middle, scale), model in zip(series, self._frames, self._models, strict=True):
            logs = (np.log(values[-self._longest :]) - middle) / scale
            weeks = np.arange(len(logs) + M4_HORIZON, dtype=float)[:, None]
            given = model.condition(weeks[: len(logs)], logs)
            mean, std = given.predict(weeks[len(logs) :], return_std=True, include_noise=True)
            median.append(middle + scale * mean)
            unit.append(scale * std)
        return np.stack(median), np.stack(unit)


class WindowsOfLogs:
    """A forecaster of windows for all series, on logarithms in units of each window's mean step.

    Every ``step`` weeks a training window ends, ``most`` of them at most for each series; what is missing before a
    short series is its first value.
    """

    def __init__(self, forecaster, history=104, step=8, most=60):
        self._forecaster, self._history, self._step, self._most = forecaster, history, step, most

    def fit(self, series):
        past, future = [], []
        for values in series:
            logs = np.log(values)
            ends = np.arange(len(logs) - M4_HORIZON, M4_HORIZON, -self._step)[: self._most]
            past += [self._window(logs[:end]) for end in ends]
            future += [logs[end : end + M4_HORIZON] for end in ends]
        past, future = np.stack(past), np.stack(future)
        unit = self._unit(past)
        keep = unit[:, 0] > 1e-8  # a window of one value says nothing of the others
        self._forecaster.fit(past[keep] / unit[keep], future[keep] / unit[keep])
        return self

    def forecast(self, series):
        past = np.stack([self._window(np.log(values)) for values in series])
        unit = self._unit(past)
        horizons = np.sqrt(np.arange(1, M4_HORIZON + 1))
        return unit * self._forecaster.forecast(past / unit), unit * horizons

    def _window(self, logs):
        tail = logs[-self._history :]
        return np.concatenate([np.repeat(tail[0], self._history - len(tail)), tail])

    def _unit(self, past):
        return np.maximum(np.abs(np.diff(past, axis=1)).mean(axis=1, keepdims=True), 1e-9)


class PanelOfLogs:
    """An `SSMForecaster`, one network for the logarithms of all series, and the width of its own intervals."""

    def __init__(self, longest=260, **options):
        self._longest = longest
        self._forecaster = SSMForecaster(**options, max_horizon=M4_HORIZON)

    def fit(self, series):
        self._ends = [len(values) for values in series]
        self._forecaster.fit(self._panel([values[-self._longest :] for values in series], self._ends))
        return self

    def forecast(self, series):
        fresh = [values[end:] for values, end in zip(series, self._ends, strict=True)]
        if any(len(part) for part in fresh):
            ends = [len(values) for values in series]
            self._forecaster.update(self._panel(fresh, ends), update_params=False)
            self._ends = ends
        quantiles = self._forecaster.predict_quantiles(self._asked(series), alpha=[0.05, 0.5, 0.95])
        low, middle, high = quantiles.to_numpy().reshape(len(series), M4_HORIZON, 3).transpose(2, 0, 1)
        return middle, np.maximum(high - low, 1e-9) / 2

    def _panel(self, parts, ends):
        rows = [(i, end - len(part) + k) for i, (part, end) in enumerate(zip(parts, ends, strict=True))
                for k in range(len(part))]  # fmt: skip
        index = pd.MultiIndex.from_tuples(rows, names=["series", "week"])
        return pd.DataFrame({"y": np.log(np.concatenate(parts))}, index=index)

    def _asked(self, series):
        return np.arange(1, M4_HORIZON + 1)


def gap_constant(record, stretch):
    """The mean and the standard deviation of what is shown."""
    shown, n = record.shown().values, record.hidden.sum()
    return np.repeat(shown.mean(), n), np.repeat(shown.std(), n)


def gap_line(record, stretch):
    """Straight lines across the gaps, with the spread of their errors across as long gaps made in what is shown."""
    shown = record.shown()
    inner = shown.hide(stretch, 0.2, 0)
    errors = inner.values[inner.hidden] - _line(inner)
    return _line(record), np.repeat(np.sqrt(np.mean(errors**2)), record.hidden.sum())


def _line(record):
    seen = ~record.hidden
    return np.interp(record.times[record.hidden], record.times[seen], record.values[seen])


def gap_kalman(record, stretch, process, known_error=False):
    """A Kalman smoother on what is shown; ``known_error`` takes the published errors as the noise."""
    shown = record.shown()
    middle = shown.values.mean()
    noise = {"noise_variance": shown.error**2} if known_error else {}
    model = KalmanRegressor(process).fit(shown.times[:, None], shown.values - middle, **noise)
    mean, std = model.predict(record.times[record.hidden][:, None], return_std=True)
    noise = record.error[record.hidden] ** 2 if known_error else model.noise_variance_
    return mean + middle, np.sqrt(std**2 + noise)
