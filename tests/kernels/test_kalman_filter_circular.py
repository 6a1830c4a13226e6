"""Cosine and sine in polynomials against mpmath, and where rotations use them."""

import mpmath
import numpy as np
import pytest
from numba import njit
from numpy.testing import assert_allclose

from statespace.kernels.kalman_filter import Blocks, kalman_log_likelihood
from statespace.kernels.kalman_filter.blocks import ROTATION, TABLE
from statespace.kernels.kalman_filter.circular import FARTHEST, cosine_and_sine


@njit(error_model="numpy")
def turn(x, cosine, sine):
    for i in range(len(x)):
        cosine[i], sine[i] = cosine_and_sine(x[i])


def test_against_mpmath():
    rng = np.random.default_rng(0)
    x = np.concatenate([
        rng.uniform(-FARTHEST, FARTHEST, 500), rng.uniform(-10.0, 10.0, 500), 10.0 ** rng.uniform(-300, 6, 500),
        0.25 * np.pi * np.arange(-200, 200), [0.0, FARTHEST, -FARTHEST],
    ])  # fmt: skip
    cosine, sine = np.empty_like(x), np.empty_like(x)
    turn(x, cosine, sine)
    with mpmath.workdps(50):
        expected = [(float(mpmath.cos(value)), float(mpmath.sin(value))) for value in x.tolist()]
    assert_allclose(cosine, np.array(expected)[:, 0], rtol=0, atol=2.3e-16)
    assert_allclose(sine, np.array(expected)[:, 1], rtol=0, atol=2.3e-16)
    # a small angle keeps its digits
    small = np.abs(x) < 0.5
    assert_allclose(sine[small], np.array(expected)[small, 1], rtol=4e-16)


@pytest.mark.parametrize("rate", [np.pi, 0.8, 3e5, 1e9])
def test_rotations_equal_their_table(rate):
    """Also by half turns, whose sine is 0, and by angles too far for the polynomials."""
    rng = np.random.default_rng(1)
    T = 300
    y, dt = rng.normal(size=T), np.where(rng.random(T) < 0.5, 1.0, rng.integers(0, 40, size=T) / 8.0)
    c, s = np.cos(rate * dt), np.sin(rate * dt)
    whole = np.abs(s) <= 4.5e-16 * rate * dt
    c, s = np.where(whole, np.copysign(1.0, c), c), np.where(whole, 0.0, s)
    A = np.stack([c, s, -s, c], axis=1)
    Q = 0.2 * dt[:, None] * np.eye(2).ravel()
    still = (0.3, np.zeros(2), np.eye(2))
    ours = kalman_log_likelihood(y, dt, Blocks([ROTATION], [2], [[rate, 0.2]]), [1.0, 0.4], *still)
    table = Blocks([TABLE], [2], np.zeros((1, 2)), A, Q, np.arange(T))
    assert_allclose(ours, kalman_log_likelihood(y, dt, table, [1.0, 0.4], *still), rtol=1e-12)
