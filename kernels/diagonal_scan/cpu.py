"""Diagonal scan as fused Numba loops: states in the first-level cache, threads over (record, channel)."""

import math

import numpy as np
import torch
from numba import njit, prange

from statespace.kernels.diagonal_scan.decay import expm1_complex

SEGMENT = 32  # steps between two stored states; the reverse sweep recomputes one segment at a time, in the first-level cache
LANES = 8  # nodes are padded to a multiple of this, so that no loop has a remainder
FAST = {"contract", "reassoc", "nsz"}


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="never")
def _discretise(gap, bilinear, rate, turns, d):
    """d = Ā - 1 for one gap, all nodes of one channel; ``turns`` is Im(rate)/2π in float64."""
    n_nodes = rate.shape[1]
    decay, frequency, d_real, d_imag = rate[0], rate[1], d[0], d[1]
    if bilinear:
        half = d.dtype.type(0.5)
        for n in range(n_nodes):
            a, w = half * gap * decay[n], half * gap * frequency[n]
            scale = gap / ((1 - a) * (1 - a) + w * w)
            d_real[n] = scale * (decay[n] * (1 - a) - frequency[n] * w)
            d_imag[n] = scale * frequency[n]
    else:
        gap64 = np.float64(gap)
        for n in range(n_nodes):
            d_real[n], d_imag[n] = expm1_complex(gap * decay[n], gap64 * turns[n])


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="never")
def _advance(u, x, d, after):
    """after = x + d (x + u): one step of every node."""
    x_real, x_imag, d_real, d_imag, a_real, a_imag = x[0], x[1], d[0], d[1], after[0], after[1]
    for n in range(x.shape[1]):
        w = x_real[n] + u
        a_real[n] = x_real[n] + d_real[n] * w - d_imag[n] * x_imag[n]
        a_imag[n] = x_imag[n] + d_real[n] * x_imag[n] + d_imag[n] * w


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="never")
def _advance_and_read(u, x, d, c):
    """x <- x + d (x + u) in place, and Re Σ c x."""
    x_real, x_imag, d_real, d_imag, c_real, c_imag = x[0], x[1], d[0], d[1], c[0], c[1]
    y = x.dtype.type(0)
    for n in range(x.shape[1]):
        w = x_real[n] + u
        real = x_real[n] + d_real[n] * w - d_imag[n] * x_imag[n]
        imag = x_imag[n] + d_real[n] * x_imag[n] + d_imag[n] * w
        x_real[n], x_imag[n] = real, imag
        y += c_real[n] * real - c_imag[n] * imag
    return y


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="never")
def _retreat(u, grad_y, before, after, d, c, g, grad_c, grad_d):
    """One step of the reverse sweep: g, the gradient in the state, from after to before; returns that in u."""
    b_real, b_imag, a_real, a_imag = before[0], before[1], after[0], after[1]
    d_real, d_imag, c_real, c_imag, g_real, g_imag = d[0], d[1], c[0], c[1], g[0], g[1]
    gc_real, gc_imag, gd_real, gd_imag = grad_c[0], grad_c[1], grad_d[0], grad_d[1]
    grad_u = g.dtype.type(0)
    for n in range(g.shape[1]):
        gc_real[n] += grad_y * a_real[n]
        gc_imag[n] -= grad_y * a_imag[n]
        real = g_real[n] + grad_y * c_real[n]
        imag = g_imag[n] - grad_y * c_imag[n]
        w = b_real[n] + u
        gd_real[n] += real * w + imag * b_imag[n]
        gd_imag[n] += imag * w - real * b_imag[n]
        through = real * d_real[n] + imag * d_imag[n]
        grad_u += through
        g_real[n] = real + through
        g_imag[n] = imag - real * d_imag[n] + imag * d_real[n]
    return grad_u


