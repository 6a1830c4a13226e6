"""Linear scan in torch operations: doubling within chunks, chunks in turn, differentiable, on any device."""

import torch

from statespace.kernels.arrays import accepts_numpy

CHUNK = 256


@accepts_numpy
def linear_scan(a, b, initial=None, reverse=False):
    """See :func:`statespace.kernels.linear_scan`."""
    result = torch.promote_types(a.dtype, b.dtype)
    if initial is not None:
        result = torch.promote_types(result, initial.dtype)
    working = torch.promote_types(result, torch.float32)
    a, b = a.to(working).expand(b.shape), b.to(working)
    x = torch.zeros_like(b[..., 0]) if initial is None else initial.to(working).expand(b.shape[:-1])
    if reverse:
        a, b = a.flip(-1), b.flip(-1)
    chunks = []
    for start in range(0, b.shape[-1], CHUNK):
        states = _chunk(a[..., start : start + CHUNK], b[..., start : start + CHUNK], x)
        x = states[..., -1]
        chunks.append(states)
    states = torch.cat(chunks, dim=-1)
    return (states.flip(-1) if reverse else states).to(result)


def _chunk(a, x, state):
    """Hillis & Steele's scan: after the pass of reach r, x_k holds the last 2r inputs' share of the state."""
    x = torch.cat([x[..., :1] + (a[..., 0] * state).unsqueeze(-1), x[..., 1:]], dim=-1)
    reach = 1
    while reach < x.shape[-1]:
        x = torch.cat([x[..., :reach], x[..., reach:] + a[..., reach:] * x[..., :-reach]], dim=-1)
        a = torch.cat([a[..., :reach], a[..., reach:] * a[..., :-reach]], dim=-1)
        reach *= 2
    return x
