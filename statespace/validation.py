"""X, y and times as they are given -> checked arrays and gaps; with ``times``, every shared error sentence lives here.

Above: the estimators and ``SeriesCollection``. Below: NumPy and pandas (scikit-learn is imported when it is needed).
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from statespace.forms import (
    check_shapes,
    check_values,
    filled,
    has_rows,
    is_default,
    is_nested,
    is_table,
    parse,
    refuse_one_series,
)
from statespace.readers import StoredRows
from statespace.series import SeriesCollection
from statespace.stored import StoredSeries, is_stored, stored_targets
from statespace.times import (
    as_times,
    check_length,
    check_same_clock,
    check_times,
    clock,
    elapsed,
    gaps,
    median_gap,
    scale_gaps,
)

__all__ = [
    "Targets", "as_times", "check_collection", "check_length", "check_n_channels", "check_names", "check_same_clock",
    "check_targets", "check_times", "check_times_as_fitted", "check_values", "clock", "elapsed", "gaps", "median_gap",
    "scale_gaps",
]  # fmt: skip


def check_collection(
    X, times=None, *, estimator=None, reset=False, n_channels=None, allow_equal=True, alphabet=None, stored=False
):
    """Series in any of the accepted forms, as a `SeriesCollection`.

    Parameters
    ----------
    X, times
        As in `SeriesCollection`; or a SeriesCollection, and ``times`` only if it has none.
    estimator : estimator, optional
        A two-dimensional X is then checked by scikit-learn, which sets or compares ``n_features_in_`` and
        ``feature_names_in_``.
    reset : bool, default=False
        True in ``fit``: learn these attributes; False in ``predict``: compare with them.
    n_channels : int, optional
        The number of channels that is expected.
    allow_equal : bool, default=True
        Whether two successive times of a series may be equal.
    alphabet : Alphabet, optional
        X holds sequences of its symbols; scikit-learn's check of a table is left out.
    stored : bool, default=False
        Leave what is stored, as in `statespace.stored.StoredSeries`, where it is, rather than read it into memory.

    Returns
    -------
    SeriesCollection or StoredSeries

    Raises
    ------
    ValueError
        For values and times as in `SeriesCollection`, no series at all, or another number of channels.

    Examples
    --------
    >>> from statespace.validation import check_collection
    >>> check_collection([[1.0, 2.0], [3.0, 4.0, 5.0]])
    SeriesCollection(2 series, 2 to 3 samples, 1 channel, no times)
    """
    X = filled(X)
    table = alphabet is None and not isinstance(X, SeriesCollection) and is_table(X)
    if estimator is not None and reset and not table:
        for name in ("n_features_in_", "feature_names_in_"):
            vars(estimator).pop(name, None)
    if stored and is_stored(X):
        return _check_stored(X, times, estimator, reset, n_channels, alphabet)
    if isinstance(X, SeriesCollection):
        collection = X if times is None else X.with_times(times)
        if alphabet is not None:
            collection = collection.with_alphabet(alphabet)
        elif X.alphabet is not None:
            raise ValueError(f"X is a SeriesCollection of symbols: give the estimator alphabet={X.alphabet.spec!r}.")
    else:
        if table and _has_series_in_cells(X):
            raise ValueError(
                "X is a DataFrame with a series in each cell (sktime's nested format). Give a (series, time) "
                "MultiIndex: sktime.datatypes.convert_to(X, 'pd-multiindex')."
            )
        if estimator is not None and table:
            # to scikit-learn any table is one of samples
            refuse_one_series(X)
            from sklearn.utils.validation import validate_data

            X = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        if alphabet is None and _is_text(X):
            raise ValueError(
                "X holds texts, not numbers. For sequences of symbols give the estimator an alphabet, as in "
                "alphabet='dna'."
            )
        collection = SeriesCollection(X, times, alphabet)
    if len(collection) == 0:
        raise ValueError("X must hold at least one series, got none.")
    if n_channels is not None:
        check_n_channels(collection, n_channels, estimator=estimator)
    if not allow_equal and collection.times is not None:
        for i, t in enumerate(collection.times):
            check_times(t, series=collection.label(i), allow_equal=False)
    return collection


def _check_stored(X, times, estimator, reset, n_channels, alphabet):
    """`check_collection` of what is stored, without reading it: values and times are checked when they are read."""
    if estimator is not None and alphabet is None and len(getattr(X, "shape", ())) == 2:
        from sklearn.utils.validation import validate_data

        validate_data(estimator, X, reset=reset, skip_check_array=True)
    if not isinstance(X, StoredSeries):
        collection = StoredSeries(X, times, alphabet)
    elif times is not None:
        raise ValueError("X is a StoredSeries, and times= was given too. Give it its times: StoredSeries(X, times).")
    elif alphabet is None and X.alphabet is not None:
        raise ValueError(f"X are StoredSeries of symbols: give the estimator alphabet={X.alphabet.spec!r}.")
    else:
        collection = X if alphabet is None else X.with_alphabet(alphabet)
    if n_channels is not None:
        check_n_channels(collection, n_channels, estimator=estimator)
    return collection


def _has_series_in_cells(X):
    return isinstance(X, pd.DataFrame) and X.size > 0 and has_rows(X.iloc[0, 0])


def _is_text(X):
    """Whether X is a container of whole texts."""
    return isinstance(X, list | tuple | pd.Series) and len(X) > 0 and all(isinstance(x, str | bytes) for x in X)


def check_n_channels(collection, n_channels, *, estimator=None):
    """Refuse another number of channels than in ``fit``, in scikit-learn's words.

    Parameters
    ----------
    collection : SeriesCollection
    n_channels : int
        The number of channels that is expected.
    estimator : estimator, optional
        Whose class the message names.

    Raises
    ------
    ValueError
        If the numbers differ.

    Examples
    --------
    >>> from statespace.series import SeriesCollection
    >>> from statespace.validation import check_n_channels
    >>> check_n_channels(SeriesCollection([[1.0, 2.0]]), 2)
    Traceback (most recent call last):
        ...
    ValueError: X has 1 features, but the model is expecting 2 features as input (one for each channel).
    """
    if collection.n_channels != n_channels:
        name = "the model" if estimator is None else type(estimator).__name__
        raise ValueError(
            f"X has {collection.n_channels} features, but {name} is expecting {n_channels} features as input "
            "(one for each channel)."
        )


def check_times_as_fitted(collection, fitted):
    """Refuse series without times where the model was fitted with times, the reverse, or times of another kind.

    Parameters
    ----------
    collection : SeriesCollection
    fitted : str or None
        The `clock` of the times in ``fit``; None if there were none.

    Raises
    ------
    ValueError
        If they differ.

    Examples
    --------
    >>> from statespace.series import SeriesCollection
    >>> from statespace.validation import check_times_as_fitted
    >>> check_times_as_fitted(SeriesCollection([[1.0, 2.0]], times=[0.0, 0.5]), "numbers")
    """
    if collection.times is None and fitted is not None:
        raise ValueError(
            "This model was fitted with times, and X has none. Give times=, or X as a SeriesCollection with its times."
        )
    if collection.times is not None:
        if fitted is None:
            raise ValueError("This model was fitted without times, and X has them. Fit with times, or drop them.")
        if isinstance(collection, StoredSeries):
            check_same_clock(collection.times.read(0, 0, 1), fitted)
            return
        for times in collection.times:
            check_same_clock(times, fitted)


class Targets(NamedTuple):
    """Checked targets.

    Attributes
    ----------
    values : ndarray of shape (n_series, n_outputs), or list or StoredRows of ndarray of shape (n_times_i, n_outputs)
        float64; the list if there is a target for every step. NaN is a target that is not known.
    per_step : bool
        Whether there is one target for every step rather than one for every series.
    single : bool
        Whether y came without an axis for outputs, as predictions then will.

    Examples
    --------
    >>> from statespace.validation import Targets
    >>> Targets([[[0.0], [1.0]]], per_step=True, single=True).per_step
    True
    """

    values: Any
    per_step: bool
    single: bool

    @property
    def n_outputs(self):
        """The number of outputs."""
        return self.values[0].shape[-1]


def check_targets(y, collection, *, per="auto"):
    """Targets of one value a series or one a step.

    Parameters
    ----------
    y : array-like
        One target a series: (n_series,) or (n_series, n_outputs). One a step: (n_series, n_times), (n_series, n_times,
        n_outputs), a list of (n_times_i,) or (n_times_i, n_outputs) arrays, a Series or DataFrame with a (series, time)
        MultiIndex, or a SeriesCollection. A two-dimensional array is one target a step if its second axis is as long as
        every series, and otherwise one output a column.
    collection : SeriesCollection
        The series that the targets belong to.
    per : {"auto", "series", "step"}, default="auto"
        What a two-dimensional y holds where that rule does not say what is meant.

    Returns
    -------
    Targets

    Raises
    ------
    ValueError
        If there is no y, an infinity, text, nothing but NaN, or if the lengths differ; the message names the series.

    Examples
    --------
    >>> from statespace.series import SeriesCollection
    >>> from statespace.validation import check_targets
    >>> X = SeriesCollection([[1.0, 2.0], [3.0, 4.0, 5.0]])
    >>> check_targets([0.5, 1.5], X).values
    array([[0.5],
           [1.5]])
    >>> check_targets([[0.5, 1.0], [1.5, 2.0, 2.5]], X).per_step
    True
    """
    if per not in ("auto", "series", "step"):
        raise ValueError(f"`per` must be 'auto', 'series' or 'step'. Got {per!r}.")
    if isinstance(collection, StoredSeries):
        y = stored_targets(y, collection, per)
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    if isinstance(y, StoredRows):
        if not y.statistics.known.any():
            raise ValueError("Input y contains NaN only: there is no target to learn from.")
        return Targets(y.map(_numbers_of_y), per_step=True, single=y.single)
    check_names(y, collection)
    if _is_ragged(y):
        targets = _ragged_targets(y, collection)
    else:
        targets = _array_targets(check_values(y, name="y"), collection, per)
    from sklearn.utils.validation import check_consistent_length

    check_consistent_length(collection, targets.values)
    if targets.per_step:
        for i, (row, n_times) in enumerate(zip(targets.values, collection.lengths, strict=True)):
            if len(row) != n_times:
                raise ValueError(
                    f"y of series {collection.label(i)!r} must have one target for each of the {n_times} steps, "
                    f"got {len(row)}."
                )
    if all(np.isnan(row).all() for row in targets.values):
        raise ValueError("Input y contains NaN only: there is no target to learn from.")
    return targets


def check_names(y, collection):
    """Refuse targets that name the series of X in another order, of which one a row would go to the wrong series.

    Parameters
    ----------
    y : object
        Only a Series or DataFrame with one row for each series is looked at.
    collection : SeriesCollection or StoredSeries

    Raises
    ------
    ValueError
        The index of y has the names of X, in another order.

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.series import SeriesCollection
    >>> from statespace.validation import check_names
    >>> index = pd.MultiIndex.from_product([["b", "a"], [0.0, 1.0]])
    >>> X = SeriesCollection(pd.Series(range(4), index))
    >>> check_names(pd.Series([1.0, 2.0], ["a", "b"]), X)
    Traceback (most recent call last):
        ...
    ValueError: y must name the series of X in the same order, and y[0] is of series 'a', X[0] of 'b'. Give y.loc[['b', 'a', ...]], or y.to_numpy() if its index means nothing.
    """  # noqa: E501
    labels = getattr(collection, "labels", None)
    if labels is None or not isinstance(y, pd.DataFrame | pd.Series) or len(y) != len(labels):
        return
    if y.index.equals(labels) or not y.index.is_unique or not y.index.isin(labels).all():
        return
    k = int(np.argmax(y.index != labels))
    first = ", ".join(repr(collection.label(i)) for i in range(min(2, len(labels))))
    raise ValueError(
        f"y must name the series of X in the same order, and y[{k}] is of series {y.index[k]!r}, X[{k}] of "
        f"{collection.label(k)!r}. Give y.loc[[{first}, ...]], or y.to_numpy() if its index means nothing."
    )


def _numbers_of_y(rows):
    return check_values(rows, name="y")


def _is_ragged(y):
    """Whether y is a container of one target vector for each series, rather than an array of numbers."""
    if isinstance(y, SeriesCollection):
        return True
    if isinstance(y, pd.DataFrame | pd.Series):
        return isinstance(y.index, pd.MultiIndex)
    if not (isinstance(y, list | tuple) or is_nested(y)) or not all(has_rows(row) for row in y):
        return False
    return any(isinstance(row, pd.DataFrame | pd.Series) for row in y) or len({np.shape(row) for row in y}) > 1


def _ragged_targets(y, collection):
    """Targets a step from a container of series, whose names and times, if it has them, are those of X."""
    if isinstance(y, SeriesCollection):
        values, times, labels, single = y.values, y.times, y.labels, False
    else:
        single = isinstance(y, pd.Series) or (isinstance(y, list | tuple | np.ndarray) and np.ndim(y[0]) == 1)
        values, times, _, labels = parse(y, name="y")
        values = check_shapes(values, (lambda i: i) if labels is None else labels.__getitem__, name="y")
    if labels is not None and collection.labels is not None and list(labels) != list(collection.labels):
        raise ValueError("y must name the series of X in the same order. Give y.loc[X.index], or sort both indexes.")
    if times is not None and collection.times is not None and not all(is_default(t) for t in times):
        for i, (own, expected) in enumerate(zip(times, collection.times, strict=False)):
            own = check_times(own, series=f"{collection.label(i)} of y")
            check_same_clock(own, clock(expected))
            if len(own) == len(expected) and (own != expected).any():
                k = int(np.argmax(own != expected))
                raise ValueError(
                    f"y of series {collection.label(i)!r} must have the times of X: at step {k} y has {own[k]} and "
                    f"X has {expected[k]}."
                )
    return Targets(values, per_step=True, single=single)


def _array_targets(y, collection, per):
    if y.ndim not in (1, 2, 3):
        raise ValueError(f"y must have one to three dimensions, got an array of shape {y.shape}.")
    if y.ndim == 3:
        return Targets(list(y), per_step=True, single=False)
    steps = y.ndim == 2 and (per == "step" or (per == "auto" and bool(np.all(collection.lengths == y.shape[1]))))
    if steps:
        return Targets(list(y[:, :, np.newaxis]), per_step=True, single=True)
    return Targets(y.reshape(len(y), -1), per_step=False, single=y.ndim == 1)
