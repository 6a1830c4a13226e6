"""The mixes as Triton kernels: a program for some channels of some steps, forth and back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import unusable, wide  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned, warps

STEPS, CHANNELS = 32, 64


@accepts_numpy
def token_shift(u, mix, register=None):
    """See :func:`statespace.kernels.token_shift`; torch tensors are differentiable, once."""
    register = torch.zeros_like(u[:, 0]) if register is None else register.to(u.dtype)
    return _shift(u.contiguous(), mix.to(u.dtype).contiguous(), register.contiguous()).unbind(0)


@triton.jit
def _tile(L, D, STEPS: tl.constexpr, CHANNELS: tl.constexpr):
    """The steps and channels of this program, where its record begins, and what is the record's own."""
    t = tl.program_id(0) * STEPS + tl.arange(0, STEPS)[:, None]
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    return t, d, tl.program_id(2).to(tl.int64) * L * D, (t < L) & (d < D)


@triton.jit
def _before(u, register, at, t, d, D, inside):
    """The sample before each: the register's before the first."""
    before = wide(tl.load(u + at - D, mask=inside & (t > 0), other=0))
    return before + wide(tl.load(register + tl.program_id(2) * D + d, mask=inside & (t == 0), other=0))


# A program passes over its tile once: how many warps share it decides how many numbers are on their way at a time.
@tuned(["D", "J"], warps(2))
@triton.jit
def _forward(x, u, mix, register, L, D, J, size, STEPS: tl.constexpr, CHANNELS: tl.constexpr):
    t, d, start, inside = _tile(L, D, STEPS, CHANNELS)
    at = start + t * D + d
    now, before = wide(tl.load(u + at, mask=inside, other=0)), _before(u, register, at, t, d, D, inside)
    for j in range(J):
        row = wide(tl.load(mix + j * D + d, mask=d < D, other=0))
        tl.store(x + size * j + at, before + row * (now - before), mask=inside)


@tuned(["D", "J"], warps(2))
@triton.jit
def _backward(
    grad_u, grad_mix, grad_register, u, mix, register, grad, L, D, J, size, STEPS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """``grad_mix`` (steps' tiles, records, J, D): a sum for each program."""
    t, d, start, inside = _tile(L, D, STEPS, CHANNELS)
    at = start + t * D + d
    now, before = wide(tl.load(u + at, mask=inside, other=0)), _before(u, register, at, t, d, D, inside)
    total = tl.zeros_like(now)
    first = tl.zeros_like(now)
    partial = (tl.program_id(0) * tl.num_programs(2) + tl.program_id(2)) * J * D
    for j in range(J):
        row = wide(tl.load(mix + j * D + d, mask=d < D, other=0))
        own = wide(tl.load(grad + size * j + at, mask=inside, other=0))
        later = wide(tl.load(grad + size * j + at + D, mask=inside & (t + 1 < L), other=0))
        total += row * own + (1 - row) * later
        first += (1 - row) * own
        tl.store(grad_mix + partial + j * D + d, tl.sum(own * (now - before), 0, keep_dims=True), mask=d < D)
    tl.store(grad_u + at, total, mask=inside)
    tl.store(grad_register + tl.program_id(2) * D + d + t * 0, first, mask=inside & (t == 0))


def _mixes(u: Tensor, mix: Tensor, register: Tensor) -> Tensor:
    return u.new_empty(len(mix), *u.shape)


def _compute(x, u, mix, register):
    _forward[_grid(u)](x, u, mix, register, *_sizes(u, mix), STEPS=STEPS, CHANNELS=CHANNELS)


def _gradients(u: Tensor, mix: Tensor, register: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    partial = mix.new_empty(_grid(u)[0], len(u), *mix.shape, dtype=torch.promote_types(mix.dtype, torch.float32))
    return u.new_empty(u.shape), partial, register.new_empty(register.shape)


def _compute_gradients(grad_u, grad_mix, grad_register, u, mix, register, grad):
    results = grad_u, grad_mix, grad_register
    _backward[_grid(u)](*results, u, mix, register, grad, *_sizes(u, mix), STEPS=STEPS, CHANNELS=CHANNELS)


def _grid(u):
    return triton.cdiv(u.shape[1], STEPS), triton.cdiv(u.shape[2], CHANNELS), len(u)


def _sizes(u, mix):
    return u.shape[1], u.shape[2], len(mix), u.numel()


_shift = operator("token_shift", _mixes, _compute)
_shift_backward = operator("token_shift_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad):
    u, mix, register = ctx.saved_tensors
    grad_u, partial, grad_register = _shift_backward(u, mix, register, grad.contiguous())
    return grad_u, partial.sum((0, 1)).to(mix.dtype), grad_register


_shift.register_autograd(_differentiate, setup_context=_keep)
