"""The two-level product as Triton kernels: a program makes its part of both tables of powers and multiplies them.

Letters: H rows of N nodes x, l = iM + j. A tile of the result has some i and some j: left (i, N) holds c x^(iM), right
(N, j) holds x^j, and neither is ever in memory. Powers are products of repeated squares in float64; only what is
multiplied as matrices is cast. Float32 products are made of three of TF32, which keeps 22 bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import product, unusable  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned, warps

# The largest side of a tile, and the nodes of one matrix product.
SIDE, NODES = 64, 16


@accepts_numpy
def vandermonde(c, x, L, *, log_nodes=False, real=False):
    """See :func:`statespace.kernels.vandermonde`; torch tensors are differentiable, once."""
    c, x = torch.broadcast_tensors(c, x)
    dtype = torch.promote_types(torch.promote_types(c.dtype, x.dtype), torch.complex64)
    # A power of a float32 node has lost three digits by l = 4096.
    nodes = x.to(torch.complex128)
    nodes = torch.exp(nodes) if log_nodes else nodes
    kernel = _product(_rows(c.to(dtype)), _rows(nodes), L, real)
    return (kernel if real else torch.view_as_complex(kernel)).view(*c.shape[:-1], L)


def _rows(x):
    return torch.view_as_real(x.resolve_conj()).reshape(-1, x.shape[-1], 2)


@triton.jit
def _powers(c, d, e, bits):
    """(c + id)^e for whole numbers e below 2^bits."""
    a = tl.zeros_like(c + e) + 1
    b = tl.zeros_like(a)
    for bit in range(bits):
        r, s = product(a, b, c, d)
        taken = (e >> bit) & 1 == 1
        a, b = tl.where(taken, r, a), tl.where(taken, s, b)
        c, d = product(c, d, c, d)
    return a, b


@triton.jit
def _squared(c, d, times):
    """(c + id)^(2^times)."""
    for _ in range(times):
        c, d = product(c, d, c, d)
    return c, d


@triton.jit
def _coarse(c, d, i, first, level, bits, side):
    """x^(iM) for i = first .. and M = 2^level; ``side`` is the logarithm of how many there are."""
    c, d = _squared(c, d, level)
    a, b = _powers(c, d, tl.zeros_like(i) + first, bits)
    e, f = _powers(c, d, i - first, side)
    return product(a, b, e, f)


@triton.jit
def _dot(a, b, total):
    return tl.dot(a, b, total, input_precision="tf32x3", out_dtype=total.dtype)


@tuned(["N"], warps(0.5), {"NODES": 2 * NODES})
@triton.jit
def _forward(
    kernel, weights, nodes, N, L, level, bits, tiles, across,
    REAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NODES: tl.constexpr,
    ROW_BITS: tl.constexpr, COLUMN_BITS: tl.constexpr,
):  # fmt: skip
    """``tiles`` of a row, ``across`` of them beside each other; M = 2^level."""
    h, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    first, start = tile // across * ROWS, tile % across * COLUMNS
    i, j = first + tl.arange(0, ROWS), start + tl.arange(0, COLUMNS)
    # No power beyond the last: of a node that grows it may be infinite, and nothing times infinity is no number.
    rows = tl.minimum(i, (L - 1) >> level)[:, None]
    real = tl.zeros((ROWS, COLUMNS), kernel.dtype.element_ty)
    imaginary = real
    for begin in range(0, N, NODES):
        n = begin + tl.arange(0, NODES)
        at, inside = 2 * (h * N + n), n < N
        c, d = tl.load(nodes + at, mask=inside, other=0.0), tl.load(nodes + at + 1, mask=inside, other=0.0)
        v, w = tl.load(weights + at, mask=inside, other=0.0), tl.load(weights + at + 1, mask=inside, other=0.0)
        a, b = _coarse(c[None, :], d[None, :], rows, first, level, bits, ROW_BITS)
        a, b = product(a, b, v[None, :], w[None, :])
        e, f = _powers(c, d, tl.zeros_like(n) + start, bits)
        g, k = _powers(c[:, None], d[:, None], tl.minimum(j - start, L - 1)[None, :], COLUMN_BITS)
        e, f = product(e[:, None], f[:, None], g, k)
        a, b, e, f = a.to(real.dtype), b.to(real.dtype), e.to(real.dtype), f.to(real.dtype)
        real = _dot(a, e, real)
        real = _dot(-b, f, real)
        if not REAL:
            imaginary = _dot(a, f, imaginary)
            imaginary = _dot(b, e, imaginary)
    l = (i.to(tl.int64)[:, None] << level) + j[None, :]
    if REAL:
        tl.store(kernel + h * L + l, real, mask=l < L)
    else:
        tl.store(kernel + 2 * (h * L + l), real, mask=l < L)
        tl.store(kernel + 2 * (h * L + l) + 1, imaginary, mask=l < L)


@tuned(["N", "L"], warps(0.5))
@triton.jit
def _backward(
    sums, nodes, grad, H, N, L, level, bits, tiles, blocks,
    REAL: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, NODES: tl.constexpr,
    ROW_BITS: tl.constexpr, COLUMN_BITS: tl.constexpr,
):  # fmt: skip
    """Of some i: Σ g_l (x^l)‾ or Σ g_l (l x^(l-1))‾, ``sums`` (2, tiles, H, N, 2); ``tiles`` of i, ``blocks`` of nodes.

    The second is Σ (l + 1) g_{l+1} (x^l)‾, which a node of zero does not divide by.
    """
    rest, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    rest, tile = rest // tiles, rest % tiles
    slope, h = rest % 2, (rest // 2).to(tl.int64)
    first = tile * ROWS
    i, n = first + tl.arange(0, ROWS), block * NODES + tl.arange(0, NODES)
    inside = n < N
    at = 2 * (h * N + n)
    c, d = tl.load(nodes + at, mask=inside, other=0.0), tl.load(nodes + at + 1, mask=inside, other=0.0)
    j = tl.arange(0, COLUMNS)
    e, f = _powers(c[None, :], d[None, :], tl.minimum(j, L - 1)[:, None], COLUMN_BITS)
    c_side, d_side = _squared(c, d, COLUMN_BITS)
    s = tl.zeros((ROWS, NODES), grad.dtype.element_ty)
    o = s
    for start in range(0, 1 << level, COLUMNS):
        l = (i.to(tl.int64)[:, None] << level) + start + j[None, :] + slope
        times = tl.where(slope == 1, l, 1).to(s.dtype)
        a, b = e.to(s.dtype), f.to(s.dtype)
        if REAL:
            g = times * tl.load(grad + h * L + l, mask=l < L, other=0.0)
            s, o = _dot(g, a, s), _dot(g, -b, o)
        else:
            g = times * tl.load(grad + 2 * (h * L + l), mask=l < L, other=0.0)
            s, o = _dot(g, a, s), _dot(g, -b, o)
            g = times * tl.load(grad + 2 * (h * L + l) + 1, mask=l < L, other=0.0)
            s, o = _dot(g, b, s), _dot(g, a, o)
        e, f = product(e, f, c_side[None, :], d_side[None, :])
    i = tl.minimum(i, (L - 1) >> level)
    a, b = _coarse(c[None, :], d[None, :], i[:, None], first, level, bits, ROW_BITS)
    s, o = product(a, -b, s, o)
    to = 2 * (((slope * tiles + tile) * H + h) * N + n)
    tl.store(sums + to, tl.sum(s, 0), mask=inside)
    tl.store(sums + to + 1, tl.sum(o, 0), mask=inside)


def _kernels(weights: Tensor, nodes: Tensor, L: int, real: bool) -> Tensor:
    return weights.new_empty(len(weights), L) if real else weights.new_empty(len(weights), L, 2)


def _compute(kernel, weights, nodes, L, real):
    (H, N, _), (level, rows, tile) = weights.shape, _tile(L, real)
    across = (1 << level) // tile["COLUMNS"]
    tiles = rows * across
    _forward[(H * tiles,)](
        kernel, weights.contiguous(), nodes.contiguous(), N, L, level, L.bit_length(), tiles, across, REAL=real, **tile
    )


def _of_powers(nodes: Tensor, grad: Tensor, L: int, real: bool) -> Tensor:
    return nodes.new_empty(2, _tile(L, real, 2)[1], *nodes.shape)


def _compute_of_powers(sums, nodes, grad, L, real):
    (H, N, _), (level, rows, tile) = nodes.shape, _tile(L, real, 2)
    blocks = triton.cdiv(N, NODES)
    _backward[(2 * H * rows * blocks,)](
        sums, nodes.contiguous(), grad, H, N, L, level, L.bit_length(), rows, blocks, REAL=real, **tile
    )


def _tile(L, real, narrower=1):
    """The logarithm of M, about √L, how many tiles lie below each other, and what the kernels want to know of one."""
    widest = SIDE // narrower // (1 if real else 2)
    level = max(4, (L - 1).bit_length() + 1 >> 1)
    i = triton.cdiv(L, 1 << level)
    side, columns = min(SIDE, max(16, triton.next_power_of_2(i))), min(widest, 1 << level)
    tile = {"ROWS": side, "COLUMNS": columns, "NODES": NODES, "num_warps": 8, "num_stages": 1}
    tile |= {"ROW_BITS": side.bit_length() - 1, "COLUMN_BITS": columns.bit_length() - 1}
    return level, triton.cdiv(i, side), tile


_product = operator("vandermonde", _kernels, _compute)
_product_backward = operator("vandermonde_backward", _of_powers, _compute_of_powers)


def _keep(ctx, inputs, output):
    weights, nodes, ctx.length, ctx.real = inputs
    ctx.save_for_backward(weights, nodes)


def _differentiate(ctx, grad):
    weights, nodes = ctx.saved_tensors
    of_weights, slope = _product_backward(nodes, grad.contiguous(), ctx.length, ctx.real).sum(1).unbind(0)
    of_nodes = torch.view_as_complex(slope) * torch.view_as_complex(weights.double()).conj()
    return of_weights.to(weights.dtype), torch.view_as_real(of_nodes), None, None


_product.register_autograd(_differentiate, setup_context=_keep)
