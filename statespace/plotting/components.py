"""The components of a Kalman model, one below the other."""

import numpy as np
import pandas as pd

from statespace.plotting.axes import check_coverage, drawable, name_times, some_axes
from statespace.plotting.forecast import normal_intervals


class ComponentsDisplay:
    """Each component of a signal with a band, on an axis of its own.

    Parameters
    ----------
    table : DataFrame
        As from `KalmanRegressor.decompose`: a column for each component, and one with its standard deviation with the
        suffix ``_std``; the index is the time.
    coverage : float, default=0.95
        Of the bands.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes
        One for each component.
    ax_ : matplotlib.axes.Axes
        The first.
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
    bands_ : list of matplotlib.collections.PolyCollection

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel, Seasonal
    >>> from statespace.plotting import ComponentsDisplay
    >>> t = np.arange(36.0)[:, np.newaxis]
    >>> gp = KalmanRegressor(LocalLevel() + Seasonal(12, harmonics=1)).fit(t, np.sin(2 * np.pi * t[:, 0] / 12))
    >>> [ax.get_ylabel() for ax in ComponentsDisplay.from_estimator(gp).axes_]
    ['local_level', 'seasonal']
    """

    def __init__(self, table, coverage=0.95):
        self.table, self.coverage = table, coverage

    @classmethod
    def from_estimator(cls, estimator, X=None, *, coverage=0.95, output=0, axes=None, **options):
        """Decompose and draw.

        Parameters
        ----------
        estimator : KalmanRegressor, or KalmanForecaster
            Fitted.
        X : array-like, optional
            The rows to decompose; None is the data of `fit`.
        coverage : float, default=0.95
        output : int, default=0
            Which output, where there are several.
        axes : array-like of matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        ComponentsDisplay
        """
        estimator = getattr(estimator, "regressor_", estimator)
        if getattr(estimator, "series_", None) is not None:
            raise ValueError("the model was fitted to many series. Decompose one of them, and draw from_predictions.")
        if X is not None:
            table = estimator.decompose(X)
            return cls(table if estimator._single else table[output], coverage).plot(axes, **options)
        record = estimator._record
        mean, variance = estimator._posterior().at(record.times, record.covariates, components=True)
        columns = {}
        for j, (name, _) in enumerate(estimator.process_.named()):
            columns[name], columns[f"{name}_std"] = mean[:, j, output], np.sqrt(variance[:, j, output])
        return cls(pd.DataFrame(columns, index=record.times), coverage).plot(axes, **options)

    @classmethod
    def from_predictions(cls, table, *, coverage=0.95, axes=None, **options):
        """Draw a table of components.

        Parameters
        ----------
        table : DataFrame
            As from `KalmanRegressor.decompose`.
        coverage : float, default=0.95
        axes : array-like of matplotlib.axes.Axes, optional
        **options : dict
            To `plot`.

        Returns
        -------
        ComponentsDisplay

        Examples
        --------
        >>> import pandas as pd
        >>> from statespace.plotting import ComponentsDisplay
        >>> table = pd.DataFrame({"level": [1.0, 2.0], "level_std": [0.1, 0.1], "cycle": [0.5, -0.5]})
        >>> display = ComponentsDisplay.from_predictions(table)
        >>> len(display.axes_), len(display.bands_)
        (2, 1)
        """
        return cls(table, coverage).plot(axes, **options)

    def plot(self, axes=None, *, line_kw=None, band_kw=None):
        """Draw.

        Parameters
        ----------
        axes : array-like of matplotlib.axes.Axes, optional
            One for each component; None makes a figure.
        line_kw, band_kw : dict, optional
            To ``ax.plot`` and ``ax.fill_between``.

        Returns
        -------
        ComponentsDisplay
        """
        (coverage,) = check_coverage(self.coverage)
        columns = list(self.table.columns)
        names = [name for name in columns if not (f"{name}".endswith("_std") and f"{name}"[:-4] in columns)]
        self.axes_, self.figure_ = some_axes(axes, len(names), 1, (7.0, 1.8 * len(names) + 0.6), sharex=True)
        self.ax_, self.lines_, self.bands_ = self.axes_[0], [], []
        times = drawable(self.table.index)
        order = np.argsort(times, kind="stable")
        style = {"color": "tab:blue"} | (line_kw or {})
        for ax, name in zip(self.axes_, names, strict=True):
            mean = self.table[name].to_numpy(dtype=float)[order]
            if f"{name}_std" in columns:
                std = self.table[f"{name}_std"].to_numpy(dtype=float)[order]
                low, high = normal_intervals(mean, std, [coverage])[coverage]
                shade = {"color": style["color"], "alpha": 0.25, "linewidth": 0} | (band_kw or {})
                self.bands_.append(ax.fill_between(times[order], low, high, where=np.isfinite(std), **shade))
            self.lines_ += ax.plot(times[order], mean, **style)
            ax.set_ylabel(name)
        name_times(self.axes_[-1], times)
        return self
