"""FFT convolution in torch, differentiable, on any device, in blocks and in pieces of bounded size."""

import math

import torch
from scipy.fft import next_fast_len

from statespace.kernels.arrays import accepts_numpy

# Numbers in one transform: pieces of this size stay near the processor, and bound what is needed beside the result.
PIECE = 1 << 20
# Transforms of u that are kept for the backward pass; of longer records they are computed again.
KEPT = 1 << 24


@accepts_numpy
def long_convolution(u, k):
    """See :func:`statespace.kernels.long_convolution`."""
    dtype = torch.promote_types(u.dtype, k.dtype)
    # FFT libraries have no bfloat16, and sums of many terms need float32 in any case.
    working = torch.promote_types(dtype, torch.float32)
    k = k[:, : u.shape[-1]].to(working)
    return _Convolution.apply(u.to(working), k, *block_size(u.shape[-1], k.shape[-1])).to(dtype)


def block_size(L, K):
    """Samples of a block and length of its FFT, for the least work: one block, or blocks a few kernels long."""
    choices = [next_fast_len(L + K - 1, real=True)]
    choices += [next_fast_len(max(m * K, 1024), real=True) for m in (2, 4, 8, 16)]
    blocks = [(min(L, n - K + 1), n) for n in choices if n >= choices[0] or n - K + 1 >= K]
    return min(blocks, key=lambda block: math.ceil(L / block[0]) * _work(block[1]))


# Arithmetic on lengths, which a traced program takes as it finds it.
block_size._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _work(n):
    """Operations of a real FFT of length n, up to a factor; beyond the second-level cache each takes longer."""
    return n * math.log2(n) * (1.0 if n <= 1 << 17 else 1.5)


def _pieces(B, H, L, size, n):
    """Slices of channels and of time, in whole blocks, whose transforms have about ``PIECE`` numbers."""
    R = math.ceil(L / size)
    channels = max(1, min(H, PIECE // (B * n)))
    blocks = max(1, min(R, PIECE // (B * n * channels)))
    for h in range(0, H, channels):
        for r in range(0, R, blocks):
            yield slice(h, h + channels), slice(r * size, min(L, (r + blocks) * size))


def _frames(x, size, width):
    """Windows of ``width`` samples that begin ``size`` apart, (B, H, blocks, width); behind the end are zeros."""
    R = math.ceil(x.shape[-1] / size)
    missing = max(0, (R - 1) * size + width - x.shape[-1])
    return torch.nn.functional.pad(x, (0, missing)).unfold(-1, width, size)


class _Convolution(torch.autograd.Function):
    """Real transforms forth and back; autograd's own backward of rfft takes a full complex one instead."""

    @staticmethod
    def forward(ctx, u, k, size, n):
        (B, H, L), K = u.shape, k.shape[-1]
        k_f = torch.fft.rfft(k, n).unsqueeze(1)
        keep = any(ctx.needs_input_grad) and B * H * math.ceil(L / size) * n <= KEPT
        y, kept = torch.zeros_like(u, memory_format=torch.contiguous_format), []
        for channels, time in _pieces(B, H, L, size, n):
            u_f = torch.fft.rfft(_frames(u[:, channels, time], size, size), n)
            blocks = torch.fft.irfft(u_f * k_f[channels], n)
            y[:, channels, time] += blocks[..., :size].flatten(2)[..., : time.stop - time.start]
            # What a block leaves to the one after it.
            for r in range(blocks.shape[2]):
                begin = time.start + (r + 1) * size
                after = y[:, channels, begin : begin + K - 1]
                after += blocks[:, :, r, size : size + after.shape[-1]]
            kept += [u_f] if keep else []
        ctx.save_for_backward(u, k_f, *kept)
        ctx.sizes = K, size, n
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        u, k_f, *kept = ctx.saved_tensors
        K, size, n = ctx.sizes
        B, H, L = u.shape
        grad_u = torch.empty_like(u) if ctx.needs_input_grad[0] else None
        grad_k = torch.zeros_like(k_f).squeeze(1) if ctx.needs_input_grad[1] else None
        for i, (channels, time) in enumerate(_pieces(B, H, L, size, n)):
            # The outputs that the inputs of each block take part in: its own and K - 1 of the next.
            reached = grad[:, channels, time.start : min(L, time.stop + K - 1)]
            blocks = math.ceil((time.stop - time.start) / size)
            grad_f = torch.fft.rfft(_frames(reached, size, min(n, size + K - 1))[:, :, :blocks], n)
            if grad_u is not None:
                back = torch.fft.irfft(grad_f * k_f[channels].conj(), n)[..., :size]
                grad_u[:, channels, time] = back.flatten(2)[..., : time.stop - time.start]
            if grad_k is not None:
                u_f = kept[i] if kept else torch.fft.rfft(_frames(u[:, channels, time], size, size), n)
                grad_k[channels] += (grad_f * u_f.conj()).sum((0, 2))
        return grad_u, None if grad_k is None else torch.fft.irfft(grad_k, n)[..., :K], None, None
