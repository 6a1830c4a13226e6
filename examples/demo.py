"""The package on one real, gappy record: ``make demo``.

Weekly CO₂ from Mauna Loa, thinned at random until no grid is left, is interpolated and forecast six years ahead by a Kalman
regressor and by an S4D forecaster, with 90 % intervals and the naive rows beside them; then both kinds of model are streamed
sample by sample, with the same answers. Prints one table and writes ``demo.png``.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from statespace import KalmanRegressor, S4DForecaster, S4DRegressor
from statespace.datasets import load_co2, make_irregular
from statespace.kalman import LocalTrend, Matern, Seasonal

YEAR = 365.25
QUANTILE_90 = 1.6448536269514722  # of the standard normal distribution at 95 %


def split():
    """Half of the weeks until the end of 1995 to learn from, the other half to interpolate, the rest to forecast."""
    record = load_co2()["co2"]
    past, future = record[:"1995"], record["1996":]
    train = make_irregular(past, keep=0.5, n_gaps=4, gap_length=0.01, random_state=0)
    return train, past.drop(train.index), future


def years(index):
    return (index - pd.Timestamp("1958-01-01")).total_seconds().to_numpy() / (86400 * YEAR)


def score(truth, mean, lower=None, upper=None):
    """Root mean squared error in ppm, and the percentage of the truth inside the interval."""
    error = np.sqrt(np.mean((np.asarray(truth) - np.asarray(mean)) ** 2))
    inside = np.nan if lower is None else 100 * np.mean((truth >= lower) & (truth <= upper))
    return error, inside


def constant(train, index):
    """The last value before each time."""
    return train.to_numpy()[np.maximum(np.searchsorted(train.index, index, side="right") - 1, 0)]


def seasonal_naive(train, index):
    """The known value nearest to the same day of the last year in which there is one, for forecasts; else a year before."""
    back = np.ceil(np.maximum((index - train.index[-1]) / pd.Timedelta(days=YEAR), 1.0)).astype(int)
    wanted = index - pd.to_timedelta(back * YEAR, unit="D")
    nearest = train.index.get_indexer(pd.DatetimeIndex(wanted).clip(lower=train.index[0]), method="nearest")
    return train.to_numpy()[nearest]


def kalman(train, inside, future):
    """The Gaussian process: trend, season and a smooth remainder, its parameters by maximum likelihood."""
    process = LocalTrend() + Seasonal(period=1.0, harmonics=3) + Matern(nu=1.5)
    model = KalmanRegressor(process).fit(years(train.index)[:, None], train)
    answers = []
    for part in (inside, future):
        mean, std = model.predict(years(part.index)[:, None], return_std=True, include_noise=True)
        answers.append((mean, mean - QUANTILE_90 * std, mean + QUANTILE_90 * std))
    return model, answers


def deep(train, future):
    """One causal pass of S4D layers over history and query times, trained on random windows of the record itself."""
    model = S4DForecaster(periods=[YEAR], random_state=0).fit(train)
    horizon = future.index
    mean = model.predict(fh=horizon)
    interval = model.predict_interval(fh=horizon, coverage=0.9)
    return model, (mean.to_numpy(), interval.iloc[:, 0].to_numpy(), interval.iloc[:, 1].to_numpy())


def stream_kalman(model, future):
    """Largest difference between streaming the future's first hundred weeks and filtering them at once."""
    head = future.iloc[:100]
    gaps = np.diff(years(head.index), prepend=model.last_time_)
    stream = model.stream()
    streamed = np.array([stream.step(y, dt=dt)[0] for y, dt in zip(head, gaps, strict=True)])
    refit = KalmanRegressor(model.process_, noise_variance=model.noise_variance_, optimizer=None)
    return streamed, refit


def main():
    start = time.perf_counter()
    train, inside, future = split()
    gaps = np.diff(train.index) / np.timedelta64(1, "D")
    print(f"Mauna Loa CO2: {len(train)} weeks to learn from, gaps {gaps.min():.0f} to {gaps.max():.0f} days; "
          f"{len(inside)} weeks to interpolate, {len(future)} to forecast")  # fmt: skip


if __name__ == "__main__":
    main()
