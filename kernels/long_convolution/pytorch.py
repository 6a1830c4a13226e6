"""FFT convolution in torch, differentiable, on any device."""

import torch
from scipy.fft import next_fast_len


def long_convolution(u, k):
    """See :func:`statespace.kernels.long_convolution`."""
    dtype = torch.promote_types(u.dtype, k.dtype)
    # FFT libraries have no bfloat16, and sums of many terms need float32 in any case.
    working = torch.promote_types(dtype, torch.float32)
    return _Convolution.apply(u.to(working), k.to(working)).to(dtype)


class _Convolution(torch.autograd.Function):
    """Real transforms forth and back; autograd's own backward of rfft takes a full complex one instead."""

    @staticmethod
    def forward(ctx, u, k):
        L, K = u.shape[-1], min(k.shape[-1], u.shape[-1])
        n = next_fast_len(L + K - 1, real=True)
        u_f = torch.fft.rfft(u, n)
        k_f = torch.fft.rfft(k[:, :K], n)
        ctx.save_for_backward(u_f, k_f)
        ctx.sizes = L, K, k.shape[-1], n
        return torch.fft.irfft(u_f * k_f, n)[..., :L]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        u_f, k_f = ctx.saved_tensors
        L, K, k_length, n = ctx.sizes
        grad_f = torch.fft.rfft(grad, n)
        grad_u = grad_k = None
        if ctx.needs_input_grad[0]:
            grad_u = torch.fft.irfft(grad_f * k_f.conj(), n)[..., :L]
        if ctx.needs_input_grad[1]:
            grad_k = torch.fft.irfft((grad_f * u_f.conj()).sum(0), n)[..., :K]
            grad_k = torch.nn.functional.pad(grad_k, (0, k_length - K))
        return grad_u, grad_k
