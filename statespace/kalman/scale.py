"""The sizes that data have: where start values and bounds that nobody gave come from."""

from typing import NamedTuple

import numpy as np

from statespace.times import check_same_clock, elapsed, gaps

# What parameters may measure, with room for their bounds.
_SIZES = (1e-280, 1e280)
# Spreads of y whose squares, and these over gaps and spans, a float can hold with room to spare.
_SPREADS = (1e-120, 1e120)


class Scale(NamedTuple):
    """What the data say about sizes: the source of start values and bounds that are not given.

    Attributes
    ----------
    value : float
        The spread of y.
    time : float
        The median positive gap.
    span : float
        The last time minus the first, at least ``time``.
    columns : tuple of str or int
        The covariates' names.
    covariates : ndarray of shape (n_covariates,)
        Their root mean squares.
    origin : float or int
        The first time; of datetimes and timedeltas their nanoseconds.
    unit : str
        The unit of time for datetimes.

    Examples
    --------
    >>> from statespace.kalman import LocalLevel
    >>> from statespace.kalman.scale import Scale
    >>> LocalLevel().resolved(Scale(value=2.0, time=1.0, span=100.0)).variance > 0
    True
    """

    value: float
    time: float
    span: float
    columns: tuple = ()
    covariates: np.ndarray = np.zeros(0)
    origin: float | int = 0.0
    unit: str = "D"

    def elapsed(self, times):
        """ndarray of float64: checked times since ``origin``, in the unit of time."""
        if times.dtype.kind not in "mM":
            if isinstance(self.origin, int):
                check_same_clock(times, "datetimes")
            return times - self.origin
        if not isinstance(self.origin, int):
            check_same_clock(times, "numbers")
        return elapsed(times, origin=np.int64(self.origin).astype(times.dtype), unit=self.unit)

    def natural(self, unit):
        """The least and the greatest value that a quantity of this unit is likely to have.

        A variance explains between a thousandth and the whole of y's own; a rate of variance brings that about within
        the span at the least and within a gap at the most; a length of time lies between gap and span.
        """
        of_value, of_time = unit
        with np.errstate(over="ignore", under="ignore"):
            sizes = self.value**of_value * np.array([self.time, self.span]) ** of_time
        low, high = sorted(sizes)
        if not _SIZES[0] <= low <= high <= _SIZES[1]:
            raise ValueError(
                f"y spreads by {self.value:.3g} and its times by {self.time:.3g} to {self.span:.3g}: a variance for "
                "each unit of time cannot be computed with in float64. Give both in units that bring them nearer to 1."
            )
        return (1e-3 * low, high) if of_value else (low, high)


def measure(record, names, process, unit):
    """What a record says about sizes; a size of nothing is 1.

    Parameters
    ----------
    record : Record
    names : tuple of str or int
        The covariates' names.
    process : Component
        Where it starts diffuse, the mean of each series is taken to be its level, and only the spread to be explained.
    unit : str
        The unit of time for datetimes.

    Returns
    -------
    Scale

    Raises
    ------
    ValueError
        If y is so large or so small that its variance is no number any more.
    """
    y = record.y
    means = np.zeros((record.n_series, y.shape[1]))
    if process.initial().diffuse.shape[1]:
        means = record.means()
    value = _root_mean_square(y - means[record.series])
    # What rounding leaves of a constant series is no spread.
    if value <= 1e-13 * np.abs(means).max():
        value = float(np.abs(means).max())
    if value and not _SPREADS[0] <= value <= _SPREADS[1]:
        raise ValueError(
            f"y spreads by {value:.3g}, and its variance, the square of that, cannot be computed with in float64. "
            "Give y in a unit in which it is nearer to 1, and the variances in the square of that unit."
        )
    first, last = (0, len(y)) if record.starts is None else (record.starts[:-1], record.starts[1:])
    between = gaps(record.times, unit=unit)
    between[first] = 0.0
    positive = between[between > 0]
    time = float(np.median(positive)) if len(positive) else 1.0
    elapsed_until = np.append(0.0, np.cumsum(between))
    span = float(np.max(elapsed_until[last] - elapsed_until[first]))
    sizes = np.sqrt(np.mean(record.covariates**2, axis=0))
    start = record.times.min()
    origin = int(start.astype(np.int64)) if record.times.dtype.kind in "mM" else float(start)
    return Scale(value or 1.0, time, max(span, time), tuple(names), np.where(sizes > 0, sizes, 1.0), origin, unit)


def _root_mean_square(y):
    """Of what was observed, whatever its size: its squares need not be numbers that a float can hold."""
    largest = float(np.nanmax(np.abs(y)))
    if not 0.0 < largest < np.inf:
        return largest
    # a power of two rounds nothing
    unit = 2.0 ** (np.frexp(largest)[1] - 1)
    return float(unit * np.sqrt(np.nanmean((y / unit) ** 2)))
