"""The exact log-likelihood and its derivatives by complex steps: a plain loop over dense matrices, nothing shared.

A complex step f(θ + iε) has no difference of near numbers, so that Im f / ε is the derivative to the last digit. Models
are given as they are written down: dx = F x dt + dw with cov(dw) = G dt, y = h·x + noise, an initial covariance, and
columns of diffuse directions.
"""

import numpy as np
from scipy.linalg import expm


def discretize(F, G, gap):
    """A = exp(FΔ) and Q by quadrature on a short step and doubling, in complex arithmetic."""
    doublings = max(0, int(np.ceil(np.log2(max(np.linalg.norm(F) * gap, 1e-300)))) + 2)
    step = gap / 2.0**doublings
    nodes, weights = np.polynomial.legendre.leggauss(12)
    Q = 0.0
    for node, weight in zip(0.5 * step * (nodes + 1), 0.5 * step * weights, strict=True):
        E = expm(F * node)
        Q = Q + weight * E @ G @ E.T
    A = expm(F * step)
    for _ in range(doublings):
        Q, A = Q + A @ Q @ A.T, A @ A
    return A, Q


def log_likelihood(y, gaps, F, G, h, R, P, D):
    """Durbin & Koopman (2012), section 5.2, with P∞ as a matrix; h may have a row for each sample.

    In the place of F a function of the gap may give A and Q.
    """
    n = len(P)
    a, P, P_inf = np.zeros(n, dtype=complex), np.asarray(P, dtype=complex), (D @ D.T).astype(complex)
    left, total = D.shape[1], 0.0
    for t in range(len(y)):
        A, Q = F(gaps[t]) if callable(F) else discretize(F, G, gaps[t])
        a, P, P_inf = A @ a, A @ P @ A.T + Q, A @ P_inf @ A.T
        row = h if np.ndim(h) == 1 else h[t]
        if np.isnan(y[t]):
            continue
        M, M_inf = P @ row, P_inf @ row
        S, S_inf, v = row @ M + R, row @ M_inf, y[t] - row @ a
        if left and abs(S_inf) > 1e-10:
            K = M_inf / S_inf
            a, P = a + K * v, P - np.outer(M, K) - np.outer(K, M) + S * np.outer(K, K)
            left -= 1
            P_inf = P_inf - np.outer(M_inf, K) if left else 0 * P_inf
            total -= 0.5 * (np.log(2 * np.pi) + np.log(S_inf))
        else:
            a, P = a + M * v / S, P - np.outer(M, M) / S
            total -= 0.5 * (np.log(2 * np.pi) + np.log(S) + v * v / S)
    return total


def gradient(model, theta, y, gaps, **options):
    """The derivative of the likelihood of ``model(θ)`` = (F, G, h, R, P, D) by each θ."""
    result = []
    for j in range(len(theta)):
        moved = np.array(theta, dtype=complex)
        moved[j] += 1e-30j
        result.append(log_likelihood(y, gaps, *model(moved, **options)).imag / 1e-30)
    return np.array(result)
