"""Which defaults work: one option at a time around a common setting, on fourteen real data sets.

    python tests/benchmarks/bench_defaults.py --ledger defaults.jsonl [--resume] [--seeds 2] [--only "dropout" ...]

Only training parts are read. Each is split anew for every seed: the network is judged on the last 30 % where the
order is time, else on 30 % drawn by class. It is fitted on the rest, of which it holds out a tenth itself where it
stops early. The loss is the log loss or the mean square, divided by that of a constant (class frequencies, mean), so
that data sets can be averaged: 0 is perfect, 1 says nothing. In the table a loss counts 2 at most. Parts are cut down
so that the whole study fits into an hour on one core; ``SIZES`` says how far. The ledger has one line of JSON a fit,
and ``--resume`` skips what stands there.
"""

import argparse
import json
import math
import sys
import time
import warnings
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from harness import machine
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from tasks import TASKS, Missing, Part

import statespace.training
from statespace import MambaRegressor, S4DClassifier, S4DRegressor, S5Regressor

TESTS = ["tests/training/test_loop.py"]

# What the factors are varied around: the defaults before the study, but for the size of the network, which is a factor
# itself; and those after it.
BEFORE = {
    "d_model": 32, "n_layers": 2, "d_state": 64, "dt_min": 1e-3, "dt_max": 1e-1, "dropout": 0.1, "max_epochs": 50,
    "batch_size": 32, "learning_rate": 4e-3, "ssm_learning_rate": 1e-3, "weight_decay": 0.01, "gradient_clip": 1.0,
    "validation_fraction": 0.1, "patience": 10, "pooling": "mean",
}  # fmt: skip
SETTINGS = {"before": BEFORE, "after": BEFORE | {"batch_size": "auto"}}

# Of light curves a network learns nothing from so few windows.
STUDIED = [name for name in TASKS if name != "light_curves"]
KEYS = ("around", "factor", "value", "task", "seed")

# Series to fit on at most, and steps of each.
SIZES = {
    "japanese_vowels": (120, 30), "gun_point": (36, 150), "arrow_head": (26, 125), "spoken_digits": (80, 100),
    "ecg_beats": (24, 300), "mortality": (150, 100), "promoters": (160, 81), "oil_temperature": (160, 48),
}  # fmt: skip
N_JUDGED, HELD_OUT, PIECE, WARM_UP = 300, 0.3, 70, 20


def constant_rate(n_steps, warmup=0.1):
    """A linear rise, then no fall."""
    n_warmup = max(1, round(warmup * n_steps))
    return lambda step: min(1.0, (step + 1) / n_warmup)


def everything_decays(model, *, learning_rate, ssm_learning_rate, weight_decay):
    groups = statespace.training.parameter_groups(
        model, learning_rate=learning_rate, ssm_learning_rate=ssm_learning_rate, weight_decay=weight_decay
    )
    return [group | {"weight_decay": weight_decay} for group in groups]


def as_it_is(arrays, weights=None):
    width = np.shape(arrays[0])[1]
    return np.zeros(width), np.ones(width)


@contextmanager
def unscaled():
    with (
        patch("statespace.base.mean_and_scale", as_it_is),
        patch("statespace.regression.ssm.mean_and_scale", as_it_is),
    ):
        yield


def in_loop(**replacements):
    return partial(patch.multiple, "statespace.training.loop", **replacements)


SCHEDULE = statespace.training.warmup_cosine


# By factor and value: parameters, or a context in which another function stands in the place of one of ours.
VARIANTS = {
    ("setting", ""): {},
    ("early stopping", "none, all epochs on all series"): {"validation_fraction": 0.0},
    ("early stopping", "patience 20"): {"patience": 20},
    ("batch_size", "8"): {"batch_size": 8},
    ("batch_size", "16"): {"batch_size": 16},
    ("batch_size", "n / 8, from 4 to 32"): {"batch_size": "auto"},
    ("max_epochs", "100"): {"max_epochs": 100},
    ("learning_rate", "2e-3"): {"learning_rate": 2e-3},
    ("learning_rate", "8e-3"): {"learning_rate": 8e-3},
    ("dt_min, dt_max", "1e-3, 1"): {"dt_min": 1e-3, "dt_max": 1.0},
    ("dt_min, dt_max", "1e-2, 0.1"): {"dt_min": 1e-2, "dt_max": 0.1},
    ("dt_min, dt_max", "1e-2, 1"): {"dt_min": 1e-2, "dt_max": 1.0},
    ("ssm_learning_rate", "1e-4"): {"ssm_learning_rate": 1e-4},
    ("ssm_learning_rate", "4e-3, as the others"): {"ssm_learning_rate": {}},
    ("ssm_learning_rate", "A, Δ 1e-3, B as the others"): {"ssm_learning_rate": {"A": 1e-3, "dt": 1e-3}},
    ("ssm_learning_rate", "Δ 1e-3, A, B as the others"): {"ssm_learning_rate": {"dt": 1e-3}},
    ("ssm_learning_rate", "A 1e-4, B, Δ 1e-3"): {"ssm_learning_rate": {"A": 1e-4, "B": 1e-3, "dt": 1e-3}},
    ("schedule", "no warm-up, cosine"): in_loop(warmup_cosine=lambda n, warmup=0.1: SCHEDULE(n, 0.0)),
    ("schedule", "no warm-up, constant"): in_loop(warmup_cosine=lambda n, warmup=0.1: lambda step: 1.0),
    ("dropout", "0"): {"dropout": 0.0},
    ("dropout", "0.3"): {"dropout": 0.3},
    ("weight_decay", "0.05"): {"weight_decay": 0.05},
    ("weight_decay", "0.01, of A, B, Δ and biases too"): in_loop(parameter_groups=everything_decays),
    ("gradient_clip", "none"): {"gradient_clip": None},
    ("scaling", "none"): unscaled,
    ("d_model", "64"): {"d_model": 64},
    ("n_layers", "1"): {"n_layers": 1},
    ("n_layers", "4"): {"n_layers": 4},
    ("d_state", "16"): {"d_state": 16},
    ("pooling", "last"): {"pooling": "last"},
}


