"""The kernel of a diagonal system, both levels at once, against the same by torch's operations and matrix products."""

from functools import partial

import torch
from gpu import optional, together

from statespace.kernels import vandermonde

TESTS = ["tests/kernels/test_vandermonde_triton.py"]


def problem(device, small, H, L, n):
    H, L, n = (2, 33, 3) if small else (H, L, n)
    draw = torch.Generator().manual_seed(0)
    c = torch.complex(torch.randn(H, n, generator=draw), torch.randn(H, n, generator=draw)).to(device)
    step = 10 ** (2 * torch.rand(H, 1, generator=draw, dtype=torch.float64) - 3)
    rate = step * torch.complex(torch.full((H, n), -0.5), torch.pi * torch.arange(n).expand(H, n)).to(torch.complex128)
    return (c.requires_grad_(), rate.to(device, c.dtype).requires_grad_()), L


def calls(arguments, L):
    return {name: partial(vandermonde, L=L, log_nodes=True, real=True, backend=name) for name in ("triton", "pytorch")}


def with_keops(c, rate, L):
    """The sum of exponentials, taken when it is needed, as S4D's own repository has it computed."""
    lazy = optional("pykeops.torch", "LazyTensor")
    if isinstance(lazy, str):
        return lazy
    c, rate = c.detach()[:, None, :, None], rate.detach()[:, None, :, None]
    steps = torch.arange(L, device=c.device).to(c.dtype)[None, :, None, None]
    return lambda: (lazy(c) * (lazy(rate) * lazy(steps)).exp()).sum(dim=2).real.squeeze(-1)


def kernels(device, small, H=1024, L=16_384, n=32):
    arguments, L = problem(device, small, H, L, n)
    named = calls(arguments, L)
    H, n = arguments[0].shape
    return {
        "name": "vandermonde, forward",
        "shape": f"H {H}, L {L}, N {2 * n}",
        "dtype": torch.float32,
        "ours": torch.no_grad()(lambda: named["triton"](*arguments)),
        "peers": {
            "torch, two-level": torch.no_grad()(lambda: named["pytorch"](*arguments)),
            "KeOps": with_keops(*arguments, L),
        },
        "bytes": 4 * H * L + sum(x.nbytes for x in arguments),
        # The real products of the second level.
        "flops": 4 * H * L * n,
    }


def gradients(device, small, H=1024, L=16_384, n=32):
    arguments, L = problem(device, small, H, L, n)
    named = calls(arguments, L)
    H, n = arguments[0].shape
    return {
        "name": "vandermonde, forward and backward",
        "shape": f"H {H}, L {L}, N {2 * n}",
        "dtype": torch.float32,
        "ours": together(named["triton"], arguments),
        "peers": {"torch, two-level": together(named["pytorch"], arguments)},
        "bytes": 2 * 4 * H * L + 3 * sum(x.nbytes for x in arguments),
        "flops": 12 * H * L * n,
    }


def long_kernels(device, small):
    return kernels(device, small, H=64, L=1 << 20)


CASES = [kernels, gradients, long_kernels]
