"""A process given the samples of a record: likelihood, smoothing at other times, joint covariance, draws."""

from typing import NamedTuple

import numpy as np

from statespace.kalman.binding import Binding, State
from statespace.kalman.joint import joint_covariance
from statespace.kalman.level import find_level
from statespace.kalman.likelihood import Likelihood
from statespace.kernels.kalman_filter import discretize_blocks
from statespace.times import gaps

# Gaps whose matrices are held at once while a path is drawn.
_CHUNK = 4096
# Gaps this near to a multiple of the median gap, in proportion, are that multiple but for rounding.
_ROUNDED = 1e-9


class Record(NamedTuple):
    """The samples that were seen: one series in the order of time, or several, one after the other.

    Attributes
    ----------
    times : ndarray of shape (n,)
        float64, datetime64[ns] or timedelta64[ns]; not decreasing within a series.
    covariates : ndarray of shape (n, c)
    y : ndarray of shape (n, m)
        NaN where missing.
    noise : float, ndarray of shape (n,) or (n, m), or None
        Known variances of the noise; None where one noise variance is a parameter.
    starts : ndarray of int64, shape (n_series + 1,), or None
        Where each series starts, and the end; None for one series.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.posterior import Record
    >>> times = np.array([0.0, 1.0, 2.0, 0.5, 0.7])
    >>> record = Record(times, np.zeros((5, 0)), np.ones((5, 1)), None, np.array([0, 3, 5]))
    >>> record.series
    array([0, 0, 0, 1, 1])
    >>> record.one(1).times
    array([0.5, 0.7])
    """

    times: np.ndarray
    covariates: np.ndarray
    y: np.ndarray
    noise: float | np.ndarray | None
    starts: np.ndarray | None = None

    @property
    def n_series(self):
        """The number of series."""
        return 1 if self.starts is None else len(self.starts) - 1

    @property
    def series(self):
        """ndarray of shape (n,): the series of each sample."""
        if self.starts is None:
            return np.zeros(len(self.times), dtype=np.intp)
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def take(self, samples):
        """Some of the samples, as one series."""
        noise = self.noise[samples] if np.ndim(self.noise) else self.noise
        return Record(self.times[samples], self.covariates[samples], self.y[samples], noise)

    def one(self, series):
        """One of the series, which has no samples if it is none of them."""
        if self.starts is None and series == 0:
            return self
        known = self.starts is not None and series < self.n_series
        return self.take(slice(*self.starts[series : series + 2]) if known else slice(0, 0))

    def means(self):
        """ndarray of shape (n_series, m): the mean of what was observed; 0 where nothing was."""
        seen = np.isfinite(self.y)
        series = self.series
        shape = self.n_series, self.y.shape[1]
        totals, counts = np.zeros(shape), np.zeros(shape)
        for k in range(shape[1]):
            counts[:, k] = np.bincount(series, seen[:, k], minlength=shape[0])
            totals[:, k] = np.bincount(series, np.where(seen[:, k], self.y[:, k], 0.0), minlength=shape[0])
        return totals / np.maximum(counts, 1)


