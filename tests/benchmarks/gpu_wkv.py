"""RWKV-4's average, forth and back, in a wide batch and on one long record, against torch's own operations and fla."""

import torch
from gpu import optional, together

from statespace.kernels import wkv

TESTS = ["tests/kernels/test_wkv_triton.py"]


def problem(device, small, dtype, B, L, D):
    B, L, D = (2, 33, 5) if small else (B, L, D)
    generator = torch.Generator().manual_seed(0)
    w, u = torch.linspace(1e-3, 3, D), torch.linspace(-1, 1, D)
    k, v = (torch.randn(B, L, D, generator=generator).to(dtype) for _ in range(2))
    return [x.to(device).requires_grad_() for x in (w, u, k, v)]


def peers(wrap, arguments):
    found = {"torch": wrap(lambda *x: wkv(*x, backend="pytorch")[0], arguments)}
    # It takes the logarithms of the rates.
    theirs = optional("fla.ops.rwkv4", "fused_recurrent_rwkv4")
    if callable(theirs):

        def function(w, u, k, v):
            state = torch.zeros(len(k), 3, 1, k.shape[2], device=k.device)
            state[:, 2] = -1e30
            return theirs(w.log(), u, k, v, state)[0]

        theirs = wrap(function, arguments)
    return found | {"fla": theirs}


def plain(function, arguments):
    return torch.no_grad()(lambda: function(*arguments))


def case(name, wrap, sizes, passes, operations):
    def run(device, small, dtype=torch.float32):
        arguments = _, _, k, _ = problem(device, small, dtype, *sizes)
        B, L, D = k.shape
        return {
            "name": f"wkv, {name}",
            "shape": f"B {B}, L {L}, D {D}",
            "dtype": dtype,
            "ours": wrap(lambda *x: wkv(*x, backend="triton")[0], arguments),
            "peers": peers(wrap, arguments),
            "bytes": passes * k.nbytes,
            "flops": operations * k.numel(),
        }

    run.__name__ = name
    return run


WIDE, LONG = (16, 2048, 1024), (1, 262_144, 256)
# Forth: k, v and y. Back: k, v, the gradients in y, k and v.
CASES = [
    case("forward", plain, WIDE, 3, 20), case("forward and backward", together, WIDE, 8, 70),
    case("forward, one long record", plain, LONG, 3, 20),
    case("forward and backward, one long record", together, LONG, 8, 70),
]  # fmt: skip
