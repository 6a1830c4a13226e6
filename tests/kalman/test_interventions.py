"""Known shifts, bends and outliers: against statsmodels, dense least squares, and leaving samples out."""

import copy

import numpy as np
import pandas as pd
import pytest

import statespace
from statespace import KalmanRegressor
from statespace.kalman import LevelShift, LocalLevel, LocalTrend, Matern, Outlier, Regression, Seasonal, SlopeChange

RNG = np.random.default_rng(0)
T = np.sort(RNG.uniform(0, 50, 80))
Y = np.sin(T / 4) + 0.1 * RNG.normal(size=80)


def fitted(process, y, t=T, noise=0.01):
    return KalmanRegressor(process, noise_variance=noise, optimizer=None).fit(np.asarray(t).reshape(len(t), -1), y)


@pytest.mark.parametrize("process", [LocalLevel(0.3), LocalTrend(0.1, 0.2), Matern(1.5, 3.0, 2.0)], ids=repr)
def test_an_outlier_is_a_sample_left_out(process):
    y, missing = Y.copy(), Y.copy()
    y[40], missing[40] = 7.0, np.nan
    with_outlier, without = fitted(process + Outlier(T[40]), y), fitted(process, missing)
    # A sample that fixes a diffuse coefficient of its own counts ½ log 2π, and its F∞ is 1.
    assert with_outlier.log_marginal_likelihood_value_ == pytest.approx(
        without.log_marginal_likelihood_value_ - 0.5 * np.log(2 * np.pi), rel=1e-12
    )
    grid = np.linspace(-3, 60, 31)[:, None]
    np.testing.assert_allclose(with_outlier.predict(grid), without.predict(grid), atol=1e-9)
    deviation = with_outlier.decompose(T[[40], None])["outlier"].item()
    assert deviation == pytest.approx(7.0 - without.predict(T[[40], None]).item(), abs=1e-8)


def test_an_outlier_of_given_variance_is_noise():
    y = Y.copy()
    y[40] = 7.0
    noise = np.full(80, 0.01)
    noise[40] += 4.0
    gp = KalmanRegressor(Matern(1.5, 3.0, 2.0), optimizer=None).fit(T[:, None], y, noise_variance=noise)
    same = fitted(Matern(1.5, 3.0, 2.0) + Outlier([T[40]], variance=4.0), y)
    assert same.log_marginal_likelihood_value_ == pytest.approx(gp.log_marginal_likelihood_value_, rel=1e-12)


@pytest.mark.parametrize(
    ("effect", "shape"),
    [
        (LevelShift([12.0, 30.0]), lambda t: np.column_stack([t >= 12, t >= 30]).astype(float)),
        (SlopeChange([20.0]), lambda t: np.maximum(t - 20, 0)[:, None]),
    ],
    ids=["level", "slope"],
)
def test_effects_are_covariates_that_know_the_time(effect, shape):
    ours = fitted(LocalLevel(0.3) + effect, Y)
    theirs = fitted(LocalLevel(0.3) + Regression(), Y, np.column_stack([T, shape(T)]))
    assert ours.log_marginal_likelihood_value_ == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-11)
    t = np.linspace(-2, 60, 13)
    mean, std = ours.predict(t[:, None], return_std=True)
    expected = theirs.predict(np.column_stack([t, shape(t)]), return_std=True)
    np.testing.assert_allclose([mean, std], expected, rtol=1e-8)


