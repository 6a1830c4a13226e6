"""A fitted Kalman model one sample at a time: constant time and memory for each, equal to filtering the whole."""

import math

import numpy as np

from statespace.forms import as_floats
from statespace.kalman.binding import State
from statespace.streaming.clock import StreamClock, rounded, ticks
from statespace.streaming.files import exported, imported
from statespace.streaming.filter import Filters, Moment
from statespace.streaming.window import Window


class KalmanStream:
    """The filtered signal, sample by sample.

    Each `step` advances the state by the gap, x ← A(Δ) x + w, and conditions it on the new sample; it equals the
    filter over all samples so far. Made by `KalmanRegressor.stream`; it holds copies, so that the regressor is not
    changed, and shares nothing with other streams, so that each may live in a thread of its own. ``copy.deepcopy``
    branches it, and `save` writes it to a file from which it goes on as if nothing had happened.

    With a ``lag`` it keeps the samples of that last stretch of time. A sample that comes late is then put in its place:
    from there on the stream is what it would be had the sample come in time.

    Parameters
    ----------
    posterior : Posterior
        The fitted process with its data.
    noise : float or None
        The noise variance of new samples; None if each sample must come with its own.
    single : bool
        Whether samples are numbers, rather than arrays of shape (n_outputs,).
    from_prior : bool
        Start a new series, rather than at the end of the data.
    include_noise : bool
        Whether the standard deviations are those of a new observation at this time, rather than of the signal.
    family : StudentT or Huber, optional
        Noise that is not normal: each sample then gets a weight by its innovation.
    lag : float or timedelta, optional
        How late a sample may come, behind the latest.
    late : {"raise", "ignore"}, default="raise"
        What to do with a sample that is later than that.
    zoned : bool, optional
        Whether the datetimes of `fit` had a time zone, as those of the samples must then have.

    Attributes
    ----------
    n_steps : int
        Samples taken so far, without those of `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel(variance=1.0), noise_variance=1.0, optimizer=None)
    >>> stream = gp.fit([[0.0], [1.0]], [1.0, 2.0]).stream()
    >>> mean, std = stream.step(2.5, dt=0.2)
    >>> mean_later, std_later = stream.step(np.nan, dt=3.0)
    >>> mean == mean_later, std < std_later
    (True, True)
    """

    def __init__(
        self, posterior, noise, *, single, from_prior, include_noise, family=None, lag=None, late="raise", zoned=None
    ):
        if late not in ("raise", "ignore"):
            raise ValueError(f"late must be 'raise' or 'ignore'. Got {late!r}.")
        record, scale = posterior.record, posterior.scale
        fresh = from_prior or len(record.times) == 0
        clock = StreamClock.of(record.times, posterior.unit, scale.time, fresh=fresh, zoned=zoned)
        self._model = posterior.process, scale, posterior.unit, posterior.backend
        self._settings = {
            "noise": None if noise is None else noise / scale.value**2,
            "single": single,
            "include_noise": include_noise,
            "late": late,
            "family": None if family is None else family.description,
        }
        if lag is not None:
            lag = clock.in_ticks(lag)
            if not 0 <= lag < math.inf:
                raise ValueError(f"lag must be finite and >= 0: how late a sample may come. Got {lag}.")
        self._clock, self.n_steps, self._n_covariates = clock, 0, record.covariates.shape[1]
        # The end of the record, behind which a sample may be late already.
        times = None if lag is None or fresh else ticks(record.times)
        tail = 0 if times is None else int((times >= clock.now - lag).sum())
        if fresh:
            mean, covariance, diffuse = posterior.scaled.initial()
            start = State(mean, covariance, diffuse * posterior.process.diffuse_scale(scale))
            offset = 0.0 if posterior.level is None else math.nan
            moment = Moment((start,) * record.y.shape[1], (offset,) * record.y.shape[1])
        else:
            moment = Moment(tuple(posterior.last_states(tail)), tuple(posterior.offset[0].tolist()))
        self._filters = Filters(posterior.scaled, scale.value, moment, posterior.backend, family)
        self._window = None
        if lag is not None:
            before = clock.now if not tail else times[-tail - 1].item() if tail < len(times) else None
            self._window = Window(self._filters, clock, lag, before)
        if tail:
            self._take_again(posterior, times, tail)

    def _take_again(self, posterior, times, tail):
        """The last samples of the record, to keep them."""
        record, noise = posterior.record, posterior.given_noise / posterior.scale.value**2
        binding = posterior._binding(record.times, record.covariates)
        gaps = binding.gaps
        for k in range(len(times) - tail, len(times)):
            own = noise[k].tolist() if np.ndim(noise) else noise
            row = binding.rows[k] if binding.rows.ndim == 2 else None
            values, gap = record.y[k].tolist(), gaps[k].item()
            self._filters.step(values, gap, own, row)
            self._window.add(times[k].item(), gap, values, own, row)

    def step(self, y_t, dt=None, x=None, noise_variance=None, time=None):
        """Advance by ``dt``, or to ``time``, and take a sample.

        Parameters
        ----------
        y_t : float or array-like of shape (n_outputs,)
            NaN only predicts.
        dt : float or timedelta, optional
            The time since the sample before, >= 0, in the unit of the fitted times (``time_unit`` for datetimes).
            None is the median gap of the data of `fit`. Before the first sample of a new series there is no gap, and
            dt is not used.
        x : array-like of shape (n_covariates,), optional
            The covariates, where the model has some.
        noise_variance : float or array-like of shape (n_outputs,), optional
            The known variance of this sample's noise; needed where `fit` was given that of each sample.
        time : float or datetime, optional
            When the sample was taken, in the place of ``dt``. With a ``lag`` it may lie before that of the latest.

        Returns
        -------
        mean, std : float or ndarray of shape (n_outputs,)
            Of the signal at the latest time, given all samples up to this one.

        Raises
        ------
        ValueError
            For a gap that is negative or not finite, a time that is too late, an infinite y_t, or other covariates or
            outputs than in `fit`.
        """
        if dt is not None and time is not None:
            raise ValueError("give dt or time, not both.")
        clock, filters = self._clock, self._filters
        x = self._checked_covariates(x) if self._n_covariates else None
        noise = self._checked_noise(noise_variance)
        values = [float(value) for value in ((y_t,) if self._settings["single"] else np.ravel(y_t))]
        if len(values) != len(filters):
            raise ValueError(f"y_t must have {len(filters)} outputs, as y had in fit. Got {len(values)}.")
        for value in values:
            if math.isinf(value):
                raise ValueError(f"y_t must be finite, or NaN where it is missing. Got {value}.")
        gap, at = clock.after(dt) if time is None else clock.at(time)
        row = None if self._fixed else self._rows(x, [at])[0]
        if gap < 0.0:
            self._take_late(at, values, noise, row)
        else:
            clock.now = at
            filters.step(values, gap, noise, row)
            if self._window is not None:
                self._window.add(at, gap, values, noise, row)
        self.n_steps += 1
        return self._answer(*filters.moments(self._added()))

    @property
    def _fixed(self):
        """Whether H is the same for every sample."""
        return not (self._n_covariates or self._filters.process.uses_times)

    def _rows(self, x, times):
        """H at covariates (k, c) and at times on the scale of the clock; None where it does not vary."""
        if self._fixed:
            return None
        process, scale = self._filters.process, self._model[1]
        since = None
        if process.uses_times:
            if not self._clock.absolute:
                raise ValueError(f"{self._model[0]!r} has events in time: give time= from the first sample on.")
            since = (np.asarray(times) - scale.origin) / self._clock.in_scale
        rows = process.rows(None if x is None else np.reshape(x, (len(times), -1)), since)
        return np.array(np.broadcast_to(rows, (len(times), len(self._filters.row))))

    def _take_late(self, time, values, noise, row):
        clock, window = self._clock, self._window
        if window is None:
            raise ValueError(
                f"time must not decrease: {clock.show(time)} follows {clock.show(clock.now)}. "
                "A stream that takes late samples is made by stream(lag=...)."
            )
        if window.reaches(time):
            window.insert(time, values, noise, row)
        elif self._settings["late"] == "raise":
            raise ValueError(
                f"this sample is later than the lag: {clock.show(time)} follows {clock.show(clock.now)}. Make the "
                "stream with a longer lag, or with late='ignore'."
            )

    def extend(self, y, dt=None, x=None, noise_variance=None, times=None):
        """Take a block of samples: as `step` for each, but at the speed of the compiled filter.

        Parameters
        ----------
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        dt : float, or array-like of shape (n_samples,), optional
            The gap before each sample, as in `step`.
        x : array-like of shape (n_samples, n_covariates), optional
        noise_variance : float, or array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        times : array-like of shape (n_samples,), optional
            When the samples were taken, in the place of ``dt``; in order, and none before the latest so far.

        Returns
        -------
        mean, std : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            What `step` would have returned for each.

        Raises
        ------
        ValueError
            As in `step`. The stream then stands where it stood.
        """
        filters, clock, settings = self._filters, self._clock, self._settings
        y = as_floats(y, "y")
        expected = (len(y),) if settings["single"] else (len(y), len(filters))
        if y.shape != expected or np.isinf(y).any():
            raise ValueError(f"y must be finite or NaN, of shape {expected}. Got an array of shape {y.shape}.")
        if len(y) == 0:
            return y.copy(), y.copy()
        y = y.reshape(len(y), -1)
        if x is not None or self._n_covariates:
            x = np.asarray(np.nan if x is None else x, dtype=float)
            if x.shape != (len(y), self._n_covariates) or not np.isfinite(x).all():
                raise ValueError(f"x must be finite, of shape {(len(y), self._n_covariates)}. Got {x.shape}.")
        noise = (
            settings["noise"] if noise_variance is None else np.asarray(noise_variance, float) / self._variance_unit()
        )
        if noise is None:
            raise ValueError("extend needs noise_variance: fit was given that of each known sample only.")
        if np.shape(noise) not in ((), y.shape[:1], y.shape) or not np.all((noise >= 0) & np.isfinite(noise)):
            raise ValueError("noise_variance must be finite and >= 0: a number, or one for each sample.")
        noise = float(noise) if np.ndim(noise) == 0 else np.broadcast_to(noise.reshape(len(y), -1), y.shape)
        gaps, ends = self._block_gaps(len(y), dt, times)
        rows = self._rows(x, ends)
        kept = 0 if self._window is None else int((ends >= ends[-1] - self._window.lag).sum()) + 1
        head = max(len(y) - kept, 0) if self._window is not None else len(y)
        mean, std = np.empty(y.shape), np.empty(y.shape)
        added = self._added()
        if head:
            part = None if rows is None else rows[:head]
            mean[:head], std[:head] = filters.extend(y[:head], gaps[:head], _first(noise, head), part, added)
            if self._window is not None:
                self._window = Window(filters, clock, self._window.lag, ends[head - 1].item())
        for k in range(head, len(y)):
            values, own = y[k].tolist(), noise if isinstance(noise, float) else noise[k].tolist()
            row = None if rows is None else rows[k]
            filters.step(values, float(gaps[k]), own, row)
            self._window.add(ends[k].item(), float(gaps[k]), values, own, row)
            mean[k], std[k] = filters.moments(added)
        clock.now = ends[-1].item()
        self.n_steps += len(y)
        return (mean[:, 0], std[:, 0]) if settings["single"] else (mean, std)

    def _block_gaps(self, n, dt, times):
        """Gaps in scaled units, and times on the scale of the clock."""
        clock = self._clock
        if times is not None:
            if dt is not None:
                raise ValueError("give dt or times, not both.")
            if len(times) != n:
                raise ValueError(f"times must have one entry for each of the {n} samples. Got {len(times)}.")
            return clock.read_all(times)
        if np.ndim(dt) == 0:
            lengths = np.full(n, clock.scale if dt is None else clock.length(dt))
        else:
            lengths = np.array([clock.length(gap) for gap in dt]) if np.asarray(dt).dtype.kind in "mO" else np.array(dt)
        if lengths.shape != (n,) or not ((lengths >= 0) & np.isfinite(lengths)).all():
            raise ValueError(f"dt must be finite and >= 0: a number, or one for each of the {n} samples.")
        steps = lengths.astype(float) if clock.kind == "numbers" else np.rint(lengths * clock._tick).astype(np.int64)
        if clock.now is None:
            lengths[0], steps[0] = 0.0, 0
        return rounded(lengths / clock.scale), np.cumsum(steps) + (0 if clock.now is None else clock.now)

    def smoothed(self, lag=None, x=None):
        """The signal some time ago, given all samples so far: the fixed-lag smoother.

        Parameters
        ----------
        lag : float or timedelta, optional
            How long before the latest sample, at most the stream's own lag, which is the default.
        x : array-like of shape (n_covariates,), optional
            The covariates at that time, where the model has some.

        Returns
        -------
        mean, std : float or ndarray of shape (n_outputs,)

        Raises
        ------
        ValueError
            If the stream has no lag or a shorter one, or has taken no sample.
        """
        window, clock = self._window, self._clock
        if window is None:
            raise ValueError("a stream that smooths is made by stream(lag=...).")
        back = window.lag if lag is None else clock.in_ticks(lag)
        if not 0 <= back <= window.lag:
            raise ValueError(f"lag must lie between 0 and that of the stream. Got {lag}.")
        if clock.now is None:
            raise ValueError("there is nothing to smooth yet: take a sample first.")
        x = self._checked_covariates(x) if self._n_covariates else None
        row = None if self._fixed else self._rows(x, [clock.now - back])[0]
        means, variances = window.smoothed(clock.now - back, row)
        unit = self._filters.value_scale
        return self._answer(means, [math.sqrt(variance + self._added()) * unit for variance in variances])

    def _answer(self, means, deviations):
        if self._settings["single"]:
            return means[0], deviations[0]
        return np.array(means), np.array(deviations)

    def _added(self):
        if not self._settings["include_noise"]:
            return 0.0
        family = self._filters.family
        return self._settings["noise"] * (1.0 if family is None else family.variance)

    def _variance_unit(self):
        return self._filters.value_scale**2

    def _checked_noise(self, given):
        noise = self._settings["noise"] if given is None else given
        if noise is None:
            raise ValueError("step needs noise_variance: fit was given that of each known sample only.")
        if given is None:
            return noise
        unit = self._variance_unit()
        each = [float(value) / unit for value in np.ravel(given)]
        if len(each) not in (1, len(self._filters)) or not all(0.0 <= value < math.inf for value in each):
            raise ValueError(f"noise_variance must be finite and >= 0, one for each output. Got {given}.")
        return each[0] if np.ndim(given) == 0 else each * (len(self._filters) // len(each))

    def _checked_covariates(self, x):
        n = self._n_covariates
        covariates = np.asarray(np.nan if x is None else x, dtype=float)
        if covariates.size != n or not np.isfinite(covariates).all():
            raise ValueError(f"x must be {n} finite covariates, as in fit. Got {x!r}.")
        return covariates.ravel()

    # Files.

    def save(self, path):
        """Write the stream to one safetensors file; ``statespace.load(path)`` goes on from it.

        The answers of a stream that was loaded are those of one that was never stored, bit by bit.

        Parameters
        ----------
        path : str or os.PathLike
            The file, replaced as a whole if it exists.

        Raises
        ------
        TypeError
            The process is not made of this package's own components.

        Examples
        --------
        >>> import os, tempfile, statespace
        >>> from statespace.kalman import LocalLevel
        >>> stream = statespace.KalmanRegressor(LocalLevel()).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 1.5]).stream()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     stream.save(os.path.join(folder, "stream"))
        ...     again = statespace.load(os.path.join(folder, "stream"))
        >>> again.step(1.0, dt=0.5) == stream.step(1.0, dt=0.5)
        True
        """
        from statespace import persistence

        persistence.save(self, path)

    def _export(self):
        """What `statespace.persistence.save` writes: a dict that JSON can hold, and arrays."""
        return exported(self)

    @classmethod
    def _import(cls, state, arrays):
        """The stream that `_export` described."""
        return imported(cls, state, arrays)


def _first(noise, n):
    return noise if isinstance(noise, float) else noise[:n]
