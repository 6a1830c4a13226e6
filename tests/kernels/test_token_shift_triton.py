"""RWKV's token shift in Triton: outputs and gradients against torch's own, any shape and type; the code for GPUs."""

import pytest
import torch

from statespace.kernels import token_shift
from tests.kernels.compilation import compile_for_gpus, launches

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


def problem(B=2, L=63, D=5, J=3, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(L)
    shapes = (B, L, D), (J, D), (B, D)
    return [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]


def with_gradients(arguments, backend):
    x = torch.stack(token_shift(*arguments, backend=backend))
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    return x, *torch.autograd.grad((x * weights).sum(), arguments)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [dict(L=1), dict(L=2, D=16), dict(D=70, J=1), dict(L=257, B=3)], ids=str)
def test_mixes_and_gradients(triton_device, shape, dtype):
    arguments = problem(**shape, dtype=dtype, device=triton_device)
    exact = [x.detach().double().requires_grad_() for x in arguments]
    for name, got, expected in zip(
        ("x", "u", "mix", "register"),
        with_gradients(arguments, "triton"),
        with_gradients(exact, "pytorch"),
        strict=True,
    ):
        assert got.dtype == dtype
        largest = expected.abs().max()
        torch.testing.assert_close(
            got.double() / largest, expected / largest, rtol=0, atol=TOLERANCE[dtype], msg=lambda m, n=name: f"{n}: {m}"
        )


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = problem(device=triton_device)
    compiled = torch.compile(
        lambda *x: torch.stack(token_shift(*x, backend="triton")), fullgraph=True, backend="aot_eager"
    )
    expected = with_gradients(arguments, "triton")
    got = compiled(*arguments)
    weights = torch.randn(got.shape, generator=torch.Generator().manual_seed(1)).to(got)
    for x, y in zip((got, *torch.autograd.grad((got * weights).sum(), arguments)), expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        for dtype in (torch.float32, torch.bfloat16):
            with_gradients(problem(dtype=dtype), "triton")
    code = compile_for_gpus(found, variants=True)
    # Kernels, types, capabilities, and the two variants of which a GPU takes the faster one.
    assert len(code) == 2 * 2 * 2 * 2
    assert [entry for entry in code if entry["spilled"]] == []
