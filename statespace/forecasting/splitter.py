"""TimeSplitter: training and test windows by time, for sktime's ``evaluate`` and grid search on any index."""

from typing import ClassVar

import numpy as np
import pandas as pd
from sktime.split.base import BaseSplitter


class TimeSplitter(BaseSplitter):
    """Windows in time: everything up to a cutoff to train on, what lies within a horizon after it to test on.

    The cutoffs are t₁ + w, t₁ + w + s, t₁ + w + 2s, ... while the record reaches on, with t₁ its first time, w
    ``initial_window`` and s ``step_length``. A fold trains on the times up to its cutoff, included, and tests on
    those in (cutoff, cutoff + ``horizon``]. Folds without a time to test on are left out.

    Windows of sktime's own splitters hold a number of rows, and their test rows are steps of a regular grid. Here
    ``fh`` is None: ``evaluate`` and ``ForecastingGridSearchCV`` then ask the forecaster for the very times of the test
    window.

    Parameters
    ----------
    initial_window : float, Timedelta or str, default=0.5
        w: a length of time, as a Timedelta (or text such as ``"365D"``) on datetimes and periods and a number on
        integers; or a float below 1, which is a share of the record's span.
    step_length : float, Timedelta or str, optional
        s, in the same ways. None: the horizon, so that every later time is tested once.
    horizon : float, Timedelta or str, default=0.1
        The length of the test windows, in the same ways.
    window_length : float, Timedelta or str, optional
        Train on the times in (cutoff − ``window_length``, cutoff] alone. None: on all times before.

    Raises
    ------
    ValueError, TypeError
        If a length is not positive, or not of the index' kind; if no fold has both training and test times.

    Notes
    -----
    Of a panel, every series is split by the same cutoffs, counted from the earliest time of all.

    Examples
    --------
    >>> import pandas as pd
    >>> from statespace.forecasting import TimeSplitter
    >>> days = pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-05", "2020-01-06", "2020-01-11"])
    >>> for train, test in TimeSplitter("4D", horizon="5D").split(days):
    ...     print(train, test)
    [0 1 2] [3]
    [0 1 2 3] [4]
    """

    _tags: ClassVar = {
        "authors": "the statespace developers",
        "maintainers": "the statespace developers",
        "split_hierarchical": True,
    }

    def __init__(self, initial_window=0.5, step_length=None, horizon=0.1, window_length=None):
        self.initial_window = initial_window
        self.step_length = step_length
        self.horizon = horizon
        self.window_length = window_length
        super().__init__()

    def __post_init__(self):
        """Say to sktime that test windows bring their own times."""
        self.fh = None

    def _split(self, y):
        times = _sortable(y.get_level_values(-1) if isinstance(y, pd.MultiIndex) else y)
        if len(times) == 0:
            raise ValueError("y is empty: there is nothing to split.")
        start, end = times.min(), times.max()
        horizon = self._length("horizon", start, end)
        window = None if self.window_length is None else self._length("window_length", start, end)
        found = False
        for cutoff in self._cutoffs(start, end):
            train = times <= cutoff
            if window is not None:
                train &= times > cutoff - window
            test = (times > cutoff) & (times <= cutoff + horizon)
            if isinstance(y, pd.MultiIndex):
                # A series that has not begun cannot be forecast.
                test &= y.droplevel(-1).isin(y.droplevel(-1)[train].unique())
            if train.any() and test.any():
                found = True
                yield np.flatnonzero(train), np.flatnonzero(test)
        if not found:
            raise ValueError(
                f"no fold has times to train and to test on: the record spans {end - start}, with initial_window="
                f"{self.initial_window!r} and horizon={self.horizon!r}. Make them shorter."
            )

    def get_n_splits(self, y=None):
        """The number of folds of ``y``, a series or an index."""
        if y is None:
            raise ValueError("the number of folds depends on the times: give y.")
        return sum(1 for _ in self.split(y))

    def get_cutoffs(self, y=None):
        """The last training time of every fold of ``y``, a series or an index."""
        if y is None:
            raise ValueError("the cutoffs depend on the times: give y.")
        index = self._coerce_to_index(y)
        times = index.get_level_values(-1) if isinstance(index, pd.MultiIndex) else index
        return pd.Index([times[train].max() for train, _ in self.split(index)])

    def _cutoffs(self, start, end):
        step = self._length("horizon" if self.step_length is None else "step_length", start, end)
        cutoff = start + self._length("initial_window", start, end)
        k = 0
        while cutoff + k * step < end:
            yield cutoff + k * step
            k += 1

    def _length(self, name, start, end):
        """A length of time as what can be added to a time."""
        value = getattr(self, name)
        clock = isinstance(start, pd.Timestamp)
        if isinstance(value, float) and 0 < value < 1:
            return (end - start) * value
        if clock:
            if isinstance(value, int | float):
                raise TypeError(
                    f"{name} must be a Timedelta, text such as '365D', or a share below 1, where the index "
                    f"holds datetimes or periods. Got {value!r} instead."
                )
            length = pd.Timedelta(value)
            positive = length > pd.Timedelta(0)
        else:
            if not isinstance(value, int | float | np.number) or isinstance(value, bool):
                raise TypeError(f"{name} must be a number where the index holds integers. Got {value!r} instead.")
            length, positive = value, value > 0
        if not positive:
            raise ValueError(f"{name} must be positive. Got {value!r} instead.")
        return length

    @classmethod
    def get_test_params(cls, parameter_set="default"):
        """Two parameter sets for sktime's tests."""
        return [{}, {"initial_window": 0.3, "step_length": 0.2, "horizon": 0.2, "window_length": 0.3}]


def _sortable(index):
    """Times whose differences are lengths: periods begin at their start."""
    return index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
