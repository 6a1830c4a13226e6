"""The faces for sktime against the estimators behind them, on every form of panel."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, KFold
from sktime.base import load
from sktime.classification.compose import ClassifierPipeline
from sktime.classification.model_selection import TSCGridSearchCV
from sktime.transformations.series.boxcox import LogTransformer
from sktime.utils.estimator_checks import check_estimator

from statespace import MambaClassifier, S4DClassifier, S4DRegressor
from statespace.panels import TimeSeriesClassifier, TimeSeriesRegressor

RNG = np.random.default_rng(0)
TINY = {"d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 2, "random_state": 0}
LENGTHS = [5, 9, 7, 6, 8, 9, 5, 7, 6, 8, 9, 7]
X = [np.exp(RNG.normal(size=(n, 2))) for n in LENGTHS]
T = [np.cumsum(RNG.exponential(size=n) + 0.1) for n in LENGTHS]
LABELS = np.array(["low", "high", "none"] * 4)
START = pd.Timestamp("2024-01-01", tz="UTC")


def frames(make_index):
    return [pd.DataFrame(x, index=make_index(t), columns=["a", "b"]) for x, t in zip(X, T, strict=True)]


def dates(t):
    return START + pd.to_timedelta(t, unit="D").round("s")


def multiindex(parts):
    return pd.concat(parts, keys=range(len(parts)), names=["series", "time"])


# The regressor has been through these; the classifier takes its files and copies from the same base class.
SHARED = [
    "test_fit_idempotent", "test_save_estimators_to_file", "test_persistence_via_pickle", "test_doctest_examples",
    "test_deepcopy_fitted_estimators",
]  # fmt: skip


@pytest.mark.parametrize(
    ("face", "left_out"), [(TimeSeriesRegressor, []), (TimeSeriesClassifier, SHARED)], ids=["regressor", "classifier"]
)
@pytest.mark.filterwarnings("ignore")
def test_sktimes_checks(face, left_out):
    results = check_estimator(face, raise_exceptions=False, verbose=False, tests_to_exclude=left_out)
    assert {name: repr(result)[:200] for name, result in results.items() if result != "PASSED"} == {}
    assert len(results) > 100


@pytest.fixture(scope="module")
def irregular():
    return TimeSeriesClassifier(MambaClassifier(**TINY)).fit(frames(dates), LABELS)


def test_irregular_times_reach_the_network(irregular):
    own = MambaClassifier(**TINY).fit(frames(dates), LABELS)
    expected = own.predict_proba(frames(dates))
    np.testing.assert_array_equal(irregular.predict_proba(frames(dates)), expected)
    np.testing.assert_array_equal(irregular.predict(frames(dates)), own.predict(frames(dates)))
    assert irregular.classes_.tolist() == own.classes_.tolist() == ["high", "low", "none"]
    # A (series, time) MultiIndex is the same, and so are the gaps.
    np.testing.assert_array_equal(irregular.predict_proba(multiindex(frames(dates))), expected)
    stretched = irregular.predict_proba(frames(lambda t: dates(2 * t)))
    assert np.abs(stretched - expected).max() > 1e-6


def test_a_stream_continues_what_was_fitted(irregular):
    stream, frame = irregular.stream(), frames(dates)[1]
    for k in range(len(frame)):
        gap = None if k == 0 else frame.index[k] - frame.index[k - 1]
        answer = stream.step(frame.iloc[k], gap)
    np.testing.assert_allclose(answer, irregular.predict_proba(frames(dates)[1:2])[0], rtol=1e-9)


def test_an_index_that_counts_is_no_time():
    values = RNG.normal(size=(8, 2, 6))
    y = values[:, 0].sum(axis=1)
    face = TimeSeriesRegressor(S4DRegressor(**TINY)).fit(values, y)
    own = S4DRegressor(**TINY).fit(values.swapaxes(1, 2), y)
    np.testing.assert_array_equal(face.predict(values), own.predict(values.swapaxes(1, 2)))
    assert face.estimator_.clock_ is None
    with pytest.raises(ValueError, match="fitted without times"):
        face.predict([pd.DataFrame(values[0].T, index=[0, 2, 3, 7, 8, 9])])


@pytest.mark.parametrize(
    "index",
    [
        lambda n: pd.Index(np.array([3, 4, 8, 9, 11, 20, 21, 22, 30])[:n]),
        lambda n: pd.period_range("2024-01", periods=n, freq="M"),
        lambda n: pd.to_timedelta(np.arange(n) ** 2, unit="h"),
    ],
    ids=["integers", "periods", "timedeltas"],
)
def test_other_kinds_of_times(index):
    panel = [pd.DataFrame(x, index=index(len(x))) for x in X]
    face = TimeSeriesRegressor(S4DRegressor(**TINY)).fit(panel, np.arange(12.0))
    assert face.estimator_.clock_ is not None
    assert face.predict(panel).shape == (12,)
    with pytest.raises(ValueError, match=r"fitted with times|datetimes|numbers|timedeltas"):
        face.predict(frames(dates) if face.estimator_.clock_ == "numbers" else frames(lambda t: np.arange(len(t)) + 5))


def test_a_series_that_counts_among_others_that_do_not():
    panel = frames(lambda t: np.arange(len(t)))
    panel[0].index = [0, 3, 4, 6, 9]
    face = TimeSeriesRegressor(S4DRegressor(**TINY)).fit(panel, np.arange(12.0))
    assert face.estimator_.clock_ == "numbers"
    assert face.predict(panel[1:]).shape == (11,)


def test_several_outputs_also_as_many_as_samples():
    values = RNG.normal(size=(10, 1, 3))
    y = values[:, 0] * [1.0, 2.0, 3.0]
    face = TimeSeriesRegressor(S4DRegressor(**TINY)).fit(values, y)
    assert not face.estimator_.per_step_
    assert face.predict(values).shape == (10, 3)
    assert face.estimator.target == "auto"


def test_missing_values():
    panel = frames(dates)
    panel[3].iloc[2, 1] = np.nan
    face = TimeSeriesClassifier(S4DClassifier(**TINY)).fit(panel, LABELS)
    assert face.estimator_.has_missing_
    assert face.predict(panel).shape == (12,)


def test_in_pipelines_searches_and_files(tmp_path):
    values = np.exp(RNG.normal(size=(12, 2, 6)))
    face = TimeSeriesClassifier(S4DClassifier(**TINY))
    for kind in (TSCGridSearchCV, GridSearchCV):
        search = kind(face, {"estimator__d_state": [2, 4]}, cv=KFold(2), scoring="accuracy").fit(values, LABELS)
        assert search.best_estimator_.estimator_.d_state == search.best_params_["estimator__d_state"]
    pipeline = ClassifierPipeline(face, [LogTransformer()]).fit(values, LABELS)
    expected = (
        S4DClassifier(**TINY).fit(np.log(values).swapaxes(1, 2), LABELS).predict_proba(np.log(values).swapaxes(1, 2))
    )
    np.testing.assert_allclose(pipeline.predict_proba(values), expected, rtol=1e-12)
    face.fit(values, LABELS).save(tmp_path / "face")
    np.testing.assert_array_equal(load(tmp_path / "face.zip").predict_proba(values), face.predict_proba(values))


def test_what_is_no_deep_estimator_is_refused():
    with pytest.raises(TypeError, match=r"such as S4DRegressor\(\), or None"):
        TimeSeriesRegressor(LinearRegression()).fit(np.ones((4, 1, 3)), np.arange(4.0))
    with pytest.raises(TypeError, match="S4DClassifier"):
        TimeSeriesClassifier(S4DRegressor()).fit(np.ones((4, 1, 3)), LABELS[:4])
