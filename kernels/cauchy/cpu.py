"""Cauchy products as compiled loops over vectors of nodes, in float64; threads over the systems."""

import numpy as np
import torch

from statespace.kernels.compiled import entry, helper
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.threads import in_parallel
from statespace.kernels.vectors import store

W = WIDTH


def cauchy(v, z, w, *, conjugate=False):
    """See :func:`statespace.kernels.cauchy`; torch tensors are differentiable, once."""
    arrays = not isinstance(v, torch.Tensor)
    v, z, w = (torch.as_tensor(x) for x in (v, z, w))
    dtype = torch.promote_types(torch.promote_types(v.dtype, z.dtype), torch.promote_types(w.dtype, torch.complex64))
    n = max(v.shape[-1], w.shape[-1])
    leading = torch.broadcast_shapes(v.shape[:-1], z.shape[:-1], w.shape[:-1])
    # An axis that only v has: several sums over the same reciprocals.
    shared = len(leading) > 0 and all(x.ndim == 1 or x.shape[-2] == 1 for x in (z, w))
    systems, sums = (leading[:-1], leading[-1]) if shared else (leading, 1)
    z, w = (x.squeeze(-2) if shared and x.ndim > 1 else x for x in (z, w))
    k = _Cauchy.apply(
        v.expand(*leading, n).reshape(-1, sums, n).to(torch.complex128),
        z.expand(*systems, z.shape[-1]).reshape(-1, z.shape[-1]).to(torch.complex128),
        w.expand(*systems, n).reshape(-1, n).to(torch.complex128),
        conjugate,
    )
    k = k.view(*leading, -1).to(dtype)
    return k.numpy() if arrays else k


class _Cauchy(torch.autograd.Function):
    """v (systems, sums, states), z (systems, nodes) and w (systems, states) to (systems, sums, nodes)."""

    @staticmethod
    def forward(ctx, v, z, w, conjugate):
        (S, V, n), L = v.shape, z.shape[1]
        # Filled up with the last node, at which no pole lies.
        nodes = torch.cat([z, z[:, -1:].expand(S, -L % W)], dim=1)
        k = v.new_empty(S, V, nodes.shape[1])
        in_parallel(_forward, S, 8 * S * V * n * L, conjugate, *map(_numbers, (v, nodes, w, k)))
        ctx.save_for_backward(v, nodes, w)
        ctx.conjugate, ctx.length = conjugate, L
        return k[..., :L].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        v, nodes, w = ctx.saved_tensors
        (S, V, n), filled = v.shape, nodes.shape[1]
        grad = torch.nn.functional.pad(grad, (0, filled - ctx.length)).contiguous()
        grad_v, grad_w = torch.empty_like(v), torch.empty_like(w)
        grad_z = nodes.new_zeros(S, filled if ctx.needs_input_grad[1] else 0)
        arrays = map(_numbers, (v, nodes, w, grad, grad_v, grad_z, grad_w))
        in_parallel(_backward, S, 16 * S * V * n * filled, ctx.conjugate, *arrays)
        return grad_v, grad_z[:, : ctx.length] if ctx.needs_input_grad[1] else None, grad_w, None


def _numbers(x):
    return x.detach().contiguous().numpy()


@helper()
def _reciprocal(a, b):
    """1 / (a + ib)."""
    scale = 1.0 / (a * a + b * b)
    return a * scale, -1.0 * b * scale


@helper()
def _total(x, at):
    """The sum over the lanes of two vectors, real and imaginary."""
    return complex(x[at : at + W].sum(), x[at + W : at + 2 * W].sum())


@helper()
def _split(x, real, imaginary):
    for i in range(len(x)):
        real[i] = x[i].real
        imaginary[i] = x[i].imag


