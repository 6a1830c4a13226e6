"""The norm in torch operations, on any device."""

import torch

from statespace.kernels.arrays import accepts_numpy


@accepts_numpy
def rms_norm(x, weight, z=None, *, eps=1e-5, group_size=None):
    """See :func:`statespace.kernels.rms_norm`."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    v = x.to(dtype)
    if z is not None:
        v = v * torch.nn.functional.silu(z.to(dtype))
    v = v.unflatten(-1, (-1, group_size or x.shape[-1]))
    v = v * torch.rsqrt(v.square().mean(-1, keepdim=True) + eps)
    y = v.flatten(-2) * weight.to(dtype)
    return y.to(x.dtype) if x.is_floating_point() else y
