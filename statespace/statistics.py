"""What is learned from series in one pass and bounded memory: mean and spread of columns, the median of gaps.

    n = n₁ + n₂,    m = m₁ + (n₂/n) δ,    n v = n₁ v₁ + n₂ v₂ + (n₁ n₂/n) δ²,    δ = m₂ − m₁

Blocks of rows are cut at multiples of a fixed number of rows, wherever series begin and end, so that series in memory
and the same series read in pieces give the same bits.

Above: ``stored`` and the estimators. Below: NumPy, and ``forms``, which checks numbers.

References
----------
T. F. Chan, G. H. Golub & R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
1979.
"""

import warnings

import numpy as np
import pandas as pd

from statespace.forms import check_values

_BLOCK = 1 << 16
# Distinct gaps up to which the median is exact, and the bits of a float that tell gaps apart beyond them.
_DISTINCT = 1 << 21
_BITS = 16
# Different labels that are told apart; the floats of a regression are more, and are then no labels.
_MAX_LABELS = 1 << 16
# Powers of two within which squares of numbers, and sums of them, neither vanish nor overflow.
_SQUARED = 256


class Moments:
    """Mean and standard deviation of every column over rows that come in pieces, NaN left out.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.statistics import Moments
    >>> moments = Moments()
    >>> moments.add(np.array([[1.0, 5.0]]))
    >>> moments.add(np.array([[3.0, np.nan]]))
    >>> moments.mean_and_scale()
    (array([2., 5.]), array([1., 1.]))
    """

    def __init__(self):
        self._rows, self._weights, self._n_rows = [], [], 0
        # The moments of each column are in units of 2^exponent.
        self._count, self._mean, self._variance, self._exponent = 0.0, 0.0, 0.0, None

    def add(self, rows, weights=None):
        """Count further rows, an ndarray of shape (n, n_columns), each with its weight, or all with one."""
        if weights is not None:
            weights = np.broadcast_to(np.asarray(weights, dtype=np.float64), len(rows))
        start = 0
        while start < len(rows):
            stop = min(start + _BLOCK - self._n_rows, len(rows))
            self._rows.append(rows[start:stop])
            if weights is not None:
                self._weights.append(weights[start:stop])
            self._n_rows += stop - start
            if self._n_rows == _BLOCK:
                self._fold()
            start = stop

    def _fold(self):
        if not self._rows:
            return
        block = np.concatenate(self._rows)
        exponent = _exponents(block)
        if exponent.any():
            block = np.ldexp(block, -exponent)
        if self._weights:
            count, mean, variance = _weighted_moments(block, np.concatenate(self._weights)[:, np.newaxis])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN only
                count = np.sum(~np.isnan(block), axis=0)
                mean, variance = np.nanmean(block, axis=0), np.nanvar(block, axis=0)
        self._rows, self._weights, self._n_rows = [], [], 0
        mean, variance = np.where(count > 0, mean, 0.0), np.where(count > 0, variance, 0.0)
        before = exponent if self._exponent is None else self._exponent
        self._exponent = np.maximum(before, exponent)
        mean, variance = _in_units(mean, variance, exponent - self._exponent)
        self._mean, self._variance = _in_units(self._mean, self._variance, before - self._exponent)
        total = self._count + count
        share, step = count / np.where(total > 0, total, 1), mean - self._mean
        # Of the first block the bits stay as they are.
        later = np.asarray(self._count) > 0
        self._mean = np.where(later, self._mean + share * step, mean)
        within = self._variance + share * (variance - self._variance)
        self._variance = np.where(later, within + share * (1 - share) * step**2, variance)
        self._count = total

    def mean_and_scale(self):
        """What was learned so far.

        Returns
        -------
        mean, scale : ndarray of shape (n_columns,)
            A column without spread has scale 1, one without values also mean 0.
        """
        self._fold()
        exponent = 0 if self._exponent is None else self._exponent
        mean, scale = np.ldexp(self._mean, exponent), np.ldexp(np.sqrt(self._variance), exponent)
        constant = ~(scale > 10 * np.finfo(np.float64).eps * np.abs(mean))
        return mean, np.where(constant, 1.0, scale)


def _exponents(block):
    """The power of two near the largest number of each column, where its square could vanish or overflow; else 0."""
    largest = np.fmax.reduce(np.abs(block), axis=0, initial=0.0)
    # A column of zeros has any unit, so the lowest: what follows sets its own.
    exponents = np.where(largest > 0, np.frexp(largest)[1], -1100)
    return np.where(np.abs(exponents) > _SQUARED, exponents, 0)


def _in_units(mean, variance, exponent):
    """Moments times a power of two: the same digits."""
    return np.ldexp(mean, exponent), np.ldexp(variance, 2 * exponent)


