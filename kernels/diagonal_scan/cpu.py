"""Diagonal scan as compiled loops over vectors of channels; threads over the vectors."""

import math

import torch

from statespace.kernels.diagonal_scan.decay import NEAR, TURNS
from statespace.kernels.diagonal_scan.loops import BILINEAR, LN2, SEGMENT, UNROLLED, backward, forward
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, channels_back, channels_last, flat, from_lanes, to_lanes
from statespace.kernels.threads import in_parallel


def diagonal_scan(u, dt, rate, c, initial=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_scan`; torch tensors are differentiable, once."""
    arrays = not isinstance(u, torch.Tensor)
    u, rate, c = (torch.as_tensor(x) for x in (u, rate, c))
    dt, initial, skip = (None if x is None else torch.as_tensor(x) for x in (dt, initial, skip))
    y, state = scan(u, dt, rate, c, initial, skip, {"zoh": None, "bilinear": BILINEAR}[discretization])
    return (y.numpy(), state.numpy()) if arrays else (y, state)


def scan(u, dt, rate, c, initial, skip, rule):
    """Tensors in the shapes of :func:`statespace.kernels.diagonal_scan`; without ``dt`` all gaps are 1.

    The rule is None (zero-order hold), ``BILINEAR``, or ``LINEAR``, for which d = Δ · rate.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    (B, H, L), n = u.shape, rate.shape[-1]
    rate = rate.to(torch.complex128)
    if dt is None and rule is None:
        rate = torch.special.expm1(rate)
    elif dt is None and rule == BILINEAR:
        rate = rate / (1 - rate / 2)
    rule = None if dt is None else rule
    groups = -(-B * H // WIDTH)
    if initial is None:
        state = u.new_zeros(groups, -(-n // UNROLLED) * UNROLLED, 2, WIDTH, dtype=dtype)
    else:
        state = _parts_to_lanes(initial).to(dtype)
    skip = torch.zeros(1, dtype=dtype) if skip is None else skip.to(dtype)
    # Records share their vectors of systems where their channels fill vectors.
    systems, gaps = (1 if H % WIDTH == 0 else B), None
    if dt is not None:
        # The channels of a vector belong to one record, or each to its own.
        gaps = dt.to(dtype)
        gaps = gaps[..., None].expand(B, L, WIDTH) if H % WIDTH == 0 else to_lanes(gaps[:, None].expand(B, H, L))
    y, final = _Scan.apply(
        channels_last(u.to(dtype)),
        gaps,
        _parts_to_lanes(rate.expand(systems, H, n)),
        _parts_to_lanes(c.expand(systems, H, n)).to(dtype),
        to_lanes(skip.expand(systems, H).unsqueeze(-1)),
        state,
        rule,
    )
    final = from_lanes(final.flatten(1, 2), B, H).unflatten(-1, (-1, 2))[..., :n, :]
    return channels_back(y, B, H).to(u.dtype), torch.view_as_complex(final.contiguous())


def _parts_to_lanes(x):
    """Complex (B, H, n) -> real (G, n filled up, 2, lanes)."""
    x = torch.nn.functional.pad(x, (0, -x.shape[-1] % UNROLLED))
    return to_lanes(torch.view_as_real(x.resolve_conj()).flatten(2)).unflatten(1, (-1, 2))


class _Scan(torch.autograd.Function):
    """u and y (records, L, channels), dt (records, L, lanes), state (G, n, 2, lanes); see `loops.py`.

    rate (in float64) and c are (V, n, 2, lanes), skip (V, 1, lanes).
    """

    @staticmethod
    def forward(ctx, u, dt, rate, c, skip, state, rule):
        (G, n, _, _), V = state.shape, len(rate)
        L, per = u.shape[1], u.shape[2] // WIDTH
        if dt is not None and rule is None:
            turns = rate[:, :, 1] / (2 * math.pi)
            high = turns.to(u.dtype)
            fields = rate[:, :, 0] / LN2, high, turns - high
        else:
            fields = rate[:, :, 0], rate[:, :, 1], torch.zeros_like(rate[:, :, 0])
        fields, near = torch.stack([x.to(u.dtype) for x in fields], dim=2), None
        if dt is not None and rule is None:
            decay, frequency, _ = (fields.abs().amax(-1) * dt.max()).unbind(2)
            near = ((decay <= NEAR) & (frequency <= TURNS)).unflatten(1, (-1, UNROLLED)).all(-1)
        y, final = torch.empty_like(u), state.clone(memory_format=torch.contiguous_format)
        stored = u.new_empty(G if any(ctx.needs_input_grad) else 0, -(-L // SEGMENT), n, 2, WIDTH)
        inputs = [flat(x) for x in (u, dt, fields, near, c, skip)]
        in_parallel(forward, G, u.numel() * n, L, n, per, V, *inputs, *map(flat, (final, y, stored)), rule)
        ctx.save_for_backward(u, dt, fields, near, c, skip, stored)
        ctx.rule = rule
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        u, dt, fields, near, c, skip, stored = ctx.saved_tensors
        (G, n, _, _), V = grad_final.shape, len(fields)
        L, per = u.shape[1], u.shape[2] // WIDTH
        grad_state = grad_final.clone(memory_format=torch.contiguous_format)
        grad_u, grad_dt = torch.empty_like(u), u.new_zeros((G, L, WIDTH) if ctx.needs_input_grad[1] else 0)
        grad_rate, grad_c = torch.zeros_like(grad_state), torch.zeros_like(grad_state)
        grad_skip = grad_state.new_zeros(G, 1, WIDTH)
        inputs = [flat(x) for x in (u, dt, fields, near, c, skip, stored, grad_y)]
        gradients = [flat(x) for x in (grad_state, grad_u, grad_dt, grad_rate, grad_c, grad_skip)]
        in_parallel(backward, G, u.numel() * n, L, n, per, V, *inputs, *gradients, ctx.rule)
        grad_dt = grad_dt.view(-1, per, L, WIDTH).sum(1) if len(grad_dt) else None
        grad_rate, grad_c, grad_skip = (x.unflatten(0, (-1, V)).sum(0) for x in (grad_rate, grad_c, grad_skip))
        return grad_u, grad_dt, grad_rate.double(), grad_c, grad_skip, grad_state, None
