"""Values back into the form in which series came: arrays, lists, frames, collections.

Above: ``filters``. Below: `statespace.forms` and `statespace.series`, which read them.
"""

import numpy as np
import pandas as pd

from statespace.forms import is_nested, is_table
from statespace.series import SeriesCollection


def in_the_form_of(X, collection, values):
    """New values for the samples of X, in the form in which X came.

    Parameters
    ----------
    X : array-like
        As in `statespace.SeriesCollection`.
    collection : SeriesCollection
        What X was read as.
    values : list of ndarray of shape (n_times_i, n_channels)

    Returns
    -------
    array-like
        An array of the same shape, a list of arrays, a frame or a list of frames with the same index and columns, or a
        SeriesCollection.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from statespace import SeriesCollection
    >>> from statespace.lti.forms import in_the_form_of
    >>> X = [pd.Series([1.0, 2.0], index=[0.0, 0.5], name="level")]
    >>> in_the_form_of(X, SeriesCollection(X), [np.zeros((2, 1))])[0]
    0.0    0.0
    0.5    0.0
    Name: level, dtype: float64
    """
    if isinstance(X, SeriesCollection):
        return collection.with_values(values)
    if isinstance(X, pd.DataFrame | pd.Series) and isinstance(X.index, pd.MultiIndex):
        codes, _ = pd.factorize(X.index.droplevel(-1))
        rows = np.empty((len(X), collection.n_channels))
        rows[np.argsort(codes, kind="stable")] = np.concatenate(values)
        return _like(X, rows)
    if is_table(X):
        return np.stack(values)[..., 0]
    if (isinstance(X, list | tuple) and not _is_nested_list(X)) or is_nested(X):
        return [_like(given, rows) for given, rows in zip(X, values, strict=True)]
    return np.stack(values).reshape(np.asarray(X).shape)


def _is_nested_list(X):
    """Whether X is an array written out as lists of lists."""
    return all(isinstance(row, list | tuple) for row in X) and len({np.shape(row) for row in X}) == 1


def _like(given, values):
    if isinstance(given, pd.Series):
        return pd.Series(values[:, 0], index=given.index, name=given.name)
    if isinstance(given, pd.DataFrame):
        return pd.DataFrame(values, index=given.index, columns=given.columns)
    return values[:, 0] if np.ndim(given) == 1 else values
