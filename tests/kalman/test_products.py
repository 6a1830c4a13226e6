"""Products against dense Gaussian processes with the product of the kernels."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.gaussian_process import kernels

from statespace import KalmanRegressor
from statespace.kalman import CARMA, Cycle, LocalLevel, Matern, OrnsteinUhlenbeck, Product, QuasiPeriodic, Seasonal

RNG = np.random.default_rng(0)
T, Y = np.cumsum(RNG.exponential(size=50)), RNG.normal(size=50)
T_NEW = np.linspace(-2.0, T[-1] + 5.0, 23)


def matern(nu, length_scale, variance=1.0):
    kernel = variance * kernels.Matern(length_scale=length_scale, nu=nu)
    return lambda s, t: kernel(s[:, None], t[:, None])


def cycle(period, damping, variance=1.0):
    def kernel(s, t):
        lag = np.abs(np.subtract.outer(s, t))
        return variance * np.exp(-damping * lag) * np.cos(2 * np.pi * lag / period)

    return kernel


def periodic(period, weights):
    def kernel(s, t):
        lag = np.subtract.outer(s, t)
        return sum(w * np.cos(2 * np.pi * (h + 1) * lag / period) for h, w in enumerate(weights)) / sum(weights)

    return kernel


def carma(process):
    return lambda s, t: process.autocovariance(np.subtract.outer(s, t))


OF_ORDER_TWO = CARMA((1.0, 0.4), (1.0, 0.5), 0.9)
CASES = {
    "seasonal * matern32": (
        QuasiPeriodic(Seasonal(5.0, 3), Matern(1.5, 7.0, 2.0), decay=1.0),
        [periodic(5.0, [1, 1 / 2, 1 / 3]), matern(1.5, 7.0, 2.0)],
    ),
    "seasonal * matern52": (
        QuasiPeriodic(Seasonal(5.0, 2), Matern(2.5, 7.0, 2.0), decay=2.0),
        [periodic(5.0, [1, 1 / 4]), matern(2.5, 7.0, 2.0)],
    ),
    "ou * sine": (OrnsteinUhlenbeck(7.0, 2.0) * Seasonal(5.0, 1), [periodic(5.0, [1]), matern(0.5, 7.0, 2.0)]),
    "cycle * matern": (Cycle(4.0, 0.1, 3.0) * Matern(1.5, 2.0), [cycle(4.0, 0.1, 3.0), matern(1.5, 2.0)]),
    "three": (
        Cycle(4.0, 0.1, 3.0) * OF_ORDER_TWO * OrnsteinUhlenbeck(9.0, 0.5),
        [cycle(4.0, 0.1, 3.0), carma(OF_ORDER_TWO), matern(0.5, 9.0, 0.5)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_a_dense_gaussian_process(case):
    process, factors = CASES[case]

    def kernel(s, t):
        return np.prod([factor(s, t) for factor in factors], axis=0)

    gp = KalmanRegressor(process, noise_variance=0.3, optimizer=None).fit(T[:, None], Y)
    K = kernel(T, T) + 0.3 * np.eye(50)
    value = -0.5 * (Y @ np.linalg.solve(K, Y) + np.linalg.slogdet(K)[1] + 50 * np.log(2 * np.pi))
    assert gp.log_marginal_likelihood_value_ == pytest.approx(value, rel=1e-10)
    mean, std = gp.predict(T_NEW[:, None], return_std=True)
    C = kernel(T, T_NEW)
    np.testing.assert_allclose(mean, C.T @ np.linalg.solve(K, Y), atol=1e-9)
    variance = np.diag(kernel(T_NEW, T_NEW) - C.T @ np.linalg.solve(K, C))
    np.testing.assert_allclose(std**2, variance, atol=1e-9)


def test_noise_over_tiny_gaps_keeps_its_digits():
    process = Cycle(4.0, 0.1, 3.0) * Matern(2.5, 2.0)
    for dt in (1e-6, 1e-3, 1.0):
        whole, half = process.process_noise(dt), process.process_noise(dt / 2)
        A = process.transition(dt / 2)
        scale = np.sqrt(np.diag(whole))
        assert (scale > 0).all()
        # In units of their standard deviations: the least variance is dt⁵ times the greatest.
        twice = A @ half @ A.T + half
        np.testing.assert_allclose(twice / np.outer(scale, scale), whole / np.outer(scale, scale), atol=1e-10)


def test_only_one_variance_is_fitted():
    process = Matern(1.5, 2.0, 3.0) * Cycle(5.0, 0.2) * OrnsteinUhlenbeck(4.0, 2.0)
    names = process.hyperparameters()
    assert [name for name in names if name.endswith("variance")] == ["matern__variance"]
    assert process.initial().covariance[0, 0] == pytest.approx(6.0)
    free = Matern(1.5, 2.0, 3.0) * Cycle(5.0, 0.2, 2.0, variance_bounds=(0.1, 10.0))
    assert "cycle__variance" in free.hyperparameters()
    # In other units only the first is measured in those of y.
    gp = KalmanRegressor(process, noise_variance=0.3, optimizer=None)
    scaled = KalmanRegressor(process.clone_with_theta(process.theta + np.log(1e6) * np.isin(names, "matern__variance")))
    scaled.set_params(noise_variance=0.3e6, optimizer=None)
    difference = gp.fit(T[:, None], Y).log_marginal_likelihood_value_
    difference -= scaled.fit(T[:, None], 1e3 * Y).log_marginal_likelihood_value_
    assert difference == pytest.approx(50 * np.log(1e3), rel=1e-10)


def test_parameters_are_reached_by_name():
    process = Seasonal(5.0, 3) * Matern(1.5, 7.0, 2.0)
    process.set_params(envelope__length_scale=3.0, decay=1.5)
    assert process.envelope.length_scale == process.get_params()["envelope__length_scale"] == 3.0
    assert clone(process) == process
    product = Cycle(5.0, 0.2) * Matern(1.5, 2.0)
    product.set_params(cycle__period=6.0)
    assert product.get_params()["cycle__period"] == product.factors[0].period == 6.0
    assert isinstance(product * OrnsteinUhlenbeck(1.0), Product)
    assert len((product * OrnsteinUhlenbeck(1.0)).factors) == 3
    in_sum = LocalLevel() + process
    assert in_sum.hyperparameters()[1:] == [
        "quasi_periodic__envelope__length_scale", "quasi_periodic__envelope__variance", "quasi_periodic__decay",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LocalLevel() * Matern(), "LocalLevel starts diffuse"),
        (lambda: Seasonal(5.0) * Cycle(), "Seasonal starts diffuse.*Seasonal times Matern or OrnsteinUhlenbeck"),
        (lambda: (Matern() + Cycle()) * Matern(), r"write \(a \+ b\) \* c as a \* c \+ b \* c"),
        (lambda: Seasonal(5.0, variance=0.1) * Matern(), "so it has no variance"),
    ],
)
def test_what_is_not_stationary_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_changing_pattern_is_learned():
    truth = QuasiPeriodic(Seasonal(5.0, 3), Matern(1.5, 30.0, 2.0), decay=2.0)
    t = np.cumsum(np.random.default_rng(1).exponential(scale=0.5, size=400))
    paths = KalmanRegressor(truth, noise_variance=0.02, optimizer=None).fit([[-1e6]], [0.0])
    y = paths.sample_y(t[:, None], random_state=2, include_noise=True)[:, 0]
    gp = KalmanRegressor(Seasonal(5.0, 3) * Matern(1.5)).fit(t[:, None], y)
    at_truth = KalmanRegressor(truth, noise_variance=0.02, optimizer=None).fit(t[:, None], y)
    assert gp.log_marginal_likelihood_value_ >= at_truth.log_marginal_likelihood_value_
    assert 10 < gp.process_.envelope.length_scale < 90
