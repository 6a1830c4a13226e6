"""The recurrence as it is written, in complex128, with a dense solve in all states, both halves of every pair."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def dplr_scan(u, dt, Lambda, P, B, C, initial=None):
    batch, H, L = u.shape
    pairs = Lambda.shape[1]
    dt = np.ones((batch, L)) if dt is None else dt.astype(np.float64)
    Lambda, P, B, C = (_both_halves(x) for x in (Lambda, P, B, C))
    x = np.zeros((batch, H, 2 * pairs), np.complex128) if initial is None else _both_halves(initial)
    y = np.empty(u.shape)
    identity = np.eye(2 * pairs)
    for h in range(H):
        A = np.diag(Lambda[h]) - P[h].T @ P[h].conj()
        for b in range(batch):
            for k in range(L):
                half = dt[b, k] / 2 * A
                written = (identity + half) @ x[b, h] + dt[b, k] * B[h] * u[b, h, k]
                x[b, h] = np.linalg.solve(identity - half, written)
                y[b, h, k] = (C[h] @ x[b, h]).real
    return y, x[..., :pairs]


def _both_halves(x):
    return np.concatenate([x, x.conj()], axis=-1).astype(np.complex128)
