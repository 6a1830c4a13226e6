"""Split-conformal calibration of forecasts, by horizon: quantiles moved to where held-out values say they belong.

    q̃_α(t) = q_α(t) + s(t) Q_α(h),        Q_α(h) the α-quantile of (y − q_α) / s over held-out forecasts of horizon h

s is the spread of the forecast itself, from its quartiles: what is learned on one series, level or stretch of time
counts on others. Each level has its own correction, so that both ends of an interval are calibrated (Romano, Patterson
& Candès 2019, the asymmetric form); the median stays. Ranks are those of finite samples (`statespace.conformal`).

The model is fitted to the first part of every series and forecasts the last part from many ends. Coverage holds as far
as forecast errors of one horizon are exchangeable between that part and the future; no distribution is assumed.
"""

import warnings
from typing import NamedTuple

import numpy as np

from statespace.conformal import least_samples, outward_quantile
from statespace.quantiles import LEVELS, MEDIAN

# Held-out forecasts: ends of each series, all ends, and values asked for after each.
_MOST_ENDS, _ALL_ENDS, _N_AHEAD = 512, 8192, 16
# Horizons are told apart as far as each group of them has so many scores.
_SCORES, _MOST_GROUPS = 250, 16
# Quartiles of a standard normal distribution are so far apart.
_QUARTILES = 1.3489795003921634


