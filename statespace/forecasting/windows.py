"""History and query times as tokens: windows of the records, normalised, each with times that are asked about.

A token is [value, observed, log gap, horizon, length of the context, covariates] and the gap before it. Tokens of the
history carry a value; a query carries none, and its gap is the time since the last observation.
"""

from typing import NamedTuple

import numpy as np
import torch

from statespace.forecasting.baseline import TRENDS, Baseline

# Channels of a token that are not covariates.
N_CHANNELS = 5
# The fewest values that training windows read, where a series has them: fewer give no scale.
_SHORTEST = 12
# Windows and queries in each by which a trend is chosen.
_N_TRIALS, _N_TRIAL_QUERIES = 512, 16


class Records(NamedTuple):
    """The observed values of several series, one after another.

    times (n,), values (n,), covariates (n, n_covariates); starts and lengths (n_series,) of each series in them.
    """

    times: np.ndarray
    values: np.ndarray
    covariates: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    @classmethod
    def join(cls, series):
        """From a list of (times, values, covariates)."""
        lengths = np.array([len(times) for times, _, _ in series])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        return cls(*(np.concatenate(part) for part in zip(*series, strict=True)), starts, lengths)

    @property
    def value_scale(self):
        """Root mean square of the series' standard deviations; 1 if all are constant."""
        parts = [self.values[a : a + n] for a, n in zip(self.starts, self.lengths, strict=True) if n]
        scale = np.sqrt(np.mean([part.var() for part in parts]))
        return float(scale) if scale > 1e-9 * np.abs(self.values).max() else 1.0


class Tokens(NamedTuple):
    """What a network reads and what its outputs mean.

    x (n_windows, n_context, d_input), dt (n_windows, n_context): the history; padded at the end with x = 0 and dt = 0.
    queries (n_queries, d_input), query_dt (n_queries,), window (n_queries,): each query and the window it follows.
    offset, scale (n_queries,): an output q stands for the value offset + scale · q.
    weight (n_queries,): 1 / (1 + horizon / span of the context), in training: far beyond a short context the baseline
    errs by hundreds of scales, and few such queries would drown the others. It depends on no value, so that
    the quantiles that are learned stay those of the values.
    """

    x: np.ndarray
    dt: np.ndarray
    queries: np.ndarray
    query_dt: np.ndarray
    window: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    weight: np.ndarray

    def tensors(self, dtype, device="cpu"):
        """What the network reads, as tensors."""
        made = {name: torch.from_numpy(getattr(self, name)).to(device, dtype) for name in _NUMBERS}
        return made | {"window": torch.from_numpy(self.window).to(device)}


_NUMBERS = ("x", "dt", "queries", "query_dt")


class WindowReader:
    """Makes tokens of windows: fits the baseline to each context and scales what it leaves.

    Parameters
    ----------
    records : Records
    trend : {"last", "mean", "linear"}
        See `Baseline`.
    time_scale : float
        The median gap of the training data.
    value_scale : float
        The scale of windows that have none of their own: those of one value.
    max_horizon : float
        The longest horizon in training.
    context_length : int
        The longest context.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.windows import Records, WindowReader
    >>> record = Records.join([(np.arange(6.0), np.arange(6.0) ** 2, np.empty((6, 0)))])
    >>> reader = WindowReader(record, "linear", 1.0, 1.0, 4.0, 4)
    >>> one = np.array([0])
    >>> tokens = reader.read(np.array([6]), np.array([4]), np.array([7.0]), np.empty((1, 0)), one)
    >>> tokens.x.shape, tokens.dt, tokens.query_dt
    ((1, 4, 5), array([[1., 1., 1., 1.]]), array([2.]))
    """

    def __init__(self, records, trend, time_scale, value_scale, max_horizon, context_length):
        self.records = records
        self.trend = trend
        self.time_scale = time_scale
        self.value_scale = value_scale
        self.max_horizon = max_horizon
        self.context_length = context_length

    def read(self, ends, lengths, times, covariates, window):
        """The tokens of windows and of queries.

        Parameters
        ----------
        ends, lengths : ndarray of shape (n_windows,)
            A window holds the ``lengths`` rows of the records before row ``ends``.
        times, covariates : ndarray of shape (n_queries,), (n_queries, n_covariates)
            When values are asked for.
        window : ndarray of shape (n_queries,)
            After which window.

        Returns
        -------
        Tokens
        """
        record = self.records
        steps = np.arange(lengths.max())
        real = steps < lengths[:, None]
        rows = np.minimum((ends - lengths)[:, None] + steps, ends[:, None] - 1)
        history = record.times[rows]
        baseline = Baseline(history, record.values[rows], record.covariates[rows], lengths, self.trend, self.time_scale)
        scale = self._scale(baseline, record.values[rows], real, lengths)
        gaps = np.diff(history, axis=1, prepend=history[:, :1] - self.time_scale) / self.time_scale
        x = np.zeros((*rows.shape, N_CHANNELS + record.covariates.shape[1]))
        x[..., 0] = baseline.residuals / scale[:, None]
        x[..., 1] = 1.0
        x[..., 2] = _log(gaps)
        x[..., N_CHANNELS:] = record.covariates[rows]
        x[~real] = 0.0
        ahead = times - record.times[ends - 1][window]
        queries = np.zeros((len(times), x.shape[2]))
        queries[:, 2] = _log(ahead / self.time_scale)
        queries[:, 3] = ahead / self.max_horizon
        queries[:, 4] = (np.log(lengths) / np.log(self.context_length + 1))[window]
        queries[:, N_CHANNELS:] = covariates
        offset = baseline(times, covariates, window)
        dt = np.where(real, gaps, 0.0)
        weight = 1 / (1 + ahead / baseline.span[window])
        return Tokens(x, dt, queries, ahead / self.time_scale, window, offset, scale[window], weight)

    def _scale(self, baseline, values, real, lengths):
        """Root mean square of what the baseline leaves, with the spread of the context as one more observation."""
        mean = (values * real).sum(axis=1) / lengths
        spread = (np.where(real, values - mean[:, None], 0.0) ** 2).sum(axis=1) / lengths
        scale = np.sqrt((lengths * baseline.scale**2 + spread) / (lengths + 1))
        known = scale > 1e-9 * np.abs(values).max(axis=1)
        return np.where(known, scale, self.value_scale)


