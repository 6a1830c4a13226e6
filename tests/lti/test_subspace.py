"""Subspaces of records that are known, and real logarithms."""

import numpy as np
import pytest
from scipy.linalg import expm

from statespace.lti.initialization import continuous, stabilised
from statespace.lti.subspace import METHODS, decompose, predictor, system


def records(noise=0.0, gain=0.0, lengths=(150, 90), seed=0):
    rng = np.random.default_rng(seed)
    A = np.array([[0.8, 0.4, 0.0], [-0.4, 0.8, 0.0], [0.0, 0.1, 0.3]])
    B, C, K = rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), gain * rng.normal(size=(3, 2))
    U, Y = [], []
    for n in lengths:
        x, u, y = rng.normal(size=3), rng.normal(size=(n, 2)), np.empty((n, 2))
        for k in range(n):
            e = noise * rng.normal(size=2)
            y[k] = C @ x + e
            x = A @ x + B @ u[k] + K @ e
        U.append(u), Y.append(y)
    return A, C, K, U, Y


@pytest.mark.parametrize("method", METHODS)
def test_without_noise_the_poles_are_exact(method):
    A, _, _, u, y = records()
    subspace = decompose(u, y, 6, method)
    found, _ = system(subspace, 3)
    poles, expected = np.linalg.eigvals(found), np.linalg.eigvals(A)
    np.testing.assert_allclose(np.sort_complex(poles), np.sort_complex(expected), atol=1e-9)
    assert subspace.singular_values[3] < 1e-7 * subspace.singular_values[0]


@pytest.mark.parametrize("method", METHODS)
def test_the_predictor_finds_gain_and_noise(method):
    A, C, K, u, y = records(noise=0.1, gain=0.3, lengths=(20000,), seed=2)
    subspace = decompose(u, y, 8, method)
    found_A, found_C = system(subspace, 3)
    found_K, covariance, count = predictor(subspace, 3, u, y)
    assert count > 19000
    np.testing.assert_allclose(covariance, 0.01 * np.eye(2), atol=5e-4)
    for power in range(3):  # C Aⁱ K does not depend on the basis
        expected = C @ np.linalg.matrix_power(A, power) @ K
        found = found_C @ np.linalg.matrix_power(found_A, power) @ found_K
        np.testing.assert_allclose(found, expected, atol=0.06)


def test_a_long_record_is_decomposed_part_by_part(monkeypatch):
    _, _, _, u, y = records(noise=0.1)
    whole = decompose(u, y, 5, "cva")
    monkeypatch.setattr("statespace.lti.subspace._ROWS", 17)
    np.testing.assert_allclose(decompose(u, y, 5, "cva").singular_values, whole.singular_values, rtol=1e-9)


def test_a_record_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match=r"horizon=6 needs a record of at least 12 samples, and the longest has 5"):
        decompose([np.ones((5, 1))], [np.ones((5, 1))], 6, "moesp")


def test_the_logarithm_undoes_the_exponential():
    A = np.array([[-0.3, 1.0, 0.0], [-1.0, -0.3, 0.2], [0.0, 0.0, -2.0]])
    np.testing.assert_allclose(continuous(expm(0.7 * A), 0.7), A, atol=1e-12)


@pytest.mark.parametrize(
    "values", [[-0.5, 0.4], [-0.5, -0.2, 0.9], [0.0, 0.5], [-0.5, -0.2, -0.1], [0.3 + 0.4j, 0.3 - 0.4j, -0.9]]
)
def test_there_is_always_a_real_logarithm(values):
    values = np.array(values, complex)
    rng = np.random.default_rng(0)
    A = np.diag(values.real)
    if values.imag.any():
        A[:2, :2] = [[0.3, 0.4], [-0.4, 0.3]]
    T = rng.normal(size=A.shape)
    found = continuous(T @ A @ np.linalg.inv(T), 1.0)
    assert np.isfinite(found).all()
    # What has a logarithm keeps it: its modulus, and for the others its angle too.
    sizes = np.sort(np.abs(np.linalg.eigvals(expm(found))))
    paired = values.imag == 0
    if (values[paired].real < 0).sum() < 2:
        np.testing.assert_allclose(sizes, np.sort(np.maximum(np.abs(values), 1e-4)), rtol=1e-8)


def test_unstable_eigenvalues_are_reflected():
    A = np.diag([0.5, 1.25])
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(stabilised(A))), [0.5, 0.8])
    np.testing.assert_array_equal(stabilised(0.9 * np.eye(2)), 0.9 * np.eye(2))
