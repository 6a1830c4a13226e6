"""Sample weights as they are given -> one checked weight a series or one a step.

    loss = Σ_i w_i loss_i / Σ_i w_i,    mean = Σ_i w_i x_i / Σ_i w_i

A series of weight 2 counts as two, one of weight 0 is not there: in the loss, in the scales of inputs and targets, and
in the median gap. Among inputs a series with weights a step counts with their mean.

Above: ``base``, the regressors and classifiers. Below: ``series`` and ``forms``.
"""

from numbers import Real

import numpy as np
import pandas as pd

from statespace.forms import check_values, has_rows, is_nested, parse
from statespace.series import SeriesCollection


def check_sample_weight(sample_weight, collection):
    """Weights of series or of their steps.

    Parameters
    ----------
    sample_weight : array-like, float or None
        One weight a series, (n_series,); or one a step, (n_series, n_times), a list of (n_times_i,) arrays, a Series
        with a (series, time) MultiIndex, or a SeriesCollection. A number is the weight of all, None is 1.
    collection : SeriesCollection
        The series that they belong to.

    Returns
    -------
    weights : None, ndarray of shape (n_series,), or list of ndarray of shape (n_times_i,)
        float64; the list for weights a step.

    Raises
    ------
    ValueError
        Weights that are negative, infinite, NaN or all 0, or not as many as there are series or steps.

    Examples
    --------
    >>> from statespace.series import SeriesCollection
    >>> from statespace.weights import check_sample_weight
    >>> X = SeriesCollection([[1.0, 2.0], [3.0, 4.0, 5.0]])
    >>> check_sample_weight([1, 2], X)
    array([1., 2.])
    >>> check_sample_weight([[1, 2], [0, 1, 0.5]], X)
    [array([1., 2.]), array([0. , 1. , 0.5])]
    """
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real):
        sample_weight = np.full(len(collection), float(sample_weight))
    if _has_steps(sample_weight):
        weights = _by_step(sample_weight, collection)
        everything = np.concatenate(weights)
    else:
        weights = everything = check_values(sample_weight, name="sample_weight")
        if weights.ndim != 1 or len(weights) != len(collection):
            raise ValueError(
                f"sample_weight.shape == {weights.shape}, expected {(len(collection),)}: one weight for each series, "
                "or one for each of its steps."
            )
    if np.isnan(everything).any() or (everything < 0).any():
        wrong = everything[np.isnan(everything) | (everything < 0)][0]
        raise ValueError(f"sample_weight must hold numbers of at least 0, which leaves a sample out. Got {wrong}.")
    if not everything.any():
        raise ValueError("Sample weights must contain at least one non-zero number: there is nothing to learn from.")
    return weights


def _has_steps(weights):
    if isinstance(weights, pd.DataFrame | pd.Series):
        return isinstance(weights, pd.DataFrame) or isinstance(weights.index, pd.MultiIndex)
    if isinstance(weights, np.ndarray) and not is_nested(weights):
        return weights.ndim > 1
    if isinstance(weights, list | tuple) or is_nested(weights):
        return len(weights) > 0 and has_rows(weights[0])
    return isinstance(weights, SeriesCollection) or np.asarray(weights).ndim > 1


def _by_step(sample_weight, collection):
    collected = isinstance(sample_weight, SeriesCollection)
    if not isinstance(sample_weight, list | tuple | pd.DataFrame | pd.Series | SeriesCollection):
        sample_weight = np.asarray(sample_weight)
    values = sample_weight.values if collected else parse(sample_weight, "sample_weight")[0]
    if len(values) != len(collection):
        raise ValueError(f"sample_weight has {len(values)} series, expected {len(collection)}, as many as X.")
    weights = []
    for i, (row, n_times) in enumerate(zip(values, collection.lengths, strict=True)):
        row = check_values(row, name=f"sample_weight (series {collection.label(i)!r})")
        if row.shape not in ((n_times,), (n_times, 1)):
            raise ValueError(
                f"sample_weight of series {collection.label(i)!r} must have one weight for each of the {n_times} "
                f"steps, got shape {row.shape}."
            )
        weights.append(row.reshape(-1))
    return weights


def series_weights(weights):
    """The weight of each series among inputs: its own, or the mean of its steps'.

    Parameters
    ----------
    weights : None, ndarray or list of ndarray
        As `check_sample_weight` returns.

    Returns
    -------
    weights : None or ndarray of shape (n_series,)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.weights import series_weights
    >>> series_weights([np.array([0.0, 1.0]), np.array([2.0])])
    array([0.5, 2. ])
    """
    return np.array([row.mean() for row in weights]) if isinstance(weights, list) else weights


def weights_of_targets(weights, collection, per_step):
    """The weights in the form of targets.

    Parameters
    ----------
    weights : None, ndarray or list of ndarray
        As `check_sample_weight` returns.
    collection : SeriesCollection
    per_step : bool
        Whether there is one target for every step rather than one for every series.

    Returns
    -------
    weights : None, ndarray of shape (n_series,), or list of ndarray of shape (n_times_i,)
        The list if there is a target for every step.

    Raises
    ------
    ValueError
        Weights a step, of targets a series.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.series import SeriesCollection
    >>> from statespace.weights import weights_of_targets
    >>> weights_of_targets(np.array([2.0, 3.0]), SeriesCollection([[1.0, 2.0], [3.0]]), per_step=True)
    [array([2., 2.]), array([3.])]
    """
    if weights is None:
        return None
    if per_step:
        rows = zip(weights, collection.lengths, strict=True)
        return [np.array(np.broadcast_to(weight, n)) for weight, n in rows]
    if isinstance(weights, list):
        raise ValueError(
            "sample_weight has one weight a step, and y one target a series: give one weight a series, of shape "
            f"({len(collection)},)."
        )
    return weights


def joined(weights, per_step):
    """The weights of targets in one vector, as ``score`` takes them; None if there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.weights import joined
    >>> joined([np.ones(2), np.zeros(1)], per_step=True)
    array([1., 1., 0.])
    """
    return np.concatenate(weights) if per_step and weights is not None else weights
