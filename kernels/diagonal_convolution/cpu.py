"""Diagonal convolution on a CPU: torch's matrix products, and a Numba loop that carries the state over the blocks."""

import numpy as np
import torch
from numba import njit

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.diagonal_convolution.blocks import convolve
from statespace.kernels.dispatch import refuse_devices as unusable  # noqa: F401
from statespace.kernels.threads import in_parallel


@accepts_numpy
def diagonal_convolution(u, rate, c, initial=None, lengths=None, skip=None, *, discretization="zoh"):
    """See :func:`statespace.kernels.diagonal_convolution`; tensors are differentiable, once."""
    return convolve(u, rate, c, initial, lengths, skip, discretization, (_forth, _back))


@njit(cache=True, nogil=True, error_model="numpy")
def _carry(first, end, last, written, start):
    """Of (channel, record) first..end−1: what each block writes becomes the state at its beginning."""
    _, B, R, pair = written.shape
    n = pair // 2
    tiny, zero = written.dtype.type(1e-30), written.dtype.type(0)
    state = np.empty(pair, written.dtype)
    for task in range(first, end):
        h, b = task // B, task % B
        state[:] = start[h, b]
        for r in range(R):
            for i in range(n):
                # A state that dies away must not become subnormal: such numbers slow a processor a hundredfold.
                real = state[i] if abs(state[i]) > tiny else zero
                imag = state[n + i] if abs(state[n + i]) > tiny else zero
                state[i] = last[h, i] * real - last[h, n + i] * imag + written[h, b, r, i]
                state[n + i] = last[h, i] * imag + last[h, n + i] * real + written[h, b, r, n + i]
                written[h, b, r, i] = real
                written[h, b, r, n + i] = imag


@njit(cache=True, nogil=True, error_model="numpy")
def _carry_back(first, end, last, begin, grad, grad_last, grad_start):
    """The gradient in the beginnings becomes that in what each block writes; the caller sums ``grad_last``."""
    _, B, R, pair = grad.shape
    n = pair // 2
    after = np.empty(pair, grad.dtype)
    for task in range(first, end):
        h, b = task // B, task % B
        after[:] = 0
        for r in range(R - 1, -1, -1):
            for i in range(n):
                real, imag = after[i], after[n + i]
                s, t = begin[h, b, r, i], begin[h, b, r, n + i]
                grad_last[h, b, i] += real * s + imag * t
                grad_last[h, b, n + i] += imag * s - real * t
                after[i] = last[h, i] * real + last[h, n + i] * imag + grad[h, b, r, i]
                after[n + i] = last[h, i] * imag - last[h, n + i] * real + grad[h, b, r, n + i]
                grad[h, b, r, i] = real
                grad[h, b, r, n + i] = imag
        grad_start[h, b] = after


def _forth(last, written, start):
    arrays = (x.detach().contiguous().numpy() for x in (last, written, start))
    in_parallel(_carry, written.shape[0] * written.shape[1], written.numel(), *arrays)


def _back(last, begin, grad):
    H, B, _, pair = grad.shape
    grad_last, grad_start = grad.new_zeros(H, B, pair), torch.empty(H, B, pair, dtype=grad.dtype)
    arrays = (x.detach().contiguous().numpy() for x in (last, begin, grad, grad_last, grad_start))
    in_parallel(_carry_back, H * B, grad.numel(), *arrays)
    return grad_last.sum(1), grad_start