@njit(cache=True, fastmath=FAST, error_model="numpy", inline="never")
def _chain(gap, bilinear, rate, d, grad_d, grad_rate):
    """Adds the gradient in the rates for one gap to ``grad_rate`` and clears ``grad_d``; returns that in the gap."""
    one, half = d.dtype.type(1), d.dtype.type(0.5)
    r_real, r_imag, d_real, d_imag = rate[0], rate[1], d[0], d[1]
    gd_real, gd_imag, gr_real, gr_imag = grad_d[0], grad_d[1], grad_rate[0], grad_rate[1]
    grad_gap = d.dtype.type(0)
    for n in range(d.shape[1]):
        # d'(z) is 1 + d for the zero-order hold, (1 + d/2)² for the bilinear rule.
        if bilinear:
            p, q = one + half * d_real[n], half * d_imag[n]
            slope_real, slope_imag = p * p - q * q, (p + p) * q
        else:
            slope_real, slope_imag = one + d_real[n], d_imag[n]
        z_real = gd_real[n] * slope_real + gd_imag[n] * slope_imag
        z_imag = gd_imag[n] * slope_real - gd_real[n] * slope_imag
        gr_real[n] += gap * z_real
        gr_imag[n] += gap * z_imag
        grad_gap += r_real[n] * z_real + r_imag[n] * z_imag
        gd_real[n] = 0
        gd_imag[n] = 0
    return grad_gap


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _forward(u, dt, bilinear, rate, turns, c, state, y, stored):
    """y (B, L, H) and the final state in ``state`` (B, H, 2, N); the state before each segment in ``stored``, if any."""
    B, L, H = u.shape
    tiny = u.dtype.type(1e-30)
    keep = stored.shape[2] > 0
    for task in prange(B * H):
        b, h = task // H, task % H
        x, d = state[b, h].copy(), np.empty_like(rate[h])
        gap = u.dtype.type(-1)
        for t in range(L):
            if t % SEGMENT == 0:
                # A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
                for i in range(2):
                    for n in range(x.shape[1]):
                        x[i, n] = x[i, n] if abs(x[i, n]) > tiny else 0
                if keep:
                    stored[b, h, t // SEGMENT] = x
            if dt[b, t] != gap:
                gap = dt[b, t]
                _discretise(gap, bilinear, rate[h], turns[h], d)
            y[b, t, h] = _advance_and_read(u[b, t, h], x, d, c[h])
        state[b, h] = x


@njit(cache=True, parallel=True, fastmath=FAST, error_model="numpy")
def _backward(u, dt, bilinear, rate, turns, c, stored, grad_y, grad_state, grad_u, grad_dt, grad_rate, grad_c):
    """The reverse sweep; ``grad_state`` comes with the final state's gradient and leaves with the initial one's.
    ``grad_dt`` (B, H, L), ``grad_rate`` and ``grad_c`` (B, H, 2, N) are left for the caller to sum.
    """
    B, L, H = u.shape
    want_dt = grad_dt.shape[2] > 0
    for task in prange(B * H):
        b, h = task // H, task % H
        n_nodes = rate.shape[2]
        x = np.empty((SEGMENT + 1, 2, n_nodes), u.dtype)
        # One d for each step whose gap differs from the step before it.
        d = np.empty((SEGMENT, 2, n_nodes), u.dtype)
        row = np.empty(SEGMENT, np.int64)
        g, grad_d = grad_state[b, h].copy(), np.zeros((2, n_nodes), u.dtype)
        rates, readout = rate[h], c[h]
        for segment in range((L - 1) // SEGMENT, -1, -1):
            start = segment * SEGMENT
            steps = min(SEGMENT, L - start)
            x[0] = stored[b, h, segment]
            rows = -1
            for i in range(steps):
                if i == 0 or dt[b, start + i] != dt[b, start + i - 1]:
                    rows += 1
                    _discretise(dt[b, start + i], bilinear, rates, turns[h], d[rows])
                row[i] = rows
                _advance(u[b, start + i, h], x[i], d[rows], x[i + 1])
            for i in range(steps - 1, -1, -1):
                t = start + i
                here = d[row[i]]
                grad_u[b, t, h] = _retreat(
                    u[b, t, h], grad_y[b, t, h], x[i], x[i + 1], here, readout, g, grad_c[b, h], grad_d
                )
                if want_dt or i == 0 or row[i - 1] != row[i]:
                    through = _chain(dt[b, t], bilinear, rates, here, grad_d, grad_rate[b, h])
                    if want_dt:
                        grad_dt[b, h, t] = through
        grad_state[b, h] = g


def unusable(u, dt, rate, c, initial=None, *, discretization="zoh"):
    """Why these loops cannot serve the call, or None."""
    for x in (u, dt, rate, c, initial):
        if isinstance(x, torch.Tensor) and x.device.type != "cpu":
            return f"its loops run on CPU tensors, and a tensor is on {x.device}"
        if isinstance(x, torch.Tensor) and x.dtype in (torch.float16, torch.bfloat16):
            return f"Numba has no {x.dtype}"
    return None


def diagonal_scan(u, dt, rate, c, initial=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_scan`; torch tensors are differentiable, once."""
    arrays = not isinstance(u, torch.Tensor)
    u, rate, c = (torch.as_tensor(x) for x in (u, rate, c))
    dtype = u.dtype
    B, H, L = u.shape
    N = rate.shape[-1]
    dt = torch.ones(B, L, dtype=dtype) if dt is None else torch.as_tensor(dt).to(dtype)
    state = torch.zeros(B, H, N, 2, dtype=dtype) if initial is None else torch.view_as_real(torch.as_tensor(initial))
    y, final = _Scan.apply(
        u.transpose(1, 2).contiguous(),
        dt.contiguous(),
        _lanes(torch.view_as_real(rate)),
        _lanes(torch.view_as_real(c)).to(dtype),
        _lanes(state).to(dtype),
        discretization == "bilinear",
    )
    y, final = y.transpose(1, 2), torch.view_as_complex(final[..., :N].transpose(-1, -2).contiguous())
    return (y.numpy(), final.numpy()) if arrays else (y, final)


def _lanes(x):
    """(..., N, 2) -> contiguous (..., 2, N + padding)."""
    return torch.nn.functional.pad(x.transpose(-1, -2), (0, -x.shape[-2] % LANES)).contiguous()


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, dt, rate, c, state, bilinear):
        B, L, H = u.shape
        turns = (rate[:, 1].double() / (2 * math.pi)).contiguous()
        rate = rate.to(u.dtype)
        keep = any(ctx.needs_input_grad)
        stored = u.new_empty(B, H, -(-L // SEGMENT) if keep else 0, 2, rate.shape[-1])
        y, final = torch.empty_like(u), state.clone()
        inputs = [x.detach().numpy() for x in (rate, turns, c)]
        _forward(u.detach().numpy(), dt.detach().numpy(), bilinear, *inputs, final.numpy(), y.numpy(), stored.numpy())
        ctx.save_for_backward(u, dt, rate, turns, c, stored)
        ctx.bilinear = bilinear
        return y, final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y, grad_final):
        u, dt, rate, turns, c, stored = ctx.saved_tensors
        B, L, H = u.shape
        grad_u, grad_state = torch.empty_like(u), grad_final.clone(memory_format=torch.contiguous_format)
        grad_dt = u.new_empty(B, H, L if ctx.needs_input_grad[1] else 0)
        grad_rate, grad_c = torch.zeros_like(grad_state), torch.zeros_like(grad_state)
        _backward(
            u.detach().numpy(), dt.detach().numpy(), ctx.bilinear, rate.detach().numpy(), turns.numpy(),
            c.detach().numpy(), stored.numpy(), grad_y.contiguous().numpy(), grad_state.numpy(), grad_u.numpy(),
            grad_dt.numpy(), grad_rate.numpy(), grad_c.numpy(),
        )  # fmt: skip
        return grad_u, grad_dt.sum(1), grad_rate.sum(0).double(), grad_c.sum(0), grad_state, None
