import copy
import json
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.utils.estimator_checks import parametrize_with_checks

import statespace
from statespace import KalmanRegressor, SeriesCollection
from statespace.kalman import (
    Component,
    Initial,
    LocalLevel,
    LocalTrend,
    Matern,
    OrnsteinUhlenbeck,
    Regression,
    Seasonal,
)
from statespace.kernels import BackendError

RNG = np.random.default_rng(0)


def times(n, seed=1):
    """Irregular, unsorted, with two pairs of equal times."""
    t = np.random.default_rng(seed).uniform(0.0, 20.0, n)
    t[[1, n // 2]] = t[[0, n - 1]]
    return t


# Oracle: universal kriging, with the covariances of walks that start at zero and the shapes of the diffuse directions.


def walk(s, t):
    return np.minimum.outer(s, t)


def smooth_walk(s, t):
    low, high = np.minimum.outer(s, t), np.maximum.outer(s, t)
    return low**2 * (3 * high - low) / 6


def matern(nu, length_scale, variance):
    kernel = variance * kernels.Matern(length_scale=length_scale, nu=nu)
    return lambda s, t: kernel(s[:, None], t[:, None])


def seasonal(period, harmonics, variance):
    frequencies = 2 * np.pi * np.arange(1, harmonics + 1) / period
    return (
        lambda s, t: variance * walk(s, t) * sum(np.cos(w * np.subtract.outer(s, t)) for w in frequencies),
        lambda t, x: np.column_stack([shape(w * t) for w in frequencies for shape in (np.cos, np.sin)]),
    )


def nothing(t, x):
    return np.zeros((len(t), 0))


def constant(t, x):
    return np.ones((len(t), 1))


LEVEL = (lambda s, t: 2.0 * walk(s, t), constant)
TREND = (lambda s, t: 0.5 * walk(s, t) + 0.1 * smooth_walk(s, t), lambda t, x: np.column_stack([np.ones_like(t), t]))
SEASON = seasonal(5.0, 2, 0.3)
COVARIATE = (lambda s, t: 0.0 * walk(s, t), lambda t, x: x)
MODELS = {
    "level": (LocalLevel(2.0), [LEVEL]),
    "trend": (LocalTrend(0.5, 0.1), [TREND]),
    "ou": (OrnsteinUhlenbeck(2.0, 3.0), [(matern(0.5, 2.0, 3.0), nothing)]),
    "matern12": (Matern(0.5, 2.0, 3.0), [(matern(0.5, 2.0, 3.0), nothing)]),
    "matern32": (Matern(1.5, 2.0, 3.0), [(matern(1.5, 2.0, 3.0), nothing)]),
    "matern52": (Matern(2.5, 2.0, 3.0), [(matern(2.5, 2.0, 3.0), nothing)]),
    "sum": (
        LocalTrend(0.5, 0.1) + Seasonal(5.0, harmonics=2, variance=0.3) + Matern(1.5, 2.0, 3.0),
        [TREND, SEASON, (matern(1.5, 2.0, 3.0), nothing)],
    ),
    "covariates": (LocalLevel(2.0) + Regression(), [LEVEL, COVARIATE]),
}


def krige(parts, t, x, y, noise, t_new, x_new, part=slice(None)):
    """Mean and covariance at the new rows of some of the parts, and the diffuse log-likelihood."""
    V = sum(k(t, t) for k, _ in parts) + np.diag(np.broadcast_to(noise, t.shape))
    U = np.hstack([u(t, x) for _, u in parts])
    C = sum(k(t, t_new) for k, _ in parts[part])
    chosen = [np.full(u(t, x).shape[1], i in range(*part.indices(len(parts)))) for i, (_, u) in enumerate(parts)]
    U_new = np.hstack([u(t_new, x_new) for _, u in parts]) * np.concatenate(chosen)
    W, G = np.linalg.solve(V, C), np.linalg.solve(V, U)
    information = U.T @ G
    beta = np.linalg.solve(information, G.T @ y) if U.shape[1] else np.zeros(0)
    residual = y - U @ beta
    mean = U_new @ beta + W.T @ residual
    rest = U_new - W.T @ U
    covariance = sum(k(t_new, t_new) for k, _ in parts[part]) - C.T @ W
    if U.shape[1]:
        covariance = covariance + rest @ np.linalg.solve(information, rest.T)
    value = -0.5 * (len(y) * np.log(2 * np.pi) + np.linalg.slogdet(V)[1] + residual @ np.linalg.solve(V, residual))
    return mean, covariance, value - 0.5 * np.linalg.slogdet(information)[1]


def problem(name, n=40):
    process, parts = MODELS[name]
    rng = np.random.default_rng(7)
    t, t_new = times(n), np.concatenate([times(12, seed=5), [-3.0, 25.0, 20.5]])
    t_new[0] = t[3]
    # The kriging's walks start at zero.
    t, t_new = t + 4.0, t_new + 4.0
    x, x_new = rng.normal(size=(n, 2)), rng.normal(size=(len(t_new), 2))
    if name != "covariates":
        x, x_new = x[:, :0], x_new[:, :0]
    y = np.sin(t) + 0.3 * t + rng.normal(size=n)
    return process, parts, (t, x, y), (t_new, x_new)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("known_per_sample", [False, True])
def test_equals_dense_conditioning(name, known_per_sample):
    process, parts, (t, x, y), (t_new, x_new) = problem(name)
    noise = np.linspace(0.1, 1.0, len(t)) if known_per_sample else 0.4
    gp = KalmanRegressor(process, noise_variance=0.4, optimizer=None)
    gp.fit(np.column_stack([t, x]), y, noise_variance=noise if known_per_sample else None)
    X_new = np.column_stack([t_new, x_new])
    mean, covariance, value = krige(parts, t, x, y, noise, t_new, x_new)
    ours, std = gp.predict(X_new, return_std=True)
    np.testing.assert_allclose(ours, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(std, np.sqrt(np.diag(covariance)), rtol=1e-9)
    np.testing.assert_allclose(gp.predict(X_new, return_cov=True)[1], covariance, rtol=1e-8, atol=1e-9)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(value, rel=1e-10)
    if not known_per_sample:
        std_noise = gp.predict(X_new, return_std=True, include_noise=True)[1]
        np.testing.assert_allclose(std_noise, np.sqrt(np.diag(covariance) + 0.4), rtol=1e-9)


@pytest.mark.parametrize("name", ["sum", "covariates"])
def test_components_equal_dense_conditioning_and_add_up(name):
    process, parts, (t, x, y), (t_new, x_new) = problem(name)
    gp = KalmanRegressor(process, noise_variance=0.4, optimizer=None).fit(np.column_stack([t, x]), y)
    X_new = np.column_stack([t_new, x_new])
    table = gp.decompose(X_new)
    names = [name for name, _ in process.named()]
    assert [*table.columns] == [f"{name}{suffix}" for name in names for suffix in ("", "_std")]
    for j, component in enumerate(names):
        mean, covariance, _ = krige(parts, t, x, y, 0.4, t_new, x_new, part=slice(j, j + 1))
        np.testing.assert_allclose(table[component], mean, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(table[f"{component}_std"], np.sqrt(np.diag(covariance)), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(table[names].sum(axis=1), gp.predict(X_new), rtol=1e-10, atol=1e-10)


def test_equals_the_gaussian_process_regressor():
    t, y = times(50), RNG.normal(size=50)
    theirs = GaussianProcessRegressor(3.0 * kernels.Matern(2.0, nu=1.5) + kernels.WhiteKernel(0.5), optimizer=None).fit(
        t[:, None], y
    )
    ours = KalmanRegressor(Matern(1.5, 2.0, 3.0), noise_variance=0.5, optimizer=None).fit(t[:, None], y)
    assert ours.log_marginal_likelihood_value_ == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-9)
    np.testing.assert_allclose(ours.predict(t[:, None]), theirs.predict(t[:, None]), atol=1e-8)


class Ramp(Component):
    """A walk with an uncertain start, with the four methods only; its second state never changes."""

    def __init__(self, rate=1.0, start=1.0, rate_bounds=None, start_bounds=None):
        self.rate, self.start, self.rate_bounds, self.start_bounds = rate, start, rate_bounds, start_bounds

    def transition(self, dt):
        A = np.zeros((len(dt), 2, 2))
        A[:, 0, 0] = np.exp(-self.rate * dt)
        A[:, 1, 1] = 1.0
        return A

    def process_noise(self, dt):
        Q = np.zeros((len(dt), 2, 2))
        Q[:, 0, 0] = -np.expm1(-2 * self.rate * dt)
        return Q

    def observation(self):
        return np.array([1.0, 1.0])

    def initial(self):
        return Initial(np.zeros(2), np.diag([1.0, self.start]), np.zeros((2, 0)))


def test_four_methods_make_a_component():
    t, y = times(30), RNG.normal(size=30)
    ours = KalmanRegressor(Ramp(rate=0.5, start=2.0), noise_variance=0.5, optimizer=None).fit(t[:, None], y)
    kernel = kernels.Matern(2.0, nu=0.5) + kernels.ConstantKernel(2.0) + kernels.WhiteKernel(0.5)
    theirs = GaussianProcessRegressor(kernel, optimizer=None).fit(t[:, None], y)
    assert ours.log_marginal_likelihood_value_ == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-9)
    stream = ours.stream()
    assert stream.step(1.0, dt=0.3) == pytest.approx(_next(ours, t, y, 1.0, 0.3), rel=1e-9)
    check_gradient(KalmanRegressor(Ramp(0.5, 2.0) + LocalTrend(), optimizer=None).fit(t[:, None], y))


def _next(gp, t, y, value, dt):
    longer = clone(gp).fit(np.append(t, t.max() + dt)[:, None], np.append(y, value))
    return tuple(part[0] for part in longer.predict([[t.max() + dt]], return_std=True))


def check_gradient(gp, step=1e-5):
    theta = gp.theta_
    value, gradient = gp.log_marginal_likelihood(theta, eval_gradient=True)
    assert value == pytest.approx(gp.log_marginal_likelihood(theta), rel=1e-12)
    for j in range(len(theta)):
        shift = np.zeros(len(theta))
        shift[j] = step
        difference = (gp.log_marginal_likelihood(theta + shift) - gp.log_marginal_likelihood(theta - shift)) / (
            2 * step
        )
        assert gradient[j] == pytest.approx(difference, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_gradient(name):
    process, _, (t, x, y), _ = problem(name)
    process = copy.deepcopy(process)
    if name == "covariates":
        process.components[1].variance = 0.2
    if name == "sum":
        process.components[1].period_bounds = (3.0, 8.0)
    y = np.where(np.arange(len(y)) % 7 == 0, np.nan, y)
    check_gradient(KalmanRegressor(process, optimizer=None).fit(np.column_stack([t, x]), y))


def test_order_of_rows_does_not_matter():
    process, _, (t, _, y), (t_new, _) = problem("sum")
    order = np.random.default_rng(3).permutation(len(t))
    one = KalmanRegressor(process).fit(t[:, None], y)
    other = KalmanRegressor(process).fit(t[order][:, None], y[order])
    np.testing.assert_allclose(other.theta_, one.theta_, rtol=1e-6)
    new_order = np.random.default_rng(4).permutation(len(t_new))
    one = KalmanRegressor(process, optimizer=None).fit(t[:, None], y)
    other = KalmanRegressor(process, optimizer=None).fit(t[order][:, None], y[order])
    np.testing.assert_allclose(
        other.predict(t_new[new_order][:, None]), one.predict(t_new[:, None])[new_order], rtol=1e-12
    )


def test_a_shift_of_all_times_changes_nothing():
    t = np.sort(np.random.default_rng(2).integers(0, 2000, 60)) / 64.0
    y = np.sin(t) + RNG.normal(size=60)
    near = KalmanRegressor(LocalTrend() + Matern()).fit(t[:, None], y)
    far = KalmanRegressor(LocalTrend() + Matern()).fit(t[:, None] + 1e9, y)
    np.testing.assert_array_equal(far.theta_, near.theta_)
    new = np.array([[0.125], [50.0]])
    np.testing.assert_array_equal(far.predict(new + 1e9, return_std=True), near.predict(new, return_std=True))


@pytest.mark.parametrize("time", [1e-9, 1 / 12, 86400.0])
@pytest.mark.parametrize("value", [1e-100, 1e-8, 1.0, 3e7, 1e100])
def test_fits_are_equivariant_to_units(time, value):
    t = times(50)
    y = np.sin(t) + 0.5 * RNG.normal(size=50)
    X_new = np.array([[3.3], [22.0]])
    one = KalmanRegressor(LocalTrend() + Matern()).fit(t[:, None], y)
    other = KalmanRegressor(LocalTrend() + Matern()).fit(t[:, None] * time, y * value)
    np.testing.assert_allclose(other.predict(X_new * time), one.predict(X_new) * value, rtol=1e-4, atol=1e-6 * value)
    # The likelihood of y in other units, where one slope and one level are diffuse.
    expected = one.log_marginal_likelihood_value_ - 48 * np.log(value) - np.log(time)
    assert other.log_marginal_likelihood_value_ == pytest.approx(expected, abs=1e-6)


def test_units_of_covariates_do_not_matter():
    _, _, (t, x, y), (t_new, x_new) = problem("covariates")
    units = np.array([1e6, 1e-4])
    process = LocalLevel() + Regression()
    one = KalmanRegressor(process).fit(np.column_stack([t, x]), y)
    other = KalmanRegressor(process).fit(np.column_stack([t, x * units]), y)
    expected = one.log_marginal_likelihood_value_ - np.log(units).sum()
    assert other.log_marginal_likelihood_value_ == pytest.approx(expected, abs=1e-8)
    new, new_in_units = np.column_stack([t_new, x_new]), np.column_stack([t_new, x_new * units])
    np.testing.assert_allclose(other.predict(new_in_units), one.predict(new), rtol=1e-6)


def test_nile(data_path):
    nile = pd.read_csv(data_path("classic_univariate/nile.csv"))
    X, y = nile[["year"]], nile["volume"]
    given = KalmanRegressor(LocalLevel(1469.1), noise_variance=15099.0, optimizer=None).fit(X, y)
    assert given.log_marginal_likelihood_value_ == pytest.approx(-633.46456, abs=5e-6)
    gp = KalmanRegressor(LocalLevel()).fit(X, y)
    assert gp.log_marginal_likelihood_value_ == pytest.approx(-633.464563636, abs=1e-8)
    assert gp.process_.variance == pytest.approx(1469.18, abs=0.5)
    assert gp.noise_variance_ == pytest.approx(15098.5, abs=1.0)
    assert [*gp.params_.index] == ["variance", "noise_variance"]
    # From second differences of statsmodels' likelihood.
    np.testing.assert_allclose(gp.params_["standard_error"], [1280.4, 3145.6], rtol=1e-3)


def test_airline_ends_at_the_maximum(data_path):
    airline = pd.read_csv(data_path("classic_univariate/Airline.csv"))
    X, y = np.arange(144.0)[:, None], np.log(airline["Passengers"].to_numpy())
    gp = KalmanRegressor(LocalTrend() + Seasonal(12)).fit(X, y)
    # Found by every one of 20 searches from random starts.
    assert gp.log_marginal_likelihood_value_ == pytest.approx(216.213906, abs=1e-5)
    slope = gp.params_.loc["local_trend__slope_variance"]
    assert slope["at_bound"]
    assert np.isnan(slope["standard_error"])
    assert gp.params_["at_bound"].sum() == 1
    # The harmonic at period/2 is half invisible on the grid, and open between its points.
    mean, std = gp.predict([[150.0], [150.5]], return_std=True)
    assert np.isfinite(mean[0])
    assert np.isfinite(std[0])
    assert np.isinf(std[1])


def test_backends_agree_and_none_is_replaced():
    process, _, (t, _, y), (t_new, _) = problem("sum", n=15)
    one, other = (
        KalmanRegressor(process, noise_variance=0.4, optimizer=None, backend=backend).fit(t[:, None], y)
        for backend in ("cpu", "reference")
    )
    assert one.log_marginal_likelihood_value_ == pytest.approx(other.log_marginal_likelihood_value_, rel=1e-12)
    expected = other.predict(t_new[:, None], return_std=True)
    np.testing.assert_allclose(one.predict(t_new[:, None], return_std=True), expected, rtol=1e-9)
    with pytest.raises(BackendError, match="backend='triton' cannot run kalman_filter here"):
        KalmanRegressor(process, backend="triton").fit(t[:, None], y)


def test_missing_values_are_left_out():
    t, y = times(40), RNG.normal(size=40)
    missing = np.arange(40) % 3 == 1
    whole = KalmanRegressor(Matern(), random_state=0).fit(t[:, None], np.where(missing, np.nan, y))
    shorter = KalmanRegressor(Matern(), random_state=0).fit(t[~missing][:, None], y[~missing])
    new = np.linspace(-1, 22, 9)[:, None]
    theta = shorter.theta_
    assert whole.log_marginal_likelihood(theta) == pytest.approx(shorter.log_marginal_likelihood(theta), rel=1e-12)
    np.testing.assert_allclose(whole.predict(new), shorter.predict(new), rtol=1e-3, atol=1e-4)


def test_several_outputs_share_the_process():
    t = times(30)
    Y = RNG.normal(size=(30, 2))
    Y[4:9, 1] = np.nan
    gp = KalmanRegressor(LocalLevel() + Matern()).fit(t[:, None], Y)
    new = np.array([[3.0], [30.0]])
    mean, std = gp.predict(new, return_std=True)
    singles = [
        KalmanRegressor(gp.process_, noise_variance=gp.noise_variance_, optimizer=None).fit(t[:, None], y) for y in Y.T
    ]
    assert gp.log_marginal_likelihood_value_ == pytest.approx(
        sum(s.log_marginal_likelihood_value_ for s in singles), rel=1e-9
    )
    for k, single in enumerate(singles):
        np.testing.assert_allclose(mean[:, k], single.predict(new), rtol=1e-9)
        np.testing.assert_allclose(std[:, k], single.predict(new, return_std=True)[1], rtol=1e-9)
    assert gp.predict(new, return_cov=True)[1].shape == (2, 2, 2)
    assert gp.sample_y(new, 5).shape == (2, 2, 5)
    assert gp.decompose(new).shape == (2, 8)
    assert gp.decompose(new)[1]["matern_std"].shape == (2,)
    check_gradient(gp)


def test_samples_have_the_posterior_moments():
    process, _, (t, _, y), (t_new, _) = problem("sum", n=25)
    gp = KalmanRegressor(process, noise_variance=0.4, optimizer=None).fit(t[:, None], y)
    mean, covariance = gp.predict(t_new[:, None], return_cov=True)
    drawn = gp.sample_y(t_new[:, None], 4000, random_state=1)
    std = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((drawn.mean(axis=1) - mean) / std, 0.0, atol=5 / np.sqrt(4000))
    np.testing.assert_allclose(np.cov(drawn) / np.outer(std, std), covariance / np.outer(std, std), atol=0.09)
    np.testing.assert_array_equal(
        gp.sample_y(t_new[:, None], 2, random_state=3), gp.sample_y(t_new[:, None], 2, random_state=3)
    )
    noisy = gp.sample_y(t_new[:, None], 4000, random_state=1, include_noise=True)
    np.testing.assert_allclose(noisy.var(axis=1), np.diag(covariance) + 0.4, rtol=0.15)


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_datetimes_equal_floats(zone):
    days = np.sort(np.random.default_rng(8).integers(0, 4000, 40)) / 16.0
    y = np.sin(days / 30) + 0.1 * RNG.normal(size=40)
    start = pd.Timestamp("2024-01-15", tz="UTC")
    index = start + pd.to_timedelta(days, unit="D")
    index = index.tz_localize(None) if zone is None else index.tz_convert(zone)
    floats = KalmanRegressor(Matern()).fit(days[:, None], y)
    expected = floats.predict(days[:, None], return_std=True)
    x = RNG.normal(size=40)
    forms = [index, pd.DataFrame(index=index), pd.DataFrame({"when": index}), pd.Series(index)]
    forms += [index.to_numpy()] if zone is None else []
    for form in forms:
        gp = KalmanRegressor(Matern()).fit(form, y)
        np.testing.assert_allclose(gp.theta_, floats.theta_, rtol=1e-9)
        np.testing.assert_allclose(gp.predict(form, return_std=True), expected, rtol=1e-9, atol=1e-12)
        assert gp.decompose(form).index.equals(index if not isinstance(form, np.ndarray) else pd.DatetimeIndex(form))
    hours = KalmanRegressor(Matern(), time_unit="h").fit(index, y)
    assert hours.process_.length_scale == pytest.approx(24 * floats.process_.length_scale, rel=1e-5)
    process = LocalLevel() + Regression(["x"])
    with_column = KalmanRegressor(process, optimizer=None).fit(pd.DataFrame({"when": index, "x": x}), y)
    with_index = KalmanRegressor(process, optimizer=None).fit(pd.DataFrame({"x": x}, index=index), y)
    numbers = KalmanRegressor(LocalLevel() + Regression(), optimizer=None).fit(np.column_stack([days, x]), y)
    np.testing.assert_allclose(with_column.theta_, numbers.theta_)
    np.testing.assert_allclose(with_index.log_marginal_likelihood_value_, numbers.log_marginal_likelihood_value_)
    objects = np.array([[when, value] for when, value in zip(index, x, strict=True)], dtype=object)
    with_objects = KalmanRegressor(LocalLevel() + Regression(), optimizer=None).fit(objects, y)
    np.testing.assert_allclose(with_objects.log_marginal_likelihood_value_, numbers.log_marginal_likelihood_value_)
    with pytest.raises(ValueError, match="must be datetimes"):
        with_column.predict(np.column_stack([days, x]))


def test_datetimes_have_a_time_zone_as_in_fit(tmp_path):
    naive = pd.date_range("2024-03-30", periods=30, freq="h")
    zoned, y = naive.tz_localize("Europe/Berlin", nonexistent="shift_forward"), np.sin(np.arange(30.0))
    table = pd.MultiIndex.from_product([["a"], zoned])
    known = {"process": LocalLevel(0.1), "noise_variance": 0.1, "optimizer": None}
    gp, panel = KalmanRegressor(**known).fit(zoned, y), KalmanRegressor(**known).fit(table, y)
    gp.save(tmp_path / "model")
    again, other = statespace.load(tmp_path / "model"), gp.condition(zoned, y)
    np.testing.assert_array_equal(gp.predict(zoned.tz_convert("Asia/Tokyo")), gp.predict(zoned))
    for model in (gp, again, other):
        for times in (naive, naive.to_numpy(), pd.DataFrame(index=naive), list(naive.to_pydatetime())):
            with pytest.raises(ValueError, match="`times` must have a time zone, as in fit"):
                model.predict(times)
    for call in (
        lambda: panel.predict(pd.MultiIndex.from_product([["a"], naive])),
        lambda: gp.stream().step(1.0, time=naive[-1]),
        lambda: again.stream().extend([1.0, 2.0], times=naive[-2:]),
        lambda: gp.condition(naive, y),
    ):
        with pytest.raises(ValueError, match="`times` must have a time zone, as in fit"):
            call()
    with pytest.raises(ValueError, match="`times` must have no time zone, as in fit"):
        KalmanRegressor(**known).fit(naive, y).predict(zoned)
    # a collection has its times in UTC, whatever they were
    collection, process = SeriesCollection([y], times=[zoned]), LocalLevel(0.1) + Regression()
    drift = KalmanRegressor(process, noise_variance=0.1, optimizer=None)
    given = drift.fit([pd.DataFrame({0: y}, index=zoned)], [y])
    np.testing.assert_array_equal(given.predict(collection)[0], drift.fit(collection, [y]).predict(collection)[0])
    stream = gp.stream(lag=3.0)
    stream.save(tmp_path / "stream")
    with pytest.raises(ValueError, match="must have a time zone"):
        statespace.load(tmp_path / "stream").step(1.0, time=naive[-1])


@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        ([[0.0], [np.nan]], [1.0, 2.0], "contains NaN"),
        ([[0.0], [np.inf]], [1.0, 2.0], "contains infinity"),
        ([[0.0], [1.0]], [1.0, np.inf], "Input y contains infinity"),
        ([[0.0], [1.0]], [np.nan, np.nan], "NaN only"),
        ([[0.0], [1.0]], [1.0, 2.0, 3.0], "inconsistent numbers of samples"),
        ([[0.0], [1.0]], None, "requires y"),
        (np.zeros((0, 1)), [], "0 sample"),
        (pd.DatetimeIndex([]), [], "0 sample"),
        ([0.0, 1.0], [1.0, 2.0], "Expected 2D array, got 1D array"),
        ([["a"], ["b"]], [1.0, 2.0], "Convert your data to numeric values explicitly"),
        ([["1.5"], ["2.5"]], [1.0, 2.0], "Convert your data to numeric values explicitly"),
        ([[0.0], [1.0]], ["1.5", "2.5"], "Convert your data to numeric values explicitly"),
        ([[0.0], [1.0]], np.array(["2024", "2025"], dtype="datetime64[ns]"), "y must hold numbers"),
        ([[0.0], [1.0]], [1e150, -1e150], "y spreads by 1e[+]150"),
        ([[0.0], [1.0]], [1e-200, 0.0], "y spreads by"),
        ([[0.0], [1e-300]], [1.0, 2.0], "its times by 1e-300 to 1e-300"),
        (pd.DatetimeIndex(["2024-01-01", pd.NaT]), [1.0, 2.0], "must be finite"),
    ],
)
def test_bad_input_is_refused(X, y, words):
    with pytest.raises(ValueError, match=words):
        KalmanRegressor(LocalLevel()).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "fit_parameters", "words"),
    [
        ({"noise_variance": "x"}, {}, "must be 'fit' or a number"),
        ({"noise_variance": -1.0}, {}, "finite and >= 0. Got -1.0"),
        ({}, {"noise_variance": [1.0, 2.0, 3.0]}, "one for each of the 2 rows"),
        ({}, {"noise_variance": [1.0, np.nan]}, "Got nan"),
        ({"process": "x"}, {}, "process must be a component"),
        ({"optimizer": "adam"}, {}, "optimizer must be 'fmin_l_bfgs_b'"),
        ({"noise_variance_bounds": (2.0, 1.0)}, {}, "noise_variance_bounds must be a pair"),
        ({"process": LocalLevel(-1.0)}, {}, "variance of LocalLevel must be a positive"),
    ],
)
def test_bad_parameters_are_refused(parameters, fit_parameters, words):
    with pytest.raises(ValueError, match=words):
        KalmanRegressor(**parameters).fit([[0.0], [1.0]], [1.0, 2.0], **fit_parameters)


