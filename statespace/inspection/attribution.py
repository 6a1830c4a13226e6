"""Which samples an answer rests on: integrated gradients, taken through the state."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from statespace.inspection.records import channels, index_of, read_series
from statespace.models.inference import MAX_STEPS

_FIRST = 8


class Attribution(NamedTuple):
    """What `integrated_gradients` returns.

    Attributes
    ----------
    values : list of DataFrame
        For each series what each of its values adds to the answer, in the units of the answer: a row for each sample,
        at its time, and a column for each channel (one column for sequences of symbols).
    answer, baseline : ndarray of shape (n_series,)
        The answer to the series, and to its baseline.
    error : ndarray of shape (n_series,)
        The sum of the values less ``answer - baseline``: 0 but for the error of the integral.

    Examples
    --------
    >>> from statespace.inspection import Attribution
    >>> Attribution._fields
    ('values', 'answer', 'baseline', 'error')
    """

    values: list
    answer: np.ndarray
    baseline: np.ndarray
    error: np.ndarray


def integrated_gradients(estimator, X, times=None, *, output=None, at=-1, baseline=None, tol=1e-6, max_points=512):
    """What each sample adds to an answer, so that all of them add up to it [1]_.

        a_k = (x_k - b_k) ∫₀¹ ∂f/∂x_k (b + s (x - b)) ds,    Σ_k a_k = f(x) - f(b)

    The gradient flows back through the states of all layers, so that a sample counts for what the state still holds of
    it when the answer is given. In a causal model samples after the answer add exactly nothing.

    Parameters
    ----------
    estimator : DeepRegressor or DeepClassifier
        Fitted.
    X, times
        Series as in ``predict``.
    output : int or label, optional
        Of a regressor which output, 0 by default; of a classifier which class, by default the one it predicts.
    at : int, default=-1
        Fitted to one target a step: the step whose answer is explained; negative from the end of each series. Not used
        for one target a series.
    baseline : float, array-like or str, optional
        What says nothing, in the units of X: a sample, of shape (n_channels,), or series like those of X, (n_series,
        n_times, n_channels) or a list of (n_times_i, n_channels), of which what is as in X is not asked about. None:
        the channels' means in ``fit``; for sequences of symbols all symbols in equal shares. For those it may be one
        symbol.
    tol : float, default=1e-6
        Largest ``error``, relative to ``answer - baseline``, at which the number of points is no longer doubled.
    max_points : int, default=512
        Most points of the Gauss-Legendre rule for the integral; there is a pass over the series for each.

    Returns
    -------
    Attribution
        What is explained, f, is a regressor's prediction, in the units of y, and a classifier's log-odds
        log p / (1 - p) of the class against all others, in nats.

    Raises
    ------
    ValueError
        Bad X or times as in ``predict``; no such output or step; a baseline of another shape.

    Warns
    -----
    UserWarning
        The values do not add up within ``tol`` at ``max_points``, as for a mixture of experts, which jumps where
        another expert is chosen. ``error`` says by how much.

    Notes
    -----
    Times stay as they are: only values go from the baseline to the series. A missing value is missing on the whole way
    and adds nothing. The network computes in float64, as in ``predict``.

    References
    ----------
    .. [1] M. Sundararajan, A. Taly, Q. Yan (2017). Axiomatic Attribution for Deep Networks. Section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.inspection import integrated_gradients
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X[:, -1])
    >>> found = integrated_gradients(reg, X[:2])
    >>> found.values[0].shape
    (12, 1)
    >>> bool(np.allclose(found.values[0].to_numpy().sum(), reg.predict(X[:1])[0] - found.baseline[0], rtol=1e-5))
    True
    """
    collection, data, model = read_series(estimator, X, times)
    zeros = _zeros(estimator, baseline, collection)
    values, ends = [], []
    for i in range(len(data)):
        batch = data.batch(np.array([i]))
        f = _explained(estimator, model, batch, _step(estimator, at, int(data.lengths[i]), i), output)
        found, *rest = _integrated(f, batch["x"], _start(estimator, batch["x"], zeros[i]), tol, max_points)
        width = 1 if estimator._alphabet is not None else estimator.n_channels_
        found = found[:, :width] if estimator._alphabet is None else found.sum(axis=1, keepdims=True)
        values.append(pd.DataFrame(found, index=index_of(collection, i), columns=channels(estimator, width)))
        ends.append(rest)
    answer, start, error = np.array(ends).T
    wrong = np.abs(error) > tol * np.maximum(np.abs(answer - start), _floor(answer, start))
    if wrong.any():
        worst = int(np.argmax(np.abs(error)))
        warnings.warn(
            f"with {max_points} points the values of {int(wrong.sum())} series do not add up within tol={tol:g}: those "
            f"of series {worst} miss {answer[worst] - start[worst]:.6g} by {error[worst]:.2g}. Raise max_points, or "
            "take the error into account.",
            UserWarning,
            stacklevel=2,
        )
    return Attribution(values, answer, start, error)


def _zeros(estimator, baseline, collection):
    """The encoded baseline of each series, without the mask: of one sample (d,) or of all (n_times_i, d)."""
    alphabet, n = estimator._alphabet, len(collection)
    if alphabet is not None:
        code = None if baseline is None else estimator._read_sample(baseline)[0]
        return [np.full(len(alphabet), 1 / len(alphabet)) if code is None else alphabet.rows[code]] * n
    if baseline is None:
        return [np.zeros(estimator.n_channels_)] * n
    series = isinstance(baseline, np.ndarray) and baseline.ndim == 3
    if series or (isinstance(baseline, list | tuple) and len(baseline) and np.ndim(baseline[0]) == 2):
        rows = [np.asarray(row, dtype=np.float64) for row in baseline]
        expected = [values.shape for values in collection.values]
        if [row.shape for row in rows] != expected:
            raise ValueError(
                f"a baseline of series must have the shapes of those of X, {expected[0]} and so on for {n} series. "
                f"Got {len(rows)} series, the first of shape {rows[0].shape}."
            )
    else:
        rows = [np.asarray(baseline, dtype=np.float64)] * n
        if rows[0].shape not in ((), (estimator.n_channels_,)):
            raise ValueError(
                f"baseline must be a number, or one for each of the {estimator.n_channels_} channels, or series like "
                f"those of X. Got {baseline!r}."
            )
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("baseline must be finite: a value that is missing in X is missing in the baseline anyway.")
    return [(row - estimator.x_mean_) / estimator.x_scale_ for row in rows]


def _start(estimator, x, zero):
    """The baseline of a series x (1, L, d): what is missing in it is so here too."""
    start, n = x.clone(), zero.shape[-1]
    start[..., :n] = torch.from_numpy(zero).to(x)
    if estimator._alphabet is None and estimator.has_missing_:
        start[..., :n] *= x[..., n:]
    return start


def _step(estimator, at, length, series):
    if not estimator.per_step_:
        return None
    if not -length <= at < length:
        raise ValueError(f"at must be a step of the series: series {series} has {length} samples. Got at={at!r}.")
    return at % length


def _explained(estimator, model, batch, step, output):
    """The number that is explained, as a function of inputs (B, L, d): (B,)."""

    def outputs(x):
        dt, lengths = batch.get("dt"), batch["lengths"].expand(len(x))
        y, _ = model(x, None if dt is None else dt.expand(len(x), -1), lengths=lengths)
        return y if step is None else y[:, step]

    if hasattr(estimator, "classes_"):
        place, temperature = _class(estimator, output, outputs, batch), vars(estimator).get("temperature_", 1.0)

        def log_odds(x):
            y = outputs(x) / temperature
            others = torch.cat([y[:, :place], y[:, place + 1 :]], dim=1)
            return y[:, place] - others.logsumexp(dim=1)

        return log_odds
    place = 0 if output is None else output
    if not -estimator.n_outputs_ <= place < estimator.n_outputs_:
        raise ValueError(f"output must be one of the {estimator.n_outputs_} outputs. Got {output!r}.")
    place %= estimator.n_outputs_
    scale, mean = float(estimator.y_scale_[place]), float(estimator.y_mean_[place])

    def point(x):
        # Of a distribution the first of its parameters is the point that is predicted.
        y = outputs(x)
        return y[:, place * (y.shape[1] // estimator.n_outputs_)] * scale + mean

    return point


def _class(estimator, output, outputs, batch):
    if len(estimator.classes_) < 2:
        raise ValueError("the classifier knows one class only: there is nothing to explain.")
    if output is None:
        with torch.no_grad():
            return int(outputs(batch["x"]).argmax())
    place = np.flatnonzero(estimator.classes_ == output)
    if len(place) != 1:
        raise ValueError(f"output must be one of the classes {estimator.classes_.tolist()}. Got {output!r}.")
    return int(place[0])


def _integrated(f, x, start, tol, max_points):
    """Values (L, d), f(x), f(start), and what the values miss of their difference."""
    with torch.no_grad():
        answer, base = (float(f(end)) for end in (x, start))
    way, points = x - start, _FIRST
    allowed = tol * max(abs(answer - base), _floor(answer, base))
    while True:
        nodes, weights = np.polynomial.legendre.leggauss(points)
        slope = torch.zeros_like(x[0])
        size = max(1, MAX_STEPS // x.shape[1])
        for part in range(0, points, size):
            s = torch.from_numpy((nodes[part : part + size] + 1) / 2).to(x)
            w = torch.from_numpy(weights[part : part + size] / 2).to(x)
            path = (start + s[:, None, None] * way).requires_grad_()
            (gradient,) = torch.autograd.grad(f(path).sum(), path)
            slope += torch.einsum("b,bld->ld", w, gradient)
        values = (slope * way[0]).numpy()
        error = float(values.sum() - (answer - base))
        if abs(error) <= allowed or 2 * points > max_points:
            return values, answer, base, error
        points *= 2


def _floor(answer, base):
    """Differences below this are rounding."""
    return 1e-9 * (np.abs(answer) + np.abs(base)) + 1e-300
