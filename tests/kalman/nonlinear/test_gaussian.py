"""On a linear model every Gaussian filter and smoother is the exact one."""

import numpy as np
import pytest

from statespace.kalman.nonlinear import ExtendedKalmanFilter, FixedLagSmoother, UnscentedKalmanFilter

FILTERS = {
    "extended": ExtendedKalmanFilter,
    "iterated": lambda model: ExtendedKalmanFilter(model, iterations=4),
    "unscented": UnscentedKalmanFilter,
    "kappa": lambda model: UnscentedKalmanFilter(model, alpha=1.0, beta=0.0, kappa=1.0),
    "cubature": lambda model: UnscentedKalmanFilter(model, points="cubature"),
    "gauss-hermite": lambda model: UnscentedKalmanFilter(model, points="gauss-hermite"),
}
KINDS = ("matrix", "continuous", "discrete")


@pytest.fixture(scope="module")
def answers(linear):
    return {kind: linear.dense(with_input=kind != "matrix") for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILTERS)
def test_a_linear_model_is_filtered_and_smoothed_exactly(linear, blocks, answers, kind, name):
    likelihood, mean, covariance = answers[kind]
    result = FILTERS[name](linear.model(kind)).smooth(linear.y, linear.times, linear.inputs(kind))
    assert abs(result.log_likelihood - likelihood) < 1e-9 * abs(likelihood)
    np.testing.assert_allclose(result.mean, mean, rtol=0, atol=1e-9)
    for k in range(len(mean)):
        np.testing.assert_allclose(result.covariance[k], blocks(covariance, k, k), rtol=0, atol=1e-9)
    for k in range(len(mean) - 1):
        np.testing.assert_allclose(result.lag_one_covariance[k], blocks(covariance, k + 1, k), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["extended", "unscented"])
def test_the_filter_knows_the_samples_so_far(linear, blocks, name):
    result = FILTERS[name](linear.model("discrete")).filter(linear.y, linear.times, linear.u)
    for k in (0, 1, 5, 8, len(linear.y) - 1):
        _, mean, covariance = linear.dense(n_given=k + 1)
        np.testing.assert_allclose(result.mean[k], mean[k], atol=1e-10)
        np.testing.assert_allclose(result.covariance[k], blocks(covariance, k, k), atol=1e-10)
        _, mean, covariance = linear.dense(n_given=k)
        np.testing.assert_allclose(result.predicted_mean[k], mean[k], atol=1e-10)
        np.testing.assert_allclose(result.predicted_covariance[k], blocks(covariance, k, k), atol=1e-10)
        expected = linear.H @ blocks(covariance, k, k) @ linear.H.T + linear.R
        np.testing.assert_allclose(result.innovation_covariance[k], expected, atol=1e-10)
        innovation = linear.y[k] - linear.H @ mean[k]
        np.testing.assert_allclose(result.innovation[k], innovation, atol=1e-10)  # NaN where y is


def test_small_alpha_costs_digits_and_not_definiteness(linear, answers):
    likelihood, mean, _ = answers["continuous"]
    result = UnscentedKalmanFilter(linear.model("continuous"), alpha=1e-3).smooth(linear.y, linear.times, linear.u)
    assert abs(result.log_likelihood - likelihood) < 1e-7
    np.testing.assert_allclose(result.mean, mean, atol=1e-7)


def test_fixed_steps_are_those_of_order_four(linear, answers):
    mean = answers["continuous"][1]
    errors = []
    for substeps in (32, 64):
        ekf = ExtendedKalmanFilter(linear.model("continuous"), substeps=substeps)
        errors.append(np.abs(ekf.smooth(linear.y, linear.times, linear.u).mean - mean).max())
    assert 10.0 < errors[0] / errors[1] < 26.0


