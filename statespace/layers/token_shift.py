"""What RWKV's two halves share: the register of their token shifts, and how they start (Peng et al. 2023).

    x_k = μ ⊙ u_k + (1 - μ) ⊙ u_{k-1}

The sample before is the one before, however long ago it came, as in the shift system of H3 (`shift.py`). A padded step
is no sample. Before the first sample stand zeros.
"""

import math

import torch


def last_sample(u, register, lengths):
    """The register (batch, channels) behind a record.

    Parameters
    ----------
    u : Tensor of shape (batch, length, channels)
        Padded steps at the end.
    register : Tensor of shape (batch, channels) or None
        The last sample before the record; None is zero.
    lengths : Tensor of shape (batch,) or None
        Real steps; None: all.

    Examples
    --------
    >>> import torch
    >>> from statespace.layers.token_shift import last_sample
    >>> last_sample(torch.tensor([[[1.0], [2.0], [0.0]]]), None, torch.tensor([2])).tolist()
    [[2.0]]
    """
    if lengths is None:
        return u[:, -1]
    last = u.gather(1, (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, u.shape[2])).squeeze(1)
    before = torch.zeros_like(last) if register is None else register.to(u.dtype)
    return torch.where(lengths.unsqueeze(1) > 0, last, before)


def check_position(position):
    """Raise a ValueError unless ``position`` is (index, number of layers)."""
    index, count = position if isinstance(position, tuple | list) and len(position) == 2 else (None, None)
    if not (isinstance(index, int) and isinstance(count, int) and 0 <= index < count):
        raise ValueError(
            f"position must be (index, number of layers) with the index counted from 0. Got {position!r} instead."
        )


def starting_mix(channels, position, power=1.0, rise=0.0):
    """The authors' starting values of μ: (i/d)^(power · (1 - l/L)) + rise · l/(L - 1) for layer l of L.

    Examples
    --------
    >>> from statespace.layers.token_shift import starting_mix
    >>> starting_mix(4, (0, 1)).tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    index, count = position
    ratio = torch.arange(channels) / channels
    return ratio ** (power * (1 - index / count)) + rise * index / max(count - 1, 1)


def orthogonal_(weight):
    """Orthogonal rows or columns, longer by √(rows/columns) where there are more rows, as RWKV starts its weights."""
    return torch.nn.init.orthogonal_(weight, gain=math.sqrt(max(1.0, weight.shape[0] / weight.shape[1])))