def _weighted_moments(rows, weights):
    weights = np.where(np.isnan(rows), 0.0, weights)
    total = weights.sum(axis=0)
    divisor = np.where(total > 0, total, 1)
    mean = (weights * np.nan_to_num(rows)).sum(axis=0) / divisor
    return total, mean, (weights * np.nan_to_num(rows - mean) ** 2).sum(axis=0) / divisor


class GapMedian:
    """The median of gaps that come in pieces; those that are not positive are left out.

    It is exact while there are no more than two million different gaps, and beyond them within one part in 100,000, as
    gaps are then counted by the leading 16 bits of their significands.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.statistics import GapMedian
    >>> gaps = GapMedian()
    >>> gaps.add(np.array([1.0, 2.0]))
    >>> gaps.add(np.array([4.0, 0.0]))
    >>> gaps.median()
    2.0
    """

    def __init__(self):
        self._values, self._counts = np.zeros(0), np.zeros(0)
        self._new, self._weights, self._n_new = [np.zeros(0)], [np.zeros(0)], 0
        self._exact = True

    def add(self, gaps, weight=1.0):
        """Count further gaps, an ndarray of shape (n,), of a series of some weight."""
        if weight <= 0:
            return
        self._new.append(gaps[gaps > 0])
        self._weights.append(np.full(len(self._new[-1]), float(weight)))
        self._n_new += len(self._new[-1])
        if self._n_new >= max(_BLOCK, len(self._values)):
            self._fold()

    def _fold(self):
        values, weights = np.concatenate(self._new), np.concatenate(self._weights)
        self._new, self._weights, self._n_new = [np.zeros(0)], [np.zeros(0)], 0
        self._merge(values, weights)
        if self._exact and len(self._values) > _DISTINCT:
            self._exact = False
            self._merge(np.zeros(0), np.zeros(0))

    def _merge(self, values, weights):
        values, counts = np.concatenate([self._values, values]), np.concatenate([self._counts, weights])
        if not self._exact:
            dropped = 52 - _BITS
            values = (((values.view(np.int64) >> dropped) << dropped) + (1 << (dropped - 1))).view(np.float64)
        self._values, places = np.unique(values, return_inverse=True)
        self._counts = np.bincount(places, weights=counts, minlength=len(self._values))

    def median(self):
        """The median so far; 1.0 if there was no positive gap."""
        self._fold()
        if not len(self._values):
            return 1.0
        upto = np.cumsum(self._counts)
        middle = [np.searchsorted(upto, upto[-1] / 2, side=side) for side in ("left", "right")]
        return float(self._values[np.minimum(middle, len(upto) - 1)].mean())


class TargetStatistics:
    """What a pass over targets a step learns: moments of numbers, the labels and how many of each, what is known.

    Parameters
    ----------
    n_series : int

    Attributes
    ----------
    moments : Moments
        Empty if the targets are no numbers.
    labels, counts : ndarray of shape (n_labels,), or None
        The different targets, sorted, and how often each came, by weight; None if there are too many for labels.
    known : ndarray of shape (n_series,), bool
        Whether a series has a target that is not missing.
    weighted : bool
        Whether the moments are weighted.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.statistics import TargetStatistics
    >>> statistics = TargetStatistics(2)
    >>> statistics.add(0, np.array([[1.0], [np.nan], [3.0]]))
    >>> statistics.labels, statistics.known
    (array([1., 3.]), array([ True, False]))
    """

    def __init__(self, n_series):
        self.moments = Moments()
        self.labels = self.counts = np.zeros(0, dtype=np.int64)
        self.known = np.zeros(n_series, dtype=bool)
        self.weighted = False

    def add(self, i, rows, weights=None):
        """Count further rows of series ``i``, an ndarray of shape (n, n_outputs), with their weights (n,)."""
        self.weighted = self.weighted or weights is not None
        seen = ~pd.isna(rows)
        self.known[i] |= bool(seen.any())
        if rows.dtype.kind in "biuf":
            self.moments.add(check_values(rows, name="y"), weights)
        if self.labels is None or not seen.any():
            return
        labels, places = np.unique(rows[seen], return_inverse=True)
        own = None if weights is None else np.broadcast_to(weights[:, np.newaxis], rows.shape)[seen]
        counts = np.bincount(places.ravel(), weights=own)
        if len(self.labels):
            counts = np.concatenate([self.counts, counts])
            labels, places = np.unique(np.concatenate([self.labels, labels]), return_inverse=True)
            counts = np.bincount(places.ravel(), weights=counts)
        self.labels, self.counts = (labels, counts) if len(labels) <= _MAX_LABELS else (None, None)
