"""The states in torch operations on any device, by the linear scan's doubling within chunks."""

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.linear_scan.pytorch import scan


@accepts_numpy
def diagonal_states(v, dt, rate, initial=None, *, discretization="zoh", reverse=False):
    """See :func:`statespace.kernels.diagonal_states`; without ``dt`` one factor a state serves all steps."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    complex_dtype = torch.promote_types(dtype, torch.complex64)
    v = v.to(dtype)
    v = torch.complex(v[:, :, 0], v[:, :, 1]).transpose(1, 2)  # (B, P, L)
    rate = rate.to(torch.complex128).unsqueeze(-1)
    z = rate if dt is None else rate * dt.unsqueeze(1)
    d = torch.special.expm1(z) if discretization == "zoh" else z / (1 - z / 2)
    # One factor for all steps stays in complex128, a factor for each is rounded.
    a, d = 1 + (d if dt is None else d.to(complex_dtype)), d.to(complex_dtype)
    if initial is not None:
        initial = torch.complex(initial[:, 0], initial[:, 1]).to(complex_dtype)
    x = scan(a, d * v, initial, reverse).transpose(1, 2)
    return torch.stack([x.real, x.imag], dim=2)