@pytest.mark.parametrize("given", ["2002-07-01", ["2002-07-01"], pd.Timestamp("2002-07-01", tz="UTC")], ids=repr)
def test_datetimes_files_and_streams(given, tmp_path):
    index = pd.date_range("2000-01-01", periods=80, freq="MS", tz="UTC")
    y = np.cumsum(RNG.normal(size=80)) * 0.1 + 4.0 * (np.arange(80) >= 30)
    gp = KalmanRegressor(LocalLevel() + LevelShift(given) + SlopeChange(pd.DatetimeIndex(["2003-07-01"]))).fit(index, y)
    steps = gp.decompose(index[[0, 29, 30, 79]])["level_shift"].to_numpy()
    np.testing.assert_array_equal(steps[:2], 0.0)
    np.testing.assert_allclose(steps[2:], 4.0, atol=0.5)
    gp.save(tmp_path / "model")
    again = statespace.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(index), gp.predict(index))
    # A stream goes on in time.
    stream = copy.deepcopy(again.stream())
    mean, _ = stream.step(np.nan, dt=pd.Timedelta(days=400))
    assert mean == pytest.approx(gp.predict(index[-1:] + pd.Timedelta(days=400)).item(), rel=1e-10)
    # A new series must say what time it is.
    with pytest.raises(ValueError, match="has events in time: give time= from the first sample on"):
        gp.stream(from_prior=True).step(1.0)
    fresh = gp.stream(from_prior=True)
    answers = [fresh.step(value, time=time) for value, time in zip(y[:40], index[:40], strict=True)]
    expected = gp.condition(index[:40], y[:40]).predict(index[39:40], return_std=True)
    np.testing.assert_allclose(answers[-1], np.ravel(expected), rtol=1e-7)


def test_covariates_are_still_asked_for():
    with pytest.raises(ValueError, match=r"no component of .* reads them"):
        fitted(LocalLevel(0.3) + LevelShift([12.0]), Y, np.column_stack([T, T]))


def test_drivers_and_the_seat_belt_law(data_path):
    """UK drivers killed or seriously injured, logarithm; the law came into force in February 1983."""
    models = pytest.importorskip("statsmodels.tsa.api")
    table = pd.read_csv(data_path("classic_univariate/seatbelts.csv"), index_col=0, parse_dates=True)
    y, t = np.log(table["KSI"].to_numpy(float)), np.arange(192.0)
    law = KalmanRegressor(LocalLevel() + Seasonal(12) + LevelShift("1983-02-01"), time_unit="30.4375D")
    part = law.fit(table.index, y).decompose(table.index[-1:])
    # Durbin & Koopman (2012), section 8.2, have −.238 (.046) with the price of petrol beside it.
    assert part["level_shift"].item() == pytest.approx(-0.24, abs=0.005)
    # On the grid of months it is a dummy variable of statsmodels'.
    theirs = models.UnobservedComponents(
        y, "llevel", freq_seasonal=[{"period": 12}], exog=1.0 * (t >= 169), mle_regression=False, use_exact_diffuse=True
    )
    variances = [0.003636, 0.000475, 6.67e-7]
    result = theirs.smooth(variances)
    ours = KalmanRegressor(
        LocalLevel(variances[1]) + Seasonal(12, variance=variances[2]) + LevelShift(169.0), noise_variance=variances[0],
        optimizer=None,
    ).fit(t[:, None], y)  # fmt: skip
    assert ours.log_marginal_likelihood_value_ == pytest.approx(result.llf, rel=1e-9)
    effect = ours.decompose([[191.0]])
    assert effect["level_shift"].item() == pytest.approx(result.smoothed_state[-1, -1], rel=1e-7)
    assert effect["level_shift_std"].item() == pytest.approx(np.sqrt(result.smoothed_state_cov[-1, -1, -1]), rel=1e-6)


def test_drifting_coefficients_are_those_of_statsmodels():
    """A random walk for each coefficient, against an explicit state-space model."""
    sm = pytest.importorskip("statsmodels.tsa.statespace.mlemodel")
    X = RNG.normal(size=(60, 2))
    y = X @ [1.0, -2.0] + RNG.normal(size=60)
    y[[3, 17]] = np.nan
    model = sm.MLEModel(y, k_states=2)
    model.ssm.initialize_diffuse()
    model["transition"] = model["selection"] = np.eye(2)
    model["state_cov"] = np.diag([0.3, 0.05])
    model["obs_cov"] = [[0.5]]
    model.ssm["design"] = X.T[None]
    process = Regression(0, variance=0.3) + Regression(1, variance=0.05)
    ours = fitted(process, y, np.column_stack([np.arange(60.0), X]), noise=0.5)
    assert ours.log_marginal_likelihood_value_ == pytest.approx(model.ssm.loglike(), rel=1e-9)
