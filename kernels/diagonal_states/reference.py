"""The recurrence as it is written, in complex128."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def diagonal_states(v, dt, rate, initial=None, *, discretization="zoh", reverse=False):
    B, L, _, P = v.shape
    dt = np.ones((B, L)) if dt is None else dt
    x = np.zeros((B, P), np.complex128) if initial is None else initial[:, 0] + 1j * initial[:, 1].astype(np.float64)
    states = np.empty(v.shape)
    for k in reversed(range(L)) if reverse else range(L):
        z = rate * dt[:, k, None].astype(np.float64)
        d = np.expm1(z) if discretization == "zoh" else z / (1 - z / 2)
        x = x + d * (x + v[:, k, 0] + 1j * v[:, k, 1].astype(np.float64))
        states[:, k, 0], states[:, k, 1] = x.real, x.imag
    return states