@cache
def training_part(name):
    """The training part of a task, with fewer steps a series where the study has no time for all."""
    options = {"spoken_digits": {"samples": 32}, "oil_temperature": {"history": 48}}
    task = TASKS[name](**options.get(name, {}))
    part, steps = task.train, SIZES.get(name, (None, None))[1]
    if name == "arrow_head":
        part = Part([x[::2] for x in part.X], part.y)
    elif name == "ecg_beats":
        cut = range(0, len(part.X[0]), steps)
        part = Part(*([row[i : i + steps] for row in rows for i in cut] for rows in (part.X, part.y)))
    elif steps is not None:
        times = None if part.times is None else [row[:steps] for row in part.times]
        part = Part([x[:steps] for x in part.X], part.y, times)
    return task, part


@cache
def split(name, seed):
    """The series to fit on and those to judge by."""
    task, part = training_part(name)
    n = len(part)
    if n == 1:
        return task, *split_record(part)
    if task.ordered:
        cut = round((1 - HELD_OUT) * n)
        fitted, judged = np.arange(cut), np.arange(cut, n)
        fitted = np.sort(np.random.default_rng(seed).permutation(fitted))
    else:
        classes = part.y if task.kind == "classification" else None
        fitted, judged = train_test_split(np.arange(n), test_size=HELD_OUT, stratify=classes, random_state=seed)
    at_most = SIZES.get(name, (n, None))[0]
    return task, part.take(fitted[:at_most]), part.take(judged[:N_JUDGED])


def split_record(part):
    """One record: pieces of it to fit on, whose first steps only set the state, and its end to judge by."""
    (u,), (y,) = part.X, part.y
    cut = round((1 - HELD_OUT) * len(u))
    starts = range(0, cut - PIECE + 1, PIECE)
    pieces = [np.where(np.arange(PIECE) < WARM_UP, np.nan, y[i : i + PIECE]) for i in starts]
    end = np.where(np.arange(len(y)) < cut, np.nan, y)
    return Part([u[i : i + PIECE] for i in starts], pieces), Part([u], [end])


def judge(task, estimator, fitted, judged):
    """The loss on ``judged`` relative to a constant's, and the score in the task's own metric where it has one."""
    flat = np.concatenate if task.per_step else np.asarray
    known, true = flat(fitted.y), flat(judged.y)
    if task.kind == "classification":
        classes = estimator.classes_
        shares = np.array([np.mean(known == label) for label in classes])
        answers = estimator.predict_proba(judged.X, times=judged.times)
        answers = np.concatenate(list(answers)) if task.per_step else answers
        constant = log_loss(true, np.tile(shares, (len(true), 1)), labels=classes)
        return log_loss(true, answers, labels=classes) / constant
    answers = flat(estimator.predict(judged.X, times=judged.times)).reshape(true.shape)
    seen = ~np.isnan(true)
    constant = np.broadcast_to(np.nanmean(known, axis=0), true.shape)
    return float(np.sum((true - answers)[seen] ** 2) / np.sum((true - constant)[seen] ** 2))


def run(name, setting, change, seed):
    """One fit: its relative loss, epochs and seconds of CPU."""
    task, fitted, judged = split(name, seed)
    own, context = (change, nullcontext) if isinstance(change, dict) else ({}, change)
    parameters = setting | task.options | own | {"random_state": seed}
    kind = S4DClassifier if task.kind == "classification" else S4DRegressor
    if task.kind == "regression" and task.per_step:
        parameters["target"] = "step"
    start = time.process_time()
    try:
        with context():
            estimator = kind(**parameters).fit(fitted.X, fitted.y, times=fitted.times)
    except ArithmeticError:
        return {"loss": math.inf, "epochs": 0, "seconds": time.process_time() - start}
    seconds = time.process_time() - start
    with torch.no_grad():
        loss = judge(task, estimator, fitted, judged)
    return {"loss": loss, "epochs": len(estimator.history_), "seconds": round(seconds, 2)}


