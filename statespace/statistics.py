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


class Moments:
    """Mean and standard deviation of every column over rows that come in pieces, NaN left out.

    Attributes
    ----------
    missing : bool
        Whether there was a NaN.

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
        self.missing = False
        self._rows, self._n_rows = [], 0
        self._count, self._mean, self._variance = 0.0, 0.0, 0.0

    def add(self, rows):
        """Count further rows, an ndarray of shape (n, n_columns)."""
        while len(rows):
            room = _BLOCK - self._n_rows
            self._rows.append(rows[:room])
            self._n_rows += len(self._rows[-1])
            rows = rows[room:]
            if self._n_rows == _BLOCK:
                self._fold()

    def _fold(self):
        if not self._rows:
            return
        block = np.concatenate(self._rows)
        self._rows, self._n_rows = [], 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN only
            count = np.sum(~np.isnan(block), axis=0)
            mean, variance = np.nanmean(block, axis=0), np.nanvar(block, axis=0)
        self.missing = self.missing or bool((count < len(block)).any())
        mean, variance = np.where(count, mean, 0.0), np.where(count, variance, 0.0)
        total = np.maximum(self._count + count, 1)
        share, step = count / total, mean - self._mean
        # Of the first block the bits stay as they are.
        self._mean = np.where(self._count, self._mean + share * step, mean)
        within = self._variance + share * (variance - self._variance)
        self._variance = np.where(self._count, within + share * (1 - share) * step**2, variance)
        self._count = self._count + count

    def mean_and_scale(self):
        """What was learned so far.

        Returns
        -------
        mean, scale : ndarray of shape (n_columns,)
            A column without spread has scale 1, one without values also mean 0.
        """
        self._fold()
        scale = np.sqrt(self._variance)
        constant = ~(scale > 10 * np.finfo(np.float64).eps * np.abs(self._mean))
        return np.asarray(self._mean), np.where(constant, 1.0, scale)


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
        self._values, self._counts = np.zeros(0), np.zeros(0, dtype=np.int64)
        self._new, self._n_new = [], 0
        self._exact = True

    def add(self, gaps):
        """Count further gaps, an ndarray of shape (n,)."""
        self._new.append(gaps[gaps > 0])
        self._n_new += len(self._new[-1])
        if self._n_new >= max(_BLOCK, len(self._values)):
            self._fold()

    def _fold(self):
        values = np.concatenate(self._new) if self._new else np.zeros(0)
        self._new, self._n_new = [], 0
        self._merge(values, np.ones(len(values), dtype=np.int64))
        if self._exact and len(self._values) > _DISTINCT:
            self._exact = False
            self._merge(np.zeros(0), np.zeros(0, dtype=np.int64))

    def _merge(self, values, counts):
        values = np.concatenate([self._values, values])
        if not self._exact:
            dropped = 52 - _BITS
            values = (((values.view(np.int64) >> dropped) << dropped) + (1 << (dropped - 1))).view(np.float64)
        self._values, places = np.unique(values, return_inverse=True)
        counts = np.concatenate([self._counts, counts])
        self._counts = np.zeros(len(self._values), dtype=np.int64)
        np.add.at(self._counts, places, counts)

    def median(self):
        """The median so far; 1.0 if there was no positive gap."""
        self._fold()
        if not len(self._values):
            return 1.0
        n = int(self._counts.sum())
        last = np.cumsum(self._counts)
        low, high = self._values[np.searchsorted(last, [(n - 1) // 2, n // 2], side="right")]
        return float(np.mean([low, high]))


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
        The different targets, sorted, and how often each came; None if there are too many for labels.
    known : ndarray of shape (n_series,), bool
        Whether a series has a target that is not missing.

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

    def add(self, i, rows):
        """Count further rows of series ``i``, an ndarray of shape (n, n_outputs)."""
        seen = ~pd.isna(rows)
        self.known[i] |= bool(seen.any())
        if rows.dtype.kind in "biuf":
            self.moments.add(check_values(rows, name="y"))
        if self.labels is None or not seen.any():
            return
        labels, counts = np.unique(rows[seen], return_counts=True)
        if len(self.labels):
            counts = np.concatenate([self.counts, counts])
            labels, places = np.unique(np.concatenate([self.labels, labels]), return_inverse=True)
            counts = np.bincount(places, weights=counts).astype(np.int64)
        self.labels, self.counts = (labels, counts) if len(labels) <= _MAX_LABELS else (None, None)
