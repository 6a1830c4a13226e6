"""What users would pick for series of any length: recurrent networks in our loop, MiniRocket, ridge on lags, constants.

A recurrent network gets everything that our layers get: the same scaling, masks of what is missing, batches, held-out
series, schedule and best epoch. It reads the gap Δ before each sample as one more input, as ours read it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tasks import Part
from torch import nn

from statespace import SSMClassifier, SSMRegressor
from statespace.models import ResidualStack


class Recurrent(nn.Module):
    """torch's GRU or LSTM over [x, log(1 + Δ)] with a linear head, in the place of a `ResidualStack`."""

    causal = True

    def __init__(self, cell, d_input, d_output, d_model, n_layers, dropout, pooling):
        super().__init__()
        self.pooling = pooling
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.cell = kind(d_input + 1, d_model, n_layers, batch_first=True, dropout=dropout if n_layers > 1 else 0.0)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(d_model, d_output)

    def features(self, x, dt=None, state=None):
        gaps = torch.ones_like(x[..., 0]) if dt is None else dt
        h, state = self.cell(torch.cat([x, torch.log1p(gaps)[..., None]], dim=-1), state)
        return self.dropout(h), state

    pool = ResidualStack.pool
    forward = ResidualStack.forward


def _recurrent(estimator, config):
    with_names = {name: config[name] for name in ("d_input", "d_output", "d_model", "n_layers", "dropout", "pooling")}
    return Recurrent(estimator.layer, **with_names)


@dataclass(eq=False, repr=False)
class RecurrentClassifier(SSMClassifier):
    """`SSMClassifier` with ``layer="gru"`` or ``"lstm"``."""

    def _make_model(self, options=None, **config):
        return _recurrent(self, config)


@dataclass(eq=False, repr=False)
class RecurrentRegressor(SSMRegressor):
    """`SSMRegressor` with ``layer="gru"`` or ``"lstm"``."""

    def _make_model(self, options=None, **config):
        return _recurrent(self, config)


class Rocket:
    """sktime's MiniRocket, and a ridge classifier whose penalty is cross-validated on the training series."""

    def __init__(self, random_state):
        self.random_state = random_state

    def fit(self, X, y, times=None):
        from sktime.transformations.panel.rocket import MiniRocketMultivariate, MiniRocketMultivariateVariable

        ragged = len({len(x) for x in X}) > 1
        kind = MiniRocketMultivariateVariable if ragged else MiniRocketMultivariate
        options = {"pad_value_short_series": 0.0} if ragged else {}
        self._features = kind(random_state=self.random_state, n_jobs=1, **options)
        features = self._features.fit_transform(self._nested(X))
        self._ridge = make_pipeline(StandardScaler(with_mean=False), RidgeClassifierCV(alphas=np.logspace(-3, 3, 10)))
        self._ridge.fit(np.asarray(features), y)
        return self

    def predict(self, X, times=None):
        return self._ridge.predict(np.asarray(self._features.transform(self._nested(X))))

    def _nested(self, X):
        if len({len(x) for x in X}) == 1:
            return np.stack([x.T for x in X])
        return pd.DataFrame(
            [[pd.Series(column) for column in x.T] for x in X], columns=[f"c{i}" for i in range(X[0].shape[1])]
        )


class Summary:
    """Logistic regression on each channel's last, first, mean, least and greatest value, spread and number of values.

    What was never observed counts as the training part's mean. The penalty is cross-validated on the training series.
    """

    def fit(self, X, y, times=None):
        from sklearn.linear_model import LogisticRegressionCV

        self._fill = np.nanmean(np.concatenate(X), axis=0)
        scorer = {"scoring": "roc_auc"} if len(set(y)) == 2 else {}
        self._model = make_pipeline(
            StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-4, 0, 5), max_iter=1000, cv=4, **scorer)
        )
        self._model.fit(self._table(X), y)
        return self

    def predict(self, X, times=None):
        return self._model.predict(self._table(X))

    def predict_proba(self, X, times=None):
        return self._model.predict_proba(self._table(X))

    def _table(self, X):
        return np.stack([self._row(x) for x in X])

    def _row(self, x):
        seen = ~np.isnan(x)
        row = [np.log1p(seen.sum(axis=0))]
        empty = ~seen.any(axis=0)
        filled = np.where(empty, self._fill, x)
        seen = seen | empty
        columns = np.arange(x.shape[1])
        last = len(x) - 1 - seen[::-1].argmax(axis=0)
        row += [filled[seen.argmax(axis=0), columns], filled[last, columns]]
        row += [reduce(filled, axis=0) for reduce in (np.nanmean, np.nanmin, np.nanmax, np.nanstd)]
        return np.concatenate(row)


