"""The recurrence as it is written, in complex128."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh"):
    B, _, L = u.shape
    z = rate.astype(np.complex128)
    d = np.expm1(z) if discretization == "zoh" else z / (1 - z / 2)
    x = np.zeros((B, *rate.shape), np.complex128) if initial is None else initial.astype(np.complex128)
    y, end = np.empty(u.shape), x.copy()
    lengths = np.full(B, L) if lengths is None else lengths
    skip = 0.0 if skip is None else skip
    for k in range(L):
        x = x + d * (x + u[:, :, k, None])
        y[:, :, k] = np.sum(c * x, axis=-1).real + skip * u[:, :, k]
        end[lengths == k + 1] = x[lengths == k + 1]
    return y, end
