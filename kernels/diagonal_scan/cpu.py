"""Diagonal scan as fused Numba loops: states in the first-level cache, threads over (record, channel)."""

import math

import numpy as np
import torch
from numba import njit, prange

from statespace.kernels.diagonal_scan.decay import expm1_complex
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401

SEGMENT = 32  # steps between two stored states; the reverse sweep recomputes one segment at a time
LANES = 8  # nodes are padded to a multiple of this, so that no loop has a remainder
# Nodes are treated in blocks of at most N, the fields of a block N numbers apart. Distances known at compile time are what
# lets LLVM prove that the fields do not overlap; without the proof the loops over nodes stay scalar.
N = 32
FAST = {"contract", "reassoc", "nsz"}
# Rows that the reverse sweep writes to: gradients in state, Ā - 1, read-out and rate, real and imaginary; then the read-out.
G, GD, GC, GR, C = 0, 2 * N, 4 * N, 6 * N, 8 * N


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _discretise(gap, bilinear, nodes, rate, d):
    """d = Ā - 1 for one gap; a row of ``rate`` holds Re, Im, and Im/2π in two parts."""
    one, half = d.dtype.type(1), d.dtype.type(0.5)
    if bilinear:
        for n in range(nodes):
            a, w = half * gap * rate[n], half * gap * rate[N + n]
            scale = gap / ((one - a) * (one - a) + w * w)
            d[n] = scale * (rate[n] * (one - a) - rate[N + n] * w)
            d[N + n] = scale * rate[N + n]
    else:
        for n in range(nodes):
            d[n], d[N + n] = expm1_complex(gap, rate[n], rate[2 * N + n], rate[3 * N + n])


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _advance(u, nodes, before, d, after):
    """after = x + d (x + u): one step of every node."""
    for n in range(nodes):
        w = before[n] + u
        after[n] = before[n] + d[n] * w - d[N + n] * before[N + n]
        after[N + n] = before[N + n] + d[n] * before[N + n] + d[N + n] * w


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _advance_and_read(u, nodes, d, c, x):
    """x <- x + d (x + u) in place, and Re Σ c x."""
    y = x.dtype.type(0)
    for n in range(nodes):
        w = x[n] + u
        real = x[n] + d[n] * w - d[N + n] * x[N + n]
        imag = x[N + n] + d[n] * x[N + n] + d[N + n] * w
        x[n] = real
        x[N + n] = imag
        y += c[n] * real - c[N + n] * imag
    return y


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _retreat(u, grad_y, nodes, before, after, d, work):
    """One step of the reverse sweep, from the gradient in the state after to that before; returns the one in u."""
    grad_u = d.dtype.type(0)
    for n in range(nodes):
        real = work[G + n] + grad_y * work[C + n]
        imag = work[G + N + n] - grad_y * work[C + N + n]
        w = before[n] + u
        work[GC + n] += grad_y * after[n]
        work[GC + N + n] -= grad_y * after[N + n]
        work[GD + n] += real * w + imag * before[N + n]
        work[GD + N + n] += imag * w - real * before[N + n]
        through = real * d[n] + imag * d[N + n]
        grad_u += through
        work[G + n] = real + through
        work[G + N + n] = imag - real * d[N + n] + imag * d[n]
    return grad_u


