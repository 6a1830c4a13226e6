"""Split-conformal prediction: from the scores of held-out data to bounds that hold for finite samples.

    q = inf { s : sum of w_i over s_i <= s  >=  level (w_1 + ... + w_n + w) }

A model is fitted to one part of the data, and each held-out sample gets a score that says how badly it was predicted.
The score of a new sample, exchangeable with the n held-out ones, is at most q with a probability of at least ``level``,
whatever the model and the distribution [1]_; with scores that have no ties it is at most level + 1 / (n + 1) [2]_.
Without weights q is the score of rank ceil(level (n + 1)), and infinite where that is more than n.

What is exchangeable has to be said. The steps of one series are not, but whole series may be. If each of K series has
N_k scores, of weight 1 / N_k, then a step drawn at random from a new series has a score of at most q with a probability
of at least ``level`` [3]_: the share of steps that is covered, averaged over series.

Above: the estimators. Below: NumPy.

References
----------
.. [1] Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005, section 4.2.
.. [2] Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, "Distribution-Free Predictive Inference for Regression", 2018,
   section 2.
.. [3] Lee, Barber & Willett, "Distribution-free inference with hierarchical data", 2023, section 3.
"""

import math

import numpy as np

# Sums of weights are rounded; a rank that is whole must not become the next one.
_ROUNDED = 1e-10
# Scores of one series that are kept.
_MOST_STEPS = 1000


