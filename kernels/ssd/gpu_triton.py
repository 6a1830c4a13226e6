"""The dual form as Triton kernels: states from chunk to chunk, then every chunk on its own by matrix units."""

import torch
import triton
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import unusable  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.ssd import triton_chunks as kernels
from statespace.kernels.ssd import triton_gradients as gradients
from statespace.kernels.ssd.triton_steps import steps_and_exponents

PROGRAMS = 264  # fewer than two for a multiprocessor of a large GPU, and records are cut into segments
SCRATCH = 2**30  # bytes that states take at a time
CHUNK = {2: 64, 4: 32, 8: 16}  # steps, by the bytes of a number
TILE = {2: 64, 4: 32, 8: 32}  # channels, or states, of a tile
WARPS = {2: 8, 4: 2, 8: 2}  # as many as the rows of a tile keep busy: more would multiply the same numbers again
SUMS = 8  # chunks whose exponents a program sums


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
    keep = torch.is_grad_enabled() and z is not None
    y, final, _ = _scan(x.to(kind), step, exponent, B.to(kind), C.to(kind), D, z, initial_states, seq_idx, keep)
    y = y.to(x.dtype)
    return (y, final) if return_final_states else y


def _rows(a):
    """A tensor (batch, L, ...) whose steps lie in one block each, and how far apart records and steps are."""
    a = a if a[0, 0].is_contiguous() else a.contiguous()
    return a, (a.stride(0), a.stride(1))


def _flat(a):
    return None if a is None else a.contiguous()


def _sizes(x, B):
    """The dimensions, and the tiles' Q, P_ and N_ and warps."""
    (batch, L, H, P), (G, N) = x.shape, B.shape[2:]
    size = x.element_size()
    P_, N_ = (min(TILE[size], max(16, triton.next_power_of_2(n))) for n in (P, N))
    return (batch, L, H, P, G, N), {"Q": CHUNK[size], "P_": P_, "N_": N_, "num_warps": WARPS[size]}


def _tiles(sizes, tiles):
    """How many tiles the states of a head have."""
    return triton.cdiv(sizes[3], tiles["P_"]) * triton.cdiv(sizes[5], tiles["N_"])