@njit(cache=True, fastmath=FAST, error_model="numpy")
def _chain(gap, bilinear, nodes, rate, d, work):
    """Moves the gradient in d = Ā - 1 on to the rates and clears it; returns that in the gap."""
    one, half, zero = d.dtype.type(1), d.dtype.type(0.5), d.dtype.type(0)
    grad_gap = zero
    for n in range(nodes):
        # The derivative of d by z is 1 + d for the zero-order hold, (1 + d/2)² for the bilinear rule.
        real, imag = one + d[n], d[N + n]
        if bilinear:
            p, q = one + half * d[n], half * d[N + n]
            real, imag = p * p - q * q, (p + p) * q
        z_real = work[GD + n] * real + work[GD + N + n] * imag
        z_imag = work[GD + N + n] * real - work[GD + n] * imag
        work[GR + n] += gap * z_real
        work[GR + N + n] += gap * z_imag
        grad_gap += rate[n] * z_real + rate[N + n] * z_imag
        work[GD + n] = zero
        work[GD + N + n] = zero
    return grad_gap


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _forward(u, dt, bilinear, nodes, rate, c, state, y, stored):
    """Adds to y (B, L, H) and leaves the final state in ``state`` (B, H, blocks, 2 N); the state before each segment goes
    to ``stored``, if that is not empty.
    """
    B, L, H = u.shape
    tiny, zero = u.dtype.type(1e-30), u.dtype.type(0)
    keep = stored.shape[3] > 0
    for task in prange(B * H):
        b, h = task // H, task % H
        x, d = np.empty(2 * N, u.dtype), np.zeros(2 * N, u.dtype)
        for block in range(state.shape[2]):
            x[:] = state[b, h, block]
            gap = u.dtype.type(-1)
            for t in range(L):
                if t % SEGMENT == 0:
                    # A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
                    for n in range(2 * N):
                        x[n] = x[n] if abs(x[n]) > tiny else zero
                    if keep:
                        stored[b, h, block, t // SEGMENT] = x
                if dt[b, t] != gap:
                    gap = dt[b, t]
                    _discretise(gap, bilinear, nodes, rate[h, block], d)
                y[b, t, h] += _advance_and_read(u[b, t, h], nodes, d, c[h, block], x)
            state[b, h, block] = x


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _backward(u, dt, bilinear, nodes, rate, c, stored, grad_y, grad_state, grad_u, grad_dt, grad_rate, grad_c):
    """The reverse sweep. ``grad_state`` comes with the gradient in the final state and leaves with that in the initial one;
    the others are added to; ``grad_dt`` (B, H, L), ``grad_rate`` and ``grad_c`` (B, H, blocks, 2 N) are left to be summed.
    """
    B, L, H = u.shape
    want_dt = grad_dt.shape[2] > 0
    for task in prange(B * H):
        b, h = task // H, task % H
        x = np.zeros((SEGMENT + 1, 2 * N), u.dtype)
        # A row of d for each step whose gap differs from the one before.
        d = np.empty((SEGMENT, 2 * N), u.dtype)
        row = np.empty(SEGMENT, np.int64)
        work = np.empty(10 * N, u.dtype)
        for block in range(c.shape[1]):
            rates = rate[h, block]
            work[:] = 0
            work[G : G + 2 * N] = grad_state[b, h, block]
            work[C : C + 2 * N] = c[h, block]
            for segment in range((L - 1) // SEGMENT, -1, -1):
                start = segment * SEGMENT
                steps = min(SEGMENT, L - start)
                x[0] = stored[b, h, block, segment]
                last = -1
                for i in range(steps):
                    t = start + i
                    if i == 0 or dt[b, t] != dt[b, t - 1]:
                        last += 1
                        _discretise(dt[b, t], bilinear, nodes, rates, d[last])
                    row[i] = last
                    _advance(u[b, t, h], nodes, x[i], d[last], x[i + 1])
                for i in range(steps - 1, -1, -1):
                    t, here = start + i, d[row[i]]
                    grad_u[b, t, h] += _retreat(u[b, t, h], grad_y[b, t, h], nodes, x[i], x[i + 1], here, work)
                    if want_dt or i == 0 or row[i - 1] != row[i]:
                        through = _chain(dt[b, t], bilinear, nodes, rates, here, work)
                        if want_dt:
                            grad_dt[b, h, t] += through
            grad_state[b, h, block] = work[G : G + 2 * N]
            grad_rate[b, h, block] = work[GR : GR + 2 * N]
            grad_c[b, h, block] = work[GC : GC + 2 * N]


def diagonal_scan(u, dt, rate, c, initial=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_scan`; torch tensors are differentiable, once."""
    arrays = not isinstance(u, torch.Tensor)
    u, rate, c = (torch.as_tensor(x) for x in (u, rate, c))
    dtype = torch.promote_types(u.dtype, torch.float32)
    B, H, L = u.shape
    n_nodes = rate.shape[-1]
    dt = torch.ones(B, L, dtype=dtype) if dt is None else torch.as_tensor(dt).to(dtype)
    state = torch.zeros(B, H, n_nodes, dtype=rate.dtype) if initial is None else torch.as_tensor(initial)
    y, final = _Scan.apply(
        u.to(dtype).transpose(1, 2).contiguous(),
        dt.contiguous(),
        _blocks(rate),
        _blocks(c).to(dtype),
        _blocks(state).to(dtype),
        -(-n_nodes // LANES) * LANES if n_nodes <= N else N,
        discretization == "bilinear",
    )
    real, imaginary = (x.flatten(2)[..., :n_nodes] for x in final.split(N, dim=-1))
    y, final = y.transpose(1, 2), torch.complex(real, imaginary)
    return (y.numpy(), final.numpy()) if arrays else (y, final)


def _blocks(x):
    """Complex (..., n_nodes) to real (..., blocks, 2 N), padded with zeros."""
    x = torch.nn.functional.pad(x, (0, -x.shape[-1] % N)).unflatten(-1, (-1, N))
    return torch.cat([x.real, x.imag], dim=-1)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, dt, rate, c, state, nodes, bilinear):
        B, L, H = u.shape
        turns = rate[..., N:].double() / (2 * math.pi)
        high = turns.to(u.dtype)
        rate = torch.cat([rate.to(u.dtype), high, (turns - high.double()).to(u.dtype)], dim=-1)
        y, final = torch.zeros_like(u), state.clone()
        stored = u.new_empty(*state.shape[:3], -(-L // SEGMENT) if any(ctx.needs_input_grad) else 0, 2 * N)
        _forward(*_arrays(u, dt), bilinear, nodes, *_arrays(rate, c, final, y, stored))
        ctx.save_for_backward(u, dt, rate, c, stored)
        ctx.nodes, ctx.bilinear = nodes, bilinear
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        u, dt, rate, c, stored = ctx.saved_tensors
        B, L, H = u.shape
        grad_u, grad_state = torch.zeros_like(u), grad_final.clone(memory_format=torch.contiguous_format)
        grad_dt = u.new_zeros(B, H, L if ctx.needs_input_grad[1] else 0)
        grad_rate, grad_c = torch.empty_like(grad_state), torch.empty_like(grad_state)
        gradients = _arrays(grad_state, grad_u, grad_dt, grad_rate, grad_c)
        _backward(
            *_arrays(u, dt), ctx.bilinear, ctx.nodes, *_arrays(rate, c, stored, grad_y.contiguous()), *gradients
        )
        return grad_u, grad_dt.sum(1), grad_rate.sum(0).double(), grad_c.sum(0), grad_state, None, None


def _arrays(*tensors):
    return [x.detach().numpy() for x in tensors]
