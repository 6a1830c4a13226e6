"""A fitted Kalman model that takes one sample at a time: constant time and memory for each, equal to filtering the whole."""

from datetime import timedelta

import numpy as np

from statespace.kalman.binding import State
from statespace.kernels.kalman_filter import kalman_filter
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
    noise : float
        The noise variance of new samples.
    single : bool
        Whether samples are numbers, rather than arrays of shape (n_outputs,).
    from_prior : bool
        Start a new series, rather than at the end of the data.
    include_noise : bool
        Whether the standard deviations are those of a new observation at this time, rather than of the signal.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel(variance=1.0), noise_variance=1.0, optimizer=None).fit([[0.0], [1.0]], [1.0, 2.0])
    >>> stream = gp.stream()
    >>> mean, std = stream.step(2.5, dt=0.2)
    >>> mean_later, std_later = stream.step(np.nan, dt=3.0)
    >>> mean == mean_later, std < std_later
    (True, True)
    """

    def __init__(self, posterior, noise, *, single, from_prior, include_noise):
        process, scale = posterior.scaled, posterior.scale
        self._process, self._scale, self._unit, self._backend = process, scale, posterior.unit, posterior.backend
        self._noise = noise / scale.value**2
        self._added = self._noise if include_noise else 0.0
        self._single = single
        self._n_covariates = posterior.record.covariates.shape[1]
        self._blocks = None if process.tabulated else process.blocks()
        self._rows = None if self._n_covariates else process.design()[np.newaxis]
        self._fresh = from_prior
        if from_prior:
            mean, covariance, diffuse = process.initial()
            start = State(mean, covariance, diffuse * posterior.process.diffuse_scale(scale))
            self._states = [start] * posterior.record.y.shape[1]
        else:
            self._states = posterior.last_states()

    def step(self, y_t, dt=None, x=None):
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

        Returns
        -------
        mean, std : float or ndarray of shape (n_outputs,)
            Of the signal at this time, given all samples up to this one.
        """
        gap = self._gap(dt)
        rows = self._rows if self._rows is not None else self._design(x)
        blocks = self._blocks
        if blocks is None:
            blocks = self._process.blocks(np.array([gap]))._replace(gap_index=np.zeros(1, dtype=np.int64))
        values = (y_t,) if self._single else np.ravel(y_t)
        if len(values) != len(self._states):
            raise ValueError(f"y_t must have {len(self._states)} outputs, as y had in fit. Got {len(values)}.")
        dt_array, row = np.array([gap]), rows[0]
        means, variances, states = [], [], []
        for value, state in zip(values, self._states, strict=True):
            y = np.array([value], dtype=float) / self._scale.value
            if np.isinf(y[0]):
                raise ValueError("y_t must be finite, or NaN where it is missing. Got inf.")
            result = kalman_filter(y, dt_array, blocks, rows, self._noise, *state, backend=self._backend)
            mean, covariance, diffuse = result.mean[0], result.covariance[0], result.diffuse
            states.append(State(mean, covariance, diffuse))
            means.append(float(row @ mean))
            # What is left of the diffuse directions that this row sees through rounding is not open any more.
            still_open = diffuse.shape[1] and np.any(np.abs(row @ diffuse) > 1e-9 * np.abs(row) @ np.abs(diffuse))
            variances.append(np.inf if still_open else max(float(row @ covariance @ row), 0.0) + self._added)
        self._states, self._fresh = states, False
        if self._single:
            return means[0] * self._scale.value, variances[0] ** 0.5 * self._scale.value
        return np.array(means) * self._scale.value, np.sqrt(variances) * self._scale.value

    def _gap(self, dt):
        if self._fresh:
            return 0.0
        if dt is None:
            return 1.0
        if isinstance(dt, timedelta | np.timedelta64):
            dt = elapsed(np.array([dt], dtype="timedelta64[ns]"), origin=np.timedelta64(0, "ns"), unit=self._unit)[0]
        if not 0.0 <= dt < np.inf:
            raise ValueError(f"dt must be finite and >= 0: the time since the sample before. Got {dt}.")
        return dt / self._scale.time

    def _design(self, x):
        covariates = np.atleast_2d(np.asarray(np.nan if x is None else x, dtype=float))
        if covariates.shape != (1, self._n_covariates) or not np.isfinite(covariates).all():
            raise ValueError(f"x must be {self._n_covariates} finite covariates, as in fit. Got {x!r}.")
        return np.broadcast_to(self._process.design(covariates), (1, self._process.n_states))