class Calibration(NamedTuple):
    """Corrections of quantiles by horizon.

    log_horizons (n_groups,): the middle of each group of horizons, increasing; shifts (n_groups, n_levels): the
    corrections Q at `statespace.quantiles.LEVELS`; n_scores (n_groups,): how many scores each rests on.

    Examples
    --------
    Quantiles of a distribution that is half as wide as that of the values:

    >>> import numpy as np
    >>> from scipy.stats import norm
    >>> from statespace.forecasting.calibration import Calibration
    >>> from statespace.quantiles import LEVELS
    >>> y = 2.0 * np.random.default_rng(0).normal(size=2000)
    >>> quantiles = np.tile(norm.ppf(LEVELS), (2000, 1))
    >>> calibration = Calibration.learned(quantiles, y, np.ones(2000))
    >>> calibration(quantiles[:1], np.ones(1)).round(1)[0, [2, 5, 8]]
    array([-3.3,  0. ,  3.2])
    """

    log_horizons: np.ndarray
    shifts: np.ndarray
    n_scores: np.ndarray

    @classmethod
    def learned(cls, quantiles, y, horizons):
        """From held-out forecasts.

        Parameters
        ----------
        quantiles : ndarray of shape (n, n_levels)
        y, horizons : ndarray of shape (n,)
            What came, and how long after the last value that was known; positive.
        """
        if len(y) == 0:
            raise ValueError(
                "calibrate=True found no held-out value to forecast: the series are too short, or max_horizon is. Use "
                "calibrate=False, or a larger calibration_fraction."
            )
        scores = (y[:, np.newaxis] - quantiles) / _spread(quantiles)[:, np.newaxis]
        n_groups = int(np.clip(len(y) // _SCORES, 1, _MOST_GROUPS))
        logs = np.log(horizons)
        edges = np.unique(np.quantile(logs, np.arange(1, n_groups) / n_groups, method="lower"))
        group = np.searchsorted(edges, logs, side="left")
        centers, shifts, counts = [], [], []
        for k in np.unique(group):
            own = scores[group == k]
            shift = np.diagonal(outward_quantile(own, LEVELS)).copy()
            # Where scores are too few for a level it is moved as far as any of them asks for.
            ends = np.where(LEVELS < 0.5, np.minimum(own.min(axis=0), 0.0), np.maximum(own.max(axis=0), 0.0))
            shift = np.where(np.isfinite(shift), shift, ends)
            shift[MEDIAN] = 0.0
            centers.append(logs[group == k].mean())
            shifts.append(shift)
            counts.append(len(own))
        if min(counts) < least_samples(0.95):
            warnings.warn(
                f"calibrate=True found {min(counts)} held-out values to calibrate with, and an interval of coverage "
                f"0.9 needs {least_samples(0.95)}: intervals are likely to be off. Give longer series, or a larger "
                "calibration_fraction.",
                UserWarning,
                stacklevel=5,
            )
        return cls(np.array(centers), np.array(shifts), np.array(counts))

    def __call__(self, quantiles, horizons):
        """Calibrated quantiles, in order; beyond the horizons that were held out as at the nearest of those."""
        at = np.log(horizons)
        shifts = np.stack([np.interp(at, self.log_horizons, column) for column in self.shifts.T], axis=1)
        moved = quantiles + _spread(quantiles)[:, np.newaxis] * shifts
        median = quantiles[:, [MEDIAN]]
        below, above = np.minimum(moved[:, :MEDIAN], median), np.maximum(moved[:, MEDIAN + 1 :], median)
        return np.concatenate([np.sort(below, axis=1), median, np.sort(above, axis=1)], axis=1)


def _spread(quantiles):
    spread = (quantiles[:, MEDIAN + 1] - quantiles[:, MEDIAN - 1]) / _QUARTILES
    return np.maximum(spread, np.finfo(np.float64).tiny)


def held_out(lengths, fraction):
    """How many samples of series are fitted to; the rest is held out.

    Parameters
    ----------
    lengths : ndarray of int, shape (n_series,)
    fraction : float

    Returns
    -------
    ndarray of int, shape (n_series,)

    Raises
    ------
    ValueError
        If not one series has two samples.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.calibration import held_out
    >>> held_out(np.array([100, 7, 1]), 0.2)
    array([80,  5,  1])
    """
    cuts = np.minimum(np.maximum(lengths - np.ceil(fraction * lengths).astype(np.int64), 1), lengths)
    if not (cuts < lengths).any():
        raise ValueError(
            "calibrate=True holds out the last part of each series, and no series of y has more than one value. Use "
            "calibrate=False."
        )
    return cuts


def held_out_forecasts(times, cuts, max_horizon, seed):
    """Which forecasts of the held-out parts to make: from ends that are spread over them, to values that follow.

    Parameters
    ----------
    times : list of ndarray
        Of the observed samples of each series.
    cuts : ndarray of int, shape (n_series,)
        As `held_out` returns them.
    max_horizon : float
    seed : int

    Returns
    -------
    numbers, ends, rows : ndarray of int, shape (n,)
        The series, how many of its samples are known, and the sample that is forecast.

    Examples
    --------
    >>> import numpy as np
    >>> from statespace.forecasting.calibration import held_out_forecasts
    >>> held_out_forecasts([np.arange(6.0)], np.array([4]), 1.0, seed=0)
    (array([0, 0]), array([4, 5]), array([4, 5]))
    """
    rng = np.random.default_rng(seed)
    n_series = max(1, sum(cut < len(own) for own, cut in zip(times, cuts, strict=True)))
    most = int(np.clip(_ALL_ENDS // n_series, 4, _MOST_ENDS))
    numbers, ends, rows = [], [], []
    for number, (own, cut) in enumerate(zip(times, cuts, strict=True)):
        n = len(own)
        for end in np.unique(np.linspace(cut, n - 1, most).astype(np.int64)) if cut < n else ():
            reach = int(np.searchsorted(own, own[end - 1] + max_horizon, side="right")) - end
            ahead = np.arange(max(reach, 0))
            if reach > _N_AHEAD:
                # Half of them alike over all horizons, half over their logarithms.
                share = (np.arange(_N_AHEAD) // 2 + rng.random(_N_AHEAD)) / (_N_AHEAD // 2)
                share[1::2] = (np.power(reach + 1.0, share[1::2]) - 1) / reach
                ahead = np.unique(np.minimum((share * reach).astype(np.int64), reach - 1))
            rows.append(end + ahead)
            ends.append(np.full(len(ahead), end))
            numbers.append(np.full(len(ahead), number))
    return tuple(np.concatenate([np.empty(0, dtype=np.int64), *part]) for part in (numbers, ends, rows))
