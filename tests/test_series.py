"""SeriesCollection takes every form of X, names what is wrong, and keeps times under scikit-learn's hands."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    ShuffleSplit,
    cross_val_predict,
    cross_val_score,
    train_test_split,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import _safe_indexing, indexable, shuffle

from statespace import SeriesCollection

CUBE = np.arange(24.0).reshape(2, 4, 3)
TIMES = np.array([0.0, 1.0, 1.5, 4.0])


def panel(order=slice(None)):
    """Series "b" with the times 0, 2 and "a" with 1, 5, 6, their rows interleaved."""
    index = pd.MultiIndex.from_tuples(
        [("b", 0.0), ("a", 1.0), ("a", 5.0), ("b", 2.0), ("a", 6.0)], names=["series", "time"]
    )
    return pd.DataFrame({"u": [1, 2, 3, 4, 5], "v": [10.0, 20, 30, np.nan, 50]}, index=index).iloc[order]


def frames():
    return [
        pd.DataFrame({"u": [1.0, 2.0]}, index=pd.DatetimeIndex(["2024-01-01", "2024-01-03"])),
        pd.DataFrame({"u": [3.0, 4.0, 5.0]}, index=pd.DatetimeIndex(["2024-01-01", "2024-01-02", "2024-01-07"])),
    ]


FORMS = {
    "3-D": (CUBE, [4, 4], 3),
    "3-D int": (CUBE.astype(np.int16), [4, 4], 3),
    "3-D object": (CUBE.astype(object), [4, 4], 3),
    "2-D": (CUBE[:, :, 0], [4, 4], 1),
    "2-D frame": (pd.DataFrame(CUBE[:, :, 0]), [4, 4], 1),
    "list of 2-D": ([CUBE[0, :1], CUBE[1]], [1, 4], 3),
    "list of 1-D": ([CUBE[0, :3, 0], CUBE[1, :, 0]], [3, 4], 1),
    "list of 1-D and 2-D": ([CUBE[0, :3, 0], CUBE[1, :, :1]], [3, 4], 1),
    "list of lists": ([[1], [2, 3]], [1, 2], 1),
    "tuple": (([1, 2], [2, 3]), [2, 2], 1),
    "object array of arrays": (np.array([np.zeros(2), np.zeros((3, 1))], dtype=object), [2, 3], 1),
    "panel": (panel(), [2, 3], 2),
    "panel of one column": (panel()["u"], [2, 3], 1),
    "frames": (frames(), [2, 3], 1),
    "list of Series": ([f["u"] for f in frames()], [2, 3], 1),
    "one series": ([[1.0, 2.0]], [2], 1),
    "one sample": ([[1.0]], [1], 1),
    "all missing": ([[np.nan, np.nan]], [2], 1),
    "constant": ([[1.0, 1.0]], [2], 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form):
    X, lengths, n_channels = FORMS[form]
    S = SeriesCollection(X)
    assert S.lengths.tolist() == lengths
    assert S.shape == (len(lengths),) == (len(S),)
    assert S.n_channels == n_channels
    assert all(v.dtype == np.float64 and v.shape == (n, n_channels) for v, n in zip(S.values, lengths, strict=True))
    assert all((o == ~np.isnan(v)).all() for o, v in zip(S.observed, S.values, strict=True))
    assert repr(S).startswith(f"SeriesCollection({len(lengths)} series, ")
    assert (S.times is not None) == ("panel" in form or form in ("frames", "list of Series"))


@pytest.mark.parametrize(
    "times",
    [TIMES, list(TIMES), pd.Index(TIMES), pd.Series(TIMES), np.tile(TIMES, (2, 1)), [TIMES, TIMES],
     (list(TIMES), TIMES), pd.Timestamp(0) + pd.to_timedelta(TIMES, unit="D"),
     np.array([TIMES, TIMES], dtype=object)],
    ids=["vector", "list", "Index", "Series", "matrix", "list of vectors", "tuple", "DatetimeIndex", "objects"],
)  # fmt: skip
def test_forms_of_times(times):
    S = SeriesCollection(CUBE, times=times)
    for gaps in S.gaps(first=7.0):
        assert gaps.tolist() == [7.0, 1.0, 0.5, 2.5]


def test_square_times_are_not_guessed():
    """Two series of two samples: a vector is shared, a matrix has one row for each series."""
    assert SeriesCollection(CUBE[:, :2], times=[0, 5]).times[1].tolist() == [0, 5]
    assert SeriesCollection(CUBE[:, :2], times=[[0, 5], [0, 6]]).times[1].tolist() == [0, 6]


def test_interleaved_panel():
    S = SeriesCollection(panel())
    assert S.labels.tolist() == ["b", "a"]
    assert S.columns == ["u", "v"]
    assert [t.tolist() for t in S.times] == [[0, 2], [1, 5, 6]]
    np.testing.assert_array_equal(S.values[0], [[1, 10], [4, np.nan]])
    np.testing.assert_array_equal(S.values[1], [[2, 20], [3, 30], [5, 50]])


def test_panel_with_more_levels_and_zones():
    days = pd.date_range("2024-03-30", periods=3, tz="Europe/Berlin")
    index = pd.MultiIndex.from_product([["x"], ["a", "b"], days], names=["group", "series", "time"])
    S = SeriesCollection(pd.DataFrame({"u": range(6)}, index=index))
    assert S.labels.tolist() == [("x", "a"), ("x", "b")]
    assert S.gaps(unit="h")[0].tolist() == [0, 24, 23]


def test_index_of_frames_is_time():
    S = SeriesCollection(frames())
    assert [g.tolist() for g in S.gaps()] == [[0, 2], [0, 1, 5]]
    plain = [f.reset_index(drop=True) for f in frames()]
    assert SeriesCollection(plain).times[1].tolist() == [0, 1, 2]
    assert SeriesCollection(plain, times=[[0, 9], [0, 1, 9]]).times[0].tolist() == [0, 9]


REFUSED = {
    "no series": ([], None, r"Found array with 0 sample\(s\)"),
    "no rows": (np.zeros((0, 4)), None, r"Found array with 0 sample\(s\) \(shape=\(0, 4\)\) while a minimum of 1"),
    "no columns": (np.zeros((4, 0)), None, r"0 feature\(s\) \(shape=\(4, 0\)\) while a minimum of 1 is required"),
    "no series, 3-D": (np.zeros((0, 4, 1)), None, r"Found array with 0 sample\(s\)"),
    "empty series": ([[1.0], []], None, r"series 1 of X is empty, of shape \(0, 1\): give it"),
    "empty series, 3-D": (np.zeros((2, 0, 1)), None, r"series 0 of X is empty"),
    "no channels": (np.zeros((2, 3, 0)), None, r"series 0 of X is empty, of shape \(3, 0\)"),
    "numbers": ([1.0, 2.0], None, "Expected 2D array, got 1D array instead"),
    "a vector": (np.zeros(3), None, "Expected 2D array, got 1D array instead"),
    "a scalar": (np.float64(3), None, "Expected 2D array, got scalar array instead"),
    "4-D": (np.zeros((2, 2, 2, 2)), None, "X must have at most 3 axes"),
    "3-D in a list": ([np.zeros((2, 2, 2))], None, r"series 0 of X must have shape \(n_times,\)"),
    "ragged inside": ([[[1.0], [2.0, 3.0]]], None, "series 0 of X must be rectangular"),
    "inf": ([[1.0], [2.0, np.inf]], None, r"Input X \(series 1\) contains infinity or a value too large"),
    "inf, 2-D": (np.array([[1.0, -np.inf]]), None, "Input X contains infinity"),
    "text": (np.array([["a", "b"]]), None, "dtype='numeric' is not compatible with arrays of bytes/strings"),
    "text in a list": ([["a", "b"]], None, "dtype='numeric' is not compatible with arrays of bytes/strings"),
    "objects": (np.array([["a", 1.0]], dtype=object), None, "could not convert string to float: 'a'"),
    "complex": (np.array([[1j]]), None, "Complex data not supported"),
    "datetimes": (np.array([["2024-01-01"]], dtype="datetime64[ns]"), None, "X must hold numbers, got datetime64"),
    "a column of datetimes": ([frames()[0].reset_index()], None, r"X \(series 0\) must hold numbers"),
    "channels": ([np.zeros((2, 2)), np.zeros((2, 3))], None, "series 1 of X has 3 channels, but series 0 has 2. Give"),
    "columns": ([frames()[0], frames()[1].rename(columns={"u": "w"})], None, r"series 1 of X has the columns \['w'\]"),
    "frames and arrays": ([frames()[0], np.zeros(3)], None, "series 1 is of type ndarray"),
    "panel in a list": ([panel()], None, "series 0 of X has a MultiIndex"),
    "a frame over time": (frames()[0], None, r"X is a DataFrame with a DatetimeIndex, which is one series. Give"),
    "a Series": (pd.Series([1.0, 2.0]), None, "which is one series"),
    "empty panel": (panel(slice(0, 0)), None, "got 2 level.* and 0 rows"),
    "unsorted panel": (panel([2, 1, 0, 3]), None, r"series 'a' must not decrease: times\[1\] = 1.0 follows 5.0. Sort"),
    "unnamed series": (panel().rename(index={"a": None}), None, "must name the series of every row: row 1"),
    "times twice": (frames(), [[0, 1], [0, 1, 2]], "X has times in its index, and times= was given too"),
    "times for a panel": (panel(), [[0, 1], [0, 1, 2]], "X has times in its index"),
    "times decrease": ([[1, 2], [1, 2, 3]], [[0, 1], [0, 2, 1]], r"series 1 must not decrease: times\[2\] = 1.0 foll"),
    "times are NaN": ([[1, 2], [1, 2, 3]], [[0, 1], [0, 2, np.nan]], r"series 1 must be finite: times\[2\] = nan aft"),
    "times too few": ([[1, 2], [1, 2, 3]], [[0, 1], [0, 2]], "series 1 must have one entry for each of the 3 rows"),
    "shared, ragged": ([[1, 2], [1, 2, 3]], [0, 1], "series 1 must have one entry for each of the 3 rows"),
    "vectors too few": ([[1, 2], [1, 2, 3]], [[0, 1]], "one for each of the 2; got 1 vectors"),
    "kinds mix": ([[1], [1]], [[0], pd.DatetimeIndex(["2024-01-01"])], "series 1 are datetime64.* series 0 float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    X, times, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        SeriesCollection(X, times=times)


def test_no_dictionaries_and_no_sparse_matrices():
    import scipy.sparse

    with pytest.raises(TypeError, match="must be a string or a real number, not 'dict'"):
        SeriesCollection(np.array([[{"foo": "bar"}, 1.0]], dtype=object))
    with pytest.raises(TypeError, match="Sparse data was passed"):
        SeriesCollection(scipy.sparse.eye(3, format="csr"))


def ten(kind="times"):
    """Series i has i + 1 samples, of the value i, and times 100 i + [0, 1, ...]."""
    values = [np.full((i + 1, 2), float(i)) for i in range(10)]
    times = [100.0 * i + np.arange(i + 1) for i in range(10)]
    return SeriesCollection(values, times=times if kind == "times" else None)


def numbers(S):
    """Which series these are by their values; their times must say the same."""
    found = [int(v[0, 0]) for v in S.values]
    assert S.lengths.tolist() == [i + 1 for i in found]
    if S.times is not None:
        assert [int(t[0] // 100) for t in S.times] == found
    return found


@pytest.mark.parametrize(
    ("key", "expected"),
    [(slice(2, 5), [2, 3, 4]), (slice(None, None, -3), [9, 6, 3, 0]), ([4, 4, -1], [4, 4, 9]),
     (np.array([7, 0]), [7, 0]), (np.arange(10) % 2 == 1, [1, 3, 5, 7, 9]), ([True] * 2 + [False] * 8, [0, 1]),
     ([], []), (slice(0, 0), []),
     ((np.array([3, 1]), ...), [3, 1]), (pd.Index([5]), [5])],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["times", "no times"])
def test_slicing(key, expected, kind):
    assert numbers(ten(kind)[key]) == expected


def test_integer_gives_one_series():
    one = ten()[np.int64(-8)]
    assert isinstance(one, pd.DataFrame)
    assert one.index.tolist() == [200, 201, 202]
    assert isinstance(ten("no times")[2], np.ndarray)
    with pytest.raises(IndexError):
        ten()[10]
    with pytest.raises(IndexError, match=r"arrays are in .values"):
        ten()[1, 2]
    assert numbers(SeriesCollection(list(ten()))) == list(range(10))


def test_labels_follow():
    S = SeriesCollection(panel())[[1]]
    assert S.labels.tolist() == ["a"]
    assert S.label(0) == "a"
    assert list(S[0].columns) == ["u", "v"]


def test_with_times_and_again():
    S = SeriesCollection(CUBE).with_times(TIMES)
    assert SeriesCollection(S).times[1].tolist() == TIMES.tolist()
    assert SeriesCollection(SeriesCollection(CUBE), times=TIMES).times[0].tolist() == TIMES.tolist()
    with pytest.raises(ValueError, match="Give one of the two"):
        SeriesCollection(S, times=TIMES)


def test_never_becomes_an_array_in_silence():
    with pytest.raises(TypeError, match="lose its times"):
        np.asarray(ten())


@pytest.mark.parametrize("duplicate", [lambda S: pickle.loads(pickle.dumps(S)), copy.copy, copy.deepcopy])
def test_pickle_and_copy(duplicate):
    S = duplicate(ten())
    assert numbers(S) == list(range(10))
    assert S.n_channels == 2


class EndOfTimes(RegressorMixin, BaseEstimator):
    """Predicts each series' last time, so that a lost or foreign time shows."""

    def __init__(self, offset=0.0):
        self.offset = offset

    def fit(self, X, y):
        assert isinstance(X, SeriesCollection)
        np.testing.assert_array_equal([t[-1] for t in X.times], y)
        self.seen_ = numbers(X)
        return self

    def predict(self, X):
        assert isinstance(X, SeriesCollection)
        return np.array([t[-1] for t in X.times]) + self.offset


