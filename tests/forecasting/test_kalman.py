import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import statespace
from statespace import KalmanRegressor, persistence
from statespace.forecasting import KalmanForecaster
from statespace.kalman import LocalLevel, LocalTrend, OrnsteinUhlenbeck, Regression, Seasonal

RNG = np.random.default_rng(1)
DAYS = pd.DatetimeIndex(pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum(RNG.uniform(0.2, 3.0, 40)), unit="D"))
Y = pd.Series(np.cumsum(RNG.normal(size=40)), index=DAYS, name="level")
KNOWN = {"process": LocalTrend(0.5, 0.01), "noise_variance": 0.2, "optimizer": None}


def in_days(index):
    return ((index - DAYS[0]) / pd.Timedelta("1D")).to_numpy()[:, np.newaxis]


def test_forecasts_equal_the_regressor():
    forecaster = KalmanForecaster(**KNOWN).fit(Y)
    fh = pd.to_timedelta(["1h", "3D", "100D"])
    gp = KalmanRegressor(**KNOWN).fit(in_days(DAYS), Y.to_numpy())
    mean, std = gp.predict(in_days(DAYS[-1] + fh), return_std=True, include_noise=True)
    predicted = forecaster.predict(fh=fh)
    assert predicted.name == "level"
    np.testing.assert_allclose(predicted, mean)
    np.testing.assert_allclose(forecaster.predict_var(fh=fh).to_numpy()[:, 0], std**2)
    quantiles = forecaster.predict_quantiles(fh=fh, alpha=[0.1, 0.5, 0.975]).to_numpy()
    np.testing.assert_allclose(quantiles, mean[:, None] + std[:, None] * norm.ppf([0.1, 0.5, 0.975]))
    covariance = forecaster.predict_var(fh=fh, cov=True)
    np.testing.assert_allclose(np.diag(covariance), std**2)


def test_in_sample_forecasts_are_one_step_ahead():
    y = Y.copy()
    y.iloc[[3, 20]] = np.nan
    forecaster = KalmanForecaster(**KNOWN).fit(y)
    mean, variance = forecaster.predict(fh=y.index), forecaster.predict_var(fh=y.index).iloc[:, 0]
    for k in (2, 3, 4, 15, 39):
        earlier = KalmanForecaster(**KNOWN).fit(y.iloc[:k])
        np.testing.assert_allclose(mean.iloc[k], earlier.predict(fh=y.index[[k]]).iloc[0], rtol=1e-9)
        np.testing.assert_allclose(variance.iloc[k], earlier.predict_var(fh=y.index[[k]]).iloc[0, 0], rtol=1e-9)
    # A level and a slope need two values: before, it is the smoothed value.
    gp = KalmanRegressor(**KNOWN).fit(in_days(DAYS), y.to_numpy())
    np.testing.assert_allclose(mean.iloc[:2], gp.predict(in_days(DAYS[:2])), rtol=1e-9)
    assert np.isfinite(variance).all()


def test_one_pass_equals_itself_in_chunks(monkeypatch):
    whole = KalmanForecaster(**KNOWN).fit(Y).predict(fh=Y.index)
    monkeypatch.setattr("statespace.forecasting.ahead._CHUNK", 7)
    np.testing.assert_allclose(KalmanForecaster(**KNOWN).fit(Y).predict(fh=Y.index), whole, rtol=1e-12)


def test_a_season_counts_steps_of_the_frequency():
    time = np.arange(60)
    values = 10 + np.sin(2 * np.pi * time / 12)
    process = LocalLevel(1e-8) + Seasonal(12, harmonics=1, variance=1e-8)
    indexes = [
        pd.period_range("2015-01", periods=60, freq="M"),
        pd.date_range("2015-01-01", periods=60, freq="MS"),
        pd.RangeIndex(60),
    ]
    for index in indexes:
        forecaster = KalmanForecaster(process, noise_variance=1e-6, optimizer=None).fit(pd.Series(values, index=index))
        np.testing.assert_allclose(
            forecaster.predict(fh=[3, 6]), 10 + np.sin(2 * np.pi * (59 + np.array([3, 6])) / 12), atol=1e-3
        )


def test_a_regular_index_without_a_frequency_warns():
    y = pd.Series(np.arange(12.0), index=pd.DatetimeIndex(list(pd.date_range("2020", periods=12, freq="MS"))))
    with pytest.warns(UserWarning, match="counted in days"):
        KalmanForecaster(**KNOWN).fit(y)


