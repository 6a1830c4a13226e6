"""X as rows of a time and covariates, in the forms that `statespace.KalmanRegressor` takes."""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_array, check_consistent_length, validate_data

from statespace.forms import check_values, filled
from statespace.times import as_times, check_same_clock, check_same_zone, clock, has_zone

_TIME_INDEX = (pd.DatetimeIndex, pd.PeriodIndex, pd.TimedeltaIndex)


class Rows(NamedTuple):
    """Checked rows, in the order in which they were given.

    Attributes
    ----------
    times : ndarray of shape (n,)
        float64, datetime64[ns] or timedelta64[ns].
    covariates : ndarray of shape (n, c)
    names : tuple of str or int
        The covariates' names; their indices where they have none.
    index : pandas.Index
        What labels the rows of a table that is made from them.

    Examples
    --------
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman.rows import read
    >>> read([[0.0, 7.0], [1.0, 8.0]], KalmanRegressor(), reset=True).covariates
    array([[7.],
           [8.]])
    """

    times: np.ndarray
    covariates: np.ndarray
    names: tuple
    index: pd.Index


def read(X, estimator, *, reset):
    """X as times and covariates.

    Parameters
    ----------
    X : array-like of shape (n, 1 + c), DataFrame, Index or datetime array of shape (n,)
        The time is the first column (numbers or datetimes); or the index of a DataFrame whose index holds datetimes
        or floats, or that has no columns; or X itself, if X is an index, a Series or an array of datetimes.
    estimator : estimator
        Learns the number and the names of the columns in ``fit``, or is asked for them.
    reset : bool
        True in ``fit``.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        In scikit-learn's words for what is no number, not finite, empty or has other columns than in ``fit``; times
        that are not finite, or numbers where they were datetimes in ``fit``.
    """
    X = _as_frame_if_clock(X)
    if isinstance(X, pd.Index):
        times, table, index = X, pd.DataFrame(index=X), X
    elif isinstance(X, pd.DataFrame) and _has_times(X):
        times, table, index = X.index, X, X.index
    elif isinstance(X, pd.DataFrame) and X.shape[1] and _is_clock(X.iloc[:, 0]):
        times, table, index = X.iloc[:, 0], X.iloc[:, 1:], pd.Index(X.iloc[:, 0])
    else:
        return _numeric(X, estimator, reset)
    return read_table(times, table, index, estimator, reset=reset)


def read_table(times, table, index, estimator, *, reset, keeps_zone=True):
    """Times, and a table of covariates beside them.

    Parameters
    ----------
    times : array-like of shape (n,)
    table : DataFrame of shape (n, c)
    index : pandas.Index
    estimator : estimator
    reset : bool
        As in `read`.
    keeps_zone : bool, default=True
        Whether the times still know the time zone that they came with.

    Returns
    -------
    Rows

    Raises
    ------
    ValueError
        As in `read`.
    """
    if len(table) == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape={table.shape}) while a minimum of 1 is required.")
    if reset or not _counts_otherwise(estimator, table.shape[1], table.shape[1] + 1):
        validate_data(estimator, table, reset=reset, skip_check_array=True)
    covariates = np.zeros((len(table), 0))
    if table.shape[1]:
        covariates = check_array(table, input_name="X", estimator=estimator).astype(np.float64, copy=False)
    zoned = has_zone(times) if keeps_zone else None
    return _checked(times, covariates, tuple(table.columns), index, estimator, reset, zoned)


def read_targets(y, n):
    """y as float64 of shape (n,) or (n, m), NaN where missing.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, m)
    n : int
        The number of rows of X.

    Returns
    -------
    ndarray

    Raises
    ------
    ValueError
        If there is no y, an infinity, nothing but NaN, or another number of rows.

    Examples
    --------
    >>> from statespace.kalman.rows import read_targets
    >>> read_targets([1, None], 2)
    array([ 1., nan])
    """
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    y = check_values(y, name="y")
    if y.ndim > 2:
        raise ValueError(f"y must have one or two dimensions, got an array of shape {y.shape}.")
    check_consistent_length(range(n), y)
    if np.isnan(y).all():
        raise ValueError("Input y contains NaN only: there is nothing to learn from.")
    return y


