"""Moments and paths over gaps from 1e-8 to 1e4, against mpmath's exponential."""

import mpmath
import numpy as np
import pytest

from statespace.kalman.nonlinear import ExtendedKalmanFilter, NonlinearModel, UnscentedKalmanFilter
from statespace.kalman.nonlinear.integration import gaussian_step, moments, random_steps

A = np.array([[0.0, 1.0, 0.0], [-2.0, -0.3, 0.5], [0.0, 0.0, -1.0]])
CHAIN = np.diag(np.ones(3), 1)
NOISE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]])
LAST = np.array([[0.0], [0.0], [0.0], [1.0]])


def exact(matrix, noise, dt):
    """exp(AΔ) and ∫ exp(As) N exp(Aᵀs) ds by Van Loan's exponential with 1,000 digits, where nothing is lost."""
    n = len(matrix)
    with mpmath.workdps(1000 if dt > 10 else 60):
        block = mpmath.zeros(2 * n)
        for i in range(n):
            for j in range(n):
                block[i, j] = -mpmath.mpf(matrix[i, j]) * mpmath.mpf(dt)
                block[n + i, n + j] = mpmath.mpf(matrix[j, i]) * mpmath.mpf(dt)
                block[i, n + j] = mpmath.mpf((noise @ noise.T)[i, j]) * mpmath.mpf(dt)
        result = mpmath.expm(block)
        transition = result[n:, n:].T
        covariance = transition * result[:n, n:]
        return np.array(transition.tolist(), dtype=float), np.array(covariance.tolist(), dtype=float)


def relative(found, expected):
    """Errors relative to the standard deviations, entry by entry."""
    scale = np.sqrt(np.diag(expected))
    return np.abs((found - expected) / np.outer(scale, scale)).max()


