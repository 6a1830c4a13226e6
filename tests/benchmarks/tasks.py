"""The real tasks of the benchmarks: one function each, from the files to series with their times, targets and metric.

``TASKS`` names them. Each returns a `Task` with the official split where there is one; ``split`` says which it is. The
UCR and UEA sets ship with sktime; the others are read from the folder that ``STATESPACE_DATA`` names. What is learned
from data, such as a level to cut at, is learned on the training part. No estimator is known here.
"""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.signal import decimate
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from statespace.datasets import read_fasta


@dataclass
class Part:
    """Series and what is asked of them.

    Attributes
    ----------
    X : list of ndarray of shape (n_times_i, n_channels), or list of str
        NaN where nothing was observed.
    y : ndarray of shape (n_series,) or (n_series, n_outputs), or list of ndarray of shape (n_times_i,)
        One target a series, or one a step; NaN where unknown.
    times : list of ndarray of shape (n_times_i,), or None
        None on a regular grid.
    """

    X: list
    y: Any
    times: list | None = None

    def __len__(self):
        return len(self.X)

    def take(self, indices):
        """The series at ``indices``."""
        y = [self.y[i] for i in indices] if isinstance(self.y, list) else self.y[indices]
        times = None if self.times is None else [self.times[i] for i in indices]
        return Part([self.X[i] for i in indices], y, times)


@dataclass
class Task:
    """A training part, a test part and how answers are judged.

    Attributes
    ----------
    metric : str
        In words, with its unit.
    score : callable
        ``score(y, answer)`` of a part's y and what is predicted for it: labels, values, or for the area under the ROC
        the probability of the last class.
    greater_is_better : bool
    split : str
        Where the split comes from.
    per_step : bool
    ordered : bool
        The series follow each other in time: held-out ones are the last.
    options : dict
        What an estimator has to be told of the series, such as ``{"alphabet": "dna"}``.
    """

    name: str
    kind: str  # "classification" or "regression"
    train: Part
    test: Part
    metric: str
    score: Callable
    greater_is_better: bool
    split: str
    per_step: bool = False
    ordered: bool = False
    options: dict = field(default_factory=dict)


class Missing(Exception):
    """The files of a task are not here; the message says which."""


def path(name):
    """A file or folder of the real data."""
    root = os.environ.get("STATESPACE_DATA")
    if root is None:
        raise Missing(f"{name}: STATESPACE_DATA is not set; it names the folder with the real data")
    if not (Path(root) / name).exists():
        raise Missing(f"{name}: not in STATESPACE_DATA={root}")
    return Path(root) / name


def accuracy(y, labels):
    return float(np.mean(np.asarray(y) == np.asarray(labels)))


def area(y, probability):
    return float(roc_auc_score(y, probability))


def rmse(y, values):
    y, values = (np.concatenate([np.ravel(row) for row in part]) for part in (y, values))
    known = ~np.isnan(y)
    return float(np.sqrt(np.mean((y[known] - values[known]) ** 2)))


def _archive(name, title):
    from sktime import datasets
    from sktime.datatypes import convert_to

    parts = []
    for split in ("train", "test"):
        X, y = getattr(datasets, f"load_{name}")(split=split, return_X_y=True)
        parts.append(Part([frame.to_numpy(dtype=np.float64) for frame in convert_to(X, "df-list")], np.asarray(y)))
    return Task(title, "classification", *parts, "accuracy", accuracy, True, "the archive's")


def japanese_vowels():
    """9 speakers by 12 cepstral coefficients of a vowel, 7 to 29 steps."""
    return _archive("japanese_vowels", "JapaneseVowels")


def basic_motions():
    """4 motions by accelerometer and gyroscope, 100 steps at 10 Hz."""
    return _archive("basic_motions", "BasicMotions")


def gun_point():
    """Gun or finger by the height of a hand, 150 steps."""
    return _archive("gunpoint", "GunPoint")


def italy_power_demand():
    """Winter or summer by a day's 24 hourly loads."""
    return _archive("italy_power_demand", "ItalyPowerDemand")


def arrow_head():
    """3 kinds of arrow head by their outline, 251 steps."""
    return _archive("arrow_head", "ArrowHead")


