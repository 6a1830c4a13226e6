"""Cauchy products as Triton kernels: a program for a block of a system's nodes, or for its poles on the way back.

Letters: S systems with z (S, L) and w (S, n) of their own, V sums over the same reciprocals, v (S, V, n); complex
numbers as pairs along a last axis. Precision is that of the arguments: a kernel is bound by arithmetic, and float64
has half the rate of float32 at best.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.launching import reciprocal, unusable  # noqa: F401
from statespace.kernels.operators import operator
from statespace.kernels.tuning import tuned, warps

# A node for each thread of four warps, and as many sums over the same reciprocal as its registers hold.
NODES, MOST_SUMS = 128, 8
# The programs that fill a GPU; and the fewest nodes for which a sum over nodes is worth a program of its own.
PROGRAMS, FEWEST_NODES = 2048, 1024


@accepts_numpy
def cauchy(v, z, w, *, conjugate=False):
    """See :func:`statespace.kernels.cauchy`; torch tensors are differentiable, once."""
    dtype = torch.promote_types(torch.promote_types(v.dtype, z.dtype), torch.promote_types(w.dtype, torch.complex64))
    n = max(v.shape[-1], w.shape[-1])
    leading = torch.broadcast_shapes(v.shape[:-1], z.shape[:-1], w.shape[:-1])
    # An axis that only v has: several sums over the same reciprocals.
    shared = len(leading) > 0 and all(x.ndim == 1 or x.shape[-2] == 1 for x in (z, w))
    systems, sums = (leading[:-1], leading[-1]) if shared else (leading, 1)
    z, w = (x.squeeze(-2) if shared and x.ndim > 1 else x for x in (z, w))
    k = _product(
        _pairs(v, dtype).expand(*leading, n, 2).reshape(-1, sums, n, 2),
        _pairs(z, dtype).expand(*systems, z.shape[-1], 2).reshape(-1, z.shape[-1], 2),
        _pairs(w, dtype).expand(*systems, n, 2).reshape(-1, n, 2),
        conjugate,
    )
    return torch.view_as_complex(k).view(*leading, -1)


def _pairs(x, dtype):
    return torch.view_as_real(x.to(dtype).resolve_conj())


@triton.jit
def _load(x, at, mask, other=0.0):
    return tl.load(x + at, mask=mask, other=other), tl.load(x + at + 1, mask=mask, other=other)


@triton.jit
def _place(blocks, V, SUMS: tl.constexpr):
    """The system, the block of sums, how many there are, and the block of nodes or poles of this program."""
    parts = tl.cdiv(V, SUMS)
    rest = tl.program_id(0) // blocks
    return (rest // parts).to(tl.int64), rest % parts, parts, tl.program_id(0) % blocks


@triton.jit
def _denominator(x, y, c, d, CONJUGATE: tl.constexpr):
    """z − w, or (z − w)(z − w̄), whose real part as a product keeps its digits near the pole."""
    p = x - c
    if CONJUGATE:
        return p * p + (d - y) * (d + y), 2 * p * y
    else:
        return p, y - d


# Two nodes a thread read a pole once for both.
@tuned(["n"], {"NODES": 2 * NODES})
@triton.jit
def _forward(
    k, terms, z, w, V, n, L, stride_z, CONJUGATE: tl.constexpr, SUMS: tl.constexpr, NODES: tl.constexpr
):  # fmt: skip
    """``terms`` (S, V, n, 2) are what is summed over: with 1/D, k = Σ a/D + i Σ b/D, or z Σ a/D + Σ b/D of pairs."""
    s, block_of_sums, _, block = _place(tl.cdiv(L, NODES), V, SUMS)
    l = block * NODES + tl.arange(0, NODES)[None, :]
    i = block_of_sums * SUMS + tl.arange(0, SUMS)[:, None]
    # Beyond the last node it is taken once more: there no pole lies, and nothing is divided by zero.
    x, y = _load(z, s * stride_z + 2 * tl.minimum(l, L - 1), l >= 0)
    real = tl.zeros((SUMS, NODES), k.dtype.element_ty)
    imaginary, second_real, second_imaginary = real, real, real
    for m in range(n):
        c, d = _load(w, 2 * (s * n + m), m >= 0)
        r, q = reciprocal(*_denominator(x, y, c, d, CONJUGATE))
        a, b = _load(terms, 2 * ((s * V + i) * n + m), i < V)
        real += a * r
        imaginary += a * q
        second_real += b * r
        second_imaginary += b * q
    if CONJUGATE:
        second_real += x * real - y * imaginary
        second_imaginary += x * imaginary + y * real
        real, imaginary = second_real, second_imaginary
    else:
        real, imaginary = real - second_imaginary, imaginary + second_real
    to, inside = 2 * ((s * V + i) * L + l), (i < V) & (l < L)
    tl.store(k + to, real, mask=inside)
    tl.store(k + to + 1, imaginary, mask=inside)


@triton.jit
def _weighted(a, b, e, f):
    """Σ g v̄ and Σ g v over the sums, g = e + if and v = a + ib; the sums lie along the first axis."""
    p, q, r, s = e * a, f * b, f * a, e * b
    return (
        tl.sum(p + q, 0, keep_dims=True),
        tl.sum(r - s, 0, keep_dims=True),
        tl.sum(p - q, 0, keep_dims=True),
        tl.sum(r + s, 0, keep_dims=True),
    )


@tuned(["length"], warps(0.5), warps(2))
@triton.jit
def _backward_states(
    grad_v, grad_w, v, z, w, grad, S, V, n, L, blocks, length, stride_z,
    CONJUGATE: tl.constexpr, SUMS: tl.constexpr, POLES: tl.constexpr, NODES: tl.constexpr,
):  # fmt: skip
    """Of some poles over ``length`` nodes: ∂v = Σ g r̄, ∂w = Σ g (v r²)‾, r = 1/(z − w), and of the conjugates.

    ``grad_v`` (parts of the nodes, S, V, n, 2); ``grad_w`` (parts of the nodes, parts of the sums, S, n, 2).
    """
    s, block_of_sums, parts, block = _place(blocks, V, SUMS)
    m = block * POLES + tl.arange(0, POLES)[None, :, None]
    i = block_of_sums * SUMS + tl.arange(0, SUMS)[:, None, None]
    part = tl.program_id(1)
    c, d = _load(w, 2 * (s * n + tl.minimum(m, n - 1)), m >= 0)
    a, b = _load(v, 2 * ((s * V + i) * n + m), (i < V) & (m < n))
    of_v = tl.zeros((SUMS, POLES, NODES), grad_v.dtype.element_ty)
    of_v_imaginary = of_v
    of_w = tl.zeros((1, POLES, NODES), grad_v.dtype.element_ty)
    of_w_imaginary = of_w
    for start in range(part * length, tl.minimum(part * length + length, L), NODES):
        l = start + tl.arange(0, NODES)[None, None, :]
        x, y = _load(z, s * stride_z + 2 * tl.minimum(l, L - 1), l >= 0)
        e, f = _load(grad, 2 * ((s * V + i) * L + l), (i < V) & (l < L))
        one, two, three, four = _weighted(a, b, e, f)
        r, q = reciprocal(x - c, y - d)
        of_v += e * r + f * q
        of_v_imaginary += f * r - e * q
        g, h = r * r - q * q, 2 * r * q
        of_w += one * g + two * h
        of_w_imaginary += two * g - one * h
        if CONJUGATE:
            r, q = reciprocal(x - c, y + d)
            of_v += e * r + f * q
            of_v_imaginary += e * q - f * r
            g, h = r * r - q * q, 2 * r * q
            of_w += three * g + four * h
            of_w_imaginary += three * h - four * g
    to, inside = 2 * (((part * S + s) * V + i) * n + m), (i < V) & (m < n)
    tl.store(grad_v + to, tl.sum(of_v, 2, keep_dims=True), mask=inside)
    tl.store(grad_v + to + 1, tl.sum(of_v_imaginary, 2, keep_dims=True), mask=inside)
    to = 2 * (((part * parts + block_of_sums) * S + s) * n + m)
    tl.store(grad_w + to, tl.sum(of_w, 2, keep_dims=True), mask=m < n)
    tl.store(grad_w + to + 1, tl.sum(of_w_imaginary, 2, keep_dims=True), mask=m < n)


@tuned(["n"], {"NODES": 2 * NODES})
@triton.jit
def _backward_nodes(
    grad_z, v, z, w, grad, S, V, n, L, stride_z, CONJUGATE: tl.constexpr, SUMS: tl.constexpr,
    NODES: tl.constexpr,
):  # fmt: skip
    """Of a block of nodes: ∂z = −Σ g (v r²)‾, and of the conjugates. ``grad_z`` (parts of the sums, S, L, 2)."""
    s, block_of_sums, _, block = _place(tl.cdiv(L, NODES), V, SUMS)
    l = block * NODES + tl.arange(0, NODES)[None, :]
    i = block_of_sums * SUMS + tl.arange(0, SUMS)[:, None]
    x, y = _load(z, s * stride_z + 2 * tl.minimum(l, L - 1), l >= 0)
    e, f = _load(grad, 2 * ((s * V + i) * L + l), (i < V) & (l < L))
    real = tl.zeros((1, NODES), grad_z.dtype.element_ty)
    imaginary = real
    for m in range(n):
        c, d = _load(w, 2 * (s * n + m), m >= 0)
        a, b = _load(v, 2 * ((s * V + i) * n + m), i < V)
        one, two, three, four = _weighted(a, b, e, f)
        r, q = reciprocal(x - c, y - d)
        g, h = r * r - q * q, 2 * r * q
        real -= one * g + two * h
        imaginary -= two * g - one * h
        if CONJUGATE:
            r, q = reciprocal(x - c, y + d)
            g, h = r * r - q * q, 2 * r * q
            real -= three * g + four * h
            imaginary -= four * g - three * h
    to = 2 * ((block_of_sums * S + s) * L + l)
    tl.store(grad_z + to, real, mask=l < L)
    tl.store(grad_z + to + 1, imaginary, mask=l < L)


def _sums(v: Tensor, z: Tensor, w: Tensor, conjugate: bool) -> Tensor:
    return v.new_empty(len(v), v.shape[1], z.shape[1], 2)


def _compute(k, v, z, w, conjugate):
    if conjugate:
        # Of a pair (z a + b) / D with a = 2 Re v, b = −2 Re(v w̄).
        terms = 2 * torch.stack([v[..., 0], -(v * w.unsqueeze(1)).sum(-1)], dim=-1)
    else:
        terms = v.contiguous()
    _forward[_over_nodes(v, z)](
        k, terms, *_rows(z, w), *v.shape[1:3], z.shape[1], z.stride(0),
        CONJUGATE=conjugate, SUMS=_together(v), NODES=NODES,
    )  # fmt: skip


def _of_states(v: Tensor, z: Tensor, w: Tensor, grad: Tensor, conjugate: bool) -> tuple[Tensor, Tensor]:
    parts = _parts(v, z)[0]
    return v.new_empty(parts, *v.shape), w.new_empty(parts * triton.cdiv(v.shape[1], _together(v)), *w.shape)


def _compute_of_states(grad_v, grad_w, v, z, w, grad, conjugate):
    (parts, length), poles = _parts(v, z), _poles(v)
    blocks = triton.cdiv(v.shape[2], poles)
    _backward_states[(*_grid(v, blocks), parts)](
        grad_v, grad_w, v.contiguous(), *_rows(z, w), grad, *v.shape[:3], z.shape[1], blocks, length, z.stride(0),
        CONJUGATE=conjugate, SUMS=_together(v), POLES=poles, NODES=NODES,
    )  # fmt: skip


def _of_nodes(v: Tensor, z: Tensor, w: Tensor, grad: Tensor, conjugate: bool) -> Tensor:
    return z.new_empty(triton.cdiv(v.shape[1], _together(v)), *z.shape)


def _compute_of_nodes(grad_z, v, z, w, grad, conjugate):
    _backward_nodes[_over_nodes(v, z)](
        grad_z, v.contiguous(), *_rows(z, w), grad, *v.shape[:3], z.shape[1], z.stride(0),
        CONJUGATE=conjugate, SUMS=_together(v), NODES=NODES,
    )  # fmt: skip


def _together(v):
    """How many sums one program takes over the same reciprocals."""
    return min(MOST_SUMS, triton.next_power_of_2(v.shape[1]))


def _poles(v):
    return max(1, min(4, 8 // _together(v)))


def _parts(v, z):
    """Into how many parts the nodes are cut in sums over them, and the nodes of one."""
    programs = len(v) * triton.cdiv(v.shape[1], _together(v)) * triton.cdiv(v.shape[2], _poles(v))
    parts = max(1, min(triton.cdiv(PROGRAMS, programs), z.shape[1] // FEWEST_NODES))
    length = NODES * triton.cdiv(triton.cdiv(z.shape[1], parts), NODES)
    return triton.cdiv(z.shape[1], length), length


def _grid(v, blocks):
    return (len(v) * triton.cdiv(v.shape[1], _together(v)) * blocks,)


def _over_nodes(v, z):
    return lambda options: _grid(v, triton.cdiv(z.shape[1], options["NODES"]))


def _rows(z, w):
    """Each system's nodes in one piece, the same ones for all systems not being repeated."""
    return z if z.stride()[1:] == (2, 1) else z.contiguous(), w.contiguous()


_product = operator("cauchy", _sums, _compute)
_backward_of_states = operator("cauchy_backward_states", _of_states, _compute_of_states)
_backward_of_nodes = operator("cauchy_backward_nodes", _of_nodes, _compute_of_nodes)


def _keep(ctx, inputs, output):
    *tensors, ctx.conjugate = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    arguments = *ctx.saved_tensors, grad.contiguous(), ctx.conjugate
    of_v = of_z = of_w = None
    if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
        of_v, of_w = (x.sum(0) for x in _backward_of_states(*arguments))
    if ctx.needs_input_grad[1]:
        of_z = _backward_of_nodes(*arguments).sum(0)
    return of_v, of_z, of_w, None


_product.register_autograd(_differentiate, setup_context=_keep)