@pytest.mark.parametrize("dt", [1e-8, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize(("matrix", "noise"), [(A, NOISE), (CHAIN, LAST)], ids=["oscillator", "chain"])
def test_a_linear_step_is_exact(matrix, noise, dt):
    transition, covariance = exact(matrix, noise, dt)
    found, root = gaussian_step(matrix, noise, dt)
    assert np.abs(found - transition).max() < 1e-13 * np.abs(transition).max()
    assert relative(root @ root.T, covariance) < 1e-12


def test_a_stiff_step_is_exact():
    matrix, noise = np.array([[-1e-3, 1.0], [0.0, -1e4]]), np.eye(2)
    transition, root = gaussian_step(matrix, noise, 1e4)
    # The stationary covariance solves A P + P Aᵀ + N = 0; the slow state is 99.99…% there.
    p22 = 0.5e-4
    p12 = p22 / (1e4 + 1e-3)
    p11 = (1.0 + 2 * p12) / 2e-3 * (1 - np.exp(-20.0))
    assert relative(root @ root.T, np.array([[p11, p12], [p12, p22]])) < 1e-7
    assert np.isclose(transition[0, 0], np.exp(-10.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "dt"),
    [(ExtendedKalmanFilter, dt) for dt in (1e-8, 1e-3, 1.0, 30.0, 1e3)]
    + [(UnscentedKalmanFilter, dt) for dt in (1e-8, 1e-3, 1.0, 30.0)],
)
def test_the_moments_of_a_linear_drift_given_as_a_function(name, dt):
    model = NonlinearModel(
        np.eye(3), 1.0, drift=lambda x: x @ A.T, diffusion=NOISE, drift_jacobian=lambda x: A,
        initial_mean=[1.0, -2.0, 0.5], initial_covariance=[1.0, 2.0, 0.5],
    )  # fmt: skip
    method = name(model)
    transition, noise = exact(A, NOISE, dt)
    state = method.predict(method.initial_state(), dt)
    start = method.initial_state()
    deviation = np.sqrt(np.diag(transition @ start.covariance @ transition.T + noise))
    assert np.abs((state.mean - transition @ start.mean) / (np.abs(transition @ start.mean) + deviation)).max() < 1e-9
    assert relative(state.covariance, transition @ start.covariance @ transition.T + noise) < 1e-9
    sure = start._replace(root=np.zeros((3, 3)))
    assert relative(method.predict(sure, dt).covariance, noise) < 1e-9


def test_noise_of_a_chain_over_a_tiny_gap_is_positive_definite():
    model = NonlinearModel(
        np.eye(4)[:1], 1.0, drift=lambda x: x @ CHAIN.T, diffusion=LAST, initial_mean=np.zeros(4),
        initial_covariance=0.0,
    )  # fmt: skip
    _, noise = exact(CHAIN, LAST, 1e-3)
    for method in (ExtendedKalmanFilter(model), UnscentedKalmanFilter(model)):
        assert relative(method.predict(method.initial_state(), 1e-3).covariance, noise) < 1e-9


def test_tolerance_bounds_the_error_of_a_nonlinear_mean():
    """dx = x(1 − x) dt has a closed solution; without uncertainty the mean is it."""
    model = NonlinearModel(
        np.eye(1), 1.0, drift=lambda x: x * (1 - x), diffusion=np.zeros((1, 1)), initial_mean=[0.01],
        initial_covariance=0.0,
    )  # fmt: skip
    for dt in (1e-6, 3.0, 200.0):
        solution = 1 / (1 + 99 * np.exp(-dt))
        for method in (ExtendedKalmanFilter(model), UnscentedKalmanFilter(model)):
            assert abs(method.predict(method.initial_state(), dt).mean[0] - solution) < 1e-8 * solution


def test_a_drift_that_explodes_is_an_error():
    model = NonlinearModel(np.eye(1), 1.0, drift=lambda x: x**2, initial_mean=[1.0], initial_covariance=0.01)
    with pytest.raises(ValueError, match="could not be integrated over a gap of 2"):
        ExtendedKalmanFilter(model).predict(ExtendedKalmanFilter(model).initial_state(), 2.0)


def test_time_varying_drifts_and_diffusions():
    """dx = cos(t) dt + t dw: mean sin t, variance t³/3; the period of the gaps hides nothing."""
    model = NonlinearModel(
        np.eye(1), 1.0, drift=lambda x, t: np.cos(t) + 0 * x, diffusion=lambda t: np.array([[t]]), initial_mean=[0.0],
        initial_covariance=0.0,
    )  # fmt: skip
    for method in (ExtendedKalmanFilter(model), UnscentedKalmanFilter(model)):
        state = method.initial_state()
        for _ in range(3):
            state = method.predict(state, 2 * np.pi)
        assert abs(state.mean[0]) < 1e-7
        assert np.isclose(state.covariance[0, 0], (6 * np.pi) ** 3 / 3, rtol=1e-9)


def test_noise_that_depends_on_the_state():
    """Geometric Brownian motion: the unscented moments of x² noise are those of the process itself."""
    drift, volatility, dt = 0.05, 0.2, 1.0
    model = NonlinearModel(
        np.eye(1), 1.0, drift=lambda x: drift * x, diffusion=lambda x: volatility * x[..., None], initial_mean=[2.0],
        initial_covariance=0.3,
    )  # fmt: skip
    method = UnscentedKalmanFilter(model)
    state = method.predict(method.initial_state(), dt)
    second = (2.0**2 + 0.3) * np.exp((2 * drift + volatility**2) * dt)
    mean = 2.0 * np.exp(drift * dt)
    assert np.isclose(state.mean[0], mean, rtol=1e-9)
    assert np.isclose(state.covariance[0, 0], second - mean**2, rtol=1e-8)
    rng = np.random.default_rng(0)
    start = 2.0 + np.sqrt(0.3) * rng.standard_normal((100_000, 1))
    paths = random_steps(model, start, 0.0, dt, None, rng, max_step=0.02)
    assert abs(paths.mean() - mean) < 5 * np.sqrt((second - mean**2) / 1e5)
    assert abs(paths.var() - (second - mean**2)) < 0.02 * (second - mean**2)


def test_paths_converge_with_strong_order_three_halves():
    """The same Brownian path, refined: dx = −sin(3x) dt + dw, Richardson against the finest."""
    from statespace.kalman.nonlinear import integration

    class Replay:
        """Hands out I1 and I10 of coarse steps made from fine ones."""

        def __init__(self, first, second, h):
            self.draws = iter([v for pair in zip(first, second, strict=True) for v in pair])
            self.h = h

        def standard_normal(self, shape):
            return next(self.draws).reshape(shape)

    rng, fine, many = np.random.default_rng(3), 256, 200
    h = 1.0 / fine
    first = np.sqrt(h) * rng.standard_normal((fine, many, 1))
    area = h / 2 * (first + np.sqrt(h / 3) * rng.standard_normal(first.shape))
    model = NonlinearModel(
        np.eye(1), 1.0, drift=lambda x: -np.sin(3 * x), initial_mean=[0.0], initial_covariance=1.0
    )
    ends, start = {}, rng.standard_normal((many, 1))
    while len(first) >= 16:
        h = 1.0 / len(first)
        normal = first / np.sqrt(h)
        other = (2 * area / h - first) / np.sqrt(h / 3)
        ends[len(first)] = integration.random_steps(model, start, 0.0, 1.0, None, Replay(normal, other, h), max_step=h)
        area = area[0::2] + area[1::2] + h * first[0::2]
        first = first[0::2] + first[1::2]
    errors = [np.sqrt(np.mean((ends[n] - ends[256]) ** 2)) for n in (16, 32, 64)]
    rates = np.log2(np.divide(errors[:-1], errors[1:]))
    assert (rates > 1.35).all(), rates


def test_a_step_without_gap_or_noise():
    mean, deviations, noise = moments(
        lambda s, m, d, w: (-m, np.concatenate([-d, -w], axis=1), np.zeros((1, 1))), np.ones(1), np.eye(1), 0.5, 1e-10
    )
    assert np.isclose(mean[0], np.exp(-0.5), rtol=1e-10)
    assert np.isclose(deviations[0, 0], np.exp(-0.5), rtol=1e-10)
    assert noise[0, 0] == 0.0
