"""The recurrence as it is written, in float64."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def linear_scan(a, b, initial=None, reverse=False):
    a = np.broadcast_to(a, b.shape)
    x = np.zeros(b.shape[:-1]) if initial is None else np.broadcast_to(initial, b.shape[:-1])
    states = np.empty(b.shape, np.result_type(a, b, x, np.float64))
    steps = range(b.shape[-1])
    for k in reversed(steps) if reverse else steps:
        x = a[..., k] * x + b[..., k]
        states[..., k] = x
    return states
