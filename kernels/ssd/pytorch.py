"""The dual form in torch operations on any device: matrix products within chunks, states from chunk to chunk."""

import torch
from torch.utils.checkpoint import checkpoint

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.ssd.steps import around

CHUNK = 64
CHUNKS = 16  # are computed again together in the reverse sweep


@accepts_numpy
def ssd(
    x, dt, A, B, C, chunk_size=None, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, *, gap=None, decay=None,
):  # fmt: skip
    """See :func:`statespace.kernels.ssd`."""
    return around(
        _scan, x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, seq_idx, dt_softplus, dt_limit,
        return_final_states, gap, decay,
    )  # fmt: skip


def _scan(x, step, exponent, B, C, D, initial, starts, chunk_size):
    batch, L, H, P = x.shape
    Q = min(chunk_size or CHUNK, L)
    state = x.new_zeros(batch, H, P, B.shape[-1]) if initial is None else initial
    needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (x, step, exponent, B, C, state))
    outputs = []
    for begin in range(0, L, Q * CHUNKS):
        window = slice(begin, begin + Q * CHUNKS)
        inputs = *(a[:, window] for a in (x, step, exponent, B, C)), state
        inputs = *inputs, (None if starts is None else starts[:, window]), Q
        y, state = checkpoint(_chunks, *inputs, use_reentrant=False) if needs_grad else _chunks(*inputs)
        outputs.append(y)
    y = torch.cat(outputs, dim=1)
    return (y if D is None else y + D * x), state


def _chunks(x, step, exponent, B, C, state, starts, Q):
    """Some chunks of a record at once, the last one filled up with steps of 0, which do nothing."""
    T, G = x.shape[1], B.shape[2]
    # Heads before steps, (batch, chunks, groups, heads of a group, Q, ...); one head of all for B and C.
    x, B, C = (_cut(a, Q).transpose(2, 3).unflatten(2, (G, -1)) for a in (x, B, C))
    step, exponent = (_cut(a, Q).transpose(2, 3).unflatten(2, (G, -1)) for a in (step, exponent))
    if starts is not None:
        exponent = exponent.masked_fill(_cut(starts, Q)[:, :, None, None], -torch.inf)
    # Element i, j is the sum of the exponents j+1..i. Summed as such, and not as a difference of two sums from the
    # chunk's beginning, it keeps its digits behind a gap of any size.
    later = torch.ones(Q, Q, dtype=torch.bool, device=x.device).tril(-1)
    between = torch.where(later, exponent.unsqueeze(-1), 0.0).cumsum(-2)
    decay = between.masked_fill(later.mT, -torch.inf).exp()
    written = x * step.unsqueeze(-1)
    y = (C @ B.mT * decay) @ written
    from_start = exponent.cumsum(-1).exp()
    added = (written * decay[..., -1, :].unsqueeze(-1)).mT @ B
    states = []
    state = state.unflatten(1, (G, -1))
    for kept, new in zip(from_start[..., -1].unbind(1), added.unbind(1), strict=True):
        states.append(state)
        state = kept[..., None, None] * state + new
    y = y + (C @ torch.stack(states, dim=1).mT) * from_start.unsqueeze(-1)
    return y.flatten(2, 3).transpose(2, 3).flatten(1, 2)[:, :T], state.flatten(1, 2)


def _cut(a, Q):
    """(batch, T, ...) -> (batch, chunks, Q, ...), zeros at the end."""
    padding = -a.shape[1] % Q
    if padding:
        a = torch.cat([a, a.new_zeros(a.shape[0], padding, *a.shape[2:])], dim=1)
    return a.unflatten(1, (-1, Q))