class Posterior:
    """A process and a noise variance, given a record. What goes in and comes out is in the data's units.

    Inside, y is measured in ``scale.value`` and time in ``scale.time`` (see `statespace.kalman.binding`), which takes
    nothing from the result but a constant of the likelihood. Where the process absorbs a constant (`find_level`), the
    mean of each series is taken from y first, so that no digits are lost to it.

    Parameters
    ----------
    process : Component
        Resolved, in the data's units.
    noise : float or ndarray of shape (n,) or (n, m)
        The noise variance of the record's samples.
    record : Record
    scale : Scale
    unit : str
        The unit of time for datetimes.
    backend : str, optional
    weights : ndarray of shape (n, m), optional
        Of noise with heavy tails (`statespace.kalman.robust`): the samples' noise variances are ``noise / weights``.

    Attributes
    ----------
    noise, given_noise : float or ndarray
        The noise variances with the weights, and without.
    scaled : Component
        The process in scaled units.
    scaled_noise : float or ndarray
        The noise in scaled units.
    level : int or None
        The component that absorbs a constant.
    offset : ndarray of shape (n_series, m)
        What was taken from y.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.scale import Scale
    >>> from statespace.kalman.posterior import Posterior, Record
    >>> record = Record(np.arange(3.0), np.zeros((3, 0)), np.array([[1.0], [2.0], [4.0]]), None)
    >>> posterior = Posterior(LocalLevel(variance=1.0), 1.0, record, Scale(1.0, 1.0, 2.0), "D")
    >>> mean, variance = posterior.at(np.array([1.5]), np.zeros((1, 0)))
    >>> mean.shape
    (1, 1, 1)
    """

    def __init__(self, process, noise, record, scale, unit, backend=None, weights=None):
        self.process, self.record, self.given_noise, self.weights = process, record, noise, weights
        self.noise = noise if weights is None else (noise[:, np.newaxis] if np.ndim(noise) == 1 else noise) / weights
        self.scale, self.unit, self.backend = scale, unit, backend
        self.scaled = process.rescaled(scale)
        self.scaled_noise = self.noise / scale.value**2
        self.level = find_level(self.scaled)
        self.offset = np.zeros((record.n_series, record.y.shape[1])) if self.level is None else record.means()

    def one(self, series):
        """The same process, given one of the series; or none, if it is not known."""
        record = self.record.one(series)
        noise = self.given_noise if np.ndim(self.given_noise) == 0 else record.noise
        weights = self.weights
        if weights is not None and record is not self.record:
            known = self.record.starts is not None and series < self.record.n_series
            weights = weights[slice(*self.record.starts[series : series + 2])] if known else weights[:0]
        return Posterior(self.process, noise, record, self.scale, self.unit, self.backend, weights)

    @property
    def scaled_y(self):
        """ndarray of shape (n, m): y as the filter sees it."""
        offset = self.offset[0] if self.record.starts is None else self.offset[self.record.series]
        return (self.record.y - offset) / self.scale.value

    def _binding(self, times, covariates, starts=None):
        scaled = gaps(times, unit=self.unit) / self.scale.time
        if starts is not None:
            scaled[starts[:-1]] = 0.0
        # 0.3 − 0.2 is not 0.1 in floats: on a regular grid every gap would be another one, to the filter at a cost.
        whole = np.rint(scaled)
        scaled = np.where(np.abs(scaled - whole) <= _ROUNDED * whole, whole, scaled)
        since = self.scale.elapsed(times) / self.scale.time if self.scaled.uses_times else None
        return Binding(self.scaled, scaled, covariates, self.backend, starts, since)

    def likelihood(self):
        """The likelihood in scaled units, and the constant that makes it that of the data as they are.

        Returns
        -------
        likelihood : Likelihood
        constant : float
        """
        record, y = self.record, self.scaled_y
        known = None if record.noise is None else self.scaled_noise
        binding = self._binding(record.times, record.covariates, record.starts)
        # A diffuse direction of the data's own units, in scaled ones; that of y itself comes with the constant.
        binding.widen(self.process.diffuse_scale(self.scale))
        n_diffuse = binding.initial.diffuse.shape[1] * record.n_series
        counted = 0
        for k, column in enumerate(y.T):
            counted += np.isfinite(column).sum() - n_diffuse + binding.n_open(column, of_output(self.scaled_noise, k))
        return Likelihood(self.scaled, [(binding, y, known)]), -counted * np.log(self.scale.value)

    def _merged(self, times, covariates, series=None):
        """The record and the new rows in one order of series and time; where the new rows stand in it; their offset."""
        record, y, noise, offset = self.record, self.scaled_y, self.scaled_noise, self.offset
        if record.starts is None:
            kept, own, series = slice(None), np.zeros(len(record.times), dtype=np.intp), np.zeros(len(times), np.intp)
        else:
            own = record.series
            wanted = np.zeros(max(record.n_series, series.max() + 1), dtype=bool)
            wanted[series] = True
            kept = np.flatnonzero(wanted[own])
            own = own[kept]
            offset = np.concatenate([offset, np.zeros((len(wanted) - len(offset), y.shape[1]))])
        place = self._found_in_record(kept, own, times, covariates, series)
        if place is not None:
            starts = None if record.starts is None else _starts(own)
            noise = noise[kept] if np.ndim(noise) else noise
            binding = self._binding(record.times[kept], record.covariates[kept], starts)
            return binding, y[kept], noise, place, offset[series]
        everything = np.concatenate([record.times[kept], times])
        every_series = np.concatenate([own, series])
        order = np.lexsort((everything, every_series))
        n, place = len(own), np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        merged = np.full((len(order), y.shape[1]), np.nan)
        merged[place[:n]] = y[kept]
        if np.ndim(noise):
            given, noise = noise[kept], np.ones((len(order), *noise.shape[1:]))
            noise[place[:n]] = given
        starts = None if record.starts is None else _starts(every_series)
        everywhere = np.concatenate([record.covariates[kept], covariates])[order]
        return self._binding(everything[order], everywhere, starts), merged, noise, place[n:], offset[series]

    def _found_in_record(self, kept, own, times, covariates, series):
        """Where the rows stand in the record, if they are its rows, as when it is smoothed; None if they are others."""
        record = self.record
        if len(times) != len(own) or len(times) == 0:
            return None
        order = np.lexsort((times, series))
        pairs = [(times, record.times[kept]), (series, own), (covariates, record.covariates[kept])]
        if not all(np.array_equal(asked[order], known) for asked, known in pairs):
            return None
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        return place

    def _signal(self, binding):
        rows = binding.rows
        return rows[np.newaxis] if rows.ndim == 1 else rows[:, np.newaxis, :]

    def _parts(self, binding):
        """The readout of each component: its own part of the rows H, zero elsewhere."""
        components = self.scaled.named()
        part = np.repeat(np.arange(len(components)), [component.n_states for _, component in components])
        own = part == np.arange(len(components))[:, np.newaxis]
        return np.where(own, binding.rows[..., np.newaxis, :], 0.0)

    def at(self, times, covariates, components=False, series=None):
        """Means and variances of the signal, or of each component, at other rows.

        Parameters
        ----------
        times : ndarray of shape (n,)
            In any order.
        covariates : ndarray of shape (n, c)
        components : bool, default=False
        series : ndarray of int, shape (n,), optional
            The series of each row, where the record has several. One that the record does not have has no data.

        Returns
        -------
        mean, variance : ndarray of shape (n, r, m)
            For r = 1, or for the r components, and the m outputs.
        """
        binding, y, noise, place, offset = self._merged(times, covariates, series)
        readout = self._parts(binding) if components else self._signal(binding)
        level = self.level if components else 0
        means, variances = [], []
        for k, column in enumerate(y.T):
            mean, variance = binding.smooth(column, of_output(noise, k), readout)
            mean, variance = mean[place] * self.scale.value, variance[place] * self.scale.value**2
            if level is not None:
                mean[:, level] += offset[:, k]
            means.append(mean)
            variances.append(np.maximum(variance, 0.0))
        return np.stack(means, axis=-1), np.stack(variances, axis=-1)

    def joint_covariance(self, times, covariates):
        """The covariance of the signal between all other rows, of shape (n, n, m), in one sweep over the record.

        Infinite on the diagonal, and NaN beside it, where the record leaves the signal open.
        """
        binding, y, noises, place, _ = self._merged(times, covariates)
        order = np.argsort(place)
        back = np.argsort(order)
        parts = []
        for k, column in enumerate(y.T):
            noise = np.array(np.broadcast_to(of_output(noises, k), len(binding)))
            joint = joint_covariance(binding, column, noise, place[order])[np.ix_(back, back)]
            variance = np.maximum(binding.smooth(column, noise, self._signal(binding))[1][place, 0], 0.0)
            is_open = np.isinf(variance)
            joint[is_open], joint[:, is_open] = np.nan, np.nan
            joint[np.diag_indices(len(joint))] = variance
            parts.append(joint)
        return np.stack(parts, axis=-1) * self.scale.value**2

    def sample(self, times, covariates, n_samples, random_state):
        """Joint draws of the signal at other rows given the record, of shape (n, m, n_samples).

        A path drawn from the prior is corrected by the smoothed difference between the data and samples of that path
        (Durbin & Koopman 2002). NaN where the record leaves the signal diffuse.
        """
        binding, y, noises, place, offset = self._merged(times, covariates)
        result = np.empty((len(place), y.shape[1], n_samples))
        signal = self._signal(binding)
        start = binding.initial
        for k, column in enumerate(y.T):
            noise = of_output(noises, k)
            paths = _draw(binding, n_samples, random_state)
            errors = random_state.normal(size=paths.shape)
            errors *= np.sqrt(np.broadcast_to(noise, len(binding)))[:, np.newaxis]
            # The mean of the start is in the paths already.
            binding.initial = State(np.zeros_like(start.mean), start.covariance, start.diffuse)
            for s in range(n_samples):
                mean, variance = binding.smooth(column - paths[:, s] - errors[:, s], noise, signal)
                drawn = np.where(np.isfinite(variance[place, 0]), paths[place, s] + mean[place, 0], np.nan)
                result[:, k, s] = drawn * self.scale.value + offset[:, k]
            binding.initial = start
        return result

    def last_states(self, leave=0):
        """For each output the filtered state at the record's last sample, given `scaled_y`: a list of State.

        Parameters
        ----------
        leave : int, default=0
            How many samples at the end are left out.
        """
        n = len(self.record.times) - leave
        binding = self._binding(self.record.times, self.record.covariates).part(0, n)
        noise = self.scaled_noise[:n] if np.ndim(self.scaled_noise) else self.scaled_noise
        outputs = self.scaled_y[:n].T
        return [binding.filter_to_end(y, of_output(noise, k)) if n else binding.initial for k, y in enumerate(outputs)]


