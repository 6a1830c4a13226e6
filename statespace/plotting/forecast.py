"""History, forecast and interval bands of a Kalman model or of any forecaster with sktime's interface."""

import numpy as np
import pandas as pd
from scipy.stats import norm

from statespace.plotting.axes import check_coverage, drawable, name_times, one_axis


class ForecastDisplay:
    """A series, its forecast (or interpolation), and one or several interval bands.

    Made by `from_estimator` or `from_predictions`, which draw it; `plot` draws it again.

    Parameters
    ----------
    times : array-like of shape (n,)
        Of the predictions, in any order.
    mean : array-like of shape (n,)
    intervals : dict of float to pair of array-like of shape (n,), optional
        The lower and the upper end for each coverage.
    history : pair of array-like of shape (n_samples,), optional
        Times and values of what was observed.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
        The history, if there is one, and the mean.
    bands_ : list of matplotlib.collections.PolyCollection
        Of the intervals, the widest first.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalTrend
    >>> from statespace.plotting import ForecastDisplay
    >>> t = np.arange(30.0)[:, np.newaxis]
    >>> gp = KalmanRegressor(LocalTrend()).fit(t, np.sqrt(t[:, 0]))
    >>> display = ForecastDisplay.from_estimator(gp, np.arange(30.0, 40.0)[:, np.newaxis], coverage=[0.5, 0.9])
    >>> len(display.bands_), len(display.lines_)
    (2, 2)
    """

    def __init__(self, times, mean, intervals=None, history=None):
        self.times, self.mean, self.intervals, self.history = times, mean, intervals or {}, history

    @classmethod
    def from_estimator(
        cls, estimator, X=None, *, fh=None, y=None, coverage=0.9, output=0, series=None, ax=None, **options
    ):
        """Predict and draw.

        Parameters
        ----------
        estimator : KalmanRegressor or forecaster
            Fitted: `statespace.KalmanRegressor`, or any forecaster with sktime's ``predict_interval``.
        X : array-like, optional
            The rows to predict of a KalmanRegressor; the covariates of a forecaster.
        fh : ForecastingHorizon, array-like or int, optional
            Of a forecaster; None is that of its ``fit``.
        y : Series, optional
            The history of a forecaster; None is what it remembers.
        coverage : float or sequence of float, default=0.9
            Of the intervals, which are those of new observations.
        output : int, default=0
            Which output or column, where there are several.
        series : label or tuple, optional
            Of a forecaster that was fitted to a panel or a hierarchy: which series is drawn, as its index names it.
        ax : matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        ForecastDisplay

        Raises
        ------
        ValueError
            For a coverage that does not lie between 0 and 1, a regressor without X or one of many series, or no
            ``series`` where a forecaster has many.
        """
        coverage = check_coverage(coverage)
        if hasattr(estimator, "predict_interval"):
            display = cls(*_of_forecaster(estimator, X, fh, y, coverage, output, series))
        else:
            display = cls(*_of_regressor(estimator, X, coverage, output))
        return display.plot(ax, **options)

    @classmethod
    def from_predictions(cls, times, mean, std=None, *, history=None, coverage=0.9, ax=None, **options):
        """Draw what was predicted.

        Parameters
        ----------
        times : array-like of shape (n,)
        mean : array-like of shape (n,)
        std : array-like of shape (n,), optional
            Of normal distributions, from which the intervals come; none are drawn without.
        history : pair of array-like of shape (n_samples,), or Series, optional
            Times and values of what was observed.
        coverage : float or sequence of float, default=0.9
        ax : matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        ForecastDisplay

        Examples
        --------
        >>> from statespace.plotting import ForecastDisplay
        >>> display = ForecastDisplay.from_predictions([3.0, 4.0], [1.0, 1.5], std=[0.1, 0.2], coverage=0.95)
        >>> display.intervals[0.95][1].round(3).tolist()
        [1.196, 1.892]
        """
        intervals = {} if std is None else normal_intervals(mean, std, check_coverage(coverage))
        if isinstance(history, pd.Series):
            history = history.index, history.to_numpy()
        return cls(times, mean, intervals, history).plot(ax, **options)

    def plot(self, ax=None, *, history_kw=None, line_kw=None, band_kw=None):
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            None makes a figure.
        history_kw, line_kw, band_kw : dict, optional
            To ``ax.plot`` for the history and the mean, and to ``ax.fill_between``.

        Returns
        -------
        ForecastDisplay
        """
        self.ax_, self.figure_ = one_axis(ax)
        self.lines_, self.bands_ = [], []
        if self.history is not None:
            times, values = drawable(self.history[0]), np.asarray(self.history[1], dtype=float)
            order = np.argsort(times, kind="stable")
            style = {"color": "black", "marker": ".", "linewidth": 0.8, "markersize": 4, "label": "observed"}
            self.lines_ += self.ax_.plot(times[order], values[order], **(style | (history_kw or {})))
        times = drawable(self.times)
        order = np.argsort(times, kind="stable")
        style = {"color": "tab:blue", "label": "mean"} | (line_kw or {})
        for place, coverage in enumerate(sorted(self.intervals, reverse=True)):
            low, high = (np.asarray(end, dtype=float)[order] for end in self.intervals[coverage])
            # An infinite end cannot be drawn.
            drawn = np.isfinite(low) & np.isfinite(high)
            shade = {"color": style["color"], "alpha": 0.2 + 0.15 * place, "linewidth": 0, "label": f"{coverage:.0%}"}
            band = self.ax_.fill_between(times[order], low, high, where=drawn, **(shade | (band_kw or {})))
            self.bands_.append(band)
        self.lines_ += self.ax_.plot(times[order], np.asarray(self.mean, dtype=float)[order], **style)
        self.ax_.legend()
        name_times(self.ax_, times)
        return self


def normal_intervals(mean, std, coverage):
    """The ends of intervals of normal distributions.

    Parameters
    ----------
    mean, std : array-like of shape (n,)
    coverage : list of float

    Returns
    -------
    dict of float to (ndarray, ndarray)

    Examples
    --------
    >>> from statespace.plotting.forecast import normal_intervals
    >>> [end.round(3) for end in normal_intervals([0.0], [1.0], [0.9])[0.9]]
    [array([-1.645]), array([1.645])]
    """
    mean, std = np.asarray(mean, dtype=float), np.asarray(std, dtype=float)
    widths = {value: norm.ppf((1 + value) / 2) for value in coverage}
    return {value: (mean - width * std, mean + width * std) for value, width in widths.items()}


def _of_regressor(estimator, X, coverage, output):
    if X is None:
        raise ValueError("give X, the rows to predict: ForecastDisplay.from_estimator(estimator, X).")
    if getattr(estimator, "series_", None) is not None:
        raise ValueError("the model was fitted to many series. Predict one of them, and draw it by from_predictions.")
    from statespace.kalman.rows import read

    mean, std = estimator.predict(X, return_std=True, include_noise=not estimator._known_each)
    record, rows = estimator._record, read(X, estimator, reset=False)
    mean, std = (np.reshape(part, (len(part), -1))[:, output] for part in (mean, std))
    return rows.times, mean, normal_intervals(mean, std, coverage), (record.times, record.y[:, output])


def _of_forecaster(estimator, X, fh, y, coverage, output, series):
    mean = estimator.predict(fh=fh, X=X)
    table = estimator.predict_interval(fh=fh, X=X, coverage=coverage)
    if y is None:
        y = getattr(estimator, "_history", None)
        y = getattr(estimator, "_y", None) if y is None else y
    if isinstance(mean.index, pd.MultiIndex):
        names = mean.index.droplevel(-1).unique().tolist()
        if series is None or series not in names:
            raise ValueError(f"the forecaster has many series: give series=, one of {_some(names)}. Got {series!r}.")
        mean, table = mean.xs(series), table.xs(series)
        y = None if y is None else y.xs(series)
    frame = mean.to_frame() if isinstance(mean, pd.Series) else mean
    names = table.columns.get_level_values(0).unique()
    intervals = {c: (table[names[output], c, "lower"], table[names[output], c, "upper"]) for c in coverage}
    if isinstance(y, pd.DataFrame):
        y = y.iloc[:, output]
    history = None if y is None else (y.index, y.to_numpy())
    return frame.index, frame.iloc[:, output].to_numpy(), intervals, history


def _some(names):
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
