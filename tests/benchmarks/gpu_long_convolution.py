"""The long convolution against torch's FFT padded to twice the record, FlashFFTConv, and for short kernels conv1d."""

import math
from functools import partial

import torch
from gpu import optional, together

from statespace.kernels import long_convolution

TESTS = ["tests/kernels/test_long_convolution_cupy.py"]
# records, channels, length, taps
SIZES = [
    (64, 768, 1024, 1024), (8, 768, 16_384, 16_384), (2, 768, 65_536, 65_536), (1, 64, 1 << 20, 1 << 20),
    (1, 64, 1 << 20, 2048), (8, 768, 16_384, 16),
]  # fmt: skip
SMALL = {16: (2, 3, 70, 16)}


def problem(device, small, size, dtype):
    B, H, L, K = SMALL.get(size[3], (2, 3, 90, 90)) if small else size
    generator = torch.Generator(device).manual_seed(0)
    u = torch.randn(B, H, L, generator=generator, device=device).to(dtype)
    k = torch.randn(H, K, generator=generator, device=device) * torch.exp(-torch.arange(K, device=device) / 100)
    return u.requires_grad_(), k.requires_grad_()


def twice_the_record(u, k):
    """As most code has it."""
    L = u.shape[-1]
    n = L + k.shape[-1] if k.shape[-1] < L else 2 * L
    y = torch.fft.irfft(torch.fft.rfft(u.float(), n) * torch.fft.rfft(k.float(), n), n)[..., :L]
    return y.to(u.dtype)


def by_conv1d(u, k):
    padded = torch.nn.functional.pad(u, (k.shape[-1] - 1, 0))
    return torch.nn.functional.conv1d(padded, k.to(u.dtype).flip(-1).unsqueeze(1), groups=len(k))


def flash(L, dtype):
    """FlashFFTConv knows half precision, and powers of two from 256 on."""
    layer = optional("flashfftconv", "FlashFFTConv")
    if isinstance(layer, str) or dtype == torch.float32 or L < 256:
        return layer if isinstance(layer, str) else "it has no float32, and no short records"
    transform = layer(2 * L, dtype=dtype).to("cuda")
    return lambda u, k: transform(u, k.float())


def entry(device, small, size, dtype, calls, words, reads):
    u, k = problem(device, small, size, dtype)
    (B, H, L), K = u.shape, k.shape[-1]

    def ours(u, k):
        return long_convolution(u, k.to(u.dtype), backend="cupy")

    peers = {"torch.fft at 2 L": twice_the_record, "pytorch": lambda u, k: long_convolution(u, k, backend="pytorch")}
    if L == K:
        peers["FlashFFTConv"] = flash(L, dtype)
    else:
        peers["torch conv1d"] = by_conv1d if K <= 64 else "it would take minutes"
    n = 2 * max(L, K)
    return {
        "name": f"long_convolution, {words}",
        "shape": f"B {B}, H {H}, L {L}, K {K}",
        "dtype": dtype,
        "ours": calls(ours, (u, k)),
        "peers": {name: peer if isinstance(peer, str) else calls(peer, (u, k)) for name, peer in peers.items()},
        "bytes": reads * u.nbytes + 2 * k.nbytes,
        # transforms of 2 L real samples, forth and back, or the sum
        "flops": (reads / 2) * B * H * min(2 * L * K, 2 * 2.5 * n * math.log2(n)),
    }


def forward(device, small, size, dtype=torch.float32):
    def calls(function, arguments):
        return torch.no_grad()(lambda: function(*arguments))

    return entry(device, small, size, dtype, calls, "forward", 2)


def gradients(device, small, size, dtype=torch.float32):
    # u and y, then u, y's gradient and u's
    return entry(device, small, size, dtype, together, "forward and backward", 5)


CASES = [
    *(partial(forward, size=size) for size in SIZES),
    *(partial(gradients, size=size) for size in SIZES),
    partial(forward, size=SIZES[1], dtype=torch.bfloat16),
    partial(gradients, size=SIZES[1], dtype=torch.bfloat16),
]
