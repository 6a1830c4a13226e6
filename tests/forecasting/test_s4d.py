"""S4DForecaster: sktime's checks, what a forecast may know, every kind of index, and that it learns."""

import numpy as np
import pandas as pd
import pytest
import torch
from sktime.forecasting.base import ForecastingHorizon
from sktime.forecasting.model_evaluation import evaluate
from sktime.performance_metrics.forecasting import MeanAbsoluteError

import statespace
from statespace.forecasting import S4DForecaster, TimeSplitter

TINY = {
    "d_model": 4, "n_layers": 1, "d_state": 4, "max_epochs": 1, "windows_per_epoch": 8, "batch_size": 4,
    "queries_per_window": 4, "context_length": 16, "device": "cpu", "random_state": 0,
}  # fmt: skip

def wave(index, time):
    return pd.Series(np.sin(2 * np.pi * np.asarray(time) / 12) + 0.02 * np.asarray(time), index=index, name="wave")


def steps(n=60, seed=0):
    return np.cumsum(np.random.default_rng(seed).integers(1, 5, size=n))


def series(kind, n=60):
    t = np.arange(n) if kind in ("months", "hours", "grid") else steps(n)
    zone = "America/New_York" if kind == "zoned" else None
    index = {
        "months": lambda: pd.period_range("2010-01", periods=n, freq="M"),
        "hours": lambda: pd.date_range("2010-03-13", periods=n, freq="h", tz="America/New_York"),
        "grid": lambda: pd.RangeIndex(n),
        "integers": lambda: pd.Index(t),
        "days": lambda: pd.DatetimeIndex(pd.Timestamp("2010-03-01") + pd.to_timedelta(t, unit="D")),
        "zoned": lambda: pd.DatetimeIndex(pd.Timestamp("2010-03-01", tz=zone) + pd.to_timedelta(t, unit="D")),
    }[kind]()
    return wave(index, t)


@pytest.mark.parametrize("kind", ["months", "hours", "grid", "integers", "days", "zoned"])
def test_every_index_and_every_horizon_mean_the_same_times(kind):
    y = series(kind)
    model = S4DForecaster(**TINY).fit(y.iloc[:50])
    by_steps = model.predict(fh=[1, 4])
    assert len(by_steps) == 2
    assert (by_steps.index > y.index[49]).all()
    absolute = model.predict(fh=ForecastingHorizon(by_steps.index, is_relative=False))
    pd.testing.assert_series_equal(absolute, by_steps)
    if kind in ("days", "zoned"):
        ahead = by_steps.index - y.index[49]
        pd.testing.assert_series_equal(model.predict(fh=ForecastingHorizon(ahead, is_relative=True)), by_steps)
        assert by_steps.index.tz == y.index.tz
    later = model.predict(fh=ForecastingHorizon(y.index[50:], is_relative=False))
    assert later.index.equals(y.index[50:])


def test_a_forecast_is_the_same_whatever_else_is_asked_for():
    model = S4DForecaster(**TINY, periods=[12]).fit(series("grid"))
    many = model.predict_quantiles(fh=np.arange(-20, 30), alpha=[0.05, 0.5, 0.8])
    few = model.predict_quantiles(fh=[-7, 3, 21], alpha=[0.05, 0.5, 0.8])
    np.testing.assert_allclose(many.loc[few.index], few, rtol=1e-9)


def test_in_sample_forecasts_know_nothing_of_their_own_time_or_later():
    y = series("integers")
    model = S4DForecaster(**TINY).fit(y)
    before = model.predict(fh=ForecastingHorizon(y.index[20:40], is_relative=False))
    changed = y.copy()
    changed.iloc[30:] += 100 * np.arange(1, 31)
    model.update(changed, update_params=False)
    after = model.predict(fh=ForecastingHorizon(y.index[20:40], is_relative=False))
    np.testing.assert_allclose(after[:11], before[:11], rtol=1e-9)
    assert (np.abs(after[11:] - before[11:]) > 1e-6).all()


def test_quantiles_intervals_variance_and_median_are_of_one_distribution():
    model = S4DForecaster(**TINY).fit(series("days"))
    fh = np.arange(-59, 30)
    quantiles = model.predict_quantiles(fh, alpha=[0.001, 0.05, 0.3, 0.5, 0.95, 0.999])
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert np.isfinite(quantiles).all(axis=None)
    np.testing.assert_allclose(quantiles.iloc[:, 3], model.predict(fh))
    np.testing.assert_allclose(quantiles.iloc[:, [1, 4]], model.predict_interval(fh, coverage=0.9))
    std = np.sqrt(model.predict_var(fh).iloc[:, 0])
    width = quantiles.iloc[:, 4] - quantiles.iloc[:, 1]
    assert ((width / std > 1.5) & (width / std < 6)).all()
    with pytest.raises(ValueError, match="cov=False"):
        model.predict_var([1], cov=True)


