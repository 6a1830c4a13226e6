"""The norm as Triton kernels: a program holds some rows of a group and reads them once, forth and back."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels import launching
from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import sigmoid, wide
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned, warps

TILE = 2048  # numbers of an array that a program holds at least
LONGEST = 65536  # channels of a group: a program holds all of them
PROGRAMS = 1024  # of the backward pass: each goes through several rows, and has a sum of its own for the weights


def unusable(*arguments, group_size=None, **options):
    if group_size is not None and group_size > LONGEST:
        return f"its groups have {LONGEST} channels at most, not {group_size}"
    return launching.unusable(*arguments)


@accepts_numpy
def rms_norm(x, weight, z=None, *, eps=1e-5, group_size=None):
    """See :func:`statespace.kernels.rms_norm`; torch tensors are differentiable, once."""
    given = x if x.is_floating_point() else x.to(torch.float32)
    z = None if z is None else _rows(z)
    return _norm(_rows(given), weight.contiguous(), z, group_size or x.shape[-1], eps).view(x.shape)


def _rows(x):
    """A matrix, in place where its rows lie at equal distances."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(1) == 1 else x.contiguous()


# Fewer warps have more numbers a thread on their way, more of them have sums that pass through shared memory.
@tuned([], warps(0.5), warps(2))
@triton.jit
def _forward(
    y, x, weight, z, x_step, z_step, rows, channels, size, eps: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    inside = (row < rows) & (column < size)
    channel = tl.program_id(1) * size + column
    v = wide(tl.load(x + row * x_step + channel, mask=inside, other=0))
    if z is not None:
        gate = wide(tl.load(z + row * z_step + channel, mask=inside, other=0)).to(v.dtype)
        v *= gate * sigmoid(gate)
    w = wide(tl.load(weight + channel, mask=column < size, other=0)).to(v.dtype)
    scale = 1 / tl.sqrt(tl.sum(v * v, 1, keep_dims=True) / size + eps)
    tl.store(y + row * channels + channel, v * scale * w, mask=inside)


@tuned([], warps(0.5), warps(2))
@triton.jit
def _backward(
    grad_x, grad_weight, grad_z, x, weight, z, grad, x_step, z_step, rows, channels, size, eps: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``grad_weight`` (programs, channels): a sum for each program, over every so many rows."""
    column = tl.arange(0, BLOCK)[None, :]
    channel = tl.program_id(1) * size + column
    total = tl.zeros((ROWS, BLOCK), grad_weight.dtype.element_ty)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        inside = (row < rows) & (column < size)
        v = wide(tl.load(x + row * x_step + channel, mask=inside, other=0))
        back = wide(tl.load(grad + row * channels + channel, mask=inside, other=0))
        given = v
        if z is not None:
            gate = wide(tl.load(z + row * z_step + channel, mask=inside, other=0)).to(v.dtype)
            open = sigmoid(gate)
            v *= gate * open
        scale = 1 / tl.sqrt(tl.sum(v * v, 1, keep_dims=True) / size + eps)
        total += scale * v * back
        # Read anew for each tile: it lies in the cache, and registers are what limits how many programs run.
        back *= wide(tl.load(weight + channel, mask=column < size, other=0)).to(v.dtype)
        along = tl.sum(back * v, 1, keep_dims=True) / size
        of_v = scale * (back - v * (scale * scale * along))
        if z is None:
            tl.store(grad_x + row * channels + channel, of_v, mask=inside)
        else:
            tl.store(grad_x + row * channels + channel, gate * open * of_v, mask=inside)
            slope = open * (1 + gate * (1 - open))
            tl.store(grad_z + row * channels + channel, given * slope * of_v, mask=inside)
    place = tl.program_id(0) * channels + channel
    tl.store(grad_weight + place, tl.sum(total, 0, keep_dims=True), mask=column < size)


def _tiles(x, size, share):
    """How many rows and columns a program holds, its warps, ``share`` numbers a thread; how many such pieces."""
    block = triton.next_power_of_2(size)
    rows = min(max(1, TILE // block), triton.next_power_of_2(len(x)))
    warps = min(max(block * rows // (32 * share), 1), 32)
    return {"ROWS": rows, "BLOCK": block, "num_warps": warps}, triton.cdiv(len(x), rows)


def _sizes(x, z, size, eps):
    return x.stride(0), 0 if z is None else z.stride(0), *x.shape, size, eps


def _outputs(x: Tensor, weight: Tensor, z: Tensor | None, size: int, eps: float) -> Tensor:
    return x.new_empty(x.shape)


def _compute(y, x, weight, z, size, eps):
    options, pieces = _tiles(x, size, 16)
    _forward[pieces, x.shape[1] // size](y, x, weight, z, *_sizes(x, z, size, eps), **options)


def _gradients(
    x: Tensor, weight: Tensor, z: Tensor | None, grad: Tensor, size: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    programs = min(_tiles(x, size, 8)[1], PROGRAMS)
    kind = torch.promote_types(torch.promote_types(x.dtype, weight.dtype), torch.float32)
    partial = x.new_empty(programs, len(weight), dtype=kind)
    return x.new_empty(x.shape), partial, x.new_empty(0) if z is None else z.new_empty(z.shape)


def _compute_gradients(grad_x, grad_weight, grad_z, x, weight, z, grad, size, eps):
    options, _ = _tiles(x, size, 8)
    grid = len(grad_weight), x.shape[1] // size
    _backward[grid](grad_x, grad_weight, grad_z, x, weight, z, grad, *_sizes(x, z, size, eps), **options)


_norm = operator("rms_norm", _outputs, _compute)
_norm_backward = operator("rms_norm_backward", _gradients, _compute_gradients)


def _keep(ctx, inputs, output):
    *tensors, ctx.size, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    x, weight, z = ctx.saved_tensors
    grad_x, partial, grad_z = _norm_backward(x, weight, z, grad.contiguous(), ctx.size, ctx.eps)
    return grad_x, partial.sum(0).to(weight.dtype), None if z is None else grad_z, None, None


_norm.register_autograd(_differentiate, setup_context=_keep)
