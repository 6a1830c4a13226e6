"""Posterior of a linear-Gaussian model from one dense joint Gaussian of all its random numbers; no recursion in time.

ζ = (x₁, w_1 … w_{T−1}, ε_1 … ε_T) ~ N(μ, Ω) and δ flat, y = W δ + M ζ + b. With a flat δ

    log p(y) = −½ (N log 2π + log|Σ| + log|WᵀΣ⁻¹W| + min_δ quadratic form),  Σ = M Ω Mᵀ.
"""

import numpy as np


def _at(array, t):
    return array[t] if len(array) > 1 else array[0]


class DenseGaussian:
    """The system is given as keyword arrays, each with a leading time axis (length 1 if constant)."""

    def __init__(self, y, A, H, Q, R, mean, covariance, diffuse, c=None, d=None, S=None):
        T, p = y.shape
        n = A.shape[1]
        self.shape = T, p, n
        size = n + (T - 1) * n + T * p
        omega = np.zeros((size, size))
        omega[:n, :n] = covariance
        where_w = [slice(n + t * n, n + (t + 1) * n) for t in range(T - 1)]
        where_e = [slice(n + (T - 1) * n + t * p, n + (T - 1) * n + (t + 1) * p) for t in range(T)]
        for t in range(T):
            omega[where_e[t], where_e[t]] = _at(R, t)
            if t < T - 1:
                omega[where_w[t], where_w[t]] = _at(Q, t)
                if S is not None:
                    omega[where_w[t], where_e[t]] = _at(S, t)
                    omega[where_e[t], where_w[t]] = _at(S, t).T
        mu = np.zeros(size)
        mu[:n] = mean
        x, x_delta, x_fixed = np.eye(n, size), diffuse, np.zeros(n)
        states, deltas, fixed, rows, row_deltas, row_fixed = [], [], [], [], [], []
        for t in range(T):
            states.append(x)
            deltas.append(x_delta)
            fixed.append(x_fixed)
            h = _at(H, t)
            noise = np.zeros((p, size))
            noise[:, where_e[t]] = np.eye(p)
            rows.append(h @ x + noise)
            row_deltas.append(h @ x_delta)
            row_fixed.append(h @ x_fixed + (0.0 if d is None else _at(d, t)))
            if t < T - 1:
                push = np.zeros((n, size))
                push[:, where_w[t]] = np.eye(n)
                a = _at(A, t)
                x, x_delta = a @ x + push, a @ x_delta
                x_fixed = a @ x_fixed + (0.0 if c is None else _at(c, t))
        seen = ~np.isnan(y).ravel()
        M, W = np.concatenate(rows)[seen], np.concatenate(row_deltas)[seen]
        values = (y - np.array(row_fixed)).ravel()[seen] - M @ mu
        sigma = M @ omega @ M.T
        inverse = np.linalg.inv(sigma)
        information = W.T @ inverse @ W
        spread = np.linalg.inv(information)
        delta = spread @ W.T @ inverse @ values
        rest = values - W @ delta
        self.log_likelihood = -0.5 * (
            seen.sum() * np.log(2 * np.pi)
            + np.linalg.slogdet(sigma)[1]
            + np.linalg.slogdet(information)[1]
            + rest @ inverse @ rest
        )
        gain = omega @ M.T @ inverse
        across = gain @ W @ spread
        zeta = mu + gain @ rest
        posterior = omega - gain @ M @ omega + gain @ W @ spread @ W.T @ gain.T
        k = diffuse.shape[1]
        self.mean = np.concatenate([delta, zeta])
        self.covariance = np.block([[spread, -across.T], [-across, posterior]])
        self.states = np.concatenate([np.array(deltas), np.array(states)], axis=2)
        self.fixed = np.array(fixed)
        self.outputs = np.concatenate([np.array(row_deltas), np.array(rows)], axis=2)
        self.outputs_fixed = np.array(row_fixed)
        self._w = [slice(k + s.start, k + s.stop) for s in where_w]
        self._e = [slice(k + s.start, k + s.stop) for s in where_e]

    def state(self, t):
        """E[x_t | y] and its covariance."""
        X = self.states[t]
        return X @ self.mean + self.fixed[t], X @ self.covariance @ X.T

    def lag_one(self, t):
        """cov[x_{t+1}, x_t | y]."""
        return self.states[t + 1] @ self.covariance @ self.states[t].T

    def output(self, t):
        """E[y_t | y] with its noise, and its covariance."""
        X = self.outputs[t]
        return X @ self.mean + self.outputs_fixed[t], X @ self.covariance @ X.T

    def state_disturbance(self, t):
        return self.mean[self._w[t]], self.covariance[self._w[t], self._w[t]]

    def observation_disturbance(self, t):
        return self.mean[self._e[t]], self.covariance[self._e[t], self._e[t]]
