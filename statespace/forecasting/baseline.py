"""What a window's own history says in closed form: level, trend, known seasons and covariates, by least squares.

The network forecasts what is left. Every window is fitted alone, on its context alone.
"""

import numpy as np

TRENDS = ("last", "mean", "linear")
# Pseudo-observations that hold every coefficient but the level at zero: few samples fit no steep trend.
_RIDGE = 0.1


class Baseline:
    """Least squares of windows on [1, time, known phases, covariates], and what it forecasts.

        y(t) ≈ θ₀ + θ₁ (t − t_n) / s + θᵀ φ(t),        s = t_n − t_1

    with a small ridge on all coefficients but the level. ``"mean"`` leaves the slope θ₁ out; ``"last"`` too, and then
    moves the level so that the last value t_n is met exactly.

    Parameters
    ----------
    times, values : ndarray of shape (n_windows, n_context)
        The context, padded at its end.
    covariates : ndarray of shape (n_windows, n_context, n_covariates)
        Phases and covariates φ at these times.
    lengths : ndarray of shape (n_windows,)
        The real samples of each window, one at least.
    trend : {"last", "mean", "linear"}
    time_scale : float
        The least s, for windows of one sample.

    Attributes
    ----------
    residuals : ndarray of shape (n_windows, n_context)
        What is left of the values; 0 where padded.
    scale : ndarray of shape (n_windows,)
        Root mean square of what least squares left (before the level is moved); 0 if that is no more than rounding.
    span : ndarray of shape (n_windows,)
        s.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.baseline import Baseline
    >>> t = np.arange(50.0)[None]
    >>> line = Baseline(t, 3 + 2 * t, np.empty((1, 50, 0)), np.array([50]), "linear", 1.0)
    >>> line(np.array([59.0]), np.empty((1, 0)), np.array([0])).round(-1)  # 3 + 2 * 59, nearly
    array([120.])
    """

    def __init__(self, times, values, covariates, lengths, trend, time_scale):
        real = np.arange(times.shape[1]) < lengths[:, None]
        rows = np.arange(len(times))
        self._trend = trend
        self._end = times[rows, lengths - 1]
        self.span = np.maximum(self._end - times[:, 0], time_scale)
        self._center = (values * real).sum(axis=1) / lengths
        centered = np.where(real, values - self._center[:, None], 0.0)
        design = self._design(times, covariates, slice(None)) * real[..., None]
        gram = np.einsum("bni,bnj->bij", design, design)
        ridge = np.full(design.shape[-1], _RIDGE)
        ridge[0] = 0.0
        moment = np.einsum("bni,bn->bi", design, centered)
        self._theta = np.linalg.solve(gram + np.diag(ridge), moment[..., None])[..., 0]
        self.residuals = centered - np.einsum("bni,bi->bn", design, self._theta)
        self.scale = np.sqrt((self.residuals**2).sum(axis=1) / lengths)
        rounding = 1e-9 * np.abs(np.where(real, values, 0.0)).max(axis=1)
        self.scale = np.where(self.scale > rounding, self.scale, 0.0)
        if trend == "last":
            last = self.residuals[rows, lengths - 1]
            self._theta[:, 0] += last
            self.residuals = np.where(real, self.residuals - last[:, None], 0.0)

    def __call__(self, times, covariates, window):
        """The baseline at ``times`` (n,) with ``covariates`` (n, n_covariates), each in the window (n,) given."""
        design = self._design(times, covariates, window)
        return self._center[window] + np.einsum("ni,ni->n", design, self._theta[window])

    def _design(self, times, covariates, window):
        """[1, time, covariates]; times (n,) with their windows, or (n_windows, n_context)."""
        end, span = self._end[window], self.span[window]
        if times.ndim == 2:
            end, span = end[:, None], span[:, None]
        columns = [np.ones_like(times)]
        if self._trend == "linear":
            columns.append((times - end) / span)
        return np.concatenate([np.stack(columns, axis=-1), covariates], axis=-1)
