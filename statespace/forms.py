"""The forms in which X may come: arrays, tables, nested lists, panels, lists of frames.

Above: ``SeriesCollection``. Below: NumPy, pandas, and scikit-learn's check of an array, imported when it is needed.
"""

import numpy as np
import pandas as pd

__all__ = ["check_values", "filled", "is_table"]


def filled(values):
    """NaN in the place of what a masked array hides, which NumPy and scikit-learn would take as it stands below.

    Parameters
    ----------
    values : object

    Returns
    -------
    object
        Anything but a masked array of numbers as it is.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forms import filled
    >>> filled(np.ma.array([1, 2], mask=[False, True]))
    array([ 1., nan])
    """
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "fiub":
        return values.astype(np.float64).filled(np.nan)
    return values


def as_floats(values, name):
    """Numbers as float64, nothing else checked: text and datetimes are refused, which NumPy would turn into numbers.

    Parameters
    ----------
    values : array-like
        What a masked array hides is NaN.
    name : str
        What the values are called in an error message.

    Returns
    -------
    ndarray, float64

    Raises
    ------
    ValueError, TypeError
        For what is no number.

    Examples
    --------
    >>> from statespace.forms import as_floats
    >>> as_floats([1, None], "y")
    array([ 1., nan])
    """
    array = np.asarray(filled(values))
    if array.dtype.kind in "SUmM":
        kind = "text" if array.dtype.kind in "SU" else f"{array.dtype}"
        raise ValueError(f"{name} must hold numbers, got {kind}, such as {str(array.flat[0])!r}.")
    return array.astype(np.float64, copy=False)


