"""The scan in torch operations on any device: one step after the other, in chunks that are computed again backwards."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.dplr_scan.step import advance, discretise

CHUNK = 64


@accepts_numpy
def dplr_scan(u, dt, Lambda, P, B, C, initial=None):
    """See :func:`statespace.kernels.dplr_scan`; memory is that of one chunk of states and one state a chunk."""
    batch, H, L = u.shape
    dtype = torch.promote_types(u.dtype, torch.float32)
    complex_dtype = torch.promote_types(dtype, torch.complex64)
    dt = torch.ones(batch, L, dtype=dtype, device=u.device) if dt is None else dt
    state = u.new_zeros(batch, H, Lambda.shape[-1], dtype=complex_dtype) if initial is None else initial
    system = [x.to(complex_dtype) for x in (Lambda, P, B, C)]
    state = state.to(complex_dtype)
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, state, *system))
    outputs = []
    for start in range(0, L, CHUNK):
        window = slice(start, start + CHUNK)
        inputs = u[..., window].to(dtype), dt[:, window].to(dtype), state, *system
        y, state = checkpoint(_chunk, *inputs, use_reentrant=False) if needs_grad else _chunk(*inputs)
        outputs.append(y)
    return torch.cat(outputs, dim=-1).to(u.dtype), state


def _chunk(u, dt, state, Lambda, P, B, C):
    # Time first, so that a step takes whole blocks: (T, batch, H, ...).
    tables = discretise(dt.t()[..., None, None], Lambda, P, B)
    outputs = []
    for u_t, *table in zip(u.permute(2, 0, 1), *tables, strict=True):
        state = advance(u_t, state, *table, P)
        outputs.append(2 * (C * state).real.sum(-1))
    return torch.stack(outputs, dim=-1), state
