"""The states of a diagonal system in Triton: values and every gradient, both directions; the code for GPUs."""

import numpy as np
import pytest
import torch

from statespace.kernels import diagonal_states
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_diagonal_scan_triton import (
    BURSTS,
    TOLERANCE,
    assert_equal_results,
    filled_with_nan,  # noqa: F401
    in_full_precision,
)
from tests.kernels.test_diagonal_states import problem

NAMES = "v", "dt", "rate", "initial"


def tensors(dtype, device, leave_out=(), **options):
    given = (torch.from_numpy(np.array(x)) for x in problem(**options))
    kinds = (
        dtype,
        torch.promote_types(dtype, torch.float32),
        torch.complex128,
        torch.promote_types(dtype, torch.float32),
    )
    return {
        name: None if name in leave_out else x.to(device, kind).requires_grad_()
        for name, x, kind in zip(NAMES, given, kinds, strict=True)
    }


def with_gradients(arguments, backend, **rule):
    x = diagonal_states(*arguments.values(), **rule, backend=backend)
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.device)
    given = {name: y for name, y in arguments.items() if y is not None}
    return {"x": x} | dict(zip(given, torch.autograd.grad((x * weights).sum(), given.values()), strict=True))


@pytest.mark.parametrize(
    ("dtype", "rule", "options"),
    [
        (torch.float64, dict(reverse=True), dict(L=1, states=1)),
        (torch.float64, dict(discretization="bilinear"), dict(B=1, L=13)),
        (torch.float64, dict(reverse=True), dict(B=1, L=17, states=70)),
        (torch.float64, dict(), dict(B=2, L=11, gaps=BURSTS, leave_out=("initial",))),
        (torch.float64, dict(reverse=True), dict(B=1, L=9, leave_out=("dt",))),
        (torch.float64, dict(discretization="bilinear"), dict(B=1, L=3, leave_out=("dt",))),
        (torch.float32, dict(reverse=True), dict(B=1, L=11, gaps=BURSTS)),
        (torch.float32, dict(discretization="bilinear"), dict(B=1, L=11, gaps=BURSTS)),
        (torch.bfloat16, dict(), dict(B=1, L=7)),
        (torch.float16, dict(), dict(B=1, L=7, leave_out=("dt",))),
    ],
    ids=str,
)
def test_states_and_gradients(triton_device, filled_with_nan, dtype, rule, options):  # noqa: F811
    arguments = tensors(dtype, triton_device, **options)
    got = with_gradients(arguments, "triton", **rule)
    assert got["x"].dtype == torch.promote_types(dtype, torch.float32)
    assert got["v"].dtype == dtype
    expected = with_gradients(in_full_precision(arguments), "pytorch", **rule)
    assert_equal_results(got, expected, TOLERANCE[dtype])


def test_gaps_that_need_no_gradient(triton_device):
    arguments = tensors(torch.float64, triton_device, B=1, L=9)
    expected = with_gradients(arguments, "triton")
    arguments["dt"] = arguments["dt"].detach()
    x = diagonal_states(*arguments.values(), backend="triton")
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(x.device)
    others = [arguments[name] for name in ("v", "rate", "initial")]
    for name, got in zip(("v", "rate", "initial"), torch.autograd.grad((x * weights).sum(), others), strict=True):
        torch.testing.assert_close(got, expected[name], rtol=0, atol=0)


def test_it_is_one_piece_of_a_compiled_program(triton_device):
    arguments = list(tensors(torch.float32, triton_device, B=1, L=9).values())
    compiled = torch.compile(lambda *x: diagonal_states(*x, backend="triton"), fullgraph=True, backend="aot_eager")
    results = []
    for run in (compiled, lambda *x: diagonal_states(*x, backend="triton")):
        x = run(*arguments)
        results.append([x, *torch.autograd.grad(x.square().sum(), arguments)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    with launches() as found:
        with_gradients(tensors(torch.float32, "cpu", B=1, L=9, states=64), "triton")
        with_gradients(tensors(torch.bfloat16, "cpu", B=1, L=2, states=64), "triton")  # one stretch
    # What runs once more before the others has nothing that those do not have.
    code = compile_for_gpus([launch for launch in found if launch["values"].get("BACK", True)], [80])
    assert {entry["kernel"] for entry in code} == {"_sums", "_forward", "_backward", "through"}
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(8, 4096, 128), (1, 1_048_576, 3), (3, 4099, 65)], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_long_records_on_a_gpu(shape, reverse):
    B, L, states = shape
    arguments = tensors(torch.float32, "cuda", B=B, L=L, states=states)
    got = with_gradients(arguments, "triton", reverse=reverse)
    expected = with_gradients(in_full_precision(arguments), "pytorch", reverse=reverse)
    assert_equal_results(got, expected, 3e-5)
