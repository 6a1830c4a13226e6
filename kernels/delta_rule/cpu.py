"""The delta rule as compiled products of tiles; threads over the pairs of record and head."""

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.delta_rule.loops import backward, forward
from statespace.kernels.delta_rule.tiles import SIDE, TILE
from statespace.kernels.dispatch import refuse_accelerators
from statespace.kernels.lanes import memory
from statespace.kernels.threads import in_parallel


def unusable(*arguments, chunk_size=None):
    if chunk_size not in (None, SIDE):
        return f"its chunks have {SIDE} steps, not {chunk_size}"
    return refuse_accelerators(*arguments)


@accepts_numpy
def delta_rule(q, k, v, beta, decay=None, initial_state=None, *, chunk_size=None, qk_l2norm=False):
    """See :func:`statespace.kernels.delta_rule`; torch tensors are differentiable, once."""
    dtype = torch.promote_types(torch.promote_types(q.dtype, k.dtype), torch.promote_types(v.dtype, torch.float32))
    decay = None if decay is None else decay.to(dtype)
    (B, _, H, K), V = k.shape, v.shape[-1]
    state = v.new_zeros(B, H, K, V, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    o, state = _DeltaRule.apply(q.to(dtype), k.to(dtype), v.to(dtype), beta.to(dtype), decay, state, bool(qk_l2norm))
    return o.to(v.dtype) if v.is_floating_point() else o, state


class _DeltaRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, beta, decay, state, unit):
        (B, L, H, K), V = k.shape, v.shape[-1]
        n, m = -(-K // SIDE), -(-V // SIDE)
        # A state is kept for so many chunks that all of them take no more memory than two arrays of values.
        every = -(-K // (2 * SIDE))
        segments = -(-L // (SIDE * every))
        stored = v.new_empty(B * H * segments * n * m * TILE if any(ctx.needs_input_grad) else 0)
        alpha = v.new_empty(0, 0, 0) if decay is None else decay.exp()
        final, o = state.clone(memory_format=torch.contiguous_format), v.new_empty(v.shape)
        inputs = _inputs(q, k, v, beta, alpha)
        in_parallel(forward, B * H, 3 * B * L * H * K * V, L, H, K, V, every, unit, *inputs, *_flat(final, o, stored))
        ctx.save_for_backward(q, k, v, beta, alpha, stored)
        ctx.options = every, unit
        return o, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_o, of_state):
        q, k, v, beta, alpha, stored = ctx.saved_tensors
        (B, L, H, K), V = k.shape, v.shape[-1]
        of_initial = of_state.clone(memory_format=torch.contiguous_format)
        of_q, of_k, of_v = k.new_empty(k.shape), k.new_empty(k.shape), v.new_empty(v.shape)
        of_beta, of_decay = v.new_empty(B, L, H), v.new_empty(alpha.shape)
        in_parallel(
            backward, B * H, 9 * B * L * H * K * V, L, H, K, V, *ctx.options, *_inputs(q, k, v, beta, alpha),
            *_flat(stored, of_o, of_initial, of_q, of_k, of_v), of_beta.numpy(), of_decay.numpy(),
        )  # fmt: skip
        return of_q, of_k, of_v, of_beta, of_decay if alpha.numel() else None, of_initial, None


def _inputs(q, k, v, beta, alpha):
    """As the loops take them: what lies in rows is read where it lies."""
    rows = []
    for x in (q, k, v):
        x = x.detach()
        if x.stride(3) != 1:
            x = x.contiguous()
        rows += [memory(x), tuple(x.stride()[:3])]
    return *rows, beta.detach().contiguous().numpy(), alpha.detach().contiguous().numpy()


def _flat(*tensors):
    return [x.detach().contiguous().view(-1).numpy() for x in tensors]
