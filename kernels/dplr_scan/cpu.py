"""The scan as fused Numba loops: states in the first-level cache, threads over (record, channel)."""

import torch

from statespace.kernels.dispatch import refuse_devices
from statespace.kernels.dplr_scan.loops import LANES, SEGMENT, WAYS, N, backward, forward
from statespace.kernels.threads import in_parallel


def unusable(u, dt, Lambda, P, B, C, initial=None):
    if P.shape[1] > 2:
        return f"its loops take rank 1 and 2, not {P.shape[1]}"
    return refuse_devices(u, dt, Lambda, P, B, C, initial)


def dplr_scan(u, dt, Lambda, P, B, C, initial=None):
    """See :func:`statespace.kernels.dplr_scan`; torch tensors are differentiable, once."""
    arrays = not isinstance(u, torch.Tensor)
    u, Lambda, P, B, C = (torch.as_tensor(x) for x in (u, Lambda, P, B, C))
    dtype = torch.promote_types(u.dtype, torch.float32)
    batch, H, L = u.shape
    n = Lambda.shape[-1]
    dt = torch.ones(batch, L, dtype=dtype) if dt is None else torch.as_tensor(dt).to(dtype)
    state = torch.zeros(batch, H, n, dtype=Lambda.dtype) if initial is None else torch.as_tensor(initial)
    rows = [Lambda, B, 2 * C, *P.unbind(1)]
    y, final = _Scan.apply(
        u.to(dtype).transpose(1, 2).contiguous(),
        dt.contiguous(),
        torch.cat([_tiles(x) for x in rows], dim=-1).to(dtype),
        _tiles(state).to(dtype),
        (0,) * P.shape[1],
        (0,) * (-(-min(n, N) // LANES)),
    )
    real, imaginary = (x.flatten(2)[..., :n] for x in final.split(N, dim=-1))
    y, final = y.transpose(1, 2), torch.complex(real, imaginary)
    return (y.numpy(), final.numpy()) if arrays else (y, final)


def _tiles(x):
    """Complex (..., n) to real (..., tiles, 2 N), padded with zeros."""
    x = torch.nn.functional.pad(x, (0, -x.shape[-1] % N)).unflatten(-1, (-1, N))
    return torch.cat([x.real, x.imag], dim=-1)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, dt, system, state, rank, groups):
        batch, L, H = u.shape
        y, final = torch.empty_like(u), state.clone()
        keep = any(ctx.needs_input_grad)
        feedback = u.new_empty(batch, L if keep else 0, H, len(rank))
        stored = u.new_empty(batch, H, -(-L // SEGMENT) if keep else 0, *state.shape[2:])
        in_parallel(
            forward, batch * -(-H // WAYS), u.numel() * state.shape[2] * N,
            rank, groups, *_arrays(u, dt, system, final, y, feedback, stored),
        )  # fmt: skip
        ctx.save_for_backward(u, dt, system, feedback, stored)
        ctx.rank, ctx.groups = rank, groups
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        u, dt, system, feedback, stored = ctx.saved_tensors
        batch, L, H = u.shape
        grad_u, grad_state = torch.empty_like(u), grad_final.clone(memory_format=torch.contiguous_format)
        grad_dt = u.new_empty(batch, L, H if ctx.needs_input_grad[1] else 0)
        grad_system = u.new_empty(batch, *system.shape)
        inputs = _arrays(u, dt, system, feedback, stored, grad_y.contiguous())
        in_parallel(
            backward, batch * -(-H // WAYS), u.numel() * system.shape[1] * N,
            ctx.rank, ctx.groups, *inputs, *_arrays(grad_state, grad_u, grad_dt, grad_system),
        )  # fmt: skip
        return grad_u, grad_dt.sum(2), grad_system.sum(0), grad_state, None, None


def _arrays(*tensors):
    return [x.detach().numpy() for x in tensors]
