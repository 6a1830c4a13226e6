"""Draw particles in proportion to their weights."""

import numpy as np

METHODS = ("systematic", "stratified", "residual", "multinomial")


def resample(weights, method, rng):
    """Indices of the particles that go on, each drawn N w_i times in expectation.

    Parameters
    ----------
    weights : ndarray of shape (N,)
        Their sum is one.
    method : {"systematic", "stratified", "residual", "multinomial"}
        One uniform number for all; one in each of N strata; the whole parts of N w_i and multinomial for the rest;
        independent draws. In the order of their variance, by and large.
    rng : Generator

    Returns
    -------
    ndarray of int, shape (N,)

    References
    ----------
    Douc, Cappé and Moulines, *Comparison of resampling schemes for particle filtering*, 2005.
    """
    n = len(weights)
    if method == "systematic":
        return _invert(weights, (np.arange(n) + rng.random()) / n)
    if method == "stratified":
        return _invert(weights, (np.arange(n) + rng.random(n)) / n)
    if method == "residual":
        copies = np.floor(n * weights).astype(int)
        kept = np.repeat(np.arange(n), copies)
        rest = n * weights - copies
        if len(kept) >= n:
            return kept[:n]
        drawn = _invert(rest / rest.sum(), np.sort(rng.random(n - len(kept))))
        return np.concatenate([kept, drawn])
    return _invert(weights, np.sort(rng.random(n)))


def _invert(weights, points):
    total = np.cumsum(weights)
    return np.minimum(np.searchsorted(total, points * total[-1], side="right"), len(weights) - 1)
