"""The weighted average as compiled loops over vectors of channels; threads over the vectors."""

import torch

from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, channels_back, channels_last, flat, from_lanes, to_lanes
from statespace.kernels.threads import in_parallel
from statespace.kernels.wkv.loops import SEGMENT, backward, forward
from statespace.kernels.wkv.state import NOTHING, given, taken

# Of a step of a vector, forth and back; what a thread must be worth.
OPERATIONS = 4


def wkv(w, u, k, v, state=None, dt=None):
    """See :func:`statespace.kernels.wkv`; torch tensors are differentiable, once. Narrow floats compute in float32."""
    arrays = not isinstance(k, torch.Tensor)
    w, u, k, v = (torch.as_tensor(x) for x in (w, u, k, v))
    state, dt = (None if x is None else torch.as_tensor(x) for x in (state, dt))
    B, L, D = k.shape
    given_type = torch.promote_types(k.dtype, v.dtype)
    dtype = torch.promote_types(given_type, torch.float32)
    mean, weight = taken(state, B, D, k.new_empty(0, dtype=dtype))
    sums = torch.stack([mean, (weight > NOTHING).to(dtype), weight, torch.zeros_like(weight)], dim=-1)
    # Records share their vectors of channels where these fill vectors.
    systems, gaps = (1 if D % WIDTH == 0 else B), None
    if dt is not None:
        gaps = dt.to(dtype)
        gaps = gaps[..., None].expand(B, L, WIDTH) if D % WIDTH == 0 else to_lanes(gaps[:, None].expand(B, D, L))
    y, sums = _Average.apply(
        *(to_lanes(x.to(dtype).expand(systems, D).unsqueeze(-1)) for x in (w, u)),
        *(channels_last(x.to(dtype).transpose(1, 2)) for x in (k, v)),
        gaps,
        to_lanes(sums),
    )
    y = channels_back(y, B, D).transpose(1, 2).to(given_type)
    a, b, top, drift = from_lanes(sums, B, D).unbind(-1)
    known = b > 0
    b = torch.where(known, b, 1.0)
    final = given(a / b, torch.where(known, top + drift + b.log(), NOTHING))
    return (y.numpy(), final.numpy()) if arrays else (y, final)


class _Average(torch.autograd.Function):
    """w, u (V, 1, lanes), k, v (records, L, channels), dt (records, L, lanes), sums (G, 4, lanes): see `loops.py`."""

    @staticmethod
    def forward(ctx, w, u, k, v, dt, sums):
        G, L, per, V = len(sums), k.shape[1], k.shape[2] // WIDTH, len(w)
        y, sums = torch.empty_like(k), sums.clone(memory_format=torch.contiguous_format)
        stored = k.new_empty(G if any(ctx.needs_input_grad) else 0, -(-L // SEGMENT), 4, WIDTH)
        inputs = [flat(x) for x in (w, u, k, v, dt)]
        in_parallel(forward, G, OPERATIONS * k.numel(), L, per, V, *inputs, *map(flat, (sums, y, stored)))
        ctx.save_for_backward(w, u, k, v, dt, stored)
        return y, sums

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_sums):
        w, u, k, v, dt, stored = ctx.saved_tensors
        G, L, per, V = len(grad_sums), k.shape[1], k.shape[2] // WIDTH, len(w)
        grad_sums = grad_sums.clone(memory_format=torch.contiguous_format)
        grad_w, grad_u = k.new_empty(2, G, 1, WIDTH)
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        grad_dt = k.new_empty((G, L, WIDTH) if ctx.needs_input_grad[4] else 0)
        inputs = [flat(x) for x in (w, u, k, v, dt, stored, grad_y)]
        gradients = [flat(x) for x in (grad_sums, grad_w, grad_u, grad_k, grad_v, grad_dt)]
        in_parallel(backward, G, OPERATIONS * k.numel(), L, per, V, *inputs, *gradients)
        grad_w, grad_u = (x.unflatten(0, (-1, V)).sum(0) for x in (grad_w, grad_u))
        grad_dt = grad_dt.view(-1, per, L, WIDTH).sum(1) if len(grad_dt) else None
        return grad_w, grad_u, grad_k, grad_v, grad_dt, grad_sums
