"""A series and what each of its samples adds to an answer."""

import numpy as np

from statespace.plotting.axes import drawable, name_times, some_axes
from statespace.plotting.selection import one_of


class AttributionDisplay:
    """A panel for each channel: its values over time, and as bars what each of them adds to the answer.

    Parameters
    ----------
    attribution : DataFrame
        A row for each sample at its time and a column for each channel, in the units of the answer.
    values : ndarray of shape (n_times, n_channels)
        The samples; NaN where missing.
    answer, baseline : float, optional
        What is explained, and what it is for the baseline: the bars of all channels add up to the difference.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_channels,)
        Of the values.
    twins_ : list of matplotlib.axes.Axes
        Of the bars, over these.
    ax_ : matplotlib.axes.Axes
        The first.
    figure_ : matplotlib.figure.Figure
    lines_ : list of matplotlib.lines.Line2D
    bars_ : list of matplotlib.collections.LineCollection

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.plotting import AttributionDisplay
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X[:, -1])
    >>> display = AttributionDisplay.from_estimator(reg, X, series=2)
    >>> display.attribution.shape, len(display.axes_)
    ((12, 1), 1)
    """

    def __init__(self, attribution, values, answer=None, baseline=None):
        self.attribution, self.values, self.answer, self.baseline = attribution, values, answer, baseline

    @classmethod
    def from_estimator(
        cls, estimator, X, times=None, *, series=0, output=None, at=-1, baseline=None, axes=None, **options
    ):
        """Explain one answer, by `statespace.inspection.integrated_gradients`, and draw it.

        Parameters
        ----------
        estimator : DeepRegressor or DeepClassifier
            Fitted.
        X, times
            Series as in ``predict``.
        series : int, default=0
            Which of them is explained.
        output, at, baseline
            As in `statespace.inspection.integrated_gradients`: which output or class, at which step, against what. Of a
            baseline of series that of the one is taken.
        axes : array-like of matplotlib.axes.Axes, optional
            One for each channel.
        **options : dict
            To `plot`.

        Returns
        -------
        AttributionDisplay

        Raises
        ------
        ValueError
            As in `statespace.inspection.integrated_gradients`.
        """
        from statespace.inspection import integrated_gradients

        one = one_of(estimator, X, times, series)
        if isinstance(baseline, list | tuple | np.ndarray) and np.ndim(baseline[0]) == 2:
            baseline = [baseline[series]]
        found = integrated_gradients(estimator, one, output=output, at=at, baseline=baseline)
        answer, start = float(found.answer[0]), float(found.baseline[0])
        return cls(found.values[0], one.values[0], answer, start).plot(axes, **options)

    @classmethod
    def from_attribution(cls, attribution, values, *, answer=None, baseline=None, axes=None, **options):
        """Draw attributions of any kind.

        Parameters
        ----------
        attribution : DataFrame
            A row for each sample at its time and a column for each channel.
        values : array-like of shape (n_times, n_channels) or (n_times,)
        answer, baseline : float, optional
        axes, **options
            As in `from_estimator`.

        Returns
        -------
        AttributionDisplay

        Raises
        ------
        ValueError
            The two differ in shape.

        Examples
        --------
        >>> import pandas as pd
        >>> from statespace.plotting import AttributionDisplay
        >>> table = pd.DataFrame({"flow": [0.1, -0.2]}, index=[0.0, 1.5])
        >>> len(AttributionDisplay.from_attribution(table, [3.0, 4.0]).bars_)
        1
        """
        values = np.asarray(values, dtype=float).reshape(len(attribution), -1)
        if values.shape != attribution.shape:
            raise ValueError(
                f"values must have a number for each of the attribution's. Got shapes {values.shape} and "
                f"{attribution.shape}."
            )
        return cls(attribution, values, answer, baseline).plot(axes, **options)

    def plot(self, axes=None, *, line_kw=None, bar_kw=None):
        """Draw.

        Parameters
        ----------
        axes : array-like of matplotlib.axes.Axes, optional
            One for each channel; None makes a figure.
        line_kw, bar_kw : dict, optional
            To ``ax.plot`` for the values and to ``ax.vlines`` for the bars.

        Returns
        -------
        AttributionDisplay
        """
        n = self.attribution.shape[1]
        self.axes_, self.figure_ = some_axes(axes, n, 1, (9.0, 1.0 + 2.2 * n), sharex=axes is None)
        self.ax_ = self.axes_[0]
        times, table = drawable(self.attribution.index), self.attribution.to_numpy(dtype=float)
        largest = np.abs(table).max(initial=0.0) or 1.0
        self.lines_, self.bars_, self.twins_ = [], [], []
        names = zip(self.axes_, self.attribution.columns, table.T, np.asarray(self.values).T, strict=True)
        for ax, name, column, values in names:
            style = {"color": "0.6", "marker": ".", "linewidth": 0.8, "markersize": 4} | (line_kw or {})
            self.lines_ += ax.plot(times, values, **style)
            twin = ax.twinx()
            colors = np.where(column >= 0, "tab:red", "tab:blue")
            self.bars_.append(twin.vlines(times, 0.0, column, **({"colors": colors, "linewidth": 2} | (bar_kw or {}))))
            twin.axhline(0.0, color="black", linewidth=0.6)
            # One scale for all channels, with 0 in the middle.
            twin.set(ylim=(-1.1 * largest, 1.1 * largest), ylabel="adds")
            self.twins_.append(twin)
            ax.set_ylabel(str(name) if isinstance(name, str) else f"channel {name}")
        if self.answer is not None and self.baseline is not None:
            added = self.answer - self.baseline
            self.ax_.set_title(f"{self.answer:.4g}: the baseline's {self.baseline:.4g} and {added:+.4g} of the samples")
        name_times(self.axes_[-1], times)
        return self
