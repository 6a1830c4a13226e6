"""The dual form as Triton kernels: matrix units within chunks, states from chunk to chunk in registers."""

import torch
import triton
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import unusable  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.ssd import triton_chunks as kernels
from statespace.kernels.ssd.triton_steps import steps_and_exponents

PROGRAMS = 264  # fewer than two for a multiprocessor of a large GPU, and records are cut into segments
SCRATCH = 2**30  # bytes that the backward pass takes for states at a time
SLICE = 64  # states that the gradients of a chunk take at a time
LARGEST_N = 256  # of a tile; larger states are read in slices
CHUNK = {2: 64, 4: 32, 8: 16}  # steps, by the bytes of a number


@accepts_numpy
def ssd(
    x, dt, A, B, C, chunk_size=None, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
    dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False, *, gap=None, decay=None,
):  # fmt: skip
    """See :func:`statespace.kernels.ssd`; differentiable, once."""
    x = x if x.is_floating_point() else x.float()
    working = torch.promote_types(x.dtype, torch.float32)
    step, exponent = steps_and_exponents(dt, A, dt_bias, gap, decay, dt_softplus, dt_limit, working)
    kind = torch.promote_types(x.dtype, torch.promote_types(B.dtype, C.dtype))
    if D is not None:
        D = (D.unsqueeze(-1).expand(x.shape[2:]) if D.ndim == 1 else D).to(working)
    inputs = x.to(kind), step, exponent
    N = B.shape[-1]
    keep = torch.is_grad_enabled() and z is not None
    if N <= LARGEST_N:
        y, final, _ = _scan(*inputs, B.to(kind), C.to(kind), D, z, initial_states, seq_idx, keep)
    else:
        # Outputs are sums over the states, each of which goes its own way.
        y, finals = 0, []
        for n in range(0, N, LARGEST_N):
            part = slice(n, n + LARGEST_N)
            start = None if initial_states is None else initial_states[..., part]
            of_part = B[..., part].to(kind), C[..., part].to(kind), D if n == 0 else None, None, start, seq_idx, False
            own, final, _ = _scan(*inputs, *of_part)
            y = y + own.to(working)
            finals.append(final)
        y, final = y if z is None else y * torch.nn.functional.silu(z.to(working)), torch.cat(finals, dim=-1)
    y = y.to(x.dtype)
    return (y, final) if return_final_states else y


def _rows(a):
    """A tensor (batch, L, ...) whose steps lie in one block each, and how far apart records and steps are."""
    a = a if a[0, 0].is_contiguous() else a.contiguous()
    return a, (a.stride(0), a.stride(1))


def _sizes(x, B):
    """The dimensions, and the tiles' Q, P_ and N_."""
    (batch, L, H, P), (G, N) = x.shape, B.shape[2:]
    N_ = max(16, triton.next_power_of_2(N))
    tiles = {
        "Q": CHUNK[x.element_size()],
        "P_": min(max(16, triton.next_power_of_2(P)), 64 if N_ <= 128 else 32),
        "N_": N_,
    }
    return (batch, L, H, P, G, N), tiles


