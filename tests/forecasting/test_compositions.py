"""Our forecasters inside sktime: pipelines, transformed targets, grid search, ``evaluate``, reconciliation."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.compose import ForecastingPipeline, TransformedTargetForecaster
from sktime.forecasting.model_evaluation import evaluate
from sktime.forecasting.model_selection import ForecastingGridSearchCV
from sktime.forecasting.reconcile import ReconcilerForecaster
from sktime.performance_metrics.forecasting import MeanAbsoluteError
from sktime.performance_metrics.forecasting.probabilistic import CRPS, PinballLoss
from sktime.split import ExpandingWindowSplitter
from sktime.transformations.hierarchical.aggregate import Aggregator
from sktime.transformations.series.adapt import TabularToSeriesAdaptor
from sktime.transformations.series.impute import Imputer
from sktime.utils._testing.hierarchical import _make_hierarchical

from statespace.forecasting import KalmanForecaster, SSMForecaster, TimeSplitter
from statespace.kalman import LocalLevel, Seasonal

DEEP = SSMForecaster(
    "s4d", d_model=4, n_layers=1, layer_options={"d_state": 4}, max_epochs=1, windows_per_epoch=16,
    queries_per_window=4, context_length=16, device="cpu", random_state=0,
)  # fmt: skip
KALMAN = KalmanForecaster(LocalLevel(0.5) + Seasonal(12, harmonics=1, variance=1e-3), 0.1, optimizer=None)
BOTH = pytest.mark.parametrize("forecaster", [DEEP, KALMAN], ids=["deep", "kalman"])


def data(regular, n=72):
    rng = np.random.default_rng(0)
    t = np.arange(n) if regular else np.cumsum(rng.exponential(size=n)).round(3)
    start = pd.Timestamp("2015-01-01")
    index = pd.period_range("2015-01", periods=n, freq="M") if regular else start + pd.to_timedelta(t, unit="D")
    X = pd.DataFrame({"x": rng.normal(size=n)}, index=index)
    y = pd.Series(100 + 5 * np.sin(2 * np.pi * t / 12) + X["x"].to_numpy() + 0.1 * rng.normal(size=n), index, name="y")
    return y, X


@BOTH
@pytest.mark.parametrize("regular", [True, False])
def test_pipelines_of_targets_and_covariates(forecaster, regular):
    y, X = data(regular)
    scale = TabularToSeriesAdaptor(StandardScaler())
    whole = ForecastingPipeline([
        ("covariates", TabularToSeriesAdaptor(StandardScaler())),
        ("forecast", TransformedTargetForecaster([("target", scale), ("model", forecaster.clone())])),
    ])  # fmt: skip
    fh = ForecastingHorizon(y.index[60:], is_relative=False)
    whole.fit(y[:60], X=X[:60], fh=fh)
    found, intervals = whole.predict(X=X[60:]), whole.predict_interval(X=X[60:], coverage=0.9)
    # By hand.
    mean, std, X_mean, X_std = y[:60].mean(), y[:60].std(ddof=0), X[:60].mean(), X[:60].std(ddof=0)
    model = forecaster.clone().fit((y[:60] - mean) / std, X=(X[:60] - X_mean) / X_std, fh=fh)
    scaled = (X[60:] - X_mean) / X_std
    np.testing.assert_allclose(found, mean + std * model.predict(X=scaled), rtol=1e-9)
    np.testing.assert_allclose(intervals, mean + std * model.predict_interval(X=scaled, coverage=0.9), rtol=1e-9)
    assert found.index.equals(y.index[60:])
    whole.update(y[60:66], X=X[60:66], update_params=False)
    assert np.isfinite(whole.predict(fh=ForecastingHorizon(y.index[66:], is_relative=False), X=X[66:])).all()


@BOTH
@pytest.mark.parametrize("regular", [True, False])
def test_evaluate_and_grid_search_on_regular_and_irregular_times(forecaster, regular):
    y, _ = data(regular)
    splitter = ExpandingWindowSplitter([1, 2, 3], 50, 8) if regular else TimeSplitter(0.7, horizon=0.12)
    scored = evaluate(
        forecaster.clone(), splitter, y, scoring=[MeanAbsoluteError(), CRPS(), PinballLoss()], error_score="raise",
        strategy="no-update_params",
    )  # fmt: skip
    assert len(scored) >= 2
    assert np.isfinite(scored[["test_MeanAbsoluteError", "test_CRPS", "test_PinballLoss"]]).all(axis=None)
    options = {"context_length": [4, 16]} if forecaster is DEEP else {"noise_variance": [0.1, 1e4]}
    search = ForecastingGridSearchCV(
        forecaster.clone(), splitter, options, scoring=MeanAbsoluteError(), error_score="raise"
    ).fit(y)
    assert search.cv_results_["mean_test_MeanAbsoluteError"].nunique() == 2
    assert search.best_score_ == search.cv_results_["mean_test_MeanAbsoluteError"].min()
    # Refitted on all of y, it forecasts as the model itself.
    best = forecaster.clone().set_params(**search.best_params_).fit(y)
    ahead = [1, 2] if regular else pd.to_timedelta(["1D", "2D"])
    np.testing.assert_allclose(search.predict(fh=ahead), best.predict(fh=ahead))


@BOTH
def test_an_imputer_before_and_no_need_of_one(forecaster):
    y, _ = data(True)
    y.iloc[[10, 30, 31]] = np.nan
    filled = TransformedTargetForecaster([("fill", Imputer("linear")), ("model", forecaster.clone())]).fit(y)
    own = forecaster.clone().fit(y)
    for model in (filled, own):
        assert np.isfinite(model.predict([1, 12])).all()


@BOTH
def test_a_hierarchy_and_its_reconciliation(forecaster):
    y = _make_hierarchical((2, 2), min_timepoints=40, max_timepoints=40, random_state=0)
    y = Aggregator().fit_transform(y)
    model = forecaster.clone().fit(y)
    forecast = model.predict([1, 2])
    assert forecast.index.droplevel(-1).unique().equals(y.index.droplevel(-1).unique())
    assert not hasattr(model, "forecasters_")
    reconciled = ReconcilerForecaster(forecaster.clone(), method="ols").fit(y).predict(fh=[1, 2])
    total = reconciled.loc[("__total", "__total")]
    leaves = reconciled[reconciled.index.get_level_values(1) != "__total"]
    np.testing.assert_allclose(leaves.groupby(level=-1).sum(), total)
    fitted = model.fitted_values()
    pd.testing.assert_frame_equal(model.predict_residuals(), y - fitted)
    inside = ForecastingHorizon(y.index.get_level_values(-1).unique()[5:8], is_relative=False)
    np.testing.assert_allclose(model.predict(inside), fitted.groupby(level=[0, 1]).nth([5, 6, 7]), rtol=1e-9)


@BOTH
def test_several_columns_each_have_a_forecaster(forecaster):
    y, X = data(True)
    both = pd.DataFrame({"a": y, "b": -2 * y + X["x"]})
    model = forecaster.clone().fit(both)
    assert list(model.forecasters_.columns) == ["a", "b"]
    np.testing.assert_allclose(model.predict([1, 2])["a"], forecaster.clone().fit(both["a"]).predict([1, 2]))
