"""The sum as it is written, in complex128, one power at a time."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def vandermonde(c, x, L, *, log_nodes=False, real=False):
    c, x = np.broadcast_arrays(c, np.asarray(x, np.complex128))
    kernel = np.empty((*c.shape[:-1], L), np.complex128)
    for l in range(L):
        kernel[..., l] = np.sum(c * (np.exp(x * l) if log_nodes else x**l), axis=-1)
    return kernel.real.copy() if real else kernel
