"""Rows of length 1, as Triton kernels: what `qk_l2norm` makes of queries and keys."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.delta_rule import SHORTEST
from statespace.kernels.launching import wide
from statespace.kernels.operators import operator

TILE = 2048  # numbers of a program


def unit_rows(x):
    """x divided by the length of its last axis, or by `SHORTEST` where that is longer."""
    return _unit(x.contiguous())


@triton.jit
def _forward(y, x, rows, width, SHORTEST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    at, inside = row.to(tl.int64) * width + column, (row < rows) & (column < width)
    given = wide(tl.load(x + at, mask=inside, other=0))
    length = tl.maximum(tl.sqrt(tl.sum(given * given, 1, keep_dims=True)), SHORTEST)
    tl.store(y + at, given / length, mask=inside)


@triton.jit
def _backward(grad_x, x, grad, rows, width, SHORTEST: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    at, inside = row.to(tl.int64) * width + column, (row < rows) & (column < width)
    given = wide(tl.load(x + at, mask=inside, other=0))
    back = wide(tl.load(grad + at, mask=inside, other=0))
    length = tl.sqrt(tl.sum(given * given, 1, keep_dims=True))
    unit = given / tl.maximum(length, SHORTEST)
    along = tl.where(length > SHORTEST, tl.sum(unit * back, 1, keep_dims=True), 0.0)
    tl.store(grad_x + at, (back - unit * along) / tl.maximum(length, SHORTEST), mask=inside)


def _launch(kernel, x, *tensors):
    width = x.shape[-1]
    block = triton.next_power_of_2(width)
    rows = max(1, TILE // block)
    count = x.numel() // width
    kernel[(triton.cdiv(count, rows),)](*tensors, count, width, SHORTEST=SHORTEST, ROWS=rows, BLOCK=block)


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _compute(y, x):
    _launch(_forward, x, y, x)


def _empty_gradient(x: Tensor, grad: Tensor) -> Tensor:
    return torch.empty_like(x)


def _compute_gradient(grad_x, x, grad):
    _launch(_backward, x, grad_x, x, grad)


_unit = operator("unit_rows", _empty, _compute)
_unit_backward = operator("unit_rows_backward", _empty_gradient, _compute_gradient)


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad):
    return _unit_backward(*ctx.saved_tensors, grad.contiguous())


_unit.register_autograd(_differentiate, setup_context=_keep)
