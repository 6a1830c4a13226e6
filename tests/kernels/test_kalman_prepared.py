"""A record and a model that are checked once."""

import numpy as np
import pytest

from statespace.kernels.kalman_filter import Blocks, kalman_gradient, kalman_log_likelihood
from statespace.kernels.kalman_filter.blocks import MATERN32, RANDOM_WALK
from statespace.kernels.kalman_filter.prepared import Prepared

RNG = np.random.default_rng(0)
Y, DT = RNG.normal(size=40), np.r_[0.0, RNG.uniform(0.2, 2.0, 39)]
Y[7] = np.nan
BLOCKS = Blocks([RANDOM_WALK, MATERN32], [1, 2], [[0.5, 0.0], [1.2, 0.7]])
START = np.zeros(3), np.diag([0.0, 0.7, 0.7 * 1.2**2]), np.eye(3)[:, :1]


ONE, TWO = None, np.array([0, 15, 40])


@pytest.mark.parametrize(("backend", "starts"), [("cpu", ONE), ("cpu", TWO), ("reference", TWO)])
def test_it_is_the_functions(backend, starts):
    free = np.array([[True, False, False], [True, True, False]])
    prepared = Prepared(
        Y, DT, BLOCKS, np.ones(3), 0.3, *START, free_parameters=free, starts=starts, backend=backend
    )
    prepared.parameters[:, :2] = [[0.2, 0.0], [0.8, 1.1]]
    prepared.noise_variance[0] = 0.9
    prepared.covariance[1, 1] = 2.0
    blocks = BLOCKS._replace(parameters=[[0.2, 0.0], [0.8, 1.1]])
    covariance = np.diag([0.0, 2.0, 0.7 * 1.2**2])
    given = (Y, DT, blocks, np.ones(3), 0.9, START[0], covariance, START[2])
    expected = kalman_log_likelihood(*given, starts=starts, backend=backend)
    np.testing.assert_allclose(prepared.log_likelihood(), expected, rtol=1e-13)
    padded = blocks._replace(parameters=np.column_stack([blocks.parameters, np.zeros(2)]))
    value, gradient = kalman_gradient(
        Y, DT, padded, *given[3:], free_parameters=free, by_observation=False, starts=starts, backend=backend
    )
    found, own = prepared.gradient()
    np.testing.assert_allclose(found, value, rtol=1e-13)
    np.testing.assert_allclose(own.parameters, gradient.parameters, rtol=1e-12)
    np.testing.assert_allclose(own.covariance, gradient.covariance, rtol=1e-12)
    assert own.noise_variance[0] == pytest.approx(gradient.noise_variance, rel=1e-12)


def test_it_owns_what_may_change():
    parameters, covariance, noise = np.array([[0.5, 0.0, 0.0], [1.2, 0.7, 0.0]]), START[1].copy(), np.full(40, 0.3)
    prepared = Prepared(
        Y, DT, BLOCKS._replace(parameters=parameters), np.ones(3), noise, START[0], covariance, START[2]
    )
    before = prepared.log_likelihood()
    parameters[:], covariance[:], noise[:] = 7.0, 7.0, 7.0
    assert prepared.log_likelihood() == before


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="noise_variance must not be negative"):
        Prepared(Y, DT, BLOCKS, np.ones(3), -1.0, *START)
