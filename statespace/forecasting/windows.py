"""History and query times as tokens: windows of the records, normalised, each with times that are asked about.

A token is [value, observed, log gap, horizon, length of the context, level, scale, covariates] and the gap before it.
Tokens of the history carry a value; a query carries none, and its gap is the time since the last observation.

    start                         anchor             end
      | ── the baseline's samples ── | ── read on ── |

A forecast from the ``end`` of the data reads the window [start, end). Its values are normalised by the baseline of
[start, anchor), and start and anchor are the same for all ends of a stretch (`place`): so the network's state at one
end is the state at the next after one more step. What is asked is answered about the baseline of all of [start, end),
and a query says how far that one has moved from the other.
"""

from typing import NamedTuple

import numpy as np
import torch

from statespace.forecasting.baseline import TRENDS, Baseline

# Channels of a token that are not covariates.
N_CHANNELS = 7
# The fewest values that training windows read, where a series has them: fewer give no scale.
_SHORTEST = 12
# Windows and queries in each by which a trend is chosen.
_N_TRIALS, _N_TRIAL_QUERIES = 512, 16


def place(lengths, context_length):
    """Where the windows start and have their anchors that end after so many samples of a series.

    Anchors are 1, 2, 4, ... and then the multiples of a quarter of ``context_length``. A window holds no more than
    ``context_length`` samples, and at least three quarters of that where the series has them.

    Parameters
    ----------
    lengths : ndarray of int, shape (n,)
        1 at least.
    context_length : int

    Returns
    -------
    starts, anchors : ndarray of int, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.windows import place
    >>> place(np.array([1, 3, 7, 11, 12, 40]), context_length=16)
    (array([ 0,  0,  0,  0,  0, 27]), array([ 1,  2,  4,  8, 12, 40]))
    """
    stretch = -(-context_length // 4)
    anchors = np.where(lengths < stretch, 1 << np.log2(lengths).astype(np.int64), lengths // stretch * stretch)
    return np.maximum(anchors - (context_length - stretch + 1), 0), anchors


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

    def first(self, lengths):
        """The first ``lengths`` (n_series,) samples of each series alone."""
        rows = np.concatenate([start + np.arange(n) for start, n in zip(self.starts, lengths, strict=True)])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        return Records(self.times[rows], self.values[rows], self.covariates[rows], starts, lengths)

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
    n_constant : int, default=0
        How many covariates, the last ones, are constant in a series: the baseline does not read them.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.windows import Records, WindowReader
    >>> record = Records.join([(np.arange(6.0), np.arange(6.0) ** 2, np.empty((6, 0)))])
    >>> reader = WindowReader(record, "linear", 1.0, 1.0, 4.0, 4)
    >>> one = np.array([0])
    >>> tokens = reader.read(np.array([2]), np.array([5]), np.array([6]), np.array([7.0]), np.empty((1, 0)), one)
    >>> tokens.x.shape, tokens.dt, tokens.query_dt
    ((1, 4, 7), array([[1., 1., 1., 1.]]), array([2.]))
    """

    def __init__(self, records, trend, time_scale, value_scale, max_horizon, context_length, n_constant=0):
        self.records = records
        self.trend = trend
        self.time_scale = time_scale
        self.value_scale = value_scale
        self.max_horizon = max_horizon
        self.context_length = context_length
        self.n_baseline = records.covariates.shape[1] - n_constant

    def read(self, starts, anchors, ends, times, covariates, window):
        """The tokens of windows and of queries.

        Parameters
        ----------
        starts, anchors, ends : ndarray of shape (n_windows,)
            Rows of the records.
        times, covariates : ndarray of shape (n_queries,), (n_queries, n_covariates)
            When values are asked for.
        window : ndarray of shape (n_queries,)
            After which window.

        Returns
        -------
        Tokens
        """
        windows = self.open(starts, anchors, np.arange(len(ends)), ends)
        return Tokens(*windows.tokens(starts, ends), *windows.ask(times, covariates, window))

    def open(self, starts, anchors, window, ends):
        """Windows [start, end) with their baselines; several ends may share start and anchor.

        Parameters
        ----------
        starts, anchors : ndarray of shape (n_windows,)
        window, ends : ndarray of shape (n_ends,)
            Each end, and which of the windows it is an end of.

        Returns
        -------
        Windows
        """
        return Windows(self, starts, anchors, window, ends)


class Windows:
    """Open windows: tokens of any of their rows, and queries after any of their ends; see `WindowReader.open`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.windows import Records, WindowReader
    >>> record = Records.join([(np.arange(6.0), np.arange(6.0) ** 2, np.empty((6, 0)))])
    >>> reader = WindowReader(record, "last", 1.0, 1.0, 4.0, 4)
    >>> windows = reader.open(np.array([0]), np.array([3]), np.array([0, 0]), np.array([3, 5]))
    >>> x, dt = windows.tokens(np.array([0]), np.array([5]))
    >>> x.shape, windows.ask(np.array([7.0]), np.empty((1, 0)), np.array([1]))[3]
    ((1, 5, 7), array([16.]))
    """

    def __init__(self, reader, starts, anchors, window, ends):
        self._reader, self._starts, self._ends, self.window = reader, starts, ends, window
        rows, _ = _gathered(starts, anchors)
        self._anchored = self._baseline(rows, anchors - starts)
        self._scale = self._scales(self._anchored, anchors - starts)
        last = anchors.copy()
        np.maximum.at(last, window, ends)
        rows, _ = _gathered(anchors, last)
        record = reader.records
        covariates = self._known(record.covariates[rows])
        self._current = self._anchored.extended(
            record.times[rows], record.values[rows], covariates, window, ends - anchors[window]
        )
        self._current_scale = self._scales(self._current, ends - starts[window])

    def _known(self, covariates):
        return covariates[..., : self._reader.n_baseline]

    def _baseline(self, rows, lengths):
        reader, record = self._reader, self._reader.records
        covariates = self._known(record.covariates[rows])
        return Baseline(record.times[rows], record.values[rows], covariates, lengths, reader.trend, reader.time_scale)

    def _scales(self, baseline, lengths):
        """Root mean square of what the baseline leaves, with the spread of the context as one more observation."""
        scale = np.sqrt((lengths * baseline.scale**2 + baseline.spread) / (lengths + 1))
        return np.where(scale > 1e-9 * baseline.largest, scale, self._reader.value_scale)

    def tokens(self, begin, end, chosen=None):
        """The tokens of rows ``begin`` to ``end`` of each window, or of the windows ``chosen``; padded with zeros.

        Returns
        -------
        x : ndarray of shape (n_windows, n, d_input)
        dt : ndarray of shape (n_windows, n)
        """
        reader, record = self._reader, self._reader.records
        chosen = np.arange(len(begin)) if chosen is None else chosen
        rows, real = _gathered(begin, end)
        times, covariates = record.times[rows], record.covariates[rows]
        # Before a window's first value the gap is not known.
        before = record.times[np.maximum(rows - 1, 0)]
        first = rows == self._starts[chosen][:, np.newaxis]
        gaps = np.where(first, 1.0, (times - before) / reader.time_scale)
        x = np.zeros((*rows.shape, N_CHANNELS + covariates.shape[2]))
        level = self._anchored(times, self._known(covariates), chosen[:, np.newaxis])
        x[..., 0] = (record.values[rows] - level) / self._scale[chosen][:, np.newaxis]
        x[..., 1] = 1.0
        x[..., 2] = _log(gaps)
        x[..., N_CHANNELS:] = covariates
        x[~real] = 0.0
        return x, np.where(real, gaps, 0.0)

    def ask(self, times, covariates, end):
        """Queries at ``times`` (n_queries,) after the ends of these numbers: `Tokens`' fields from ``queries`` on."""
        reader, record = self._reader, self._reader.records
        window, last = self.window[end], record.times[self._ends - 1][end]
        known, ahead = self._known(covariates), times - last
        lengths = (self._ends - self._starts[self.window])[end]
        offset, scale = self._current(times, known, end), self._current_scale[end]
        queries = np.zeros((len(times), N_CHANNELS + covariates.shape[1]))
        queries[:, 2] = _log(ahead / reader.time_scale)
        queries[:, 3] = ahead / reader.max_horizon
        queries[:, 4] = np.log(lengths) / np.log(reader.context_length + 1)
        # Where the answer's frame lies in the frame that the values were read in.
        queries[:, 5] = np.arcsinh((offset - self._anchored(times, known, window)) / self._scale[window])
        queries[:, 6] = np.log(scale / self._scale[window])
        queries[:, N_CHANNELS:] = covariates
        span = np.maximum(last - record.times[self._starts[window]], reader.time_scale)
        return queries, ahead / reader.time_scale, end, offset, scale, 1 / (1 + ahead / span)


def _gathered(begin, end):
    """Rows ``begin`` to ``end`` of each window, padded at the end with its last; and which of them are real."""
    steps = np.arange(max(0, (end - begin).max()))
    rows = np.minimum(begin[:, np.newaxis] + steps, end[:, np.newaxis] - 1)
    return rows, steps < (end - begin)[:, np.newaxis]


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

    def state_dict(self):
        """Where the drawing of windows stands, in JSON's types."""
        return self._rng.bit_generator.state

    def load_state_dict(self, state):
        """Go on drawing from there."""
        self._rng.bit_generator.state = state

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
        lengths = ends - self._first[chosen]
        if length < longest:
            lengths = np.minimum(lengths, length)
        starts, anchors = place(lengths, longest)
        ahead = self._n_ahead[chosen][:, np.newaxis]
        share = rng.random((n_windows, self._n_queries))
        share[:, ::2] = (np.power(ahead + 1.0, share[:, ::2]) - 1) / ahead
        rows = (ends[:, np.newaxis] + np.minimum((share * ahead).astype(np.int64), ahead - 1)).ravel()
        window = np.repeat(np.arange(n_windows), self._n_queries)
        begin = ends - lengths
        tokens = self.reader.read(
            begin + starts, begin + anchors, ends, record.times[rows], record.covariates[rows], window
        )
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
