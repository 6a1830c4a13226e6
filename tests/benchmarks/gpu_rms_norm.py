"""The gated norm, forth and back, against torch's own operations, plain and compiled, and mamba_ssm's kernel."""

import torch
from gpu import optional, together

from statespace.kernels import rms_norm

TESTS = ["tests/kernels/test_rms_norm_triton.py"]


def problem(device, small, dtype):
    rows, channels = (33, 24) if small else (65_536, 4096)
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, channels), (channels,), (rows, channels)
    return [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]


def peers(wrap, arguments, small):
    def with_torch(*x):
        return rms_norm(*x, backend="pytorch")

    found = {"torch": wrap(with_torch, arguments)}
    found["torch.compile"] = "compiles on a GPU only" if small else wrap(torch.compile(with_torch), arguments)
    theirs = optional("mamba_ssm.ops.triton.layernorm_gated", "rmsnorm_fn")
    if callable(theirs):

        def function(x, weight, z):
            return theirs(x, weight, None, z=z, eps=1e-5, norm_before_gate=False)

        theirs = wrap(function, arguments)
    return found | {"mamba_ssm": theirs}


def plain(function, arguments):
    return torch.no_grad()(lambda: function(*arguments))


def case(name, wrap, passes, operations):
    def run(device, small, dtype=torch.bfloat16):
        arguments = x, _, _ = problem(device, small, dtype)
        return {
            "name": f"rms_norm, {name}",
            "shape": f"rows {len(x)}, channels {x.shape[1]}, gated",
            "dtype": dtype,
            "ours": wrap(lambda *x: rms_norm(*x, backend="triton"), arguments),
            "peers": peers(wrap, arguments, small),
            "bytes": passes * x.nbytes,
            "flops": operations * x.numel(),
        }

    run.__name__ = name
    return run


# Forth: x, z and y. Back: x, z, the gradients in y, x and z.
CASES = [case("forward", plain, 3, 8), case("forward and backward", together, 8, 30)]