def _numeric(X, estimator, reset):
    if not reset:
        check_same_clock(np.zeros(1), clock(estimator._record.times))
    frame = X = filled(X)
    _check_columns(X)
    try:
        shape = np.shape(X) if isinstance(X, list | tuple) else getattr(X, "shape", ())
    except ValueError:
        raise ValueError(
            "X must be rows of one length, the time first. Of many series give a list of arrays of shape (n_samples, "
            "1 + n_covariates): a vector of times t as t[:, None]."
        ) from None
    if not reset and len(shape) == 2 and _counts_otherwise(estimator, shape[1] - 1, shape[1] - 1):
        X = check_array(X, ensure_all_finite=False, input_name="X", estimator=estimator)
    else:
        X = validate_data(estimator, X, reset=reset, ensure_all_finite=False)
    X = X.astype(np.float64, copy=False)
    _check_finite(X)
    names = tuple(frame.columns[1:]) if isinstance(frame, pd.DataFrame) else tuple(range(X.shape[1] - 1))
    return _checked(X[:, 0], X[:, 1:], names, pd.Index(X[:, 0], name="time"), estimator, reset)


def _check_columns(X):
    """Refuse a table whose times are text, or stand behind another column."""
    if not isinstance(X, pd.DataFrame) or not X.shape[1] or len(X) == 0:
        return
    clocks = [name for name, column in X.items() if _is_clock(column)]
    if clocks:
        raise ValueError(
            f"X must have its times in the first column, or in its index; the column {clocks[0]!r} holds them. Give "
            f"X.set_index({clocks[0]!r})."
        )
    if isinstance(X.iloc[0, 0], str) and pd.api.types.infer_dtype(X.iloc[:, 0], skipna=True) == "string":
        raise ValueError(
            f"`times` must be numbers, datetimes or timedeltas, got text such as {X.iloc[0, 0]!r} in the first column "
            "of X. Convert text with pd.to_datetime."
        )


def _counts_otherwise(estimator, n_covariates, n_features):
    """Whether `fit` had these covariates, but the time in another place, so that it counted other columns."""
    return estimator._record.covariates.shape[1] == n_covariates and estimator.n_features_in_ == n_features


def _check_finite(X):
    """Scikit-learn's refusal, with the place and what to do."""
    wrong = np.argwhere(~np.isfinite(X))
    if len(wrong):
        row, column = wrong[0].tolist()
        kind = "NaN" if np.isnan(X[row, column]) else "infinity"
        what = "is a time" if column == 0 else f"is covariate {column - 1}"
        raise ValueError(
            f"Input X contains {kind}: X[{row}, {column}], which {what}, is {X[row, column]}. "
            "Give it a value or drop the row; only y may be missing (NaN)."
        )


def _checked(times, covariates, names, index, estimator, reset, zoned=None):
    times = as_times(times)
    if reset:
        estimator._zoned = zoned
    else:
        check_same_clock(times, clock(estimator._record.times))
        check_same_zone(zoned, estimator._zoned)
    return Rows(times, covariates, names, index)


def _has_times(frame):
    """Whether the index of a table is its time: numbers that count the rows are not."""
    index = frame.index
    by_kind = isinstance(index, _TIME_INDEX) or pd.api.types.is_float_dtype(index.dtype)
    return by_kind or (frame.shape[1] == 0 and pd.api.types.is_numeric_dtype(index.dtype))


def _is_clock(column):
    if pd.api.types.is_datetime64_any_dtype(column.dtype) or isinstance(column.dtype, pd.PeriodDtype):
        return True
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return True
    found = pd.api.types.infer_dtype(column, skipna=True) if column.dtype == object else ""
    return found in ("datetime", "datetime64", "date", "period", "timedelta", "timedelta64")


def _as_frame_if_clock(X):
    """One-dimensional datetimes as an index, an object array with datetimes as a table; anything else as it is."""
    if isinstance(X, pd.DataFrame | pd.Index):
        return X
    if isinstance(X, pd.Series):
        return pd.Index(X) if _is_clock(X) else X
    if isinstance(X, list | tuple) and len(X):
        first = X[0][0] if isinstance(X[0], list | tuple) and len(X[0]) else X[0]
        if not isinstance(first, date | timedelta | pd.Period | np.datetime64 | np.timedelta64):
            return X
        X = np.array(X, dtype=object)
    if isinstance(X, np.ndarray) and X.dtype.kind in "mMO":
        if X.ndim == 1 and _is_clock(pd.Series(X)):
            return pd.Index(X)
        if X.ndim == 2 and X.shape[1] and _is_clock(pd.Series(X[:, 0]).infer_objects()):
            return pd.DataFrame(X, columns=["time", *range(X.shape[1] - 1)]).infer_objects()
    return X
