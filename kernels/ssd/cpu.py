"""The recurrence as compiled loops over vectors of channels; threads over records, groups and vectors."""

import numpy as np
import torch

from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, flat, memory
from statespace.kernels.ssd.loops import SEGMENT, TILE, backward, forward
from statespace.kernels.ssd.steps import around
from statespace.kernels.threads import in_parallel, number_of_threads


def ssd(
    x, dt, A, B, C, chunk_size=None, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, *, gap=None, decay=None,
):  # fmt: skip
    """See :func:`statespace.kernels.ssd`; torch tensors are differentiable, once."""
    return around(
        _scan, x, dt, A, B, C, chunk_size, D, z, dt_bias, initial_states, seq_idx, dt_softplus, dt_limit,
        return_final_states, gap, decay,
    )  # fmt: skip


def _scan(x, step, exponent, B, C, D, initial, starts, chunk_size):
    batch, _, H, P = x.shape
    G, N = B.shape[2:]
    channels = H // G * P
    V = -(-channels // WIDTH)
    # Ā - 1, which keeps the digits of a slow head, and is -1 where nothing passes.
    decay = torch.expm1(exponent)
    if starts is not None:
        decay = decay.masked_fill(starts.unsqueeze(-1), -1.0)
    state = x.new_zeros(batch, H, P, N) if initial is None else initial
    y, final = _Scan.apply(
        _filled(x.reshape(*x.shape[:2], G, channels), WIDTH),
        step,
        decay,
        _filled(B, TILE),
        _filled(C, TILE),
        _filled((x.new_zeros(H, P) if D is None else D).reshape(G, channels), WIDTH),
        _filled(_filled(state, TILE).reshape(batch, G, channels, -1).transpose(2, 3), WIDTH)
        .unflatten(-1, (V, WIDTH))
        .transpose(2, 3),
        P,
    )
    # A slice of everything would be copied on the way back.
    y = (y[..., :channels] if channels % WIDTH else y).reshape(x.shape)
    final = final.transpose(2, 3)[..., :N, :, :].flatten(3)[..., :channels].transpose(2, 3)
    return y, final.reshape(batch, H, P, N)


def _filled(x, width):
    """Zeros at the end of the last axis, up to a multiple of ``width``."""
    return torch.nn.functional.pad(x, (0, -x.shape[-1] % width)) if x.shape[-1] % width else x


def _rows(x):
    """A tensor (batch, L, ...) as the loops take it: flat, and how far apart its steps lie. Parts of a wider array, as
    a split leaves them, are read where they lie.
    """
    x = x.detach()
    L, inner = x.shape[1], x.shape[2] * x.shape[3]
    expected = (L * x.stride(1), x.stride(1), x.shape[3], 1)
    in_place = all(own == other or n == 1 for own, other, n in zip(x.stride(), expected, x.shape, strict=True))
    if not in_place or x.stride(1) < inner:
        x = x.contiguous()
    return memory(x), x.stride(1)


class _Scan(torch.autograd.Function):
    """x and y (batch, L, G, V · lanes), step and decay (batch, L, H), B and C (batch, L, G, N), state (batch, G, V, N,
    lanes); see `loops.py`.
    """

    @staticmethod
    def forward(ctx, x, step, decay, B, C, skip, state, P):
        (batch, L, G, lanes), (H, N) = x.shape, (step.shape[2], B.shape[3])
        V, per = lanes // WIDTH, H // G
        head = np.zeros((G, lanes), np.intp)
        head[:, : per * P] = np.arange(H).reshape(G, per).repeat(P, axis=1)
        parts = min(V, -(-number_of_threads() // (batch * G)))
        ctx.sizes = L, H, G, V, N, parts, P % WIDTH == 0
        ctx.head, ctx.tasks, ctx.work = head.ravel(), batch * G * parts, x.numel() * N
        y, final = x.new_empty(x.shape), state.clone(memory_format=torch.contiguous_format)
        segments = -(-L // SEGMENT) if any(ctx.needs_input_grad) else 0
        stored = x.new_empty(batch, G, V, segments, N, WIDTH)
        inputs = *_rows(x), flat(step), flat(decay), *_rows(B), *_rows(C), flat(skip), ctx.head
        in_parallel(forward, ctx.tasks, ctx.work, *ctx.sizes, *inputs, *map(flat, (final, y, stored)))
        ctx.save_for_backward(x, step, decay, B, C, skip, stored)
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        x, step, decay, B, C, skip, stored = ctx.saved_tensors
        parts = ctx.sizes[5]
        grad_state = grad_final.clone(memory_format=torch.contiguous_format)
        grad_x = x.new_empty(x.shape)
        grad_step, grad_decay = (step.new_zeros(parts, *step.shape) for _ in range(2))
        grad_B, grad_C = (B.new_empty(parts, *B.shape) for _ in range(2))
        grad_skip = skip.new_zeros(len(x), *skip.shape)
        inputs = *_rows(x), flat(step), flat(decay), *_rows(B), *_rows(C), flat(skip), ctx.head
        gradients = grad_state, grad_x, grad_step, grad_decay, grad_B, grad_C, grad_skip
        in_parallel(
            backward, ctx.tasks, 3 * ctx.work, *ctx.sizes, *inputs, *map(flat, (stored, grad_y)), *map(flat, gradients)
        )
        summed = ((g[0] if parts == 1 else g.sum(0)) for g in (grad_step, grad_decay, grad_B, grad_C))
        return grad_x, *summed, grad_skip.sum(0), grad_state, None
