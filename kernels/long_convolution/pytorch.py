"""FFT convolution in torch, differentiable, on any device.

There is no Numba file beside this one: torch's FFT (MKL, cuFFT) is the fast one for tensors and for arrays.
"""

import torch
from scipy.fft import next_fast_len

from statespace.kernels.arrays import accepts_numpy


@accepts_numpy
def long_convolution(u, k):
    """See :func:`statespace.kernels.long_convolution`."""
    dtype = torch.promote_types(u.dtype, k.dtype)
    # FFT libraries have no bfloat16, and sums of many terms need float32 in any case.
    working = torch.promote_types(dtype, torch.float32)
    L, K = u.shape[-1], min(k.shape[-1], u.shape[-1])
    u, k = u.to(working), k[:, :K].to(working)
    y = _overlap_add(u, k) if L > 8 * K and L > 4096 else _Convolution.apply(u, k)
    return y.to(dtype)


def _overlap_add(u, k):
    """Blocks of at least seven kernel lengths; each block's tail is added to the block after it."""
    B, H, L = u.shape
    K = k.shape[-1]
    size = next_fast_len(max(8 * K, 2048), real=True) - K + 1
    blocks = torch.nn.functional.pad(u, (0, -L % size)).unflatten(-1, (-1, size))  # (B, H, blocks, size)
    padded = torch.nn.functional.pad(blocks.transpose(1, 2).flatten(0, 1), (0, K - 1))
    y = _Convolution.apply(padded, k).unflatten(0, (B, -1)).transpose(1, 2)
    tail = torch.nn.functional.pad(y[:, :, :-1, size:], (0, size - K + 1, 1, 0))
    return (y[..., :size] + tail).flatten(2)[..., :L]


class _Convolution(torch.autograd.Function):
    """Real transforms forth and back; autograd's own backward of rfft takes a full complex one instead."""

    @staticmethod
    def forward(ctx, u, k):
        L, K = u.shape[-1], k.shape[-1]
        n = next_fast_len(L + K - 1, real=True)
        u_f, k_f = torch.fft.rfft(u, n), torch.fft.rfft(k, n)
        ctx.save_for_backward(u_f, k_f)
        ctx.sizes = L, K, n
        return torch.fft.irfft(u_f * k_f, n)[..., :L]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        u_f, k_f = ctx.saved_tensors
        L, K, n = ctx.sizes
        grad_f = torch.fft.rfft(grad, n)
        grad_u = grad_k = None
        if ctx.needs_input_grad[0]:
            grad_u = torch.fft.irfft(grad_f * k_f.conj(), n)[..., :L]
        if ctx.needs_input_grad[1]:
            grad_k = torch.fft.irfft((grad_f * u_f.conj()).sum(0), n)[..., :K]
        return grad_u, grad_k
