"""The sum as it is written, in complex128, one pole at a time."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def cauchy(v, z, w, *, conjugate=False):
    v, w = np.broadcast_arrays(v.astype(np.complex128), w)
    k = 0.0
    for n in range(v.shape[-1]):
        k = k + v[..., n, None] / (z - w[..., n, None])
        if conjugate:
            k = k + v[..., n, None].conj() / (z - w[..., n, None].conj())
    return k
