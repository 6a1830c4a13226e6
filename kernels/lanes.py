"""Tensors as loops over vectors of channels read them (`vectors.py`): sixteen (record, channel) pairs side by side."""

import torch

from statespace.kernels.vectors import loading

WIDTH = 16
load = loading(WIDTH)


def channels_last(x):
    """(B, H, L) -> (records, L, channels), channels a multiple of the vector: in place where they lie so already.

    Where H is no such multiple, (record, channel) pairs fill vectors of their own, each a record of sixteen channels.
    """
    return x.transpose(1, 2).contiguous() if x.shape[1] % WIDTH == 0 else to_lanes(x)


def channels_back(x, B, H):
    """The inverse of `channels_last`."""
    return x.transpose(1, 2) if H % WIDTH == 0 else from_lanes(x, B, H)


def to_lanes(x):
    """(B, H, m) -> (G, m, lanes), one vector of pairs after the other; the last one is filled up with zeros."""
    B, H, m = x.shape
    if H % WIDTH == 0:
        return x.unflatten(1, (-1, WIDTH)).transpose(2, 3).reshape(-1, m, WIDTH).contiguous()
    rows = torch.nn.functional.pad(x.reshape(B * H, m), (0, 0, 0, -B * H % WIDTH))
    return rows.unflatten(0, (-1, WIDTH)).transpose(1, 2).contiguous()


def from_lanes(x, B, H):
    """(G, m, lanes) -> (B, H, m)."""
    return x.transpose(1, 2).reshape(-1, x.shape[1])[: B * H].view(B, H, -1)


def memory(x):
    """A tensor's memory from its first number to its last, as the compiled loops read it in place with its strides."""
    x = x.detach()
    span = x.numel() and 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((span,), (1,)).numpy()


def flat(x):
    """The numbers of a tensor in order, as the compiled loops take them; None stays None."""
    return None if x is None else x.detach().contiguous().view(-1).numpy()
