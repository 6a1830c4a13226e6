"""The exponential and the sigmoid of vectors against NumPy's and SciPy's in float64."""

import numpy as np
import pytest
from numba import njit
from scipy.special import expit

from statespace.kernels.exponential import exp_of_negative, sigmoid
from statespace.kernels.vectors import loading, store

load = loading(16)


@njit(error_model="numpy")
def both(x, exponential, sigma):
    for i in range(0, len(x), 16):
        value = load(x, i)
        store(sigmoid(value), sigma, i)
        store(exp_of_negative(value), exponential, i)


@pytest.mark.parametrize(("dtype", "tolerance", "lowest"), [(np.float32, 3e-7, -87.3), (np.float64, 1e-15, -708.3)])
def test_every_digit_but_the_last(dtype, tolerance, lowest):
    negative = -np.geomspace(1e-8, 1e4, 1584).astype(dtype)
    x = np.concatenate([negative, -negative, np.array([0.0, -0.0, -np.inf, np.inf] * 4, dtype)])
    exponential, sigma = np.empty_like(x), np.empty_like(x)
    both(x, exponential, sigma)
    exact = x.astype(np.float64)
    with np.errstate(under="ignore"):
        np.testing.assert_allclose(sigma, np.where(exact < lowest, 0.0, expit(exact)), rtol=tolerance, atol=0)
        below = exact <= 0
        expected = np.where(exact < dtype(lowest), 0.0, np.exp(np.where(below, exact, 0.0)))
        np.testing.assert_allclose(exponential[below], expected[below], rtol=tolerance, atol=0)
