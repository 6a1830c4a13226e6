"""Selective scan in torch operations: doubling within chunks, chunks in turn, differentiable, on any device."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy

CHUNK = 64


@accepts_numpy
def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    *,
    initial_state=None,
    dt=None,
):
    """See :func:`statespace.kernels.selective_scan`; memory is that of one chunk of states and one state a chunk."""
    batch, _, length = u.shape
    real, kind = kinds(u, A, B, C, initial_state)
    h = steps(delta.to(real), delta_bias, delta_softplus, dt)
    x = u.new_zeros(batch, *A.shape, dtype=kind) if initial_state is None else initial_state.to(kind)
    inputs, A, B, C = h * u.to(real), A.to(kind), B.to(kind), C.to(kind)
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (inputs, h, A, B, C, x))
    outputs = []
    for start in range(0, length, CHUNK):
        window = slice(start, start + CHUNK)
        b, c = (m if m.ndim == 2 else m[..., window] for m in (B, C))
        arguments = inputs[..., window], h[..., window], A, b, c, x
        y, x = checkpoint(_chunk, *arguments, use_reentrant=False) if needs_grad else _chunk(*arguments)
        outputs.append(y)
    y = gated(torch.cat(outputs, dim=-1), u.to(real), None if D is None else D.unsqueeze(-1), z).to(u.dtype)
    return (y, x) if return_last_state else y


def kinds(u, *others):
    """The types that steps and states are computed in: u's precision, float32 at least; complex if one of others is."""
    real = torch.promote_types(u.dtype, torch.float32)
    is_complex = any(x is not None and x.is_complex() for x in others)
    return real, torch.promote_types(real, torch.complex64) if is_complex else real


def steps(delta, bias, softplus, dt):
    """h of all samples, in the type of ``delta``."""
    h = delta if bias is None else delta + bias.unsqueeze(-1).to(delta.dtype)
    if softplus:
        # Beyond torch's own threshold of 20 the logarithm still has 2e-9 to give.
        h = torch.nn.functional.softplus(h, threshold=40)
    return h if dt is None else h * dt.unsqueeze(-2).to(delta.dtype)


def gated(y, u, D, z):
    """D u added, the gate applied, in the type of y."""
    if D is not None:
        y = torch.addcmul(y, D.to(y.dtype), u)
    return y if z is None else y * torch.nn.functional.silu(z.to(y.dtype))


def _chunk(inputs, h, A, B, C, state):
    """Hillis & Steele: after the pass of reach r a state holds the last 2r inputs' share. Its decay over them is
    exp(A · their steps' sum), so that roundings of it do not add up as in a product of factors.
    """
    x = _times(B, inputs)  # (batch, channels, states, steps)
    first = x[..., 0] + torch.exp(h[..., :1] * A) * state
    x = torch.cat([first.unsqueeze(-1), x[..., 1:]], dim=-1)
    A, reach, length = A.unsqueeze(-1), 1, x.shape[-1]
    while reach < length:
        decay = torch.exp(A * h[..., reach:].unsqueeze(-2))
        x = torch.cat([x[..., :reach], x[..., reach:] + decay * x[..., :-reach]], dim=-1)
        h = torch.cat([h[..., :reach], h[..., reach:] + h[..., :-reach]], dim=-1)
        reach *= 2
    if C.ndim == 2:
        y = torch.einsum("dn,bdnl->bdl", C, x)
    else:
        C = C if C.ndim == 4 else C.unsqueeze(1)
        y = torch.einsum("bgnl,bgdnl->bgdl", C, x.unflatten(1, (C.shape[1], -1))).flatten(1, 2)
    return 2 * y.real if y.is_complex() else y, x[..., -1]


def _times(B, inputs):
    """B_k times the numbers of each channel, (batch, channels, states, steps)."""
    if B.ndim == 2:
        return B.unsqueeze(-1) * inputs.unsqueeze(2)
    B = B if B.ndim == 4 else B.unsqueeze(1)
    inputs = inputs.unflatten(1, (B.shape[1], -1))
    return (B.unsqueeze(2) * inputs.unsqueeze(3)).flatten(1, 2)
