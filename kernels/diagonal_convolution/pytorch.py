"""Diagonal convolution in torch operations on any device, in blocks of T samples: matrix products, a loop over blocks.

Letters: U (H, M, T) the blocks of every channel, M = batch · R of them; complex numbers as pairs [real | imaginary].

    within a block     y_i = Σ_{j <= i} K_{i-j} u_j           a product with a Toeplitz matrix
    written by it      w = Σ_j d (1 + d)^{T-1-j} u_j          a product with ``write`` (T, 2 N)
    from block to block    s_{r+1} = (1 + d)^T s_r + w_r       `_carry`
    of what came before    y_i += Re c (1 + d)^{i+1} s_r      a product with ``read`` (2 N, T)
"""

import math

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.vandermonde.pytorch import flush, powers

# Samples of a block: of a short record the tables of powers cost as much as the products.
SHORT, LONG, LONG_RECORD = 32, 64, 8192


@accepts_numpy
def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_convolution`; tensors are differentiable, once."""
    return convolve(u, rate, c, initial, lengths, skip, discretization, _Blocks.apply)


def convolve(u, rate, c, initial, lengths, skip, discretization, through):
    """The convolution, whose blocks go ``through`` the products and the carry from block to block: `_Blocks`."""
    B, H, L = u.shape
    working = torch.promote_types(u.dtype, torch.float32)
    complex_dtype = torch.promote_types(working, torch.complex64)
    n = rate.shape[-1]
    R = math.ceil(L / (LONG if L > LONG_RECORD else SHORT))
    T = math.ceil(L / R)
    rate = rate.to(torch.complex128)
    d = torch.special.expm1(rate) if discretization == "zoh" else rate / (1 - rate / 2)
    # The powers are made in complex128 and cast when they are finished: that of a rounded node loses digits.
    table, _ = powers(1 + d, T + 1)  # (H, n, T + 1)
    last, table = table[..., T], flush(table.to(complex_dtype))
    d, c = d.to(complex_dtype).unsqueeze(-1), c.to(complex_dtype).unsqueeze(-1)
    kernel = torch.matmul((c * d).transpose(1, 2), table[..., :T]).squeeze(-2).real  # (H, T)
    if skip is not None:
        kernel = torch.cat([kernel[:, :1] + skip.to(working).unsqueeze(-1), kernel[:, 1:]], dim=-1)
    toeplitz = torch.nn.functional.pad(kernel, (T - 1, 0)).unfold(-1, T, 1).flip(1)  # (H, T, T): K_{i-j} from j to i
    write = d * table[..., :T].flip(-1)
    write = torch.cat([write.real, write.imag], dim=1).transpose(1, 2)
    read = c * table[..., 1:]
    read = torch.cat([read.real, -read.imag], dim=1)
    start = _pairs(u.new_zeros(H, B, n, dtype=complex_dtype) if initial is None else initial.transpose(0, 1))
    blocks = torch.nn.functional.pad(u.to(working), (0, R * T - L)).view(B, H, R, T).transpose(0, 1)
    y, begin = through(
        blocks.reshape(H, B * R, T), toeplitz.contiguous(), write.contiguous(), read.contiguous(),
        _pairs(last).to(working), start.to(working),
    )  # fmt: skip
    y = y.view(H, B, R * T)[..., :L].transpose(0, 1)
    # The state at each record's end m: of the block that holds it, q samples count.
    m = torch.full((B,), L, device=u.device) if lengths is None else lengths
    block = (m - 1).clamp(min=0) // T
    q = m - block * T
    rows = torch.arange(B, device=u.device)
    index = (m - T).unsqueeze(-1) + torch.arange(T, device=u.device)
    tail = u.to(working).gather(-1, index.clamp(min=0).unsqueeze(1).expand(B, H, T))
    tail = torch.where((index >= (block * T).unsqueeze(-1)).unsqueeze(1), tail, 0.0)
    of_tail = torch.complex(*torch.matmul(tail.transpose(0, 1), write).chunk(2, dim=-1))  # (H, B, n)
    before = torch.complex(*begin[:, rows, block].chunk(2, dim=-1))
    state = table[..., q].transpose(1, 2) * before + of_tail
    return y.to(u.dtype), state.transpose(0, 1)


def _pairs(x):
    return torch.cat([x.real, x.imag], dim=-1)


class _Blocks(torch.autograd.Function):
    """y (H, M, T) and the state at the beginning of each block (H, B, R, 2 n)."""

    @staticmethod
    def forward(ctx, blocks, toeplitz, write, read, last, start):
        H, B, _ = start.shape
        begin = torch.bmm(blocks, write)
        _carry(last, begin.view(H, B, -1, begin.shape[-1]), start)
        y = torch.bmm(blocks, toeplitz)
        y += torch.bmm(begin, read)  # baddbmm_ would copy every matrix
        ctx.save_for_backward(blocks, toeplitz, write, read, last, begin)
        ctx.batch = B
        ctx.set_materialize_grads(False)
        return y, begin.view(H, B, -1, begin.shape[-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_begin):
        blocks, toeplitz, write, read, last, begin = ctx.saved_tensors
        if grad_y is None:
            grad_y = torch.zeros_like(blocks)
        grad_y = grad_y.contiguous()
        grad = torch.bmm(grad_y, read.transpose(1, 2))
        H, _, pair = begin.shape
        shape = H, ctx.batch, -1, pair
        if grad_begin is not None:
            grad += grad_begin.reshape(grad.shape)
        grad_last, grad_start = _carry_back(last, begin.view(shape), grad.view(shape))
        grad_blocks = None
        if ctx.needs_input_grad[0]:
            grad_blocks = torch.bmm(grad_y, toeplitz.transpose(1, 2))
            grad_blocks += torch.bmm(grad, write.transpose(1, 2))
        flipped = blocks.transpose(1, 2)
        return (
            grad_blocks, torch.bmm(flipped, grad_y), torch.bmm(flipped, grad), torch.bmm(begin.transpose(1, 2), grad_y),
            grad_last, grad_start,
        )  # fmt: skip


def _carry(last, written, start):
    """What each block writes (H, B, R, 2 n) becomes, in place, the state at its beginning."""
    last, state = _complex(last).unsqueeze(1), _complex(start)
    for r in range(written.shape[2]):
        after = last * state + _complex(written[:, :, r])
        written[:, :, r] = torch.cat([state.real, state.imag], dim=-1)
        state = after


def _carry_back(last, begin, grad):
    """The gradient in the beginnings becomes, in place, that in what each block writes."""
    last = _complex(last).unsqueeze(1)
    after, grad_last = torch.zeros_like(_complex(grad[:, :, 0])), 0.0
    for r in range(grad.shape[2] - 1, -1, -1):
        here = _complex(grad[:, :, r])
        grad[:, :, r] = torch.cat([after.real, after.imag], dim=-1)
        grad_last = grad_last + (after * _complex(begin[:, :, r]).conj()).sum(1)
        after = last.conj() * after + here
    return tuple(torch.cat([x.real, x.imag], dim=-1) for x in (grad_last, after))


def _complex(pairs):
    return torch.complex(*pairs.chunk(2, dim=-1))
