"""The weighted average in torch operations on any device: doubling within windows, windows in turn.

A piece of the record is a decay d over it, the mean m of its values and the logarithm of their weight at its end; two
pieces, one after the other, are a piece again:

    d = d₁ + d₂,    e^l = e^{l₁ + d₂} + e^{l₂},    m = m₁ + σ(l₂ - l₁ - d₂) (m₂ - m₁)

The logarithm is kept as a pair (top, rest), the largest key and what decay and company add to it, as in `loops.py`.
"""

import torch
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.wkv.state import NOTHING, given, taken

WINDOW = 128


@accepts_numpy
def wkv(w, u, k, v, state=None, dt=None):
    """See :func:`statespace.kernels.wkv`; memory is that of the pieces of one window, and one state a window."""
    B, L, D = k.shape
    given_type = torch.promote_types(k.dtype, v.dtype)
    dtype = torch.promote_types(given_type, torch.float32)
    w, u = w.to(dtype), u.to(dtype)
    if dt is None:
        dt = torch.ones(B, L, dtype=dtype, device=k.device)
    mean, top = taken(state, B, D, k.new_empty(0, dtype=dtype))
    past = mean, top, torch.zeros_like(top)
    needs_grad = torch.is_grad_enabled() and any(x.requires_grad for x in (w, u, k, v, dt, mean, top))
    outputs = []
    for start in range(0, L, WINDOW):
        window = slice(start, start + WINDOW)
        inputs = w, u, k[:, window].to(dtype), v[:, window].to(dtype), dt[:, window].to(dtype), *past
        if needs_grad:
            y, *past = checkpoint(_window, *inputs, use_reentrant=False)
        else:
            y, *past = _window(*inputs)
        outputs.append(y)
    mean, top, rest = past
    return torch.cat(outputs, dim=1).to(given_type), given(mean, top + rest)


def _window(w, u, k, v, dt, mean, top, rest):
    """y (B, T, D), and mean, top and rest of all behind the window from those before it."""
    real = (dt > 0).unsqueeze(-1)
    # Padding may hold anything.
    k, v, gap = torch.where(real, k, 0.0), torch.where(real, v, 0.0), torch.where(real, dt.unsqueeze(-1), 0.0)
    # The past is a piece like each sample, and stands before them.
    pieces = (
        torch.cat([torch.zeros_like(mean).unsqueeze(1), -w * gap], dim=1),
        torch.cat([mean.unsqueeze(1), v], dim=1),
        torch.cat([top.unsqueeze(1), torch.where(real, k, NOTHING)], dim=1),
        torch.cat([rest.unsqueeze(1), torch.zeros_like(k)], dim=1),
    )
    reach = 1
    while reach < pieces[0].shape[1]:
        joined = _joined([x[:, :-reach] for x in pieces], [x[:, reach:] for x in pieces])
        pieces = tuple(torch.cat([x[:, :reach], new], dim=1) for x, new in zip(pieces, joined, strict=True))
        reach *= 2
    _, mean, top, rest = pieces
    before = [x[:, :-1] for x in (mean, top, rest)]
    share = torch.sigmoid((k - before[1]) + (u - before[2] - w * (1 - gap)))
    y = torch.where(real, before[0] + share * (v - before[0]), 0.0)
    return y, mean[:, -1], top[:, -1], rest[:, -1]


def _joined(first, second):
    (d1, m1, top1, rest1), (d2, m2, top2, rest2) = first, second
    rest1 = rest1 + d2
    # Large keys meet first: where they are close, and it matters, their difference is exact.
    ahead = (top1 - top2) + (rest1 - rest2)
    larger = ahead > 0
    rest = torch.where(larger, rest1 + softplus(-ahead), rest2 + softplus(ahead))
    return d1 + d2, m1 + torch.sigmoid(-ahead) * (m2 - m1), torch.where(larger, top1, top2), rest
