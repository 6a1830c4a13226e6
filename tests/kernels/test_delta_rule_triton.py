"""The delta rule in Triton: outputs, final state, every gradient by name; hard decays, any shape; the code for GPUs."""

import pytest
import torch

from statespace.kernels import BackendError, delta_rule
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_delta_rule import loop, problem

TOLERANCE = {torch.float64: 1e-11, torch.float32: 3e-5, torch.bfloat16: 4e-2, torch.float16: 5e-3}


def tensors(dtype, device, without=(), **options):
    """q, k and v in the type, the rest in float32 at least."""
    wide = torch.promote_types(dtype, torch.float32)
    arrays = {name: x for name, x in problem(**options).items() if x is not None and name not in without}
    kinds = {name: dtype if name in "qkv" else wide for name in arrays}
    return {n: torch.from_numpy(x).to(device, kinds[n]).requires_grad_() for n, x in arrays.items()}


def with_gradients(function, arguments, **options):
    o, state = function(**arguments, **options)
    generator = torch.Generator().manual_seed(0)
    loss = sum((x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum() for x in (o, state))
    gradients = torch.autograd.grad(loss, arguments.values())
    return {"o": o, "state": state, **{f"d{n}": g for n, g in zip(arguments, gradients, strict=True)}}


def compare(got, expected, tolerance):
    for name, x in expected.items():
        error = (got[name].double().cpu() - x).abs().max() / max(1, x.abs().max())
        assert error < tolerance, f"{name}: {error:.1e}"


def exactly(arguments):
    return {name: x.detach().cpu().double().requires_grad_() for name, x in arguments.items()}


CASES = [
    dict(L=1), dict(L=2, B=1, H=1, K=1, V=1), dict(L=37, B=1, K=17, V=33), dict(L=70, B=1, H=2),
    dict(decay="none"), dict(decay="none", beta="below 2", normalised=False, L=17, B=1),
    dict(decay="near 1", beta="1.0", L=40, B=1), dict(decay="hard", L=35, H=1), dict(decay="zero", beta="0.0", L=5),
    dict(decay="none", beta="2.0", L=40, B=1, H=1), dict(qk_l2norm=True, normalised=False, K=18, L=20, B=1),
    dict(without=["initial_state"], B=1), dict(chunk=16, L=40, B=1, H=2), dict(chunk=32, L=70, B=1, H=1, K=70, V=40),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", CASES, ids=str)
def test_outputs_and_every_gradient(triton_device, options, dtype):
    unit = dict(qk_l2norm=options.get("qk_l2norm", False))
    options = dict(options)
    chunk, without = options.pop("chunk", None), options.pop("without", ())
    arguments = tensors(dtype, triton_device, without, **options)
    got = with_gradients(delta_rule, arguments, **unit, chunk_size=chunk, backend="triton")
    assert all(x.dtype == dtype for x in got.values())
    compare(got, with_gradients(loop, exactly(arguments), **unit), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_narrow_types(triton_device, dtype):
    arguments = tensors(dtype, triton_device, L=40, B=1, H=2, K=18, normalised=False)
    got = with_gradients(delta_rule, arguments, qk_l2norm=True, backend="triton")
    assert (got["o"].dtype, got["state"].dtype, got["dk"].dtype) == (dtype, torch.float32, dtype)
    compare(got, with_gradients(loop, exactly(arguments), qk_l2norm=True), TOLERANCE[dtype])


def test_a_factor_of_zero_forgets_all_and_has_no_gradient(triton_device):
    arguments = tensors(torch.float32, triton_device, L=45, B=1, H=2)
    with torch.no_grad():
        arguments["decay"][:, [7, 16, 30]] = -1e6
        arguments["decay"][:, 33] = -torch.inf
    o, state = delta_rule(**arguments, backend="triton")
    later = {n: x[:, 33:].detach().cpu().double() for n, x in arguments.items() if n != "initial_state"}
    expected = dict(zip(("o", "state"), delta_rule(**later, backend="pytorch"), strict=True))
    compare({"o": o[:, 33:], "state": state}, expected, 3e-5)
    (of_decay,) = torch.autograd.grad(o.square().sum() + state.square().sum(), arguments["decay"], retain_graph=True)
    assert (of_decay[:, [7, 16, 30, 33]] == 0).all()
    assert (of_decay != 0).any()
    (of_initial,) = torch.autograd.grad(o[:, 7:].square().sum(), arguments["initial_state"])
    assert (of_initial == 0).all()


def test_keys_that_come_again(triton_device):
    """T is then full of ones: what is solved must not be summed up by powers of it."""
    arguments = tensors(torch.float32, triton_device, L=64, B=1, H=1, K=4, V=3, beta="1.0", decay="none")
    with torch.no_grad():
        arguments["k"][:] = arguments["k"][:, :1] + 1e-3 * arguments["k"]
        arguments["k"] /= arguments["k"].norm(dim=-1, keepdim=True)
    got = with_gradients(delta_rule, arguments, chunk_size=64, backend="triton")
    compare(got, with_gradients(loop, exactly(arguments)), 3e-5)


def test_results_are_written_whole(triton_device, monkeypatch):
    """Memory that holds NaN before changes nothing."""
    arguments = tensors(torch.float32, triton_device, L=37, B=1, H=1)
    expected = with_gradients(delta_rule, arguments, qk_l2norm=True, backend="triton")
    empty, alike = torch.Tensor.new_empty, torch.empty_like
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **o: empty(*a, **o).fill_(torch.nan))
    monkeypatch.setattr(torch, "empty_like", lambda *a, **o: alike(*a, **o).fill_(torch.nan))
    got = with_gradients(delta_rule, arguments, qk_l2norm=True, backend="triton")
    for name, x in expected.items():
        torch.testing.assert_close(got[name], x, rtol=0, atol=0, msg=name)


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = tensors(torch.float32, triton_device, L=17, B=1, H=1)
    compiled = torch.compile(delta_rule, fullgraph=True, backend="aot_eager")
    expected = with_gradients(delta_rule, arguments, qk_l2norm=True, backend="triton")
    for name, x in with_gradients(compiled, arguments, qk_l2norm=True, backend="triton").items():
        torch.testing.assert_close(x, expected[name], rtol=1e-6, atol=1e-6, msg=name)


def test_what_has_no_kernel_is_refused(triton_device):
    with pytest.raises(BackendError, match="16, 32 or 64 steps, not 24"):
        delta_rule(**tensors(torch.float32, triton_device, L=2), chunk_size=24, backend="triton")
    with pytest.raises(BackendError, match="0 keys of 1025 numbers"):
        delta_rule(**tensors(torch.float32, triton_device, L=1, B=1, H=1, K=1025, V=1), backend="triton")
    arguments = tensors(torch.float32, triton_device, L=1, B=1, H=1, K=512, V=1)
    with pytest.raises(BackendError, match="32 keys of 512 numbers"):
        delta_rule(**arguments, chunk_size=64, backend="triton")


def test_it_compiles_for_gpus(triton_device):
    """bfloat16 without spilling. Of float32, which is split for three passes, some registers go to the first cache."""
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    for dtype, capability, spilled in [(torch.bfloat16, 90, 0), (torch.float32, 80, 512)]:
        arguments = tensors(dtype, triton_device, B=2, L=64, H=2, K=64, V=64)
        with launches() as found:
            with_gradients(delta_rule, arguments, backend="triton")
        code = compile_for_gpus(found, [capability])
        assert len(code) == 5
        assert [entry for entry in code if entry["spilled"] > spilled or entry["shared"] > 160 * 1024] == []


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", [(8, 2048, 8, 128, 128), (1, 65_536, 2, 64, 64), (1, 100, 1, 1024, 300)], ids=str)
def test_large_problems_against_torch(dtype, sizes):
    B, L, H, K, V = sizes
    generator = torch.Generator("cuda").manual_seed(0)
    shapes = dict(q=(B, L, H, K), k=(B, L, H, K), v=(B, L, H, V), beta=(B, L, H), decay=(B, L, H))
    arguments = {n: torch.randn(s, generator=generator, device="cuda") for n, s in shapes.items()}
    arguments["beta"].sigmoid_()
    arguments["decay"] = -torch.nn.functional.softplus(arguments["decay"]) * 0.1
    kinds = {n: dtype if n in "qkv" else torch.float32 for n in shapes}
    arguments = {n: x.to(kinds[n]).requires_grad_() for n, x in arguments.items()}
    got = with_gradients(delta_rule, arguments, qk_l2norm=True, backend="triton")
    exact = {n: x.detach().double().requires_grad_() for n, x in arguments.items()}
    o, state = delta_rule(**exact, qk_l2norm=True, backend="pytorch")
    compare(got, {"o": o.detach().cpu(), "state": state.detach().cpu()}, TOLERANCE[dtype])
