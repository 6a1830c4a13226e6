"""Fixed-lag smoothing on streams; its exactness is tested with the Gaussian filters."""

import numpy as np
import pytest

from statespace.kalman.nonlinear import ExtendedKalmanFilter, FixedLagSmoother, UnscentedKalmanFilter


def test_steps_equal_smooth_at_the_lag(pendulum):
    times = np.cumsum(np.random.default_rng(0).exponential(0.1, size=25))
    y = pendulum.simulate(times=times, random_state=1).observations
    smoother = FixedLagSmoother(UnscentedKalmanFilter(pendulum, tolerance=1e-6), lag=4)
    whole, state = smoother.smooth(y, times), smoother.initial_state(times[0])
    for k, (y_t, dt) in enumerate(zip(y, np.diff(times, prepend=0.0), strict=True)):
        state = smoother.step(state, y_t, dt)
        assert len(state.times) == min(k + 1, 5)
        if k >= 4:
            assert np.isclose(state.lagged_time, times[k - 4], rtol=1e-12)
            np.testing.assert_allclose(state.mean, whole.mean[k - 4], rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(state.covariance, whole.covariance[k - 4], rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(state.means, whole.mean[-5:], rtol=1e-8, atol=1e-10)
    inner = UnscentedKalmanFilter(pendulum, tolerance=1e-6)
    assert np.isclose(state.log_likelihood, inner.log_likelihood(y, times), rtol=1e-8)
    np.testing.assert_allclose(FixedLagSmoother(inner, lag=30).smooth(y, times).mean, inner.smooth(y, times).mean)


def test_hindsight_helps_the_pendulum(pendulum):
    times = 0.05 * np.arange(120)
    states, y = pendulum.simulate(times=times, random_state=3)
    inner = ExtendedKalmanFilter(pendulum, substeps=2)
    errors = [np.mean((FixedLagSmoother(inner, lag=lag).smooth(y, times).mean - states) ** 2) for lag in (0, 5, 40)]
    assert errors[2] < errors[1] < errors[0]


def test_a_lag_in_time(linear, blocks):
    times, length = linear.times, 1.0
    smoother = FixedLagSmoother(ExtendedKalmanFilter(linear.model("matrix")), lag_time=length)
    result = smoother.smooth(linear.y, times)
    for k in range(len(times)):
        known = int(np.sum(times <= times[k] + length))
        _, mean, covariance = linear.dense(with_input=False, n_given=known)
        np.testing.assert_allclose(result.mean[k], mean[k], atol=1e-10)
        np.testing.assert_allclose(result.covariance[k], blocks(covariance, k, k), atol=1e-10)
    state = smoother.initial_state(times[0])
    for y_t, dt in zip(linear.y, np.diff(times, prepend=0.0), strict=True):
        state = smoother.step(state, y_t, dt)
        assert state.time - state.lagged_time <= length * (1 + 1e-9)


def test_a_lag_as_a_timedelta(linear):
    clock = np.datetime64("2024-01-01") + np.arange(len(linear.y)) * np.timedelta64(6, "h")
    inner = ExtendedKalmanFilter(linear.model("matrix", time_unit="h"))
    by_time = FixedLagSmoother(inner, lag_time=np.timedelta64(12, "h")).smooth(linear.y, clock)
    np.testing.assert_allclose(by_time.mean, FixedLagSmoother(inner, lag=2).smooth(linear.y, clock).mean, rtol=1e-12)


def test_the_window_stays_small(linear):
    smoother = FixedLagSmoother(ExtendedKalmanFilter(linear.model("matrix")), lag=3)
    state = None
    for _ in range(50):
        state = smoother.step(state, [0.1, np.nan], dt=0.1)
    assert len(state.means) == len(state.kernels) == 4
    assert state.n_samples == 50


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "one of lag"), ({"lag": -1}, "whole number >= 0"), ({"lag": 1, "lag_time": 2.0}, "one of lag")],
)
def test_what_is_refused(linear, options, message):
    with pytest.raises(ValueError, match=message):
        FixedLagSmoother(ExtendedKalmanFilter(linear.model("matrix")), **options)
    with pytest.raises(ValueError, match="extended or unscented"):
        FixedLagSmoother("ukf", lag=1)
