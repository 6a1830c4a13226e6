"""The accuracy table's rows for series with labels or targets: ours, and `contenders`, on the tasks of `tasks`."""

from functools import cache, partial

import numpy as np
from contenders import Constant, Lags, RecurrentClassifier, RecurrentRegressor, Rocket, Summary, Vote, pieces, so_far
from sklearn.model_selection import StratifiedKFold, train_test_split
from table import Row, Table
from tasks import TASKS, Part

from statespace import S4DClassifier, S4DRegressor
from statespace.lti import LTIRegressor

load = cache(lambda name: TASKS[name]())
# With fewer series there are folds to validate on, rather than one part.
_FEW = 500


def judged(task, make, prepare, seeded, options, seed, validate):
    """The score of one contender on the test part, or in validation on parts of the training part."""
    task = load(task)
    scores = []
    for train, test in _splits(task) if validate else [(task.train, task.test)]:
        if prepare is not None:
            train, test = prepare(train, train), prepare(test, train)
        model = make(**options, **({"random_state": seed} if seeded else {}))
        model.fit(train.X, train.y, times=train.times)
        if task.score.__name__ == "area":
            answer = model.predict_proba(test.X, times=test.times)[:, -1]
        else:
            answer = model.predict(test.X, times=test.times)
        scores.append(task.score(test.y, answer))
    return {task.metric: float(np.mean(scores))}


def _splits(task):
    """Parts of the training part to fit and to validate on; what follows in time is validated on its end."""
    train, n = task.train, len(task.train)
    if n == 1:
        # One record: its first three quarters, then all of it, of which only the rest is judged.
        X, y = train.X[0], np.array(train.y[0])
        cut = 3 * len(X) // 4
        rest = np.where(np.arange(len(y)) < cut, np.nan, y)
        return [(Part([X[:cut]], [y[:cut]]), Part([X], [rest]))]
    if task.ordered:
        cut = 3 * n // 4
        return [(train.take(np.arange(cut)), train.take(np.arange(cut, n)))]
    if n < _FEW:
        folds = StratifiedKFold(4, shuffle=True, random_state=0).split(np.zeros(n), train.y)
        return [(train.take(fit), train.take(held)) for fit, held in folds]
    fit, held = train_test_split(np.arange(n), test_size=0.25, stratify=train.y, random_state=0)
    return [(train.take(fit), train.take(held))]


class Simulation:
    """`LTIRegressor` on a task's one record: output error, so that it simulates, from the record's fitted start."""

    def __init__(self, order):
        self._model = LTIRegressor(order=order, noise_model="output_error")

    def fit(self, X, y, times=None):
        self._model.fit(X[0], y[0])
        return self

    def predict(self, X, times=None):
        # Both records of the benchmark begin in the same state.
        return [np.ravel(self._model.predict(x, initial_state="fitted")) for x in X]


def row(task, name, make, *candidates, ours=False, seeded=True, prepare=None):
    """A row; without ``seeded`` there is one run, which no seed changes."""
    measure = partial(judged, task, make, prepare, seeded)
    options = {"candidates": candidates} if candidates else {}
    return Row(name, measure, make, ours=ours, **options, **({} if seeded else {"seeds": (0,)}))


def classified(task, ours, recurrent, lstm=True):
    """The rows of a task with a label a series, from the candidates of ours and of recurrent networks."""
    rows = [row(task, "S4DClassifier", S4DClassifier, *ours, ours=True)]
    rows.append(row(task, "GRU", partial(RecurrentClassifier, "gru"), *recurrent))
    if lstm:
        rows.append(row(task, "LSTM", partial(RecurrentClassifier, "lstm"), recurrent[0]))
    rows.append(row(task, "MiniRocket", Rocket))
    rows.append(row(task, "logistic regression on summaries", Summary, seeded=False))
    rows.append(row(task, "most frequent class", partial(Constant, classify=True), seeded=False))
    return Table(partial(_title, task), ("accuracy",), True, rows)


def _title(task):
    task = load(task)
    return f"{task.name}: {len(task.train)} to train, {len(task.test)} to test; {task.metric}; split: {task.split}"


# Small sets: no series are held out, and the last epoch is kept.
_SMALL = {"validation_fraction": 0, "patience": None, "batch_size": 16}
_GRU_SMALL = (
    _SMALL | {"d_model": 64, "n_layers": 1, "max_epochs": 60, "dropout": 0.2},
    _SMALL | {"d_model": 64, "n_layers": 1, "max_epochs": 60, "dropout": 0.2, "pooling": "last"},
)
_GRU_LAST = _GRU_SMALL[::-1]
_PATIENTS = {
    "d_model": 32, "n_layers": 1, "d_state": 16, "dropout": 0.5, "learning_rate": 1e-3, "weight_decay": 1.0,
    "pooling": "last", "batch_size": 64, "max_epochs": 12, "validation_fraction": 0.15, "patience": 5,
}  # fmt: skip
_RECORD = {"d_state": 16, "dropout": 0.1, "max_epochs": 60, "batch_size": 4, "validation_fraction": 0}
_GRU_RECORD = tuple(
    {"d_model": width, "n_layers": 1, "dropout": 0.1, "max_epochs": 60, "batch_size": 4, "validation_fraction": 0}
    for width in (16, 32)
)


