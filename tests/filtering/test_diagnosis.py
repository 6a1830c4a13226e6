"""Innovations, anomaly scores, auxiliary residuals, tests, criteria and the summary of a KalmanRegressor."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statespace import KalmanRegressor
from statespace.kalman import LocalLevel, LocalTrend, Matern, Regression, Seasonal


def nile(data_path):
    table = pd.read_csv(data_path("classic_univariate/nile.csv"))
    return table[["year"]], table["volume"]


def series(n=50, seed=0):
    rng = np.random.default_rng(seed)
    t = np.cumsum(rng.exponential(size=n))
    y = np.sin(t / 3) + 0.3 * rng.normal(size=n)
    y[[3, 17]] = np.nan
    return t, y


FIXED = {"noise_variance": 0.1, "optimizer": None}


def test_nile_as_in_the_textbook(data_path):
    X, y = nile(data_path)
    gp = KalmanRegressor(LocalLevel()).fit(X, y)
    table = gp.diagnostics(lags=9)
    # Durbin & Koopman (2012), section 2.12.3.
    assert table["statistic"].round(2).to_dict() == {
        "ljung_box": 8.84, "jarque_bera": 0.05, "skewness": -0.03, "kurtosis": 3.09, "heteroscedasticity": 0.61
    }  # fmt: skip
    assert table.loc["ljung_box", ["parameter", "degrees_of_freedom"]].tolist() == [9, 8]
    assert table.loc["heteroscedasticity", ["parameter", "degrees_of_freedom"]].tolist() == [33, 33]
    pd.testing.assert_frame_equal(gp.diagnostics(), table)
    # Section 2.12.2: the outlier of 1913 and the break of 1899, when the dam of Aswan was begun.
    shocks = gp.auxiliary_residuals()
    assert [*shocks.columns] == ["observation", "local_level"]
    assert shocks.abs().idxmax().to_dict() == {"observation": 1913.0, "local_level": 1899.0}
    assert gp.anomaly_scores(method="leave_one_out")["score"].abs().idxmax() == 1913.0
    np.testing.assert_allclose(
        gp.anomaly_scores(method="leave_one_out")["score"], shocks["observation"].to_numpy(), rtol=1e-7
    )


def test_nile_criteria(data_path):
    X, y = nile(data_path)
    gp = KalmanRegressor(LocalLevel()).fit(X, y)
    value = gp.log_marginal_likelihood_value_
    assert (gp.n_estimated_, gp.n_observed_) == (3, 100)
    assert gp.aic_ == pytest.approx(-2 * value + 6)
    assert gp.aicc_ == pytest.approx(gp.aic_ + 24 / 96)
    assert gp.bic_ == pytest.approx(-2 * value + 3 * np.log(100))
    assert gp.hqic_ == pytest.approx(-2 * value + 6 * np.log(np.log(100)))
    assert KalmanRegressor(LocalLevel(1469.1), noise_variance=15099.0, optimizer=None).fit(X, y).n_estimated_ == 1


def test_criteria_equal_statsmodels(data_path):
    tsa = pytest.importorskip("statsmodels.api").tsa
    X, y = nile(data_path)
    gp = KalmanRegressor(LocalTrend()).fit(X, y)
    model = tsa.UnobservedComponents(y.to_numpy(float), "lltrend", use_exact_diffuse=True)
    theirs = model.smooth([gp.noise_variance_, gp.process_.level_variance, gp.process_.slope_variance])
    assert gp.log_marginal_likelihood_value_ == pytest.approx(theirs.llf, abs=1e-6)
    assert gp.aic_ == pytest.approx(theirs.aic, abs=1e-5)
    assert gp.bic_ == pytest.approx(theirs.bic, abs=1e-5)
    assert gp.hqic_ == pytest.approx(theirs.hqic, abs=1e-5)
    assert gp.aicc_ == pytest.approx(theirs.aicc, abs=1e-5)
    e = gp.standardized_innovations()
    np.testing.assert_allclose(e[2:], theirs.standardized_forecasts_error[0, 2:], rtol=1e-6)
    ratio = theirs.test_heteroskedasticity("breakvar")[0]
    tests = gp.diagnostics(lags=10, h=33)["statistic"]
    assert tests["heteroscedasticity"] == pytest.approx(ratio[0], rel=1e-6)
    assert tests["jarque_bera"] == pytest.approx(theirs.test_normality("jarquebera")[0, 0], rel=1e-6)
    assert tests["ljung_box"] == pytest.approx(theirs.test_serial_correlation("ljungbox", lags=[10])[0, 0, 0], rel=1e-6)
    states = gp.final_states()
    assert [*states.index] == ["local_trend.level", "local_trend.slope"]
    np.testing.assert_allclose(states["mean"], theirs.filtered_state[:, -1], rtol=1e-6)
    np.testing.assert_allclose(states["std"], np.sqrt(np.diag(theirs.filtered_state_cov[:, :, -1])), rtol=1e-6)


def test_a_direction_that_stays_open_is_not_counted():
    t = np.arange(40.0)[:, np.newaxis]
    y = np.random.default_rng(0).normal(size=40)
    # The sine of the harmonic at period/2 is invisible on a unit grid: 4 of 5 states are estimated.
    gp = KalmanRegressor(LocalLevel(1.0) + Seasonal(4, 2, 0.1), **FIXED).fit(t, y)
    assert gp.n_estimated_ == 4
    assert np.isinf(gp.final_states()["std"]).sum() == 1


def test_densities_sum_to_the_likelihood():
    t, y = series()
    gp = KalmanRegressor(Matern(1.5, 2.0, 1.0), **FIXED).fit(t[:, np.newaxis], y)
    scores = gp.anomaly_scores()
    assert scores["log_density"].sum() == pytest.approx(gp.log_marginal_likelihood_value_, rel=1e-10)
    assert scores["score"].isna().sum() == 2
    np.testing.assert_allclose(scores["p_value"], 2 * stats.norm.sf(scores["score"].abs()), rtol=1e-9)
    np.testing.assert_allclose(scores["expected"] + scores["score"] * scores["std"], y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("noise", [{}, {"noise": "student_t", "df": 4}, {"noise": "huber"}])
def test_leaving_one_out_is_predicting_without_it(noise):
    t, y = series()
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED, **noise).fit(t[:, np.newaxis], y)
    scores = gp.anomaly_scores(method="leave_one_out")
    for k in (0, 10, 49):
        without = y.copy()
        without[k] = np.nan
        if noise:
            # The other weights are those of the whole record.
            R = 0.1 / gp.weights_
            other = KalmanRegressor(LocalLevel(0.3), noise_variance=0.1, optimizer=None)
            other.fit(t[:, np.newaxis], without, noise_variance=R)
        else:
            other = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(t[:, np.newaxis], without)
        mean, std = other.predict(t[[k], np.newaxis], return_std=True)
        assert scores["expected"].iloc[k] == pytest.approx(mean[0], rel=1e-8)
        factor = 1.0 if not noise else gp._noise_factor()
        assert scores["std"].iloc[k] == pytest.approx(np.sqrt(std[0] ** 2 + 0.1 * factor), rel=1e-8)


def test_new_rows_join_the_data():
    t, y = series()
    X = t[:, np.newaxis]
    part = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(X[:30], y[:30])
    whole = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(X, y)
    later = np.array([45, 33, 38, *range(30, 33), *range(34, 38), *range(39, 45), *range(46, 50)])
    expected = whole.anomaly_scores().iloc[later]
    np.testing.assert_allclose(part.anomaly_scores(X[later], y[later]), expected, rtol=1e-9)
    # The data themselves replace themselves, in any order.
    order = np.random.default_rng(1).permutation(50)
    np.testing.assert_allclose(whole.anomaly_scores(X[order], y[order]), whole.anomaly_scores().iloc[order], rtol=1e-9)
    shuffled = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(X[order], y[order])
    np.testing.assert_allclose(shuffled.anomaly_scores(), whole.anomaly_scores().iloc[order], rtol=1e-9)
    # A series of its own.
    fresh = part.anomaly_scores(X, y, from_prior=True)
    np.testing.assert_allclose(fresh, whole.anomaly_scores(), rtol=1e-9)


def test_known_noise_of_each_sample():
    t, y = series()
    X, R = t[:, np.newaxis], np.linspace(0.05, 0.5, 50)
    part = KalmanRegressor(LocalLevel(0.3), optimizer=None).fit(X[:30], y[:30], noise_variance=R[:30])
    whole = KalmanRegressor(LocalLevel(0.3), optimizer=None).fit(X, y, noise_variance=R)
    with pytest.raises(ValueError, match="noise_variance is needed for new samples"):
        part.anomaly_scores(X[30:], y[30:])
    scores = part.anomaly_scores(X[30:], y[30:], noise_variance=R[30:])
    np.testing.assert_allclose(scores, whole.anomaly_scores().iloc[30:], rtol=1e-9)
    fixed = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(X, y)
    different = fixed.anomaly_scores(X[30:], y[30:], noise_variance=R[30:])
    assert different["std"].iloc[-1] > fixed.anomaly_scores()["std"].iloc[-1]


def test_several_outputs_and_datetimes():
    t, y = series()
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(t, unit="D")
    Y = np.column_stack([y, np.roll(y, 5)])
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(when, Y)
    scores = gp.anomaly_scores()
    assert scores.index.equals(pd.Index(when))
    alone = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(when, Y[:, 1])
    np.testing.assert_allclose(scores[1], alone.anomaly_scores(), rtol=1e-9)
    assert gp.standardized_innovations().shape == (50, 2)
    np.testing.assert_allclose(gp.diagnostics().loc[1], alone.diagnostics(), rtol=1e-9)
    np.testing.assert_allclose(gp.auxiliary_residuals()[1], alone.auxiliary_residuals(), rtol=1e-9)
    np.testing.assert_allclose(gp.final_states().loc[1], alone.final_states(), rtol=1e-9)
    assert gp.n_estimated_ == 2 * alone.n_estimated_


def test_the_summary():
    t, y = series()
    x = np.random.default_rng(3).normal(size=50)
    X = pd.DataFrame({"time": t, "dose": x})
    gp = KalmanRegressor(LocalTrend() + Regression()).fit(X, y + 5 + 2 * x)
    summary = gp.summary(level=0.9)
    table, params = summary.parameters, gp.params_
    inside = ~table["at_bound"]
    log_error = (params["standard_error"] / params["estimate"])[inside]
    low, high = (params["estimate"][inside] * np.exp(sign * 1.6448536 * log_error) for sign in (-1, 1))
    np.testing.assert_allclose(table["lower"][inside], low, rtol=1e-6)
    np.testing.assert_allclose(table["upper"][inside], high, rtol=1e-6)
    states = summary.states
    assert [*states.index] == ["local_trend.level", "local_trend.slope", "regression[dose]"]
    assert abs(states.loc["regression[dose]", "mean"] - 2) < 4 * states.loc["regression[dose]", "std"]
    text, html = str(summary), summary._repr_html_()
    for words in ("90% intervals", "aicc", "ljung_box", "regression[dose]", "noise_variance", "gaussian noise"):
        assert words in text
        assert words in html
    assert repr(summary) == text
    assert summary.criteria["n_observed"] == 48
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        gp.summary(level=95)


def test_little_data_has_a_summary():
    for y in ([1.0], [1.0, 2.0], [3.0, 3.0, 3.0], [1.0, np.nan]):
        gp = KalmanRegressor(LocalLevel(1.0), **FIXED).fit(np.arange(float(len(y)))[:, np.newaxis], y)
        assert "ljung_box" in str(gp.summary())
        gp.anomaly_scores(method="leave_one_out")
        gp.auxiliary_residuals()


def test_nothing_changes_the_estimator():
    t, y = series()
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(t[:, np.newaxis], y)
    before = pickle.dumps(gp)
    gp.diagnostics()
    gp.final_states()
    gp.anomaly_scores(t[:5, np.newaxis], y[:5])
    gp.auxiliary_residuals()
    assert pickle.dumps(gp) == before
    copy.deepcopy(gp.summary())
    assert gp.log_marginal_likelihood() == gp.log_marginal_likelihood_value_


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda gp: gp.anomaly_scores(method="smoothed"), "method must be 'ahead' or 'leave_one_out'"),
        (lambda gp: gp.anomaly_scores(y=[1.0]), "y without X"),
        (lambda gp: gp.anomaly_scores([[0.0]]), "requires y"),
        (lambda gp: gp.anomaly_scores([[0.0]], [[1.0, 2.0]]), "y must have 1 outputs"),
        (lambda gp: gp.anomaly_scores([[0.0, 1.0]], [1.0]), "2 features"),
    ],
)
def test_bad_input_is_refused(call, words):
    t, y = series()
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED).fit(t[:, np.newaxis], y)
    with pytest.raises(ValueError, match=words):
        call(gp)


@pytest.mark.parametrize("parameters", ["shared", "separate"])
@pytest.mark.parametrize("noise", [{}, {"noise": "student_t", "df": 4}])
def test_many_series_equal_each_alone(parameters, noise):
    rng = np.random.default_rng(5)
    times = [np.cumsum(rng.exponential(size=n))[:, np.newaxis] for n in (30, 45)]
    values = [np.sin(t[:, 0] / 3) + 0.3 * rng.normal(size=len(t)) for t in times]
    # All series' weights settle together.
    close = {"rtol": 1e-4, "atol": 1e-6} if noise else {"rtol": 1e-7}
    order = rng.permutation(30)
    times[0], values[0] = times[0][order], values[0][order]
    gp = KalmanRegressor(LocalLevel(0.3), parameters=parameters, **FIXED, **noise).fit(times, values)
    alone = [KalmanRegressor(LocalLevel(0.3), **FIXED, **noise).fit(t, y) for t, y in zip(times, values, strict=True)]
    scores = gp.anomaly_scores()
    assert scores.index.names == ["series", "time"] or scores.index.nlevels == 2
    for i, single in enumerate(alone):
        np.testing.assert_allclose(scores.loc[i], single.anomaly_scores(), **close)
        np.testing.assert_allclose(gp.diagnostics().loc[i], single.diagnostics(), **close)
        np.testing.assert_allclose(gp.final_states().loc[i], single.final_states(), **close)
        np.testing.assert_allclose(gp.auxiliary_residuals().loc[i], single.auxiliary_residuals(), **close)
    both = np.concatenate([single.standardized_innovations() for single in alone])
    np.testing.assert_allclose(gp.standardized_innovations(), both, **close)
    assert gp.n_observed_ == 75
    assert gp.n_estimated_ == 2
    assert gp.aic_ == pytest.approx(sum(single.aic_ for single in alone), rel=1e-6)
    assert "n_observed" in str(gp.summary())
    # New rows join their own series.
    later = times[1].max() + np.array([[1.0], [2.0]])
    joined = gp.anomaly_scores(later, [0.1, 5.0], series=1)
    np.testing.assert_allclose(joined, alone[1].anomaly_scores(later, [0.1, 5.0]), **close)
    several = gp.anomaly_scores([later, later], [[0.1, 5.0], [0.0, 1.0]], series=[1, 0])
    np.testing.assert_allclose(several.iloc[:2], joined, **close)
    np.testing.assert_allclose(several.iloc[2:], alone[0].anomaly_scores(later, [0.0, 1.0]), **close)
    if noise:
        np.testing.assert_allclose(gp.weights_, np.concatenate([single.weights_ for single in alone]), **close)


def test_new_robust_rows_are_scored_as_a_stream_meets_them():
    t, y = series()
    X = t[:, np.newaxis]
    y[40] = 9.0
    gp = KalmanRegressor(LocalLevel(0.3), **FIXED, noise="student_t", df=4).fit(X[:30], y[:30])
    scores, stream = gp.anomaly_scores(X[30:], y[30:]), gp.stream()
    for k in range(30, 50):
        mean, _ = stream.step(np.nan, dt=t[k] - t[k - 1])
        assert scores["expected"].iloc[k - 30] == pytest.approx(mean, rel=1e-6)
        stream.step(y[k], dt=0.0)