@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin"])
def test_time_zones(tz):
    there = KalmanForecaster(**KNOWN).fit(Y.tz_localize("UTC").tz_convert(tz))
    predicted = there.predict(fh=[1, 2])
    assert str(predicted.index.tz) == tz
    np.testing.assert_allclose(predicted, KalmanForecaster(**KNOWN).fit(Y).predict(fh=[1, 2]))
    step = np.median(np.diff(DAYS.asi8)).astype(int)
    assert predicted.index[0] == Y.tz_localize("UTC").index[-1] + pd.Timedelta(step, unit=DAYS.unit)


@pytest.mark.parametrize("exogenous", [False, True])
def test_update_equals_a_refit_with_the_same_parameters(exogenous):
    X = (
        pd.DataFrame({"x": RNG.normal(size=45)}, index=DAYS.append(DAYS[-5:] + pd.Timedelta("9D")))
        if exogenous
        else None
    )
    y = Y + 3 * X["x"].reindex(DAYS) if exogenous else Y
    first, later = slice(0, 30), slice(30, 40)
    forecaster = KalmanForecaster(OrnsteinUhlenbeck() + LocalLevel())
    part = (lambda rows: X.iloc[rows]) if exogenous else (lambda rows: None)
    forecaster.fit(y.iloc[first], X=part(first))
    parameters = forecaster.process_, forecaster.noise_variance_
    forecaster.update(y.iloc[later], X=part(later), update_params=False)
    whole = KalmanForecaster(parameters[0], noise_variance=parameters[1], optimizer=None).fit(y, X=part(slice(0, 40)))
    fh = pd.to_timedelta(["9D"])
    options = {"X": X.iloc[[44]]} if exogenous else {}
    np.testing.assert_allclose(forecaster.predict(fh=fh, **options), whole.predict(fh=fh, **options), rtol=1e-7)
    assert forecaster.cutoff[0] == y.index[-1]


def test_update_replaces_values_of_a_time():
    forecaster = KalmanForecaster(**KNOWN).fit(Y.iloc[:30])
    forecaster.update(Y.iloc[25:], update_params=False)
    np.testing.assert_allclose(
        forecaster.predict(fh=[1]), KalmanForecaster(**KNOWN).fit(Y).predict(fh=forecaster.predict(fh=[1]).index)
    )


def test_covariates_add_a_regression():
    X = pd.DataFrame({"a": RNG.normal(size=40), "b": RNG.normal(size=40)}, index=DAYS)
    y = Y * 0.01 + 2 * X["a"] - X["b"]
    future = pd.DataFrame({"a": [1.0, 0.0], "b": [0.0, 1.0]}, index=DAYS[-1] + pd.to_timedelta(["1D", "2D"]))
    forecaster = KalmanForecaster(LocalLevel()).fit(y, X=X)
    predicted = forecaster.predict(fh=future.index, X=future)
    assert abs(predicted.iloc[0] - predicted.iloc[1] - 3) < 0.1
    chosen = KalmanForecaster(LocalLevel() + Regression("a")).fit(y, X=X)
    assert chosen.predict(fh=future.index, X=future).iloc[1] > predicted.iloc[1] + 0.3
    with pytest.raises(ValueError, match="X must have a row for every time"):
        forecaster.predict(fh=future.index, X=future.iloc[:1])


def test_a_panel_ends_each_series_at_its_own_time():
    panel = pd.concat({"a": Y.to_frame(), "b": Y.iloc[:30].to_frame()}, names=["series", "time"])
    predicted = KalmanForecaster(**KNOWN).fit(panel).predict(fh=pd.to_timedelta(["1D", "2D"]))
    for key, rows in (("a", Y), ("b", Y.iloc[:30])):
        alone = KalmanForecaster(**KNOWN).fit(rows).predict(fh=pd.to_timedelta(["1D", "2D"]))
        pd.testing.assert_index_equal(predicted.loc[key].index, alone.index, check_names=False)
        np.testing.assert_allclose(predicted.loc[key]["level"], alone)


