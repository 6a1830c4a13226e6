"""Steps and exponents as one Triton kernel: bias, softplus, limits, gap, rate; heads before steps; forth and back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.launching import sigmoid, softplus
from statespace.kernels.operators import operator

STEPS, HEADS = 64, 32


def steps_and_exponents(dt, A, dt_bias, gap, decay, dt_softplus, dt_limit, dtype):
    """Δ and the logarithms of the decays, both (batch, heads, length) in ``dtype``; differentiable."""
    given = (a if a is None else a.contiguous() for a in (dt, A, dt_bias, gap, decay))
    return _steps(*given, bool(dt_softplus), *map(float, dt_limit), dtype == torch.float64)


@triton.jit
def _before_limits(dt, bias, at, h, inside, H, SOFTPLUS: tl.constexpr, kind: tl.constexpr):
    """The step before softplus, and before the limits."""
    raw = tl.load(dt + at, mask=inside, other=0).to(kind)
    if bias is not None:
        raw += tl.load(bias + h, mask=h < H, other=0).to(kind)
    if SOFTPLUS:
        return raw, softplus(raw)
    else:
        return raw, raw


@triton.jit
def _forward(
    step, exponent, dt, A, bias, gap, decay, L, H,
    SOFTPLUS: tl.constexpr, LOWEST: tl.constexpr, HIGHEST: tl.constexpr, STEPS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = step.dtype.element_ty
    tiles, blocks = tl.cdiv(L, STEPS), tl.cdiv(H, HEADS)
    program = tl.program_id(0).to(tl.int64)
    b = program // (tiles * blocks)
    t = (program // blocks % tiles * STEPS + tl.arange(0, STEPS))[:, None]
    h = (program % blocks * HEADS + tl.arange(0, HEADS))[None, :]
    inside = (t < L) & (h < H)
    at = (b * L + t) * H + h
    _, size = _before_limits(dt, bias, at, h, inside, H, SOFTPLUS, kind)
    # Comparisons, and not tl.maximum, which would drop what is not a number.
    size = tl.where(size < LOWEST, LOWEST, size)
    size = tl.where(size > HIGHEST, HIGHEST, size)
    if gap is not None:
        size = size * tl.load(gap + b * L + t, mask=t < L, other=0).to(kind)
    to = (b * H + h) * L + t
    tl.store(step + to, size, mask=inside)
    if decay is None:
        tl.store(exponent + to, size * tl.load(A + h, mask=h < H, other=0).to(kind), mask=inside)
    else:
        tl.store(exponent + to, tl.load(decay + at, mask=inside, other=0).to(kind), mask=inside)


@triton.jit
def _backward(
    of_dt, of_A, of_bias, of_gap, of_decay, dt, A, bias, gap, decay, of_step, of_exponent, L, H, records,
    SOFTPLUS: tl.constexpr, LOWEST: tl.constexpr, HIGHEST: tl.constexpr, STEPS: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """``of_A`` and ``of_bias`` (tiles of steps, records, H): a sum for each program."""
    kind: tl.constexpr = of_step.dtype.element_ty
    tiles = tl.cdiv(L, STEPS)
    program = tl.program_id(0).to(tl.int64)
    b, tile = program // tiles, program % tiles
    t = (tile * STEPS + tl.arange(0, STEPS))[:, None]
    of_gaps = tl.zeros((STEPS, 1), kind)
    for block in range(tl.cdiv(H, HEADS)):
        h = (block * HEADS + tl.arange(0, HEADS))[None, :]
        inside = (t < L) & (h < H)
        at, own = (b * L + t) * H + h, (b * H + h) * L + t
        raw, size = _before_limits(dt, bias, at, h, inside, H, SOFTPLUS, kind)
        within = inside & (size >= LOWEST) & (size <= HIGHEST)
        size = tl.where(size < LOWEST, LOWEST, size)
        size = tl.where(size > HIGHEST, HIGHEST, size)
        of_size = tl.load(of_step + own, mask=inside, other=0)
        rates = tl.load(of_exponent + own, mask=inside, other=0)
        sums = (tile * records + b) * H + h
        long = 1.0
        if gap is not None:
            long = tl.load(gap + b * L + t, mask=t < L, other=0).to(kind)
        if decay is None:
            of_size += rates * tl.load(A + h, mask=h < H, other=0).to(kind)
            tl.store(of_A + sums, tl.sum(rates * tl.where(inside, size * long, 0), 0, keep_dims=True), mask=h < H)
        else:
            tl.store(of_decay + at, rates, mask=inside)
        of_gaps += tl.sum(of_size * size, 1, keep_dims=True)
        slope = tl.where(within, of_size * long, 0)
        if SOFTPLUS:
            slope *= sigmoid(raw)
        tl.store(of_dt + at, slope, mask=inside)
        if bias is not None:
            tl.store(of_bias + sums, tl.sum(slope, 0, keep_dims=True), mask=h < H)
    if gap is not None:
        tl.store(of_gap + b * L + t, of_gaps, mask=t < L)


def _allocate(
    dt: Tensor, A: Tensor | None, bias: Tensor | None, gap: Tensor | None, decay: Tensor | None,
    softplus: bool, lowest: float, highest: float, double: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch, L, H = dt.shape
    shape, dtype = (batch, H, L), torch.float64 if double else torch.float32
    return dt.new_empty(shape, dtype=dtype), dt.new_empty(shape, dtype=dtype)


def _compute(step, exponent, dt, A, bias, gap, decay, softplus, lowest, highest, double):
    batch, L, H = dt.shape
    grid = (batch * triton.cdiv(L, STEPS) * triton.cdiv(H, HEADS),)
    given = step, exponent, dt, A, bias, gap, decay, L, H
    _forward[grid](*given, SOFTPLUS=softplus, LOWEST=lowest, HIGHEST=highest, STEPS=STEPS, HEADS=HEADS)


def _gradients(
    dt: Tensor, A: Tensor | None, bias: Tensor | None, gap: Tensor | None, decay: Tensor | None,
    softplus: bool, lowest: float, highest: float, of_step: Tensor, of_exponent: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    batch, L, H = dt.shape
    partial = triton.cdiv(L, STEPS), batch, H

    def empty(given, shape, dtype):
        return dt.new_empty((0,) if given is None else shape, dtype=dtype)

    return (
        dt.new_empty(dt.shape), empty(A, partial, of_step.dtype), empty(bias, partial, of_step.dtype),
        empty(gap, (batch, L), of_step.dtype), empty(decay, dt.shape, of_step.dtype),
    )  # fmt: skip


def _compute_gradients(
    of_dt, of_A, of_bias, of_gap, of_decay, dt, A, bias, gap, decay, softplus, lowest, highest, of_step, of_exponent
):
    batch, L, H = dt.shape
    given = of_dt, of_A, of_bias, of_gap, of_decay, dt, A, bias, gap, decay, of_step, of_exponent, L, H, batch
    _backward[(batch * triton.cdiv(L, STEPS),)](
        *given, SOFTPLUS=softplus, LOWEST=lowest, HIGHEST=highest, STEPS=STEPS, HEADS=HEADS
    )


_steps = operator("ssd_steps", _allocate, _compute)
_steps_backward = operator("ssd_steps_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:5])
    ctx.options = inputs[5:8]


def _differentiate(ctx, of_step, of_exponent):
    dt, A, bias, gap, decay = ctx.saved_tensors
    of_dt, of_A, of_bias, of_gap, of_decay = _steps_backward(
        dt, A, bias, gap, decay, *ctx.options, of_step.contiguous(), of_exponent.contiguous()
    )
    return (
        of_dt,
        None if A is None else of_A.sum((0, 1)).to(A.dtype),
        None if bias is None else of_bias.sum((0, 1)).to(bias.dtype),
        None if gap is None else of_gap.to(gap.dtype),
        None if decay is None else of_decay.to(decay.dtype),
        None, None, None, None,
    )  # fmt: skip


_steps.register_autograd(_differentiate, setup_context=_keep)
