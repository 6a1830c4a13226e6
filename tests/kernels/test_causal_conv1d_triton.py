"""The short convolution in Triton: outputs, the register, every gradient, in any layout; the code for GPUs."""

import importlib

import numpy as np
import pytest
import torch

from statespace.kernels import causal_conv1d
from tests.kernels.compilation import compile_for_gpus, launches
from tests.kernels.test_causal_conv1d import NAMES, options_of, problem

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
CASES = {
    "one": (dict(L=1), dict(activation="silu")),
    "two": (dict(L=2, W=2), dict(seq_idx=True)),
    "a tap": (dict(L=40, W=1), dict(activation="silu")),
    "many taps": (dict(L=9, W=12, D=9), dict(activation="silu", lengths=True)),
    "tiles": (dict(L=73, D=70, B=1), dict(lengths=True)),
    "packed": (dict(L=45, W=3, B=3), dict(seq_idx=True, activation="silu", lengths=True)),
}


@pytest.fixture
def memory_of_nan(monkeypatch):
    """What is never written shows."""
    new_empty = torch.Tensor.new_empty

    def filled(*arguments, **options):
        x = new_empty(*arguments, **options)
        return x.fill_(torch.nan) if x.is_floating_point() else x

    monkeypatch.setattr(torch.Tensor, "new_empty", filled)


@pytest.fixture
def module(triton_device, monkeypatch):
    """The backend; interpreted, with small tiles, so that small records have several."""
    found = importlib.import_module("statespace.kernels.causal_conv1d.gpu_triton")
    if triton_device == "cpu":
        monkeypatch.setattr(found, "TILES", {True: (16, 32), False: (32, 8)})
        monkeypatch.setattr(found, "REPEATS", 2)
    return found


def with_gradients(arguments, options, backend, states=True):
    """Outputs within the lengths, the register, and the gradient of a weighting of both in every argument."""
    x, weight, bias, register = arguments
    given = dict(bias=bias, initial_states=register) if states else {}
    y, final = causal_conv1d(x, weight, return_final_states=True, **given, **options, backend=backend)
    if "lengths" in options:
        y = torch.where(torch.arange(y.shape[-1], device=y.device) < options["lengths"][:, None, None], y, 0)
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(a.shape, generator=generator, dtype=torch.float64).to(a) for a in (y, final)]
    wanted = list(arguments) if states else [x, weight]
    return y, final, *torch.autograd.grad((y, final), wanted, weights)


def compare(arguments, options, dtype, device, states=True):
    given = [torch.from_numpy(a).to(dtype) for a in arguments]
    options = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    exact = [a.double().requires_grad_() for a in given]
    expected = with_gradients(exact, options, "pytorch", states)
    options = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    for last in (False, True):
        here = [a.to(device).requires_grad_() for a in given]
        # Channels last in memory, and a part of a wider row.
        rows = torch.cat([here[0], here[0]], dim=1).transpose(1, 2).contiguous()[..., : here[0].shape[1]]
        x = rows.transpose(1, 2) if last else here[0]
        y = with_gradients([x, *here[1:]], options, "triton", states)
        for name, got, value in zip(("y", "final_states", *NAMES), y, expected, strict=False):
            assert got.dtype == dtype
            scale = max(1.0, value.abs().max().item()) if value.numel() else 1.0
            np.testing.assert_allclose(
                got.detach().double().cpu() / scale, value.detach() / scale, rtol=0, atol=TOLERANCE[dtype],
                err_msg=name,
            )  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_every_gradient(module, triton_device, memory_of_nan, case):
    shape, options = CASES[case]
    arguments = problem(**shape)
    compare(arguments, options_of(options, len(arguments[0]), shape["L"]), torch.float64, triton_device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_types(module, triton_device, dtype):
    compare(problem(L=37), dict(activation="silu"), dtype, triton_device)


def test_neither_bias_nor_states(module, triton_device, memory_of_nan):
    compare(problem(L=37), dict(activation="silu"), torch.float64, triton_device, states=False)


def test_what_is_not_finite_stays_in_its_sequence(module, triton_device):
    x, weight, bias, _ = (torch.from_numpy(a).to(triton_device) for a in problem(L=20))
    seq_idx = torch.arange(20, device=triton_device).div(10, rounding_mode="floor").expand(2, -1)
    expected = causal_conv1d(x, weight, bias, seq_idx, backend="pytorch")[..., 10:]
    x[:, :, 9] = torch.nan
    lengths = torch.tensor([11, 20], device=triton_device)
    got, state = causal_conv1d(x, weight, bias, seq_idx, None, True, lengths=lengths, backend="triton")
    torch.testing.assert_close(got[..., 10:], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(state[0], torch.nn.functional.pad(x[0, :, 10:11], (2, 0)))


def test_rows_stay_as_they_lie(module, triton_device):
    x, weight, _, _ = (torch.from_numpy(a).to(triton_device) for a in problem(L=5))
    rows = x.transpose(1, 2).contiguous().transpose(1, 2)
    for given in (x, rows):
        assert causal_conv1d(given, weight, backend="triton").stride() == given.stride()


def test_it_is_one_piece_of_a_compiled_program(module, triton_device):
    arguments = [torch.from_numpy(a).to(triton_device).requires_grad_() for a in problem(L=9, B=1)]
    compiled = torch.compile(
        lambda x, w, b, r: causal_conv1d(x, w, b, None, r, True, "silu", backend="triton"),
        fullgraph=True,
        backend="aot_eager",
    )
    expected = causal_conv1d(*arguments[:3], None, arguments[3], True, "silu", backend="triton")
    got = compiled(*arguments)
    slopes = [torch.autograd.grad([a.sin().sum() for a in results], arguments) for results in (got, expected)]
    for a, b in zip((*got, *slopes[0]), (*expected, *slopes[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_it_compiles_for_gpus_without_spilling(triton_device):
    if triton_device != "cpu":
        pytest.skip("compiled and run by the other tests")
    arguments = [torch.from_numpy(a).bfloat16().requires_grad_() for a in problem(B=1, D=64, L=128)]
    with launches() as found:
        for x in (arguments[0], arguments[0].transpose(1, 2).contiguous().transpose(1, 2)):
            with_gradients([x, *arguments[1:]], dict(activation="silu"), "triton")
    code = compile_for_gpus(found, [90])
    assert {entry["kernel"] for entry in code} == {"_forward", "_backward", "_last"}
    assert [entry for entry in code if entry["spilled"]] == []


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_long_records_on_a_gpu(dtype):
    compare(problem(B=2, D=130, L=65_539), dict(activation="silu"), dtype, "cuda")


@pytest.mark.gpu
def test_more_numbers_than_32_bits_count():
    L, D = 2**20 + 3, 2050
    x = torch.randn(1, L, D, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
    weight = torch.randn(D, 4, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        got = causal_conv1d(x, weight, activation="silu", backend="triton")[..., -100:].float()
        expected = causal_conv1d(x[..., -200:], weight, activation="silu", backend="pytorch")[..., -100:].float()
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)
