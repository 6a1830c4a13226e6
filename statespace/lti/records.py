"""Inputs and outputs in the forms in which `LTIRegressor` takes them -> records with checked times."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.utils.validation import check_consistent_length, validate_data

from statespace.forms import check_values, filled, is_default
from statespace.series import SeriesCollection
from statespace.times import check_length, check_same_clock, check_times, clock, elapsed
from statespace.validation import check_collection


class Records(NamedTuple):
    """Checked inputs.

    Attributes
    ----------
    u : list of ndarray of shape (n_times_i, n_inputs)
    times : list of ndarray of shape (n_times_i,), or None
        None: a regular grid with a gap of 1.
    many : bool
        Whether X came as several records, rather than as the rows of one.

    Examples
    --------
    >>> from statespace.lti import LTIRegressor
    >>> from statespace.lti.records import read
    >>> read([[1.0, 2.0], [3.0, 4.0]], None, LTIRegressor(), reset=True).many
    False
    """

    u: list
    times: list | None
    many: bool

    def elapsed(self, unit):
        """The times since the beginning of each record, float64."""
        if self.times is None:
            return [np.arange(len(u), dtype=float) for u in self.u]
        return [elapsed(t, unit=unit) for t in self.times]

    @property
    def clock(self):
        """The kind of times, None without."""
        return None if self.times is None else clock(self.times[0])


def read(X, times, estimator, *, reset):
    """X as records of inputs.

    Parameters
    ----------
    X : array-like
        One record as a table of shape (n_times, n_inputs), whose index, if it is a frame with one, holds its times; or
        several: of shape (n_series, n_times, n_inputs), a list of such tables, a (series, time) MultiIndex frame or a
        SeriesCollection.
    times : array-like or list of array-like, optional
    estimator : estimator
        Learns the number and the names of the inputs in ``fit``, or is asked for them.
    reset : bool
        True in ``fit``.

    Returns
    -------
    Records

    Raises
    ------
    ValueError
        In scikit-learn's words for what is no number, not finite, empty, or has other columns than in ``fit``; times
        that decrease, are of another kind than in ``fit``, given twice or not at all where ``fit`` had them.
    """
    if is_several(X):
        records = _several(X, times, estimator, reset)
    else:
        index = _index(X)
        if index is not None and times is not None:
            raise ValueError("X has its times in its index; give times= or the index, not both.")
        u = validate_data(estimator, filled(X), reset=reset, ensure_all_finite="allow-nan")
        u = u.astype(np.float64, copy=False)
        _check_known(u, None)
        times = index if times is None else times
        if times is not None:
            times = check_times(times)
            check_length(times, len(u))
        records = Records([np.ascontiguousarray(u)], None if times is None else [times], False)
    if not reset:
        _check_clock(records, estimator.clock_)
    elif records.times is not None:
        for t in records.times[1:]:
            check_same_clock(t, records.clock)
    return records


def read_outputs(y, records):
    """y as one array (n_times_i, n_outputs) for each record, NaN where missing, and whether it had no axis of outputs.

    Parameters
    ----------
    y : array-like
        (n_times,) or (n_times, n_outputs) for one record; for several a list of these, a three-dimensional array, or
        a two-dimensional one of shape (n_series, n_times).
    records : Records

    Returns
    -------
    outputs : list of ndarray
    single : bool

    Raises
    ------
    ValueError
        If there is no y, an infinity, nothing but NaN, another number of rows, or differing numbers of outputs.
    """
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    parts = _parts(y, records) if records.many else [y]
    check_consistent_length(records.u, parts)
    checked = []
    for i, part in enumerate(parts):
        name = f"y of record {i}" if records.many else "y"
        part = check_values(part, name=name)
        if part.ndim > 2:
            raise ValueError(f"{name} must have shape (n_times,) or (n_times, n_outputs), got {part.shape}.")
        if len(part) != len(records.u[i]):
            check_consistent_length(records.u[i], part)
        checked.append(part)
    single = checked[0].ndim == 1
    checked = [np.ascontiguousarray(part.reshape(len(part), -1)) for part in checked]
    widths = {part.shape[1] for part in checked}
    if len(widths) > 1:
        raise ValueError(f"All records must have the same outputs; y has {sorted(widths)} columns.")
    silent = np.isnan(np.concatenate(checked)).all(axis=0)
    if silent.any():
        which = "" if len(silent) == 1 else f" in output {int(np.argmax(silent))}"
        raise ValueError(f"Input y contains NaN only{which}: there is nothing to learn from.")
    return checked, single


def is_several(X):
    """Whether X holds several records rather than the rows of one."""
    if isinstance(X, SeriesCollection):
        return True
    if isinstance(X, pd.DataFrame):
        return isinstance(X.index, pd.MultiIndex)
    if isinstance(X, list | tuple) or (isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1):
        return len(X) > 0 and all(_is_table(entry) for entry in X)
    return getattr(X, "ndim", 0) == 3


def _is_table(entry):
    if isinstance(entry, list | tuple):
        return len(entry) > 0 and isinstance(entry[0], list | tuple | np.ndarray)
    return getattr(entry, "ndim", 0) == 2


def _several(X, times, estimator, reset):
    collection = check_collection(X, times)
    if reset:
        estimator.n_features_in_ = collection.n_channels
        vars(estimator).pop("feature_names_in_", None)
    elif collection.n_channels != estimator.n_features_in_:
        raise ValueError(
            f"X has {collection.n_channels} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input (one for each input of the system)."
        )
    times = collection.times
    if times is not None:
        times = [check_times(t, series=collection.label(i)) for i, t in enumerate(times)]
    for i, u in enumerate(collection.values):
        _check_known(u, collection.label(i))
    return Records([np.ascontiguousarray(u, dtype=np.float64) for u in collection.values], times, True)


def _parts(y, records):
    if isinstance(y, SeriesCollection):
        return y.values
    if isinstance(y, pd.DataFrame | pd.Series) and isinstance(y.index, pd.MultiIndex):
        return SeriesCollection(y).values
    if isinstance(y, np.ndarray) and y.dtype != object and y.ndim == 1 and len(records.u) > 1:
        raise ValueError(
            f"X holds {len(records.u)} records, so y must hold one array for each: a list of (n_times_i,) or "
            f"(n_times_i, n_outputs) arrays. Got one of shape {y.shape}."
        )
    return list(y)


def _index(X):
    """A frame's index as times; None for other tables and for the index that a frame has by default."""
    if isinstance(X, pd.DataFrame) and not is_default(X.index):
        return X.index
    return None


def _check_known(u, label):
    wrong = np.argwhere(np.isnan(u))
    if len(wrong):
        row, column = wrong[0].tolist()
        where = "X" if label is None else f"series {label!r} of X"
        raise ValueError(
            f"Input X contains NaN: input {column} at row {row} of {where} is missing. A simulation needs every input; "
            "fill it, for example with DataFrame.ffill() for an input that is held. Only y may be missing."
        )


def _check_clock(records, fitted):
    if records.times is None and fitted is not None:
        raise ValueError(
            "This model was fitted with times, and X has none. Give times=, or X as a DataFrame indexed by its times."
        )
    if records.times is not None:
        if fitted is None:
            raise ValueError("This model was fitted without times, and X has them. Fit with times, or drop them.")
        for t in records.times:
            check_same_clock(t, fitted)
