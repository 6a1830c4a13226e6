"""The linear scan and the diagonal systems, forth and back, against torch's operations and accelerated-scan."""

import torch
from gpu import optional, together

from statespace.kernels import (
    diagonal_convolution,
    diagonal_scan,
    diagonal_states,
    linear_scan,
    long_convolution,
    vandermonde,
)

TESTS = [
    f"tests/kernels/test_{name}_triton.py"
    for name in ("linear_scan", "diagonal_scan", "diagonal_states", "diagonal_convolution")
]


def quietly(function, arguments):
    return torch.no_grad()(lambda: function(*arguments))


def accelerated(module, arguments, run):
    scan = optional(f"accelerated_scan.{module}", "scan")
    if isinstance(scan, str):
        return scan
    return run(scan, arguments) if arguments[0].is_cuda else "runs on a GPU only"


def factors_and_inputs(device, shape, dtype):
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(shape, generator=generator, dtype=dtype).to(device)
    a = 0.5 + 0.499 * torch.rand(shape, generator=generator)
    a = torch.polar(a, 6 * torch.rand(shape, generator=generator)) if dtype.is_complex else a
    return [x.to(device, dtype).requires_grad_() for x in (a, b)]


def linear(device, small, B, H, L, dtype, backward):
    shape = (1, 2, 70) if small else (B, H, L)
    arguments, run = factors_and_inputs(device, shape, dtype), together if backward else quietly
    a, b = arguments
    peers = {"torch": run(lambda a, b: linear_scan(a, b, backend="pytorch"), arguments)}
    if not dtype.is_complex:
        powers_of_two = "takes powers of two only" if shape[-1] & (shape[-1] - 1) else None
        peers["accelerated-scan, Triton"] = accelerated("scalar", arguments, run)
        peers["accelerated-scan, CUDA"] = powers_of_two or accelerated("warp", arguments, run)
    return {
        "name": "linear_scan, forward and backward" if backward else "linear_scan, forward",
        "shape": "B {}, H {}, L {}".format(*shape),
        "dtype": dtype,
        "ours": run(lambda a, b: linear_scan(a, b, backend="triton"), arguments),
        "peers": peers,
        # Forth: a, b, x. Back: a, x, the gradients in x, a and b.
        "bytes": (3 + 5 * backward) * b.nbytes,
        "flops": (2 + 4 * backward) * (4 if dtype.is_complex else 1) * b.numel(),
        **({} if dtype == torch.bfloat16 else {"tolerance": 1e-4}),
    }


def few_long(device, small):
    return linear(device, small, 2, 32, 65_536, torch.float32, False)


def few_long_gradients(device, small):
    return linear(device, small, 2, 32, 65_536, torch.float32, True)


def many_rows(device, small):
    return linear(device, small, 8, 1536, 4096, torch.float32, True)


def one_million(device, small):
    return linear(device, small, 1, 8, 1_048_576, torch.float32, False)


def turning(device, small):
    return linear(device, small, 2, 32, 65_536, torch.complex64, True)


def halves(device, small):
    return linear(device, small, 8, 1536, 4096, torch.bfloat16, True)


def system(device, small, B=8, H=512, L=4096, N=32):
    B, H, L, N = (1, 2, 9, 3) if small else (B, H, L, N)
    generator = torch.Generator().manual_seed(0)
    u, dt = torch.randn(B, H, L, generator=generator), torch.rand(B, L, generator=generator)
    rate = torch.complex(-torch.full((H, N), 0.05), 0.3 * torch.arange(N).expand(H, N)).to(torch.complex128)
    c = torch.randn(H, N, dtype=torch.complex64, generator=generator)
    return [x.to(device).requires_grad_() for x in (u, dt, rate, c)]


def irregular(device, small, backward=False, **shape):
    arguments, run = system(device, small, **shape), together if backward else quietly
    u, dt, rate, c = arguments
    steps = u.numel() * rate.shape[1]
    return {
        "name": "diagonal_scan, forward and backward" if backward else "diagonal_scan, forward",
        "shape": "B {}, H {}, L {}, ".format(*u.shape) + f"N {rate.shape[1]}",
        "dtype": u.dtype,
        "ours": run(lambda *x: diagonal_scan(*x, backend="triton"), arguments),
        "peers": {"torch": run(lambda *x: diagonal_scan(*x, backend="pytorch"), arguments)},
        "bytes": (2 + 3 * backward) * u.nbytes + (1 + 2 * backward) * dt.nbytes,
        # A decay is some 34 operations, a step 10, a step back 36 with the decay.
        "flops": (44 + (34 + 36) * backward) * steps,
        "tolerance": 1e-4,
    }


def irregular_gradients(device, small):
    return irregular(device, small, backward=True, B=4, H=256, L=2048)


def irregular_long(device, small):
    return irregular(device, small, B=1, H=8, L=65_536)


def states(device, small):
    B, L, P = (1, 9, 3) if small else (16, 8192, 128)
    generator = torch.Generator().manual_seed(0)
    v, dt = torch.randn(B, L, 2, P, generator=generator), torch.rand(B, L, generator=generator)
    rate = torch.complex(-torch.full((P,), 0.05), 0.1 * torch.arange(P)).to(torch.complex128)
    arguments = [x.to(device).requires_grad_() for x in (v, dt, rate)]
    return {
        "name": "diagonal_states, forward and backward",
        "shape": f"B {B}, L {L}, P {P}",
        "dtype": v.dtype,
        "ours": together(lambda *x: diagonal_states(*x, backend="triton"), arguments),
        "peers": {"torch": together(lambda *x: diagonal_states(*x, backend="pytorch"), arguments)},
        # Forth: v and the states. Back: v, the states, their gradient, and that in v.
        "bytes": 6 * v.nbytes,
        "flops": (44 + 34 + 36) * v.numel() // 2,
        "tolerance": 1e-4,
    }


def regular(device, small, backward=False):
    u, _, rate, c = system(device, small)
    arguments, run = [u, rate, c], together if backward else quietly
    (B, H, L), N = u.shape, rate.shape[1]

    def by_fft(u, rate, c):
        kernel = vandermonde(c * torch.expm1(rate), rate, L, log_nodes=True, real=True)
        return long_convolution(u, kernel.to(u.dtype), backend="pytorch")

    return {
        "name": "diagonal_convolution, forward and backward" if backward else "diagonal_convolution, forward",
        "shape": f"B {B}, H {H}, L {L}, N {N}",
        "dtype": u.dtype,
        "ours": run(lambda *x: diagonal_convolution(*x, backend="triton")[0], arguments),
        "peers": {
            "torch": run(lambda *x: diagonal_convolution(*x, backend="pytorch")[0], arguments),
            "torch's FFT of the kernel": run(by_fft, arguments),
        },
        "bytes": (2 + 3 * backward) * u.nbytes,
        # Blocks of 32: a triangle of the product with 32 x 32, and what is written and read, 4 N each.
        "flops": (32 + 8 * N) * (1 + 2 * backward) * u.numel(),
        "tolerance": 1e-4,
    }


def regular_gradients(device, small):
    return regular(device, small, backward=True)


CASES = [
    few_long, few_long_gradients, many_rows, one_million, turning, halves,
    irregular, irregular_gradients, irregular_long, states, regular, regular_gradients,
]  # fmt: skip
