"""Systems that grow mode by mode."""

import numpy as np
import pytest

from statespace.lti.growth import Growth
from statespace.lti.parametrization import Parameters
from statespace.lti.prediction import joined
from statespace.lti.prediction_error import OutputError, simulated


def data_of(A, linear=False, discrete=False, n=300):
    rng = np.random.default_rng(0)
    order = len(A)
    B, C = rng.normal(size=(order, 2)), rng.normal(size=(3, order))
    elapsed = np.arange(float(n)) if discrete else np.cumsum(rng.choice([0.3, 1.0, 1.7], n))
    u = rng.normal(size=(n, 2))
    data = joined([u], [np.zeros((n, 3))], [elapsed], 1.0, discrete, linear)
    zero = np.zeros((order, order))
    truth = Parameters(
        A, B, C, np.zeros((3, 2)), np.zeros((order, 3)), np.eye(3), np.zeros(3), np.zeros((1, order)), zero
    )
    return data._replace(y=simulated(truth, data))


def growth(data):
    return Growth(data, feedthrough=False, intercept=True, stable=True, tol=1e-8)


@pytest.mark.parametrize("linear", [False, True])
def test_one_pair_is_found_at_once(linear):
    data = data_of(np.array([[-0.05, 0.8], [-0.8, -0.05]]), linear)
    left = OutputError(data)
    # Before any refinement: what the grid of poles comes near to is explained.
    grown = growth(data)
    first = grown._grown(1)
    grown.found.append(first)
    pair = grown._grown(2)
    # The grid has a pole within 4 % of the rate and half of the damping.
    explained = 1 - (left.residuals(pair) ** 2).sum() / ((data.y - data.y.mean(0)) ** 2).sum()
    assert explained > 0.8


@pytest.mark.parametrize("discrete", [False, True])
def test_a_pole_and_a_pair(discrete):
    A = np.array([[-0.1, 0.9, 0.0], [-0.9, -0.1, 0.0], [0.0, 0.0, -0.3]])
    if discrete:
        A = np.array([[0.5, 0.7, 0.0], [-0.7, 0.5, 0.0], [0.0, 0.0, 0.8]])
    data = data_of(A, discrete=discrete)
    data.y[np.random.default_rng(1).random(data.y.shape) < 0.3] = np.nan
    found = growth(data).of_order(3)
    np.testing.assert_allclose(
        np.sort_complex(np.linalg.eigvals(found.A)), np.sort_complex(np.linalg.eigvals(A)), atol=1e-6
    )
