"""Selective scan in torch operations: chunks in turn, their parts side by side, differentiable, on any device."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy

CHUNK, PART = 256, 16


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
        # softplus(h). torch's own has a backward pass that the compiler takes for one with other strides.
        h = torch.logaddexp(h, h.new_zeros(()))
    return h if dt is None else h * dt.unsqueeze(-2).to(delta.dtype)


def gated(y, u, D, z):
    """D u added, the gate applied, in the type of y."""
    if D is not None:
        y = torch.addcmul(y, D.to(y.dtype), u)
    return y if z is None else y * torch.nn.functional.silu(z.to(y.dtype))


def _chunk(inputs, h, A, B, C, state):
    """A chunk as parts of a few steps, all of them at once from zero states, then the states between the parts in turn.

    What a part's first state leaves to a later step is exp(A · the steps' sum): one rounding, not one for each step.
    """
    length = h.shape[-1]
    parts = -(-length // PART)
    # Steps within a part first, so that each is a piece of memory; steps of 0 fill the last part up.
    h, inputs = (_in_parts(x, parts) for x in (h, inputs))  # (steps, batch, channels, 1, parts)
    B, C = (_coefficients(x, parts, h.shape[2]) for x in (B, C))  # (steps, batch, channels, states, parts)
    A = A.unsqueeze(-1)
    v, decay = (B * inputs).unbind(0), torch.exp(A * h).unbind(0)
    x = [v[0]]
    for k in range(1, PART):
        x.append(torch.addcmul(v[k], decay[k], x[-1]))
    x, reach = torch.stack(x), torch.exp(A * h.cumsum(0))
    starts = []
    for own, whole in zip(x[-1].unbind(-1), reach[-1].unbind(-1), strict=True):
        starts.append(state)
        state = torch.addcmul(own, whole, state)
    x = torch.addcmul(x, reach, torch.stack(starts, dim=-1))
    y = (C * x).sum(3).permute(1, 2, 3, 0).flatten(2)[..., :length]
    return 2 * y.real if y.is_complex() else y, state


def _in_parts(x, parts):
    """(batch, channels, length) -> (steps, batch, channels, 1, parts)."""
    x = torch.nn.functional.pad(x, (0, parts * PART - x.shape[-1])).unflatten(-1, (parts, PART))
    return x.permute(3, 0, 1, 2).unsqueeze(3).contiguous()


def _coefficients(x, parts, channels):
    """B or C -> what broadcasts with (steps, batch, channels, states, parts)."""
    if x.ndim == 2:
        return x.unsqueeze(-1)
    x = x if x.ndim == 4 else x.unsqueeze(1)
    x = torch.nn.functional.pad(x, (0, parts * PART - x.shape[-1])).unflatten(-1, (parts, PART))
    x = x.permute(4, 0, 1, 2, 3).contiguous()
    return x if x.shape[2] == 1 else x.repeat_interleave(channels // x.shape[2], dim=2)
