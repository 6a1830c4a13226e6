"""The accuracy table's rows for forecasts and gaps: ours, and others, with intervals and what they cover."""

from functools import cache, partial

import forecasts
import numpy as np
from contenders import RecurrentRegressor
from forecasters import (
    Filter,
    KalmanOfLogs,
    Linear,
    Mean,
    Memory,
    Naive,
    Network,
    PanelOfLogs,
    WindowsOfLogs,
    gap_constant,
    gap_kalman,
    gap_line,
)
from forecasts import COVERAGE, ETT_HORIZON, ETT_TEST, ETT_TRAIN, ETT_VALIDATION
from table import Row, Table

from statespace.conformal import conformal_quantile
from statespace.kalman import LocalTrend, Matern, OrnsteinUhlenbeck, Seasonal

etth1, m4_weekly = cache(forecasts.etth1), cache(forecasts.m4_weekly)
# Origins whose errors set the width of an interval, and how often it is set anew: a month, a day.
_MEMORY, _EVERY = 720, 24
_VALIDATION_STEP = 8


def ett(make, options, seed, validate):
    """A forecaster of windows, one for all channels: ``history`` and ``step`` of its windows are among the options."""
    options = dict(options)
    history, step = options.pop("history"), options.pop("step", 1)
    model, values = make(options, seed), etth1()
    if isinstance(model, Filter):
        model.fit_channels(values[:ETT_TRAIN])
        answer = partial(model.forecast_channels, horizon=ETT_HORIZON)
    else:
        past, future = forecasts.windows(values, 0, ETT_TRAIN, history, step)
        model.fit(past.reshape(-1, history), future.reshape(-1, ETT_HORIZON))

        def answer(past):
            return model.forecast(past.reshape(-1, history)).reshape(*past.shape[:2], ETT_HORIZON)

    if validate:
        past, future = forecasts.windows(values, ETT_TRAIN, ETT_VALIDATION, history, _VALIDATION_STEP)
        return forecasts.ett_errors(future, answer(past))
    # The origins before the test part whose errors are known at its beginning come along.
    past, future = forecasts.windows(values, ETT_VALIDATION - ETT_HORIZON - _MEMORY, ETT_TEST, history)
    forecast = answer(past)
    scores, test = np.abs(future - forecast), slice(ETT_HORIZON + _MEMORY, None)
    lower, upper = rolling_intervals(scores, forecast[test])
    return forecasts.ett_errors(future[test], forecast[test]) | {
        "coverage": forecasts.coverage(future[test], lower, upper)
    }


