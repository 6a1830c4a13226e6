"""RWKV's token shift, forth and back, against torch's own operations, plain and compiled."""

import torch
from gpu import together

from statespace.kernels import token_shift

TESTS = ["tests/kernels/test_token_shift_triton.py"]


def problem(device, small, dtype):
    B, L, D, J = (2, 33, 5, 3) if small else (16, 8192, 1024, 3)
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(s, generator=generator).to(device, dtype) for s in ((B, L, D), (J, D), (B, D))]
    return [x.requires_grad_() for x in tensors]


def mixes(device, small, dtype=torch.bfloat16):
    u, mix, register = arguments = problem(device, small, dtype)
    with_torch = torch.compile(lambda *x: token_shift(*x, backend="pytorch"), dynamic=False)

    def calls(function):
        return torch.no_grad()(lambda: function(*arguments))

    return {
        "name": "token_shift, forward",
        "shape": f"B {u.shape[0]}, L {u.shape[1]}, D {u.shape[2]}, {len(mix)} mixes",
        "dtype": dtype,
        "ours": calls(lambda *x: token_shift(*x, backend="triton")),
        "peers": {
            "torch": calls(lambda *x: token_shift(*x, backend="pytorch")),
            "torch.compile": "compiles on a GPU only" if small else calls(with_torch),
        },
        "bytes": (1 + len(mix)) * u.nbytes,
        "flops": 3 * len(mix) * u.numel(),
    }


def gradients(device, small, dtype=torch.bfloat16):
    u, mix, register = arguments = problem(device, small, dtype)
    return {
        "name": "token_shift, forward and backward",
        "shape": f"B {u.shape[0]}, L {u.shape[1]}, D {u.shape[2]}, {len(mix)} mixes",
        "dtype": dtype,
        "ours": together(lambda *x: token_shift(*x, backend="triton"), arguments),
        "peers": {"torch": together(lambda *x: token_shift(*x, backend="pytorch"), arguments)},
        # Forth: u, the mixes. Back: u, the mixes' gradients, u's gradient.
        "bytes": (1 + len(mix) + 1 + len(mix) + 1) * u.nbytes,
        "flops": 10 * len(mix) * u.numel(),
    }


CASES = [mixes, gradients]
