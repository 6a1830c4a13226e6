"""The package on one real, gappy record: ``make demo``.

Weekly CO₂ from Mauna Loa, thinned at random until no grid is left. A Kalman regressor interpolates it and forecasts six
years, an S4D forecaster forecasts the same years, both with 90 % intervals and the naive rows beside them. Then a
Kalman filter and an S4D regressor run on a stream, one sample at a time, with the answers of ``predict``. Prints one
table and writes ``demo.png``.
"""

import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from statespace import KalmanRegressor, S4DForecaster, S4DRegressor, SeriesCollection
from statespace.datasets import load_co2, make_irregular
from statespace.kalman import LocalTrend, Matern, Seasonal

YEAR = 365.25
Z_90 = 1.6448536269514722  # a normal variable stays within ± so many standard deviations nine times in ten


def split():
    """Half of the weeks until the end of 1995 to learn from, the other half to interpolate, the rest to forecast."""
    record = load_co2()["co2"]
    past, future = record[:"1995"], record["1996":]
    train = make_irregular(past, keep=0.5, n_gaps=4, gap_length=0.01, random_state=0)
    return train, past.drop(train.index), future


def years(index):
    """Times as a column of numbers."""
    return ((index - pd.Timestamp("1958-01-01")) / pd.Timedelta(days=YEAR)).to_numpy()[:, None]


def last_value(known, index):
    """The last known value before each time."""
    return known.to_numpy()[known.index.searchsorted(index, side="left") - 1]


def seasonal_naive(known, index):
    """The value nearest to the same day of the latest earlier year that is known."""
    back = np.ceil(np.maximum((index - known.index[-1]) / pd.Timedelta(days=YEAR), 1.0))
    wanted = (index - pd.to_timedelta(back * YEAR, unit="D")).round("D")
    return known.to_numpy()[known.index.get_indexer(wanted, method="nearest")]


def interval(mean, std):
    return mean, mean - Z_90 * std, mean + Z_90 * std


def next_sample_task(record):
    """What is known at each sample, and the change until the next one, which is to be predicted."""
    gap = np.diff(record.index) / np.timedelta64(1, "D")
    phase = 2 * np.pi * years(record.index[1:])[:, 0]
    X = np.column_stack([record.to_numpy()[:-1] - 340, gap, np.sin(phase), np.cos(phase)])
    return X, np.diff(record.to_numpy()), record.index[:-1]


def fit_s4d_regressor(train):
    """An S4D network that predicts the next sample of a stream, trained on pieces of the record."""
    X, y, times = next_sample_task(train)
    pieces = np.array_split(np.arange(len(X)), 48)
    collection = SeriesCollection([X[piece] for piece in pieces], times=[times[piece] for piece in pieces])
    model = S4DRegressor(d_model=32, n_layers=2, d_state=16, dropout=0.0, max_epochs=60, patience=None, random_state=0)
    return model.fit(collection, [y[piece] for piece in pieces])


def stream_kalman(model, train, future):
    """Each sample predicted before it is seen, and the estimate of the signal when it has been."""
    stream = model.stream()
    gaps = np.diff(years(train.index[-1:].append(future.index))[:, 0])
    ahead, filtered = np.empty(len(future)), np.empty(len(future))
    for k, (value, gap) in enumerate(zip(future, gaps, strict=True)):
        ahead[k], _ = stream.step(np.nan, dt=gap)
        filtered[k], _ = stream.step(value, dt=0.0)
    return ahead, filtered


def stream_s4d(model, future):
    """The same by the S4D regressor, and the largest difference to ``predict`` on the whole record."""
    X, _, times = next_sample_task(future)
    stream = model.stream()
    gaps = np.diff(times, prepend=times[:1]) / np.timedelta64(1, "D")
    changes = np.array([stream.step(x, dt=gap) for x, gap in zip(X, gaps, strict=True)])
    whole = model.predict(SeriesCollection([X], times=[times]))[0]
    return future.to_numpy()[:-1] + changes, np.abs(changes - whole).max()


def row(task, name, truth, mean, lower=None, upper=None, seconds=None):
    error = np.sqrt(np.mean((np.asarray(truth) - np.asarray(mean)) ** 2))
    inside = "" if lower is None else f"{100 * np.mean((truth >= lower) & (truth <= upper)):.0f} %"
    print(f"  {task:34s}{name:26s}{error:9.2f}{inside:>12s}{'' if seconds is None else f'{seconds:.1f}':>10s}")


