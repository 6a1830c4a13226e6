"""Convolution on a CPU: with a short kernel by the sum itself, in loops over vectors of channels, else by FFT."""

import torch

from statespace.kernels.arrays import accepts_numpy
from statespace.kernels.dispatch import refuse_accelerators as unusable  # noqa: F401
from statespace.kernels.lanes import WIDTH, channels_back, channels_last, flat, to_lanes
from statespace.kernels.long_convolution.direct import convolve, gradient
from statespace.kernels.long_convolution.pytorch import long_convolution as by_fft
from statespace.kernels.threads import in_parallel

# Up to here the sum takes less time than two transforms.
SHORT = 192


@accepts_numpy
def long_convolution(u, k):
    """See :func:`statespace.kernels.long_convolution`; differentiable, once."""
    B, H, L = u.shape
    K = min(k.shape[-1], L)
    if K > SHORT:
        return by_fft(u, k)
    dtype = torch.promote_types(u.dtype, k.dtype)
    working = torch.promote_types(dtype, torch.float32)
    taps = to_lanes(k[:, :K].to(working).expand(1 if H % WIDTH == 0 else B, H, K))
    return channels_back(_Direct.apply(channels_last(u.to(working)), taps), B, H).to(dtype)


class _Direct(torch.autograd.Function):
    """u and y (records, L, channels), k (V, K, lanes): for the vectors of one record, if they are those of each."""

    @staticmethod
    def forward(ctx, u, k):
        ctx.save_for_backward(u, k)
        return _convolve(u, k, False)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        u, k = ctx.saved_tensors
        V, K, _ = k.shape
        grad_u = _convolve(grad, k, True) if ctx.needs_input_grad[0] else None
        grad_k = None
        if ctx.needs_input_grad[1]:
            G, sizes = len(u) * u.shape[2] // WIDTH, (u.shape[1], K, u.shape[2] // WIDTH)
            grad_k = k.new_zeros(G, -(-K // 8) * 8, WIDTH)
            in_parallel(gradient, G, u.numel() * K // 8, *sizes, *map(flat, (u, grad, grad_k)))
            grad_k = grad_k[:, :K].unflatten(0, (-1, V)).sum(0)
        return grad_u, grad_k


def _convolve(u, k, backwards):
    (V, K, _), (B, L, H) = k.shape, u.shape
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    per = H // WIDTH
    in_parallel(convolve, B * per, u.numel() * K // 8, L, K, per, V, *map(flat, (u, k, y)), backwards)
    return y
