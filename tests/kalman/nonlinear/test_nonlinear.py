"""Where functions are not linear: closed moments, dense quadrature, filterpy, and known benchmarks."""

import numpy as np
import pytest

from statespace.kalman.nonlinear import (
    EnsembleKalmanFilter,
    ExtendedKalmanFilter,
    NonlinearModel,
    ParticleFilter,
    UnscentedKalmanFilter,
)


def turn(x, dt):
    """The coordinated turn: position, velocity, rate of turn."""
    px, py, vx, vy, w = np.moveaxis(x, -1, 0)
    near = np.abs(w) < 1e-8
    safe = np.where(near, 1.0, w)
    s = np.where(near, dt, np.sin(w * dt) / safe)
    c = np.where(near, 0.0, (1 - np.cos(w * dt)) / safe)
    cos, sin = np.cos(w * dt), np.sin(w * dt)
    return np.stack([px + s * vx - c * vy, py + c * vx + s * vy, cos * vx - sin * vy, sin * vx + cos * vy, w], axis=-1)


def bearings(x):
    return np.stack([np.arctan2(x[..., 1], x[..., 0]), np.arctan2(x[..., 1] - 30, x[..., 0] - 50)], axis=-1)


def polar(x):
    return np.stack([np.hypot(x[..., 0], x[..., 1]), np.arctan2(x[..., 1], x[..., 0])], axis=-1)


def turning(observation, noise, **options):
    noises = np.zeros((5, 5))
    for i in (0, 1):
        noises[np.ix_([i, i + 2], [i, i + 2])] = 0.1 * np.array([[1 / 3, 1 / 2], [1 / 2, 1.0]])
    noises[4, 4] = 1e-4
    return NonlinearModel(
        observation, noise, transition=turn, process_noise=noises, initial_mean=[30.0, 40.0, 3.0, -1.0, 0.05],
        initial_covariance=[25.0, 25.0, 1.0, 1.0, 0.01], **options,
    )  # fmt: skip


