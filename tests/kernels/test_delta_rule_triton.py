"""The delta rule in Triton: outputs, final state and every gradient by name; hard decays, any shape; the code for GPUs."""

import pytest
import torch

from statespace.kernels import BackendError, delta_rule
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_delta_rule import NAMES, loop, problem

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
