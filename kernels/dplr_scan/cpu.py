"""The scan as compiled loops over vectors of channels; threads over the vectors."""

import torch

from statespace.kernels.dispatch import refuse_devices
from statespace.kernels.dplr_scan.loops import SEGMENT, backward, forward
from statespace.kernels.lanes import WIDTH, channels_back, channels_last, flat, from_lanes, to_lanes
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
    whole = H % WIDTH == 0  # a vector's channels are all of one record
    # Turned by a phase, a pair's number in the first row of P is real, which spares the loops a tenth of their work.
    # What the system does depends on no phase, so that none has a gradient.
    first = P[:, 0].detach().to(torch.complex128)
    turn = torch.where(first == 0, 1.0, torch.sgn(first).conj())
    fields = [Lambda, turn * B, 2 * C * turn.conj(), *(turn * row for row in P.unbind(1))]
    system = torch.view_as_real(torch.stack(fields, dim=2).resolve_conj())  # (H, n, fields, 2)
    state = torch.view_as_real((turn * state).resolve_conj())
    y, final = _Scan.apply(
        channels_last(u.to(dtype)),
        dt.unsqueeze(-1).expand(batch, L, WIDTH) if whole else to_lanes(dt.unsqueeze(1).expand(batch, H, L)),
        to_lanes(system.flatten(1).to(dtype).expand(batch, -1, -1)),
        to_lanes(state.flatten(2).to(dtype)),
        (0,) * P.shape[1],
    )
    y = channels_back(y, batch, H)
    final = torch.view_as_complex(from_lanes(final, batch, H).unflatten(-1, (n, 2)).contiguous())
    final = turn.conj().to(final.dtype) * final
    return (y.numpy(), final.numpy()) if arrays else (y, final)


class _Scan(torch.autograd.Function):
    """u and y (records, L, channels), dt (records, L, lanes); system and state (G, n · fields, lanes)."""

    @staticmethod
    def forward(ctx, u, dt, system, state, rank):
        G, L, per = len(system), u.shape[1], u.shape[2] // WIDTH
        n = state.shape[1] // 2
        y, final = torch.empty_like(u), state.clone()
        changed = torch.ones(dt.shape[:2], dtype=torch.bool)
        gaps = dt if dt.stride(-1) else dt[..., :1]  # the same number in all lanes needs one look
        changed[:, 1:] = (gaps[:, 1:] != gaps[:, :-1]).any(-1)
        dt = dt.contiguous()
        rows = G if any(ctx.needs_input_grad) else 0
        kept = u.new_empty(rows, L, len(rank) + len(rank) ** 2, WIDTH)
        stored = u.new_empty(rows, -(-L // SEGMENT), n, 2, WIDTH)
        inputs = u, dt, changed, system
        in_parallel(forward, G, u.numel() * n, L, n, per, rank, *map(flat, (*inputs, final, y, kept, stored)))
        ctx.save_for_backward(*inputs, kept, stored)
        ctx.rank = rank
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        inputs = u, _, _, system, _, stored = ctx.saved_tensors
        G, L, per, n = len(system), u.shape[1], u.shape[2] // WIDTH, stored.shape[2]
        grad_state = grad_final.clone(memory_format=torch.contiguous_format)
        grad_u, grad_system = torch.empty_like(u), torch.zeros_like(system)
        grad_dt = u.new_empty(G if ctx.needs_input_grad[1] else 0, L, WIDTH)
        arrays = map(flat, (*inputs, grad_y.contiguous(), grad_state, grad_u, grad_dt, grad_system))
        in_parallel(backward, G, u.numel() * n, L, n, per, ctx.rank, *arrays)
        grad_dt = grad_dt.unflatten(0, (-1, per)).sum(1) if len(grad_dt) else None
        return grad_u, grad_dt, grad_system, grad_state, None
