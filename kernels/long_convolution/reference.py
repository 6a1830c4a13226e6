"""The sum as it is written, in float64."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def long_convolution(u, k):
    y = np.zeros(u.shape)
    for s in range(min(k.shape[-1], u.shape[-1])):
        y[..., s:] += k[:, s, None] * u[..., : u.shape[-1] - s].astype(np.float64)
    return y
