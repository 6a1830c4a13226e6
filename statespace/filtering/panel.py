"""X, y and the noise of one series or of many, in the forms that `statespace.KalmanRegressor` takes.

Many series are read as one long table, with a number beside each row that says which series it belongs to: what is
done for each series is a matter of counting, not of loops.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from statespace.forms import check_values, filled, has_rows, is_nested
from statespace.kalman.posterior import Record
from statespace.kalman.rows import Rows, read, read_table
from statespace.series import SeriesCollection


class Panel(NamedTuple):
    """Checked rows of one or many series, in the order in which they were given.

    Attributes
    ----------
    rows : Rows
        Of all series.
    series : ndarray of int, shape (n,)
        The place of each row's series in ``labels``.
    labels : Index or None
        The names of the series; None where X was one series.
    lengths : ndarray of int, shape (n_series,), or None
        Where the series came one by one, and answers go back so.
    stacked : bool
        Whether they came as one array of three dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.filtering.panel import read_panel
    >>> panel = read_panel([np.array([[0.0], [1.0]]), np.array([[5.0]])], KalmanRegressor(), reset=True)
    >>> panel.series
    array([0, 0, 1])
    >>> panel.given(np.array([1.0, 2.0, 3.0]))
    [array([1., 2.]), array([3.])]
    """

    rows: Rows
    series: np.ndarray
    labels: pd.Index | None = None
    lengths: np.ndarray | None = None
    stacked: bool = False

    def given(self, array):
        """An array with an entry for each row, in the form in which X came."""
        if self.lengths is None:
            return array
        if self.stacked:
            return array.reshape(len(self.lengths), -1, *array.shape[1:])
        return np.split(array, np.cumsum(self.lengths)[:-1])

    def record(self, y, noise):
        """What was seen: the rows in the order of series and time.

        Parameters
        ----------
        y : ndarray of shape (n,) or (n, m)
        noise : float, ndarray of shape (n,) or (n, m), or None

        Returns
        -------
        Record
        """
        times, covariates = self.rows.times, self.rows.covariates
        order = np.lexsort((times, self.series))
        starts = None
        if self.labels is not None:
            starts = np.append(0, np.cumsum(np.bincount(self.series, minlength=len(self.labels)))).astype(np.int64)
        noise = noise[order] if np.ndim(noise) else noise
        return Record(times[order], covariates[order], y[order].reshape(len(y), -1), noise, starts)


def is_many(X):
    """Whether X holds many series rather than one.

    Parameters
    ----------
    X : object

    Returns
    -------
    bool

    Examples
    --------
    >>> from statespace.filtering.panel import is_many
    >>> is_many([[0.0], [1.0]]), is_many([[[0.0], [1.0]], [[5.0]]])
    (False, True)
    """
    if isinstance(X, SeriesCollection | pd.MultiIndex):
        return True
    if isinstance(X, pd.DataFrame | pd.Series):
        return isinstance(X.index, pd.MultiIndex)
    if isinstance(X, np.ndarray) and X.dtype.kind != "O":
        return X.ndim == 3
    if not (isinstance(X, list | tuple) or is_nested(X)) or len(X) == 0:
        return False
    return any(_is_series(entry) for entry in X)


def _is_series(entry):
    """Whether an entry of a list is a series: a table, or a row of datetimes, but no row of numbers."""
    if isinstance(entry, pd.DataFrame | pd.Index):
        return True
    if isinstance(entry, pd.Series | np.ndarray):
        return np.ndim(entry) == 2 or getattr(entry.dtype, "kind", "O") in "mM"
    return isinstance(entry, list | tuple) and len(entry) > 0 and has_rows(entry[0])


def read_panel(X, estimator, *, reset):
    """X as the rows of one series or of many.

    Parameters
    ----------
    X : array-like
        One series as in `statespace.kalman.rows.read`; a list of such; an array of shape (n_series, n_times, 1 + c); a
        SeriesCollection with times, whose channels are covariates; a DataFrame with a (series, time) MultiIndex, or
        such an index alone.
    estimator : estimator
        Learns the number and the names of the columns in ``fit``, or is asked for them.
    reset : bool
        True in ``fit``.

    Returns
    -------
    Panel

    Raises
    ------
    ValueError
        As in `statespace.kalman.rows.read`, with the series named.
    """
    if not is_many(X):
        rows = read(X, estimator, reset=reset)
        return Panel(rows, np.zeros(len(rows.times), dtype=np.intp))
    if isinstance(X, SeriesCollection):
        return _from_collection(X, estimator, reset)
    if isinstance(X, pd.MultiIndex | pd.DataFrame | pd.Series):
        return _from_index(X, estimator, reset)
    return _from_list(list(X), isinstance(X, np.ndarray) and X.ndim == 3, estimator, reset)


def _from_collection(X, estimator, reset):
    if X.times is None:
        raise ValueError(
            "X is a SeriesCollection without times. Give it times=, or give a list of arrays whose first column is the "
            "time."
        )
    table = pd.DataFrame(np.concatenate(X.values), columns=X.columns)
    times, series = np.concatenate(X.times), np.repeat(np.arange(len(X)), X.lengths)
    labels = pd.RangeIndex(len(X)) if X.labels is None else X.labels
    index = pd.MultiIndex.from_arrays([labels[series], pd.Index(times)], names=["series", "time"])
    names = tuple(range(table.shape[1])) if X.columns is None else tuple(X.columns)
    rows = read_table(times, table, index, estimator, reset=reset, keeps_zone=False)._replace(names=names)
    return Panel(rows, series, labels, X.lengths)


def _from_index(X, estimator, reset):
    if isinstance(X, pd.Series):
        X = X.to_frame()
    table = pd.DataFrame(index=X) if isinstance(X, pd.MultiIndex) else X
    if len(table) == 0:
        raise ValueError("X must have at least one row, got a table with none (0 samples).")
    codes, labels = pd.factorize(table.index.droplevel(-1))
    if (codes < 0).any():
        k = int(np.argmax(codes < 0))
        raise ValueError(f"X must name the series of every row: row {k} of its index is {table.index[k]!r}.")
    times = table.index.get_level_values(-1)
    rows = read_table(times, table.set_axis(times), table.index, estimator, reset=reset)
    return Panel(rows, codes, pd.Index(labels, tupleize_cols=False))


def _from_list(X, stacked, estimator, reset):
    kinds = {next((kind for kind in (pd.DataFrame, pd.Index, pd.Series) if isinstance(entry, kind)), 0) for entry in X}
    if len(kinds) > 1 or not all(_is_series(entry) for entry in X):
        raise ValueError(
            "X is a list of series, and its entries are not all of one kind. Give a list of arrays of shape (n_times, "
            "1 + n_covariates), of DataFrames, or of DatetimeIndexes."
        )
    entries = X if kinds != {0} else [np.asarray(filled(entry)) for entry in X]
    lengths = np.array([len(entry) for entry in entries], dtype=np.int64)
    if (lengths == 0).any():
        raise ValueError(f"series {int(np.argmin(lengths))} of X is empty: give it at least one sample, or drop it.")
    _check_columns(entries)
    if isinstance(entries[0], pd.Index):
        everything = entries[0].append(entries[1:])
    else:
        everything = np.concatenate(entries) if kinds == {0} else pd.concat(entries)
    try:
        rows = read(everything, estimator, reset=reset)
    except ValueError as error:
        _name_the_series(entries, estimator, reset)
        raise error
    series = np.repeat(np.arange(len(X)), lengths)
    index = pd.MultiIndex.from_arrays([series, rows.index], names=["series", rows.index.name or "time"])
    return Panel(rows._replace(index=index), series, pd.RangeIndex(len(X)), lengths, stacked)


def _check_columns(entries):
    first = entries[0]
    for i, entry in enumerate(entries):
        if isinstance(entry, pd.DataFrame):
            same, shown = entry.columns.equals(first.columns), (list(entry.columns), list(first.columns))
        else:
            same, shown = entry.shape[1:] == first.shape[1:], (entry.shape[1:], first.shape[1:])
        if not same:
            raise ValueError(f"series {i} of X has the columns {shown[0]}, but series 0 has {shown[1]}.")


def _name_the_series(entries, estimator, reset):
    """Raise the error of the first series that cannot be read by itself."""
    for i, entry in enumerate(entries):
        try:
            read(entry, estimator, reset=reset)
        except ValueError as error:
            raise ValueError(f"series {i} of X: {error}") from None


def read_values(values, panel, name):
    """y, or the noise, of one series or of many as one array.

    Parameters
    ----------
    values : array-like
        With an entry, or a row of outputs, for each row of X: an array, where X is one series or a table; a list of
        arrays, an array of shape (n_series, n_times[, n_outputs]) or a SeriesCollection, where X is many; a Series or
        DataFrame with the MultiIndex of X, in any order.
    panel : Panel
    name : str
        For error messages.

    Returns
    -------
    array-like of shape (n,) or (n, m)
        Unchecked, where it came as an array.

    Raises
    ------
    ValueError
        If the lengths differ from those of X, or rows of X are not found.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.filtering.panel import read_panel, read_values
    >>> panel = read_panel([np.array([[0.0], [1.0]]), np.array([[5.0]])], KalmanRegressor(), reset=True)
    >>> read_values([[1.0, 2.0], [3.0]], panel, "y")
    array([1., 2., 3.])
    """
    if panel.labels is None:
        return values
    if isinstance(values, pd.DataFrame | pd.Series) and isinstance(values.index, pd.MultiIndex):
        return _aligned(values, panel, name)
    if isinstance(values, SeriesCollection):
        values = values.values
    nested = isinstance(values, list | tuple) or is_nested(values)
    if panel.lengths is None and not (nested and len(values) and all(has_rows(entry) for entry in values)):
        return values
    if panel.lengths is None:
        if len(values) == len(panel.series):
            return values
        raise ValueError(
            f"{name} must have one entry for each of the {len(panel.series)} rows of X, or the MultiIndex of X. "
            f"Got a list of {len(values)}."
        )
    if values is None or len(values) != len(panel.lengths) or not all(has_rows(entry) for entry in values):
        given = "None" if values is None else f"{len(values)} entries"
        raise ValueError(
            f"{name} must be a list of one array for each of the {len(panel.lengths)} series. Got {given}."
        )
    entries = [check_values(entry, name=f"{name} of series {i}") for i, entry in enumerate(values)]
    for i, (entry, length) in enumerate(zip(entries, panel.lengths, strict=True)):
        if len(entry) != length or entry.shape[1:] != entries[0].shape[1:] or entry.ndim > 2:
            raise ValueError(
                f"{name} of series {i} must have one entry for each of its {length} rows, with as many outputs as that "
                f"of series 0. Got an array of shape {entry.shape}."
            )
    return np.concatenate(entries)


def _aligned(values, panel, name):
    """The rows in the order of X; of rows with equal labels the first is the first."""
    index, own = panel.rows.index, values.index
    if own.equals(index):
        return values.to_numpy()
    wanted, found = _numbered(index), _numbered(own)
    places = found.get_indexer(wanted)
    if len(own) != len(index) or (places < 0).any():
        what = f"has none for {index[np.argmax(places < 0)]}" if (places < 0).any() else f"has {len(own)} rows"
        raise ValueError(f"{name} must have the {len(index)} rows of X and no others: it {what}.")
    return values.to_numpy()[places]


def _numbered(index):
    """An index without equal entries: each has its number among those that are equal."""
    rows = index.to_frame(index=False, name=list(range(index.nlevels)))
    return pd.MultiIndex.from_frame(rows.assign(number=rows.groupby(list(rows.columns), dropna=False).cumcount()))
