"""The norm as it is written, in float64."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def rms_norm(x, weight, z=None, *, eps=1e-5, group_size=None):
    v = x.astype(np.float64)
    if z is not None:
        z = z.astype(np.float64)
        v = v * z / (1 + np.exp(-z))
    y, size = np.empty(x.shape), group_size or x.shape[-1]
    for first in range(0, x.shape[-1], size):
        group = v[..., first : first + size]
        mean = np.mean(group**2, axis=-1, keepdims=True)
        y[..., first : first + size] = group / np.sqrt(mean + eps) * weight[first : first + size]
    return y
