"""The gated delta rule, forth and back, against torch's own operations and fla's chunks."""

import torch
from gpu import optional, together

from statespace.kernels import delta_rule

TESTS = ["tests/kernels/test_delta_rule_triton.py"]


def problem(device, small, dtype, B, L, H, K, V):
    B, L, H, K, V = (1, 20, 1, 5, 3) if small else (B, L, H, K, V)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, L, H, n, generator=generator) for n in (K, K, V))
    q, k = (torch.nn.functional.normalize(x, dim=-1) for x in (q, k))
    beta, rate = torch.randn(2, B, L, H, generator=generator)
    decay = -0.1 * torch.nn.functional.softplus(rate)
    tensors = q.to(dtype), k.to(dtype), v.to(dtype), beta.sigmoid(), decay
    return [x.to(device).requires_grad_() for x in tensors]


def peers(wrap, arguments):
    found = {"torch": wrap(lambda *x: delta_rule(*x, backend="pytorch")[0], arguments)}
    theirs = optional("fla.ops.gated_delta_rule", "chunk_gated_delta_rule")
    if callable(theirs):

        def function(q, k, v, beta, decay):
            return theirs(q, k, v, decay, beta, scale=1.0, output_final_state=True)[0]

        theirs = wrap(function, arguments)
    return found | {"fla": theirs}


def plain(function, arguments):
    return torch.no_grad()(lambda: function(*arguments))


def case(name, wrap, sizes, back, dtype=torch.bfloat16):
    def run(device, small):
        arguments = q, _, v, _, _ = problem(device, small, dtype, *sizes)
        (B, L, H, K), V = q.shape, v.shape[-1]
        rows, numbers = q.nbytes, v.nbytes
        return {
            "name": f"delta_rule, {name}",
            "shape": f"B {B}, L {L}, H {H}, K {K}, V {V}, gated",
            "dtype": dtype,
            "ours": wrap(lambda *x: delta_rule(*x, backend="triton")[0], arguments),
            "peers": peers(wrap, arguments),
            # Forth: q, k, v and o. Back: q, k, v and the gradients in all of them.
            "bytes": 2 * rows + 2 * numbers + back * (4 * rows + 3 * numbers),
            # Of the recurrence: decay, read, write and read out; the gradient of each product is two.
            "flops": (7 + back * 14) * B * L * H * K * V,
            "rate": "bfloat16" if dtype == torch.bfloat16 else "float32",
        }

    run.__name__ = name
    return run


WIDE, LONG = (8, 4096, 16, 128, 128), (1, 131_072, 4, 64, 64)
CASES = [
    case("forward", plain, WIDE, 0), case("forward and backward", together, WIDE, 1),
    case("forward and backward, float32", together, (4, 2048, 16, 64, 64), 1, torch.float32),
    case("forward, one long record", plain, LONG, 0),
]  # fmt: skip
