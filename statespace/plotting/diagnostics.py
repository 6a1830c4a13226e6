"""Standardised innovations in four panels: over time, as a histogram, against the normal, and their correlogram."""

import numpy as np
from scipy.stats import norm

from statespace.kalman.diagnostics import autocorrelation
from statespace.plotting.axes import drawable, name_times, some_axes


class DiagnosticsDisplay:
    """Whether standardised innovations look like independent draws from N(0, 1).

    The bands of the correlogram hold 95 % of the autocorrelations of n independent samples,
    ±1.96 √((n − j) / (n (n + 2))) at lag j, which Ljung and Box' test is made of. Lags count observed samples, also on
    irregular times.

    Parameters
    ----------
    residuals : array-like of shape (n,)
        Standardised; NaN are left out.
    times : array-like of shape (n,), optional
        None counts them.
    lags : int, optional
        Of the correlogram; by default 10 log₁₀ n.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, shape (4,)
    ax_ : matplotlib.axes.Axes
        The first.
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
        The innovations over time, the normal density, the quantiles, and the line they should lie on.
    bars_ : BarContainer
        Of the histogram.
    autocorrelations_ : ndarray of shape (lags,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.plotting import DiagnosticsDisplay
    >>> y = np.cumsum(np.random.default_rng(0).normal(size=100))
    >>> gp = KalmanRegressor(LocalLevel()).fit(np.arange(100.0)[:, np.newaxis], y)
    >>> DiagnosticsDisplay.from_estimator(gp).axes_.shape
    (4,)
    """

    def __init__(self, residuals, times=None, lags=None):
        self.residuals, self.times, self.lags = residuals, times, lags

    @classmethod
    def from_estimator(cls, estimator, *, lags=None, output=0, axes=None, **options):
        """Draw the innovations of the data of `fit`.

        Parameters
        ----------
        estimator : KalmanRegressor, or KalmanForecaster
            Fitted.
        lags : int, optional
        output : int, default=0
            Which output, where there are several.
        axes : array-like of four matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        DiagnosticsDisplay
        """
        estimator = getattr(estimator, "regressor_", estimator)
        if getattr(estimator, "series_", None) is not None:
            raise ValueError("the model was fitted to many series. Give the innovations of one to from_predictions.")
        scores = estimator.anomaly_scores()
        table = scores if estimator._single else scores[output]
        table = table.sort_index(kind="stable")
        return cls(table["score"].to_numpy(), table.index, lags).plot(axes, **options)

    @classmethod
    def from_predictions(cls, residuals, times=None, *, lags=None, axes=None, **options):
        """Draw standardised residuals of any model.

        Parameters
        ----------
        residuals : array-like of shape (n,)
        times : array-like of shape (n,), optional
        lags : int, optional
        axes : array-like of four matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        DiagnosticsDisplay

        Examples
        --------
        >>> import numpy as np
        >>> from statespace.plotting import DiagnosticsDisplay
        >>> display = DiagnosticsDisplay.from_predictions(np.random.default_rng(0).normal(size=50), lags=8)
        >>> display.autocorrelations_.shape
        (8,)
        """
        return cls(residuals, times, lags).plot(axes, **options)

    def plot(self, axes=None, *, line_kw=None):
        """Draw.

        Parameters
        ----------
        axes : array-like of four matplotlib.axes.Axes, optional
            None makes a figure.
        line_kw : dict, optional
            To ``ax.plot`` for the innovations.

        Returns
        -------
        DiagnosticsDisplay

        Raises
        ------
        ValueError
            If there are less than three residuals, or too many lags for them.
        """
        e = np.asarray(self.residuals, dtype=float)
        times = np.arange(len(e)) if self.times is None else drawable(self.times)
        seen = np.isfinite(e)
        e, times = e[seen], times[seen]
        n = len(e)
        if n < 3:
            raise ValueError(f"Diagnostics need three residuals at least. Got {n}.")
        lags = min(int(10 * np.log10(n)), n - 1) if self.lags is None else self.lags
        self.autocorrelations_ = autocorrelation(e, lags)
        self.axes_, self.figure_ = some_axes(axes, 2, 2, (9.0, 6.5))
        over_time, histogram, quantiles, correlogram = self.axes_
        self.ax_ = over_time
        style = {"color": "tab:blue", "linewidth": 0.9} | (line_kw or {})
        self.lines_ = over_time.plot(times, e, **style)
        over_time.axhline(0.0, color="black", linewidth=0.8)
        for level in (-1.96, 1.96):
            over_time.axhline(level, color="black", linewidth=0.8, linestyle=":")
        over_time.set_title("standardised innovations")
        name_times(over_time, times)

        _, _, self.bars_ = histogram.hist(e, bins="auto", density=True, color=style["color"], alpha=0.4)
        grid = np.linspace(-max(4.0, np.abs(e).max()), max(4.0, np.abs(e).max()), 201)
        self.lines_ += histogram.plot(grid, norm.pdf(grid), color="black", label="N(0, 1)")
        histogram.set_title("histogram")
        histogram.legend()

        # Expected quantiles of order statistics by Blom's formula.
        expected = norm.ppf((np.arange(1, n + 1) - 0.375) / (n + 0.25))
        self.lines_ += quantiles.plot(expected, np.sort(e), ".", color=style["color"])
        ends = np.array([expected[0], expected[-1]])
        self.lines_ += quantiles.plot(ends, ends, color="black", linewidth=0.8)
        quantiles.set(title="normal Q-Q", xlabel="normal quantiles", ylabel="sample quantiles")

        j = np.arange(1, lags + 1)
        correlogram.vlines(j, 0.0, self.autocorrelations_, color=style["color"])
        correlogram.plot(j, self.autocorrelations_, "o", markersize=3, color=style["color"])
        width = 1.96 * np.sqrt((n - j) / (n * (n + 2)))
        correlogram.fill_between(j, -width, width, color="black", alpha=0.12, linewidth=0)
        correlogram.axhline(0.0, color="black", linewidth=0.8)
        correlogram.set(title="correlogram", xlabel="lag in samples")
        return self
