"""A process given the samples of one record: likelihood, smoothing at other times, joint covariance, samples, the last state."""

from typing import NamedTuple

import numpy as np

from statespace.kalman.binding import Binding, State
from statespace.kalman.fitting import Likelihood
from statespace.kernels.kalman_filter import discretize_blocks
from statespace.times import gaps

# Gaps whose matrices are held at once while a path is drawn.
_CHUNK = 4096
# Gaps this near to a multiple of the median gap, in proportion, are that multiple but for rounding.
_ROUNDED = 1e-9


class Record(NamedTuple):
    """The samples that were seen, in the order of time.

    Attributes
    ----------
    times : ndarray of shape (n,)
        float64, datetime64[ns] or timedelta64[ns]; not decreasing.
    covariates : ndarray of shape (n, c)
    y : ndarray of shape (n, m)
        NaN where missing.
    noise : float, ndarray of shape (n,) or None
        Known variances of the noise; None where one noise variance is a parameter.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.posterior import Record
    >>> Record(np.arange(2.0), np.zeros((2, 0)), np.ones((2, 1)), None).y.shape
    (2, 1)
    """

    times: np.ndarray
    covariates: np.ndarray
    y: np.ndarray
    noise: float | np.ndarray | None


class Posterior:
    """A process and a noise variance, given a record. What goes in and comes out is in the data's units.

    Inside, y is measured in ``scale.value`` and time in ``scale.time`` (see `statespace.kalman.binding`), which takes
    nothing from the result but a constant of the likelihood.

    Parameters
    ----------
    process : Component
        Resolved, in the data's units.
    noise : float or ndarray of shape (n,)
        The noise variance of the record's samples.
    record : Record
    scale : Scale
    unit : str
        The unit of time for datetimes.
    backend : str, optional

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.base import Scale
    >>> from statespace.kalman.posterior import Posterior, Record
    >>> record = Record(np.arange(3.0), np.zeros((3, 0)), np.array([[1.0], [2.0], [4.0]]), None)
    >>> posterior = Posterior(LocalLevel(variance=1.0), 1.0, record, Scale(1.0, 1.0, 2.0), "D")
    >>> mean, variance = posterior.at(np.array([1.5]), np.zeros((1, 0)))
    >>> mean.shape
    (1, 1, 1)
    """

    def __init__(self, process, noise, record, scale, unit, backend=None):
        self.process, self.noise, self.record = process, noise, record
        self.scale, self.unit, self.backend = scale, unit, backend
        self.scaled = process.rescaled(scale)
        self.scaled_noise = noise / scale.value**2

    def _binding(self, times, covariates):
        scaled = gaps(times, unit=self.unit) / self.scale.time
        # 0.3 − 0.2 is not 0.1 in floats: on a regular grid every gap would be another one, to the filter at a cost.
        whole = np.rint(scaled)
        scaled = np.where(np.abs(scaled - whole) <= _ROUNDED * whole, whole, scaled)
        return Binding(self.scaled, scaled, covariates, self.backend)

    def likelihood(self):
        """The likelihood in scaled units, and the constant that makes it that of the data as they are.

        Returns
        -------
        likelihood : Likelihood
        constant : float
        """
        y = self.record.y / self.scale.value
        known = None if self.record.noise is None else self.scaled_noise
        binding = self._binding(self.record.times, self.record.covariates)
        # A diffuse direction of the data's own units, in scaled ones; that of y itself comes with the constant.
        binding.diffuse_factor = self.process.diffuse_scale(self.scale)
        binding.bind(self.scaled)
        n_diffuse = binding.initial.diffuse.shape[1]
        counted = 0
        for column in y.T:
            counted += np.isfinite(column).sum() - n_diffuse + binding.n_open(column, self.scaled_noise)
        return Likelihood(self.scaled, [(binding, y, known)]), -counted * np.log(self.scale.value)

    def _merged(self, times, covariates):
        """The record and the new rows in one order of time; where the new rows stand in it."""
        record, n = self.record, len(self.record.times)
        everything = np.concatenate([record.times, times])
        order = np.argsort(everything, kind="stable")
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        y = np.full((len(order), record.y.shape[1]), np.nan)
        y[place[:n]] = record.y / self.scale.value
        noise = self.scaled_noise
        if np.ndim(noise):
            noise = np.ones(len(order))
            noise[place[:n]] = self.scaled_noise
        binding = self._binding(everything[order], np.concatenate([record.covariates, covariates])[order])
        return binding, y, noise, place[n:]

    def _signal(self, binding):
        rows = binding.rows
        return rows[np.newaxis] if rows.ndim == 1 else rows[:, np.newaxis, :]

    def _parts(self, binding):
        """The readout of each component: its own part of the rows H, zero elsewhere."""
        components = self.scaled.named()
        part = np.repeat(np.arange(len(components)), [component.n_states for _, component in components])
        own = part == np.arange(len(components))[:, np.newaxis]
        return np.where(own, binding.rows[..., np.newaxis, :], 0.0)

    def at(self, times, covariates, components=False):
        """Means and variances of the signal, or of each component, at other rows.

        Parameters
        ----------
        times : ndarray of shape (n,)
            In any order.
        covariates : ndarray of shape (n, c)
        components : bool, default=False

        Returns
        -------
        mean, variance : ndarray of shape (n, r, m)
            For r = 1, or for the r components, and the m outputs.
        """
        binding, y, noise, place = self._merged(times, covariates)
        readout = self._parts(binding) if components else self._signal(binding)
        smoothed = [binding.smooth(column, noise, readout) for column in y.T]
        mean = np.stack([m[place] for m, _ in smoothed], axis=-1) * self.scale.value
        variance = np.stack([v[place] for _, v in smoothed], axis=-1) * self.scale.value**2
        return mean, np.maximum(variance, 0.0)

    def joint_covariance(self, times, covariates):
        """The covariance of the signal between all other rows, of shape (n, n, m).

        Column j is what a further sample at row j would teach about the others: the smoother's answer to y = 0
        everywhere and 1 there.
        """
        binding, y, noise, place = self._merged(times, covariates)
        n, m = len(place), y.shape[1]
        noise = np.array(np.broadcast_to(noise, len(binding)))
        initial = binding.initial
        binding.initial = State(np.zeros_like(initial.mean), initial.covariance, initial.diffuse)
        result = np.empty((n, n, m))
        for k, column in enumerate(y.T):
            nothing = np.where(np.isnan(column), np.nan, 0.0)
            variance = binding.smooth(nothing, noise, self._signal(binding))[1][place, 0]
            for j, at in enumerate(place):
                if not (np.isfinite(variance[j]) and variance[j] > 0):
                    result[:, j, k] = variance[j] if variance[j] == 0 else np.where(np.arange(n) == j, np.inf, np.nan)
                    continue
                asked, local_noise = nothing.copy(), noise.copy()
                asked[at], local_noise[at] = 1.0, variance[j]
                answer = binding.smooth(asked, local_noise, self._signal(binding))[0][place, 0]
                result[:, j, k] = 2.0 * variance[j] * answer
                result[j, j, k] = variance[j]
        return (result + result.transpose(1, 0, 2)) / 2 * self.scale.value**2

    def sample(self, times, covariates, n_samples, random_state):
        """Joint draws of the signal at other rows given the record, of shape (n, m, n_samples).

        A path drawn from the prior is corrected by the smoothed difference between the data and samples of that path
        (Durbin & Koopman 2002). NaN where the record leaves the signal diffuse.
        """
        binding, y, noise, place = self._merged(times, covariates)
        result = np.empty((len(place), y.shape[1], n_samples))
        signal = self._signal(binding)
        start = binding.initial
        for k, column in enumerate(y.T):
            paths = _draw(binding, n_samples, random_state)
            errors = random_state.normal(size=paths.shape) * np.sqrt(np.broadcast_to(noise, len(binding)))[:, np.newaxis]
            # The mean of the start is in the paths already.
            binding.initial = State(np.zeros_like(start.mean), start.covariance, start.diffuse)
            for s in range(n_samples):
                mean, variance = binding.smooth(column - paths[:, s] - errors[:, s], noise, signal)
                drawn = np.where(np.isfinite(variance[place, 0]), paths[place, s] + mean[place, 0], np.nan)
                result[:, k, s] = drawn * self.scale.value
            binding.initial = start
        return result

    def last_states(self):
        """For each output the filtered state at the record's last sample, in scaled units: a list of State."""
        binding = self._binding(self.record.times, self.record.covariates)
        return [binding.filter_to_end(column, self.scaled_noise) for column in (self.record.y / self.scale.value).T]


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
