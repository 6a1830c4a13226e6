"""Systems on which everything here is tried: easy ones, defective, stiff, unstable, many channels."""

import numpy as np
import pytest

from statespace.lti import LinearSystem


def _drawn(n_states, n_inputs, n_outputs, seed):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n_states, n_states))
    A -= (np.linalg.eigvals(A).real.max() + 0.3) * np.eye(n_states)
    shapes = (n_states, n_inputs), (n_outputs, n_states), (n_outputs, n_inputs)
    return LinearSystem(A, *(rng.normal(size=shape) for shape in shapes))


SYSTEMS = {
    "lag": LinearSystem(-0.7, 1.3, 2.0, 0.5),
    "spring": LinearSystem([[0.0, 1.0], [-4.0, -0.1]], [0.0, 1.0], [1.0, 0.0]),
    "double integrator": LinearSystem([[0.0, 1.0], [0.0, 0.0]], [0.0, 1.0], [1.0, 0.0]),
    "defective": LinearSystem(-0.5 * np.eye(4) + np.eye(4, k=1), [0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]),
    "stiff": LinearSystem([[-1e4, 50.0], [0.3, -0.02]], [1.0, 1.0], [1.0, 1.0]),
    "unstable": LinearSystem([[0.05, 1.0], [-1.0, 0.05]], [1.0, 0.0], [0.0, 1.0]),
    "two by three": _drawn(5, 3, 2, seed=1),
    "gain": LinearSystem(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((1, 0)), [[2.0, -1.0]]),
}
STABLE = ["lag", "spring", "defective", "stiff", "two by three"]


@pytest.fixture(params=SYSTEMS)
def system(request):
    """Each system in turn."""
    return SYSTEMS[request.param]


@pytest.fixture(params=STABLE)
def stable(request):
    """Each stable system in turn."""
    return SYSTEMS[request.param]


@pytest.fixture(scope="session")
def systems():
    """All of them by name."""
    return SYSTEMS


@pytest.fixture(scope="session")
def drawn():
    """``drawn(n_states, n_inputs, n_outputs, seed)``: a stable system of random numbers, with a direct term."""
    return _drawn


@pytest.fixture(scope="session")
def irregular():
    """``irregular(n_times)``: times with bursts, repeated gaps, two equal ones and a long gap."""

    def draw(n_times, seed=0):
        rng = np.random.default_rng(seed)
        gaps = 10.0 ** rng.uniform(-4, 0.3, size=n_times)
        gaps[rng.random(n_times) < 0.3] = 0.25
        gaps[n_times // 3] = 0.0
        gaps[2 * n_times // 3] = 30.0
        gaps[0] = 0.0
        return np.cumsum(gaps)

    return draw


@pytest.fixture(scope="session")
def signal():
    """``signal(system, n_times)``: random inputs of shape (n_times, n_inputs)."""
    return lambda system, n_times: np.random.default_rng(0).normal(size=(n_times, system.n_inputs))
