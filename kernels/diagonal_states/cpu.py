"""The states of a diagonal system as fused Numba loops: vector instructions over the states, threads over (record,
block of states).
"""

import math

import numpy as np
import torch

from statespace.kernels.compiled import entry, helper
from statespace.kernels.diagonal_scan.decay import expm1_complex
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, load
from statespace.kernels.threads import in_parallel, number_of_threads
from statespace.kernels.vectors import nothing, store

# States are treated in blocks of N, in arrays of their own whose fields lie N numbers apart: lengths and distances
# known at compile time are what lets LLVM turn the loops over n into vector instructions without a remainder.
N = 32
FEW = 16  # the size of a block where larger ones would leave a thread without work
FAST = {"contract", "reassoc", "nsz"}
TINY = 1e-30  # a state that dies away must not become subnormal: such numbers slow a processor a hundredfold


@helper(fastmath=FAST)
def _discretise(gap, bilinear, rate, d):
    """d = Ā - 1 for one gap; a row of ``rate`` holds Re, Im, Im/2π in two parts, and Re/ln 2."""
    one, half = d.dtype.type(1), d.dtype.type(0.5)
    if bilinear:
        for n in range(N):
            a, w = half * gap * rate[n], half * gap * rate[N + n]
            scale = gap / ((one - a) * (one - a) + w * w)
            d[n] = scale * (rate[n] * (one - a) - rate[N + n] * w)
            d[N + n] = scale * rate[N + n]
    else:
        for n in range(0, N, WIDTH):
            a = load(rate, 4 * N + n)
            real, imag = expm1_complex(gap + nothing(a), a, load(rate, 2 * N + n), load(rate, 3 * N + n))
            store(real, d, n)
            store(imag, d, N + n)


@helper(fastmath=FAST)
def _chain(gap, bilinear, rate, d, grad_d, grad_rate):
    """Moves the gradient in d = Ā - 1 on to the rates and clears it; returns that in the gap."""
    one, half, zero = d.dtype.type(1), d.dtype.type(0.5), d.dtype.type(0)
    grad_gap = zero
    for n in range(N):
        # The derivative of d by z is 1 + d for the zero-order hold, (1 + d/2)² for the bilinear rule.
        real, imag = one + d[n], d[N + n]
        if bilinear:
            p, q = one + half * d[n], half * d[N + n]
            real, imag = p * p - q * q, (p + p) * q
        z_real = grad_d[n] * real + grad_d[N + n] * imag
        z_imag = grad_d[N + n] * real - grad_d[n] * imag
        grad_rate[n] += gap * z_real
        grad_rate[N + n] += gap * z_imag
        grad_gap += rate[n] * z_real + rate[N + n] * z_imag
        grad_d[n] = zero
        grad_d[N + n] = zero
    return grad_gap


@helper(fastmath=FAST)
def _load(field, t, start, nodes, into):
    """into <- the block of ``field`` (L, 2, P) at step t."""
    real, imag = field[t, 0, start : start + nodes], field[t, 1, start : start + nodes]
    for n in range(nodes):
        into[n] = real[n]
    for n in range(nodes):
        into[N + n] = imag[n]


@helper(fastmath=FAST)
def _store(field, t, start, nodes, source):
    real, imag = field[t, 0, start : start + nodes], field[t, 1, start : start + nodes]
    for n in range(nodes):
        real[n] = source[n]
    for n in range(nodes):
        imag[n] = source[N + n]


@entry(fastmath=FAST)
def _forward(first, last, v, dt, bilinear, reverse, size, rate, initial, states):
    """Of (record, block) first..last−1: the states (B, L, 2, P) written to by v. ``rate`` (blocks, 5 N), blocks of
    ``size`` states, ``initial`` (B, 1, 2, P).
    """
    L, P = v.shape[1], v.shape[3]
    blocks = len(rate)
    tiny, zero = v.dtype.type(TINY), v.dtype.type(0)
    x, d, w = np.empty(2 * N, v.dtype), np.zeros(2 * N, v.dtype), np.zeros(2 * N, v.dtype)
    for task in range(first, last):
        b, block = task // blocks, task % blocks
        start = block * size
        nodes = min(size, P - start)
        x[:] = 0
        w[:] = 0
        _load(initial[b], 0, start, nodes, x)
        gap = v.dtype.type(-1)
        for i in range(L):
            t = L - 1 - i if reverse else i
            if dt[b, t] != gap:
                gap = dt[b, t]
                _discretise(gap, bilinear, rate[block], d)
            _load(v[b], t, start, nodes, w)
            for n in range(N):
                p, q = x[n] + w[n], x[N + n] + w[N + n]
                real = x[n] + d[n] * p - d[N + n] * q
                imag = x[N + n] + d[n] * q + d[N + n] * p
                x[n] = zero if abs(real) <= tiny else real
                x[N + n] = zero if abs(imag) <= tiny else imag
            _store(states[b], t, start, nodes, x)