class Lags:
    """A linear model of each step from the inputs of the last steps (and the next ones): ridge, or logistic regression.

    Parameters
    ----------
    before, after : int
        How many steps before and after a step are read.
    classify : bool
    """

    def __init__(self, before, after=0, classify=False):
        self.before, self.after, self.classify = before, after, classify

    def fit(self, X, y, times=None):
        rows, targets = np.concatenate([self._rows(x) for x in X]), np.concatenate([np.ravel(row) for row in y])
        model = LogisticRegression(max_iter=300) if self.classify else RidgeCV(alphas=np.logspace(-3, 4, 15))
        self._model = make_pipeline(StandardScaler(), model)
        known = ~np.isnan(targets.astype(float))
        self._model.fit(rows[known], targets[known])
        return self

    def predict(self, X, times=None):
        return [self._model.predict(self._rows(x)) for x in X]

    def _rows(self, x):
        """Each step with its neighbours; beyond the ends of the record its first and last step go on."""
        padded = np.pad(x, ((self.before, self.after), (0, 0)), mode="edge")
        views = np.lib.stride_tricks.sliding_window_view(padded, self.before + self.after + 1, axis=0)
        return views.reshape(len(x), -1)


class Constant:
    """The most frequent label, or the mean: of series or of steps."""

    def __init__(self, per_step=False, classify=True):
        self.per_step, self.classify = per_step, classify

    def fit(self, X, y, times=None):
        targets = np.concatenate([np.ravel(row) for row in y]) if self.per_step else np.asarray(y)
        known = targets[~np.isnan(targets)] if targets.dtype.kind == "f" else targets
        self._model = DummyClassifier() if self.classify else DummyRegressor()
        self._model.fit(np.zeros((len(known), 1)), known)
        return self

    def predict(self, X, times=None):
        if self.per_step:
            return [self._model.predict(x) for x in X]
        return self._model.predict(np.zeros((len(X), 1)))

    def predict_proba(self, X, times=None):
        return self._model.predict_proba(np.zeros((len(X), 1)))


class Vote:
    """The mean probability of ``members`` classifiers with seeds of their own: small data, and weights by chance."""

    def __init__(self, make, members, random_state, **options):
        self._members = [make(**options, random_state=members * random_state + k) for k in range(members)]

    def fit(self, X, y, times=None):
        for member in self._members:
            member.fit(X, y, times=times)
        return self

    def predict_proba(self, X, times=None):
        return np.mean([member.predict_proba(X, times=times) for member in self._members], axis=0)


def so_far(part, train):
    """What is known of each channel at a step: its last, first and greatest value, its spread, and their number.

    Scaled by the training part; 0, its mean, before the first value. Nothing is read ahead, so that it streams.
    """
    everything = np.concatenate(train.X)
    mean, scale = np.nanmean(everything, axis=0), np.nanstd(everything, axis=0)

    def row(x):
        z = (x - mean) / scale
        seen = ~np.isnan(z)
        count, values = np.cumsum(seen, axis=0), np.nan_to_num(z)
        each = np.maximum(count, 1)
        spread = np.cumsum(values**2, axis=0) / each - (np.cumsum(values, axis=0) / each) ** 2
        last = pd.DataFrame(z).ffill().fillna(0.0).to_numpy()
        first = np.where(count > 0, values[seen.argmax(axis=0), np.arange(z.shape[1])], 0.0)
        greatest = np.nan_to_num(np.fmax.accumulate(z, axis=0))
        return np.concatenate([last, np.log1p(count), first, greatest, np.sqrt(np.maximum(spread, 0.0))], axis=1)

    return Part([row(x) for x in part.X], part.y, part.times)


def pieces(part, train, length=256, step=32, unsure=96):
    """The one record of a training part cut into overlapping pieces, the first of which begins as the record does.

    The others begin in an unknown state: their first ``unsure`` targets carry no loss. A test part stays whole.
    """
    if part is not train:
        return part
    x, y = part.X[0], np.ravel(part.y[0])
    X, targets = [x[:length]], [y[:length]]
    for start in range(step, len(x) - length + 1, step):
        X.append(x[start : start + length])
        targets.append(np.where(np.arange(length) < unsure, np.nan, y[start : start + length]))
    return Part(X, targets)
