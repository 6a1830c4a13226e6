"""Class labels in every form: as one array, as numbers in the form in which they came, checked against the series.

Above: ``classification``. Below: ``validation``, which checks numbers as it does a regressor's targets.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.exceptions import DataConversionWarning

from statespace.forms import has_rows, is_nested
from statespace.series import SeriesCollection
from statespace.validation import check_targets


def flat_labels(y):
    """All labels in one array, and the way back.

    Parameters
    ----------
    y : array-like
        Labels in any of the forms of `SSMClassifier.fit`.

    Returns
    -------
    labels : ndarray of shape (n_labels,)
    restore : callable
        Puts ``n_labels`` numbers into the form in which the labels came.

    Raises
    ------
    ValueError
        There is no y, or labels of several kinds that have no order.

    Examples
    --------
    >>> from statespace.labels import flat_labels
    >>> labels, restore = flat_labels([["rest", "walk"], ["walk"]])
    >>> labels.tolist()
    ['rest', 'walk', 'walk']
    >>> [row.tolist() for row in restore([0, 1, 1])]
    [[0, 1], [1]]
    """
    if y is None:
        raise ValueError("This estimator requires y to be passed, but the target y is None.")
    if isinstance(y, SeriesCollection):
        labels, restore = flat_labels(y.values)
        return labels, lambda numbers: y.with_values(restore(numbers))
    if isinstance(y, pd.DataFrame | pd.Series):
        array = y.to_numpy()
        return array.ravel(), lambda numbers: _like(y, np.asarray(numbers).reshape(array.shape))
    if (isinstance(y, list | tuple) or is_nested(y)) and len(y) and all(has_rows(row) for row in y):
        parts, restores = zip(*(flat_labels(row) for row in y), strict=True)
        cuts = np.cumsum([len(part) for part in parts])[:-1]
        return np.concatenate(parts), lambda numbers: [
            restore(part) for restore, part in zip(restores, np.split(np.asarray(numbers), cuts), strict=True)
        ]
    if isinstance(y, np.ma.MaskedArray):
        hidden, y = np.ma.getmaskarray(y), y.data.astype(object)
        y[hidden] = None
    array = np.asarray(y)
    return array.ravel(), lambda numbers: np.asarray(numbers).reshape(array.shape)


def check_numbers(numbers, collection):
    """Numbers of classes, one a series or one a step.

    Parameters
    ----------
    numbers : array-like
        In any of the forms of y, NaN where the label is not known.
    collection : SeriesCollection
        The series that they belong to.

    Returns
    -------
    numbers : ndarray of shape (n_series, 1), or list of ndarray of shape (n_times_i, 1)
    per_step : bool
        Whether there is one for every step.

    Raises
    ------
    ValueError
        As in `statespace.validation.check_targets`, and for more than one label a series or step.

    Warns
    -----
    sklearn.exceptions.DataConversionWarning
        A column stands for a vector.

    Examples
    --------
    >>> from statespace.labels import check_numbers
    >>> from statespace.series import SeriesCollection
    >>> check_numbers([0.0, 1.0], SeriesCollection([[1.0, 2.0], [3.0, 4.0, 5.0]]))[1]
    False
    """
    targets = check_targets(numbers, collection)
    if targets.n_outputs > 1:
        lengths = collection.lengths
        steps = lengths[0] if np.all(lengths == lengths[0]) else f"{lengths.min()} to {lengths.max()}"
        raise ValueError(
            f"y must be one label for each series, of shape ({len(collection)},), or one for each step; a series has "
            f"{steps}. Got {targets.n_outputs} for each {'step' if targets.per_step else 'series'}."
        )
    if not targets.per_step and not targets.single:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected. Give y.ravel().",
            DataConversionWarning,
            stacklevel=5,
        )
    return targets.values, targets.per_step


def _like(table, numbers):
    if isinstance(table, pd.Series):
        return pd.Series(numbers, index=table.index)
    return pd.DataFrame(numbers, index=table.index, columns=table.columns)
