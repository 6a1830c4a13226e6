"""A process bound to the gaps and covariates of records: what the kernel needs, and what comes back from it.

Everything here is in scaled units (`Component.rescaled`): y divided by its spread, times by their median gap,
covariates by their root mean squares. A variance of 1e-9 or gaps in nanoseconds then look like any others to the
filter.
"""

from collections import deque
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from statespace.kernels.kalman_filter import (
    kalman_filter,
    kalman_gradient,
    kalman_log_likelihood,
    kalman_smoother,
)
from statespace.kernels.kalman_filter.prepared import Prepared

# Samples that are filtered in one call where only the last state is wanted: bounds the memory.
_CHUNK = 8192
_FIRST_CHUNK = 256


class State(NamedTuple):
    """A filtered state, from which filtering goes on: N(mean, covariance + κ P∞), P∞ = diffuse diffuseᵀ.

    Attributes
    ----------
    mean : ndarray of shape (n,)
    covariance : ndarray of shape (n, n)
    diffuse : ndarray of shape (n, d)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman.binding import State
    >>> State(np.zeros(1), np.eye(1), np.zeros((1, 0))).diffuse.shape
    (1, 0)
    """

    mean: np.ndarray
    covariance: np.ndarray
    diffuse: np.ndarray


class Binding:
    """The matrices of a process on one record, or on many that lie one after the other.

    Parameters
    ----------
    process : Component
        In scaled units.
    gaps : ndarray of shape (n_times,)
        In units of the median gap; the first entry lies before the first sample.
    covariates : ndarray of shape (n_times, c), optional
    backend : str, optional
        As in `statespace.kernels.kalman_filter`.
    starts : ndarray of int64, shape (n_records + 1,), optional
        Where each record starts, and the end; None for one record. Each begins anew.
    times : ndarray of shape (n_times,), optional
        Since the first sample of the data, in the same units as the gaps; for a process that uses them.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.binding import Binding
    >>> binding = Binding(LocalLevel(), np.array([0.0, 1.0, 2.5]))
    >>> mean, variance = binding.smooth(np.array([1.0, np.nan, 2.0]), 1.0, np.ones((1, 1)))
    >>> mean.shape, variance.shape
    ((3, 1), (3, 1))
    """

    def __init__(self, process, gaps, covariates=None, backend=None, starts=None, times=None):
        self.gaps = np.ascontiguousarray(gaps, dtype=float)
        self.covariates, self.times = covariates, times
        self.backend, self.starts = backend, starts
        self.different, self.index = np.unique(gaps, return_inverse=True) if process.tabulated else (None, None)
        self.diffuse_factor = 1.0
        self.rows, self.initial = None, None
        self.start_moves = process.start_moves
        self.bind(process)
        self.free_parameters = process.free_block_parameters(self.different)

    def bind(self, process):
        """Take another process, such as one with other parameters; returns self."""
        self.process = process
        self.blocks = process.blocks(self.different)._replace(gap_index=self.index)
        # Only a component of the user's own may have parameters in its rows.
        if self.rows is None or process.tabulated:
            self.rows = np.ascontiguousarray(process.rows(self.covariates, self.times))
        if self.initial is None or self.start_moves:
            mean, covariance, diffuse = process.initial()
            self.initial = State(mean, covariance, diffuse * self.diffuse_factor)
        return self

    def widen(self, factor):
        """Measure each diffuse direction in a unit of its own; returns self."""
        self.diffuse_factor, self.initial = factor, None
        return self.bind(self.process)

    def __len__(self):
        return len(self.gaps)

    def _call(self, kernel, y, noise, **options):
        if self.starts is not None:
            options["starts"] = self.starts
        return kernel(y, self.gaps, self.blocks, self.rows, noise, *self.initial, backend=self.backend, **options)

    def log_likelihood(self, y, noise):
        """The log-likelihood of y of shape (n_times,), NaN where missing; ``noise`` a float or of shape (n_times,)."""
        return float(np.sum(self._call(kalman_log_likelihood, y, noise)))

    def gradient(self, y, noise):
        """The log-likelihood, its gradient by the process' θ, and by the noise variance of each sample."""
        value, by = self._call(
            kalman_gradient, y, noise, free_parameters=self.free_parameters, by_observation=self.process.tabulated
        )
        by = SimpleNamespace(**by._asdict())
        by.diffuse = by.diffuse * self.diffuse_factor
        if by.observation.ndim == 2:
            by.observation = by.observation.sum(axis=0)
        return float(np.sum(value)), self.process.pullback(by, self.different), by.noise_variance

    def prepared(self, y, noise, free_parameters, rough=False):
        """`Prepared` for y of shape (n_times,) and ``noise``, a float or of shape (n_times,)."""
        return Prepared(
            y, self.gaps, self.blocks, self.rows, noise, *self.initial, free_parameters=free_parameters,
            starts=self.starts, backend=self.backend, rough=rough,
        )  # fmt: skip

    def smooth(self, y, noise, readout):
        """Means and variances (n_times, r) of ``readout`` x given all of y; readout (r, n) or (n_times, r, n)."""
        result = self._call(kalman_smoother, y, noise, readout=readout)
        return result.mean, result.covariance

    def part(self, start, stop, state=None):
        """The samples ``start`` to ``stop``; from ``state`` at sample ``start`` − 1, or from the process' own start."""
        part = self.take(slice(start, stop))
        if state is not None:
            part.initial = state
        return part

    def take(self, samples, starts=None):
        """Some of the samples, as one record or as those that ``starts`` separates."""
        part = object.__new__(Binding)
        vars(part).update(vars(self))
        part.gaps, part.starts = self.gaps[samples], starts
        if self.index is not None:
            part.index = self.index[samples]
            part.blocks = self.blocks._replace(gap_index=part.index)
        if self.covariates is not None:
            part.covariates = self.covariates[samples]
        if self.times is not None:
            part.times = self.times[samples]
        if self.rows.ndim == 2:
            part.rows = self.rows[samples]
        return part

    def _chunks(self, y, noise, chunk):
        """The filtered states at the ends of chunks, one after the other."""
        state = None
        for start in range(0, len(self), chunk):
            stop = min(start + chunk, len(self))
            local_noise = noise if np.ndim(noise) == 0 else noise[start:stop]
            result = self.part(start, stop, state)._call(kalman_filter, y[start:stop], local_noise)
            state = State(result.mean[-1].copy(), result.covariance[-1].copy(), result.diffuse)
            yield state

    def filter_to_end(self, y, noise):
        """The filtered state at the last sample, in bounded memory."""
        return deque(self._chunks(y, noise, _CHUNK), maxlen=1).pop()

    def n_open(self, y, noise):
        """The number of diffuse directions that y leaves open, in all records; one record is read as far as needed."""
        if self.starts is not None:
            return self._n_open_in_each(y).sum()
        for state in self._chunks(y, noise, _FIRST_CHUNK):
            if state.diffuse.shape[1] == 0:
                return 0
        return state.diffuse.shape[1]

    def _n_open_in_each(self, y):
        """Directions e times as wide take 1 from the log-likelihood for each one that y closes."""
        n_diffuse = self.initial.diffuse.shape[1]
        if n_diffuse == 0:
            return np.zeros(len(self.starts) - 1, dtype=np.int64)
        zeros, start = np.where(np.isfinite(y), 0.0, np.nan), self.initial
        narrow = self._call(kalman_log_likelihood, zeros, 1.0)
        self.initial = start._replace(diffuse=np.e * start.diffuse)
        wide = self._call(kalman_log_likelihood, zeros, 1.0)
        self.initial = start
        return n_diffuse - np.rint(narrow - wide).astype(np.int64)
