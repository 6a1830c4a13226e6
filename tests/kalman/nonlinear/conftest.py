"""A linear problem in continuous time and its answer by dense Gaussian conditioning: the oracle of every filter."""

import numpy as np
import pytest
from scipy.linalg import expm

from statespace.kalman.nonlinear import NonlinearModel


class LinearProblem:
    """dx = (A x + B u) dt + L dw, seen through H with correlated noise; gaps short, long and zero; entries missing."""

    A = np.array([[0.0, 1.0, 0.0], [-2.0, -0.3, 0.5], [0.0, 0.0, -1.0]])
    B = np.array([[0.2], [-1.0], [0.7]])
    L = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    Q = np.array([[0.5, 0.1], [0.1, 0.3]])
    H = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.5]])
    R = np.array([[0.1, 0.02], [0.02, 0.2]])
    mean = np.array([1.0, -1.0, 0.5])
    covariance = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.1], [0.0, 0.1, 0.5]])

    def __init__(self, n_times=13, seed=0):
        rng = np.random.default_rng(seed)
        self.times = np.cumsum(rng.exponential(size=n_times) * rng.choice([1e-3, 1.0, 3.0], size=n_times))
        self.times[5] = self.times[4]
        self.y = rng.normal(size=(n_times, 2))
        self.y[rng.random((n_times, 2)) < 0.2] = np.nan
        self.y[7] = np.nan
        self.u = rng.normal(size=(n_times, 1))

    def discrete(self, dt):
        """A(Δ), B(Δ), Q(Δ): a short step by Van Loan's exponential, then doubled."""
        n, doublings = 3, max(0, int(np.ceil(np.log2(max(dt, 1e-12) * 10))))
        h = dt / 2**doublings
        noise = self.L @ self.Q @ self.L.T
        block = expm(h * np.block([[-self.A, noise], [np.zeros((n, n)), self.A.T]]))
        transition = block[n:, n:].T
        covariance = transition @ block[:n, n:]
        held = expm(h * np.block([[self.A, self.B], [np.zeros((1, n + 1))]]))[:n, n:]
        for _ in range(doublings):
            covariance = covariance + transition @ covariance @ transition.T
            held = held + transition @ held
            transition = transition @ transition
        return transition, held, covariance

    def model(self, kind, **options):
        """The same system as matrices, as functions in continuous time, and as functions in discrete time."""
        given = {"initial_mean": self.mean, "initial_covariance": self.covariance, "observation_noise": self.R}
        given |= options
        if kind == "matrix":
            return NonlinearModel(self.H, drift=self.A, diffusion=self.L, spectral_density=self.Q, **given)
        if kind == "continuous":
            return NonlinearModel(
                lambda x: x @ self.H.T, drift=lambda x, u: x @ self.A.T + self.B @ u, diffusion=self.L,
                spectral_density=self.Q, **given,
            )  # fmt: skip
        return NonlinearModel(
            lambda x: x @ self.H.T, transition=self._transition, process_noise=lambda dt: self.discrete(dt)[2], **given
        )

    def _transition(self, x, dt, u):
        transition, held, _ = self.discrete(dt)
        return x @ transition.T + held @ u

    def inputs(self, kind):
        return None if kind == "matrix" else self.u

    def dense(self, with_input=True, n_given=None):
        """The log-likelihood, and mean and covariance of all states given the first samples (all by default)."""
        n, n_times = 3, len(self.y)
        mean, covariance = np.zeros((n_times, n)), np.zeros((n_times * n, n_times * n))
        mean[0], covariance[:n, :n] = self.mean, self.covariance
        for k in range(1, n_times):
            transition, held, noise = self.discrete(self.times[k] - self.times[k - 1])
            if self.times[k] == self.times[k - 1]:
                held = np.zeros_like(held)
            mean[k] = transition @ mean[k - 1] + with_input * held @ self.u[k - 1]
            now, before = slice(k * n, (k + 1) * n), slice((k - 1) * n, k * n)
            covariance[now, : k * n] = transition @ covariance[before, : k * n]
            covariance[: k * n, now] = covariance[now, : k * n].T
            covariance[now, now] = transition @ covariance[before, before] @ transition.T + noise
        rows = np.kron(np.eye(n_times), self.H)
        y = np.array(self.y)
        if n_given is not None:
            y[n_given:] = np.nan
        seen = ~np.isnan(y.ravel())
        total = (rows @ covariance @ rows.T + np.kron(np.eye(n_times), self.R))[np.ix_(seen, seen)]
        error = (y.ravel() - rows @ mean.ravel())[seen]
        solved = np.linalg.solve(total, error)
        likelihood = -0.5 * (error @ solved + np.linalg.slogdet(total)[1] + seen.sum() * np.log(2 * np.pi))
        cross = (rows @ covariance)[seen]
        smoothed = (mean.ravel() + cross.T @ solved).reshape(n_times, n)
        return likelihood, smoothed, covariance - cross.T @ np.linalg.solve(total, cross)


def block(matrix, i, j, n=3):
    return matrix[i * n : (i + 1) * n, j * n : (j + 1) * n]


@pytest.fixture(scope="session")
def linear():
    return LinearProblem()


@pytest.fixture(scope="session")
def blocks():
    """``blocks(matrix, i, j)``: the part of a joint covariance that belongs to samples i and j."""
    return block


def pendulum_drift(x):
    return np.stack([x[..., 1], -9.8 * np.sin(x[..., 0])], axis=-1)


@pytest.fixture(scope="session")
def pendulum():
    """Särkkä's pendulum: continuous time, sin(angle) seen with noise."""
    return NonlinearModel(
        drift=pendulum_drift, diffusion=[[0.0], [1.0]], spectral_density=0.1,
        observation=lambda x: np.sin(x[..., :1]), observation_noise=0.1,
        initial_mean=[1.0, 0.0], initial_covariance=[0.05, 0.05],
    )  # fmt: skip
