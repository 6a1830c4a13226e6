"""One step in Triton against the reference: real and complex, heads and groups, any shape and type; gradients."""

import numpy as np
import pytest
import torch

from statespace.kernels import selective_state_update
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_selective_state_update import CASES, problem

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def cast(arrays, dtype, device):
    tensors = {name: torch.from_numpy(x).to(device) for name, x in arrays.items()}
    return {name: x.to(COMPLEX[dtype] if x.is_complex() else dtype) for name, x in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", [*CASES, dict(channels=67, states=19), dict(states=16, batch=5)], ids=str)
def test_equals_the_reference(triton_device, monkeypatch, options, dtype):
    from statespace.kernels.selective_state_update import gpu_triton

    monkeypatch.setattr(gpu_triton, "NUMBERS", 256)
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *s, **k: new_empty(x, *s, **k).fill_(float("nan")))
    arrays = problem(**options)
    optional = ("D", "z", "dt_bias")
    for given in (arrays, {name: x for name, x in arrays.items() if name not in optional}):
        soft = given is arrays
        expected = selective_state_update(**given, dt_softplus=soft, backend="reference")
        tensors = cast(given, dtype, triton_device)
        before = tensors["state"].clone()
        got = selective_state_update(**tensors, dt_softplus=soft, backend="triton")
        torch.testing.assert_close(tensors["state"], before, rtol=0, atol=0)
        for x, y in zip(got, expected, strict=True):
            tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
            np.testing.assert_allclose(x.cpu().numpy(), y, rtol=0, atol=tolerance * np.abs(y).max())


def test_half_precision_keeps_its_state_in_float32(triton_device):
    arrays = {name: torch.from_numpy(x).to(triton_device).bfloat16() for name, x in problem().items()}
    arrays["state"] = arrays["state"].float()
    y, state = selective_state_update(**arrays, backend="triton")
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    expected = selective_state_update(**arrays, backend="pytorch")
    torch.testing.assert_close(state, expected[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y, expected[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options", [*CASES, dict(channels=67, states=3, groups=1), dict(heads=4, groups=2, channels=35)], ids=str
)
def test_every_gradient_is_that_of_the_reference_formula(triton_device, monkeypatch, options, dtype):
    """As torch differentiates it in float64; shared arrays get theirs from several programs."""
    from statespace.kernels.selective_state_update import gpu_triton

    monkeypatch.setattr(gpu_triton, "NUMBERS", 64)
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *s, **k: new_empty(x, *s, **k).fill_(float("nan")))
    arrays = problem(**options)
    for soft, left_out in ((True, ()), (False, ("D", "z", "dt_bias"))):
        given = {name: x for name, x in arrays.items() if name not in left_out}
        expected = gradients_of(cast(given, torch.float64, triton_device), soft, "pytorch")
        got = gradients_of(cast(given, dtype, triton_device), soft, "triton")
        for name, value in expected.items():
            tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype] * float(value.abs().max())
            torch.testing.assert_close(
                got[name].to(value.dtype), value, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
            )


def gradients_of(tensors, soft, backend):
    leaves = {name: x.requires_grad_() for name, x in tensors.items()}
    y, state = selective_state_update(**leaves, dt_softplus=soft, backend=backend)
    draws = torch.Generator().manual_seed(1)
    weights = (torch.randn(x.shape, generator=draws, dtype=torch.float64) for x in (y, state))
    loss = sum((x * w.to(x.device)).sum() for x, w in zip((y, state.abs().square()), weights, strict=True))
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def test_groups_of_the_input_and_of_the_read_out_may_differ(triton_device):
    arrays = problem(groups=3)
    for B, C in ((arrays["B"][:, 0], arrays["C"]), (arrays["B"], np.concatenate([arrays["C"]] * 2, axis=1))):
        given = arrays | {"B": B, "C": C}
        expected = selective_state_update(**given, backend="reference")
        got = selective_state_update(**cast(given, torch.float64, triton_device), backend="triton")
        for x, y in zip(got, expected, strict=True):
            np.testing.assert_allclose(x.cpu().numpy(), y, rtol=1e-12, atol=1e-12)


def test_half_precision_gets_gradients_in_its_type(triton_device):
    tensors = {name: torch.from_numpy(x).to(triton_device).bfloat16() for name, x in problem().items()}
    tensors["state"], tensors["A"] = tensors["state"].float(), tensors["A"].float()
    exact = gradients_of({name: x.double() for name, x in tensors.items()}, True, "pytorch")
    for name, x in gradients_of(tensors, True, "triton").items():
        assert x.dtype == tensors[name].dtype
        torch.testing.assert_close(x.double(), exact[name], rtol=0, atol=2e-2 * float(exact[name].abs().max()))


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    tensors = cast(problem(heads=2), torch.float32, triton_device)
    compiled = torch.compile(
        lambda **x: selective_state_update(**x, dt_softplus=True, backend="triton"), fullgraph=True, backend="aot_eager"
    )
    leaves = {name: x.requires_grad_() for name, x in tensors.items()}
    expected = selective_state_update(**leaves, dt_softplus=True, backend="triton")
    found = compiled(**leaves)
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    pair = [torch.autograd.grad(y.sum() + s.sum(), list(leaves.values())) for y, s in (found, expected)]
    for x, y in zip(*pair, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        for dtype in (torch.float32, torch.bfloat16):
            arrays = {name: torch.from_numpy(x).to(dtype) for name, x in problem(channels=64, states=16).items()}
            gradients_of(arrays | {"state": arrays["state"].float()}, True, "triton")
    code = compile_for_gpus(found)
    assert len(code) == 2 * 2 * 2
    assert [entry for entry in code if entry["spilled"]] == []