SERIES = {
    "vowels": lambda: classified(
        "japanese_vowels",
        ours=(
            {"d_model": 64, "n_layers": 2, "d_state": 32, "dt_min": 0.01, "dt_max": 0.5, "dropout": 0.3,
             "max_epochs": 40, "validation_fraction": 0},
        ),
        recurrent=_GRU_LAST,
    ),
    "motions": lambda: classified(
        "basic_motions",
        ours=({"d_model": 32, "n_layers": 2, "d_state": 32, "max_epochs": 50, "validation_fraction": 0},),
        recurrent=_GRU_SMALL,
    ),
    "gunpoint": lambda: classified(
        "gun_point",
        ours=(
            _SMALL | {"d_model": 32, "n_layers": 2, "d_state": 32, "max_epochs": 80, "dropout": 0.2},
            _SMALL | {"d_model": 64, "n_layers": 2, "d_state": 32, "max_epochs": 80, "dropout": 0.2,
                      "dt_min": 0.01, "dt_max": 0.5},
        ),
        recurrent=_GRU_LAST,
    ),
    "italy": lambda: classified(
        "italy_power_demand",
        ours=(
            _SMALL | {"d_model": 32, "n_layers": 2, "d_state": 16, "max_epochs": 60, "dropout": 0.2},
            _SMALL | {"d_model": 32, "n_layers": 2, "d_state": 16, "max_epochs": 60, "dropout": 0.2,
                      "dt_min": 0.01, "dt_max": 0.5},
        ),
        recurrent=_GRU_LAST,
    ),
    "digits": lambda: classified(
        "spoken_digits",
        ours=({"d_model": 64, "n_layers": 4, "max_epochs": 12, "validation_fraction": 0},),
        recurrent=({"d_model": 64, "n_layers": 2, "max_epochs": 12, "validation_fraction": 0, "dropout": 0.1},),
        lstm=False,
    ),
    "beats": lambda: Table(
        partial(_title, "ecg_beats"),
        ("F1 of beats within 50 ms",),
        True,
        [
            row("ecg_beats", "S4DClassifier", S4DClassifier,
                {"d_model": 16, "n_layers": 2, "d_state": 32, "max_epochs": 15, "batch_size": 4,
                 "validation_fraction": 0}, ours=True),
            row("ecg_beats", "GRU", partial(RecurrentClassifier, "gru"),
                {"d_model": 32, "n_layers": 1, "max_epochs": 15, "batch_size": 4, "validation_fraction": 0}),
            row("ecg_beats", "logistic regression on lags", partial(Lags, classify=True),
                {"before": 18, "after": 0}, {"before": 36, "after": 0}, seeded=False),
            row("ecg_beats", "most frequent class", partial(Constant, per_step=True, classify=True), seeded=False),
        ],
    ),
    "mortality": lambda: Table(
        partial(_title, "mortality"),
        ("area under the ROC",),
        True,
        [
            row("mortality", "five S4DClassifiers, mean", partial(Vote, S4DClassifier, 5), _PATIENTS, ours=True,
                prepare=so_far),
            row("mortality", "S4DClassifier", S4DClassifier, _PATIENTS, ours=True, prepare=so_far),
            row("mortality", "five GRUs, mean", partial(Vote, partial(RecurrentClassifier, "gru"), 5),
                {name: value for name, value in _PATIENTS.items() if name != "d_state"}, prepare=so_far),
            row("mortality", "logistic regression on summaries", Summary, seeded=False),
            row("mortality", "most frequent class", Constant, seeded=False),
        ],
        aim=0.83,
    ),
    "tanks": lambda: Table(
        partial(_title, "cascaded_tanks"),
        ("RMSE of the simulation, V",),
        False,
        [
            row("cascaded_tanks", "S4DRegressor", S4DRegressor,
                _RECORD | {"d_model": 32, "n_layers": 3, "dt_min": 0.005, "dt_max": 0.2},
                _RECORD | {"d_model": 16, "n_layers": 2, "max_epochs": 120}, ours=True, prepare=pieces),
            row("cascaded_tanks", "LTIRegressor", Simulation, {"order": 2}, {"order": 3}, ours=True, seeded=False),
            row("cascaded_tanks", "GRU", partial(RecurrentRegressor, "gru"), *_GRU_RECORD, prepare=pieces),
            row("cascaded_tanks", "LSTM", partial(RecurrentRegressor, "lstm"), *_GRU_RECORD, prepare=pieces),
            row("cascaded_tanks", "ridge on lags of the input", Lags, {"before": 100}, {"before": 200}, seeded=False),
            row("cascaded_tanks", "mean", partial(Constant, per_step=True, classify=False), seeded=False),
        ],
    ),
}  # fmt: skip
