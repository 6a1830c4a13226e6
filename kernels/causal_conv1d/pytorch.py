"""The convolution by torch's own, or tap by tap where sequences are packed; differentiable, on any device."""

import torch
from torch.nn.functional import conv1d, pad, silu

from statespace.kernels.arrays import accepts_numpy


@accepts_numpy
def causal_conv1d(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, activation=None, *, lengths=None
):
    """See :func:`statespace.kernels.causal_conv1d`."""
    L, reach = x.shape[-1], weight.shape[-1] - 1
    working = torch.promote_types(x.dtype, torch.float32)
    padded = pad(x, (reach, 0)) if initial_states is None else torch.cat([initial_states.to(x.dtype), x], dim=-1)
    padded, weight = padded.to(working), weight.to(working)
    bias = None if bias is None else bias.to(working)
    if seq_idx is None:
        y = conv1d(padded, weight.unsqueeze(1), bias, groups=len(weight))
    else:
        run = pad(runs(seq_idx), (reach, 0))
        y = torch.zeros_like(padded[..., reach:]) if bias is None else bias.unsqueeze(-1)
        for i in range(reach + 1):
            alike = (run[:, i : i + L] == run[:, reach:]).unsqueeze(1)
            y = y + weight[:, i, None] * torch.where(alike, padded[..., i : i + L], 0.0)
    y = (y if activation is None else silu(y)).to(x.dtype)
    return (y, final_states(x, reach, seq_idx, initial_states, lengths)) if return_final_states else y


def runs(seq_idx):
    """Packed sequences (batch, length) counted from zero in each record."""
    return pad(torch.cumsum(seq_idx[:, 1:] != seq_idx[:, :-1], dim=1), (1, 0))


def final_states(x, reach, seq_idx, initial_states, lengths):
    """The last samples of each record's last sequence (batch, channels, reach), zeros before its beginning."""
    L = x.shape[-1]
    dtype = x.dtype if initial_states is None else torch.promote_types(x.dtype, initial_states.dtype)
    if reach == 0:
        return x[..., :0].to(dtype)
    last = torch.full((len(x),), L, device=x.device) if lengths is None else torch.as_tensor(lengths)
    steps = last.unsqueeze(1) + torch.arange(-reach, 0, device=x.device)  # (batch, reach)
    inside = torch.where(steps.unsqueeze(1) >= 0, _taken(x, steps.clamp(min=0)), 0.0).to(dtype)
    if initial_states is None:
        state = inside
    else:
        before = _taken(initial_states, (steps + reach).clamp(max=reach - 1))
        state = torch.where(steps.unsqueeze(1) >= 0, inside, before.to(dtype))
    if seq_idx is None:
        return state
    run = pad(runs(seq_idx), (reach, 0))
    alike = run.gather(1, steps + reach) == run.gather(1, last.unsqueeze(1) + reach - 1)
    return torch.where(alike.unsqueeze(1), state, 0.0)


def _taken(x, steps):
    """x (batch, channels, length) at the steps (batch, n) of each record."""
    return x.gather(2, steps.unsqueeze(1).expand(-1, x.shape[1], -1))