def first_fit():
    """Seconds of a fit with every default on 1,000 series of 100 steps, regular and irregular; two threads."""
    torch.set_num_threads(2)
    generator = np.random.default_rng(0)
    times = np.cumsum(generator.exponential(size=(1000, 100)), axis=1)
    rate = generator.uniform(0.1, 1.0, size=1000)
    X = np.sin(rate[:, None] * times) + 0.1 * generator.normal(size=times.shape)
    for kind in (S4DRegressor, S5Regressor, MambaRegressor):
        for name, given in (("regular", None), ("irregular", times)):
            wall, processor = time.perf_counter(), time.process_time()
            estimator = kind(random_state=0).fit(X, rate, times=given)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            print(
                f"  {kind.__name__:16s}{name:10s}{len(estimator.history_):4d} epochs, best {estimator.best_epoch_:3d}"
                f"{wall:8.1f} s ({processor:.1f} s of CPU)",
                flush=True,
            )


def table(lines, around):
    """Each variant beside the setting, over the pairs of data set and seed that both have.

    Errors are those of the mean over data sets. Ranks are among the values of one factor and the setting, 1 the best.
    Around the defaults after the study, those before it are a row of their own.
    """
    frame = pd.DataFrame(lines)
    old = frame[(frame["around"] == "before") & (frame["factor"] == "setting")].assign(factor="defaults before")
    frame = frame[frame["around"] == around]
    if around == "after":
        frame = pd.concat([frame, old])
    frame = frame.assign(loss=frame["loss"].clip(upper=2.0)).set_index(["task", "seed", "factor", "value"])
    losses, seconds = (frame[name].unstack(["factor", "value"]) for name in ("loss", "seconds"))
    setting, rows = ("setting", ""), []
    for variant in dict.fromkeys([setting, *losses]):
        both = losses[variant].notna() & losses[setting].notna()
        by_task = (losses[variant] - losses[setting])[both].groupby("task").mean()
        family = losses[[other for other in losses if other[0] in (variant[0], "setting")]][both].dropna()
        rows.append({
            "factor": variant[0], "value": variant[1], "loss": losses[variant][both].mean(), "fits": int(both.sum()),
            "difference": by_task.mean(), "error": by_task.sem(), "better": int((by_task < 0).sum()),
            "worse": int((by_task > 0).sum()), "rank": family.rank(axis=1).mean()[variant], "of": family.shape[1],
            "seconds": seconds[variant][both].sum() / seconds[setting][both].sum(),
        })  # fmt: skip
    return pd.DataFrame(rows)


def print_table(result):
    """As Markdown."""
    print("\n| factor | value | fits | mean loss | difference ± standard error | better, worse on | mean rank | time |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in result.itertuples():
        cells = [row.factor, row.value, f"{row.fits}", f"{row.loss:.3f}", "", "", "", f"{row.seconds:.2f}"]
        if row.factor != "setting":
            cells[4:7] = [
                f"{row.difference:+.3f} ± {row.error:.3f}", f"{row.better}, {row.worse}", f"{row.rank:.1f} of {row.of}"
            ]  # fmt: skip
        print(f"| {' | '.join(cells)} |")


def main(arguments=()):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ledger", type=Path, help="file with one line a fit; without it nothing is kept")
    parser.add_argument("--resume", action="store_true", help="skip what the ledger has")
    parser.add_argument("--around", choices=SETTINGS, default="after", help="what the factors are varied around")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[], help="factors; the setting itself is always run")
    parser.add_argument("--tasks", nargs="*", default=STUDIED)
    parser.add_argument("--first-fit", action="store_true", help="time a fit with every default, and stop")
    parser.add_argument("--table", action="store_true", help="print what the ledger has, and fit nothing")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if given.first_fit:
        print(machine(["torch"]), "2 threads")
        return first_fit()
    torch.set_num_threads(1)
    lines = []
    if given.ledger is not None and given.ledger.exists():
        if not (given.resume or given.table):
            sys.exit(f"{given.ledger} exists: --resume goes on with it, --table prints it; or name another file.")
        lines = [json.loads(line) for line in given.ledger.read_text().splitlines()]
    print(machine(["torch", "scikit-learn"]), "1 thread")
    if not given.table:
        for line in fits(given, {tuple(line[key] for key in KEYS) for line in lines}):
            lines.append(line)
            print(line, flush=True)
            if given.ledger is not None:
                with given.ledger.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    print_table(table(lines, given.around))


def fits(given, done):
    """The lines that the ledger has not, seed by seed, so that all factors have one before any has two."""
    for seed in range(given.seeds):
        for (factor, value), change in VARIANTS.items():
            if given.only and factor not in (*given.only, "setting"):
                continue
            for name in given.tasks:
                line = dict(zip(KEYS, (given.around, factor, value, name, seed), strict=True))
                if tuple(line.values()) in done:
                    continue
                try:
                    yield line | run(name, SETTINGS[given.around], change, seed)
                except Missing as absent:
                    print(f"passed over: {absent}")


if __name__ == "__main__":
    main(sys.argv[1:])
