"""Parameters by maximum likelihood."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from statespace.kalman.nonlinear import ExtendedKalmanFilter, NonlinearModel, UnscentedKalmanFilter, fit


def walk(variance, noise):
    return ExtendedKalmanFilter(
        NonlinearModel(
            np.eye(1), noise, transition=np.eye(1), process_noise=variance, initial_mean=[1100.0],
            initial_covariance=1e5,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def record():
    rng = np.random.default_rng(0)
    level = 1000 + np.cumsum(rng.normal(size=120) * 35)
    return level + rng.normal(size=120) * 120


def test_a_linear_fit_is_the_maximum_of_the_dense_likelihood(record):
    steps = np.arange(len(record))

    def dense(logarithms):
        variance, noise = np.exp(logarithms)
        covariance = 1e5 + variance * np.minimum.outer(steps, steps) + noise * np.eye(len(steps))
        return -multivariate_normal(np.full(len(steps), 1100.0), covariance).logpdf(record)

    best = minimize(dense, np.log([500.0, 5000.0]), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-9})
    result = fit(walk, record, {"variance": 500.0, "noise": 5000.0})
    assert result.converged
    assert result.n_evaluations < 150
    assert abs(result.log_likelihood + best.fun) < 1e-6
    found = [result.parameters["variance"], result.parameters["noise"]]
    np.testing.assert_allclose(found, np.exp(best.x), rtol=2e-3)
    assert result.filter.log_likelihood(record) == result.log_likelihood
    # Standard errors against the curvature of the likelihood in the parameters themselves.
    noise, step = result.parameters["noise"], 20.0

    def along(value):
        return walk(result.parameters["variance"], value).log_likelihood(record)

    curvature = -(along(noise + step) - 2 * along(noise) + along(noise - step)) / step**2
    assert 0.9 < result.standard_errors["noise"] * np.sqrt(curvature) < 1.4


def test_parameters_of_functions_in_continuous_time():
    def build(damping, omega):
        def drift(x):
            return np.stack([x[..., 1], -(omega**2) * np.sin(x[..., 0]) - damping * x[..., 1]], axis=-1)

        model = NonlinearModel(
            lambda x: np.sin(x[..., :1]), 1e-3, drift=drift, diffusion=[[0.0], [1.0]], spectral_density=1e-3,
            initial_mean=[1.2, 0.0], initial_covariance=1e-3,
        )  # fmt: skip
        return UnscentedKalmanFilter(model, substeps=1)

    times = np.cumsum(np.random.default_rng(1).uniform(0.1, 0.3, size=25))
    records = [build(0.3, 2.0).model.simulate(times=times, random_state=i).observations for i in range(2)]
    result = fit(
        build, records, {"damping": (0.2, "real"), "omega": 1.8}, times=[times, times], bounds={"omega": (1.0, None)}
    )
    for name, truth in (("damping", 0.3), ("omega", 2.0)):
        assert abs(result.parameters[name] - truth) < 4 * result.standard_errors[name]
        assert result.standard_errors[name] < 0.1
    together = sum(result.filter.log_likelihood(y, times) for y in records)
    assert np.isclose(result.log_likelihood, together, rtol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "bounds", "message"),
    [
        ({}, None, "must be a dict with the start value"),
        ([1.0, 1.0], None, "must be a dict .* Got list"),
        ({"variance": (-1.0, "positive"), "noise": 1.0}, None, "finite positive number"),
        ({"variance": (1.0, "whole"), "noise": 1.0}, None, "must be one of positive, real, probability"),
        ({"variance": 1.0, "noise": 1.0}, {"noise": (2.0, None)}, "outside its bounds"),
        ({"variance": 1.0, "noise": 1.0}, {"level": (2.0, None)}, "bounds name level"),
    ],
)
def test_what_is_refused(record, parameters, bounds, message):
    with pytest.raises(ValueError, match=message):
        fit(walk, record, parameters, bounds=bounds)