def spoken_digits(samples=16):
    """Raw audio at 8 kHz, each recording divided by its standard deviation, ``samples`` of them a step.

    1,148 to 18,262 samples a recording. The official split holds out takes 0 to 4 of each speaker and digit.
    """
    stored = np.load(path("fsdd_spoken_digits") / "fsdd.npz")
    audio, offsets = stored["audio"].astype(np.float64), stored["offsets"]
    X = []
    for start, stop in itertools.pairwise(offsets):
        record = audio[start:stop] / audio[start:stop].std()
        X.append(record[: len(record) // samples * samples].reshape(-1, samples))
    everything, test = Part(X, stored["label"].astype(int)), stored["index"] < 5
    parts = [everything.take(np.flatnonzero(rows)) for rows in (~test, test)]
    return Task("spoken digits", "classification", *parts, "accuracy", accuracy, True, "official")


# Two leads at 360 Hz / 4; a beat is marked by the five steps around it, 55 ms.
BEAT_RATE, BEAT_STEPS = 90, 900


def ecg_beats():
    """Where the heart beats, step by step: ten minutes of two leads at 90 Hz in records of 10 s.

    The first 42 records to train, the last 18 to test: one patient's, so that nothing is said about others. The score
    is F1 of the beats found within 50 ms; the beats of a part are the middles of its marked stretches.
    """
    stored = np.load(path("mitbih_ecg") / "100_first10min.npz")
    leads = (stored["adc"] - stored["baseline"].astype(np.float64)) / stored["gain"]
    marks = pd.read_csv(path("mitbih_ecg") / "100_annotations.csv")
    beats = marks["sample"][marks["symbol"].isin(["N", "A", "V"])].to_numpy() / 4
    cut, parts = 42 * BEAT_STEPS, []
    for start, stop in ((0, cut), (cut, len(leads) // 4)):
        # Each part is filtered by itself: the filter looks ahead.
        X = decimate(leads[4 * start : 4 * stop], 4, axis=0)
        labels = np.zeros(len(X), dtype=int)
        inside = np.rint(beats[(beats >= start) & (beats < stop)] - start).astype(int)
        for offset in range(-2, 3):
            labels[np.clip(inside + offset, 0, len(X) - 1)] = 1
        parts.append(Part(list(X.reshape(-1, BEAT_STEPS, 2)), list(labels.reshape(-1, BEAT_STEPS))))
    return Task(
        "ECG beats", "classification", *parts, "F1 of beats within 50 ms", beats_f1, True, "first 7 and last 3 minutes",
        per_step=True, ordered=True,
    )  # fmt: skip


def beats_f1(y, labels):
    """F1 of the beats in consecutive records, each true beat and each found one counted once."""
    true, found = middles(np.concatenate(list(y))), middles(np.concatenate(list(labels)))
    tolerance, met, last = 0.05 * BEAT_RATE, 0, 0
    for beat in true:
        while last < len(found) and found[last] < beat - tolerance:
            last += 1
        if last < len(found) and found[last] <= beat + tolerance:
            met, last = met + 1, last + 1
    return 2 * met / max(1, len(true) + len(found))


def middles(labels, apart=0.2 * BEAT_RATE):
    """Middles of the stretches of ones, in steps; those within ``apart`` steps are joined."""
    steps = np.flatnonzero(labels)
    groups = np.split(steps, np.flatnonzero(np.diff(steps) > apart) + 1)
    return np.array([(group[0] + group[-1]) / 2 for group in groups if len(group)])


DESCRIPTORS = ("Age", "Gender", "Height")


def mortality():
    """Death in hospital from the first 48 hours in intensive care: set A of PhysioNet 2012, 3,996 patients.

    37 measured quantities and 3 descriptors (the same at every step) in columns, a row for each minute that has any,
    times in hours. -1 is unknown; what a minute holds twice is averaged. These files say nothing of the
    kind of unit, and for a tenth of the patients more than one age: ages above 90, coded as 200, count as 90, and then
    the mean is taken. What lies outside the 0.1 and 99.9 percentiles of the training part is set to these, for the
    records hold slips of the decimal point. Set A has no official split: a fifth of the patients, by a fixed draw that
    keeps the share of deaths, is the test part.
    """
    folder = path("physionet2012_seta")
    rows = pd.read_csv(folder / "set-a_long.csv.gz", na_values=["-1", "-1.0"]).dropna()
    outcomes = pd.read_csv(folder / "Outcomes-a.txt").set_index("RecordID")["In-hospital_death"]
    rows = rows[rows["Parameter"] != "RecordID"]
    old = (rows["Parameter"] == "Age") & (rows["Value"] > 90)
    rows["Value"] = rows["Value"].mask(old, 90.0)
    table = rows.groupby(["RecordID", "Time", "Parameter"], observed=True)["Value"].mean().unstack("Parameter")
    for name in DESCRIPTORS:
        table[name] = table[name].groupby("RecordID").transform("first")
    ids, clock = (table.index.get_level_values(level) for level in ("RecordID", "Time"))
    clock = clock.str.split(":", expand=True)
    hours = clock.get_level_values(0).astype(int) + clock.get_level_values(1).astype(int) / 60
    patients = ids.unique()
    y = outcomes.loc[patients].to_numpy()
    train, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    low, high = np.nanquantile(table[ids.isin(patients[train])].to_numpy(), [0.001, 0.999], axis=0)
    starts = np.searchsorted(ids, patients)[1:]
    values = np.split(np.clip(table.to_numpy(), low, high), starts)
    everything = Part(values, y, np.split(hours.to_numpy(dtype=np.float64), starts))
    return Task(
        "PhysioNet mortality", "classification", everything.take(train), everything.take(test), "area under the ROC",
        area, True, "a fixed draw, 80 to 20",
    )  # fmt: skip


def promoters():
    """81 bases of E. coli, a σ70 promoter or not; a fifth of each by a fixed draw is the test part."""
    folder = path("dna_cnnprom")
    kinds = [list(read_fasta(folder / f"Ecoli_{kind}.fa.gz")["sequence"]) for kind in ("non_prom", "prom")]
    X, y = kinds[0] + kinds[1], np.repeat([0, 1], [len(kind) for kind in kinds])
    train, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=0)
    everything = Part(X, y)
    return Task(
        "promoters", "classification", everything.take(train), everything.take(test), "accuracy", accuracy, True,
        "a fixed draw, 80 to 20", options={"alphabet": "dna"},
    )  # fmt: skip


def _simulation(title, metric, split, *parts):
    """A record of inputs and one of outputs for each part; the outputs are not shown."""
    parts = [Part([np.reshape(u, (len(u), -1))], [np.ravel(y)]) for u, y in parts]
    return Task(title, "regression", *parts, metric, rmse, False, split, per_step=True, ordered=True)


def cascaded_tanks():
    """The level of the lower of two tanks from the pump's voltage: 1,024 samples each to train and to test.

    Simulation: the level is never shown. The benchmark gives its first 5 samples for the initial state, which is the
    same in both records; here they carry no loss (NaN), and neither do they count in the score.
    """
    table = pd.read_csv(path("cascaded_tanks") / "dataBenchmark.csv")
    parts = []
    for part in ("Est", "Val"):
        level = table[f"y{part}"].to_numpy(dtype=np.float64, copy=True)
        level[:5] = np.nan
        parts.append((table[f"u{part}"].to_numpy(), level))
    return _simulation("cascaded tanks", "RMSE of the simulation, V", "the benchmark's", *parts)


def dryer():
    """Temperature of the air behind a heater from its voltage (DaISy): 500 samples to train, 500 to test."""
    u, y = np.loadtxt(path("daisy") / "dryer.dat").T
    return _simulation(
        "dryer", "RMSE of the simulation", "first and second half", (u[:500], y[:500]), (u[500:], y[500:])
    )  # fmt: skip


def heating_system():
    """Temperature of a halogen lamp from its voltage (DaISy): 480 samples to train, 321 to test."""
    _, u, y = np.loadtxt(path("daisy") / "heating_system.dat").T
    return _simulation(
        "heating system", "RMSE of the simulation", "first 60 and last 40 %", (u[:480], y[:480]), (u[480:], y[480:])
    )  # fmt: skip


def oil_temperature(history=96, horizon=24):
    """The next ``horizon`` hours of a transformer's oil temperature from ``history`` hours of it and of six loads.

    ETTh1 in the customary 12 and 4 months (of 30 days) to train and to validate, together the training part here, and 4
    to test; a window starts every 24 hours, those of the test part with the history before it. Targets are differences
    to the last temperature known, in °C.
    """
    values = pd.read_csv(path("ett") / "ETTh1.csv").iloc[:, 1:].to_numpy()
    parts = []
    for start, stop in ((history, 11520), (11520, 14400)):
        X, y = [], []
        for now in range(start, stop - horizon + 1, 24):
            X.append(values[now - history : now])
            y.append(values[now : now + horizon, -1] - values[now - 1, -1])
        parts.append(Part(X, np.array(y)))
    return Task(
        "oil temperature", "regression", *parts, f"RMSE over {horizon} hours, °C", rmse, False, "12 + 4 and 4 months",
        ordered=True,
    )  # fmt: skip


def light_curves(length=32):
    """A star's magnitude at a given time from the observations before it, days to months apart (MACHO, two bands).

    Windows of ``length`` observations of one star in one band, one behind the other; the last value is hidden (NaN),
    its time is given. Magnitudes are differences to the mean of those shown. The first 70 % of each curve to train.
    """
    table = pd.read_csv(path("macho_lightcurves") / "macho_5_objects.csv.gz")
    pieces = {"train": [], "test": []}
    for _, curve in table.groupby(["object", "band"]):
        times, magnitudes = curve["mjd"].to_numpy(), curve["mag"].to_numpy(dtype=np.float64)
        cut = int(0.7 * len(curve))
        for part, (start, stop) in {"train": (0, cut), "test": (cut, len(curve))}.items():
            for first in range(start, stop - length + 1, length):
                window = magnitudes[first : first + length]
                shown = window - window[:-1].mean()
                target, shown[-1] = shown[-1], np.nan
                pieces[part].append((shown[:, np.newaxis], target, times[first : first + length]))
    parts = []
    for windows in pieces.values():
        X, y, times = zip(*windows, strict=True)
        parts.append(Part(list(X), np.array(y), list(times)))
    return Task(
        "light curves", "regression", *parts, "RMSE, magnitudes", rmse, False, "first 70 and last 30 % of each curve"
    )  # fmt: skip


TASKS = {
    "japanese_vowels": japanese_vowels,
    "basic_motions": basic_motions,
    "gun_point": gun_point,
    "italy_power_demand": italy_power_demand,
    "arrow_head": arrow_head,
    "spoken_digits": spoken_digits,
    "ecg_beats": ecg_beats,
    "mortality": mortality,
    "promoters": promoters,
    "cascaded_tanks": cascaded_tanks,
    "dryer": dryer,
    "heating_system": heating_system,
    "oil_temperature": oil_temperature,
    "light_curves": light_curves,
}
