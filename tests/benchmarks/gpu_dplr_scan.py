"""S4's scan over irregular gaps, against the loop of torch operations on the GPU and the compiled loops on the host."""

import torch
from gpu import together

from statespace.kernels import dplr_scan

TESTS = ["tests/kernels/test_dplr_scan_triton.py"]
# What a step takes of a pair of states, rank 1: E 8, Λx + Bu 8, E (..) 12, P* 6, h E P q 8, the read-out 4; back twice
# that, for the gradients in the state and in the system, and once for the states again.
FORTH, BACK = 46, 46 * 3


def problem(device, small, B, H, L, n, dtype):
    B, H, L, n = (1, 2, 5, 2) if small else (B, H, L, n)
    draw = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=draw)  # noqa: E731
    complex_normal = lambda *shape: torch.complex(normal(*shape), normal(*shape))  # noqa: E731
    u, dt = normal(B, H, L).to(device, dtype), torch.empty(B, L).exponential_(generator=draw).to(device)
    # S4's own: a step of about a hundredth of the mean gap.
    Lambda = torch.complex(torch.full((H, n), -0.5), torch.pi * torch.arange(n).expand(H, n)) * 0.01
    system = Lambda, 0.1 * complex_normal(H, 1, n), 0.1 * complex_normal(H, n), complex_normal(H, n)
    arguments = [u.requires_grad_(), dt, *(x.to(device).requires_grad_() for x in system)]
    return arguments, f"B {B}, H {H}, L {L}, N {2 * n}", B * H * L * n


def outputs(device, small, B=16, H=256, L=4096, n=32, dtype=torch.float32):
    arguments, shape, steps = problem(device, small, B, H, L, n, dtype)
    on_host = [x.detach().cpu().to(torch.complex64 if x.is_complex() else torch.float32) for x in arguments]

    def call(backend, given=arguments):
        return torch.no_grad()(lambda: dplr_scan(*given, backend=backend))

    loop = f"a loop of {arguments[0].shape[-1]} steps takes minutes"
    return {
        "name": "dplr_scan, forward",
        "shape": shape,
        "dtype": dtype,
        "ours": call("triton"),
        "peers": {"torch": call("pytorch") if arguments[0].shape[-1] <= 4096 else loop},
        "host": {"compiled loops on the CPU": call("cpu", on_host)},
        "bytes": 2 * arguments[0].nbytes + arguments[1].nbytes,
        "flops": FORTH * steps,
    }


def gradients(device, small, B=16, H=256, L=4096, n=32, dtype=torch.float32):
    arguments, shape, steps = problem(device, small, B, H, L, n, dtype)
    loop = f"a loop of {arguments[0].shape[-1]} steps takes minutes"
    with_torch = together(lambda *x: dplr_scan(*x, backend="pytorch"), arguments)
    return {
        "name": "dplr_scan, forward and backward",
        "shape": shape,
        "dtype": dtype,
        "ours": together(lambda *x: dplr_scan(*x, backend="triton"), arguments),
        "peers": {"torch": with_torch if arguments[0].shape[-1] <= 1024 else loop},
        "bytes": 5 * arguments[0].nbytes + 2 * arguments[1].nbytes,
        "flops": (FORTH + BACK) * steps,
    }


def half_precision(device, small):
    return outputs(device, small, dtype=torch.bfloat16)


def gradients_of_short_records(device, small):
    return gradients(device, small, B=32, H=256, L=1024)


def a_long_record_of_few_channels(device, small):
    """Cut into chunks that are scanned side by side."""
    return outputs(device, small, B=1, H=8, L=1 << 18)


def gradients_of_a_long_record_of_few_channels(device, small):
    return gradients(device, small, B=1, H=8, L=1 << 18)


CASES = [
    outputs, half_precision, gradients, gradients_of_short_records, a_long_record_of_few_channels,
    gradients_of_a_long_record_of_few_channels,
]  # fmt: skip