def _starts(series):
    """Where each series starts among the samples of some, numbered in any way but in order, and the end."""
    sizes = np.bincount(series)
    return np.append(0, np.cumsum(sizes[sizes > 0])).astype(np.int64)


def of_output(noise, k):
    """The noise variance of output ``k``: a float, or an array of one for each sample.

    Parameters
    ----------
    noise : float or ndarray of shape (n,) or (n, m)
    k : int

    Returns
    -------
    float or ndarray of shape (n,)
    """
    return noise[:, k] if np.ndim(noise) == 2 else noise


def _draw(binding, n_samples, random_state):
    """Signal paths from the prior, (n_times, n_samples); diffuse directions are set to zero, as any value would do."""
    start, rows = binding.initial, binding.rows
    x = start.mean[:, np.newaxis] + _root(start.covariance) @ random_state.normal(size=(len(start.mean), n_samples))
    paths = np.empty((len(binding), n_samples))
    for first in range(0, len(binding), _CHUNK):
        part = binding.part(first, first + _CHUNK)
        A, Q = discretize_blocks(part.blocks, part.gaps)
        roots = _root(Q)
        noise = random_state.normal(size=(len(A), len(x), n_samples))
        for k in range(len(A)):
            # The first gap lies before the first sample, where the start holds.
            if first + k > 0:
                x = A[k] @ x + roots[k] @ noise[k]
            paths[first + k] = (rows if rows.ndim == 1 else rows[first + k]) @ x
    return paths


def _root(covariance):
    """A square root of positive semi-definite matrices, of shape (..., n, n)."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., np.newaxis, :]
