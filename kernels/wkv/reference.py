"""The recurrence as it is written, in float64, on the mean of the past and the logarithm of its weight."""

import numpy as np

from statespace.kernels.dispatch import refuse_tensors as unusable  # noqa: F401


def wkv(w, u, k, v, state=None, dt=None):
    B, L, D = k.shape
    dt = np.ones((B, L)) if dt is None else dt
    kind = np.result_type(w, u, k, v, dt, np.float64, *([] if state is None else [state]))
    mean, weight = np.zeros((B, D), kind), np.full((B, D), -np.inf, kind)
    if state is not None:
        a, b, o = (state[..., i].astype(kind) for i in range(3))
        known = b != 0
        mean[known], weight[known] = a[known] / b[known], o[known] + np.log(b[known])
    y = np.zeros((B, L, D), kind)
    for t in range(L):
        gap, key, value = dt[:, t, None].astype(kind), k[:, t].astype(kind), v[:, t].astype(kind)
        real = gap.real > 0
        past, now = weight + w * (1 - gap), u + key
        total = _log_of_sum(past, now)
        y[:, t] = np.where(real, np.exp(past - total) * mean + np.exp(now - total) * value, 0)
        past = weight - w * gap
        total = _log_of_sum(past, key)
        mean = np.where(real, np.exp(past - total) * mean + np.exp(key - total) * value, mean)
        weight = np.where(real, total, weight)
    known = weight.real > -np.inf
    return y, np.stack([mean, known.astype(kind), np.where(known, weight, 0)], axis=-1)


def _log_of_sum(x, y):
    """log(e^x + e^y), also where both exponentials overflow."""
    top = np.maximum(x.real, y.real)
    return top + np.log(np.exp(x - top) + np.exp(y - top))
