"""The filters of all outputs of a stream, which advance together: one sample, or a block of them."""

import math
from typing import NamedTuple

import numpy as np

from statespace.kalman.binding import Binding, State
from statespace.kalman.posterior import of_output
from statespace.kalman.robust import reweigh, sample_weight, weights_at
from statespace.kernels.dispatch import OF_A_GPU
from statespace.kernels.kalman_filter import kalman_filter, kalman_smoother, kalman_stepper

# Samples that are filtered in one call: bounds the memory.
_CHUNK = 8192
# Samples that are taken one by one where a block does not do, until a block is tried again.
_SINGLE = 64


class Moment(NamedTuple):
    """All that filtering goes on from.

    Attributes
    ----------
    states : tuple of State
        One for each output.
    offsets : tuple of float
        What is taken from each output before it is filtered; NaN until a new series has its first value.

    Examples
    --------
    >>> from statespace.streaming.filter import Moment
    >>> Moment(states=(), offsets=()).offsets
    ()
    """

    states: tuple
    offsets: tuple


class Filters:
    """One filter for each output, of the same process.

    Parameters
    ----------
    process : Component
        In scaled units.
    value_scale : float
        The unit of y.
    moment : Moment
    backend : str, optional
    family : StudentT or Huber, optional
        Noise that is not normal.

    Attributes
    ----------
    row : ndarray of shape (n,)
        H at the last sample.
    offsets : list of float

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import State
    >>> from statespace.streaming.filter import Filters, Moment
    >>> start = State(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1)))
    >>> filters = Filters(LocalLevel(), 1.0, Moment((start,), (0.0,)))
    >>> filters.step([2.0], gap=0.0, noise=1.0)
    >>> filters.moments()
    ([2.0], [1.0])
    """

    def __init__(self, process, value_scale, moment, backend=None, family=None):
        self.process, self.value_scale, self.backend, self.family = process, value_scale, backend, family
        self.row = np.array(process.observation())
        self.restore(moment)

    def __len__(self):
        return len(self._steppers)

    def restore(self, moment):
        """Go back to a moment."""
        self.offsets = list(moment.offsets)
        blocks = self._blocks(0.0)
        # A GPU takes whole records: one sample at a time is filtered where the program runs.
        backend = None if self.backend in OF_A_GPU else self.backend
        self._steppers = [kalman_stepper(blocks, self.row, *state, backend=backend) for state in moment.states]

    def moment(self):
        """Where the filters stand, copied."""
        states = [State(s.mean.copy(), s.covariance.copy(), s.diffuse.copy()) for s in self._steppers]
        return Moment(tuple(states), tuple(self.offsets))

    def step(self, values, gap, noise, row=None):
        """Advance by a gap in scaled units, and take a sample: a list of floats, NaN where missing.

        ``noise`` is a float or a list of one for each output, ``row`` H where it varies.
        """
        table = None
        if self.process.tabulated:
            blocks = self._blocks(gap)
            table = blocks.transition[0], blocks.process_noise[0]
        if row is not None:
            self.row = row
        for k, (value, stepper) in enumerate(zip(values, self._steppers, strict=True)):
            offset = self.offsets[k]
            if offset != offset:
                offset = self.offsets[k] = value
            own = noise if isinstance(noise, float) else noise[k]
            scaled = (value - offset) / self.value_scale
            if self.family is None:
                stepper.step(scaled, gap, own, row, table)
                continue
            # Predict first; then take the sample with the noise variance R/w that its innovation asks for.
            stepper.step(math.nan, gap, own, row, table)
            still = None
            if table is not None:
                blocks = self._blocks(0.0)
                still = blocks.transition[0], blocks.process_noise[0]
            stepper.step(scaled, 0.0, self._weighted(stepper, scaled, own), row, still)

    def _weighted(self, stepper, value, noise):
        """The noise variance R/w of a sample that the stepper has predicted."""
        row = self.row
        # A sample that fixes a diffuse direction has no innovation.
        if value != value or noise == 0.0 or (stepper.n_diffuse and _sees(row, stepper.diffuse)):
            return noise
        error, variance = value - float(row.dot(stepper.mean)), float(row.dot(stepper.covariance).dot(row))
        return noise / sample_weight(self.family, error, max(variance, 0.0), noise)

    def _blocks(self, gap):
        if not self.process.tabulated:
            return self.process.blocks()
        return self.process.blocks(np.array([gap]))._replace(gap_index=np.zeros(1, dtype=np.int64))

    def moments(self, added=0.0):
        """Means and standard deviations of the signal at the last sample, with variances ``added`` in scaled units."""
        row, unit = self.row, self.value_scale
        means, deviations = [], []
        for offset, stepper in zip(self.offsets, self._steppers, strict=True):
            means.append(float(row.dot(stepper.mean)) * unit + (offset if offset == offset else 0.0))
            variance = max(float(row.dot(stepper.covariance).dot(row)), 0.0) + added
            if stepper.n_diffuse and _sees(row, stepper.diffuse):
                variance = math.inf
            deviations.append(math.sqrt(variance) * unit)
        return means, deviations

    def extend(self, y, gaps, noise, rows=None, added=0.0):
        """Take a block of samples, equal to `step` for each, at the speed of the kernel.

        Parameters
        ----------
        y : ndarray of shape (k, m)
        gaps : ndarray of shape (k,)
        noise : float or ndarray of shape (k,) or (k, m)
            In scaled units.
        rows : ndarray of shape (k, n), optional
            H, where it varies.
        added : float
            As in `moments`.

        Returns
        -------
        mean, std : ndarray of shape (k, m)
        """
        means, deviations = np.empty(y.shape), np.empty(y.shape)
        start = 0
        while start < len(y):
            stop = min(start + _CHUNK, len(y))
            missing = np.isnan(y[start:stop]).any(axis=1)
            if any(stepper.n_diffuse for stepper in self._steppers) and missing.any():
                # While a direction is open, only single steps tell whether a missing sample would see it.
                stop = start + int(np.argmax(missing))
            # Each weight depends on the filter's state before it.
            answer = (
                self._block(*(_part(array, start, stop) for array in (y, gaps, noise, rows)))
                if stop > start and self.family is None
                else None
            )
            if answer is not None:
                means[start:stop] = answer[0]
                deviations[start:stop] = np.sqrt(answer[1] + added) * self.value_scale
                start = stop
                continue
            for k in range(start, min(max(stop, start + 1), start + _SINGLE)):
                own = noise[k].tolist() if np.ndim(noise) else noise
                self.step(y[k].tolist(), float(gaps[k]), own, None if rows is None else rows[k])
                means[k], deviations[k] = self.moments(added)
                start = k + 1
        return means, deviations

    def _block(self, y, gaps, noise, rows):
        """Means (in y's units) and scaled variances after each sample; None, and no step, where a direction closes."""
        moment = self.moment()
        if any(offset != offset for offset in moment.offsets):
            return None
        binding = self._binding(gaps, rows)
        means, variances, states = np.empty(y.shape), np.empty(y.shape), []
        for k, state in enumerate(moment.states):
            binding.initial = state
            centred = (y[:, k] - moment.offsets[k]) / self.value_scale
            result = binding._call(kalman_filter, centred, of_output(noise, k))
            if result.diffuse.shape[1] != state.diffuse.shape[1]:
                return None
            mean, variances[:, k] = _signal(binding.rows, result.mean, result.covariance)
            means[:, k] = mean * self.value_scale + moment.offsets[k]
            states.append(State(result.mean[-1].copy(), result.covariance[-1].copy(), result.diffuse))
        if rows is not None:
            self.row = rows[-1].copy()
        self.restore(Moment(tuple(states), moment.offsets))
        return means, np.maximum(variances, 0.0)

    def _binding(self, gaps, rows):
        binding = Binding(self.process, gaps, backend=self.backend)
        if rows is not None:
            binding.rows = np.ascontiguousarray(rows)
        return binding

    def smooth(self, moment, y, gaps, noise, rows, place):
        """Mean and scaled variance of the signal at sample ``place``, given all samples after ``moment``.

        Parameters
        ----------
        moment : Moment
        y : ndarray of shape (k, m)
        gaps : ndarray of shape (k,)
        noise : ndarray of shape (k, m)
        rows : ndarray of shape (k, n) or None
        place : int

        Returns
        -------
        mean, variance : list of float
        """
        binding = self._binding(gaps, rows)
        row = binding.rows if binding.rows.ndim == 1 else binding.rows[place]
        means, variances = [], []
        for k, state in enumerate(moment.states):
            binding.initial = state
            # An offset that is not known yet when the window begins is by now.
            offset = self.offsets[k]
            centred = (y[:, k] - (offset if offset == offset else 0.0)) / self.value_scale
            variance = noise[:, k].copy()
            if self.family is not None:
                variance /= weights_at(self.family, reweigh(binding, centred, variance, self.family)[0])
            result = binding._call(kalman_smoother, centred, variance, readout=row[np.newaxis])
            means.append(float(result.mean[place, 0]) * self.value_scale + (offset if offset == offset else 0.0))
            variances.append(max(float(result.covariance[place, 0]), 0.0))
        return means, variances


def _signal(H, mean, covariance):
    """H x and H P Hᵀ of each sample, for rows H or the same one."""
    if H.ndim == 1:
        return mean @ H, covariance.reshape(len(mean), -1) @ np.outer(H, H).ravel()
    return np.einsum("ti,ti->t", H, mean), np.einsum("ti,tij,tj->t", H, covariance, H)


def _part(array, start, stop):
    return array[start:stop] if np.ndim(array) else array


def _sees(row, diffuse):
    """Whether the row reads a direction that is open, beyond the rounding that closed ones leave."""
    return bool(np.any(np.abs(row @ diffuse) > 1e-9 * (np.abs(row) @ np.abs(diffuse))))