@pytest.mark.parametrize(("alpha", "beta", "kappa"), [(1.0, 2.0, 0.0), (0.3, 2.0, 0.0), (1.0, 0.0, 1.0)])
def test_filterpys_unscented_filter_to_rounding(alpha, beta, kappa):
    peers = pytest.importorskip("filterpy.kalman", reason="filterpy is not installed: nothing to compare with")
    model = turning(polar, [1.0, 1e-3], observation_angles=[1])
    y = model.simulate(40, random_state=1).observations
    result = UnscentedKalmanFilter(model, alpha=alpha, beta=beta, kappa=kappa).filter(y)
    peer = peers.UnscentedKalmanFilter(
        5, 2, 1.0, hx=polar, fx=turn, points=peers.MerweScaledSigmaPoints(5, alpha, beta, kappa)
    )
    peer.x, peer.P = model.initial_mean.copy(), model.initial_covariance.copy()
    peer.Q, peer.R = model.process_noise.root @ model.process_noise.root.T, np.diag([1.0, 1e-3])
    peer.sigmas_f = peer.points_fn.sigma_points(peer.x, peer.P)
    likelihood = 0.0
    for k, y_t in enumerate(y):
        if k:
            peer.predict()
        peer.update(y_t)
        likelihood += peer.log_likelihood
        np.testing.assert_allclose(result.mean[k], peer.x, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(result.covariance[k], peer.P, rtol=1e-6, atol=1e-9)
    assert np.isclose(result.log_likelihood, likelihood, rtol=1e-9)


def test_filterpys_extended_filter_to_rounding():
    peers = pytest.importorskip("filterpy.kalman", reason="filterpy is not installed: nothing to compare with")
    model = turning(polar, [1.0, 1e-3], observation_angles=[1])
    y = model.simulate(40, random_state=2).observations
    result = ExtendedKalmanFilter(model).filter(y)
    peer = peers.ExtendedKalmanFilter(5, 2)
    peer.x, peer.P, peer.R = model.initial_mean.copy(), model.initial_covariance.copy(), np.diag([1.0, 1e-3])
    noise = model.process_noise.root @ model.process_noise.root.T

    def jacobian(function, x):
        return np.stack([np.imag(function(x + 1e-50j * e)) / 1e-50 for e in np.eye(5)], axis=-1)

    def polar_jacobian(x):
        r = np.hypot(x[0], x[1])
        return np.array([[x[0] / r, x[1] / r, 0, 0, 0], [-x[1] / r**2, x[0] / r**2, 0, 0, 0]])

    likelihood = 0.0
    for k, y_t in enumerate(y):
        if k:
            step = jacobian(lambda x: turn(x, 1.0), peer.x)
            peer.x, peer.P = turn(peer.x, 1.0), step @ peer.P @ step.T + noise
        peer.update(y_t, polar_jacobian, polar)
        likelihood += peer.log_likelihood
        np.testing.assert_allclose(result.mean[k], peer.x, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(result.covariance[k], peer.P, rtol=1e-6, atol=1e-8)
    assert np.isclose(result.log_likelihood, likelihood, rtol=1e-9)


def test_the_unscented_transform_of_a_square():
    """x² of N(m, P) in one dimension: mean m² + P, variance 4 m² P + 2 P², for beta 2 at any spread."""
    m, p = 0.7, 0.4
    for alpha in (1.0, 0.5, 1e-2):
        model = NonlinearModel(
            np.eye(1), 1.0, transition=lambda x: x**2, process_noise=0.0, initial_mean=[m], initial_covariance=p
        )
        ukf = UnscentedKalmanFilter(model, alpha=alpha, beta=2.0)
        state = ukf.predict(ukf.initial_state())
        assert np.isclose(state.mean[0], m**2 + p, rtol=1e-9)
        assert np.isclose(state.covariance[0, 0], 4 * m**2 * p + 2 * p**2, rtol=1e-9)
    gauss = UnscentedKalmanFilter(model, points="gauss-hermite", order=3)
    assert np.isclose(gauss.predict(gauss.initial_state()).covariance[0, 0], 4 * m**2 * p + 2 * p**2, rtol=1e-12)


def test_gauss_hermite_of_high_order_is_the_integral():
    model = NonlinearModel(
        np.eye(2), 1.0, transition=lambda x: np.stack([np.sin(x[..., 0]) * x[..., 1], np.exp(x[..., 0])], axis=-1),
        process_noise=0.0, initial_mean=[0.3, 1.0], initial_covariance=[[0.5, 0.2], [0.2, 0.4]],
    )  # fmt: skip
    ukf = UnscentedKalmanFilter(model, points="gauss-hermite", order=20)
    state = ukf.predict(ukf.initial_state())
    # E[sin X · Y] = E[sin X] E[Y] + cov(X, Y) E[cos X] (Stein), E[exp X] = exp(m + P/2).
    damped = np.exp(-0.25)
    assert np.isclose(state.mean[0], damped * np.sin(0.3) + 0.2 * damped * np.cos(0.3), rtol=1e-10)
    assert np.isclose(state.mean[1], np.exp(0.55), rtol=1e-10)
    assert np.isclose(state.covariance[1, 1], np.exp(1.1) * (np.exp(0.5) - 1), rtol=1e-9)


@pytest.mark.parametrize("beta", [-0.1, 0.5])
def test_weights_that_could_break_a_covariance_are_refused(beta):
    model = NonlinearModel(
        np.eye(3), 1.0, drift=lambda x: -x, initial_mean=np.zeros(3), initial_covariance=1.0
    )
    with pytest.raises(ValueError, match="covariances may become negative"):
        UnscentedKalmanFilter(model, alpha=1.0, beta=beta, kappa=-1.5)


def test_covariances_stay_positive_where_plain_ones_fail():
    """Nearly exact observations of a badly scaled chain, ten thousand times more certain than the prior."""
    chain = np.diag(np.ones(3), 1)
    model = NonlinearModel(
        lambda x: np.sin(1e-4 * x[..., :1]) * 1e4, 1e-14, drift=lambda x: x @ chain.T, diffusion=np.eye(4)[:, 3:],
        spectral_density=1e-8, initial_mean=np.zeros(4), initial_covariance=1e8,
    )  # fmt: skip
    times = 1e-2 * np.arange(40)
    for method in (ExtendedKalmanFilter(model, substeps=1), UnscentedKalmanFilter(model, substeps=1)):
        result = method.smooth(np.zeros(40), times)
        for covariance in result.covariance:
            scale = np.sqrt(np.diag(covariance))
            assert (scale > 0).all()
            assert np.linalg.eigvalsh(covariance / np.outer(scale, scale)).min() > -1e-12


def test_iterations_reach_the_posteriors_mode():
    """A precise, curved observation: Gauss–Newton's fixed point is the maximum of the posterior density."""
    from scipy.optimize import minimize

    model = NonlinearModel(
        polar, [1e-3, 1e-4], transition=lambda x: x, process_noise=0.1, initial_mean=[2.0, 0.5],
        initial_covariance=[[1.0, 0.4], [0.4, 2.0]], observation_angles=[1],
    )  # fmt: skip
    y = np.array([1.2, 1.4])

    def negative(x):
        prior = x - model.initial_mean
        error = y - polar(x)
        return prior @ np.linalg.solve(model.initial_covariance, prior) / 2 + error @ (error / [1e-3, 1e-4]) / 2

    mode = minimize(negative, model.initial_mean, tol=1e-14).x
    iterated = ExtendedKalmanFilter(model, iterations=30).step(None, y)
    np.testing.assert_allclose(iterated.mean, mode, atol=1e-5)
    once = ExtendedKalmanFilter(model).step(None, y)
    assert np.abs(once.mean - mode).max() > 0.05
    assert np.isclose(once.log_likelihood, iterated.log_likelihood)


def test_bearings_only_tracking():
    """A turning target seen by two stations as angles: all filters agree, smoothing helps."""
    model = turning(bearings, 1e-4, observation_angles=[0, 1])
    states, y = model.simulate(60, random_state=5)
    y[20:30, 0] = np.nan
    y[40:45] = np.nan
    filters = {
        "extended": ExtendedKalmanFilter(model), "unscented": UnscentedKalmanFilter(model),
        "cubature": UnscentedKalmanFilter(model, points="cubature"),
        "ensemble": EnsembleKalmanFilter(model, n_members=300, random_state=0),
        "particle": ParticleFilter(model, n_particles=2000, n_trajectories=100, random_state=0),
    }  # fmt: skip
    reference = filters["unscented"].smooth(y)
    deviation = np.sqrt(np.einsum("tii->ti", reference.covariance))
    for name, method in filters.items():
        filtered, smoothed = method.filter(y), method.smooth(y)
        errors = [np.sqrt(np.mean((r.mean - states)[5:, :2] ** 2)) for r in (filtered, smoothed)]
        assert errors[1] < 0.9 * errors[0], name
        within = np.abs(smoothed.mean - reference.mean) / deviation
        assert np.median(within) < (0.8 if name == "particle" else 0.3), name


def test_sigma_points_know_their_error_where_tangents_do_not():
    """Normalised squared errors of the position, which should be 2, over records that pass near a station."""
    model = turning(bearings, 1e-4, observation_angles=[0, 1])
    squares = {ExtendedKalmanFilter: [], UnscentedKalmanFilter: []}
    for seed in (1, 2, 4, 5):
        states, y = model.simulate(60, random_state=seed)
        for method, values in squares.items():
            result = method(model).smooth(y)
            error = (result.mean - states)[:, :2]
            values.append(np.einsum("ti,tij,tj->t", error, np.linalg.inv(result.covariance[:, :2, :2]), error).mean())
    assert 1.2 < np.mean(squares[UnscentedKalmanFilter]) < 3.5
    assert np.mean(squares[ExtendedKalmanFilter]) > 10.0


def test_pendulum_errors_are_those_claimed(pendulum):
    """Särkkä's pendulum over several records: normalised squared errors near the number of states."""
    times = np.cumsum(np.random.default_rng(0).exponential(0.05, size=60))
    squares = {"extended": [], "unscented": []}
    for seed in range(4):
        states, y = pendulum.simulate(times=times, random_state=seed)
        for name, method in (
            ("extended", ExtendedKalmanFilter(pendulum, tolerance=1e-6)),
            ("unscented", UnscentedKalmanFilter(pendulum, tolerance=1e-6)),
        ):
            result = method.smooth(y, times)
            error = result.mean - states
            squares[name].append(np.einsum("ti,tij,tj->t", error, np.linalg.inv(result.covariance), error).mean())
    assert 0.6 < np.mean(squares["unscented"]) / 2 < 1.8
    assert 0.6 < np.mean(squares["extended"]) / 2 < 2.5


def test_the_continuous_filter_is_the_limit_of_fine_discrete_steps(pendulum):
    """Steps of 1/400 of the gap by a discrete filter tend to the moment equations' solution, at first order."""
    y = [0.8, 0.3, -0.4]
    for method in (ExtendedKalmanFilter, UnscentedKalmanFilter):
        exact = method(pendulum).smooth(y, [0.0, 0.2, 0.5])
        errors = []
        for h in (0.005, 0.0025):
            def euler(x, h=h):
                return x + h * pendulum.drift(x)

            discrete = NonlinearModel(
                pendulum.observation.function, 0.1, transition=euler, process_noise=[[1e-30, 0], [0, 0.1 * h]],
                initial_mean=pendulum.initial_mean, initial_covariance=pendulum.initial_covariance,
            )  # fmt: skip
            places = [0, round(0.2 / h), round(0.5 / h)]
            filled = np.full(places[-1] + 1, np.nan)
            filled[places] = y
            result = method(discrete).smooth(filled)
            errors.append(np.abs(result.mean[places] - exact.mean).max())
        assert errors[0] < 0.05
        assert 1.6 < errors[0] / errors[1] < 2.4
