"""Long convolution, forward and backward, against torch's FFT padded to twice the record and against torch's conv1d."""

import torch
from harness import machine, race, table

from statespace.kernels import long_convolution

TESTS = ["tests/kernels/test_long_convolution.py"]
CHANNELS = 64
# (batch, length, kernel's length): kernels as long as the record, prime lengths, short kernels, very long records.
SIZES = [
    (4, 512, 512), (4, 2048, 2048), (4, 4099, 4099), (1, 16_384, 16_384), (1, 65_536, 65_536), (1, 100_003, 100_003),
    (4, 2048, 4), (4, 2048, 64), (1, 16_384, 1024), (1, 262_144, 512),
]  # fmt: skip


def twice_the_record(u, k):
    """As most code has it: both padded to 2 L, transformed by torch.fft, its own autograd."""
    L = u.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u, 2 * L) * torch.fft.rfft(k, 2 * L), 2 * L)[..., :L]


def direct(u, k):
    padded = torch.nn.functional.pad(u, (k.shape[-1] - 1, 0))
    return torch.nn.functional.conv1d(padded, k.flip(-1).unsqueeze(1), groups=k.shape[0])


def training_step(convolve, u, k):
    def run():
        u.grad = k.grad = None
        convolve(u, k).square().mean().backward()

    return run


def main():
    print(machine(["torch"]), f"{torch.get_num_threads()} threads")
    torch.manual_seed(0)
    for batch, length, taps in SIZES:
        u, k = torch.randn(batch, CHANNELS, length).requires_grad_(), torch.randn(CHANNELS, taps).requires_grad_()
        contenders = {
            "long_convolution": training_step(long_convolution, u, k),
            "torch.fft at 2 L": training_step(twice_the_record, u, k),
        }
        if taps <= 64:
            contenders["torch conv1d"] = training_step(direct, u, k)
        seconds = race(contenders, rounds=5)
        title = f"forward + backward, B {batch}, H {CHANNELS}, L {length}, K {taps}"
        table(title, seconds, "long_convolution", per=batch * length, unit="ns")


if __name__ == "__main__":
    main()
