"""Mamba-2's state-space duality and its short convolution, forth and back, against mamba_ssm, causal-conv1d, torch."""

import torch
from gpu import optional, together

from statespace.kernels import causal_conv1d, ssd

TESTS = ["tests/kernels/test_ssd_triton.py", "tests/kernels/test_causal_conv1d_triton.py"]
MAMBA = optional("mamba_ssm.ops.triton.ssd_combined", "mamba_chunk_scan_combined")
CONVOLUTION = optional("causal_conv1d", "causal_conv1d_fn")


def problem(device, dtype, batch, L, H, P, N, G=1):
    """x, dt, A, B, C, D, dt_bias; what makes the steps in float32, as layers in mixed precision have it."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    wide = draw(batch, L, H, P), draw(batch, L, G, N), draw(batch, L, G, N)
    x, B, C = (a.to(device, dtype) for a in wide)
    rates = draw(batch, L, H), -draw(H).exp(), draw(H), draw(H) - 4
    dt, A, D, bias = (a.to(device) for a in rates)
    return [a.requires_grad_() for a in (x, dt, A, B, C, D, bias)]


def ours(x, dt, A, B, C, D, bias, backend="triton"):
    return ssd(x, dt, A, B, C, 256, D, None, bias, dt_softplus=True, backend=backend)


def theirs(x, dt, A, B, C, D, bias):
    return MAMBA(x, dt, A, B, C, 256, D=D, dt_bias=bias, dt_softplus=True)


def in_torch(*arguments):
    return ours(*arguments, backend="pytorch")


def case(device, small, backward, dtype=torch.bfloat16, **shape):
    batch, L, H, P, N = shape.values()
    if small:
        batch, L, H, P, N = 1, 70, 2, 5, 7
    arguments = problem(device, dtype, batch, L, H, P, N)

    def calls(function):
        return together(function, arguments) if backward else torch.no_grad()(lambda: function(*arguments))

    x, dt, _, B, C, _, _ = arguments
    read = x.nbytes + dt.nbytes + B.nbytes + C.nbytes
    # By the recurrence: h has P N numbers; written, decayed and read.
    products = 6 * batch * L * H * P * N
    return {
        "name": f"ssd, forward{' and backward' if backward else ''}",
        "shape": f"B {batch}, L {L}, H {H}, P {P}, N {N}",
        "dtype": dtype,
        "ours": calls(ours),
        "peers": {"mamba_ssm": MAMBA if isinstance(MAMBA, str) else calls(theirs), "torch": calls(in_torch)},
        # Back: all inputs and y's gradient are read once more, all inputs' gradients are written.
        "bytes": 3 * read + 2 * x.nbytes if backward else read + x.nbytes,
        "flops": 3 * products if backward else products,
        "rate": "bfloat16" if dtype == torch.bfloat16 else "tf32",
        "tolerance": 5e-2 if dtype == torch.bfloat16 else 2e-3,
    }


TRAINING = dict(batch=8, L=4096, H=32, P=64, N=128)
LONG = dict(batch=1, L=65536, H=24, P=64, N=64)


def outputs(device, small):
    return case(device, small, False, **TRAINING)


def gradients(device, small):
    return case(device, small, True, **TRAINING)


def long_outputs(device, small):
    return case(device, small, False, **LONG)


def long_gradients(device, small):
    return case(device, small, True, **LONG)


def single(device, small):
    return case(device, small, True, torch.float32, **(TRAINING | dict(batch=2)))


def convolution(device, small, backward=False, dtype=torch.bfloat16):
    batch, L, D, W = (1, 40, 5, 4) if small else (8, 4096, 4352, 4)
    generator = torch.Generator().manual_seed(0)
    rows, weight, bias = (
        torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in ((batch, L, D), (D, W), (D,))
    )
    arguments = rows, weight, bias

    def with_backend(backend):
        return lambda rows, w, b: causal_conv1d(rows.transpose(1, 2), w, b, activation="silu", backend=backend)

    def calls(function):
        return together(function, arguments) if backward else torch.no_grad()(lambda: function(*arguments))

    theirs = CONVOLUTION
    if not isinstance(theirs, str):
        theirs = calls(lambda rows, w, b: CONVOLUTION(rows.transpose(1, 2), w, b, activation="silu"))
    return {
        "name": f"causal_conv1d, forward{' and backward' if backward else ''}",
        "shape": f"B {batch}, L {L}, D {D}, {W} taps, channels last",
        "dtype": dtype,
        "ours": calls(with_backend("triton")),
        "peers": {"causal-conv1d": theirs, "torch": calls(with_backend("pytorch"))},
        "bytes": (5 if backward else 2) * rows.nbytes,
        "flops": (3 if backward else 1) * 2 * W * rows.numel(),
    }


def convolution_gradients(device, small):
    return convolution(device, small, backward=True)


CASES = [outputs, gradients, long_outputs, long_gradients, single, convolution, convolution_gradients]
