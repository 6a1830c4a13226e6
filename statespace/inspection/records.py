"""Series as an estimator's network reads them, and what to call their rows and columns."""

import numpy as np
import pandas as pd
import torch


def read_series(estimator, X, times):
    """The series, batches of them and a copy of the network, in float64 on the CPU.

    Parameters
    ----------
    estimator : DeepEstimator
        Fitted.
    X, times
        As in its ``predict``.

    Returns
    -------
    collection : SeriesCollection
    data : SeriesBatches
    model : ResidualStack or ReverseComplement

    Raises
    ------
    TypeError
        It is no deep regressor or classifier.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import S4DRegressor
    >>> from statespace.inspection.records import read_series
    >>> X = np.random.default_rng(0).normal(size=(20, 12))
    >>> reg = S4DRegressor(d_model=4, n_layers=1, d_state=4, max_epochs=1, random_state=0).fit(X, X[:, -1])
    >>> read_series(reg, X[:2], None)[1].batch(np.array([0]))["x"].shape
    torch.Size([1, 12, 1])
    """
    if not hasattr(estimator, "_copy_model"):
        raise TypeError(
            f"a deep regressor or classifier is expected, such as S4DRegressor. Got {type(estimator).__name__} instead."
        )
    collection = estimator._read(X, times)
    data = estimator._data(collection, dtype=torch.float64)
    return collection, data, estimator._copy_model(torch.device("cpu"), torch.float64)


def index_of(collection, i):
    """The times of series ``i``, or the places of its samples where it has none."""
    if collection.times is None:
        return pd.RangeIndex(int(collection.lengths[i]), name="sample")
    return pd.Index(np.asarray(collection.times[i]), name="time")


def channels(estimator, width):
    """Names of the columns of X."""
    names = estimator.channel_names_
    return pd.Index(range(width) if names is None or len(names) != width else names, name="channel")
