"""Diagonal scan in torch operations: doubling within chunks, chunks in turn, differentiable, on any device."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy

CHUNK = 64


@accepts_numpy
def diagonal_scan(u, dt, rate, c, initial=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_scan`; memory is that of one chunk of states and one state a chunk."""
    B, H, L = u.shape
    dtype = torch.promote_types(u.dtype, torch.float32)
    complex_dtype = torch.promote_types(dtype, torch.complex64)
    if dt is None:
        dt = torch.ones(B, L, dtype=dtype, device=u.device)
    rate = rate.to(torch.complex128)
    c = c.to(complex_dtype)
    state = initial.to(complex_dtype) if initial is not None else u.new_zeros(B, H, rate.shape[-1], dtype=complex_dtype)
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (u, dt, rate, c, state))
    outputs = []
    for start in range(0, L, CHUNK):
        window = slice(start, start + CHUNK)
        inputs = u[..., window].to(dtype), dt[:, window].to(dtype), rate, c, state, discretization
        if needs_grad:
            y, state = checkpoint(_chunk, *inputs, use_reentrant=False)
        else:
            y, state = _chunk(*inputs)
        outputs.append(y)
    y = torch.cat(outputs, dim=-1)
    if skip is not None:
        y = torch.addcmul(y, skip.unsqueeze(-1).to(dtype), u.to(dtype))
    return y.to(u.dtype), state


def _chunk(u, dt, rate, c, state, discretization):
    z = rate.unsqueeze(-1) * dt[:, None, None, :]  # (B, H, N, T)
    d = torch.special.expm1(z) if discretization == "zoh" else z / (1 - z / 2)
    d = d.to(state.dtype)
    a, x = 1 + d, d * u.unsqueeze(2)
    x = torch.cat([x[..., :1] + (a[..., 0] * state).unsqueeze(-1), x[..., 1:]], dim=-1)
    reach, T = 1, x.shape[-1]
    while reach < T:
        x = torch.cat([x[..., :reach], x[..., reach:] + a[..., reach:] * x[..., :-reach]], dim=-1)
        a = torch.cat([a[..., :reach], a[..., reach:] * a[..., :-reach]], dim=-1)
        reach *= 2
    return torch.einsum("hn,bhnt->bht", c, x).real, x[..., -1]
