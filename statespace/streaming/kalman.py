"""A fitted Kalman model one sample at a time: constant time and memory for each, equal to filtering the whole."""

import math
from datetime import timedelta

import numpy as np

from statespace.kalman.binding import State
from statespace.kalman.robust import sample_weight
from statespace.kernels.kalman_filter import kalman_stepper
from statespace.times import elapsed


class KalmanStream:
    """The filtered signal, sample by sample.

    Each `step` advances the state by the gap, x ← A(Δ) x + w, and conditions it on the new sample; it equals the
    filter over all samples so far. Made by `KalmanRegressor.stream`; it holds copies, so that the regressor is not
    changed, and ``copy.deepcopy`` branches it.

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
        Noise that is not normal: each sample then gets a weight by its innovation (`sample_weight`).

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

    def __init__(self, posterior, noise, *, single, from_prior, include_noise, family=None):
        process, scale = posterior.scaled, posterior.scale
        self._process, self._scale, self._unit = process, scale, posterior.unit
        self._noise = None if noise is None else noise / scale.value**2
        self._family = family
        self._added = 0.0
        if include_noise:
            self._added = self._noise if family is None else self._noise * family.variance
        self._single = single
        self._n_covariates = posterior.record.covariates.shape[1]
        self._row = None if self._n_covariates else np.array(process.design())
        self._fresh = from_prior
        # The offset is taken from every sample; a new series gets that of its first.
        self._levels = posterior.level is not None
        self._offset = [math.nan if from_prior and self._levels else value for value in posterior.offset[0].tolist()]
        if from_prior:
            mean, covariance, diffuse = process.initial()
            start = State(mean, covariance, diffuse * posterior.process.diffuse_scale(scale))
            states = [start] * posterior.record.y.shape[1]
        else:
            states = posterior.last_states()
        blocks, row = self._blocks(0.0), process.observation() if self._row is None else self._row
        self._steppers = [kalman_stepper(blocks, row, *state, backend=posterior.backend) for state in states]

    def step(self, y_t, dt=None, x=None, noise_variance=None):
        """Advance by ``dt`` and take a sample.

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
        noise_variance : float, optional
            The known variance of this sample's noise; needed where `fit` was given that of each sample.

        Returns
        -------
        mean, std : float or ndarray of shape (n_outputs,)
            Of the signal at this time, given all samples up to this one.

        Raises
        ------
        ValueError
            For a gap that is negative or not finite, an infinite y_t, or other covariates or outputs than in `fit`.
        """
        gap, unit = self._gap(dt), self._scale.value
        given = self._design(x) if self._n_covariates else None
        row = self._row if given is None else given
        noise = self._noise if noise_variance is None else float(noise_variance) / unit**2
        if noise is None:
            raise ValueError("step needs noise_variance: fit was given that of each known sample only.")
        if not 0.0 <= noise < math.inf:
            raise ValueError(f"noise_variance must be finite and >= 0. Got {noise_variance}.")
        values = [float(value) for value in ((y_t,) if self._single else np.ravel(y_t))]
        if len(values) != len(self._steppers):
            raise ValueError(f"y_t must have {len(self._steppers)} outputs, as y had in fit. Got {len(values)}.")
        for value in values:
            if math.isinf(value):
                raise ValueError(f"y_t must be finite, or NaN where it is missing. Got {value}.")
        table = None
        if self._process.tabulated:
            blocks = self._blocks(gap)
            table = blocks.transition[0], blocks.process_noise[0]
        self._fresh = False
        means, deviations = [], []
        for k, (value, stepper) in enumerate(zip(values, self._steppers, strict=True)):
            offset = self._offset[k]
            if offset != offset:
                offset = self._offset[k] = value
            if self._family is None:
                stepper.step((value - offset) / unit, gap, noise, given, table)
            else:
                self._weighted_step(stepper, (value - offset) / unit, gap, noise, given, table, row)
            means.append(float(row.dot(stepper.mean)) * unit + (offset if offset == offset else 0.0))
            variance = max(float(row.dot(stepper.covariance).dot(row)), 0.0) + self._added
            if stepper.n_diffuse and _sees(row, stepper.diffuse):
                variance = math.inf
            deviations.append(math.sqrt(variance) * unit)
        if self._single:
            return means[0], deviations[0]
        return np.array(means), np.array(deviations)

    def _weighted_step(self, stepper, value, gap, noise, given, table, row):
        """Predict, weigh the sample by its innovation, and take it with the noise variance R/w."""
        stepper.step(math.nan, gap, noise, given, table)
        # A sample that fixes a diffuse direction has no innovation.
        if value == value and noise > 0.0 and not (stepper.n_diffuse and _sees(row, stepper.diffuse)):
            error, variance = value - float(row.dot(stepper.mean)), float(row.dot(stepper.covariance).dot(row))
            noise /= sample_weight(self._family, error, max(variance, 0.0), noise)
        if table is not None:
            blocks = self._blocks(0.0)
            table = blocks.transition[0], blocks.process_noise[0]
        stepper.step(value, 0.0, noise, given, table)

    def _blocks(self, gap):
        if not self._process.tabulated:
            return self._process.blocks()
        return self._process.blocks(np.array([gap]))._replace(gap_index=np.zeros(1, dtype=np.int64))

    def _gap(self, dt):
        if self._fresh:
            return 0.0
        if dt is None:
            return 1.0
        if isinstance(dt, (timedelta, np.timedelta64)):
            dt = elapsed(np.array([dt], dtype="timedelta64[ns]"), origin=np.timedelta64(0, "ns"), unit=self._unit)[0]
        if not 0.0 <= dt < np.inf:
            raise ValueError(f"dt must be finite and >= 0: the time since the sample before. Got {dt}.")
        return dt / self._scale.time

    def _design(self, x):
        covariates = np.atleast_2d(np.asarray(np.nan if x is None else x, dtype=float))
        if covariates.shape != (1, self._n_covariates) or not np.isfinite(covariates).all():
            raise ValueError(f"x must be {self._n_covariates} finite covariates, as in fit. Got {x!r}.")
        return np.ravel(self._process.design(covariates))


def _sees(row, diffuse):
    """Whether the row reads a direction that is open, beyond the rounding that closed ones leave."""
    return bool(np.any(np.abs(row @ diffuse) > 1e-9 * (np.abs(row) @ np.abs(diffuse))))