Y = np.array([100.0 * i + i for i in range(10)])


def test_train_test_split():
    train, test, y_train, y_test = train_test_split(ten(), Y, test_size=0.3, random_state=0)
    assert sorted(numbers(train) + numbers(test)) == list(range(10))
    np.testing.assert_array_equal([t[-1] for t in test.times], y_test)
    assert len(y_train) == 7


@pytest.mark.parametrize("cv", [KFold(5), KFold(3, shuffle=True, random_state=1), ShuffleSplit(2, random_state=0)])
def test_splitters(cv):
    for train, test in cv.split(ten(), Y):
        assert numbers(ten()[train]) == train.tolist()
        assert numbers(ten()[test]) == test.tolist()


def test_indexing_helpers():
    S = indexable(ten(), Y)[0]
    assert numbers(_safe_indexing(S, np.array([2, 5]))) == [2, 5]
    assert numbers(_safe_indexing(S, np.arange(10) > 7)) == [8, 9]
    assert sorted(numbers(shuffle(S, random_state=0))) == list(range(10))


def test_cross_validation():
    np.testing.assert_array_equal(cross_val_predict(EndOfTimes(), ten(), Y, cv=5), Y)
    assert cross_val_score(EndOfTimes(), ten(), Y, cv=5, scoring="r2").tolist() == [1.0] * 5


def test_grid_search_and_pipeline():
    search = GridSearchCV(EndOfTimes(), {"offset": [0.0, 1.0]}, scoring="neg_mean_squared_error", error_score="raise")
    search.fit(ten(), Y)
    assert search.best_params_ == {"offset": 0.0}
    assert search.best_estimator_.seen_ == list(range(10))
    np.testing.assert_array_equal(search.predict(ten()), Y)
    model = make_pipeline(FunctionTransformer(), EndOfTimes())
    np.testing.assert_array_equal(cross_val_predict(model, ten(), Y, cv=KFold(2)), Y)
    assert numbers(clone(ten(), safe=False)) == list(range(10))