def check_values(values, *, name="X"):
    """Measured values as float64; NaN marks what is missing.

    Parameters
    ----------
    values : array-like
        Of any shape; what a masked array hides is missing.
    name : str, default="X"
        What the values are called in an error message.

    Returns
    -------
    ndarray of the same shape, float64

    Raises
    ------
    ValueError, TypeError
        If there is an infinity, text, a complex number or an object that is no number, in scikit-learn's words.

    Examples
    --------
    >>> from statespace.forms import check_values
    >>> check_values([[1, None], [2, 3]])
    array([[ 1., nan],
           [ 2.,  3.]])
    """
    values = filled(values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        numbers = values.astype(np.float64, copy=False)
        if not np.isinf(numbers).any():
            return numbers
    return _numbers(values, name, ensure_2d=False, allow_nd=True, ensure_min_samples=0, ensure_min_features=0)


def _numbers(values, name, **options):
    """What scikit-learn's check makes of the values, in float64; datetimes, which it would let through, are refused."""
    from sklearn.utils.validation import check_array

    dtypes = values.dtypes if isinstance(values, pd.DataFrame) else [getattr(values, "dtype", None)]
    for dtype in dtypes:
        if getattr(dtype, "kind", "") in ("m", "M"):
            raise ValueError(f"{name} must hold numbers, got {dtype}. Times go into the index, or into times=.")
    checked = check_array(values, dtype="numeric", ensure_all_finite="allow-nan", input_name=name, **options)
    return checked.astype(np.float64, copy=False)


def is_table(X):
    """Whether X is a table of numbers as scikit-learn knows it, rather than a container of series.

    Parameters
    ----------
    X : object

    Returns
    -------
    bool
        True for arrays of fewer than three dimensions, sparse matrices and DataFrames without a MultiIndex.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forms import is_table
    >>> is_table(np.zeros((3, 4))), is_table(np.zeros((3, 4, 1))), is_table([[1.0], [2.0, 3.0]])
    (True, False, False)
    """
    if isinstance(X, list | tuple | pd.Series):
        return False
    if isinstance(X, pd.DataFrame):
        return not isinstance(X.index, pd.MultiIndex)
    return hasattr(X, "shape") and len(X.shape) < 3 and not is_nested(X)


def is_nested(X):
    """A one-dimensional object array of arrays."""
    return isinstance(X, np.ndarray) and X.dtype.kind == "O" and X.ndim == 1 and len(X) > 0 and has_rows(X[0])


def has_rows(entry):
    return hasattr(entry, "__len__") and not isinstance(entry, str | bytes | dict) and getattr(entry, "ndim", 1) > 0


def is_default(index):
    """Whether this is the index that pandas gives a frame without one."""
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def refuse_one_series(X, name="X"):
    """Refuse a Series, and a table whose index holds times, where many series are asked for: its rows are no series."""
    if isinstance(X, pd.Series) or (isinstance(X, pd.DataFrame) and _holds_times(X.index)):
        index = "index of floats" if type(X.index) is pd.Index else type(X.index).__name__
        raise ValueError(
            f"{name} is a {type(X).__name__} with a {index}, which is one series. "
            f"Give a list of them, [{name}], or a (series, time) MultiIndex."
        )


def _holds_times(index):
    clocks = pd.DatetimeIndex | pd.PeriodIndex | pd.TimedeltaIndex
    return isinstance(index, clocks) or pd.api.types.is_float_dtype(index.dtype)


def parse(X, name="X"):
    """Raw values of each series, their times or None, the names of the channels, the names of the series."""
    X = filled(X)
    if isinstance(X, pd.DataFrame | pd.Series):
        if isinstance(X.index, pd.MultiIndex):
            return _parse_panel(X, name)
        refuse_one_series(X, name)
    if isinstance(X, list | tuple) or is_nested(X):
        if any(isinstance(entry, pd.DataFrame | pd.Series) for entry in X):
            return _parse_frames(X, name)
        if len(X) == 0 or all(has_rows(entry) for entry in X):
            return list(X), None, None, None
    elif not is_table(X):
        X = check_values(X, name=name)
        if X.ndim > 3:
            raise ValueError(f"{name} must have at most 3 axes, (n_series, n_times, n_channels), got shape {X.shape}.")
        if X.ndim == 3:
            return list(X), None, None, None
    return list(_numbers(X, name)), None, None, None


def _parse_panel(X, name):
    if X.index.nlevels < 2 or len(X) == 0:
        raise ValueError(
            f"{name} must have a (series, time) MultiIndex and rows, got {X.index.nlevels} level(s) and {len(X)} rows."
        )
    codes, labels = pd.factorize(X.index.droplevel(-1))
    if (codes < 0).any():
        k = int(np.argmax(codes < 0))
        raise ValueError(f"{name} must name the series of every row: row {k} of its index is {X.index[k]!r}.")
    order = np.argsort(codes, kind="stable")
    cuts = np.cumsum(np.bincount(codes))[:-1]
    values = check_values(X.to_frame() if isinstance(X, pd.Series) else X, name=name)
    times = X.index.get_level_values(-1)
    rows = np.split(order, cuts)
    columns = [X.name] if isinstance(X, pd.Series) else list(X.columns)
    return [values[r] for r in rows], [times[r] for r in rows], columns, pd.Index(labels)


def _parse_frames(X, name):
    values, columns = [], None
    for i, frame in enumerate(X):
        if not isinstance(frame, pd.DataFrame | pd.Series):
            raise ValueError(
                f"{name} is a list of frames, but series {i} is of type {type(frame).__name__}. "
                "Give all of them an index of times."
            )
        if isinstance(frame.index, pd.MultiIndex):
            raise ValueError(f"series {i} of {name} has a MultiIndex; a frame in a list is one series over time.")
        names = [None] if isinstance(frame, pd.Series) else list(frame.columns)
        columns = names if columns is None else columns
        if names != columns:
            raise ValueError(
                f"series {i} of {name} has the columns {names}, but series 0 has {columns}. "
                "Give all of them the same columns in the same order."
            )
        values.append(check_values(frame, name=f"{name} (series {i})"))
    return values, [frame.index for frame in X], columns, None


def check_shapes(values, label, name="X"):
    """Every series as float64 of shape (n_times_i, n_channels), none of them empty."""
    if not values:
        raise ValueError(f"Found array with 0 sample(s) while a minimum of 1 is required: {name} must hold a series.")
    checked = []
    for i, value in enumerate(values):
        try:
            array = check_values(value, name=f"{name} (series {label(i)!r})")
        except ValueError as error:
            if "inhomogeneous" not in str(error):
                raise
            raise ValueError(
                f"series {label(i)!r} of {name} must be rectangular, (n_times, n_channels): its rows differ in length."
            ) from None
        if array.ndim == 1:
            array = array[:, np.newaxis]
        if array.ndim != 2:
            raise ValueError(
                f"series {label(i)!r} of {name} must have shape (n_times,) or (n_times, n_channels), got {array.shape}."
            )
        if array.size == 0:
            raise ValueError(
                f"series {label(i)!r} of {name} is empty, of shape {array.shape}: "
                "give it at least one sample, or drop it."
            )
        if checked and array.shape[1] != checked[0].shape[1]:
            raise ValueError(
                f"series {label(i)!r} of {name} has {array.shape[1]} channels, but series {label(0)!r} has "
                f"{checked[0].shape[1]}. Give every series the same channels; NaN marks what was not measured."
            )
        checked.append(array)
    return checked
