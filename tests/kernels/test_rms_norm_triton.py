"""The gated norm in Triton: outputs and every gradient against the float64 formula; the code for GPUs."""

import pytest
import torch

from statespace.kernels import rms_norm
from tests.kernels.compilation import compile_for_gpus, launches

NAMES = "x", "weight", "z"
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
PROBLEMS = {
    "one": dict(shape=(1,)),
    "odd": dict(shape=(3, 7, 13)),
    "several tiles": dict(shape=(70, 48)),
    "groups": dict(shape=(2, 5, 64), group_size=32),
    "odd groups": dict(shape=(40, 20), group_size=5),
    "wide": dict(shape=(3, 2500)),
    "not gated": dict(shape=(33, 24), gated=False),
    "not gated, groups": dict(shape=(5, 24), group_size=8, gated=False),
}


def problem(shape, gated=True, dtype=torch.float64, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    shapes = [shape, shape[-1:], *([shape] if gated else [])]
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [x.to(device, dtype).requires_grad_() for x in drawn]


def with_gradients(arguments, backend, **options):
    y = rms_norm(*arguments, backend=backend, **options)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    gradients = torch.autograd.grad((y * weights).sum(), arguments)
    return {"y": y, **{f"d{name}": g for name, g in zip(NAMES, gradients, strict=False)}}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("options", PROBLEMS.values(), ids=PROBLEMS)
def test_outputs_and_every_gradient(triton_device, options, dtype):
    options = dict(options)
    size = options.pop("group_size", None)
    arguments = problem(**options, dtype=dtype, device=triton_device)
    exact = [x.detach().double().requires_grad_() for x in arguments]
    expected = with_gradients(exact, "pytorch", group_size=size, eps=0.1)
    got = with_gradients(arguments, "triton", group_size=size, eps=0.1)
    for name, value in expected.items():
        assert got[name].dtype == dtype
        scale = max(1.0, value.abs().max().item())
        torch.testing.assert_close(
            got[name].double() / scale,
            value / scale,
            rtol=0,
            atol=TOLERANCE[dtype],
            msg=lambda m, name=name: f"{name}: {m}",
        )


def test_large_and_small_gates(triton_device):
    x = torch.tensor([[1.0, -2.0, 3.0, 1.0]], device=triton_device, requires_grad=True)
    z = torch.tensor([[1e4, -1e4, 88.0, -88.0]], device=triton_device, requires_grad=True)
    weight = torch.ones(4, device=triton_device, requires_grad=True)
    y = rms_norm(x, weight, z, backend="triton")
    expected = rms_norm(x.detach().double(), weight.detach().double(), z.detach().double(), backend="pytorch")
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-6)
    assert all(g.isfinite().all() for g in torch.autograd.grad(y.sum(), (x, weight, z)))


def test_parts_of_wider_rows_are_read_in_place(triton_device):
    both = torch.randn(5, 7, 100, device=triton_device, requires_grad=True)
    weight = torch.randn(48, device=triton_device)
    got = rms_norm(both[..., :48], weight, both[..., 50:98], backend="triton")
    expected = rms_norm(both[..., :48], weight, both[..., 50:98], backend="pytorch")
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    weights = torch.randn(got.shape, device=triton_device)
    pair = [torch.autograd.grad((y * weights).sum(), both)[0] for y in (got, expected)]
    torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5)


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = problem((6, 24), dtype=torch.float32, device=triton_device)
    expected = with_gradients(arguments, "triton", group_size=8)
    compiled = torch.compile(
        lambda *x: rms_norm(*x, group_size=8, backend="triton"), fullgraph=True, backend="aot_eager"
    )
    y = compiled(*arguments)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)
    gradients = torch.autograd.grad((y * weights).sum(), arguments)
    for got, value in zip((y, *gradients), expected.values(), strict=True):
        torch.testing.assert_close(got, value, rtol=0, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        # A group of more than 4,096 channels has a thread keep more numbers than it has registers.
        for shape, dtype in [((256, 64), torch.bfloat16), ((2, 4096), torch.bfloat16), ((8, 2048), torch.float32)]:
            with_gradients(problem(shape, dtype=dtype), "triton")
    code = compile_for_gpus(found)
    assert len(code) == 3 * 2 * 2
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
def test_more_numbers_than_an_int_counts():
    x = torch.randn(600_000, 4096, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(4096, device="cuda")
    y = rms_norm(x, weight, backend="triton")
    expected = rms_norm(x[-3:].double(), weight.double(), backend="pytorch")
    torch.testing.assert_close(y[-3:].double(), expected, rtol=2**-8, atol=1e-6)
