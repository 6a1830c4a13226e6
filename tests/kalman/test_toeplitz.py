"""The likelihood of a moving average against dense matrices."""

import numpy as np
import pytest
from scipy.linalg import toeplitz

from statespace.kalman.toeplitz import MovingAverage

RNG = np.random.default_rng(0)


def parts_of(k, q):
    psi = RNG.normal(size=(k, q + 1))
    return np.array([[row[: q + 1 - h] @ row[h:] for h in range(q + 1)] for row in psi])


def dense(parts, columns, weights):
    """Value, slope and average information from inverses; the slope by hand, as the derivative of each term."""
    T = columns.shape[1]

    def matrix(g):
        return toeplitz(np.r_[g, np.zeros(T)][:T])

    inverse = np.linalg.inv(matrix(weights @ parts))
    X, y = columns[1:].T, columns[0]
    inner = X.T @ inverse @ X
    P = inverse - inverse @ X @ np.linalg.solve(inner, X.T @ inverse)
    value = np.linalg.slogdet(matrix(weights @ parts))[1] + np.linalg.slogdet(inner)[1] + y @ P @ y
    each = [matrix(part) for part in parts]
    slope = [0.5 * (y @ P @ G @ P @ y - np.trace(P @ G)) for G in each]
    information = [[0.5 * (y @ P @ G @ P @ H @ P @ y) for G in each] for H in each]
    return -0.5 * value, slope, information


@pytest.mark.parametrize(
    ("T", "q", "r"),
    [(1, 0, 0), (1, 3, 0), (2, 0, 1), (7, 3, 0), (7, 3, 3), (7, 12, 1), (60, 1, 0), (60, 1, 3), (97, 13, 3)],
)
def test_value_slope_and_information(T, q, r):
    parts, columns, weights = parts_of(3, q), RNG.normal(size=(1 + r, T)), np.array([0.3, 1.2, 0.5])
    average = MovingAverage(parts, [columns])
    value, slope, information = dense(parts, columns, weights)
    found = average.information(weights)
    assert found[0] == pytest.approx(value, rel=1e-10, abs=1e-10)
    np.testing.assert_allclose(found[1], slope, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found[2], information, rtol=1e-8, atol=1e-9)
    assert average.value(weights) == pytest.approx(found[0], rel=1e-13)


def test_the_arguments_stay():
    parts, columns = parts_of(2, 4), RNG.normal(size=(2, 30))
    before = columns.copy()
    MovingAverage(parts, [columns]).information(np.ones(2))
    np.testing.assert_array_equal(columns, before)


def test_records_add_up():
    parts, weights = parts_of(2, 5), np.array([0.7, 0.1])
    records = [RNG.normal(size=(1, 40)), RNG.normal(size=(2, 25))]
    whole = MovingAverage(parts, records).information(weights)
    each = [MovingAverage(parts, [record]).information(weights) for record in records]
    for found, *expected in zip(whole, *each, strict=True):
        np.testing.assert_allclose(found, sum(expected), rtol=1e-12)


def test_no_covariance_has_no_likelihood():
    average = MovingAverage(np.array([[1.0, 0.9]]), [RNG.normal(size=(1, 50))])
    assert average.value(np.ones(1)) == -np.inf
    assert average.gradient(np.ones(1))[0] == -np.inf


def test_a_long_record_settles():
    """A thousand samples, and an average whose rows stop changing soon, against the innovations one by one."""
    parts, y = np.array([[1.25, 0.5], [1.0, 0.0]]), RNG.normal(size=1000)
    g, before, total, F = np.array([1.35, 0.5]), 0.0, 0.0, 0.0
    gain = 0.0
    for t in range(1000):
        F = g[0] - (gain * g[1] if t else 0.0)
        before = y[t] - (gain * before if t else 0.0)
        total += np.log(F) + before**2 / F
        gain = g[1] / F
    value = MovingAverage(parts, [y[np.newaxis]]).value(np.array([1.0, 0.1]))
    assert value == pytest.approx(-0.5 * total, rel=1e-12)