def test_a_missing_value_is_as_if_its_row_were_not_there():
    y = series("integers")
    gappy = y.copy()
    gappy.iloc[[3, 10, 11, 40]] = np.nan
    with_nan, without = S4DForecaster(**TINY).fit(y), S4DForecaster(**TINY).fit(y)
    later = pd.Series([0.5, np.nan, 0.7], index=y.index[-1] + np.array([3, 4, 9]), name="wave")
    fh = ForecastingHorizon(pd.Index([y.index[-1] + 12]), is_relative=False)
    with_nan.update(later, update_params=False)
    without.update(later.dropna(), update_params=False)
    assert with_nan.predict(fh).equals(without.predict(fh))
    assert np.isfinite(S4DForecaster(**TINY).fit(gappy).predict(fh)).all()


@pytest.mark.parametrize("kind", ["months", "zoned", "integers"])
def test_a_saved_forecaster_predicts_the_same(kind, tmp_path, monkeypatch):
    y = series(kind)
    X = pd.DataFrame({"heat": np.cos(np.arange(60.0)), 2: np.arange(60.0)}, index=y.index)
    model = S4DForecaster(**TINY, periods=(12,)).fit(y[:50], X[:50], fh=[1, 2, 3])
    horizon = ForecastingHorizon(y.index[50:], is_relative=False)
    model.save(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.delattr("statespace.forecasting.deep.fit")  # loading does not train
        again = statespace.load(tmp_path / "model")
    known = {"X": X[50:], "fh": horizon}
    pd.testing.assert_frame_equal(again.predict_interval(**known), model.predict_interval(**known), check_freq=False)
    in_sample = ForecastingHorizon(y.index[:50], is_relative=False)
    pd.testing.assert_series_equal(again.predict(in_sample), model.predict(in_sample), check_freq=False)
    for one in (model, again):
        one.update(y[50:], X[50:], update_params=False)
    later = pd.DataFrame({"heat": [0.3], 2: [60.0]}, index=model._axis.future(ForecastingHorizon([2]), y.index[-1:]))
    pd.testing.assert_series_equal(again.predict([2], X=later), model.predict([2], X=later))
    assert again.history_.equals(model.history_)


def test_a_file_of_another_version_is_refused(tmp_path, monkeypatch):
    S4DForecaster(**TINY).fit(series("grid")).save(tmp_path / "model")
    monkeypatch.setattr("statespace.forecasting.deep.N_CHANNELS", 8)
    with pytest.raises(ValueError, match="Fit the forecaster again"):
        statespace.load(tmp_path / "model")


def test_saving_what_is_not_fitted_or_many(tmp_path):
    from sktime.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        S4DForecaster().save(tmp_path / "model")
    y = series("grid")
    with pytest.raises(ValueError, match="forecasters_"):
        S4DForecaster(**TINY).fit(pd.DataFrame({"a": y, "b": -y})).save(tmp_path / "model")


def panel(n=40):
    parts = {}
    for k, name in enumerate(["a", "b", "c"]):
        t = steps(n, seed=k)
        index = pd.DatetimeIndex(pd.Timestamp("2010-01-01") + pd.to_timedelta(t, unit="D"))
        parts[name] = (10.0**k * wave(index, t)).to_frame("y")
    return pd.concat(parts, names=["station", "time"])


def test_one_model_for_a_panel_each_series_with_its_own_end(tmp_path):
    y = panel()
    model = S4DForecaster(**TINY).fit(y)
    ahead = ForecastingHorizon(pd.to_timedelta(["2D", "9D"]), is_relative=True)
    forecast = model.predict(ahead)
    ends = y.reset_index("time").groupby("station")["time"].max()
    for name, end in ends.items():
        assert forecast.loc[name].index.tolist() == [end + pd.Timedelta(days=2), end + pd.Timedelta(days=9)]
        assert np.abs(forecast.loc[name] - y.loc[name].iloc[-1]).max(axis=None) < 5 * y.loc[name].std().iloc[0]
    assert not hasattr(model, "forecasters_")
    model.save(tmp_path / "panel")
    pd.testing.assert_frame_equal(statespace.load(tmp_path / "panel").predict(ahead), forecast)
    new = pd.concat([y.iloc[-3:].rename(index={"c": "d"}, level=0)])
    before = model.predict(ahead)
    model.update(new, update_params=False)
    after = model.predict(ahead)
    assert after.index.get_level_values(0).unique().tolist() == ["a", "b", "c", "d"]
    pd.testing.assert_frame_equal(after.loc[["a", "b", "c"]], before)


def test_update_reads_what_is_new_and_trains_on_if_asked():
    y = series("grid")
    kept, trained = (S4DForecaster(**TINY).fit(y[:40]) for _ in range(2))
    weights = {name: value.clone() for name, value in kept.model_.state_dict().items()}
    kept.update(y[40:], update_params=False)
    trained.update(y[40:], update_params=True)
    assert all(weights[name].equal(value) for name, value in kept.model_.state_dict().items())
    assert not all(weights[name].equal(value) for name, value in trained.model_.state_dict().items())
    for model in (kept, trained):
        assert model.predict([1]).index[0] == 60


def test_the_same_numbers_twice_and_no_global_seed():
    y = series("grid")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = S4DForecaster(**TINY).fit(y).predict([1, 9])
    assert torch.equal(torch.get_rng_state(), state)
    assert first.equals(S4DForecaster(**TINY).fit(y).predict([1, 9]))
    assert not first.equals(S4DForecaster(**{**TINY, "random_state": 1}).fit(y).predict([1, 9]))


@pytest.mark.parametrize("y", [pd.Series([3.0]), pd.Series([1.0, 4.0]), pd.Series(np.full(30, 7.0))])
def test_short_and_constant_series(y):
    model = S4DForecaster(**TINY).fit(y)
    quantiles = model.predict_quantiles([0, 1, 5], alpha=[0.1, 0.9])
    assert np.isfinite(quantiles).all(axis=None)
    if y.nunique() == 1:
        np.testing.assert_allclose(model.predict([1, 5]), y.iloc[0], atol=1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"trend": "cubic"}, "'last', 'mean', 'linear'"),
        ({"periods": [0]}, "periods must be positive"),
        ({"context_length": 0}, "context_length must be an integer of at least 1"),
        ({"max_horizon": -1.0}, "max_horizon must be positive"),
    ],
)
def test_bad_parameters(options, words):
    with pytest.raises(ValueError, match=words):
        S4DForecaster(**{**TINY, **options}).fit(series("grid"))


