"""One step in torch operations, differentiable, on any device."""

import torch

from statespace.kernels.arrays import accepts_numpy


@accepts_numpy
def selective_state_update(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, dt_softplus=False):
    """See :func:`statespace.kernels.selective_state_update`."""
    real = torch.promote_types(x.dtype, torch.float32)
    is_complex = any(m.is_complex() for m in (state, A, B, C))
    kind = torch.promote_types(real, torch.complex64) if is_complex else real
    h, inputs = dt.to(real), x.to(real)
    if dt_bias is not None:
        h = h + dt_bias.to(real)
    if dt_softplus:
        # Beyond torch's own threshold of 20 the logarithm still has 2e-9 to give.
        h = torch.nn.functional.softplus(h, threshold=40)
    B, C = (_spread(m.to(kind), state.ndim, state.shape[1]) for m in (B, C))
    new = torch.exp(h.unsqueeze(-1) * A.to(kind)) * state.to(kind) + B * (h * inputs).unsqueeze(-1)
    y = (C * new).sum(-1)
    y = 2 * y.real if is_complex else y
    if D is not None:
        y = torch.addcmul(y, D.to(real), inputs)
    if z is not None:
        y = y * torch.nn.functional.silu(z.to(real))
    return y.to(x.dtype), new


def _spread(m, ndim, members):
    """(batch, states) or (batch, groups, states) -> what broadcasts with a state for each head or channel."""
    if m.ndim == 2:
        m = m.unsqueeze(1)
    elif m.shape[1] > 1:
        m = m.repeat_interleave(members // m.shape[1], dim=1)
    return m.unsqueeze(2) if ndim == 4 else m
