"""The scan as Triton kernels: a program for some channels of a record, step after step, the states in registers."""

import torch
import triton
from torch import Tensor

from statespace.kernels import launching
from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.dplr_scan.triton_chunks import join, transfer
from statespace.kernels.dplr_scan.triton_steps import backward, forward
from statespace.kernels.operators import operator

SEGMENT = 16  # steps between two stored states; the reverse sweep computes one segment again at a time
# Four warps for each scheduler of a large GPU: only with more channels than that does a warp take several.
WARPS = 2048
# Records this long are cut into chunks where the channels are few: channels times pairs².
LONG, MOST_MOVED, MOST_CHUNKS = 4096, 32 * 32**2, 512


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
    state = u.new_zeros(batch, H, Lambda.shape[-1], 2, dtype=dtype) if initial is None else _pairs(initial, dtype)
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (u, dt, system, state))
    y, final, *_ = _scan(u, dt, system, state, keep)
    return y, torch.view_as_complex(final)


def _pairs(x, dtype):
    return torch.view_as_real(x.resolve_conj()).to(dtype).contiguous()


def _results(
    u: Tensor, dt: Tensor, system: Tensor, state: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, H, L = u.shape
    n, rank = system.shape[1], system.shape[2] - 3
    chunks, _ = _cut(u, n)
    rows = batch if keep else 0
    kept = state.new_empty(rows, H, L, rank + rank**2)
    stored = state.new_empty(rows, H, triton.cdiv(L, SEGMENT), n, 2)
    moved = state.new_empty(rows if chunks > 1 else 0, H, chunks, 2 * n, n, 2)
    return torch.empty_like(u), torch.empty_like(state), kept, stored, moved


def _compute(y, final, kept, stored, moved, u, dt, system, state, keep):
    sizes = *u.shape[1:], system.shape[1], *_cut(u, system.shape[1])[::-1]
    chunks = sizes[-1]
    grid, tile = _tile(state, chunks)
    rank = system.shape[2] - 3

    def scan(starts, keep):
        """The states after the chunks."""
        ends = torch.empty_like(starts)
        forward[grid](
            y, ends, kept, stored, u, dt, system, starts, *sizes, *y.stride(), *u.stride(), *dt.stride(),
            KEEP=keep, RANK=rank, SEGMENT=SEGMENT, **tile,
        )  # fmt: skip
        return ends

    starts = state.unsqueeze(2)
    if chunks > 1:
        n = system.shape[1]
        moved = moved if keep else state.new_empty(len(u), u.shape[1], chunks, 2 * n, n, 2)
        columns = max(1, 256 // tile["STATES"])
        transfer[(u.shape[0] * u.shape[1] * chunks * triton.cdiv(2 * n, columns),)](
            moved, dt, system, *sizes, *dt.stride(), RANK=rank, STATES=tile["STATES"], COLUMNS=columns, num_warps=1
        )
        own = scan(torch.zeros_like(starts).expand(-1, -1, chunks, -1, -1).contiguous(), False)
        starts = _joined(own, moved, state, False)
    final.copy_(scan(starts, keep)[:, :, -1])


def _gradients(
    u: Tensor, dt: Tensor, system: Tensor, kept: Tensor, stored: Tensor, moved: Tensor, grad_y: Tensor,
    grad_final: Tensor, of_gaps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    of_system = grad_final.new_empty(*u.shape[:2], _cut(u, system.shape[1])[0], *system.shape[1:])
    of_gap = dt.new_empty(len(u) if of_gaps else 0, *u.shape[1:])
    return torch.empty_like(u), of_gap, of_system, torch.empty_like(grad_final)


def _compute_gradients(
    grad_u, grad_dt, grad_system, grad_state, u, dt, system, kept, stored, moved, grad_y, grad_final, of_gaps
):  # fmt: skip
    sizes = *u.shape[1:], system.shape[1], *_cut(u, system.shape[1])[::-1]
    chunks = sizes[-1]
    grid, tile = _tile(grad_final, chunks)
    rows = system.new_empty(*u.shape[:2], chunks, SEGMENT, system.shape[1], 2)

    def scan(ends):
        """The gradients in the states before the chunks."""
        starts = torch.empty_like(ends)
        backward[grid](
            grad_u, grad_dt, grad_system, starts, rows, u, dt, system, kept, stored, grad_y, ends,
            *sizes, *grad_u.stride(), *u.stride(), *grad_y.stride(), *dt.stride(),
            OF_GAPS=of_gaps, RANK=system.shape[2] - 3, SEGMENT=SEGMENT, **tile,
        )  # fmt: skip
        return starts

    ends = grad_final.unsqueeze(2)
    if chunks > 1:
        own = scan(torch.zeros_like(ends).expand(-1, -1, chunks, -1, -1).contiguous())
        ends = _joined(own, moved, grad_final, True)
    grad_state.copy_(scan(ends)[:, :, 0])


def _joined(own, moved, first, reverse):
    batch, H, chunks, n, _ = own.shape
    states, numbers = torch.empty_like(own), triton.next_power_of_2(2 * n)
    join[(batch * H,)](
        states, own, moved, first, n, chunks, REVERSE=reverse, NUMBERS=numbers, num_warps=max(1, numbers // 16)
    )
    return states


def _cut(u, n):
    """Into how many chunks a record is cut, and the steps of one.

    A chunk starts from a state that the chunks before have to be carried to: 2 n numbers, moved by every step, are 2 n
    times the work. That pays where few channels leave a GPU idle.
    """
    batch, H, L = u.shape
    if batch * H * n**2 > MOST_MOVED or n > 64 or L < LONG:
        return 1, SEGMENT * triton.cdiv(L, SEGMENT)
    length = SEGMENT * triton.cdiv(triton.cdiv(L, min(MOST_CHUNKS, triton.cdiv(L, LONG // 16))), SEGMENT)
    return triton.cdiv(L, length), length


def _tile(state, chunks):
    """The programs, and how many states and channels each has: as many as fill a warp, more where there are enough."""
    batch, H, n, _ = state.shape
    states = triton.next_power_of_2(n)
    channels = max(1, 32 // states)
    while channels * states < 128 and batch * H * chunks >= 2 * channels * states * WARPS // 32:
        channels *= 2
    warps = min(8, max(1, states * channels * state.itemsize // 512))
    tile = {"STATES": states, "CHANNELS": channels, "num_warps": warps}
    return lambda options: (batch * triton.cdiv(H, options["CHANNELS"]) * chunks,), tile


_scan = operator("dplr_scan", _results, _compute)
_scan_backward = operator("dplr_scan_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    u, dt, system, *_ = inputs
    _, _, *kept = output
    ctx.save_for_backward(u, dt, system, *kept)
    ctx.mark_non_differentiable(*kept)


def _differentiate(ctx, grad_y, grad_final, *_):
    of_gaps = ctx.needs_input_grad[1]
    of_u, of_gap, of_system, of_state = _scan_backward(*ctx.saved_tensors, grad_y, grad_final.contiguous(), of_gaps)
    return of_u, of_gap.sum(1) if of_gaps else None, of_system.sum((0, 2)), of_state, None


_scan.register_autograd(_differentiate, setup_context=_keep)