def rolling_intervals(scores, forecast, every=_EVERY, memory=_MEMORY):
    """Intervals of forecasts whose origins follow each other step by step, from the errors that were known at each.

    An origin's errors are known when its last target is, ``horizon`` origins later. ``every`` origins on end get, for
    each channel and horizon by itself, the conformal quantile of the ``memory`` errors last known. Origins that follow
    each other are not exchangeable: what is covered is measured, not promised.

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


def m4(make, options, seed, validate):
    """A forecaster of series, fitted to all but the last 26 weeks; its errors in both halves of them set the intervals.

    In validation, on the training part, one half gave 87 to 89 %, two 91 % and four 94 to 95 %.
    """
    train, future = m4_weekly()
    if validate:
        train, future = _without_last(train)
    later, last = _without_last(train)
    held, before = _without_last(later)
    model, scores = make(options, seed).fit(held), []
    for series, truth in ((held, before), (later, last)):
        median, unit = model.forecast(series)
        scores.append(np.abs(np.log(truth) - median) / unit)
    width = conformal_quantile(np.concatenate(scores), COVERAGE)
    median, unit = model.forecast(train)
    lower, upper = np.exp(median - width * unit), np.exp(median + width * unit)
    return forecasts.m4_errors(train, future, np.exp(median)) | {"coverage": forecasts.coverage(future, lower, upper)}


def _without_last(series):
    """The series without their last 13 weeks, and these."""
    n = forecasts.M4_HORIZON
    return [values[:-n] for values in series], np.stack([values[-n:] for values in series])


def gaps(draw, stretch, make, options, seed, validate):
    """What fills the gaps that ``seed`` draws; validated on gaps made in what is shown."""
    records = draw(seed)
    if validate:
        records = [record.shown().hide(stretch, 0.2, 1000) for record in records]
    return forecasts.gap_errors(records, [make(record, stretch, **options) for record in records])


def _row(measure, name, make, *candidates, ours=False, seeds=None):
    options = {"candidates": candidates} if candidates else {}
    seeds = {} if seeds is None else {"seeds": seeds}
    return Row(name, partial(measure, make), make, ours=ours, **options, **seeds)


_ETT = partial(_row, ett)
_M4 = partial(_row, m4)
_ONCE = {"seeds": (0,)}


def network(options, seed):
    return Network(**options, random_state=seed)


def recurrent(options, seed):
    return Network(partial(RecurrentRegressor, "gru"), **options, random_state=seed)


def network_of_logs(options, seed):
    return WindowsOfLogs(network(options, seed))


def recurrent_of_logs(options, seed):
    return WindowsOfLogs(recurrent(options, seed))


def panel(options, seed):
    return PanelOfLogs(**options, random_state=seed)


def kalman_of_logs(options, seed):
    return KalmanOfLogs(**options)


def linear(options, seed):
    return Linear(**options)


def memory(options, seed):
    return Memory(**options)


def naive(options, seed):
    return Naive(**options)


def mean(options, seed):
    return Mean()


def channels(options, seed):
    return Filter(**options)


def naive_of_logs(options, seed):
    return WindowsOfLogs(Naive(**options))


def linear_of_logs(options, seed):
    return WindowsOfLogs(Linear(**options))


_PENALTIES = {"penalty": 0.1}, {"penalty": 0.01}, {"penalty": 1.0}
_LAGS = {"history": 512, "step": 4}
_PATCHED = {"history": 504, "patch": 24, "step": 3, "n_layers": 1, "pooling": "last", "validation_fraction": 0,
            "batch_size": 64, "learning_rate": 1e-3, "d_model": 64, "max_epochs": 5, "dropout": 0.3}  # fmt: skip
_WEEKS = {"patch": 4, "n_layers": 2, "d_model": 32, "d_state": 16, "pooling": "last", "validation_fraction": 0,
          "batch_size": 64, "dropout": 0.2, "max_epochs": 5}  # fmt: skip
_WEEKS_GRU = {name: value for name, value in _WEEKS.items() if name != "d_state"}


def etth1_table():
    figures = ("MSE", "MAE", "MSE, last batch dropped", "coverage")
    return Table(
        "ETTh1, 96 hours ahead, seven channels: 12, 4 and 4 months of 30 days; means over all 2,785 test windows, and "
        "as published without the last incomplete batch of 32. 90 % intervals from the last month's errors",
        figures,
        False,
        [
            _ETT("S4DRegressor", network, _PATCHED, ours=True),
            _ETT("S4DRegressor on what ridge leaves", network, _PATCHED | {"linear": True}, ours=True),
            _ETT("HiPPOMemory + ridge", memory,
                 _LAGS | {"measure": "fourier", "n_coefficients": 193, "penalty": 0.1},
                 _LAGS | {"measure": "legs", "n_coefficients": 64, "penalty": 0.1}, ours=True, **_ONCE),
            _ETT("KalmanForecaster's process", channels, {"history": 512}, ours=True, **_ONCE),
            _ETT("GRU", recurrent, _PATCHED),
            _ETT("ridge on lags", linear, *({"history": 512, "step": 2} | penalty for penalty in _PENALTIES), **_ONCE),
            _ETT("seasonal naive, a day", naive, {"history": 24, "period": 24}, **_ONCE),
            _ETT("mean", mean, {"history": 24}, **_ONCE),
        ],
        aim=0.375,
    )  # fmt: skip


def m4_table():
    return Table(
        "M4 weekly: 359 series, 13 weeks ahead; OWA against Naive 2, which on weeks is naive. 90 % intervals by split "
        "conformal calibration over the series on the last 26 weeks of the training part",
        ("OWA", "sMAPE", "MASE", "coverage"),
        False,
        [
            _M4("KalmanRegressor on logarithms", kalman_of_logs, {}, ours=True, **_ONCE),
            _M4("S4DRegressor, one for all series", network_of_logs, _WEEKS, ours=True),
            _M4("SSMForecaster, one for all series", panel, {"max_epochs": 30}, {"periods": [52.18]},
                {"periods": [52.18], "max_epochs": 30}, ours=True),
            _M4("GRU, one for all series", recurrent_of_logs, _WEEKS_GRU),
            _M4("ridge on lags, one for all series", linear_of_logs, *_PENALTIES, **_ONCE),
            _M4("naive", naive_of_logs, **_ONCE),
            _M4("seasonal naive, 52 weeks", naive_of_logs, {"period": 52}, **_ONCE),
        ],
        aim=0.9,
    )  # fmt: skip


def gap_table(title, draw, stretch, candidates):
    filled = partial(_row, partial(gaps, draw, stretch))
    return Table(
        title,
        ("log score", "RMSE", "coverage"),
        True,
        [
            filled("KalmanRegressor", gap_kalman, *candidates, ours=True),
            filled("straight lines", gap_line),
            filled("mean and spread", gap_constant),
        ],
    )


def co2_table():
    trend = LocalTrend() + Seasonal(1.0, harmonics=4)
    return gap_table(
        "CO2 at Mauna Loa, a fifth of the weeks hidden in half-years, three draws: mean log density of what is hidden",
        forecasts.co2_gaps,
        forecasts.CO2_GAPS[0],
        (
            {"process": trend + OrnsteinUhlenbeck(length_scale=0.2)},
            {"process": trend + Matern(nu=1.5, length_scale=0.1)},
            {"process": trend},
        ),
    )


def light_table():
    slow = OrnsteinUhlenbeck(length_scale=100.0, variance=0.02)
    return gap_table(
        "light curves (MACHO), nine curves of five stars, a fifth of each hidden in stretches of 30 days, three draws: "
        "mean log density of what is hidden",
        forecasts.light_curve_gaps,
        forecasts.LIGHT_GAPS[0],
        (
            {"process": slow + OrnsteinUhlenbeck(length_scale=2.0, variance=0.005), "known_error": True},
            {"process": slow + Matern(nu=1.5, length_scale=5.0, variance=0.005), "known_error": True},
            {"process": slow, "known_error": True},
            {"process": slow},
        ),
    )


FORECASTS = {"etth1": etth1_table, "m4": m4_table, "co2": co2_table, "light": light_table}
