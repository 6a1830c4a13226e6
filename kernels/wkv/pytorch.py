"""The weighted average in torch operations on any device: attention within a chunk, chunks in turn."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.wkv.state import EMPTY, given, taken

CHUNK = 32


@accepts_numpy
def wkv(w, u, k, v, state=None, dt=None):
    """See :func:`statespace.kernels.wkv`; memory is that of one chunk of exponents and one state a chunk."""
    B, L, D = k.shape
    given_type = torch.promote_types(k.dtype, v.dtype)
    dtype = torch.promote_types(given_type, torch.float32)
    w, u = w.to(dtype), u.to(dtype)
    if dt is None:
        dt = torch.ones(B, L, dtype=dtype, device=k.device)
    sums = taken(state, B, D, k.new_empty(0, dtype=dtype))
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (w, u, k, v, dt, *sums))
    outputs = []
    for start in range(0, L, CHUNK):
        window = slice(start, start + CHUNK)
        inputs = w, u, k[:, window].to(dtype), v[:, window].to(dtype), dt[:, window].to(dtype), *sums
        if needs_grad:
            y, *sums = checkpoint(_chunk, *inputs, use_reentrant=False)
        else:
            y, *sums = _chunk(*inputs)
        outputs.append(y)
    return torch.cat(outputs, dim=1).to(given_type), given(*sums)


def _chunk(w, u, k, v, dt, a, b, o):
    """y (B, T, D), and the sums behind the chunk from those before it."""
    T = k.shape[1]
    step, source = torch.arange(T, device=k.device)[:, None], torch.arange(T + 1, device=k.device)
    real = (dt > 0).unsqueeze(-1)
    # Padding may hold anything.
    k, v, dt = torch.where(real, k, 0.0), torch.where(real, v, 0.0), torch.where(real[..., 0], dt, 0.0)
    # elapsed[t, i] = Δ_{i+1} + … + Δ_t, a sum of what lies between and no difference of two: a long gap before a burst
    # would leave no digits of it. Column 0 is the time since the state, column i that since sample i.
    elapsed = (dt.unsqueeze(-1) * (step >= source)).cumsum(1)  # (B, T, T + 1)
    keys = torch.cat([o.unsqueeze(1), torch.where(real, k, EMPTY)], dim=1)  # (B, T + 1, D)
    masses = torch.cat([b.unsqueeze(1), torch.ones_like(k)], dim=1)
    values = torch.cat([a.unsqueeze(1), v], dim=1)
    own, later = (source == step + 1).unsqueeze(-1), (source > step + 1).unsqueeze(-1)
    decay = torch.where(later, EMPTY, torch.where(own, u, w * (1 - elapsed.unsqueeze(-1))))  # (B, T, T + 1, D)
    weights, _ = _weights(torch.where(own, k.unsqueeze(2), keys.unsqueeze(1)), decay)
    y = (weights * values.unsqueeze(1)).sum(2) / (weights * masses.unsqueeze(1)).sum(2)
    weights, o = _weights(keys, -w * elapsed[:, -1].unsqueeze(-1))
    # With no sample at all and none before, every exponent is that of nothing, and every weight would be 1.
    weights = torch.where(keys > EMPTY / 2, weights, 0.0)
    return torch.where(real, y, 0.0), (weights * values).sum(1), (weights * masses).sum(1), o


def _weights(keys, decay):
    """exp(keys + decay) on the last axis but one, divided by the largest; and the logarithm of that one."""
    keys, decay = torch.broadcast_tensors(keys, decay)
    with torch.no_grad():
        index = (keys + decay).argmax(-2, keepdim=True)
        key, least = keys.gather(-2, index), decay.gather(-2, index)
    # Large keys meet first: where they are close, and it matters, their difference is exact.
    return torch.exp((keys - key) + (decay - least)), (key + least).squeeze(-2)