def conformal_quantile(scores, level, weights=None, test_weight=1.0):
    """The bound q that a new score exceeds with a probability of at most 1 - ``level``.

    Parameters
    ----------
    scores : array-like of shape (n_samples, ...)
        Scores of held-out samples; each of the columns by itself, if there are any. NaN is a score that is not known
        and is left out.
    level : float or array-like of shape (n_levels,)
        Between 0 and 1.
    weights : array-like of shape (n_samples,) or (n_samples, ...), optional
        Of each score, not negative; None weighs all 1. For scores a step, `group_weights`; for a new sample from
        another distribution of inputs, the likelihood ratios of the two (Tibshirani et al. 2019).
    test_weight : float, default=1.0
        The weight w of the new sample, whose score is not known and counts as infinite.

    Returns
    -------
    q : float or ndarray of shape (...), (n_levels, ...)
        ``inf`` where the samples are too few for the level: see `least_samples`.

    Raises
    ------
    ValueError
        For levels outside [0, 1], no scores, or weights that are negative or of another length.

    Examples
    --------
    The ninth of nine residuals bounds the next one with a probability of 0.9, and none of them bounds it at 0.95.

    >>> from statespace.conformal import conformal_quantile
    >>> conformal_quantile([3, 1, 4, 1, 5, 9, 2, 6, 5], [0.5, 0.9, 0.95])
    array([ 4.,  9., inf])
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim == 0 or len(scores) == 0:
        raise ValueError("scores must hold at least one sample. Got none.")
    levels = _checked_levels(level)
    weights = _checked_weights(weights, scores.shape)
    if not test_weight >= 0:
        raise ValueError(f"test_weight must not be negative. Got {test_weight!r}.")
    columns = scores.reshape(len(scores), -1)
    order = np.argsort(columns, axis=0)  # NaN comes last
    ordered = np.take_along_axis(columns, order, axis=0)
    sums = np.cumsum(np.where(np.isnan(ordered), 0.0, np.take_along_axis(weights, order, axis=0)), axis=0)
    ordered = np.concatenate([np.where(np.isnan(ordered), np.inf, ordered), np.full((1, columns.shape[1]), np.inf)])
    result = np.empty((len(levels), columns.shape[1]))
    for row, one in zip(result, levels, strict=True):
        whole = sums[-1] + test_weight
        place = (sums < (one - _ROUNDED) * whole).sum(axis=0)
        row[:] = np.take_along_axis(ordered, place[np.newaxis], axis=0)[0]
    return _shaped(result, level, scores.shape[1:])


def outward_quantile(scores, level, weights=None, test_weight=1.0):
    """Quantiles of signed scores, rounded away from the middle: each bounds its own side.

    Above 1/2 it is `conformal_quantile`: a new score lies above with a probability of at most 1 - ``level``. Below 1/2
    it is the same from the other side: a new score lies below with a probability of at most ``level``. At 1/2 it is
    the mean of both.

    Parameters
    ----------
    scores : array-like of shape (n_samples, ...)
        Signed, such as residuals in units of their standard deviation.
    level, weights, test_weight
        As in `conformal_quantile`.

    Returns
    -------
    q : float or ndarray of shape (...), (n_levels, ...)
        ``-inf`` and ``inf`` where the samples are too few, NaN for the middle of none.

    Examples
    --------
    >>> from statespace.conformal import outward_quantile
    >>> outward_quantile([-2, -1, 0, 1, 2, 3, 4, 5, 6], [0.1, 0.5, 0.9, 0.95])
    array([-2.,  2.,  6., inf])
    """
    levels = _checked_levels(level)
    scores = np.asarray(scores, dtype=np.float64)
    above = conformal_quantile(scores, levels, weights, test_weight)
    below = -conformal_quantile(-scores, 1.0 - levels, weights, test_weight)
    side = levels.reshape(-1, *[1] * (above.ndim - 1))
    with np.errstate(invalid="ignore"):  # of a column without scores, -inf and inf have no mean
        middle = (above + below) / 2
    return _shaped(np.where(side > 0.5, above, np.where(side < 0.5, below, middle)), level, scores.shape[1:])


def group_weights(groups, known=None):
    """The weight 1 / N_k of each score of series k, which has N_k of them.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        The series of each score.
    known : array-like of bool of shape (n_samples, ...), optional
        Which scores are known, in each column; the others weigh 0. None: all are.

    Returns
    -------
    weights : ndarray of shape (n_samples,), or that of ``known``

    Examples
    --------
    >>> from statespace.conformal import group_weights
    >>> group_weights([0, 0, 1, 1, 1, 1])
    array([0.5 , 0.5 , 0.25, 0.25, 0.25, 0.25])
    >>> group_weights([0, 0, 1], known=[True, False, True])
    array([1., 0., 1.])
    """
    _, inverse = np.unique(np.asarray(groups), return_inverse=True)
    known = np.ones(len(inverse), dtype=bool) if known is None else np.asarray(known, dtype=bool)
    counts = np.zeros((inverse.max() + 1, *known.shape[1:]))
    np.add.at(counts, inverse, known)
    return known / np.maximum(counts, 1)[inverse]


def least_samples(level):
    """The fewest samples, of weight 1, for which `conformal_quantile` is finite: ceil(level / (1 - level)).

    Parameters
    ----------
    level : float
        From 0 up to, not including, 1.

    Returns
    -------
    n_samples : int

    Examples
    --------
    >>> from statespace.conformal import least_samples
    >>> [least_samples(level) for level in (0.5, 0.9, 0.95, 0.99)]
    [1, 9, 19, 99]
    """
    if not 0 <= level < 1:
        raise ValueError(f"level must be at least 0 and less than 1. Got {level!r}.")
    return max(1, math.ceil(level / (1 - level) * (1 - _ROUNDED) - _ROUNDED))


def check_enough(bounds, level, weights):
    """Refuse bounds that are infinite because there are too few series for the level.

    Parameters
    ----------
    bounds : float or ndarray
        From `conformal_quantile` or `outward_quantile`.
    level : float
        The highest that was asked for.
    weights : ndarray of shape (n_samples,) or (n_samples, n_columns)
        From `group_weights`: those of one series add up to 1.

    Raises
    ------
    ValueError
        If one is infinite, with the number of series that is needed.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.conformal import check_enough
    >>> check_enough(np.inf, 0.95, np.ones(10))
    Traceback (most recent call last):
        ...
    ValueError: a level of 0.95 needs 19 held-out series to be sure of, and there are 10. Give a lower coverage, or fit to more series or with a larger calibration_fraction.
    """  # noqa: E501
    if not np.isfinite(bounds).all():
        n_series = int(np.rint(np.sum(weights, axis=0)).min())
        raise ValueError(
            f"a level of {level:g} needs {least_samples(level)} held-out series to be sure of, and there are "
            f"{n_series}. Give a lower coverage, or fit to more series or with a larger calibration_fraction."
        )


def some_steps(groups):
    """The places of at most 1,000 scores of each series, drawn at random: as good as all, and a file stays small.

    Parameters
    ----------
    groups : ndarray of int of shape (n_samples,)
        The series of each score, in order.

    Returns
    -------
    kept : ndarray of int
        In order.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.conformal import some_steps
    >>> some_steps(np.repeat([0, 1], [5, 20_000])).shape
    (1005,)
    """
    generator = np.random.default_rng(0)
    series = np.split(np.arange(len(groups)), np.flatnonzero(np.diff(groups)) + 1)
    return np.concatenate([
        np.sort(generator.choice(steps, _MOST_STEPS, replace=False)) if len(steps) > _MOST_STEPS else steps
        for steps in series
    ])


def _checked_levels(level):
    levels = np.atleast_1d(np.asarray(level, dtype=np.float64))
    if levels.ndim != 1 or not np.all((levels >= 0) & (levels <= 1)):
        raise ValueError(f"levels must be between 0 and 1, one or a list of them. Got {level!r}.")
    return levels


def _checked_weights(weights, shape):
    """One for each score, as columns."""
    if weights is None:
        weights = np.ones(shape)
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape not in (shape[:1], shape) or not np.all((weights >= 0) & np.isfinite(weights)):
        raise ValueError(f"weights must be {shape[0]} finite numbers, not negative, one for each score.")
    weights = weights.reshape(weights.shape + (1,) * (len(shape) - weights.ndim))
    return np.broadcast_to(weights, shape).reshape(shape[0], -1)


def _shaped(result, level, shape):
    """One row for each level, none where the level was a number; a number for a number."""
    result = result.reshape((*np.shape(level), *shape))
    return float(result) if result.ndim == 0 else result