@entry(fastmath=FAST)
def _backward(
    first, last, v, dt, bilinear, reverse, size, rate, initial, states, grad, grad_v, grad_dt, grad_rate, grad_initial
):
    """The reverse sweep from ``grad``, the gradient in the states; ``grad_dt`` (B, blocks, L), empty if not wanted, and
    ``grad_rate`` (B, blocks, 2 N) are left for the caller to sum.
    """
    L, P = v.shape[1], v.shape[3]
    blocks = len(rate)
    want_dt = grad_dt.shape[2] > 0
    tiny, zero = v.dtype.type(TINY), v.dtype.type(0)
    back = -1 if reverse else 1
    g, h, d, w, x, out, grad_d, rates = (
        np.empty(2 * N, v.dtype), np.zeros(2 * N, v.dtype), np.zeros(2 * N, v.dtype), np.zeros(2 * N, v.dtype),
        np.zeros(2 * N, v.dtype), np.empty(2 * N, v.dtype), np.empty(2 * N, v.dtype), np.empty(2 * N, v.dtype),
    )  # fmt: skip
    for task in range(first, last):
        b, block = task // blocks, task % blocks
        start = block * size
        nodes = min(size, P - start)
        for field in (g, h, w, x, grad_d, rates):
            field[:] = 0
        gap = v.dtype.type(-1)
        for i in range(L):
            t = i if reverse else L - 1 - i
            if dt[b, t] != gap:
                if i > 0 and not want_dt:
                    _chain(gap, bilinear, rate[block], d, grad_d, rates)
                gap = dt[b, t]
                _discretise(gap, bilinear, rate[block], d)
            _load(v[b], t, start, nodes, w)
            _load(grad[b], t, start, nodes, h)
            if i == L - 1:
                _load(initial[b], 0, start, nodes, x)
            else:
                _load(states[b], t - back, start, nodes, x)
            for n in range(N):
                real, imag = g[n] + h[n], g[N + n] + h[N + n]
                p, q = x[n] + w[n], x[N + n] + w[N + n]
                grad_d[n] += real * p + imag * q
                grad_d[N + n] += imag * p - real * q
                p, q = real * d[n] + imag * d[N + n], imag * d[n] - real * d[N + n]
                out[n] = p
                out[N + n] = q
                real, imag = real + p, imag + q
                g[n] = zero if abs(real) <= tiny else real
                g[N + n] = zero if abs(imag) <= tiny else imag
            _store(grad_v[b], t, start, nodes, out)
            if want_dt:
                grad_dt[b, block, t] = _chain(gap, bilinear, rate[block], d, grad_d, rates)
        _chain(gap, bilinear, rate[block], d, grad_d, rates)
        _store(grad_initial[b], 0, start, nodes, g)
        grad_rate[b, block] = rates


def diagonal_states(v, dt, rate, initial=None, *, discretization="zoh", reverse=False):
    """See :func:`statespace.kernels.diagonal_states`; torch tensors are differentiable, once."""
    arrays = not isinstance(v, torch.Tensor)
    v, rate = torch.as_tensor(v), torch.as_tensor(rate)
    dtype = torch.promote_types(v.dtype, torch.float32)
    B, L, _, P = v.shape
    dt = torch.ones(B, L, dtype=dtype) if dt is None else torch.as_tensor(dt).to(dtype)
    initial = torch.zeros(B, 2, P, dtype=dtype) if initial is None else torch.as_tensor(initial).to(dtype)
    size = N if B * math.ceil(P / N) >= number_of_threads() else FEW
    states = _States.apply(
        v.to(dtype).contiguous(), dt.contiguous(), _blocks(rate, size), initial.unsqueeze(1).contiguous(), size,
        discretization == "bilinear", bool(reverse),
    )  # fmt: skip
    return states.numpy() if arrays else states


def _blocks(rate, size):
    """Complex (P,) to real (blocks, 2 N): ``size`` rates a block, padded with zeros."""
    rate = torch.nn.functional.pad(rate, (0, -len(rate) % size)).view(-1, size)
    rate = torch.nn.functional.pad(rate, (0, N - size))
    return torch.cat([rate.real, rate.imag], dim=-1)


class _States(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v, dt, rate, initial, size, bilinear, reverse):
        turns = rate[:, N:].double() / (2 * math.pi)
        high = turns.to(v.dtype)
        halvings = rate[:, :N].double() / math.log(2)
        rate = torch.cat([rate, high, turns - high.double(), halvings], dim=-1).to(v.dtype)
        states = torch.empty_like(v)
        in_parallel(
            _forward, len(v) * len(rate), v.numel(),
            *_arrays(v, dt), bilinear, reverse, size, *_arrays(rate, initial, states),
        )  # fmt: skip
        ctx.save_for_backward(v, dt, rate, initial, states)
        ctx.options = bilinear, reverse, size
        return states

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        v, dt, rate, initial, states = ctx.saved_tensors
        B, L = dt.shape
        grad_v, grad_initial = torch.empty_like(v), torch.empty_like(initial)
        grad_dt = v.new_empty(B, len(rate), L if ctx.needs_input_grad[1] else 0)
        grad_rate = v.new_empty(B, len(rate), 2 * N)
        in_parallel(
            _backward, B * len(rate), v.numel(), *_arrays(v, dt), *ctx.options,
            *_arrays(rate, initial, states, grad.contiguous(), grad_v, grad_dt, grad_rate, grad_initial),
        )  # fmt: skip
        return grad_v, grad_dt.sum(1), grad_rate.sum(0).double(), grad_initial, None, None, None


def _arrays(*tensors):
    return [x.detach().numpy() for x in tensors]
