"""The door of the estimators: one collection, one kind of target, scikit-learn's words."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

from statespace import SeriesCollection
from statespace.validation import check_collection, check_n_channels, check_targets, check_times_as_fitted, check_values

RAGGED = SeriesCollection([[1.0, 2.0], [3.0, 4.0, 5.0]])
EVEN = SeriesCollection(np.zeros((4, 3, 2)))


class Model(BaseEstimator):
    pass


def test_collection_passes_through():
    assert check_collection(RAGGED) is RAGGED
    assert check_collection(RAGGED, [[0, 1], [0, 1, 5]]).times[1].tolist() == [0, 1, 5]
    with pytest.raises(ValueError, match="Give one of the two"):
        check_collection(SeriesCollection([[1.0]], times=[0.0]), [0.0])
    with pytest.raises(ValueError, match="at least one series"):
        check_collection(RAGGED[:0])


def test_equal_times_by_flag():
    S = SeriesCollection([[1.0, 2.0], [1.0, 2.0, 3.0]], times=[[0, 1], [0, 2, 2]])
    assert check_collection(S) is S
    with pytest.raises(ValueError, match=r"series 1 must increase: times\[2\] = 2.0 follows 2.0"):
        check_collection(S, allow_equal=False)


def test_table_is_checked_by_scikit_learn():
    model = Model()
    check_collection(pd.DataFrame(np.zeros((2, 3)), columns=["a", "b", "c"]), estimator=model, reset=True)
    assert model.n_features_in_ == 3
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="The feature names should match"):
        check_collection(pd.DataFrame(np.zeros((2, 2)), columns=["a", "b"]), estimator=model)
    check_collection(np.zeros((2, 3)), estimator=model, reset=True)
    with pytest.raises(ValueError, match="X has 2 features, but Model is expecting 3 features as input"):
        check_collection(np.zeros((2, 2)), estimator=model)
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array instead"):
        check_collection(np.zeros(3), estimator=model)
    check_collection([[1.0]], estimator=model)  # a list of series has no features to compare
    check_collection(np.zeros((2, 3, 1)), estimator=model, reset=True)
    assert not hasattr(model, "n_features_in_")


def test_missing_values_are_allowed_and_infinite_are_not():
    X = np.array([[1.0, np.nan]])
    assert np.isnan(check_collection(X, estimator=Model(), reset=True).values[0][1, 0])
    with pytest.raises(ValueError, match="Input X contains infinity"):
        check_collection(X * np.inf, estimator=Model(), reset=True)
    assert check_values(X) is X


def test_channels():
    check_n_channels(EVEN, 2)
    with pytest.raises(ValueError, match="X has 2 features, but Model is expecting 3 features as input"):
        check_collection(EVEN, n_channels=3, estimator=Model())


def test_times_as_fitted():
    timed = SeriesCollection([[1.0]], times=pd.DatetimeIndex(["2024-01-01"]))
    check_times_as_fitted(timed, "datetimes")
    check_times_as_fitted(RAGGED, None)
    with pytest.raises(ValueError, match="was fitted with times, and X has none"):
        check_times_as_fitted(RAGGED, "numbers")
    with pytest.raises(ValueError, match="was fitted without times, and X has them"):
        check_times_as_fitted(timed, None)
    with pytest.raises(ValueError, match=r"must be numbers.*got datetimes"):
        check_times_as_fitted(timed, "numbers")


MULTI = pd.MultiIndex.from_tuples([(0, 0.0), (0, 1.0), (1, 0.0), (1, 2.0), (1, 3.0)])
TARGETS = {  # y, the series, per step?, single?, number of outputs
    "one a series": ([1.0, 2.0], RAGGED, False, True, 1),
    "ints": (np.array([1, 2]), RAGGED, False, True, 1),
    "Series": (pd.Series([1.0, 2.0], index=[8, 9]), RAGGED, False, True, 1),
    "outputs": (np.zeros((4, 5)), EVEN, False, False, 5),
    "frame of outputs": (pd.DataFrame(np.zeros((4, 5))), EVEN, False, False, 5),
    "column": (np.zeros((4, 1)), EVEN, False, False, 1),
    "one a step": (np.zeros((4, 3)), EVEN, True, True, 1),
    "nested list": (np.zeros((4, 3)).tolist(), EVEN, True, True, 1),
    "outputs a step": (np.zeros((4, 3, 5)), EVEN, True, False, 5),
    "list of matrices": (list(np.zeros((4, 3, 5))), EVEN, True, False, 5),
    "ragged": ([[1.0, 2.0], [1.0, 2.0, np.nan]], RAGGED, True, True, 1),
    "ragged outputs": ([np.zeros((2, 2)), np.zeros((3, 2))], RAGGED, True, False, 2),
    "object array of arrays": (np.array([np.zeros(2), np.zeros(3)], dtype=object), RAGGED, True, True, 1),
    "object array of numbers": (np.array([1, 2.0], dtype=object), RAGGED, False, True, 1),
    "collection": (RAGGED, RAGGED, True, False, 1),
    "panel": (pd.Series(np.zeros(5), index=MULTI), RAGGED, True, True, 1),
    "panel of outputs": (pd.DataFrame(np.zeros((5, 2)), index=MULTI), RAGGED, True, False, 2),
    "as many outputs as the longest": (np.zeros((2, 3)), RAGGED, False, False, 3),
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name):
    y, X, per_step, single, n_outputs = TARGETS[name]
    targets = check_targets(y, X)
    assert (targets.per_step, targets.single, targets.n_outputs) == (per_step, single, n_outputs)
    if per_step:
        assert [v.shape for v in targets.values] == [(n, n_outputs) for n in X.lengths]
    else:
        assert targets.values.shape == (len(X), n_outputs)
    assert targets.values[0].dtype == np.float64


def test_a_square_y_can_be_spelled_out():
    y = np.zeros((4, 3))
    assert check_targets(y, EVEN, per="step").per_step
    assert not check_targets(y, EVEN, per="series").per_step
    with pytest.raises(ValueError, match="Got 'row'"):
        check_targets(y, EVEN, per="row")


BAD_TARGETS = {
    "none": (None, RAGGED, "requires y to be passed, but the target y is None"),
    "inf": ([1.0, np.inf], RAGGED, r"Input y contains infinity or a value too large for dtype\('float64'\)"),
    "inf a step": ([[1.0, np.inf], [1.0, 2, 3]], RAGGED, "contains infinity"),
    "text": (["a", "b"], RAGGED, "dtype='numeric' is not compatible"),
    "all NaN": ([np.nan, np.nan], RAGGED, "contains NaN only"),
    "all NaN a step": ([[np.nan] * 2, [np.nan] * 3], RAGGED, "contains NaN only"),
    "too few": ([1.0], RAGGED, r"inconsistent numbers of samples: \[2, 1\]"),
    "too few steps": ([[1.0], [1.0, 2.0, 3.0]], RAGGED, "y of series 0 must have one target for each of the 2 steps"),
    "too few steps, 3-D": (np.zeros((4, 2, 1)), EVEN, "y of series 0 must have one target for each of the 3 steps"),
    "4-D": (np.zeros((4, 3, 1, 1)), EVEN, "one to three dimensions"),
    "a number": (1.0, RAGGED, "one to three dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_targets(name):
    y, X, sentence = BAD_TARGETS[name]
    with pytest.raises(ValueError, match=sentence):
        check_targets(y, X)
