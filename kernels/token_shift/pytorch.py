"""The mixes in torch operations, on any device."""

import torch

from statespace.kernels.arrays import accepts_numpy


@accepts_numpy
def token_shift(u, mix, register=None):
    """See :func:`statespace.kernels.token_shift`."""
    first = torch.zeros_like(u[:, 0]) if register is None else register.to(u.dtype)
    before = torch.cat([first.unsqueeze(1), u[:, :-1]], dim=1)
    return tuple(torch.lerp(before, u, row) for row in mix.to(u.dtype))