def _log(gaps):
    """The logarithm of scaled gaps, in the range that a network reads well."""
    return np.log(np.clip(gaps, 1e-4, 1e6)) / 3


class TrainingWindows:
    """Windows drawn at random, new ones in every batch: where the history ends, how much of it is read, what is asked.

    The end is uniform over all rows that have one to follow. Half of the batches read ``context_length`` rows (or as
    many as there are), the other half fewer, log-uniformly. Queries are rows of the future up to ``max_horizon``: half
    of them uniform, half log-uniform, so that short and long horizons are learned.

    Parameters
    ----------
    reader : WindowReader
    n_windows : int
        Windows in an epoch.
    n_queries : int
        Queries after each.
    seed : int
    """

    def __init__(self, reader, n_windows, n_queries, seed):
        self.reader = reader
        self.lengths = np.full(n_windows, reader.context_length)
        self._n_queries = n_queries
        self._rng = np.random.default_rng(seed)
        record = reader.records
        self._shortest = min(_SHORTEST, reader.context_length)
        cuts = []
        for start, n in zip(record.starts, record.lengths, strict=True):
            times = record.times[start : start + n]
            ends = np.arange(min(self._shortest, n // 4 + 1), n)
            reach = np.searchsorted(times, times[ends - 1] + reader.max_horizon, side="right")
            cuts.append(np.stack([start + ends, np.full(len(ends), start), reach - ends], axis=1))
        cuts = np.concatenate(cuts)
        self._ends, self._first, self._n_ahead = cuts[cuts[:, 2] > 0].T

    @property
    def n_cuts(self):
        """Places where a window can end."""
        return len(self._ends)

    def __len__(self):
        return len(self.lengths)

    def draw(self, n_windows, full=False):
        """Tokens of new windows and the values (n_queries,) asked for; ``full``: with as much history as there is."""
        rng, record = self._rng, self.reader.records
        chosen = rng.integers(len(self._ends), size=n_windows)
        ends = self._ends[chosen]
        longest = self.reader.context_length
        length = (
            longest
            if full or rng.random() < 0.5
            else round(self._shortest * (longest / self._shortest) ** rng.random())
        )
        lengths = np.minimum(ends - self._first[chosen], length)
        ahead = self._n_ahead[chosen][:, np.newaxis]
        share = rng.random((n_windows, self._n_queries))
        share[:, ::2] = (np.power(ahead + 1.0, share[:, ::2]) - 1) / ahead
        rows = (ends[:, np.newaxis] + np.minimum((share * ahead).astype(np.int64), ahead - 1)).ravel()
        window = np.repeat(np.arange(n_windows), self._n_queries)
        tokens = self.reader.read(ends, lengths, record.times[rows], record.covariates[rows], window)
        return tokens, record.values[rows]

    def batch(self, indices):
        """New windows, as many as there are indices: what the network reads, scaled values ``y`` and their weights."""
        tokens, values = self.draw(len(indices))
        y = (values - tokens.offset) / tokens.scale
        targets = {"y": torch.from_numpy(y), "weight": torch.from_numpy(tokens.weight)}
        return tokens.tensors(torch.float32) | {name: value.to(torch.float32) for name, value in targets.items()}


def best_trend(make_reader, seed):
    """The trend whose baseline alone forecasts random windows with the least absolute error.

    Parameters
    ----------
    make_reader : callable
        trend -> WindowReader.
    seed : int
    """
    errors, scale = [], None
    for trend in TRENDS:
        windows = TrainingWindows(make_reader(trend), _N_TRIALS, _N_TRIAL_QUERIES, seed)
        if windows.n_cuts == 0:
            return "last"
        tokens, values = windows.draw(_N_TRIALS, full=True)
        scale = tokens.scale if scale is None else scale
        errors.append(np.mean(np.abs(values - tokens.offset) / scale))
    return TRENDS[int(np.argmin(errors))]