def _plan(x, sizes, tiles, arrays):
    """How many segments of how many chunks keep a GPU busy, how many of them fit into memory, and their states' type.

    ``arrays``: how many arrays of the size of the states are needed at a time.
    """
    batch, L, H, P, G, N = sizes
    kept = torch.float32 if x.dtype == torch.float16 else x.dtype
    chunks, fitting = triton.cdiv(L, tiles["Q"]), max(1, SCRATCH // (arrays * batch * H * P * N * kept.itemsize))
    wanted = max(1, triton.cdiv(chunks, fitting), PROGRAMS // (batch * H * _tiles(sizes, tiles)))
    span = triton.cdiv(chunks, min(chunks, wanted))
    return (triton.cdiv(chunks, span), span), max(1, fitting // span), kept


def _sum_up(exponent, seq_idx, tiles):
    """The sums of exponents from the beginnings of the chunks, as two numbers each."""
    batch, H, L = exponent.shape
    high, low = torch.empty_like(exponent), torch.empty_like(exponent)
    grid = (batch * H * triton.cdiv(L, SUMS * tiles["Q"]),)
    kernels.sum_up[grid](high, low, exponent, _flat(seq_idx), L, H, CHUNKS=SUMS, Q=tiles["Q"])
    return high, low


def _score(B, C, step, sizes, tiles):
    """C Bᵀ within the chunks, and how many chunks there are."""
    batch, L, H, P, G, N = sizes
    chunks, Q = triton.cdiv(L, tiles["Q"]), tiles["Q"]
    scores = step.new_empty(batch, G, chunks, Q, Q)
    (B, of_B), (C, of_C) = _rows(B), _rows(C)
    kernels.score[(batch * chunks * G,)](
        scores, B, C, L, G, N, chunks, *of_B, *of_C, Q=Q, N_=tiles["N_"], num_warps=tiles["num_warps"]
    )
    return scores, chunks


def _carry(ends, totals, states, x, B, step, high, low, starts, sizes, tiles, plan, window=None, backwards=False):
    """Runs the states through the segments of ``window`` (the first one, how many), or through all."""
    (x, of_x), (B, of_B) = _rows(x), _rows(B)
    first, count = window or (0, plan[0])
    kernels.carry[(count * sizes[0] * sizes[2] * _tiles(sizes, tiles),)](
        ends, totals, states, x, B, step, high, low, starts, *sizes, *plan, first, count, *of_x, *of_B, **tiles,
        BACKWARDS=backwards,
    )  # fmt: skip


def _starts(last, x, B, step, high, low, initial, sizes, tiles, plan, backwards=False):
    """The states before every segment, and behind the last one into ``last``; gradients in them ``backwards``."""
    batch, L, H, P, G, N = sizes
    ends = step.new_empty(plan[0], batch, H, P, N)
    totals = step.new_empty(plan[0], batch, H, _tiles(sizes, tiles))
    _carry(ends, totals, None, x, B, step, high, low, None, sizes, tiles, plan, backwards=backwards)
    starts, cells = torch.empty_like(ends), 256
    kernels.hand_over[(batch * H * triton.cdiv(P * N, cells),)](
        starts, last, ends, totals, initial, batch * H, P, N, plan[0], totals.shape[-1], CELLS=cells,
        BACKWARDS=backwards,
    )  # fmt: skip
    return starts


def _windows(plan, fitting, chunks):
    """The segments whose states are in memory together: (the first, how many), their first chunk, how many, room."""
    for segment in range(0, plan[0], fitting):
        count, begin = min(fitting, plan[0] - segment), segment * plan[1]
        yield (segment, count), begin, min(count * plan[1], chunks - begin), count * plan[1]


def _outputs(
    x: Tensor, step: Tensor, exponent: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    initial: Tensor | None, seq_idx: Tensor | None, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    final = step.new_empty(x.shape[0], *x.shape[2:], B.shape[3])
    return x.new_empty(x.shape), final, x.new_empty(x.shape if keep else (0,))


def _compute(y, final, raw, x, step, exponent, B, C, D, z, initial, seq_idx, keep):
    sizes, tiles = _sizes(x, B)
    batch, L, H, P, G, N = sizes
    (x, of_x), (B, _), (C, of_C), (gate, of_gate) = (_rows(a) for a in (x, B, C, x if z is None else z))
    high, low = _sum_up(exponent, seq_idx, tiles)
    scores, chunks = _score(B, C, step, sizes, tiles)
    plan, fitting, kept = _plan(x, sizes, tiles, 1)
    inputs, starts, ends = (x, B, step, high, low), _flat(initial), final
    if plan[0] > 1:
        starts, ends = _starts(final, *inputs, starts, sizes, tiles, plan), None
    for window, begin, count, room in _windows(plan, fitting, chunks):
        states = x.new_empty(batch, H, room, P, N, dtype=kept)
        _carry(ends, None, states, *inputs, starts, sizes, tiles, plan, window)
        kernels.outputs[(batch * count * H * triton.cdiv(P, tiles["P_"]),)](
            y, raw if keep else None, x, C, _flat(D), None if z is None else gate, step, high, low, states, scores,
            L, H, P, G, N, begin, count, room, chunks, *of_x, *of_C, *of_gate, **tiles,
        )  # fmt: skip


def _gradients(
    x: Tensor, step: Tensor, exponent: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
    initial: Tensor | None, seq_idx: Tensor | None, raw: Tensor, grad: Tensor, grad_final: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (batch, L, H, P, G, N), tiles = _sizes(x, B)
    chunks = triton.cdiv(L, tiles["Q"])
    shares, _ = _shares(H // G, batch * chunks * G)
    return (
        x.new_empty(x.shape), step.new_empty(shares, *B.shape), step.new_empty(shares, *B.shape),
        step.new_empty((0,) if D is None else (chunks, batch, H, P)),
        x.new_empty((0,)) if z is None else z.new_empty(z.shape),
        step.new_empty(triton.cdiv(P, tiles["P_"]), *step.shape),
        step.new_empty(1 + 2 * triton.cdiv(N, tiles["N_"]), *step.shape), step.new_empty(batch, H, P, N),
    )  # fmt: skip


def _shares(heads, others):
    """Into how many programs the heads of a group go, and how many each takes."""
    share = triton.cdiv(heads, min(heads, triton.cdiv(PROGRAMS, others)))
    return triton.cdiv(heads, share), share


def _compute_gradients(
    of_x, of_B, of_C, of_D, of_z, of_step, of_exponent, of_initial,
    x, step, exponent, B, C, D, z, initial, seq_idx, raw, grad, grad_final,
):  # fmt: skip
    sizes, tiles = _sizes(x, B)
    batch, L, H, P, G, N = sizes
    if z is not None:
        z, of_gate = _rows(z)
        before, grad, cells = torch.empty_like(grad), grad.contiguous(), 1024
        gradients.ungate[(triton.cdiv(grad.numel(), cells),)](
            before, of_z, raw, z, grad, P, H, L, *of_gate, grad.numel(), CELLS=cells
        )
        grad = before
    (x, of_rows_x), (B, of_rows_B), (C, of_rows_C), (grad, of_grad) = (_rows(a) for a in (x, B, C, grad))
    sums = high, low = _sum_up(exponent, seq_idx, tiles)
    scores, chunks = _score(B, C, step, sizes, tiles)
    shares, share = _shares(H // G, batch * chunks * G)
    of_scores = step.new_empty(shares, *scores.shape)
    gradients.of_products[(batch * chunks * G * shares,)](
        of_scores, of_exponent, x, grad, step, high, low, scores, batch, L, H, P, G, share, shares, chunks,
        *of_rows_x, *of_grad, Q=tiles["Q"], P_=tiles["P_"], num_warps=tiles["num_warps"],
    )  # fmt: skip
    plan, fitting, kept = _plan(x, sizes, tiles, 2)
    starts, tails, first = _flat(initial), grad_final.contiguous(), of_initial
    inputs, backwards = (x, B, step, *sums), (grad, C, step, *sums)
    if plan[0] > 1:
        starts = _starts(torch.empty_like(of_initial), *inputs, starts, sizes, tiles, plan)
        tails, first = _starts(of_initial, *backwards, tails, sizes, tiles, plan, backwards=True), None
    for window, begin, count, room in _windows(plan, fitting, chunks):
        states = x.new_empty(batch, H, room, P, N, dtype=kept)
        slopes = torch.empty_like(states)
        _carry(None, None, states, *inputs, starts, sizes, tiles, plan, window)
        _carry(first, None, slopes, *backwards, tails, sizes, tiles, plan, window, backwards=True)
        gradients.of_inputs[(batch * count * H * triton.cdiv(P, tiles["P_"]),)](
            of_x, of_D, of_step, x, B, _flat(D), grad, step, high, low, slopes, scores, *sizes, begin, count, room,
            chunks, *of_rows_x, *of_rows_B, *of_grad, **tiles,
        )  # fmt: skip
        grid = (batch * count * G * shares * triton.cdiv(N, tiles["N_"]),)
        place = *sizes, share, shares, begin, count, room, chunks
        gradients.of_rows[grid](
            of_C, of_exponent, grad, C, B, step, high, low, states, slopes, of_scores, *place, *of_grad, *of_rows_C,
            *of_rows_B, **tiles, BACKWARDS=False, num_stages=2,
        )  # fmt: skip
        gradients.of_rows[grid](
            of_B, of_exponent, x, B, C, step, high, low, slopes, None, of_scores, *place, *of_rows_x, *of_rows_B,
            *of_rows_C, **tiles, BACKWARDS=True, num_stages=2,
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
