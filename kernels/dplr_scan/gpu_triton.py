"""The scan as Triton kernels: a program for some channels of a record, step after step, the states in registers."""

import torch
import triton
from torch import Tensor

from statespace.kernels import launching
from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.dplr_scan.triton_steps import backward, forward
from statespace.kernels.operators import operator

SEGMENT = 16  # steps between two stored states; the reverse sweep computes one segment again at a time
# Four warps for each scheduler of a large GPU: only with more channels than that does a warp take several.
WARPS = 2048


def unusable(u, dt, Lambda, P, B, C, initial=None):
    if P.shape[1] > 2:
        return f"its kernels take rank 1 and 2, not {P.shape[1]}"
    return launching.unusable(u, dt, Lambda, P, B, C, initial)


@accepts_numpy
def dplr_scan(u, dt, Lambda, P, B, C, initial=None):
    """See :func:`statespace.kernels.dplr_scan`; torch tensors are differentiable, once."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    batch, H, L = u.shape
    dt = u.new_ones((), dtype=dtype).expand(batch, L) if dt is None else dt.to(dtype)
    system = _pairs(torch.stack([Lambda, B, 2 * C, *P.unbind(1)], dim=2), dtype)
    if initial is None:
        state = u.new_zeros(batch, H, 1, Lambda.shape[-1], 2, dtype=dtype)
    else:
        state = _pairs(initial, dtype).unsqueeze(2)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, system, state))
    y, ends, _, _ = _scan(u, dt, system, state, L, keep)
    return y, torch.view_as_complex(ends[:, :, -1])


def _pairs(x, dtype):
    return torch.view_as_real(x.resolve_conj()).to(dtype).contiguous()


def _results(
    u: Tensor, dt: Tensor, system: Tensor, starts: Tensor, length: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, H, L = u.shape
    rank, n = system.shape[2] - 3, system.shape[1]
    rows = batch if keep else 0
    kept = starts.new_empty(rows, H, L, rank + rank**2)
    stored = starts.new_empty(rows, H, triton.cdiv(L, SEGMENT), n, 2)
    return torch.empty_like(u), torch.empty_like(starts), kept, stored


def _compute(y, ends, kept, stored, u, dt, system, starts, length, keep):
    programs, tile = _tile(starts)
    forward[programs](
        y, ends, kept, stored, u, dt, system, starts, *_sizes(u, system, starts, length),
        *y.stride(), *u.stride(), *dt.stride(), KEEP=keep, RANK=system.shape[2] - 3, **tile,
    )  # fmt: skip


def _gradients(
    u: Tensor, dt: Tensor, system: Tensor, kept: Tensor, stored: Tensor, grad_y: Tensor, grad_ends: Tensor, length: int,
    of_gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_system = grad_ends.new_empty(*grad_ends.shape[:4], *system.shape[2:])
    of_gap = dt.new_empty(len(u) if of_gaps else 0, *u.shape[1:])
    return torch.empty_like(u), of_gap, of_system, torch.empty_like(grad_ends)


def _compute_gradients(
    grad_u, grad_dt, grad_system, grad_starts, u, dt, system, kept, stored, grad_y, grad_ends, length, of_gaps
):  # fmt: skip
    programs, tile = _tile(grad_ends)
    batch, H, chunks, n, _ = grad_ends.shape
    rows = system.new_empty(batch, H, chunks, SEGMENT, n, 2)
    backward[programs](
        grad_u, grad_dt, grad_system, grad_starts, rows, u, dt, system, kept, stored, grad_y, grad_ends,
        *_sizes(u, system, grad_ends, length), *grad_u.stride(), *u.stride(), *grad_y.stride(), *dt.stride(),
        OF_GAPS=of_gaps, RANK=system.shape[2] - 3, **tile,
    )  # fmt: skip


def _sizes(u, system, starts, length):
    return u.shape[1], u.shape[2], system.shape[1], length, starts.shape[2]


def _tile(starts):
    """The programs, and how many states and channels each has: as many as fill a warp, more where there are enough."""
    batch, H, chunks, n, _ = starts.shape
    states = triton.next_power_of_2(n)
    channels = max(1, 32 // states)
    while channels * states < 128 and batch * H * chunks >= 2 * channels * states * WARPS // 32:
        channels *= 2
    tile = {"SEGMENT": SEGMENT, "STATES": states, "CHANNELS": channels}
    return (batch * triton.cdiv(H, channels) * chunks,), tile | {"num_warps": min(8, max(1, states * channels // 128))}


_scan = operator("dplr_scan", _results, _compute)
_scan_backward = operator("dplr_scan_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    u, dt, system, _, ctx.length, _ = inputs
    _, _, kept, stored = output
    ctx.save_for_backward(u, dt, system, kept, stored)
    ctx.mark_non_differentiable(kept, stored)


def _differentiate(ctx, grad_y, grad_ends, _, __):
    tensors = *ctx.saved_tensors, grad_y, grad_ends.contiguous()
    of_u, of_gap, of_system, of_starts = _scan_backward(*tensors, ctx.length, ctx.needs_input_grad[1])
    of_gap = of_gap.sum(1) if ctx.needs_input_grad[1] else None
    return of_u, of_gap, of_system.sum((0, 2)), of_starts, None, None


_scan.register_autograd(_differentiate, setup_context=_keep)
