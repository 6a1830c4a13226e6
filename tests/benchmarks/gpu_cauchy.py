"""The Cauchy products of an S4 layer: four sums over the same poles, in float64 as the layer asks for them."""

from functools import partial

import torch
from gpu import optional, together

from statespace.kernels import cauchy

TESTS = ["tests/kernels/test_cauchy_triton.py"]
# Of a node and a pair of poles: the denominator 6, its reciprocal 6, and 8 for each sum; back there are both halves'
# reciprocals and squares, and three times the products.
COMMON, EACH = 12, 8


def problem(device, small, H, L, n, dtype):
    H, L, n = (2, 9, 3) if small else (H, L, n)
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(H, 4, n, generator=draw, dtype=torch.complex128)
    angle = torch.arange(L, dtype=torch.float64) * (torch.pi / (L + 1))
    w = 0.01 * torch.complex(torch.full((H, 1, n), -0.5), torch.pi * torch.arange(n).expand(H, 1, n)).to(v)
    v, z, w = (x.to(device, dtype) for x in (v, 2j * torch.tan(angle / 2), w))
    return v.requires_grad_(), z, w.requires_grad_()


def with_keops(v, z, w):
    lazy = optional("pykeops.torch", "LazyTensor")
    if isinstance(lazy, str):
        return lazy
    v, z, w = (x.detach() for x in (v[:, :, None, :, None], z[None, None, :, None, None], w[:, :, None, :, None]))

    def run():
        halves = lazy(v) / (lazy(z) - lazy(w)), lazy(v.conj()) / (lazy(z) - lazy(w.conj()))
        return (halves[0] + halves[1]).sum(dim=3).squeeze(-1)

    return run


def describe(arguments, name, dtype):
    (H, sums, n), L = arguments[0].shape, len(arguments[1])
    return H * n * L, {
        "name": name,
        "shape": f"H {H}, {sums} sums, L {L}, N {2 * n}",
        "dtype": dtype,
        "rate": "float64" if dtype == torch.complex128 else "float32",
        "tolerance": 1e-8 if dtype == torch.complex128 else 1e-3,
    }


def products(device, small, dtype=torch.complex128):
    arguments = problem(device, small, 256, 8192, 32, dtype)
    terms, words = describe(arguments, "cauchy, forward", dtype)
    v, z, w = arguments

    def call(backend):
        return torch.no_grad()(lambda: cauchy(*arguments, conjugate=True, backend=backend))

    return words | {
        "ours": call("triton"),
        "peers": {"torch, in chunks": call("pytorch"), "KeOps": with_keops(*arguments)},
        "bytes": v.nbytes + z.nbytes + w.nbytes + v.shape[0] * v.shape[1] * z.nbytes,
        "flops": (COMMON + EACH * v.shape[1]) * terms,
    }


def gradients(device, small, dtype=torch.complex128):
    arguments = problem(device, small, 256, 8192, 32, dtype)
    terms, words = describe(arguments, "cauchy, forward and backward", dtype)
    v, z, w = arguments
    named = {name: partial(cauchy, conjugate=True, backend=name) for name in ("triton", "pytorch")}
    return words | {
        "ours": together(named["triton"], arguments),
        "peers": {"torch, in chunks": together(named["pytorch"], arguments)},
        "bytes": 3 * (v.nbytes + w.nbytes) + 2 * z.nbytes + 2 * v.shape[0] * v.shape[1] * z.nbytes,
        "flops": (3 * COMMON + 4 * EACH * v.shape[1]) * terms,
    }


def products_in_float32(device, small):
    return products(device, small, torch.complex64)


CASES = [products, products_in_float32, gradients]
