"""Selective scan as compiled loops over vectors of channels; threads over records, groups and some vectors of each."""

import math

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, memory
from statespace.kernels.selective_scan.loops import backward, forward
from statespace.kernels.selective_scan.pytorch import kinds
from statespace.kernels.selective_scan.segments import SEGMENT, UNROLLED
from statespace.kernels.threads import in_parallel

LN2 = math.log(2)
# Tasks to share among threads, and the vectors that one may have: the gradients in B and C are kept once for each task.
TASKS, VECTORS = 8, 32


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
    """See :func:`statespace.kernels.selective_scan`; torch tensors are differentiable, once."""
    batch, channels, length = u.shape
    real, kind = kinds(u, A, B, C, initial_state)
    groups = math.lcm(*(x.shape[1] for x in (B, C) if x.ndim == 4))
    own = tuple(x if x.ndim == 2 else None for x in (B, C))
    one = torch.ones((), dtype=kind)
    shared = [
        one.expand(batch, groups, A.shape[1], length) if x.ndim == 2 else _grouped(x, groups).to(kind) for x in (B, C)
    ]
    if kind.is_complex or any(x is not None for x in own):
        own = [(one.expand(A.shape) if x is None else x.to(kind)) for x in own]
    state = u.new_zeros(batch, *A.shape, dtype=kind) if initial_state is None else initial_state.to(kind)
    vectors = [torch.zeros(channels, dtype=real) if x is None else x.to(real) for x in (D, delta_bias)]
    # Without a gate there is nothing to read.
    gate = u.new_empty(0, 0, 0, dtype=real) if z is None else z.to(real)
    gaps = torch.ones((), dtype=real).expand(batch, length) if dt is None else dt.to(real)
    y, state = _Scan.apply(
        u.to(real), delta.to(real), A.to(kind), *shared, *own, *vectors, gate, state, gaps, delta_softplus
    )
    y = y.to(u.dtype)
    return (y, state) if return_last_state else y


def _grouped(x, groups):
    """B or C with as many groups as are asked for."""
    x = x.unsqueeze(1) if x.ndim == 3 else x
    return x if x.shape[1] == groups else x.repeat_interleave(groups // x.shape[1], dim=1)


def _view(x):
    """The memory of a tensor, complex numbers in pairs, and the strides."""
    x = x.detach()
    if x.is_complex():
        x = torch.view_as_real(x.resolve_conj())
    x = x.resolve_neg()
    return memory(x), x.stride()


def _flat(x):
    """The numbers of a tensor in order, complex ones in pairs."""
    x = x.detach().resolve_conj().contiguous()
    return (torch.view_as_real(x) if x.is_complex() else x).view(-1).numpy()


def _like(x):
    """Memory for a tensor of this shape, whose channels come last where those of x do."""
    if x.stride(1) == 1:
        return x.new_empty(x.shape[0], x.shape[2], x.shape[1]).transpose(1, 2)
    return x.new_empty(x.shape)


class _Scan(torch.autograd.Function):
    """u, delta, z (B, D, L), A (D, N), B, C (B, G, N, L), gaps (B, L), state (B, D, N); z may be empty.

    ``own_b`` and ``own_c``, (D, N) or both None, are factors of B and C that a channel has for its own.
    """

    @staticmethod
    def forward(ctx, u, delta, A, B, C, own_b, own_c, D, bias, z, state, gaps, soft):
        (batch, channels, length), (_, groups, states, _) = u.shape, B.shape
        per = -(-channels // groups // WIDTH)
        tasks = min(per, max(-(-TASKS // (batch * groups)), -(-per // VECTORS)))
        sizes = length, groups, tasks, channels // groups, states
        kinds = None if own_b is None else 1, 1 if A.is_complex() else None
        final, y = state.clone(memory_format=torch.contiguous_format), _like(u)
        n, parts = -(-states // UNROLLED) * UNROLLED, 2 if A.is_complex() else 1
        rows = batch * groups * per * -(-length // SEGMENT) if any(ctx.needs_input_grad) else 0
        stored = u.new_empty(rows * n * parts * WIDTH)
        inputs = _inputs(u, delta, z, gaps, B, C, A, own_b, own_c, D, bias)
        work = u.numel() * states
        in_parallel(
            forward, batch * groups * tasks, work, sizes, *inputs, soft, _flat(final), *_view(y), _flat(stored), *kinds
        )
        ctx.save_for_backward(u, delta, A, B, C, own_b, own_c, D, bias, z, gaps, stored)
        ctx.sizes, ctx.kinds, ctx.soft = sizes, kinds, soft
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        u, delta, A, B, C, own_b, own_c, D, bias, z, gaps, stored = ctx.saved_tensors
        (batch, channels, length), (_, groups, states, _), tasks = u.shape, B.shape, ctx.sizes[2]
        n, parts, per_record = -(-states // UNROLLED) * UNROLLED, 2 if A.is_complex() else 1, (batch, channels, states)
        grad_state = grad_final.clone(memory_format=torch.contiguous_format)
        of_u, of_delta, of_z = (_like(x) for x in (u, delta, z))
        of_gaps = u.new_empty(batch * groups * tasks, length)
        of_b, of_c = (u.new_empty(batch, groups, tasks, length, parts, n) for _ in range(2))
        of_rate = A.new_empty(per_record)
        of_own_b, of_own_c = (A.new_empty(0 if own_b is None else per_record) for _ in range(2))
        of_D, of_bias = (u.new_empty(batch, channels) for _ in range(2))
        inputs = _inputs(u, delta, z, gaps, B, C, A, own_b, own_c, D, bias)
        results = of_gaps, of_b, of_c, of_rate, of_own_b, of_own_c, of_D, of_bias
        in_parallel(
            backward, batch * groups * tasks, u.numel() * states, ctx.sizes, *inputs, ctx.soft, _flat(stored),
            *_view(grad_y), _flat(grad_state), *_view(of_u), *_view(of_delta), *_view(of_z), *map(_flat, results),
            *ctx.kinds,
        )  # fmt: skip
        of_b, of_c = (_joined(x.sum(2)[..., :states]).transpose(2, 3) for x in (of_b, of_c))
        of_own = (None, None) if own_b is None else (of_own_b.sum(0), of_own_c.sum(0))
        of_gaps = of_gaps.view(batch, -1, length).sum(1)
        return (
            of_u, of_delta, of_rate.sum(0), of_b, of_c, *of_own, of_D.sum(0), of_bias.sum(0), of_z, grad_state, of_gaps,
            None,
        )  # fmt: skip


def _joined(x):
    """(…, parts, states) -> (…, states), complex where there are two parts."""
    return torch.complex(x[..., 0, :], x[..., 1, :]) if x.shape[-2] == 2 else x.squeeze(-2)


def _inputs(u, delta, z, gaps, B, C, A, own_b, own_c, D, bias):
    """The arguments that both loops begin with."""
    if A.is_complex():
        # Frequencies in turns, in two parts: see `decay` of diagonal_scan.
        real, turns = A.real.double() / LN2, A.imag.double() / (2 * math.pi)
        high = turns.to(u.dtype)
        rate = torch.stack([real.to(u.dtype), high, (turns - high).to(u.dtype)], dim=-1)
    else:
        rate = (A.double() / LN2).to(u.dtype)
    views = *_view(u), *_view(delta), *_view(z), *_view(gaps)
    for x in (B, C):
        memory, strides = _view(x)
        views = *views, memory, strides if x.is_complex() else (*strides, 0)
    nothing = u.new_empty(0)
    return *views, *(_flat(nothing if x is None else x) for x in (rate, own_b, own_c, D, bias))
