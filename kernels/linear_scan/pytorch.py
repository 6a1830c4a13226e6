"""Linear scan in torch operations on any device: doubling within chunks, all chunks at once, then over the chunks.

The reverse sweep is a scan of the same kind, so that nothing is stored but factors and outputs, and gradients can be
taken any number of times.
"""

import torch

from statespace.kernels.arrays import accepts_numpy

CHUNK = 64


@accepts_numpy
def linear_scan(a, b, initial=None, reverse=False):
    """See :func:`statespace.kernels.linear_scan`."""
    result = torch.promote_types(a.dtype, b.dtype)
    if initial is not None:
        result = torch.promote_types(result, initial.dtype)
    working = torch.promote_types(result, torch.float32)
    a = a if a.ndim else a.unsqueeze(0)
    return scan(a.to(working), b.to(working), initial, reverse).to(result)


def scan(a, b, initial, reverse):
    """The scan in the precision of ``b``. One factor for all steps (a last axis of length 1) may be more precise: its
    powers are, and a rounded factor would err alike at every step.
    """
    x = torch.zeros((), dtype=b.dtype, device=b.device) if initial is None else initial.to(b.dtype)
    return _Scan.apply(a, b, x.expand(b.shape[:-1]), bool(reverse))


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a, b, initial, reverse):
        if reverse:
            x = _scan(a.flip(-1), b.flip(-1), initial).flip(-1)
        else:
            x = _scan(a, b, initial)
        ctx.save_for_backward(a, initial, x)
        ctx.reverse = reverse
        return x

    @staticmethod
    def backward(ctx, grad):
        a, initial, x = ctx.saved_tensors
        reverse, steps = ctx.reverse, x.shape[-1]
        # g_k = ∂x_k + ā_{k+1} g_{k+1}: the factor that follows a step stands beside it; the last one meets zero.
        constant = a.shape[-1] == 1
        shifted = a if constant else a.roll(1 if reverse else -1, -1)
        g = _Scan.apply(shifted.conj(), grad, torch.zeros_like(initial), not reverse)
        first = steps - 1 if reverse else 0
        start = initial.unsqueeze(-1)
        before = torch.cat([x[..., 1:], start] if reverse else [start, x[..., :-1]], dim=-1)
        grad_initial = g[..., first] * a[..., 0 if constant else first].conj().to(g.dtype)
        return (g * before.conj()).sum_to_size(a.shape).to(a.dtype), g, grad_initial, None


def _scan(a, b, state):
    """x_k = a_k x_{k-1} + b_k; a last axis of length 1 of ``a`` is one factor for all steps."""
    L = b.shape[-1]
    chunks = -(-L // CHUNK)
    size = -(-L // chunks)
    constant = a.shape[-1] == 1
    if not constant:
        a = torch.nn.functional.pad(a, (0, chunks * size - L)).unflatten(-1, (chunks, size))
    x = torch.nn.functional.pad(b, (0, chunks * size - L)).unflatten(-1, (chunks, size))
    # Hillis & Steele: after the pass of reach r, x_k holds the last 2r inputs' share of the state, a_k their factors.
    table, reach = a, 1
    while reach < size:
        if constant:
            factor = a.unsqueeze(-1).to(x.dtype)
            x = torch.cat([x[..., :reach], torch.addcmul(x[..., reach:], factor, x[..., :-reach])], dim=-1)
            table = torch.cat([table, table * table[..., -1:]], dim=-1)
            a = a * a
        else:
            x = torch.cat([x[..., :reach], torch.addcmul(x[..., reach:], a[..., reach:], x[..., :-reach])], dim=-1)
            a = torch.cat([a[..., :reach], a[..., reach:] * a[..., :-reach]], dim=-1)
        reach *= 2
    # The factors from the beginning of a chunk to each of its steps.
    table = table[..., :size].unsqueeze(-2) if constant else a
    if chunks > 1:
        starts = _scan(table[..., -1], x[..., -1], state)
        state = torch.cat([state.unsqueeze(-1), starts[..., :-1]], dim=-1)
    else:
        state = state.unsqueeze(-1)
    return torch.addcmul(x, table.to(x.dtype), state.unsqueeze(-1)).flatten(-2)[..., :L]