@entry()
def _forward(first, last, conjugate, v, z, w, k):
    """Of systems first..last−1: Σ a/D and Σ b/D with real a and b, D = z − w or (z − w)(z − w̄)."""
    _, V, n = v.shape
    L = z.shape[1]
    real, imaginary = np.empty(L), np.empty(L)
    a, b, sums = np.empty(V * n), np.empty(V * n), np.empty(4 * V * W)
    for s in range(first, last):
        _split(z[s], real, imaginary)
        for i in range(V):
            for m in range(n):
                x = v[s, i, m]
                a[m * V + i] = 2.0 * x.real if conjugate else x.real
                b[m * V + i] = -2.0 * (x * np.conj(w[s, m])).real if conjugate else x.imag
        for start in range(0, L, W):
            sums[:] = 0.0
            x, y = load(real, start), load(imaginary, start)
            for m in range(n):
                c, d = w[s, m].real, w[s, m].imag
                p = x - c
                if conjugate:
                    # (Im w)² − (Im p)² as a product keeps its digits near the pole.
                    r, q = _reciprocal(p * p + (d - y) * (d + y), 2.0 * p * y)
                else:
                    r, q = _reciprocal(p, y - d)
                for i in range(V):
                    at = 4 * i * W
                    store(load(sums, at) + a[m * V + i] * r, sums, at)
                    store(load(sums, at + W) + a[m * V + i] * q, sums, at + W)
                    store(load(sums, at + 2 * W) + b[m * V + i] * r, sums, at + 2 * W)
                    store(load(sums, at + 3 * W) + b[m * V + i] * q, sums, at + 3 * W)
            for i in range(V):
                for j in range(W):
                    at = 4 * i * W + j
                    one, two = complex(sums[at], sums[at + W]), complex(sums[at + 2 * W], sums[at + 3 * W])
                    k[s, i, start + j] = z[s, start + j] * one + two if conjugate else one + 1j * two


@entry()
def _backward(first, last, conjugate, v, z, w, grad, grad_v, grad_z, grad_w):
    """Of systems first..last−1 the gradients; ``grad_z`` comes as zeros and may be empty."""
    _, V, n = v.shape
    L = z.shape[1]
    real, imaginary = np.empty(L), np.empty(L)
    g, h = np.empty(V * L), np.empty(V * L)
    of_z, sums = np.zeros(2 * L), np.empty((2 * V + 2) * W)
    zero = load(of_z, 0)
    for s in range(first, last):
        _split(z[s], real, imaginary)
        for i in range(V):
            _split(grad[s, i], g[i * L : (i + 1) * L], h[i * L : (i + 1) * L])
        of_z[:] = 0.0
        for m in range(n):
            c, d = w[s, m].real, w[s, m].imag
            sums[:] = 0.0
            for start in range(0, L, W):
                x, y = load(real, start) - c, load(imaginary, start)
                r, q = _reciprocal(x, y - d)
                t, u = r, q
                if conjugate:
                    t, u = _reciprocal(x, y + d)
                # Σ ∂k v̄ and Σ ∂k v over the sums.
                one, two, three, four = zero, zero, zero, zero
                for i in range(V):
                    a, b = v[s, i, m].real, v[s, i, m].imag
                    e, f = load(g, i * L + start), load(h, i * L + start)
                    own, other = e * r + f * q, f * r - e * q
                    one, two = one + e * a + f * b, two + f * a - e * b
                    if conjugate:
                        own, other = own + e * t + f * u, other + e * u - f * t
                        three, four = three + e * a - f * b, four + f * a + e * b
                    store(load(sums, 2 * i * W) + own, sums, 2 * i * W)
                    store(load(sums, (2 * i + 1) * W) + other, sums, (2 * i + 1) * W)
                # Times r̄², and for the other half of the pair the conjugate times (1/(z − w̄))².
                e, f = r * r - q * q, 2.0 * r * q
                a, b = one * e + two * f, two * e - one * f
                of_x, of_y = a, b
                if conjugate:
                    e, f = t * t - u * u, 2.0 * t * u
                    a, b = a + three * e + four * f, b + three * f - four * e
                    of_x, of_y = of_x + three * e + four * f, of_y + four * e - three * f
                store(load(sums, 2 * V * W) + a, sums, 2 * V * W)
                store(load(sums, (2 * V + 1) * W) + b, sums, (2 * V + 1) * W)
                if grad_z.shape[1] > 0:
                    store(load(of_z, start) - of_x, of_z, start)
                    store(load(of_z, L + start) - of_y, of_z, L + start)
            for i in range(V):
                grad_v[s, i, m] = _total(sums, 2 * i * W)
            grad_w[s, m] = _total(sums, 2 * V * W)
        if grad_z.shape[1] > 0:
            for l in range(L):
                grad_z[s, l] = complex(of_z[l], of_z[L + l])