def panel_of(lengths=(40, 30, 25), levels=1, seed=3):
    """Series of different lengths and times, named by one level or by two."""
    rng = np.random.default_rng(seed)
    parts = {}
    for i, n in enumerate(lengths):
        name = f"s{i}" if levels == 1 else (f"g{i // 2}", f"s{i}")
        values = 10.0 * i + np.cumsum(rng.normal(size=n)) + rng.normal(size=n)
        values[1::9] = np.nan
        parts[name] = pd.DataFrame({"level": values}, index=DAYS[-n:] if i % 2 else DAYS[:n])
    return pd.concat(parts, names=["group", "series", "time"][-levels - 1 :])


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("parameters", ["separate", "shared"])
def test_panels_and_hierarchies(parameters, levels, tmp_path):
    panel = panel_of(levels=levels)
    names = list(dict.fromkeys(panel.index.droplevel(-1)))
    forecaster = KalmanForecaster(LocalLevel(), parameters=parameters, n_jobs=1).fit(panel)
    times = [panel.loc[name].index for name in names]
    X = [((t - DAYS[0]) / pd.Timedelta("1D")).to_numpy()[:, None] for t in times]
    gp = KalmanRegressor(LocalLevel(), parameters=parameters).fit(X, [panel.loc[name]["level"] for name in names])
    np.testing.assert_allclose(forecaster.noise_variance_, gp.noise_variance_, rtol=1e-5)
    assert forecaster.params_.shape[0] == (6 if parameters == "separate" else 2)
    fh = pd.to_timedelta(["1D", "30D"])
    predicted, variance = forecaster.predict(fh=fh), forecaster.predict_var(fh=fh)
    mean, std = gp.predict([x[-1] + np.array([[1.0], [30.0]]) for x in X], return_std=True, include_noise=True)
    for i, name in enumerate(names):
        np.testing.assert_allclose(predicted.loc[name]["level"], mean[i], rtol=1e-5)
        np.testing.assert_allclose(variance.loc[name].iloc[:, 0], std[i] ** 2, rtol=1e-4)
    # In the sample, one step ahead; the series apart.
    insample = forecaster.predict(fh=DAYS[20:30])
    process = forecaster.process_ if parameters == "shared" else forecaster.processes_[names[1]]
    noise = forecaster.noise_variance_ if parameters == "shared" else forecaster.noise_variance_[1]
    alone = KalmanForecaster(process, noise_variance=noise, optimizer=None).fit(panel.loc[names[1]]["level"])
    np.testing.assert_allclose(insample.loc[names[1]]["level"], alone.predict(fh=DAYS[20:30]), rtol=1e-8)
    forecaster.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(fh=fh), predicted)
    later = panel.groupby(level=list(range(levels)), sort=False).tail(3) + 1.0
    shifted = later.index.get_level_values(-1) + pd.Timedelta("50D")
    later.index = pd.MultiIndex.from_arrays(
        [*(later.index.get_level_values(level) for level in range(levels)), shifted], names=panel.index.names
    )
    forecaster.update(later, update_params=False)
    joined = pd.concat([panel.loc[~panel.index.isin(later.index)], later]).sort_index()
    whole = gp.condition(
        [((joined.loc[n].index - DAYS[0]) / pd.Timedelta("1D")).to_numpy()[:, None] for n in names],
        [joined.loc[n]["level"] for n in names],
    )
    ends = [joined.loc[n].index[-1] for n in names]
    asked = [[[(end - DAYS[0]) / pd.Timedelta("1D") + 1.0]] for end in ends]
    np.testing.assert_allclose(
        [forecaster.predict(fh=fh).loc[n]["level"].iloc[0] for n in names], np.ravel(whole.predict(asked)), rtol=1e-5
    )


def test_panels_with_covariates():
    panel = panel_of((30, 30))
    X = pd.DataFrame({"x": RNG.normal(size=60)}, index=panel.index)
    y = panel + 50 * X.to_numpy()
    forecaster = KalmanForecaster(LocalLevel(), parameters="shared").fit(y, X=X)
    ends = y.groupby(level=0, sort=False).tail(1).index
    index = pd.MultiIndex.from_tuples([(name, time + pd.Timedelta("1D")) for name, time in ends], names=y.index.names)
    future = pd.DataFrame({"x": [1.0, 0.0]}, index=index)
    shifted = future + 1.0
    fh = pd.to_timedelta(["1D"])
    difference = forecaster.predict(fh=fh, X=shifted) - forecaster.predict(fh=fh, X=future)
    np.testing.assert_allclose(difference, 50.0, atol=2.0)