def test_covariates_nobody_reads_are_refused():
    X = np.column_stack([np.arange(5.0), np.ones(5)])
    with pytest.raises(ValueError, match=r"no component of LocalLevel\(\) reads them"):
        KalmanRegressor(LocalLevel()).fit(X, np.ones(5))
    gp = KalmanRegressor(LocalLevel()).fit(X[:, :1], np.arange(5.0))
    with pytest.raises(ValueError, match="X has 2 features, but KalmanRegressor is expecting 1 features"):
        gp.predict(X)


def test_predictions_need_a_fit_and_known_noise():
    with pytest.raises(NotFittedError):
        KalmanRegressor().predict([[0.0]])
    gp = KalmanRegressor(LocalLevel()).fit([[0.0], [1.0], [2.0]], [1.0, 2.0, 1.0], noise_variance=[1.0, 2.0, 3.0])
    np.testing.assert_array_equal(gp.noise_variance_, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="needs the noise variance of new samples"):
        gp.predict([[3.0]], return_std=True, include_noise=True)
    with pytest.raises(ValueError, match="At most one of return_std or return_cov"):
        gp.predict([[3.0]], return_std=True, return_cov=True)


@pytest.mark.parametrize("process", [None, LocalLevel(), Matern(), LocalTrend() + Seasonal(12) + Matern()])
@pytest.mark.parametrize("y", [[3.0], [3.0, 3.0, 3.0, 3.0], [0.0, 0.0], [1.0, np.nan, 2.0]])
def test_little_data_works(process, y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        gp = KalmanRegressor(process).fit(np.arange(float(len(y)))[:, None], y)
    mean, std = gp.predict([[0.0], [0.5], [7.0]], return_std=True)
    assert np.isfinite(mean).all()
    assert not np.isnan(std).any()
    if not isinstance(process, Matern):
        assert mean[0] == pytest.approx(y[0], abs=1e-3) or len(set(y)) > 1
    assert np.isfinite(gp.log_marginal_likelihood_value_)


@pytest.mark.parametrize(("process", "y"), [(LocalLevel(), [3.0]), (LocalTrend(), [3.0, np.nan, 4.0])])
def test_samples_that_say_nothing_about_the_parameters_are_not_made_to(process, y):
    """Any variance is as likely as any other: none at all, as a search may end, would be sure of everything."""
    X = np.arange(float(len(y)))[:, None]
    with pytest.warns(ConvergenceWarning, match="too few samples for any parameter to matter"):
        gp = KalmanRegressor(process).fit(X, y)
    given = KalmanRegressor(process, optimizer=None).fit(X, y)
    np.testing.assert_array_equal(gp.theta_, given.theta_)
    mean, std = gp.predict([[0.0], [9.0]], return_std=True)
    assert mean[0] == pytest.approx(3.0)
    assert (std > 0.1).all()
    # two samples of one moment tell the noise
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = KalmanRegressor(LocalTrend()).fit([[0.0], [0.0]], [1.0, 2.0])
    assert both.noise_variance_ == pytest.approx(0.5, rel=1e-4)


def test_a_line_is_found_without_noise():
    t = np.arange(50.0)[:, None]
    gp = KalmanRegressor(LocalTrend()).fit(t, 3.0 + 2.0 * t[:, 0])
    np.testing.assert_allclose(gp.predict(t + 60), 3.0 + 2.0 * (t[:, 0] + 60), rtol=1e-6)


def test_a_search_that_ends_early_warns(monkeypatch):
    monkeypatch.setattr("statespace.kalman.ascent._MOST_EVALUATIONS", 1)
    rng = np.random.default_rng(0)
    y = np.cumsum(rng.normal(size=200)) + rng.normal(size=200)
    with pytest.warns(ConvergenceWarning, match="The maximum of the likelihood was not reached: it took"):
        KalmanRegressor(LocalTrend()).fit(np.arange(200.0)[:, None], y)


def test_an_optimizer_of_ones_own():
    def random_search(objective, theta, bounds):
        assert objective(theta)[1].shape == theta.shape
        rng = np.random.default_rng(0)
        points = [np.clip(theta + rng.normal(size=len(theta)), *bounds.T) for _ in range(300)]
        best = min(points, key=lambda point: objective(point, eval_gradient=False))
        return best, objective(best, eval_gradient=False)

    t, y = times(40)[:, None], np.sin(times(40)) + RNG.normal(size=40)
    best = KalmanRegressor(LocalLevel()).fit(t, y)
    found = KalmanRegressor(LocalLevel(), optimizer=random_search).fit(t, y)
    shortfall = best.log_marginal_likelihood_value_ - found.log_marginal_likelihood_value_
    assert 0 < shortfall < 1.0


def test_restarts_never_lose_and_repeat():
    t, y = times(40)[:, None], RNG.normal(size=40)
    once = KalmanRegressor(Matern() + OrnsteinUhlenbeck()).fit(t, y)
    more = KalmanRegressor(Matern() + OrnsteinUhlenbeck(), n_restarts_optimizer=3, random_state=0).fit(t, y)
    again = KalmanRegressor(Matern() + OrnsteinUhlenbeck(), n_restarts_optimizer=3, random_state=0).fit(t, y)
    assert more.log_marginal_likelihood_value_ >= once.log_marginal_likelihood_value_ - 1e-9
    np.testing.assert_array_equal(more.theta_, again.theta_)


@pytest.mark.parametrize("known", [None, np.linspace(0.1, 1.0, 30)])
@pytest.mark.parametrize("as_datetimes", [False, True])
def test_a_description_restores_it(known, as_datetimes):
    X = pd.DataFrame({"when": times(30), "x": RNG.normal(size=30)})
    if as_datetimes:
        X["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(X["when"], unit="h")
    process = LocalLevel() + Regression("x") + Matern(variance_bounds=(1e-3, 10.0))
    gp = KalmanRegressor(process, time_unit="h", random_state=3).fit(X, RNG.normal(size=30), noise_variance=known)
    state, arrays = gp._export()
    again = KalmanRegressor._import(json.loads(json.dumps(state)), arrays)
    assert again.get_params() == gp.get_params()
    assert again.process_ == gp.process_
    np.testing.assert_array_equal(again.predict(X, return_std=True), gp.predict(X, return_std=True))
    np.testing.assert_array_equal(again.noise_variance_, gp.noise_variance_)
    pd.testing.assert_frame_equal(again.params_, gp.params_)
    step = {"dt": 0.3, "x": [1.0]} if known is None else {"dt": 0.3, "x": [1.0], "noise_variance": 0.2}
    assert again.stream().step(0.5, **step) == gp.stream().step(0.5, **step)
    with pytest.raises(TypeError, match="a file holds processes of"):
        KalmanRegressor(Ramp(), optimizer=None).fit([[0.0], [1.0]], [1.0, 2.0])._export()


def test_it_clones_pickles_and_searches():
    t, y = times(30)[:, None], RNG.normal(size=30)
    gp = KalmanRegressor(LocalLevel() + Matern(nu=0.5))
    search = GridSearchCV(gp, {"process__matern__nu": [0.5, 1.5]}, cv=KFold(2, shuffle=True, random_state=0)).fit(t, y)
    assert search.best_estimator_.process.components[1].nu in (0.5, 1.5)
    assert gp.process == LocalLevel() + Matern(nu=0.5)
    fitted = gp.fit(t, y)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(t), fitted.predict(t))
    assert clone(fitted).process == LocalLevel() + Matern(nu=0.5)
    assert fitted.process_ != fitted.process
    before = pickle.dumps(fitted)
    fitted.predict(t, return_std=True)
    fitted.decompose(t)
    fitted.stream().step(1.0)
    assert pickle.dumps(fitted) == before


@parametrize_with_checks([KalmanRegressor()])
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[0.0, 1.0], [np.nan, 1.0]], r"Input X contains NaN: X\[1, 0\], which is a time, is nan"),
        ([[0.0, np.inf], [1.0, 1.0]], r"Input X contains infinity: X\[0, 1\], which is covariate 0, is inf"),
    ],
)
def test_names_the_entry_that_is_not_finite(X, message):
    with pytest.raises(ValueError, match=message):
        KalmanRegressor().fit(X, [1.0, 2.0])


@pytest.mark.parametrize("optimizer", ["fmin_l_bfgs_b", None])
def test_a_likelihood_that_is_not_finite_is_refused(optimizer):
    gp = KalmanRegressor(LocalLevel(), noise_variance=0.0, optimizer=optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"log-likelihood is -inf.*noise_variance > 0.*fewer harmonics"):
            gp.fit([[0.0], [1.0], [1.0], [2.0]], [0.0, 1.0, 2.0, 1.0])