def test_bad_data():
    with pytest.raises(ValueError, match="nothing to learn from"):
        S4DForecaster(**TINY).fit(pd.Series([np.nan, np.nan, np.nan]))
    for unit in (1e-200, 1e200):
        with pytest.raises(ValueError, match="Give y in another unit"):
            S4DForecaster(**TINY).fit(series("grid") * unit)
    y, X = series("grid"), pd.DataFrame({"x": np.arange(60.0)})
    model = S4DForecaster(**TINY).fit(y, X)
    with pytest.raises(ValueError, match="a row for every time"):
        model.predict([1, 2], X=pd.DataFrame({"x": [60.0]}, index=[60]))


def test_evaluate_scores_the_times_of_the_test_windows():
    y = series("zoned")
    splitter = TimeSplitter("70D", horizon="20D")
    result = evaluate(
        S4DForecaster(**TINY), splitter, y, scoring=MeanAbsoluteError(), return_data=True, error_score="raise"
    )
    assert len(result) == splitter.get_n_splits(y) > 2
    for (train, test), row in zip(splitter.split(y), result.itertuples(), strict=True):
        fh = ForecastingHorizon(y.index[test], is_relative=False)
        forecast = S4DForecaster(**TINY).fit(y.iloc[train], fh=fh).predict()
        assert row.y_pred.index.equals(y.index[test])
        np.testing.assert_allclose(row.test_MeanAbsoluteError, np.abs(forecast - y.iloc[test]).mean())


def test_covariates_of_the_future_are_read():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=140)})
    y = 3 * X["x"] + 0.1 * pd.Series(rng.normal(size=140))
    model = S4DForecaster(**{**TINY, "context_length": 60}).fit(y[:100], X[:100])
    forecast = model.predict(np.arange(1, 41), X=X[100:])
    assert np.abs(forecast - y[100:]).mean() < 0.3 * y.std()