@pytest.mark.parametrize("name", ["extended", "unscented"])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_filter(linear, kind, name):
    inputs = linear.inputs(kind)
    method = FILTERS[name](linear.model(kind))
    result = method.filter(linear.y, linear.times, inputs)
    state = method.initial_state(linear.times[0])
    for k, y_t in enumerate(linear.y):
        state = method.step(state, y_t, np.diff(linear.times, prepend=0.0)[k], None if inputs is None else inputs[k])
        np.testing.assert_allclose(state.mean, result.mean[k], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(state.covariance, result.covariance[k], rtol=1e-11, atol=1e-13)
    assert np.isclose(state.log_likelihood, result.log_likelihood, rtol=1e-12)


def test_a_step_leaves_the_state_before_it_as_it_was(pendulum):
    ukf = UnscentedKalmanFilter(pendulum)
    first = ukf.step(None, [0.9])
    kept = first.mean.copy(), first.root.copy()
    left, right = ukf.step(first, [0.1], dt=0.3), ukf.step(first, [0.1], dt=0.3)
    assert np.array_equal(left.mean, right.mean)
    assert np.array_equal(kept[0], first.mean)
    assert np.array_equal(kept[1], first.root)


@pytest.mark.parametrize("kind", ["matrix", "continuous"])
def test_a_gap_cut_by_missing_rows_is_the_same_gap(linear, kind):
    inputs = linear.inputs(kind)
    order = np.sort(np.concatenate([linear.times, (linear.times[1:] + linear.times[:-1]) / 2]))
    index, held_by = np.searchsorted(linear.times, order), np.searchsorted(linear.times, order, side="right") - 1
    y = np.full((len(order), 2), np.nan)
    exact = np.isin(order, linear.times)
    y[exact] = linear.y[index[exact]]
    y[np.flatnonzero(order == linear.times[4])] = np.nan  # twice the same time, and the midpoint of the two
    y[np.flatnonzero(order == linear.times[4])[:2]] = linear.y[4:6]
    held = None if inputs is None else inputs[held_by]
    method = ExtendedKalmanFilter(linear.model(kind))
    whole, cut = method.smooth(linear.y, linear.times, inputs), method.smooth(y, order, held)
    assert np.isclose(whole.log_likelihood, cut.log_likelihood, rtol=1e-9)
    np.testing.assert_allclose(cut.mean[np.searchsorted(order, linear.times)], whole.mean, atol=1e-8)


def test_times_far_from_zero_and_datetimes_change_nothing(linear):
    method = UnscentedKalmanFilter(linear.model("matrix", time_unit="h"))
    seconds = np.round(linear.times * 3600)
    plain = method.filter(linear.y, seconds / 3600)
    short = np.round(linear.times * 1024) / 1024  # so that the sum is exact
    far = UnscentedKalmanFilter(linear.model("matrix")).filter(linear.y, short + 2.0**30)
    near = UnscentedKalmanFilter(linear.model("matrix")).filter(linear.y, short)
    clock = method.filter(linear.y, np.datetime64("2024-03-31T00:00:00") + seconds.astype("timedelta64[s]"))
    np.testing.assert_allclose(clock.mean, plain.mean, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(far.mean, near.mean, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_forecasts_are_what_missing_rows_get(linear, kind):
    inputs, n = linear.inputs(kind), 9
    y = linear.y.copy()
    y[n:] = np.nan
    method = ExtendedKalmanFilter(linear.model(kind))
    expected = method.filter(y, linear.times, inputs)
    result = method.forecast(y[:n], times=linear.times[:n], u=inputs, future_times=linear.times[n:])
    np.testing.assert_allclose(result.state_mean, expected.mean[n:], rtol=1e-12)
    np.testing.assert_allclose(result.state_covariance, expected.covariance[n:], rtol=1e-10)
    np.testing.assert_allclose(result.mean, expected.mean[n:] @ linear.H.T, rtol=1e-11)
    np.testing.assert_allclose(result.covariance, expected.innovation_covariance[n:], rtol=1e-10)
    assert result.log_likelihood == expected.log_likelihood


def test_draws_have_the_smoothers_moments(linear, blocks):
    _, mean, covariance = linear.dense(with_input=False)
    method = UnscentedKalmanFilter(linear.model("matrix"))
    drawn = method.sample(y=linear.y, times=linear.times, n_samples=4000, random_state=0)
    draws, observations = drawn
    flat = draws.reshape(len(draws), -1)
    deviation = np.sqrt(np.diag(covariance))
    assert np.abs((flat.mean(axis=0) - mean.ravel()) / deviation).max() < 5.0 / np.sqrt(4000)
    assert np.abs((np.cov(flat.T) - covariance) / np.outer(deviation, deviation)).max() < 6.0 * np.sqrt(2.0 / 4000)
    seen = ~np.isnan(linear.y)
    assert (observations[:, seen] == linear.y[seen]).all()
    noise = (observations - draws @ linear.H.T)[:, ~seen]
    assert np.abs(noise.mean(axis=0)).max() < 5 * np.sqrt(0.2 / 4000)
    np.testing.assert_allclose(noise.var(axis=0), np.diag(linear.R)[np.nonzero(~seen)[1]], rtol=0.15)
    np.testing.assert_allclose(draws[:, 4], draws[:, 5], atol=1e-13)  # two samples of one moment


@pytest.mark.parametrize("name", ["extended", "unscented"])
def test_what_is_known_exactly_stays_so(name):
    """A constant without uncertainty beside a walk, no noise on it: singular covariances all the way."""
    from statespace.kalman.nonlinear import NonlinearModel

    def drift(x):
        return np.stack([np.zeros_like(x[..., 0]), -x[..., 0] * x[..., 1]], axis=-1)

    model = NonlinearModel(
        [[0.0, 1.0]], 0.1, drift=drift, diffusion=[[0.0], [1.0]], initial_mean=[0.5, 2.0],
        initial_covariance=[0.0, 1.0],
    )  # fmt: skip
    plain = NonlinearModel([[1.0]], 0.1, drift=[[-0.5]], initial_mean=[2.0], initial_covariance=1.0)
    y, times = [1.5, np.nan, 0.3, -0.2], [0.0, 0.4, 1.0, 3.0]
    result, expected = (FILTERS[name](m).smooth(y, times) for m in (model, plain))
    np.testing.assert_allclose(result.mean[:, 0], 0.5, rtol=1e-12)
    np.testing.assert_allclose(result.covariance[:, 0], 0.0, atol=1e-14)
    np.testing.assert_allclose(result.mean[:, 1:], expected.mean, atol=1e-8)
    np.testing.assert_allclose(result.covariance[:, 1:, 1:], expected.covariance, atol=1e-8)
    assert abs(result.log_likelihood - expected.log_likelihood) < 1e-8


def test_no_noise_in_the_dynamics():
    """Without process noise the smoother is the trajectory through the smoothed start."""
    from statespace.kalman.nonlinear import NonlinearModel

    model = NonlinearModel(
        [[1.0, 0.0]], 0.1, transition=[[1.0, 1.0], [0.0, 0.9]], process_noise=0.0, initial_mean=[0.0, 1.0],
        initial_covariance=1.0,
    )  # fmt: skip
    result = UnscentedKalmanFilter(model).smooth([0.1, 0.9, 2.1, 2.8, 3.3])
    for k in range(4):
        np.testing.assert_allclose(result.mean[k + 1], [[1.0, 1.0], [0.0, 0.9]] @ result.mean[k], rtol=1e-9)


@pytest.mark.parametrize("lag", [0, 1, 3, 100])
@pytest.mark.parametrize("name", ["extended", "unscented"])
def test_fixed_lag_knows_the_samples_up_to_the_lag(linear, blocks, name, lag):
    smoother = FixedLagSmoother(FILTERS[name](linear.model("matrix")), lag=lag)
    result = smoother.smooth(linear.y, linear.times)
    for k in range(len(linear.y)):
        _, mean, covariance = linear.dense(with_input=False, n_given=min(k + lag, len(linear.y)) + 1)
        np.testing.assert_allclose(result.mean[k], mean[k], atol=1e-9)
        np.testing.assert_allclose(result.covariance[k], blocks(covariance, k, k), atol=1e-9)
