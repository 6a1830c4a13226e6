"""The weighted average on a GPU: a program for some channels of a record, or of a segment of it where records are few.

Segments are summed up first, each from nothing, and each then begins with what those before it come to. The kernels
are in `triton_loops.py`; sums (B, 4, D) are numerator a, denominator b and the exponent as a pair, as in `loops.py`.
"""

from math import isqrt

import torch
import triton
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import unusable  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.wkv.state import NOTHING, given, taken
from statespace.kernels.wkv.triton_loops import STEPS, backward, forward, summary, summary_backward

CHANNELS = 64  # of a program of one warp; backward one a thread
PROGRAMS = 4096  # that keep a large GPU busy
SHORTEST = 256  # steps of a segment


@accepts_numpy
def wkv(w, u, k, v, state=None, dt=None):
    """See :func:`statespace.kernels.wkv`; torch tensors are differentiable, once. Narrow floats compute in float32."""
    B, _, D = k.shape
    given_type = torch.promote_types(k.dtype, v.dtype)
    dtype = torch.promote_types(given_type, torch.float32)
    mean, weight = taken(state, B, D, k.new_empty(0, dtype=dtype))
    start = torch.stack([mean, (weight > NOTHING).to(dtype), weight, torch.zeros_like(weight)], dim=1)
    k, v = k.to(given_type).contiguous(), v.to(given_type).contiguous()
    w, u = w.to(dtype).contiguous(), u.to(dtype).contiguous()
    dt = None if dt is None else dt.to(dtype).contiguous()
    needed = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (w, u, k, v, dt, start))
    y, sums, _ = _average(w, u, k, v, dt, start, needed)
    a, b, top, drift = sums.unbind(1)
    known = b > 0
    b = torch.where(known, b, 1.0)
    return y, given(a / b, torch.where(known, top + drift + b.log(), NOTHING))


def _split(k):
    """How many steps a segment has, and how many segments there are."""
    B, L, D = k.shape
    wanted = PROGRAMS // (B * triton.cdiv(D, CHANNELS))
    # All but the last one are read twice, which a few programs more are not worth.
    segments = max(1, min(wanted, L // SHORTEST, isqrt(L))) if wanted >= 4 else 1
    span = triton.cdiv(triton.cdiv(L, segments), STEPS) * STEPS
    return span, triton.cdiv(L, span)


def _sums(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, start: Tensor, needed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    B, L, D = k.shape
    stored = start.new_empty((B, triton.cdiv(L, STEPS), 4, D) if needed else (0,))
    return k.new_empty(k.shape), start.new_empty(start.shape), stored


def _compute(y, final, stored, w, u, k, v, dt, start, needed):
    B, L, D = k.shape
    span, segments = _split(k)
    pieces = start.new_empty(B, segments, 5, D)
    sizes = L, D, span, segments

    def grid(options):
        return B * segments, triton.cdiv(D, options["CHANNELS"])

    if segments > 1:
        summary[grid](pieces, w, k, v, dt, *sizes, CHANNELS=CHANNELS, num_warps=1)
    forward[grid](
        y,
        final,
        stored,
        w,
        u,
        k,
        v,
        dt,
        start,
        pieces,
        *sizes,
        KEEP=needed,
        STEPS=STEPS,
        CHANNELS=CHANNELS,
        num_warps=1,
    )


def _gradients(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, dt: Tensor | None, stored: Tensor, grad_y: Tensor, grad_final: Tensor,
    of_dt: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    (B, L, D), (_, segments) = k.shape, _split(k)
    partial = stored.new_empty(B * segments, D)
    gaps = stored.new_empty((B, triton.cdiv(D, 32), L) if of_dt else (0,))
    empty = k.new_empty(k.shape), v.new_empty(v.shape), gaps, stored.new_empty(grad_final.shape)
    return partial, torch.empty_like(partial), *empty


def _compute_gradients(
    grad_w, grad_u, grad_k, grad_v, grad_dt, grad_start, w, u, k, v, dt, stored, grad_y, grad_final, of_dt
):
    B, L, D = k.shape
    span, segments = _split(k)
    pieces = stored.new_empty(B, segments, 3, D)
    inputs, sizes, grid = (w, u, k, v, dt, stored, grad_y), (L, D, span, segments), (B * segments, triton.cdiv(D, 32))
    if segments > 1:
        summary_backward[grid](pieces, *inputs, *sizes, STEPS=STEPS, CHANNELS=32, num_warps=1)
    results = grad_w, grad_u, grad_k, grad_v, grad_dt, grad_start
    backward[grid](*results, *inputs, grad_final, pieces, *sizes, OF_DT=of_dt, STEPS=STEPS, CHANNELS=32, num_warps=1)


_average = operator("wkv", _sums, _compute)
_average_backward = operator("wkv_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:5], output[2])


def _differentiate(ctx, grad_y, grad_final, _):
    dt = ctx.saved_tensors[4]
    of_dt = dt is not None and ctx.needs_input_grad[4]
    grads = _average_backward(*ctx.saved_tensors, grad_y.contiguous(), grad_final.contiguous(), of_dt)
    grad_w, grad_u, grad_k, grad_v, grad_dt, grad_start = grads
    return grad_w.sum(0), grad_u.sum(0), grad_k, grad_v, grad_dt.sum(1) if of_dt else None, grad_start, None


_average.register_autograd(_differentiate, setup_context=_keep)
