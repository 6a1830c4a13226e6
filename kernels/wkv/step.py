"""One step of the recurrence in torch operations."""

import torch

from statespace.kernels.wkv.state import given, taken


def advance(w, u, k, v, state, gap=None):
    """One sample: k, v (B, D), state (B, D, 3), gap (B, 1) or None for 1; returns y (B, D) and the state behind it.

    A gap of 0 is no padding here: who pads keeps the state before.

    Examples
    --------
    >>> import torch
    >>> from statespace.kernels.wkv.step import advance
    >>> zero = torch.zeros(1, 1)
    >>> y, state = advance(zero[0], zero[0], zero, zero + 2, torch.zeros(1, 1, 3))
    >>> y, state = advance(zero[0], zero[0], zero, zero + 4, state)
    >>> y.tolist(), state.exp().round().tolist()  # the mean of 2 and 4
    ([[3.0]], [[[20.0, 3.0, 2.0]]])
    """
    dtype = torch.promote_types(torch.promote_types(k.dtype, v.dtype), torch.float32)
    mean, weight = taken(state, *k.shape, k.new_empty(0, dtype=dtype))
    past = weight if gap is None else weight + w * (1 - gap)
    y = mean + torch.sigmoid(u + k - past) * (v - mean)
    past = weight - (w if gap is None else w * gap)
    mean = mean + torch.sigmoid(k - past) * (v - mean)
    return y.to(torch.promote_types(k.dtype, v.dtype)), given(mean, torch.logaddexp(past, k.to(dtype)))
