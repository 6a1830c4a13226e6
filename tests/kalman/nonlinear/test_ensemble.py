"""Ensembles against the exact answers of a linear model, within several standard errors of a seeded run."""

import numpy as np
import pytest

from statespace.kalman.nonlinear import EnsembleKalmanFilter, NonlinearModel, UnscentedKalmanFilter

METHODS = ("stochastic", "deterministic")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["matrix", "discrete"])
def test_filter_and_smoother_converge_to_the_exact_ones(linear, blocks, kind, method):
    inputs, n, members = linear.inputs(kind), len(linear.y), 2000
    enkf = EnsembleKalmanFilter(linear.model(kind), n_members=members, method=method, random_state=0)
    likelihood, mean, covariance = linear.dense(with_input=inputs is not None)
    smoothed = enkf.smooth(linear.y, linear.times, inputs)
    deviation = np.sqrt(np.diag(covariance)).reshape(n, 3)
    assert np.abs((smoothed.mean - mean) / deviation).max() < 7.0 / np.sqrt(members)
    assert abs(smoothed.log_likelihood - likelihood) < 0.5
    for k in range(n):
        scaled = (smoothed.covariance[k] - blocks(covariance, k, k)) / np.outer(deviation[k], deviation[k])
        assert np.abs(scaled).max() < 10.0 / np.sqrt(members)
    for k in range(n - 1):
        scaled = smoothed.lag_one_covariance[k] - blocks(covariance, k + 1, k)
        assert np.abs(scaled / np.outer(deviation[k + 1], deviation[k])).max() < 10.0 / np.sqrt(members)
    filtered = enkf.filter(linear.y, linear.times, inputs)
    _, mean, covariance = linear.dense(with_input=inputs is not None, n_given=9)
    deviation = np.sqrt(np.diag(blocks(covariance, 8, 8)))
    assert np.abs((filtered.mean[8] - mean[8]) / deviation).max() < 7.0 / np.sqrt(members)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_falls_with_the_root_of_the_number(linear, method):
    truth = linear.dense(with_input=False, n_given=6)[1][5]
    model = linear.model("matrix")

    def error(members):
        means = [
            EnsembleKalmanFilter(model, n_members=members, method=method, random_state=i)
            .filter(linear.y[:6], linear.times[:6])
            .mean[-1]
            for i in range(60)
        ]
        return np.sqrt(np.mean((np.array(means) - truth) ** 2))

    assert 2.5 < error(100) / error(1600) < 6.5


def test_the_deterministic_update_is_that_of_its_own_moments(linear):
    """Given the members, mean and covariance after the update are exactly Kalman's with their sample moments."""
    model = linear.model("matrix")
    enkf = EnsembleKalmanFilter(model, n_members=8, method="deterministic", random_state=0)
    before = enkf.initial_state()
    after = enkf.update(before, [0.3, np.nan])
    h, r = linear.H[:1], linear.R[:1, :1]
    gain = before.covariance @ h.T / (h @ before.covariance @ h.T + r)
    np.testing.assert_allclose(after.mean, before.mean + gain[:, 0] * (0.3 - h @ before.mean), rtol=1e-12)
    np.testing.assert_allclose(after.covariance, before.covariance - gain @ h @ before.covariance, atol=1e-13)


def test_inflation_and_localization():
    model = NonlinearModel(
        np.eye(3)[:2], 0.5, transition=np.eye(3), process_noise=0.0, initial_mean=np.zeros(3), initial_covariance=1.0
    )
    plain, wide = (EnsembleKalmanFilter(model, n_members=40, inflation=i, random_state=0) for i in (1.0, 1.3))
    start = plain.initial_state()
    np.testing.assert_allclose(wide.predict(start).covariance, 1.69 * plain.predict(start).covariance, rtol=1e-12)
    np.testing.assert_allclose(wide.predict(start).mean, start.mean, atol=1e-14)
    # A taper of ones changes nothing; one of zeros for a state keeps it as it was.
    ones = EnsembleKalmanFilter(model, n_members=40, localization=(np.ones((3, 2)), np.ones((2, 2))), random_state=0)
    taper = np.ones((3, 2))
    taper[2] = 0.0
    far = EnsembleKalmanFilter(model, n_members=40, localization=(taper, np.ones((2, 2))), random_state=0)
    y = [1.0, -1.0]
    np.testing.assert_allclose(ones.update(start, y).ensemble, plain.update(start, y).ensemble, rtol=1e-10)
    np.testing.assert_array_equal(far.update(start, y).ensemble[:, 2], start.ensemble[:, 2])
    with pytest.raises(ValueError, match=r"two arrays of shapes \(3, 2\) and \(2, 2\)"):
        EnsembleKalmanFilter(model, n_members=40, localization=(np.ones((2, 3)), np.ones((2, 2)))).update(start, y)


@pytest.mark.parametrize("method", METHODS)
def test_lorenz_63_is_tracked(method):
    def lorenz(x):
        a, b, c = x[..., 0], x[..., 1], x[..., 2]
        return np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], axis=-1)

    model = NonlinearModel(
        drift=lorenz, spectral_density=0.01, observation=np.eye(3), observation_noise=2.0,
        initial_mean=[1.509, -1.531, 25.46], initial_covariance=2.0,
    )  # fmt: skip
    times = 0.1 * np.arange(80)
    states, y = model.simulate(times=times, random_state=5, max_step=0.005)
    enkf = EnsembleKalmanFilter(model, n_members=40, method=method, inflation=1.02, max_step=0.01, random_state=0)
    filtered, smoothed = enkf.filter(y, times), enkf.smooth(y, times)
    rmse = [np.sqrt(np.mean((mean - states)[10:] ** 2)) for mean in (filtered.mean, smoothed.mean)]
    assert rmse[1] < rmse[0] < 0.6 * np.sqrt(2.0)
    # As good as the unscented filter on the same record, which takes no random numbers.
    unscented = UnscentedKalmanFilter(model, tolerance=1e-6).filter(y, times).mean
    assert rmse[0] < 1.3 * np.sqrt(np.mean((unscented - states)[10:] ** 2))
    members = enkf.sample(y=y, times=times, n_samples=5, random_state=0).state
    assert members.shape == (5, 80, 3)


def test_steps_equal_the_filter(linear):
    enkf = EnsembleKalmanFilter(linear.model("matrix"), n_members=20, random_state=3)
    result = enkf.filter(linear.y, linear.times)
    state = enkf.initial_state(linear.times[0])
    for y_t, dt in zip(linear.y, np.diff(linear.times, prepend=0.0), strict=True):
        state = enkf.step(state, y_t, dt)
    np.testing.assert_allclose(state.mean, result.mean[-1], rtol=1e-9)
    np.testing.assert_array_equal(result.mean, enkf.filter(linear.y, linear.times).mean)