def _segments(sizes, tiles, least=1):
    """How many segments, of how many chunks each, keep a GPU busy; not fewer than ``least`` if there are the chunks."""
    batch, L, H, P = sizes[:4]
    chunks = triton.cdiv(L, tiles["Q"])
    wanted = max(least, PROGRAMS // (batch * H * triton.cdiv(P, tiles["P_"])))
    span = triton.cdiv(chunks, min(chunks, max(1, wanted)))
    return triton.cdiv(chunks, span), span


def _carry(ends, sums, states, x, B, step, exponent, seq_idx, starts, sizes, tiles, plan, window=None, backwards=False):
    """Runs the states through the segments of ``window`` (the first one, how many), or through all."""
    batch, L, H, P, G, N = sizes
    (x, of_x), (B, of_B) = _rows(x), _rows(B)
    first, count = window or (0, plan[0])
    kernels.carry[(count * batch * H * triton.cdiv(P, tiles["P_"]),)](
        ends, sums, states, x, B, step, exponent, seq_idx, starts, *sizes, *plan, first, count, *of_x, *of_B, **tiles,
        BACKWARDS=backwards,
    )  # fmt: skip


def _starts(last, x, B, step, exponent, seq_idx, initial, sizes, tiles, plan, backwards=False):
    """The states before every segment, and behind the last one into ``last``; gradients in them ``backwards``."""
    batch, L, H, P, G, N = sizes
    segments, blocks = plan[0], triton.cdiv(P, tiles["P_"])
    ends = step.new_empty(segments, batch, H, P, N)
    sums = step.new_empty(segments, batch, H, blocks)
    _carry(ends, sums, None, x, B, step, exponent, seq_idx, None, sizes, tiles, plan, backwards=backwards)
    starts = torch.empty_like(ends)
    cells = 256
    kernels.hand_over[(batch * H * triton.cdiv(P * N, cells),)](
        starts, last, ends, sums, initial, batch * H, P, N, segments, blocks, CELLS=cells, BACKWARDS=backwards
    )
    return starts


def _outputs(
    x: Tensor, step: Tensor, exponent: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    initial: Tensor | None, seq_idx: Tensor | None, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    final = step.new_empty(x.shape[0], *x.shape[2:], B.shape[3])
    return x.new_empty(x.shape), final, x.new_empty(x.shape if keep else (0,))


def _compute(y, final, raw, x, step, exponent, B, C, D, z, initial, seq_idx, keep):
    sizes, tiles = _sizes(x, B)
    batch, L, H, P, G, N = sizes
    plan = _segments(sizes, tiles)
    initial = None if initial is None else initial.contiguous()
    starts, ends = initial, final
    if plan[0] > 1:
        starts, ends = _starts(final, x, B, step, exponent, seq_idx, initial, sizes, tiles, plan), None
    rows = [_rows(a) for a in (x, B, C, x if z is None else z)]
    (x, _), (B, _), (C, _), (gate, _) = rows
    kernels.outputs[(plan[0] * batch * H * triton.cdiv(P, tiles["P_"]),)](
        y, raw if keep else None, ends, x, B, C, _flat(D), None if z is None else gate, step, exponent, seq_idx,
        starts, *sizes, *plan, *(n for _, strides in rows for n in strides), **tiles, num_warps=8,
    )  # fmt: skip


def _flat(a):
    return None if a is None else a.contiguous()


def _gradients(
    x: Tensor, step: Tensor, exponent: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    initial: Tensor | None, seq_idx: Tensor | None, raw: Tensor, grad: Tensor, grad_final: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (batch, L, H, P, G, N), tiles = _sizes(x, B)
    blocks, chunks = triton.cdiv(P, tiles["P_"]), triton.cdiv(L, tiles["Q"])
    shares = _shares(H // G * blocks, batch * chunks * G)[0]
    return (
        x.new_empty(x.shape), step.new_empty(shares, *B.shape), step.new_empty(shares, *B.shape),
        step.new_empty((0,) if D is None else (chunks, batch, H, P)),
        x.new_empty((0,)) if z is None else z.new_empty(z.shape),
        step.new_empty(blocks, *step.shape), step.new_empty(blocks, *step.shape), step.new_empty(batch, H, P, N),
    )  # fmt: skip


def _shares(blocks, others):
    """Into how many programs the blocks of channels of a group go, and how many each takes."""
    share = triton.cdiv(blocks, min(blocks, triton.cdiv(PROGRAMS, others)))
    return triton.cdiv(blocks, share), share


def _compute_gradients(
    of_x, of_B, of_C, of_D, of_z, of_step, of_exponent, of_initial,
    x, step, exponent, B, C, D, z, initial, seq_idx, raw, grad, grad_final,
):  # fmt: skip
    sizes, tiles = _sizes(x, B)
    batch, L, H, P, G, N = sizes
    initial, grad_final = _flat(initial), grad_final.contiguous()
    if z is not None:
        z, of_gate = _rows(z)
        slopes, grad, cells = torch.empty_like(grad), grad.contiguous(), 1024
        kernels.ungate[(triton.cdiv(grad.numel(), cells),)](
            slopes, of_z, raw, z, grad, P, H, L, *of_gate, grad.numel(), CELLS=cells
        )
        grad = slopes
    # What the states and the gradients in them take for one step of the chunks, and how many chunks fit.
    kept = torch.float32 if x.dtype == torch.float16 else x.dtype
    of_chunk = 2 * batch * H * P * N * kept.itemsize
    chunks = triton.cdiv(L, tiles["Q"])
    fitting = max(1, SCRATCH // of_chunk)
    plan = segments, span = _segments(sizes, tiles, triton.cdiv(chunks, fitting))
    starts, tails, first = initial, grad_final, of_initial
    inputs, slopes = (x, B, step, exponent, seq_idx), (grad, C, step, exponent, seq_idx)
    if segments > 1:
        starts = _starts(torch.empty_like(of_initial), *inputs, initial, sizes, tiles, plan)
        tails, first = _starts(of_initial, *slopes, grad_final, sizes, tiles, plan, backwards=True), None
    windows = max(1, fitting // span)
    rows = [_rows(a) for a in (x, B, C, grad)]
    strides = [n for _, each in rows for n in each]
    shares, share = _shares(H // G * triton.cdiv(P, tiles["P_"]), batch * chunks * G)
    for window in range(0, segments, windows):
        count = min(windows, segments - window)
        states = x.new_empty(batch, H, count * span, P, N, dtype=kept)
        behind = torch.empty_like(states)
        _carry(None, None, states, *inputs, starts, sizes, tiles, plan, (window, count))
        _carry(first, None, behind, *slopes, tails, sizes, tiles, plan, (window, count), backwards=True)
        begin = window * span
        own = min(count * span, chunks - begin)
        kernels.gradients[(own * shares * batch * G,)](
            of_x, of_B, of_C, of_D, of_step, of_exponent, *(a for a, _ in rows[:3]), _flat(D), rows[3][0],
            step, exponent, seq_idx, states, behind, *sizes, shares, share, begin, own, count * span, *strides,
            Q=tiles["Q"], P_=tiles["P_"], S_=min(SLICE, tiles["N_"]), num_warps=8,
        )  # fmt: skip


_scan = operator("ssd", _outputs, _compute)
_scan_backward = operator("ssd_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:9], output[2])


def _differentiate(ctx, grad, grad_final, _):
    *inputs, raw = ctx.saved_tensors
    x, _, _, B, C, D, z, initial, _ = inputs
    of_x, of_B, of_C, of_D, of_z, of_step, of_exponent, of_initial = _scan_backward(*inputs, raw, grad, grad_final)
    return (
        of_x, of_step.sum(0), of_exponent.sum(0), of_B.sum(0).to(B.dtype), of_C.sum(0).to(C.dtype),
        None if D is None else of_D.sum((0, 1)).to(D.dtype), None if z is None else of_z,
        None if initial is None else of_initial.to(initial.dtype), None, None,
    )  # fmt: skip


_scan.register_autograd(_differentiate, setup_context=_keep)
