"""What a selective layer chooses over the time of a series: its steps, what it keeps and its gates."""

import numpy as np

from statespace.plotting.axes import drawable, name_times, some_axes


class SelectionDisplay:
    """Steps, gates and what is kept of the state, a panel for each and a row of colours for each channel or head.

    Parameters
    ----------
    table : DataFrame
        A row for each sample at its time, columns (name, number), as `statespace.inspection.selection` has them.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes, shape (n_names,)
    ax_ : matplotlib.axes.Axes
        The first.
    figure_ : matplotlib.figure.Figure
    meshes_ : list of matplotlib.collections.QuadMesh
        One for each name.
    colorbars_ : list of matplotlib.colorbar.Colorbar

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import MambaRegressor
    >>> from statespace.plotting import SelectionDisplay
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = MambaRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X[:, -1])
    >>> display = SelectionDisplay.from_estimator(reg, X)
    >>> [ax.get_title() for ax in display.axes_]
    ['step', 'kept', 'gate']
    """

    def __init__(self, table):
        self.table = table

    @classmethod
    def from_estimator(cls, estimator, X, times=None, *, series=0, layer=0, names=None, axes=None, **options):
        """Draw what a layer chooses along a series.

        Parameters
        ----------
        estimator : DeepRegressor or DeepClassifier
            Fitted, with a selective layer.
        X, times
            Series as in ``predict``.
        series : int, default=0
            Which of them is drawn.
        layer : int, default=0
            Which layer, counted from the input; negative from the output.
        names : str or sequence of str, optional
            Which of ``"step"``, ``"kept"``, ``"gate"`` and so on; None: all that the layer has.
        axes : array-like of matplotlib.axes.Axes, optional
            One for each name.
        **options : dict
            To `plot`.

        Returns
        -------
        SelectionDisplay

        Raises
        ------
        ValueError
            The layer's system does not depend on its input; it has no such name; or as in ``predict``.
        """
        from statespace.inspection import selection

        (table,) = selection(estimator, one_of(estimator, X, times, series), layer=layer)
        return cls(_chosen(table, names)).plot(axes, **options)

    @classmethod
    def from_selection(cls, table, *, names=None, axes=None, **options):
        """Draw a table of `statespace.inspection.selection`.

        Parameters
        ----------
        table : DataFrame
        names, axes, **options
            As in `from_estimator`.

        Returns
        -------
        SelectionDisplay

        Examples
        --------
        >>> import pandas as pd
        >>> from statespace.plotting import SelectionDisplay
        >>> table = pd.DataFrame({("step", 0): [0.1, 0.2], ("step", 1): [0.3, 0.1]})
        >>> len(SelectionDisplay.from_selection(table).meshes_)
        1
        """
        return cls(_chosen(table, names)).plot(axes, **options)

    def plot(self, axes=None, *, order=True, mesh_kw=None):
        """Draw.

        Parameters
        ----------
        axes : array-like of matplotlib.axes.Axes, optional
            One for each name; None makes a figure.
        order : bool, default=True
            Whether channels are sorted by their mean, so that like stands by like; else they keep their numbers.
        mesh_kw : dict, optional
            To ``ax.pcolormesh``.

        Returns
        -------
        SelectionDisplay

        Raises
        ------
        ValueError
            There is no sample to draw.
        """
        from matplotlib.colors import LogNorm

        if not len(self.table):
            raise ValueError("there is no sample to draw.")
        names = self.table.columns.get_level_values(0).unique()
        self.axes_, self.figure_ = some_axes(axes, len(names), 1, (9.0, 1.0 + 2.2 * len(names)), sharex=axes is None)
        self.ax_ = self.axes_[0]
        self.meshes_, self.colorbars_ = [], []
        times = drawable(self.table.index)
        for name, ax in zip(names, self.axes_, strict=True):
            part = self.table[name]
            values = part.to_numpy(dtype=float)
            if order:
                values = values[:, np.argsort(values.mean(axis=0), kind="stable")]
            style = {"cmap": "viridis"}
            if name == "step" and (values > 0).all() and values.max() > values.min():
                # Steps differ by orders of magnitude.
                style["norm"] = LogNorm(values.min(), values.max())
            edges = np.arange(values.shape[1] + 1) - 0.5
            mesh = ax.pcolormesh(_edges(times), edges, values.T, **(style | (mesh_kw or {})))
            self.meshes_.append(mesh)
            self.colorbars_.append(self.figure_.colorbar(mesh, ax=ax))
            ax.set(title=str(name), ylabel="channel, by its mean" if order else "channel")
        name_times(self.axes_[-1], times)
        return self


def one_of(estimator, X, times, series):
    """One of the series that are given, as `predict` takes it.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted.
    X, times
        As in ``predict``.
    series : int

    Returns
    -------
    SeriesCollection

    Raises
    ------
    IndexError
        There are not so many series.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.plotting.selection import one_of
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X[:, -1])
    >>> len(one_of(reg, X, None, 3))
    1
    """
    if not hasattr(estimator, "_read"):
        raise TypeError(
            f"a deep regressor or classifier is expected, such as S4DRegressor. Got {type(estimator).__name__} instead."
        )
    collection = estimator._read(X, times)
    if not -len(collection) <= series < len(collection):
        raise IndexError(f"X has {len(collection)} series, counted from 0. Got series={series!r}.")
    return collection[[series]]


def _chosen(table, names):
    if names is None:
        return table
    known = table.columns.get_level_values(0).unique().tolist()
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            raise ValueError(f"names must be among {', '.join(map(repr, known))}. Got {name!r}.")
    return table[names]


def _edges(times):
    """Where the cell of each sample begins, and the last ends: half-way between samples."""
    if len(times) == 1:
        width = np.timedelta64(1, "D") if times.dtype.kind == "M" else 1.0
        return np.array([times[0], times[0] + width])
    middle = times[:-1] + np.diff(times) / 2
    return np.concatenate([[times[0] - (middle[0] - times[0])], middle, [times[-1] + (times[-1] - middle[-1])]])
