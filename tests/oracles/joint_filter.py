"""The Kalman filter for whole vectors of observations, as a plain loop with an inverse: known start only."""

import numpy as np


def joint_filter(y, A, H, Q, R, mean, covariance, c=None, d=None):
    """Predicted and filtered moments, innovations with their covariances, log-likelihood; arrays have a time axis."""
    at = lambda array, t: 0.0 if array is None else array[t] if len(array) > 1 else array[0]  # noqa: E731
    a, P, value, out = mean, covariance, 0.0, []
    for t in range(len(y)):
        if t:
            T = at(A, t - 1)
            a, P = T @ a + at(c, t - 1), T @ P @ T.T + at(Q, t - 1)
        h, seen = at(H, t), ~np.isnan(y[t])
        v, F = y[t] - h @ a - at(d, t), h @ P @ h.T + at(R, t)
        predicted = a, P, v, F
        if seen.any():
            F_seen, M = F[np.ix_(seen, seen)], P @ h[seen].T
            inverse = np.linalg.inv(F_seen)
            value -= 0.5 * (seen.sum() * np.log(2 * np.pi) + np.linalg.slogdet(F_seen)[1] + v[seen] @ inverse @ v[seen])
            a, P = a + M @ inverse @ v[seen], P - M @ inverse @ M.T
        out.append((*predicted, a, P))
    return value, [np.array(column) for column in zip(*out, strict=True)]
