"""TimeSplitter: what is trained on and tested, and that sktime's evaluate and grid search score the right times."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.base import BaseForecaster
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.performance_metrics.forecasting import MeanAbsoluteError
from sktime.utils.estimator_checks import check_estimator

from statespace.forecasting import TimeSplitter
from statespace.forecasting.base import TimeForecaster


class Line(TimeForecaster):
    """y(t) = last value + slope (t - last time), to be checked by hand."""

    _tags: ClassVar = {"y_inner_mtype": "pd.Series"}

    def __init__(self, slope=0.0, time_unit=None):
        self.slope = slope
        self.time_unit = time_unit
        super().__init__()

    def _fit(self, y, X, fh):
        self._axis = self._make_axis([y.index])
        self._history = y

    def _predict(self, fh, X):
        index = self._axis.future(fh, self.cutoff)
        ahead = self._axis.count(index) - self._axis.count(self._history.index[-1:])
        return pd.Series(self._history.iloc[-1] + self.slope * ahead, index=index)


def irregular(kind, n=40):
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.integers(1, 9, size=n))
    if kind == "integers":
        index = pd.Index(steps)
    else:
        zone = "Europe/Berlin" if kind == "zoned" else None
        index = pd.DatetimeIndex(pd.Timestamp("2020-01-01", tz=zone) + pd.to_timedelta(steps, unit="D"))
    return pd.Series(0.5 * steps + rng.normal(size=n), index=index), steps


LENGTHS = {
    "integers": {"initial_window": 60, "step_length": 25, "horizon": 20},
    "datetimes": {"initial_window": "60D", "step_length": pd.Timedelta("25D"), "horizon": "20D"},
    "zoned": {"initial_window": "60D", "step_length": pd.Timedelta("25D"), "horizon": "20D"},
}


@pytest.mark.parametrize("kind", LENGTHS)
def test_evaluate_and_grid_search_equal_a_computation_by_hand(kind):
    y, steps = irregular(kind)
    values = y.to_numpy()

    def errors(slope):
        found = []
        cutoff = steps[0] + 60
        while cutoff < steps[-1]:
            train, test = steps <= cutoff, (steps > cutoff) & (steps <= cutoff + 20)
            if test.any():
                forecast = values[train][-1] + slope * (steps[test] - steps[train][-1])
                found.append(np.mean(np.abs(forecast - values[test])))
            cutoff += 25
        return np.array(found)

    splitter = TimeSplitter(**LENGTHS[kind])
    result = evaluate(Line(0.5), splitter, y, scoring=MeanAbsoluteError(), error_score="raise")
    np.testing.assert_allclose(result["test_MeanAbsoluteError"], errors(0.5), rtol=1e-12)
    assert len(result) == splitter.get_n_splits(y) > 3
    grid = {"slope": [0.0, 0.4, 2.0]}
    search = ForecastingGridSearchCV(Line(), splitter, grid, scoring=MeanAbsoluteError(), error_score="raise").fit(y)
    scores = search.cv_results_.set_index("rank_test_MeanAbsoluteError")["mean_test_MeanAbsoluteError"].sort_values()
    np.testing.assert_allclose(scores, sorted(errors(slope).mean() for slope in grid["slope"]), rtol=1e-12)
    assert search.best_params_ == {"slope": 0.4}


def test_windows_by_hand():
    times = pd.Index([0, 1, 2, 5, 6, 7, 20, 21])
    folds = [(a.tolist(), b.tolist()) for a, b in TimeSplitter(5, 5, 3, window_length=4).split(times)]
    assert folds == [([2, 3], [4, 5]), ([6], [7])]
    shares = [(a.tolist(), b.tolist()) for a, b in TimeSplitter(0.3, horizon=0.75).split(times)]
    assert shares == [([0, 1, 2, 3, 4], [5, 6, 7])]
    # Cutoffs 5, 17 and 19: those between have nothing to test on.
    assert TimeSplitter(5, 2, 3).get_cutoffs(times).tolist() == [5, 7, 7]


def test_a_panel_is_split_at_the_same_times():
    index = pd.MultiIndex.from_tuples(
        [(s, t) for s, n in (("a", 10), ("b", 5), ("c", 10)) for t in range(n) if s != "c" or t > 7]
    )
    (train, test), *_ = TimeSplitter(5, 5, 3).split(index)
    assert index[train].tolist() == [("a", t) for t in range(6)] + [("b", t) for t in range(5)]
    assert index[test].tolist() == [("a", 6), ("a", 7), ("a", 8)]  # c has not begun at 5


@pytest.mark.parametrize(
    ("options", "index", "error", "words"),
    [
        ({"horizon": 30}, pd.date_range("2020", periods=9), TypeError, "365D"),
        ({"horizon": "3D"}, pd.RangeIndex(9), TypeError, "must be a number"),
        ({"horizon": -1}, pd.RangeIndex(9), ValueError, "positive"),
        ({"initial_window": 100, "horizon": 1}, pd.RangeIndex(9), ValueError, "no fold"),
    ],
)
def test_bad_lengths(options, index, error, words):
    with pytest.raises(error, match=words):
        list(TimeSplitter(**options).split(index))


def test_sktimes_checks():
    results = check_estimator(TimeSplitter, raise_exceptions=False, verbose=False)
    assert {name: result for name, result in results.items() if result != "PASSED"} == {}


def test_the_forecaster_here_is_one_of_sktimes():
    assert issubclass(Line, BaseForecaster)
