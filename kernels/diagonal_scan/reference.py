"""The recurrence as it is written, in complex128."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def diagonal_scan(u, dt, rate, c, initial=None, skip=None, *, discretization="zoh"):
    B, _, L = u.shape
    dt = np.ones((B, L)) if dt is None else dt
    x = np.zeros((B, *rate.shape), np.complex128) if initial is None else initial.astype(np.complex128)
    y, skip = np.empty(u.shape), 0.0 if skip is None else skip
    for k in range(L):
        z = rate * dt[:, k, None, None].astype(np.float64)
        d = np.expm1(z) if discretization == "zoh" else z / (1 - z / 2)
        x = x + d * (x + u[:, :, k, None])
        y[:, :, k] = np.sum(c * x, axis=-1).real + skip * u[:, :, k]
    return y, x