def test_it_learns_what_the_baseline_does_not_know():
    """A season that is not named: only the network can find it."""
    t = np.cumsum(np.random.default_rng(0).exponential(size=500))
    index = pd.Timestamp("2000-01-01") + pd.to_timedelta(t, unit="D")
    y = pd.Series(np.sin(2 * np.pi * t / 12) + 0.05 * np.random.default_rng(1).normal(size=500), index=index)
    model = S4DForecaster(
        d_model=16, n_layers=1, context_length=60, max_horizon=12, max_epochs=10, device="cpu", random_state=0
    ).fit(y[:440])
    errors, constant, inside = [], [], []
    for cut in range(440, 490, 5):
        model.update(y[:cut], update_params=False)
        truth = y[cut : cut + 10]
        fh = ForecastingHorizon(truth.index, is_relative=False)
        errors.append(model.predict(fh) - truth)
        constant.append(y.iloc[cut - 1] - truth)
        interval = model.predict_interval(fh, coverage=0.9)
        inside.append((truth >= interval.iloc[:, 0]) & (truth <= interval.iloc[:, 1]))
    assert np.abs(pd.concat(errors)).mean() < 0.5 * np.abs(pd.concat(constant)).mean()
    assert 0.7 < pd.concat(inside).mean() <= 1.0


def test_calibration_is_of_held_out_values_and_is_saved(tmp_path):
    """A network that has learned next to nothing, on noise that grows: held-out values set its intervals right."""
    rng = np.random.default_rng(0)
    walks = 100.0 ** (np.arange(60) % 3)[:, None] * np.cumsum(rng.normal(size=(60, 100)), axis=1)
    noise = pd.concat({k: pd.DataFrame({"y": walk}) for k, walk in enumerate(walks)}, names=["s", "t"])
    known = noise[noise.index.get_level_values(1) < 80]
    options = TINY | {"max_horizon": 10.0, "max_epochs": 0}
    model = S4DForecaster(**options, calibrate=True, calibration_fraction=0.35).fit(known)
    fh = [1, 3, 10]
    truth = noise["y"].to_numpy().reshape(60, 100)[:, [80, 82, 89]]
    intervals = model.predict_interval(fh, coverage=[0.5, 0.9]).to_numpy().reshape(60, 3, 4)
    for j, coverage in ((0, 0.5), (2, 0.9)):
        inside = ((intervals[..., j] <= truth) & (truth <= intervals[..., j + 1])).mean(axis=0)
        np.testing.assert_allclose(inside, coverage, atol=0.13)
    plain = S4DForecaster(**options).fit(known)
    pd.testing.assert_frame_equal(model.predict(fh), plain.predict(fh))
    half = plain.predict_interval(fh, coverage=0.5).to_numpy().reshape(60, 3, 2)
    inside = ((half[..., 0] <= truth) & (truth <= half[..., 1])).mean(axis=0)
    assert np.abs(inside - 0.5).max() > 0.13
    model.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict_interval(fh), model.predict_interval(fh))
    with pytest.warns(UserWarning, match="held-out values to calibrate with"):
        S4DForecaster(**TINY, calibrate=True).fit(series("grid", 12))
    with pytest.raises(ValueError, match="more than one value"):
        S4DForecaster(**TINY, calibrate=True).fit(pd.Series([1.0]))


def test_static_covariates_say_which_series_is_which(tmp_path):
    """Series of two kinds that an event, known ahead, moves up or down; a context of one value does not say which."""
    rng = np.random.default_rng(0)
    kinds, event = np.arange(30) % 2, rng.random((30, 60)) < 0.3
    event[:, 57:] = [False, False, True]
    values = (2 * kinds - 1)[:, None] * event + 0.05 * rng.normal(size=(30, 60))
    rows = pd.MultiIndex.from_product([[f"s{k:02d}" for k in range(30)], range(60)], names=["series", "time"])
    y, X = pd.DataFrame({"y": values.ravel()}, index=rows), pd.DataFrame({"event": 1.0 * event.ravel()}, index=rows)
    static = pd.DataFrame({"kind": kinds, "size": 7.0}, index=rows.levels[0])
    options = TINY | {
        "d_model": 8, "max_epochs": 10, "windows_per_epoch": 128, "context_length": 1, "max_horizon": 3,
        "trend": "mean", "dropout": 0.0, "learning_rate": 0.02,
    }  # fmt: skip
    past = rows.get_level_values(1) < 59
    known, future = y[past], X[~past]
    told, untold = (S4DForecaster(**options, static=table).fit(known, X[past]) for table in (static, None))
    truth = (2 * kinds - 1).astype(float)
    errors = [np.abs(model.predict([1], X=future).to_numpy().ravel() - truth).mean() for model in (told, untold)]
    assert errors[0] < 0.5 * errors[1]
    told.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict([1], X=future), told.predict([1], X=future))
    with pytest.raises(ValueError, match="none for 's29'"):
        S4DForecaster(**options, static=static[:29]).fit(known)
    with pytest.raises(ValueError, match="one series"):
        S4DForecaster(**options, static=static).fit(series("grid"))
    with pytest.raises(TypeError, match="DataFrame"):
        S4DForecaster(**options, static=[1.0]).fit(known)
