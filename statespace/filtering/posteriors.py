"""What was fitted, to be asked about any of its series: one process for all of them, or one for each."""

import numpy as np


class Posteriors:
    """The posteriors of many series, asked for rows of any of them in one call.

    Parameters
    ----------
    posteriors : list of Posterior
        One that knows all series, or one for each.
    shared : bool
        Whether there is one for all.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace import KalmanRegressor
    >>> from statespace.kalman import LocalLevel
    >>> gp = KalmanRegressor(LocalLevel()).fit([np.array([[0.0], [1.0]]), np.array([[5.0]])], [[1.0, 2.0], [3.0]])
    >>> mean, variance = gp._posteriors().at(np.array([0.5, 5.0]), np.zeros((2, 0)), np.array([0, 1]))
    >>> mean.shape
    (2, 1, 1)
    """

    def __init__(self, posteriors, shared):
        self.posteriors, self.shared = posteriors, shared

    def one(self, series):
        """The posterior of one series alone."""
        return self.posteriors[0].one(series) if self.shared else self.posteriors[series]

    def at(self, times, covariates, series, components=False):
        """Means and variances of the signal, or of each component, at rows of any series.

        Parameters
        ----------
        times : ndarray of shape (n,)
        covariates : ndarray of shape (n, c)
        series : ndarray of int, shape (n,)
        components : bool, default=False

        Returns
        -------
        mean, variance : ndarray of shape (n, r, m)
        """
        if self.shared:
            return self.posteriors[0].at(times, covariates, components, series)
        answers = [self.posteriors[i].at(times[rows], covariates[rows], components) for i, rows in rows_of_each(series)]
        order = np.concatenate([rows for _, rows in rows_of_each(series)])
        mean, variance = (np.empty((len(times), *part.shape[1:])) for part in answers[0])
        mean[order], variance[order] = (np.concatenate(parts) for parts in zip(*answers, strict=True))
        return mean, variance


def rows_of_each(series):
    """The rows of each series that occurs.

    Parameters
    ----------
    series : ndarray of int, shape (n,)

    Returns
    -------
    list of (int, ndarray of int)

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.filtering.posteriors import rows_of_each
    >>> rows_of_each(np.array([4, 2, 4]))
    [(2, array([1])), (4, array([0, 2]))]
    """
    order = np.argsort(series, kind="stable")
    found, first = np.unique(series[order], return_index=True)
    return list(zip(found.tolist(), np.split(order, first[1:]), strict=True))
