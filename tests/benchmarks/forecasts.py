"""The forecasting tasks of the accuracy table: records, what is hidden of them, and how answers are judged.

ETTh1 and the M4 weekly series lie in the folder that ``STATESPACE_DATA`` names, and so do the light curves; the carbon
dioxide record ships with statsmodels. Scales, gaps to validate on and everything else that is learned comes from the
training part alone. No estimator is known here.
"""

import gzip
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm
from tasks import path

from statespace.datasets import load_co2

# Months of 30 days by the hour, 12 to train, 4 to validate and 4 to test, as everybody cuts ETTh1.
ETT_TRAIN, ETT_VALIDATION, ETT_TEST = 8640, 11520, 14400
ETT_HORIZON = 96
# Published figures leave the last incomplete batch of 32 test windows out.
PUBLISHED_BATCH = 32
M4_HORIZON = 13
COVERAGE = 0.9


def etth1():
    """Seven channels by the hour, (14400, 7), in units of the training part's mean and standard deviation."""
    values = pd.read_csv(path("ett") / "ETTh1.csv").iloc[:ETT_TEST, 1:].to_numpy(dtype=np.float64)
    return (values - values[:ETT_TRAIN].mean(axis=0)) / values[:ETT_TRAIN].std(axis=0)


def windows(values, start, stop, history, step=1):
    """Every window whose targets lie in rows ``start`` to ``stop``, the channels one behind the other.

    Returns
    -------
    past, future : ndarray of shape (n_windows, n_channels, history), (n_windows, n_channels, ETT_HORIZON)
    """
    now = np.arange(max(start, history), stop - ETT_HORIZON + 1, step)
    past = np.stack([values[i - history : i].T for i in now])
    return past, np.stack([values[i : i + ETT_HORIZON].T for i in now])


def ett_errors(future, forecast):
    """Mean squared and absolute error over all windows, and as published, without the last incomplete batch."""
    error = forecast - future
    full = len(error) // PUBLISHED_BATCH * PUBLISHED_BATCH
    return {
        "MSE": float(np.mean(error**2)), "MAE": float(np.mean(np.abs(error))),
        "MSE, last batch dropped": float(np.mean(error[:full] ** 2)),
        "MAE, last batch dropped": float(np.mean(np.abs(error[:full]))),
    }  # fmt: skip


def m4_weekly():
    """359 series of 80 to 2,597 weeks, and the 13 weeks (359, 13) that follow each."""
    parts = []
    for part in ("train", "test"):
        with gzip.open(path("m4_small") / f"Weekly-{part}.csv.gz", "rt") as file:
            lines = file.read().replace('"', "").splitlines()[1:]
        parts.append([np.array([float(cell) for cell in line.split(",")[1:] if cell]) for line in lines])
    return parts[0], np.stack(parts[1])


def m4_errors(train, future, forecast):
    """sMAPE in percent, MASE, and OWA, their mean in units of Naive 2: for weeks, whose period M4 takes as 1, naive."""
    naive = np.stack([np.repeat(series[-1], M4_HORIZON) for series in train])
    ours, theirs = _m4_pair(train, future, forecast), _m4_pair(train, future, naive)
    return {"OWA": float(np.mean(np.divide(ours, theirs))), "sMAPE": ours[0], "MASE": ours[1]}


def _m4_pair(train, future, forecast):
    symmetric = 200 * np.abs(future - forecast) / (np.abs(future) + np.abs(forecast))
    steps = np.array([np.abs(np.diff(series)).mean() for series in train])
    return float(symmetric.mean()), float((np.abs(future - forecast).mean(axis=1) / steps).mean())


@dataclass
class Gapped:
    """A record and the part of it that is hidden.

    Attributes
    ----------
    times, values : ndarray of shape (n_samples,)
        Years, or days; ppm, or magnitudes.
    error : ndarray of shape (n_samples,)
        The standard error of each sample as it was published; 0 where none was.
    hidden : ndarray of bool of shape (n_samples,)
        The stretches to fill.
    """

    times: np.ndarray
    values: np.ndarray
    error: np.ndarray
    hidden: np.ndarray

    def shown(self):
        """The record without what is hidden."""
        seen = ~self.hidden
        return Gapped(self.times[seen], self.values[seen], self.error[seen], np.zeros(seen.sum(), dtype=bool))

    def hide(self, stretch, share, seed):
        """The same samples, with stretches of the duration ``stretch`` hidden until they hold ``share`` of them.

        The first and the last stretch of the record are never hidden: gaps are filled, nothing is extrapolated.
        """
        rng, hidden = np.random.default_rng(seed), np.zeros(len(self.times), dtype=bool)
        first, last = self.times[0] + stretch, self.times[-1] - 2 * stretch
        while hidden.mean() < share:
            start = rng.uniform(first, last)
            hidden |= (self.times >= start) & (self.times < start + stretch)
        return Gapped(self.times, self.values, self.error, hidden)


# The duration of a stretch, and the share of the samples that lies in one.
CO2_GAPS = 0.5, 0.2
LIGHT_GAPS = 30.0, 0.2


def co2_gaps(seed):
    """The weekly record of Mauna Loa in years, a fifth of it hidden in half-years drawn by ``seed``: a list of one."""
    record = load_co2()["co2"]
    times = (record.index - record.index[0]).total_seconds().to_numpy() / (365.25 * 86400)
    everything = Gapped(times, record.to_numpy(), np.zeros(len(times)), np.zeros(len(times), dtype=bool))
    return [everything.hide(*CO2_GAPS, seed)]


def light_curve_gaps(seed):
    """The MACHO light curves, star by star and band by band, a fifth of each hidden in stretches of 30 days."""
    table = pd.read_csv(path("macho_lightcurves") / "macho_5_objects.csv.gz")
    records = []
    for _, curve in table.groupby(["object", "band"], sort=True):
        curve = curve.groupby("mjd", as_index=False)[["mag", "err"]].mean()
        times, values, error = (curve[name].to_numpy(dtype=np.float64) for name in ("mjd", "mag", "err"))
        everything = Gapped(times, values, error, np.zeros(len(times), dtype=bool))
        records.append(everything.hide(*LIGHT_GAPS, [seed, len(records)]))
    return records


def gap_errors(records, answers):
    """Log score, RMSE and coverage over all hidden samples, from a mean and a standard deviation for each of them.

    The log score is the mean of log N(y; mean, std²), of observations with their noise; more is better.
    """
    y = np.concatenate([record.values[record.hidden] for record in records])
    mean, std = (np.concatenate(part) for part in zip(*answers, strict=True))
    return {
        "log score": float(norm.logpdf(y, mean, std).mean()),
        "RMSE": float(np.sqrt(np.mean((y - mean) ** 2))),
        "coverage": float(np.mean(np.abs(y - mean) <= norm.ppf((1 + COVERAGE) / 2) * std)),
    }


def coverage(y, lower, upper):
    """The share of the values, of those that are known, that lie in their interval."""
    known = ~np.isnan(y)
    return float(np.mean((y >= lower)[known] & (y <= upper)[known]))
