"""Mamba's selective scan, forth and back, and its step, against torch's operations and mamba_ssm's kernels."""

from functools import partial

import torch
from gpu import optional, together

from statespace.kernels import selective_scan, selective_state_update

TESTS = ["tests/kernels/test_selective_scan_triton.py", "tests/kernels/test_selective_state_update_triton.py"]
WIDE, LONG = (8, 2048, 4096, 16), (1, 256, 262_144, 16)


def problem(device, small, dtype, B, D, L, N, channels_last):
    B, D, L, N = (1, 3, 9, 2) if small else (B, D, L, N)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(device)  # noqa: E731
    u, delta, z = (draw(B, L, D).to(dtype).transpose(1, 2) for _ in range(3))
    if not channels_last:
        u, delta, z = (x.contiguous() for x in (u, delta, z))
    A = -torch.arange(1.0, N + 1, device=device).repeat(D, 1)
    B, C = (draw(B, N, L).to(dtype) for _ in range(2))
    return [x.requires_grad_() for x in (u, delta - 4, A, B, C, draw(D), z, draw(D))]


def plain(function, arguments):
    return torch.no_grad()(lambda: function(*arguments))


def scan(device, small, sizes=WIDE, dtype=torch.float32, channels_last=True, back=False, with_torch=True):
    wrap = together if back else plain
    arguments = u, _, A, B, *_ = problem(device, small, dtype, *sizes, channels_last)
    (records, D, L), N = u.shape, A.shape[1]
    theirs = optional("mamba_ssm.ops.selective_scan_interface", "selective_scan_fn")
    if callable(theirs):
        # It takes records with time last: others are copied first, as its own layers have it.
        function = theirs
        theirs = wrap(lambda *x: function(*x, delta_softplus=True), arguments)
    in_torch = wrap(lambda *x: selective_scan(*x, delta_softplus=True, backend="pytorch"), arguments)
    return {
        "name": f"selective_scan, {'forward and backward' if back else 'forward'}",
        "shape": f"B {records}, D {D}, L {L}, N {N}, {'channels' if channels_last else 'time'} last",
        "dtype": dtype,
        "ours": wrap(lambda *x: selective_scan(*x, delta_softplus=True, backend="triton"), arguments),
        "peers": {"torch, in chunks": in_torch, "mamba_ssm": theirs},
        # Forth: u, delta, z and y. Back: u, delta, z, the gradients in y, u, delta and z.
        "bytes": (4 + 7 * back) * u.nbytes + (2 + 4 * back) * B.nbytes,
        # Of a state: h A, its exponential, B v, decay and sum, read-out; back, those again and 12 for the gradients.
        "flops": (7 + 19 * back) * u.numel() * N,
        "tolerance": 2e-2 if dtype == torch.bfloat16 else 1e-3,
    }


def step(device, small, dtype=torch.float32):
    B, D, N = (2, 5, 3) if small else (256, 4096, 16)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator).to(device)  # noqa: E731
    state, x, dt, z = draw(B, D, N), *(draw(B, D) for _ in range(3))
    A, coefficients, D_, bias = -draw(D, N).exp(), [draw(B, N), draw(B, N)], draw(D), draw(D)
    arguments = state, x, dt, A, *coefficients, D_, z, bias
    theirs = optional("mamba_ssm.ops.triton.selective_state_update", "selective_state_update")
    if callable(theirs):
        # It overwrites the state: each call gets the same one, and only outputs are compared.
        function, own = theirs, state.clone()
        theirs = lambda: function(own.copy_(state), *arguments[1:], dt_softplus=True)  # noqa: E731
    return {
        "name": "selective_state_update",
        "shape": f"B {B}, D {D}, N {N}",
        "dtype": dtype,
        "ours": lambda: selective_state_update(*arguments, dt_softplus=True, backend="triton")[0],
        "peers": {
            "torch": lambda: selective_state_update(*arguments, dt_softplus=True, backend="pytorch")[0],
            "mamba_ssm, with a copy of the state": theirs,
        },
        "bytes": 2 * state.nbytes + 4 * x.nbytes,
        "flops": 7 * state.numel(),
    }


CASES = [
    scan, partial(scan, dtype=torch.bfloat16), partial(scan, channels_last=False),
    partial(scan, dtype=torch.bfloat16, channels_last=False), partial(scan, sizes=LONG),
    partial(scan, back=True), partial(scan, back=True, dtype=torch.bfloat16), partial(scan, sizes=LONG, back=True),
    step,
]  # fmt: skip
