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
    scale : ndarray of shape (n_windows,)
        Root mean square of what least squares left (before the level is moved); 0 if that is no more than rounding.
    spread : ndarray of shape (n_windows,)
        The variance of the values.
    largest : ndarray of shape (n_windows,)
        The largest absolute value.

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
        self._trend, self._lengths = trend, lengths
        self._end = times[rows, lengths - 1]
        self._span = np.maximum(self._end - times[:, 0], time_scale)
        self._center = (values * real).sum(axis=1) / lengths
        self.largest = np.abs(np.where(real, values, 0.0)).max(axis=1)
        centered = np.where(real, values - self._center[:, None], 0.0)
        design = self._design(times, covariates, slice(None)) * real[..., None]
        self._ridge = np.full(design.shape[-1], _RIDGE)
        self._ridge[0] = 0.0
        self._gram = np.einsum("bni,bnj->bij", design, design)
        moment = np.einsum("bni,bn->bi", design, centered)
        self._theta = _solve(self._gram + np.diag(self._ridge), moment)
        residuals = centered - np.einsum("bni,bi->bn", design, self._theta)
        self._squares = (residuals**2).sum(axis=1)
        self._sums = centered.sum(axis=1), (centered**2).sum(axis=1)
        self._shift = residuals[rows, lengths - 1] if trend == "last" else np.zeros(len(times))
        self.scale = _root(self._squares / lengths, self.largest)
        self.spread = self._sums[1] / lengths

    def __call__(self, times, covariates, window):
        """The baseline at ``times`` (n,) with ``covariates`` (n, n_covariates), each in the window (n,) given."""
        design = self._design(times, covariates, window)
        level = self._center[window] + self._shift[window]
        return level + np.einsum("...i,...i->...", design, self._theta[window])

    def extended(self, times, values, covariates, window, lengths):
        """The baselines of the same windows with more samples: what one fit of all of them would give.

        Only the new samples are read: least squares of what θ leaves of them moves θ.

        Parameters
        ----------
        times, values : ndarray of shape (n_windows, n_new)
            The samples that follow each window, padded at the end.
        covariates : ndarray of shape (n_windows, n_new, n_covariates)
        window, lengths : ndarray of shape (n,)
            A baseline for each pair of a window and a number of new samples, which may be 0.

        Returns
        -------
        Baseline
            Of n windows.
        """
        design = self._design(times, covariates, slice(None))
        centered = values - self._center[:, None]
        residuals = centered - np.einsum("bni,bi->bn", design, self._theta)
        largest = np.maximum.accumulate(np.abs(np.concatenate([self.largest[:, None], values], axis=1)), axis=1)
        count = self._lengths[window] + lengths
        gram = self._gram[window] + _sums(np.einsum("bni,bnj->bnij", design, design), window, lengths)
        moment = _sums(design * residuals[..., None], window, lengths)
        delta = _solve(gram + np.diag(self._ridge), moment)
        # At θ the moment of the old residuals is that of the ridge.
        moment += self._ridge * self._theta[window]
        squares = self._squares[window] + _sums(residuals**2, window, lengths)
        squares += np.einsum("bi,bij,bj->b", delta, gram, delta) - 2 * np.einsum("bi,bi->b", delta, moment)
        other = object.__new__(Baseline)
        other._trend, other._ridge, other._lengths = self._trend, self._ridge, count
        other._end, other._span, other._center = self._end[window], self._span[window], self._center[window]
        other._gram, other._theta, other._squares = gram, self._theta[window] + delta, np.maximum(squares, 0.0)
        other.largest = largest[window, lengths]
        other._shift = np.zeros(len(window))
        if self._trend == "last" and times.shape[1]:
            last = np.maximum(lengths - 1, 0)
            left = residuals[window, last] - np.einsum("bi,bi->b", design[window, last], delta)
            other._shift = np.where(lengths > 0, left, self._shift[window])
        elif self._trend == "last":
            other._shift = self._shift[window]
        total = self._sums[0][window] + _sums(centered, window, lengths)
        other._sums = total, self._sums[1][window] + _sums(centered**2, window, lengths)
        other.scale = _root(other._squares / count, other.largest)
        other.spread = np.maximum(other._sums[1] / count - (total / count) ** 2, 0.0)
        return other

    def _design(self, times, covariates, window):
        """[1, time, covariates]; times and window (n,), or times (n_windows, n_context)."""
        end, span = self._end[window], self._span[window]
        if end.ndim < times.ndim:
            end, span = end[:, None], span[:, None]
        columns = [np.ones_like(times)]
        if self._trend == "linear":
            columns.append((times - end) / span)
        return np.concatenate([np.stack(columns, axis=-1), covariates], axis=-1)


def _solve(gram, moment):
    return np.linalg.solve(gram, moment[..., None])[..., 0]


def _root(mean_square, largest):
    """The root, or 0 where it is no more than rounding."""
    root = np.sqrt(mean_square)
    return np.where(root > 1e-9 * largest, root, 0.0)


def _sums(terms, window, lengths):
    """Sums of the first ``lengths`` (n,) terms of each ``window`` (n,); terms (n_windows, n_new, ...)."""
    none = np.zeros((len(terms), 1, *terms.shape[2:]))
    return np.concatenate([none, np.cumsum(terms, axis=1)], axis=1)[window, lengths]