def test_intervals_cover_and_nest():
    time = np.cumsum(RNG.exponential(size=600))
    level = np.cumsum(RNG.normal(size=600) * np.sqrt(0.3 * np.diff(time, prepend=0)))
    index = pd.Timestamp("2024-01-01") + pd.to_timedelta(time, unit="D")
    y = pd.Series(level + RNG.normal(size=600), index=index)
    forecaster = KalmanForecaster(LocalLevel()).fit(y.iloc[:500])
    forecaster.update(y.iloc[500:], update_params=False)
    intervals = forecaster.predict_interval(fh=y.index, coverage=[0.5, 0.9]).to_numpy()
    point = forecaster.predict(fh=y.index).to_numpy()
    assert (np.diff(intervals[:, [2, 0]], axis=1) > 0).all()
    assert (np.diff(intervals[:, [1, 3]], axis=1) > 0).all()
    assert ((intervals[:, 0] < point) & (point < intervals[:, 1])).all()
    for coverage, (low, high) in ((0.5, intervals[:, :2].T), (0.9, intervals[:, 2:].T)):
        assert abs(((y >= low) & (y <= high)).mean() - coverage) < 0.06


@pytest.mark.parametrize("exogenous", [False, True])
def test_a_file_gives_the_same_forecasts(exogenous, tmp_path):
    X = pd.DataFrame({"x": RNG.normal(size=40)}, index=DAYS) if exogenous else None
    future = None if X is None else pd.DataFrame({"x": [1.0]}, index=DAYS[[-1]] + pd.Timedelta("1D"))
    forecaster = KalmanForecaster(LocalTrend()).fit(Y, X=X)
    persistence.save(forecaster, tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    fh = pd.to_timedelta(["1D"])
    pd.testing.assert_series_equal(again.predict(fh=fh, X=future), forecaster.predict(fh=fh, X=future))
    pd.testing.assert_frame_equal(again.predict_var(fh=fh, X=future), forecaster.predict_var(fh=fh, X=future))
    assert again.get_params()["process"] == forecaster.process


def test_noise_with_heavy_tails():
    spoiled = Y.copy()
    spoiled.iloc[-2] += 1e4
    options = KNOWN | {"noise": "student_t", "df": 3.0}
    robust = KalmanForecaster(**options).fit(spoiled)
    clean = KalmanForecaster(**KNOWN).fit(Y)
    fh = pd.to_timedelta(["1D", "5D"])
    assert abs(robust.predict(fh=fh) - clean.predict(fh=fh)).max() < 2.0
    assert abs(KalmanForecaster(**KNOWN).fit(spoiled).predict(fh=fh) - clean.predict(fh=fh)).max() > 1000
    # Its quantiles are those of scores that have that probability.
    when = Y.index[[-1]] + pd.Timedelta("1D")
    ends = robust.predict_interval(fh=when, coverage=0.9).to_numpy().ravel()
    regressor, time = robust.regressor_, robust._axis.count(when)
    rows = pd.DataFrame(time[:, np.newaxis], columns=regressor.feature_names_in_)
    scores = [regressor.anomaly_scores(rows, [end])["p_value"].iloc[0] for end in ends]
    np.testing.assert_allclose(scores, 0.1, rtol=1e-5)
    variance = robust.predict_var(fh=when).iloc[0, 0]
    np.testing.assert_allclose(np.sqrt(variance), regressor.predict(rows, return_std=True, include_noise=True)[1])
    robust.update(Y.iloc[-1:], update_params=False)
    assert "ljung_box" in robust.diagnostics().index
    assert "student_t noise" in str(robust.summary())


@pytest.fixture
def samples(monkeypatch):
    """How many samples the filter and the smoother see."""
    from statespace.kalman import binding

    count = {"seen": 0}
    call = binding.Binding._call

    def counted(self, kernel, y, noise, **options):
        count["seen"] += len(y)
        return call(self, kernel, y, noise, **options)

    monkeypatch.setattr(binding.Binding, "_call", counted)
    return count


@pytest.mark.parametrize("exogenous", [False, True])
def test_an_update_filters_what_is_new_and_equals_all_at_once(samples, exogenous):
    t = np.cumsum(RNG.uniform(0.2, 3.0, 300))
    index = pd.DatetimeIndex(pd.Timestamp("2024-01-01") + pd.to_timedelta(t, unit="D"))
    y = pd.Series(1e6 + np.cumsum(RNG.normal(size=300)), index=index)
    y.iloc[[5, 100, 101]] = np.nan
    X = pd.DataFrame({"x": RNG.normal(size=300)}, index=index) if exogenous else None
    part = (lambda rows: None) if X is None else (lambda rows: X[rows])
    model = KalmanForecaster(**KNOWN).fit(y[:50], X=part(slice(50)))
    whole = KalmanForecaster(**KNOWN).fit(y[:50], X=part(slice(50)))
    for start, stop in [(50, 51), (51, 90), (90, 200)]:
        samples["seen"] = 0
        model.update(y[start:stop], X=part(slice(start, stop)), update_params=False)
        assert samples["seen"] == stop - start
    whole.update(y[:200], X=part(slice(200)), update_params=False)
    assert samples["seen"] >= 200
    horizon = index[[230, 200, 299]]
    samples["seen"] = 0
    found = model.predict_quantiles(fh=horizon, X=part(slice(200, 300)), alpha=[0.1, 0.9])
    assert samples["seen"] == 3
    np.testing.assert_allclose(found, whole.predict_quantiles(fh=horizon, X=part(slice(200, 300)), alpha=[0.1, 0.9]))
    inside = index[[3, 60, 199]]
    np.testing.assert_allclose(model.predict(fh=inside), whole.predict(fh=inside))
    np.testing.assert_allclose(model.predict_residuals(), whole.predict_residuals(), atol=1e-6)
    assert model.diagnostics().equals(whole.diagnostics())


def test_an_update_of_some_series_and_of_the_past():
    y = pd.concat({name: (k + 1) * Y.iloc[: 30 + k].to_frame("y") for k, name in enumerate("ba")}, names=["s", "t"])
    later = pd.DataFrame({"y": [3.0, 4.0]}, index=pd.MultiIndex.from_product([["a"], DAYS[[35, 37]]], names=["s", "t"]))
    model = KalmanForecaster(**KNOWN, parameters="shared").fit(y)
    anew = KalmanForecaster(**KNOWN, parameters="shared").fit(pd.concat([y, later]).sort_index())
    fh = pd.to_timedelta(["1D", "9D"])
    before = model.predict(fh=fh)
    model.update(later, update_params=False)
    np.testing.assert_allclose(model.predict(fh=fh).loc[["a"]], anew.predict(fh=fh).loc[["a"]])
    pd.testing.assert_frame_equal(model.predict(fh=fh).loc[["b"]], before.loc[["b"]])
    # A correction of the past conditions anew.
    corrected = y.loc[["b"]].iloc[[20]] + 5
    model.update(corrected, update_params=False)
    assert (model.predict(fh=fh).loc[["b"]] != before.loc[["b"]]).all(axis=None)


def test_calibrated_intervals_of_a_wrong_model():
    """Noise that is far too small: held-out values say so, at each horizon."""
    rng = np.random.default_rng(0)
    values = np.cumsum(rng.normal(size=(80, 120)), axis=1) + rng.standard_t(3, size=(80, 120))
    steps = pd.MultiIndex.from_product([range(80), range(120)], names=["series", "time"])
    y = pd.DataFrame({"y": values.ravel()}, index=steps)
    wrong = {"process": LocalLevel(0.1), "noise_variance": 0.1, "optimizer": None, "parameters": "shared"}
    known = y[steps.get_level_values(1) < 100]
    fh = [1, 5, 20]
    model = KalmanForecaster(**wrong, calibrate=True, calibration_fraction=0.35).fit(known)
    intervals = model.predict_interval(fh=fh, coverage=[0.5, 0.9]).to_numpy().reshape(80, 3, 4)
    truth = values[:, [100, 104, 119]]
    for j, coverage in ((0, 0.5), (2, 0.9)):
        inside = ((intervals[..., j] <= truth) & (truth <= intervals[..., j + 1])).mean(axis=0)
        np.testing.assert_allclose(inside, coverage, atol=0.1)
    plain = KalmanForecaster(**wrong).fit(known)
    narrow = plain.predict_interval(fh=fh, coverage=0.9).to_numpy().reshape(80, 3, 2)
    assert ((narrow[..., 0] <= truth) & (truth <= narrow[..., 1])).mean() < 0.6
    # The point, and the parameters, are those of all the data.
    pd.testing.assert_frame_equal(model.predict(fh=fh), plain.predict(fh=fh))
    with pytest.raises(ValueError, match="calibration_fraction must be within"):
        KalmanForecaster(**wrong, calibrate=True, calibration_fraction=1.5).fit(known)