def draw(path, train, future, kalman, forecasts):
    weeks = pd.date_range(train.index[0], train.index[-1], freq="7D")
    parts = kalman.decompose(years(weeks))
    names = [name for name in parts.columns if not name.endswith("_std")]
    figure = plt.figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[3, 2])
    axis = left.subplots()
    recent = train["1988":]
    axis.plot(recent.index, recent, ".", color="0.35", markersize=3, label="learnt from")
    axis.plot(future.index, future, ".", color="0.6", markersize=3, zorder=3, label="held out")
    for name, (mean, lower, upper) in forecasts.items():
        (line,) = axis.plot(future.index, mean, linewidth=1, label=name)
        axis.fill_between(future.index, lower, upper, alpha=0.2, color=line.get_color(), linewidth=0)
    axis.set(ylabel="CO₂ (ppm)", title="six years ahead, 90 % intervals")
    axis.legend(loc="upper left")
    for axis, name in zip(right.subplots(len(names), 1, sharex=True), names, strict=True):
        axis.plot(weeks, parts[name], linewidth=0.8)
        low, high = parts[name] - Z_90 * parts[f"{name}_std"], parts[name] + Z_90 * parts[f"{name}_std"]
        axis.fill_between(weeks, low, high, alpha=0.3, linewidth=0)
        axis.set_title(name.replace("_", " "), fontsize="medium")
    figure.savefig(path, dpi=130)


def main():
    train, inside, future = split()
    gaps = np.diff(train.index) / np.timedelta64(1, "D")
    print(f"Mauna Loa CO2: {len(train)} weeks to learn from, {gaps.min():.0f} to {gaps.max():.0f} days apart; "
          f"{len(inside)} weeks to interpolate, {len(future)} to forecast.\n")  # fmt: skip
    print(f"  {'':34s}{'':26s}{'RMSE/ppm':>9s}{'in 90 %':>12s}{'seconds':>10s}")

    start = time.perf_counter()
    kalman = KalmanRegressor(LocalTrend() + Seasonal(period=1.0, harmonics=3) + Matern(nu=1.5))
    kalman.fit(years(train.index), train)
    within = interval(*kalman.predict(years(inside.index), return_std=True, include_noise=True))
    beyond = interval(*kalman.predict(years(future.index), return_std=True, include_noise=True))
    seconds = time.perf_counter() - start
    row("held-out weeks in between", "value before (constant)", inside, last_value(train, inside.index))
    row("", "value a year before", inside, seasonal_naive(train, inside.index))
    row("", "KalmanRegressor", inside, *within, seconds=seconds)

    start = time.perf_counter()
    forecaster = S4DForecaster(periods=[YEAR], time_unit="D", random_state=0).fit(train)
    mean = forecaster.predict(fh=future.index)
    bounds = forecaster.predict_interval(fh=future.index, coverage=0.9).to_numpy()
    deep = (mean.to_numpy(), *bounds.T)
    seconds = time.perf_counter() - start
    row("1996 to 2001, from 1995", "last value (constant)", future, last_value(train, future.index))
    row("", "same day of the last year", future, seasonal_naive(train, future.index))
    row("", "KalmanRegressor", future, *beyond)
    row("", "S4DForecaster", future, *deep, seconds=seconds)

    start = time.perf_counter()
    network = fit_s4d_regressor(train)
    seconds = time.perf_counter() - start
    coming = make_irregular(future, keep=0.5, random_state=1)
    ahead, filtered = stream_kalman(kalman, train, coming)
    known = KalmanRegressor(kalman.process_, noise_variance=kalman.noise_variance_, optimizer=None)
    record = pd.concat([train, coming])
    last = known.fit(years(record.index), record).predict(years(coming.index[-1:]))[0]
    streamed, difference = stream_s4d(network, coming)
    row("the next sample of a stream", "value before (constant)", coming[1:], coming.to_numpy()[:-1])
    row("", "KalmanRegressor.stream", coming[1:], ahead[1:])
    row("", "S4DRegressor.stream", coming[1:], streamed, seconds=seconds)
    print(f"\nStreams equal predict: Kalman to {abs(filtered[-1] - last):.0e} ppm, S4D to {difference:.0e} ppm.")

    path = Path("demo.png")
    draw(path, train, future, kalman, {"KalmanRegressor": beyond, "S4DForecaster": deep})
    print(f"Wrote {path.resolve()}")


if __name__ == "__main__":
    main()
