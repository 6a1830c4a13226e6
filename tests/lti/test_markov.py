"""Realisations of impulse responses."""

import numpy as np
import pytest

from statespace.lti import LinearSystem, era, observer_markov_parameters

GOLDEN = (1 + np.sqrt(5)) / 2


@pytest.mark.parametrize("n", [5, 12, 40])
def test_the_fibonacci_numbers_have_golden_poles(n):
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    found = era(numbers)
    assert found.n_states == 2
    np.testing.assert_allclose(np.sort(found.poles.real), [1 - GOLDEN, GOLDEN], atol=1e-6)
    np.testing.assert_allclose(np.ravel(found.impulse_response(np.arange(n)).output), numbers, rtol=1e-6, atol=1e-6)


def response(system, n):
    powers, A = [system.D], np.eye(system.n_states)
    for _ in range(n - 1):
        powers.append(system.C @ A @ system.B)
        A = system.A @ A
    return np.array(powers)


def several():
    rng = np.random.default_rng(0)
    A = np.diag([0.9, 0.5, -0.4]) + np.diag([0.3, 0.2], 1)
    return LinearSystem(A, rng.normal(size=(3, 2)), rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), dt=0.5)


@pytest.mark.parametrize("blocks", [{}, {"n_rows": 4}, {"n_columns": 3}, {"n_rows": 2, "n_columns": 9}])
def test_several_inputs_and_outputs(blocks):
    system = several()
    found = era(response(system, 24), dt=0.5, **blocks)
    assert found.n_states == 3
    assert found.dt == 0.5
    np.testing.assert_allclose(response(found, 24), response(system, 24), atol=1e-10)
    np.testing.assert_allclose(np.sort(found.poles.real), np.sort(system.poles.real), atol=1e-9)


def test_a_lower_order_keeps_the_strongest_states():
    Y = response(several(), 30)
    noisy = Y + 1e-4 * np.random.default_rng(1).normal(size=Y.shape)
    found = era(noisy, order=3)
    np.testing.assert_allclose(response(found, 30), Y, atol=1e-3)
    assert era(noisy, order=1).n_states == 1


def test_a_two_dimensional_response_has_one_input():
    Y = response(several(), 20)[:, :, 0]
    found = era(Y, order=3)
    assert (found.n_inputs, found.n_outputs) == (1, 2)
    np.testing.assert_allclose(response(found, 20)[:, :, 0], Y, atol=1e-10)


def test_an_observer_gives_the_impulse_response():
    system, rng = several(), np.random.default_rng(0)
    u, x = rng.normal(size=(400, 2)), np.array([1.0, -2.0, 0.5])  # the initial state does not matter
    y = np.empty((400, 2))
    for k in range(400):
        y[k] = system.C @ x + system.D @ u[k]
        x = system.A @ x + system.B @ u[k]
    np.testing.assert_allclose(observer_markov_parameters(u, y, 15), response(system, 15), atol=1e-8)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([1.0, 2.0], {}, "at least 3 samples. Got 2"),
        ([], {}, "must have shape"),
        ([1.0, np.nan, 2.0], {}, "must be finite"),
        ([0, 1, 1, 2, 3], {"order": 0}, "order must be an int between 1 and 2"),
        ([0, 1, 1, 2, 3, 5, 8], {"order": 3}, "order must be at most 2"),
        ([0, 1, 1, 2, 3], {"n_rows": 4, "n_columns": 2}, "at most n_times - 1 = 4. Got 4 .* 2"),
        ([0, 1, 1, 2, 3], {"n_rows": 4}, "n_columns must be an int >= 1"),
        ([0, 1, 1, 2, 3], {"dt": -1.0}, "dt must be"),
    ],
)
def test_wrong_responses(given, options, message):
    with pytest.raises(ValueError, match=message):
        era(given, **options)


def test_wrong_records():
    with pytest.raises(ValueError, match=r"the same number of samples\. Got 5 and 4"):
        observer_markov_parameters(np.ones(5), np.ones(4), 3)
    with pytest.raises(ValueError, match="u must be finite"):
        observer_markov_parameters([1.0, np.inf], [1.0, 2.0], 3)
    with pytest.raises(ValueError, match="Lower n_lags"):
        observer_markov_parameters(np.ones(10), np.ones(10), 3, n_lags=8)
