"""What all Displays share: matplotlib when it is needed, axes, times that it can draw."""

import numpy as np
import pandas as pd


def pyplot():
    """matplotlib.pyplot.

    Raises
    ------
    ImportError
        With what to install.

    Examples
    --------
    >>> from statespace.plotting.axes import pyplot
    >>> pyplot().__name__
    'matplotlib.pyplot'
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "Displays are drawn by matplotlib, which is not installed: pip install 'statespace-learn[plot]', or "
            "pip install matplotlib."
        ) from error
    return plt


def one_axis(ax):
    """An axis and its figure; new ones for None.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None

    Returns
    -------
    ax, figure
    """
    ax = pyplot().subplots()[1] if ax is None else ax
    return ax, ax.figure


def some_axes(axes, n_rows, n_columns, size, **options):
    """An ndarray of n_rows · n_columns axes and their figure; new ones for None.

    Parameters
    ----------
    axes : array-like of matplotlib.axes.Axes or None
    n_rows, n_columns : int
    size : pair of float
        Of a new figure, in inches.
    **options : dict
        To ``matplotlib.pyplot.subplots``.

    Returns
    -------
    axes : ndarray of shape (n_rows · n_columns,)
    figure

    Raises
    ------
    ValueError
        For another number of axes.
    """
    n = n_rows * n_columns
    if axes is None:
        options |= {"figsize": size, "squeeze": False, "layout": "constrained"}
        figure, axes = pyplot().subplots(n_rows, n_columns, **options)
        return axes.ravel(), figure
    axes = np.ravel(np.asarray(axes, dtype=object))
    if len(axes) != n:
        raise ValueError(f"axes must be {n}, one for each panel. Got {len(axes)}.")
    return axes, axes[0].figure


def name_times(ax, times):
    """Label the axis of time: datetimes aslant, so that they do not run into each other."""
    if times.dtype.kind == "M":
        ax.tick_params(axis="x", labelrotation=30)
    else:
        ax.set_xlabel("time")


def drawable(times):
    """Times as matplotlib draws them: periods at their beginnings, other datetimes and numbers as they are.

    Parameters
    ----------
    times : Index or array-like of shape (n,)

    Returns
    -------
    ndarray of shape (n,)

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.plotting.axes import drawable
    >>> drawable(pd.period_range("2024-01", periods=1, freq="M"))
    array(['2024-01-01T00:00:00.000000000'], dtype='datetime64[ns]')
    """
    index = pd.Index(times)
    if isinstance(index, pd.MultiIndex):
        index = index.get_level_values(-1)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        # Clocks of one zone are drawn as they read there.
        index = index.tz_localize(None).as_unit("ns")
    return index.to_numpy()


def check_coverage(coverage):
    """Coverages of interval bands, the widest first.

    Parameters
    ----------
    coverage : float or sequence of float

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        If one does not lie between 0 and 1.

    Examples
    --------
    >>> from statespace.plotting.axes import check_coverage
    >>> check_coverage([0.5, 0.9])
    [0.9, 0.5]
    """
    values = sorted({float(value) for value in np.atleast_1d(coverage)}, reverse=True)
    if not all(0 < value < 1 for value in values):
        raise ValueError(f"coverage must lie between 0 and 1. Got {coverage!r}.")
    return values
